//! Browser forms: `multipart/form-data` posted to a bucket stores its file as an object.
//!
//! The fields before the file are read whole, within [`FORM_FIELDS_SIZE_MAX`]; the file is never gathered: it
//! passes as the body of a PUT that the fields describe. The form's policy is the signature: it is verified,
//! and every field checked against it, before a byte of the file is read.
//!
//! A form may be signed by version 4, or by version 2: there HMAC-SHA1 of the policy, as programs that write forms
//! still do. It covers neither less nor more than version 4 does here: the policy, whose end bounds it.
//!
//! Source: AWS, "Authenticating requests: browser-based uploads using POST", "POST Object"; for version 2,
//! "Browser-Based Uploads Using POST (AWS Signature Version 2)".

mod multipart;

use futures::StreamExt;
use holdfast_access::form::{FormError, FormPolicy};
use holdfast_model::limits::PUT_SIZE_MAX;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use ring::hmac;

pub(crate) use self::multipart::{File, Form, boundary, open};

use crate::{
    errors::Refusal,
    identities::{self, Identities, Signer},
    intake::{Fault, Source},
    sigv4::{Signed, signing_key},
};

/// Fields that become headers of the PUT by another name.
const RENAMED: &[(&str, &str)] = &[("acl", "x-amz-acl")];

/// Fields that become headers as they are.
const KEPT: &[&str] = &[
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
];

/// Fields of the form itself.
const OF_FORM: &[&str] =
    &["x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature", "x-amz-security-token"];

/// The file, refused where it is longer or shorter than its policy allows.
pub(crate) fn bounded(file: File, length: Option<(u64, u64)>) -> Source {
    let (least, most) = length.unwrap_or((0, PUT_SIZE_MAX));
    let most = most.min(PUT_SIZE_MAX);
    let counted = futures::stream::try_unfold((file, 0_u64), move |(mut file, passed)| async move {
        match file.next().await.transpose()? {
            Some(piece) => {
                let passed = passed + piece.len() as u64;
                if passed > most {
                    return Err(Fault::FileTooLarge(most));
                }
                Ok(Some((piece, (file, passed))))
            }
            None if passed < least => Err(Fault::FileTooSmall(least)),
            None => Ok(None),
        }
    });
    Box::pin(counted)
}

/// What a form asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The object's key.
    pub key: String,
    /// Headers of the PUT.
    pub headers: HeaderMap,
    /// Who signed its policy.
    pub signed: Option<(Signed, Signer)>,
    /// The file's least and largest size.
    pub length: Option<(u64, u64)>,
    /// Status when there is no redirect.
    status: StatusCode,
    redirect: Option<String>,
}

impl From<FormError> for Refusal {
    fn from(FormError(code, said): FormError) -> Self {
        Self::because(code, said)
    }
}

fn missing(field: &'static str) -> Refusal {
    let said = format!(
        "Bucket POST must contain a field named '{field}'.  If it is specified, please check the order of the fields."
    );
    Refusal::because("InvalidArgument", said).with("ArgumentName", field).with("ArgumentValue", "")
}

/// Reads the fields of a form for `bucket`.
///
/// # Errors
/// What AWS answers to a form that is incomplete, not signed by whom it says, or against its policy.
pub(crate) fn read(
    form: &Form,
    bucket: &str,
    region: &str,
    identities: &dyn Identities,
) -> Result<Asked, Refusal> {
    let field =
        |name: &str| form.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let key = field("key").filter(|key| !key.is_empty()).ok_or_else(|| missing("key"))?;
    let key = key.replace("${filename}", &form.filename);
    if key.is_empty() || key.contains('\0') {
        return Err(missing("key"));
    }
    if key.len() > holdfast_model::limits::KEY_SIZE_MAX {
        return Err(Refusal::new("KeyTooLongError"));
    }
    let mut length = None;
    let signed = match field("policy") {
        Some(policy) => {
            let signed = if is_version_2(field) {
                verify_version_2(policy, field, region, identities)?
            } else {
                verify(policy, field, region, identities)?
            };
            let document = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, policy.trim())
                .map_err(|_| {
                    FormError("InvalidPolicyDocument", "Invalid Policy: Invalid Base64.".to_owned())
                })?;
            let parsed = FormPolicy::parse(&document)?;
            // What is posted to is the bucket, whatever the form says.
            let mut fields: Vec<(String, String)> =
                form.fields.iter().filter(|(name, _)| name != "bucket").cloned().collect();
            fields.push(("bucket".to_owned(), bucket.to_owned()));
            for (name, value) in &mut fields {
                if name == "key" {
                    value.clone_from(&key);
                }
            }
            parsed.check(&fields, identities.now_millis())?;
            length = parsed.length();
            Some(signed)
        }
        // Who signs is never taken for somebody who does not sign.
        None if field("x-amz-signature").is_some() || is_version_2(field) => {
            return Err(missing("policy"));
        }
        None => None,
    };
    let redirect = field("success_action_redirect").or_else(|| field("redirect")).map(str::to_owned);
    let status = match field("success_action_status") {
        Some("200") => StatusCode::OK,
        Some("201") => StatusCode::CREATED,
        _ => StatusCode::NO_CONTENT,
    };
    Ok(Asked { key, headers: headers(form)?, signed, length, status, redirect })
}

/// Whether a form says that version 2 signed it, in whole or in part.
fn is_version_2<'a>(field: impl Fn(&str) -> Option<&'a str>) -> bool {
    field("awsaccesskeyid").is_some() || field("signature").is_some()
}

