//! Which bucket and key a request names: path style and virtual-host style.
//!
//! A key is the percent-decoded rest of the path and nothing else is done to it: `..`, `//`, a leading
//! `/` and an encoded `%2e` are bytes of a name here, never steps of a path.

use holdfast_model::limits::KEY_SIZE_MAX;
use s3s::{
    S3Result,
    host::{S3Host, VirtualHost},
};

use crate::errors::Refusal;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The service itself.
    Service,
    /// A bucket.
    Bucket(String),
    /// A key in a bucket.
    Object(String, String),
}

impl Target {
    /// The bucket, if any.
    #[must_use]
    pub fn bucket(&self) -> Option<&str> {
        match self {
            Self::Service => None,
            Self::Bucket(bucket) | Self::Object(bucket, _) => Some(bucket),
        }
    }

    /// The key, if any.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Object(_, key) => Some(key),
            Self::Service | Self::Bucket(_) => None,
        }
    }
}

/// The domains below which `bucket.DOMAIN` names a bucket. Any other host is path style, so that
/// addresses, `localhost` and names unknown to the configuration keep working.
#[derive(Debug, Clone, Default)]
pub struct Domains(Vec<String>);

impl Domains {
    /// `domains` without leading dots or ports.
    #[must_use]
    pub fn new(domains: impl IntoIterator<Item = String>) -> Self {
        Self(domains.into_iter().map(|domain| domain.trim_matches('.').to_ascii_lowercase()).collect())
    }

    /// Whether there is none: then there are no websites.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bucket a `Host` header names.
    #[must_use]
    pub fn bucket_of(&self, host: &str) -> Option<String> {
        self.below(host)
    }

    /// The bucket whose website a `Host` header names: `bucket.website.DOMAIN`.
    #[must_use]
    pub fn website_of(&self, host: &str) -> Option<String> {
        let bucket = self.below(host)?.strip_suffix(WEBSITE)?.strip_suffix('.')?.to_owned();
        (!bucket.is_empty()).then_some(bucket)
    }

    fn below(&self, host: &str) -> Option<String> {
        let host = host.to_ascii_lowercase();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host.as_str(),
        };
        let bucket =
            self.0.iter().find_map(|domain| name.strip_suffix(domain.as_str())?.strip_suffix('.'))?;
        (!bucket.is_empty()).then(|| bucket.to_owned())
    }

    /// Reads a request's target.
    ///
    /// # Errors
    /// `InvalidURI` when the path is not encoded UTF-8 or holds a NUL, `KeyTooLongError`.
    pub fn target(&self, host: Option<&str>, raw_path: &str) -> Result<Target, Refusal> {
        let path = decoded(raw_path)?;
        let path = path.as_str();
        let (bucket, key) = match host.and_then(|host| self.bucket_of(host)) {
            Some(bucket) => (bucket, path),
            None => {
                let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
                (bucket.to_owned(), key)
            }
        };
        check_size(key)?;
        Ok(match (bucket.is_empty(), key.is_empty()) {
            (true, true) => Target::Service,
            (true, false) => return Err(Refusal::new("InvalidBucketName")),
            (false, true) => Target::Bucket(bucket),
            (false, false) => Target::Object(bucket, key.to_owned()),
        })
    }
}

/// The label below a domain under which buckets are websites.
const WEBSITE: &str = "website";

/// The key that the path of a website's address names; empty is its root.
///
/// # Errors
/// As [`Domains::target`].
pub fn website_key(raw_path: &str) -> Result<String, Refusal> {
    let key = decoded(raw_path)?;
    check_size(&key)?;
    Ok(key)
}

/// A path without its first slash.
fn decoded(raw_path: &str) -> Result<String, Refusal> {
    let path = urlencoding::decode(raw_path).map_err(|_| Refusal::new("InvalidURI"))?;
    let path = path.strip_prefix('/').ok_or_else(|| Refusal::new("InvalidURI"))?;
    if path.contains('\0') { Err(Refusal::new("InvalidURI")) } else { Ok(path.to_owned()) }
}

fn check_size(key: &str) -> Result<(), Refusal> {
    if key.len() > KEY_SIZE_MAX {
        return Err(Refusal::new("KeyTooLongError")
            .with("Size", key.len().to_string())
            .with("MaxSizeAllowed", KEY_SIZE_MAX.to_string()));
    }
    Ok(())
}

impl S3Host for Domains {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> S3Result<VirtualHost<'a>> {
        let found = VirtualHost::new(host);
        Ok(match self.bucket_of(host) {
            Some(bucket) => found.with_bucket(bucket),
            None => found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains() -> Domains {
        Domains::new(["s3.example.test".to_owned()])
    }

    fn object(bucket: &str, key: &str) -> Target {
        Target::Object(bucket.to_owned(), key.to_owned())
    }

    #[test]
    fn keys_are_kept_byte_for_byte() {
        for (path, key) in [
            ("/b/../../etc/passwd", "../../etc/passwd"),
            ("/b//x//", "/x//"),
            ("/b/%2e%2e/%2F", "..//"),
            ("/b/a%252Fb", "a%2Fb"),
            ("/b/a+b%20c", "a+b c"),
            ("/b/%C3%A9", "é"),
            ("/b/.", "."),
        ] {
            assert_eq!(domains().target(Some("127.0.0.1:9000"), path), Ok(object("b", key)), "{path}");
        }
    }

    #[test]
    fn hosts_below_a_domain_name_a_bucket_and_others_do_not() {
        let at = |host, path| domains().target(Some(host), path).unwrap();
        assert_eq!(at("my.bucket.S3.example.test:443", "/k"), object("my.bucket", "k"));
        assert_eq!(at("b.s3.example.test", "/"), Target::Bucket("b".to_owned()));
        assert_eq!(at("s3.example.test", "/b/k"), object("b", "k"));
        assert_eq!(at("evils3.example.test", "/b/k"), object("b", "k"));
        assert_eq!(at("localhost:9000", "/"), Target::Service);
        assert_eq!(at("[::1]:9000", "/b/"), Target::Bucket("b".to_owned()));
    }

    #[test]
    fn websites_have_hosts_of_their_own() {
        let of = |host| domains().website_of(host);
        assert_eq!(of("b.website.s3.example.test:443").as_deref(), Some("b"));
        assert_eq!(of("www.b.Website.s3.example.test").as_deref(), Some("www.b"));
        for host in
            ["website.s3.example.test", "b.s3.example.test", "bwebsite.s3.example.test", "b.website.test"]
        {
            assert_eq!(of(host), None, "{host}");
        }
        assert_eq!(website_key("/").as_deref(), Ok(""));
        assert_eq!(website_key("/a%20b/").as_deref(), Ok("a b/"));
        assert_eq!(website_key("/%00").unwrap_err().code, "InvalidURI");
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        let code = |path: &str| domains().target(None, path).unwrap_err().code;
        assert_eq!(code("/b/a%00b"), "InvalidURI");
        assert_eq!(code("/b/%ff"), "InvalidURI");
        assert_eq!(code(&format!("/b/{}", "k".repeat(1025))), "KeyTooLongError");
        assert_eq!(code("//k"), "InvalidBucketName");
        assert!(domains().target(None, &format!("/b/{}", "k".repeat(1024))).is_ok());
    }
}
