//! The encryption headers of a request: what a client asks to be sealed under, and the key it sends.
//!
//! A customer's key comes base64-encoded with its MD5, over TLS, which is all there is here. It lives as long
//! as the request does and is shown nowhere.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use holdfast_object::{
    api::{Attributes, ObjectError},
    sealing::{CustomerKey, DEFAULT_NAMED_KEY, NamedKey, Sealed, Sealing},
};
use http::HeaderMap;
use md5::{Digest, Md5};

use crate::errors::Refusal;

/// `x-amz-server-side-encryption`
pub(crate) const ALGORITHM: &str = "x-amz-server-side-encryption";
/// `x-amz-server-side-encryption-customer-algorithm`
pub(crate) const CUSTOMER_ALGORITHM: &str = "x-amz-server-side-encryption-customer-algorithm";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";

/// Headers by which a key is chosen that the client does not send along.
const CHOICES: [&str; 4] = [ALGORITHM, KEY_ID, CONTEXT, BUCKET_KEY];

/// Longest id of a named key in bytes (KMS: 2048 for an ARN).
pub(crate) const KEY_ID_SIZE_MAX: usize = 200;

/// The three headers of one customer's key.
struct Names {
    algorithm: &'static str,
    key: &'static str,
    md5: &'static str,
}

const TARGET: Names = Names {
    algorithm: CUSTOMER_ALGORITHM,
    key: "x-amz-server-side-encryption-customer-key",
    md5: "x-amz-server-side-encryption-customer-key-md5",
};

const SOURCE: Names = Names {
    algorithm: "x-amz-copy-source-server-side-encryption-customer-algorithm",
    key: "x-amz-copy-source-server-side-encryption-customer-key",
    md5: "x-amz-copy-source-server-side-encryption-customer-key-md5",
};

fn invalid(name: &'static str, value: &str, said: impl Into<String>) -> Refusal {
    Refusal::because("InvalidArgument", said.into()).with("ArgumentName", name).with("ArgumentValue", value)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"))
}

fn customer_key(headers: &HeaderMap, names: &Names) -> Result<Option<CustomerKey>, Refusal> {
    let (algorithm, key, md5) =
        (text(headers, names.algorithm), text(headers, names.key), text(headers, names.md5));
    if algorithm.is_none() && key.is_none() && md5.is_none() {
        return Ok(None);
    }
    let must = "Requests specifying Server Side Encryption with Customer provided keys must provide";
    if algorithm != Some("AES256") {
        let value = algorithm.unwrap_or("");
        return Err(invalid(names.algorithm, value, format!("{must} a valid encryption algorithm.")));
    }
    let key = key.ok_or_else(|| invalid(names.key, "", format!("{must} an appropriate secret key.")))?;
    let md5 = md5.ok_or_else(|| {
        invalid(names.md5, "", format!("{must} the client calculated MD5 of the secret key."))
    })?;
    // The value is not repeated: it is, or was meant to be, a key.
    let wrong = || invalid(names.key, "", "The secret key was invalid for the specified algorithm.");
    let decoded = zeroize::Zeroizing::new(BASE64.decode(key).map_err(|_| wrong())?);
    let bytes = <[u8; 32]>::try_from(decoded.as_slice()).map_err(|_| wrong())?;
    let computed = BASE64.encode(Md5::digest(decoded.as_slice()));
    if computed != md5 {
        let said = "The calculated MD5 hash of the key did not match the hash that was provided.";
        return Err(invalid(names.md5, md5, said));
    }
    Ok(Some(CustomerKey::from_bytes(bytes)))
}

/// The customer's key for what the request stores or reads.
///
/// # Errors
/// `InvalidArgument` when the three headers are not whole or do not fit each other.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<CustomerKey>, Refusal> {
    customer_key(headers, &TARGET)
}

/// The customer's key for the source of a copy.
///
/// # Errors
/// As [`key`].
pub(crate) fn source_key(headers: &HeaderMap) -> Result<Option<CustomerKey>, Refusal> {
    customer_key(headers, &SOURCE)
}

/// The MD5 of a customer's key, as the client sent it; answers repeat it.
pub(crate) fn key_md5(headers: &HeaderMap) -> Option<String> {
    text(headers, TARGET.md5).map(str::to_owned)
}

