//! Errors as people see them in a browser.

use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use s3s::Body;

use crate::{answer::ErrorCode, errors::Refusal};

const CODE: HeaderName = HeaderName::from_static("x-amz-error-code");
const MESSAGE: HeaderName = HeaderName::from_static("x-amz-error-message");

/// What the error is about.
pub(super) struct Subject<'a> {
    pub bucket: &'a str,
    pub key: &'a str,
    pub id: &'a str,
}

/// The page of AWS. `of_document`: why the website's own page could not be shown.
pub(super) fn error(
    subject: &Subject<'_>,
    refusal: &Refusal,
    of_document: Option<&Refusal>,
) -> Response<Body> {
    let title = escaped(&refusal.status().to_string());
    let mut html = format!("<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n<ul>\n");
    item(&mut html, "Code", refusal.code);
    item(&mut html, "Message", refusal.text());
    match refusal.code {
        "NoSuchBucket" | "NoSuchWebsiteConfiguration" => item(&mut html, "BucketName", subject.bucket),
        "NoSuchKey" => item(&mut html, "Key", subject.key),
        _ => {}
    }
    item(&mut html, "RequestId", subject.id);
    html.push_str("</ul>\n");
    if let Some(cause) = of_document {
        html.push_str(
            "<h3>An Error Occurred While Attempting to Retrieve a Custom Error Document</h3>\n<ul>\n",
        );
        item(&mut html, "Code", cause.code);
        item(&mut html, "Message", cause.text());
        html.push_str("</ul>\n");
    }
    html.push_str("<hr/>\n</body>\n</html>\n");
    let mut response = Response::new(Body::from(html));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.extend(refusal.headers.iter().cloned());
    name_error(headers, refusal);
    response.extensions_mut().insert(ErrorCode(refusal.code));
    response
}

/// For programs, that read no pages.
pub(super) fn name_error(headers: &mut HeaderMap, refusal: &Refusal) {
    headers.insert(CODE, HeaderValue::from_static(refusal.code));
    if let Ok(message) = HeaderValue::from_str(refusal.text()) {
        headers.insert(MESSAGE, message);
    }
}

fn item(html: &mut String, name: &str, value: &str) {
    html.push_str(&format!("<li>{name}: {}</li>\n", escaped(value)));
}

/// Text between tags; controls are left out.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_write_into_the_page() {
        let subject = Subject { bucket: "b", key: "<script>alert(1)</script>", id: "1" };
        let response = error(&subject, &Refusal::new("NoSuchKey"), Some(&Refusal::new("AccessDenied")));
        let text = String::from_utf8(response.body().bytes().unwrap().to_vec()).unwrap();
        assert!(!text.contains("<script>") && text.contains("<li>Key: &lt;script&gt;"), "{text}");
        assert!(text.contains("<h1>404 Not Found</h1>") && text.contains("Custom Error Document"), "{text}");
        assert_eq!(response.headers()["x-amz-error-code"], "NoSuchKey");
    }
}
