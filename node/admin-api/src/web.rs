//! The console's files, embedded by `build.rs`, and how they are served.
//!
//! Names under `assets/` carry a hash of their content and are cached for good; every other file has an ETag
//! and is asked for again. Paths that name no file get the console's page, which routes by itself; paths under
//! `/api/` never do.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use ring::digest;

use crate::problem::{self, Problem};

/// One embedded file.
struct File {
    /// Path without the leading slash.
    path: &'static str,
    bytes: &'static [u8],
    /// The same, Brotli (RFC 7932), when the console's build made it smaller.
    brotli: Option<&'static [u8]>,
}

// Generated: `static FILES: &[File]`, sorted by path, and `pub const CONSOLE_INCLUDED: bool`.
include!(concat!(env!("OUT_DIR"), "/console.rs"));

const INDEX: &str = "index.html";
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

/// Strong ETags, in the order of `FILES`.
static ETAGS: LazyLock<Vec<HeaderValue>> =
    LazyLock::new(|| FILES.iter().map(|file| etag(file.bytes)).collect());

pub(crate) async fn serve(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    if path == "api" || path.starts_with("api/") {
        return Problem::not_found("There is no such route; openapi.json lists those there are.")
            .into_response();
    }
    if !matches!(method, Method::GET | Method::HEAD) {
        return problem::method_not_allowed(method).await.into_response();
    }
    let is_page = !path.rsplit('/').next().unwrap_or_default().contains('.');
    match find(path).or_else(|| if is_page { find(INDEX) } else { None }) {
        Some(index) => answer(index, &headers),
        None => Problem::not_found("There is no such file.").into_response(),
    }
}

fn find(path: &str) -> Option<usize> {
    FILES.binary_search_by(|file| file.path.cmp(path)).ok()
}

fn answer(index: usize, request: &HeaderMap) -> Response {
    let file = &FILES[index];
    let brotli = file.brotli.filter(|_| accepts_brotli(request));
    let tag = if brotli.is_some() { encoded_tag(&ETAGS[index]) } else { ETAGS[index].clone() };
    let mut headers = HeaderMap::new();
    headers
        .insert(header::CACHE_CONTROL, if file.path.starts_with("assets/") { IMMUTABLE } else { REVALIDATE });
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let unchanged = request.get_all(header::IF_NONE_MATCH).iter().any(|value| names(value, &tag));
    headers.insert(header::ETAG, tag);
    if unchanged {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(file.path)));
    if brotli.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("br"));
    }
    (headers, brotli.unwrap_or(file.bytes)).into_response()
}

fn etag(bytes: &[u8]) -> HeaderValue {
    let digest = digest::digest(&digest::SHA256, bytes);
    HeaderValue::try_from(format!("\"{}\"", hex::encode(&digest.as_ref()[..16]))).expect("hex in quotes")
}

/// Another representation has another strong tag (RFC 9110, section 8.8.3).
fn encoded_tag(tag: &HeaderValue) -> HeaderValue {
    let tag = tag.to_str().expect("made of hex").trim_matches('"').to_owned();
    HeaderValue::try_from(format!("\"{tag}-br\"")).expect("hex in quotes")
}

fn names(if_none_match: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(list), Ok(tag)) = (if_none_match.to_str(), tag.to_str()) else { return false };
    list.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == "*" || one == tag)
}

fn accepts_brotli(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).any(|offer| {
        let mut parts = offer.split(';').map(str::trim);
        let refused = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        parts.next() == Some("br") && !parts.any(refused)
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    fn headers(pairs: &[(http::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    async fn get(path: &'static str, request: HeaderMap) -> Response {
        serve(Method::GET, Uri::from_static(path), request).await
    }

    #[tokio::test]
    async fn pages_get_the_console_and_missing_files_and_routes_do_not() {
        for page in ["/", "/nodes", "/tenants/acme"] {
            let response = get(page, HeaderMap::new()).await;
            assert_eq!(response.status(), StatusCode::OK, "{page}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
        }
        for missing in ["/assets/none.js", "/favicon.none", "/api/v2/x", "/api"] {
            assert_eq!(get(missing, HeaderMap::new()).await.status(), StatusCode::NOT_FOUND, "{missing}");
        }
        let post = serve(Method::POST, Uri::from_static("/"), HeaderMap::new()).await;
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn an_unchanged_page_is_not_sent_again() {
        let first = get("/", HeaderMap::new()).await;
        let tag = first.headers()[header::ETAG].clone();
        let again = get("/", [(header::IF_NONE_MATCH, tag)].into_iter().collect()).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(to_bytes(again.into_body(), 1).await.unwrap().is_empty());
    }

    #[test]
    fn brotli_is_sent_to_those_who_accept_it() {
        let accepts = |value| accepts_brotli(&headers(&[(header::ACCEPT_ENCODING, value)]));
        assert!(accepts("gzip, deflate, br") && accepts("br;q=0.5"));
        assert!(!accepts("gzip") && !accepts("br;q=0") && !accepts("brx"));
    }

    #[test]
    fn files_are_sorted_and_the_page_is_among_them() {
        assert!(FILES.is_sorted_by_key(|file| file.path));
        assert!(find(INDEX).is_some());
    }
}