fn verify_version_2<'a>(
    policy: &str,
    field: impl Fn(&str) -> Option<&'a str>,
    region: &str,
    identities: &dyn Identities,
) -> Result<(Signed, Signer), Refusal> {
    let access_key = field("awsaccesskeyid").ok_or_else(|| missing("AWSAccessKeyId"))?;
    let signature = field("signature").ok_or_else(|| missing("signature"))?;
    let signed = Signed::of_form_version_2(
        access_key,
        signature,
        region,
        field("x-amz-security-token").map(str::to_owned),
    );
    let signer = identities::signer(identities, &signed.access_key, signed.token.as_deref())?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, signer.secret.as_bytes());
    let given = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signature.trim());
    // Compared in constant time by ring.
    hmac::verify(&key, policy.as_bytes(), &given.unwrap_or_default())
        .map_err(|_| Refusal::new("SignatureDoesNotMatch"))?;
    Ok((signed, signer))
}

fn verify<'a>(
    policy: &str,
    field: impl Fn(&str) -> Option<&'a str>,
    region: &str,
    identities: &dyn Identities,
) -> Result<(Signed, Signer), Refusal> {
    let algorithm = field("x-amz-algorithm").ok_or_else(|| missing("X-Amz-Algorithm"))?;
    if algorithm != "AWS4-HMAC-SHA256" {
        return Err(Refusal::because(
            "InvalidRequest",
            "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\".",
        ));
    }
    let credential = field("x-amz-credential").ok_or_else(|| missing("X-Amz-Credential"))?;
    let signature = field("x-amz-signature").ok_or_else(|| missing("X-Amz-Signature"))?;
    field("x-amz-date").ok_or_else(|| missing("X-Amz-Date"))?;
    let mut signed = Signed::build(credential, "host", signature.to_owned(), false)?;
    signed.form = true;
    signed.token = field("x-amz-security-token").map(str::to_owned);
    signed.check_region(region)?;
    let signer = identities::signer(identities, &signed.access_key, signed.token.as_deref())?;
    let key = signing_key(&signer.secret, &signed.scope);
    let given = hex::decode(signature).unwrap_or_default();
    // Compared in constant time by ring.
    hmac::verify(&key, policy.as_bytes(), &given).map_err(|_| Refusal::new("SignatureDoesNotMatch"))?;
    Ok((signed, signer))
}

/// Headers of the PUT that the fields describe.
fn headers(form: &Form) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| {
        let invalid = || Refusal::new("InvalidArgument").with("ArgumentName", name.to_owned());
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| invalid())?;
        headers.insert(name, value);
        Ok::<_, Refusal>(())
    };
    for (name, value) in &form.fields {
        let renamed = RENAMED.iter().find(|(field, _)| field == name);
        if let Some((_, header)) = renamed {
            add(header, value)?;
        } else if KEPT.contains(&name.as_str())
            || (name.starts_with("x-amz-") && !OF_FORM.contains(&name.as_str()))
        {
            add(name, value)?;
        } else if name == "tagging" {
            add("x-amz-tagging", &tags(value)?)?;
        }
    }
    Ok(headers)
}

/// A `Tagging` document as the header writes it.
fn tags(document: &str) -> Result<String, Refusal> {
    let malformed = || Refusal::new("MalformedXML");
    let unescape = |text: &str| {
        let text =
            text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
        text.replace("&amp;", "&")
    };
    let inside = |text: &str, name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(inner, _)| unescape(inner))
    };
    if !document.contains("<Tagging") || !document.contains("</Tagging>") {
        return Err(malformed());
    }
    let mut pairs = Vec::new();
    for tag in document.split("<Tag>").skip(1) {
        let tag = tag.split_once("</Tag>").ok_or_else(malformed)?.0;
        let key = inside(tag, "Key").ok_or_else(malformed)?;
        let value = inside(tag, "Value").ok_or_else(malformed)?;
        pairs.push(format!("{}={}", urlencoding::encode(&key), urlencoding::encode(&value)));
    }
    Ok(pairs.join("&"))
}

impl Asked {
    /// The answer to a form whose file was stored.
    pub(crate) fn answer(&self, put: &HeaderMap, bucket: &str, location: &str) -> Response<s3s::Body> {
        let etag = put.get(header::ETAG).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut response = Response::new(s3s::Body::empty());
        for (name, value) in put {
            if name == header::ETAG || name.as_str().starts_with("x-amz-") {
                response.headers_mut().insert(name.clone(), value.clone());
            }
        }
        let found =
            self.redirect.as_deref().filter(|url| url.starts_with("http://") || url.starts_with("https://"));
        if let Some(url) = found {
            let separator = if url.contains('?') { '&' } else { '?' };
            let url = format!(
                "{url}{separator}bucket={}&key={}&etag={}",
                urlencoding::encode(bucket),
                urlencoding::encode(&self.key),
                urlencoding::encode(etag)
            );
            if let Ok(url) = HeaderValue::from_str(&url) {
                *response.status_mut() = StatusCode::SEE_OTHER;
                response.headers_mut().insert(header::LOCATION, url);
                return response;
            }
        }
        *response.status_mut() = self.status;
        if let Ok(location) = HeaderValue::from_str(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        if self.status == StatusCode::CREATED {
            let escape = |text: &str| {
                text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
            };
            let xml = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Location>{}</Location><Bucket>{}</Bucket><Key>{}</Key><ETag>{}</ETag></PostResponse>",
                escape(location),
                escape(bucket),
                escape(&self.key),
                escape(etag)
            );
            *response.body_mut() = s3s::Body::from(xml);
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        }
        response
    }
}
