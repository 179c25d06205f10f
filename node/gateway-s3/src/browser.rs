//! What browsers ask and are told: preflight requests, and the headers that let a page read an answer.
//!
//! Source: Fetch standard, section 3.2; AWS, "How does Amazon S3 evaluate the CORS configuration".

use holdfast_access::cors::{Answer, Cors};
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

use crate::errors::Refusal;

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Answers a preflight by the bucket's rules; `None`: the bucket has none, or is not there.
///
/// # Errors
/// `BadRequest` when it is no preflight, `AccessForbidden` when no rule allows it.
pub(crate) fn preflight(headers: &HeaderMap, cors: Option<&Cors>) -> Result<Response<s3s::Body>, Refusal> {
    let Some(origin) = text(headers, &header::ORIGIN) else {
        return Err(Refusal::because(
            "BadRequest",
            "Insufficient information. Origin request header needed.",
        ));
    };
    let method = text(headers, &header::ACCESS_CONTROL_REQUEST_METHOD).unwrap_or("null");
    if !holdfast_access::cors::METHODS.contains(&method) {
        return Err(Refusal::because(
            "BadRequest",
            format!("Invalid Access-Control-Request-Method: {method}"),
        ));
    }
    let cors = cors.ok_or_else(|| Refusal::new("AccessForbidden").with("Method", method))?;
    let asked = text(headers, &header::ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or("");
    let asked: Vec<&str> = asked.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let Some(answer) = cors.find(origin, method, &asked) else {
        let said = "CORSResponse: This CORS request is not allowed. This is usually because the evalution of \
                    Origin, request method / Access-Control-Request-Method or Access-Control-Request-Headers are \
                    not whitelisted by the resource's CORS spec.";
        return Err(Refusal::because("AccessForbidden", said).with("Method", method));
    };
    let mut response = Response::new(s3s::Body::empty());
    dress(response.headers_mut(), &answer);
    if !asked.is_empty() {
        insert(
            response.headers_mut(),
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            &asked.join(", ").to_lowercase(),
        );
    }
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(response)
}

/// Adds what lets a page of the request's origin read the answer, if a rule does. A request that names a method to
/// ask about, as a preflight does, is judged by that one, as AWS does.
pub(crate) fn allow(request: &HeaderMap, method: &str, cors: Option<&Cors>, answer: &mut HeaderMap) {
    let Some(origin) = text(request, &header::ORIGIN) else { return };
    let method = text(request, &header::ACCESS_CONTROL_REQUEST_METHOD).unwrap_or(method);
    if let Some(found) = cors.and_then(|cors| cors.find(origin, method, &[])) {
        dress(answer, &found);
    }
}

fn dress(headers: &mut HeaderMap, answer: &Answer<'_>) {
    insert(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, answer.origin);
    insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, &answer.rule.methods.join(", "));
    if answer.credentials() {
        insert(headers, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    if !answer.rule.expose.is_empty() {
        insert(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, &answer.rule.expose.join(", "));
    }
    if let Some(seconds) = answer.rule.max_age_seconds {
        insert(headers, header::ACCESS_CONTROL_MAX_AGE, &seconds.to_string());
    }
    insert(headers, header::VARY, "Origin, Access-Control-Request-Headers, Access-Control-Request-Method");
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use holdfast_access::cors::Rule;

    use super::*;

    #[test]
    fn a_request_that_asks_about_a_method_is_judged_by_it() {
        let rule = Rule { origins: vec!["*".into()], methods: vec!["GET".into()], ..Rule::default() };
        let cors = Cors { rules: vec![rule] };
        let allowed = |method: &str, asked: Option<&'static str>| {
            let mut request = HeaderMap::new();
            request.insert(header::ORIGIN, HeaderValue::from_static("http://a"));
            if let Some(asked) = asked {
                request.insert(header::ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static(asked));
            }
            let mut answer = HeaderMap::new();
            allow(&request, method, Some(&cors), &mut answer);
            answer.contains_key(header::ACCESS_CONTROL_ALLOW_METHODS)
        };
        assert!(allowed("GET", None));
        assert!(!allowed("PUT", None));
        assert!(allowed("PUT", Some("GET")));
        assert!(!allowed("GET", Some("PUT")));
    }
}
