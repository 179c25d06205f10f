//! Condition keys of a request: what policies may ask about it.
//!
//! Keys that the server derives (who asks, from where, when) are set after those that headers and
//! parameters give, under names that no header reaches; the peer's address is the connection's.
//!
//! Source: AWS, "AWS global condition context keys", "Condition keys for Amazon S3".

use holdfast_access::{
    identity::{Caller, Who},
    policy::Context,
    text::instant_text,
};

use crate::call::Call;

/// Query parameters that are keys, of operations that list.
const PARAMETERS: &[(&str, &str)] = &[
    ("prefix", "s3:prefix"),
    ("delimiter", "s3:delimiter"),
    ("max-keys", "s3:max-keys"),
    ("versionId", "s3:VersionId"),
];

/// Headers that are keys.
const HEADERS: &[(&str, &str)] = &[
    ("referer", "aws:Referer"),
    ("user-agent", "aws:UserAgent"),
    ("if-match", "s3:if-match"),
    ("if-none-match", "s3:if-none-match"),
    ("x-amz-acl", "s3:x-amz-acl"),
    ("x-amz-content-sha256", "s3:x-amz-content-sha256"),
    ("x-amz-copy-source", "s3:x-amz-copy-source"),
    ("x-amz-grant-full-control", "s3:x-amz-grant-full-control"),
    ("x-amz-grant-read", "s3:x-amz-grant-read"),
    ("x-amz-grant-read-acp", "s3:x-amz-grant-read-acp"),
    ("x-amz-grant-write", "s3:x-amz-grant-write"),
    ("x-amz-grant-write-acp", "s3:x-amz-grant-write-acp"),
    ("x-amz-metadata-directive", "s3:x-amz-metadata-directive"),
    ("x-amz-object-lock-legal-hold", "s3:object-lock-legal-hold"),
    ("x-amz-object-lock-mode", "s3:object-lock-mode"),
    ("x-amz-object-lock-retain-until-date", "s3:object-lock-retain-until-date"),
    ("x-amz-object-ownership", "s3:x-amz-object-ownership"),
    ("x-amz-server-side-encryption", "s3:x-amz-server-side-encryption"),
    ("x-amz-server-side-encryption-aws-kms-key-id", "s3:x-amz-server-side-encryption-aws-kms-key-id"),
    ("x-amz-server-side-encryption-customer-algorithm", "s3:x-amz-server-side-encryption-customer-algorithm"),
    ("x-amz-storage-class", "s3:x-amz-storage-class"),
    ("x-amz-website-redirect-location", "s3:x-amz-website-redirect-location"),
];

const MILLIS_A_DAY: i64 = 24 * 3600 * 1000;

/// The context of a request by `caller` at `now` (milliseconds since 1970).
pub(crate) fn of(call: &Call, caller: &Caller, region: &str, now: u64) -> Context {
    let mut context = Context::default();
    for (parameter, key) in PARAMETERS {
        if let Some((_, value)) = call.query.iter().find(|(name, _)| name == parameter) {
            context.set(key, value);
        }
    }
    for (header, key) in HEADERS {
        if let Some(value) = call.headers.get(*header).and_then(|value| value.to_str().ok()) {
            // Policies name sources as `bucket/key`.
            let value = if *header == "x-amz-copy-source" { value.trim_start_matches('/') } else { value };
            context.set(key, value);
        }
    }
    if let Some(until) = context
        .get("s3:object-lock-retain-until-date")
        .and_then(<[String]>::first)
        .and_then(|text| holdfast_access::text::instant_millis(text))
    {
        let left = until.saturating_sub(now.cast_signed()).div_euclid(MILLIS_A_DAY);
        context.set("s3:object-lock-remaining-retention-days", left.to_string());
    }
    if let Some(tags) = call.headers.get("x-amz-tagging").and_then(|value| value.to_str().ok()) {
        let pairs = tags.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        });
        requested_tags(&mut context, pairs);
    }
    context.set("aws:SourceIp", call.peer.to_canonical().to_string());
    context.set("aws:SecureTransport", "true");
    context.set("aws:CurrentTime", instant_text(now));
    context.set("aws:EpochTime", (now / 1000).to_string());
    context.set("aws:RequestedRegion", region);
    context.set("aws:ViaAWSService", "false");
    context.set("aws:PrincipalIsAWSService", "false");
    signature(&mut context, call, now);
    principal(&mut context, caller);
    context
}

fn signature(context: &mut Context, call: &Call, now: u64) {
    let Some(signed) = &call.signed else { return };
    context.set("s3:signatureversion", if signed.version_2 { "AWS" } else { "AWS4-HMAC-SHA256" });
    let kind = match (signed.form, signed.presigned) {
        (true, _) => "POST",
        (false, true) => "REST-QUERY-STRING",
        (false, false) => "REST-HEADER",
    };
    context.set("s3:authType", kind);
    let presigned = call.query.iter().find(|(name, _)| name == "X-Amz-Date").map(|(_, date)| date.as_str());
    let date = if signed.presigned { presigned } else { Some(call.date.as_str()) };
    if let Some(made) = date.and_then(basic_instant) {
        context.set("s3:signatureAge", now.cast_signed().saturating_sub(made).max(0).to_string());
    }
}

/// `20260131T235959Z`
fn basic_instant(text: &str) -> Option<i64> {
    if text.len() != 16 || !text.is_ascii() {
        return None;
    }
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &text[..4],
        &text[4..6],
        &text[6..8],
        &text[9..11],
        &text[11..13],
        &text[13..15]
    );
    holdfast_access::text::instant_millis(&text)
}

pub(crate) fn principal(context: &mut Context, caller: &Caller) {
    let kind = match &caller.who {
        Who::Anonymous => "Anonymous",
        Who::Root => "Account",
        Who::User { .. } => "User",
        Who::Session { .. } => "AssumedRole",
    };
    context.set("aws:PrincipalType", kind);
    context.set("aws:userid", caller.user_id());
    let Some(account) = caller.account() else { return };
    context.set("aws:PrincipalAccount", account.number.to_string());
    // Of a session it is the role's: what a policy can know beforehand.
    if let Some(arn) = caller.arns().next() {
        context.set("aws:PrincipalArn", arn);
    }
    if let Who::User { path_and_name, .. } = &caller.who {
        context.set("aws:username", path_and_name.rsplit('/').next().unwrap_or_default());
    }
    for (name, value) in &caller.tags {
        context.set(&format!("aws:PrincipalTag/{name}"), value);
    }
    if caller.temporary {
        context.set("aws:MultiFactorAuthPresent", "false");
    }
}

/// Tags that a request asks for.
pub(crate) fn requested_tags(context: &mut Context, tags: impl Iterator<Item = (String, String)>) {
    let mut names = Vec::new();
    for (name, value) in tags {
        context.set(&format!("s3:RequestObjectTag/{name}"), value);
        names.push(name);
    }
    context.set_all("s3:RequestObjectTagKeys", names);
}

fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    urlencoding::decode(&spaced).map_or_else(|_| spaced.clone(), std::borrow::Cow::into_owned)
}