/// Has an answer repeat which customer's key it was, where the library has no fields for it.
pub(crate) fn repeat_key(headers: &HeaderMap, answer: &mut HeaderMap) {
    for name in [TARGET.algorithm, TARGET.md5] {
        if let Some(value) = headers.get(name) {
            answer.insert(name, value.clone());
        }
    }
}

/// For what is not a beginning, like reading. Only a customer's key may come.
///
/// # Errors
/// `InvalidArgument` as AWS answers to a choice where there is none, and as [`key`].
pub(crate) fn only_key(headers: &HeaderMap) -> Result<Option<CustomerKey>, Refusal> {
    for name in CHOICES {
        if let Some(value) = text(headers, name) {
            return Err(invalid(name, value, format!("{name} header is not supported for this operation.")));
        }
    }
    key(headers)
}

/// For what begins an object or an upload. `None`: the bucket's default.
///
/// # Errors
/// `InvalidArgument` for combinations that AWS refuses; `NotImplemented` for two layers of KMS.
pub(crate) fn choice(headers: &HeaderMap) -> Result<Option<Sealing>, Refusal> {
    let (algorithm, key_id) = (text(headers, ALGORITHM), text(headers, KEY_ID));
    let context = text(headers, CONTEXT);
    if let Some(key) = key(headers)? {
        if let Some(value) = algorithm.or(key_id) {
            let said = "Server Side Encryption with Customer provided key is incompatible with the encryption method specified";
            return Err(invalid(ALGORITHM, value, said));
        }
        return Ok(Some(Sealing::Customer(key)));
    }
    let named = match algorithm {
        None => false,
        Some("AES256") => false,
        Some("aws:kms") => true,
        Some("aws:kms:dsse") => {
            return Err(Refusal::not_implemented("Two layers of server side encryption (aws:kms:dsse)"));
        }
        Some(other) => {
            return Err(invalid(ALGORITHM, other, "The encryption method specified is not supported"));
        }
    };
    if !named {
        for (name, value) in [(KEY_ID, key_id), (CONTEXT, context)] {
            if let Some(value) = value {
                let said = "Server Side Encryption with AWS KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms";
                return Err(invalid(name, value, said));
            }
        }
        return Ok(algorithm.map(|_| Sealing::Own));
    }
    let id = check_key_id(key_id.unwrap_or(DEFAULT_NAMED_KEY))?;
    Ok(Some(Sealing::Named(NamedKey {
        id: id.to_owned(),
        context: context.map(check_context).transpose()?.unwrap_or_default(),
        bucket_key: text(headers, BUCKET_KEY).is_some_and(|value| value.eq_ignore_ascii_case("true")),
    })))
}

/// # Errors
/// `InvalidArgument` for what cannot be the id of a key.
pub(crate) fn check_key_id(id: &str) -> Result<&str, Refusal> {
    let sound =
        !id.is_empty() && id.len() <= KEY_ID_SIZE_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
    if sound { Ok(id) } else { Err(invalid(KEY_ID, id, "The id of the key is not valid.")) }
}

/// What a request asks for. `None`: the bucket's default, or nothing to open.
///
/// # Errors
/// As [`choice`] and [`only_key`]. Where encryption has no say, its headers are refused.
pub(crate) fn asked(operation: &str, headers: &HeaderMap) -> Result<Option<Sealing>, Refusal> {
    match operation {
        "PutObject" | "PostObject" | "CopyObject" | "CreateMultipartUpload" => choice(headers),
        // See `check_part`.
        "UploadPart" | "CompleteMultipartUpload" => Ok(key(headers)?.map(Sealing::Customer)),
        _ => Ok(only_key(headers)?.map(Sealing::Customer)),
    }
}

/// Whether a part's headers name a choice, which was its upload's to make.
pub(crate) fn chooses(headers: &HeaderMap) -> bool {
    CHOICES.iter().any(|name| headers.contains_key(*name))
}

/// A part, and the completion, may repeat what their upload was begun with.
///
/// # Errors
/// `InvalidArgument` for anything else.
pub(crate) fn check_part(headers: &HeaderMap, upload: &Sealed) -> Result<(), Refusal> {
    let (algorithm, key_id) = (text(headers, ALGORITHM), text(headers, KEY_ID));
    let same = match upload {
        Sealed::Own => algorithm == Some("AES256") && key_id.is_none(),
        Sealed::Customer(_) => false,
        Sealed::Named(named) => {
            algorithm == Some("aws:kms") && key_id.is_none_or(|key_id| key_id == named.id)
        }
    };
    if same {
        return Ok(());
    }
    let value = algorithm.or(key_id).unwrap_or_default();
    Err(invalid(ALGORITHM, value, "x-amz-server-side-encryption header is not supported for this operation."))
}

