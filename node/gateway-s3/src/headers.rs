//! Which `x-amz-` headers the gateway acts on. Every other one asks for something that is not there, and
//! is refused: a client that asks for object lock and is answered 200 believes in a lock that is not held.

use http::HeaderMap;

use crate::errors::Refusal;

/// Headers acted on, or harmless by their meaning.
const KNOWN: &[&str] = &[
    "x-amz-acl",
    "x-amz-grant-full-control",
    "x-amz-grant-read",
    "x-amz-grant-read-acp",
    "x-amz-grant-write",
    "x-amz-grant-write-acp",
    "x-amz-object-ownership",
    "x-amz-security-token",
    "x-amz-bypass-governance-retention",
    "x-amz-checksum-algorithm",
    "x-amz-checksum-mode",
    "x-amz-checksum-type",
    // Nobody is kept from locking themselves out, so there is nothing to confirm.
    "x-amz-confirm-remove-self-bucket-access",
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-unmodified-since",
    "x-amz-copy-source-range",
    "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-copy-source-server-side-encryption-customer-key-md5",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-expected-bucket-owner",
    "x-amz-max-parts",
    "x-amz-metadata-directive",
    "x-amz-mp-object-size",
    "x-amz-object-attributes",
    "x-amz-object-lock-legal-hold",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-optional-object-attributes",
    "x-amz-part-number-marker",
    "x-amz-request-payer",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-server-side-encryption-customer-key-md5",
    "x-amz-source-expected-bucket-owner",
    "x-amz-storage-class",
    "x-amz-tagging",
    "x-amz-tagging-directive",
    "x-amz-te",
    "x-amz-trailer",
    "x-amz-transition-default-minimum-object-size",
    "x-amz-user-agent",
    "x-amz-website-redirect-location",
];

/// Headers whose given value asks for what is the case anyway.
const HARMLESS_VALUES: &[(&str, &[&str])] =
    &[("x-amz-bucket-object-lock-enabled", &["false", "true", "False", "True"])];

/// # Errors
/// What AWS answers when a header asks for something a bucket cannot do.
pub fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    for (name, value) in headers {
        let name = name.as_str();
        if !name.starts_with("x-amz-") || name.starts_with("x-amz-meta-") || KNOWN.contains(&name) {
            continue;
        }
        if crate::intake::checksum::Algorithm::by_header(name).is_some() {
            continue;
        }
        let value = value.to_str().unwrap_or("\u{fffd}");
        let harmless = HARMLESS_VALUES.iter().find(|(known, _)| *known == name);
        if harmless.is_some_and(|(_, values)| values.contains(&value)) {
            continue;
        }
        return Err(refusal(name));
    }
    Ok(())
}

fn refusal(name: &str) -> Refusal {
    let said = format!("A header you provided implies functionality that is not implemented: {name}.");
    Refusal::because("NotImplemented", said).with("Header", name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(name: &'static str, value: &str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        check(&headers).err().map(|refusal| refusal.code)
    }

    #[test]
    fn what_is_the_case_anyway_is_accepted() {
        for (name, value) in [
            ("x-amz-server-side-encryption", "AES256"),
            ("x-amz-storage-class", "STANDARD"),
            ("x-amz-meta-anything", "x"),
            ("x-amz-checksum-sha256", "x"),
        ] {
            assert_eq!(code(name, value), None, "{name}");
        }
    }

    #[test]
    fn what_is_not_there_is_refused_and_never_ignored() {
        for (name, value, expected) in [
            ("x-amz-bucket-object-lock-enabled", "perhaps", "NotImplemented"),
            ("x-amz-write-offset-bytes", "10", "NotImplemented"),
            ("x-amz-a-header-of-next-year", "1", "NotImplemented"),
        ] {
            assert_eq!(code(name, value), Some(expected), "{name}: {value}");
        }
    }
}
