//! A verified request as the second pass is to read it.
//!
//! Gone are the signature, and what RFC 9110 says a server ignores: a `Range` it does not understand
//! (section 14.2; AWS ignores several ranges as well) and conditions on dates that are none (section 13.1.3).

use http::{HeaderMap, Uri, header};
use s3s::dto::Range;

use crate::errors::Refusal;

/// Without the parameters of a signature.
pub(crate) fn uri(uri: &Uri) -> Result<Uri, Refusal> {
    let Some(query) = uri.query() else { return Ok(uri.clone()) };
    let kept: Vec<&str> =
        query.split('&').filter(|pair| !pair.starts_with("X-Amz-") && !pair.starts_with("x-amz-")).collect();
    let mut parts = uri.clone().into_parts();
    let path =
        if kept.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), kept.join("&")) };
    parts.path_and_query = Some(path.parse().map_err(|_| Refusal::new("InvalidURI"))?);
    Uri::from_parts(parts).map_err(|_| Refusal::new("InvalidURI"))
}

/// Headers that handlers read from the head as it was sent, more leniently or with better errors than the
/// library does.
const READ_BY_HANDLERS: &[&str] = &[
    "expires", // kept with an object as it was written
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-unmodified-since",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-unmodified-since",
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
];

/// Without the signature and what is to be ignored.
pub(crate) fn headers(mut headers: HeaderMap) -> HeaderMap {
    headers.remove(header::AUTHORIZATION);
    let range = headers.get(header::RANGE).map(|value| value.to_str().unwrap_or("").to_owned());
    if range.is_some_and(|range| Range::parse(&range).is_err()) {
        headers.remove(header::RANGE);
    }
    for name in READ_BY_HANDLERS {
        headers.remove(*name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_goes_and_the_rest_of_the_query_stays_as_it_was() {
        let signed = "/b/k%2F?partNumber=1&X-Amz-Signature=ff&uploadId=%20x&X-Amz-Date=1&x-amz-acl=private";
        assert_eq!(uri(&signed.parse().unwrap()).unwrap(), "/b/k%2F?partNumber=1&uploadId=%20x");
        assert_eq!(uri(&"/b?X-Amz-Date=1".parse().unwrap()).unwrap(), "/b");
        assert_eq!(uri(&"https://h:1/b?X-Amz-Date=1&a".parse().unwrap()).unwrap(), "https://h:1/b?a");
    }

    #[test]
    fn what_cannot_be_understood_is_ignored() {
        let left = |name: &'static str, value: &str| {
            headers(HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])).len()
        };
        assert_eq!(left("range", "bytes=0-1"), 1);
        assert_eq!(left("range", "bytes=0-1,3-4"), 0);
        assert_eq!(left("if-modified-since", "yesterday"), 0);
    }
}