/// Whether the client may see what is so sealed, for answers that open nothing.
///
/// # Errors
/// What AWS answers to a missing, a wrong and a needless key.
pub(crate) fn admit(headers: &HeaderMap, attributes: &Attributes) -> Result<(), Refusal> {
    let admitted = Sealed::of(attributes).admits(key(headers)?.as_ref());
    admitted.map_err(|refusal| ObjectError::from(refusal).into())
}

fn check_context(given: &str) -> Result<String, Refusal> {
    let said = "The header 'x-amz-server-side-encryption-context' shall be Base64-encoded UTF-8 string holding JSON which represents a string-string map";
    BASE64
        .decode(given)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<BTreeMap<String, String>>(&bytes).ok())
        .map(|_| given.to_owned())
        .ok_or_else(|| invalid(CONTEXT, given, said))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn with_key(key: &[u8], more: &[(&'static str, &str)]) -> HeaderMap {
        let (encoded, md5) = (BASE64.encode(key), BASE64.encode(Md5::digest(key)));
        let mut all: Vec<(&'static str, &str)> =
            vec![(TARGET.algorithm, "AES256"), (TARGET.key, &encoded), (TARGET.md5, &md5)];
        all.extend_from_slice(more);
        headers(&all)
    }

    #[test]
    fn a_customers_key_comes_whole_or_not_at_all() {
        assert!(key(&headers(&[])).unwrap().is_none());
        assert_eq!(key(&with_key(&[7; 32], &[])).unwrap().unwrap().expose(), &[7; 32]);
        assert!(key(&with_key(&[7; 31], &[])).is_err());
        for left_out in [TARGET.algorithm, TARGET.key, TARGET.md5] {
            let mut headers = with_key(&[7; 32], &[]);
            headers.remove(left_out);
            assert_eq!(key(&headers).unwrap_err().code, "InvalidArgument", "{left_out}");
        }
        let mut headers = with_key(&[7; 32], &[]);
        headers.insert(TARGET.md5, BASE64.encode([0; 16]).parse().unwrap());
        let refusal = key(&headers).unwrap_err();
        assert_eq!(refusal.code, "InvalidArgument");
        assert!(!format!("{refusal:?}").contains(&BASE64.encode([7; 32])), "a key is shown nowhere");
    }

    #[test]
    fn choices_that_contradict_each_other_are_refused() {
        let code = |headers: &HeaderMap| choice(headers).map(|_| ()).map_err(|refusal| refusal.code);
        for (pairs, expected) in [
            (&[(ALGORITHM, "rot13")][..], Err("InvalidArgument")),
            (&[(KEY_ID, "k")], Err("InvalidArgument")),
            (&[(ALGORITHM, "AES256"), (KEY_ID, "k")], Err("InvalidArgument")),
            (&[(ALGORITHM, "aws:kms:dsse")], Err("NotImplemented")),
            (&[(ALGORITHM, "aws:kms"), (CONTEXT, "W10=")], Err("InvalidArgument")),
            (&[(ALGORITHM, "aws:kms"), (CONTEXT, "eyJhIjoiYiJ9")], Ok(())),
            (&[(ALGORITHM, "aws:kms"), (KEY_ID, "k")], Ok(())),
            (&[(ALGORITHM, "AES256")], Ok(())),
        ] {
            assert_eq!(code(&headers(pairs)), expected, "{pairs:?}");
        }
        assert!(choice(&headers(&[])).unwrap().is_none());
        assert_eq!(code(&with_key(&[1; 32], &[(ALGORITHM, "AES256")])), Err("InvalidArgument"));
        assert!(matches!(choice(&with_key(&[1; 32], &[])), Ok(Some(Sealing::Customer(_)))));
    }

    #[test]
    fn what_is_read_has_no_choice() {
        assert!(only_key(&headers(&[(ALGORITHM, "AES256")])).is_err());
        assert!(only_key(&with_key(&[1; 32], &[])).unwrap().is_some());
    }
}
