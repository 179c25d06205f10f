//! Object lock: a bucket's configuration, retention and legal hold of versions.
//!
//! What is locked is decided by the catalog, by a clock of its own that never goes back; the time of day
//! only tells a date in the past from one in the future when a client asks for it.

use holdfast_model::UnixMillis;
use holdfast_object::versioned::{
    BucketChange, DefaultRetention, ObjectChange, Retention, RetentionMode, RetentionPeriod,
};
use http::HeaderMap;
use s3s::{
    S3Request, S3Response,
    dto::{
        self, GetObjectLegalHoldInput, GetObjectLegalHoldOutput, GetObjectLockConfigurationInput,
        GetObjectLockConfigurationOutput, GetObjectRetentionInput, GetObjectRetentionOutput,
        ObjectLockConfiguration, ObjectLockEnabled, ObjectLockLegalHold, ObjectLockLegalHoldStatus,
        ObjectLockRetention, ObjectLockRetentionMode, ObjectLockRule, PutObjectLegalHoldInput,
        PutObjectLegalHoldOutput, PutObjectLockConfigurationInput, PutObjectLockConfigurationOutput,
        PutObjectRetentionInput, PutObjectRetentionOutput, Timestamp, TimestampFormat,
    },
};

use crate::{
    errors::Refusal,
    ops::shared::{same_version, timestamp, version},
    service::Context,
};

/// Longest default retention in days: 100 years.
const DEFAULT_DAYS_MAX: i32 = 36_500;

/// Longest default retention in years.
const DEFAULT_YEARS_MAX: i32 = 100;

const NANOS_PER_MILLI: i128 = 1_000_000;

const MODE: &str = "x-amz-object-lock-mode";
const UNTIL: &str = "x-amz-object-lock-retain-until-date";
const HOLD: &str = "x-amz-object-lock-legal-hold";

/// The lock a new object is to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub retention: Option<Retention>,
    pub legal_hold: bool,
}

/// # Errors
/// `InvalidRequest` where objects cannot be locked.
pub(super) async fn check_enabled(cx: &Context, bucket: &str) -> Result<(), Refusal> {
    if cx.objects.bucket(bucket).await?.object_lock {
        return Ok(());
    }
    Err(Refusal::because("InvalidRequest", "Bucket is missing Object Lock Configuration"))
}

fn mode(text: &str) -> Option<RetentionMode> {
    match text {
        ObjectLockRetentionMode::GOVERNANCE => Some(RetentionMode::Governance),
        ObjectLockRetentionMode::COMPLIANCE => Some(RetentionMode::Compliance),
        _ => None,
    }
}

pub(super) fn mode_text(mode: RetentionMode) -> &'static str {
    match mode {
        RetentionMode::Governance => ObjectLockRetentionMode::GOVERNANCE,
        RetentionMode::Compliance => ObjectLockRetentionMode::COMPLIANCE,
    }
}

/// A moment that is still to come.
fn future(date: &Timestamp) -> Result<UnixMillis, Refusal> {
    let past = || Refusal::because("InvalidArgument", "The retain until date must be in the future!");
    if *date <= Timestamp::from(holdfast_clock::system_time()) {
        return Err(past());
    }
    let millis = time::OffsetDateTime::from(date.clone()).unix_timestamp_nanos() / NANOS_PER_MILLI;
    u64::try_from(millis).map(UnixMillis::new).map_err(|_| past())
}

impl Asked {
    /// From the headers of a request that makes an object.
    ///
    /// # Errors
    /// `InvalidArgument`, in AWS's words.
    pub(super) fn parse(headers: &HeaderMap) -> Result<Self, Refusal> {
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("").trim());
        let wrong = |name: &'static str, said: &'static str| {
            Refusal::because("InvalidArgument", said)
                .with("ArgumentName", name)
                .with("ArgumentValue", text(name).unwrap_or_default())
        };
        let legal_hold = match text(HOLD) {
            None | Some(ObjectLockLegalHoldStatus::OFF) => false,
            Some(ObjectLockLegalHoldStatus::ON) => true,
            Some(_) => return Err(wrong(HOLD, "Legal Hold must be either of 'ON' or 'OFF'")),
        };
        let retention = match (text(MODE), text(UNTIL)) {
            (None, None) => None,
            (Some(named), Some(until)) => {
                let mode = mode(named).ok_or_else(|| wrong(MODE, "Unknown wormMode directive."))?;
                let until = Timestamp::parse(TimestampFormat::DateTime, until)
                    .map_err(|_| wrong(UNTIL, "The retain until date must be provided in ISO 8601 format"))?;
                Some(Retention { mode, until: future(&until)? })
            }
            (Some(_), None) | (None, Some(_)) => {
                let said =
                    "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied";
                return Err(Refusal::because("InvalidArgument", said));
            }
        };
        Ok(Self { retention, legal_hold })
    }
}

/// Fills the three lock fields of an output of the protocol library.
macro_rules! describe {
    ($output:ident, $extras:expr) => {{
        let extras = &$extras;
        $output.object_lock_mode = extras.retention.map(|retention| {
            s3s::dto::ObjectLockMode::from_static(crate::ops::lock::mode_text(retention.mode))
        });
        $output.object_lock_retain_until_date =
            extras.retention.map(|retention| crate::ops::shared::timestamp(retention.until));
        $output.object_lock_legal_hold_status = extras.legal_hold.then(|| {
            s3s::dto::ObjectLockLegalHoldStatus::from_static(s3s::dto::ObjectLockLegalHoldStatus::ON)
        });
    }};
}
pub(super) use describe;

pub(crate) async fn configuration(
    cx: Context,
    request: S3Request<GetObjectLockConfigurationInput>,
) -> Result<S3Response<GetObjectLockConfigurationOutput>, Refusal> {
    let found = cx.objects.bucket(&request.input.bucket).await?;
    if !found.object_lock {
        return Err(Refusal::new("ObjectLockConfigurationNotFoundError"));
    }
    let rule = found.retention.map(|default| {
        let (days, years) = match default.period {
            RetentionPeriod::Days(days) => (i32::try_from(days).ok(), None),
            RetentionPeriod::Years(years) => (None, i32::try_from(years).ok()),
        };
        let mode = Some(ObjectLockRetentionMode::from_static(mode_text(default.mode)));
        ObjectLockRule { default_retention: Some(dto::DefaultRetention { days, mode, years }) }
    });
    let enabled = Some(ObjectLockEnabled::from_static(ObjectLockEnabled::ENABLED));
    let configuration = ObjectLockConfiguration { object_lock_enabled: enabled, rule };
    Ok(S3Response::new(GetObjectLockConfigurationOutput { object_lock_configuration: Some(configuration) }))
}

/// The default retention a rule asks for.
fn default_retention(rule: Option<ObjectLockRule>) -> Result<Option<DefaultRetention>, Refusal> {
    let malformed = || Refusal::new("MalformedXML");
    let Some(rule) = rule else { return Ok(None) };
    let asked = rule.default_retention.ok_or_else(malformed)?;
    let mode = asked.mode.as_ref().and_then(|named| mode(named.as_str())).ok_or_else(malformed)?;
    let (count, max) = match (asked.days, asked.years) {
        (Some(days), None) => (days, DEFAULT_DAYS_MAX),
        (None, Some(years)) => (years, DEFAULT_YEARS_MAX),
        (Some(_), Some(_)) | (None, None) => return Err(malformed()),
    };
    let invalid = |said: &'static str| Refusal::because("InvalidRetentionPeriod", said);
    let positive = u32::try_from(count).ok().filter(|count| *count > 0);
    let count =
        positive.ok_or_else(|| invalid("Default retention period must be a positive integer value."))?;
    if i64::from(count) > i64::from(max) {
        return Err(invalid("Default retention period is too large."));
    }
    let period =
        if asked.days.is_some() { RetentionPeriod::Days(count) } else { RetentionPeriod::Years(count) };
    Ok(Some(DefaultRetention { mode, period }))
}

pub(crate) async fn configure(
    cx: Context,
    request: S3Request<PutObjectLockConfigurationInput>,
) -> Result<S3Response<PutObjectLockConfigurationOutput>, Refusal> {
    let input = request.input;
    let asked = input.object_lock_configuration.ok_or_else(|| Refusal::new("MalformedXML"))?;
    let enabled = asked.object_lock_enabled.as_ref().map(ObjectLockEnabled::as_str);
    if enabled != Some(ObjectLockEnabled::ENABLED) {
        return Err(Refusal::new("MalformedXML"));
    }
    let retention = default_retention(asked.rule)?;
    if !cx.objects.bucket(&input.bucket).await?.object_lock {
        cx.objects.set_bucket(&input.bucket, BucketChange::EnableObjectLock).await?;
    }
    cx.objects.set_bucket(&input.bucket, BucketChange::DefaultRetention(retention)).await?;
    Ok(S3Response::new(PutObjectLockConfigurationOutput::default()))
}

pub(crate) async fn retention(
    cx: Context,
    request: S3Request<GetObjectRetentionInput>,
) -> Result<S3Response<GetObjectRetentionOutput>, Refusal> {
    let input = request.input;
    check_enabled(&cx, &input.bucket).await?;
    let found = cx.objects.head(&input.bucket, &input.key, version(input.version_id.as_deref())?).await?;
    let kept = found.extras.retention.ok_or_else(|| Refusal::new("NoSuchObjectLockConfiguration"))?;
    let retention = ObjectLockRetention {
        mode: Some(ObjectLockRetentionMode::from_static(mode_text(kept.mode))),
        retain_until_date: Some(timestamp(kept.until)),
    };
    Ok(S3Response::new(GetObjectRetentionOutput { retention: Some(retention) }))
}

pub(crate) async fn retain(
    cx: Context,
    request: S3Request<PutObjectRetentionInput>,
) -> Result<S3Response<PutObjectRetentionOutput>, Refusal> {
    let input = request.input;
    let selector = version(input.version_id.as_deref())?;
    check_enabled(&cx, &input.bucket).await?;
    let asked = input.retention.ok_or_else(|| Refusal::new("MalformedXML"))?;
    let retention = match (asked.mode, asked.retain_until_date) {
        // An empty document lifts a retention that may be lifted.
        (None, None) => None,
        (Some(named), Some(until)) => {
            let mode = mode(named.as_str()).ok_or_else(|| Refusal::new("MalformedXML"))?;
            Some(Retention { mode, until: future(&until)? })
        }
        (Some(_), None) | (None, Some(_)) => return Err(Refusal::new("MalformedXML")),
    };
    let found = cx.objects.head(&input.bucket, &input.key, selector).await?;
    let bypass_governance = input.bypass_governance_retention.unwrap_or(false);
    let change = ObjectChange::Retention { retention, bypass_governance };
    cx.objects.set_object(&input.bucket, &input.key, Some(same_version(found.version)), change).await?;
    Ok(S3Response::new(PutObjectRetentionOutput::default()))
}

pub(crate) async fn legal_hold(
    cx: Context,
    request: S3Request<GetObjectLegalHoldInput>,
) -> Result<S3Response<GetObjectLegalHoldOutput>, Refusal> {
    let input = request.input;
    check_enabled(&cx, &input.bucket).await?;
    let found = cx.objects.head(&input.bucket, &input.key, version(input.version_id.as_deref())?).await?;
    if !found.hold_known {
        return Err(Refusal::new("NoSuchObjectLockConfiguration"));
    }
    let status =
        if found.extras.legal_hold { ObjectLockLegalHoldStatus::ON } else { ObjectLockLegalHoldStatus::OFF };
    let hold = ObjectLockLegalHold { status: Some(ObjectLockLegalHoldStatus::from_static(status)) };
    Ok(S3Response::new(GetObjectLegalHoldOutput { legal_hold: Some(hold) }))
}

pub(crate) async fn hold(
    cx: Context,
    request: S3Request<PutObjectLegalHoldInput>,
) -> Result<S3Response<PutObjectLegalHoldOutput>, Refusal> {
    let input = request.input;
    let selector = version(input.version_id.as_deref())?;
    check_enabled(&cx, &input.bucket).await?;
    let status = input.legal_hold.and_then(|hold| hold.status);
    let on = match status.as_ref().map(ObjectLockLegalHoldStatus::as_str) {
        Some(ObjectLockLegalHoldStatus::ON) => true,
        Some(ObjectLockLegalHoldStatus::OFF) => false,
        Some(_) | None => return Err(Refusal::new("MalformedXML")),
    };
    let found = cx.objects.head(&input.bucket, &input.key, selector).await?;
    let selector = Some(same_version(found.version));
    cx.objects.set_object(&input.bucket, &input.key, selector, ObjectChange::LegalHold(on)).await?;
    Ok(S3Response::new(PutObjectLegalHoldOutput::default()))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn asked(pairs: &[(&'static str, &str)]) -> Result<Asked, String> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        Asked::parse(&headers.collect()).map_err(|refusal| refusal.text().to_owned())
    }

    #[test]
    fn lock_headers_are_read_strictly() {
        assert_eq!(asked(&[]), Ok(Asked::default()));
        let until = (UNTIL, "2100-01-01T00:00:00Z");
        let locked = asked(&[(MODE, "COMPLIANCE"), until, (HOLD, "ON")]).unwrap();
        let expected =
            Retention { mode: RetentionMode::Compliance, until: UnixMillis::new(4_102_444_800_000) };
        assert_eq!(locked, Asked { retention: Some(expected), legal_hold: true });
        for (headers, said) in [
            (vec![(MODE, "GOVERNANCE")], "must both be supplied"),
            (vec![until], "must both be supplied"),
            (vec![(MODE, "governance"), until], "wormMode"),
            (vec![(MODE, "GOVERNANCE"), (UNTIL, "tomorrow")], "ISO 8601"),
            (vec![(MODE, "GOVERNANCE"), (UNTIL, "2001-01-01T00:00:00Z")], "in the future"),
            (vec![(HOLD, "on")], "'ON' or 'OFF'"),
        ] {
            let refused = asked(&headers).unwrap_err();
            assert!(refused.contains(said), "{headers:?}: {refused}");
        }
    }

    #[test]
    fn default_retentions_are_of_one_unit_and_within_a_century() {
        let rule = |mode: &'static str, days, years| {
            let mode = Some(ObjectLockRetentionMode::from_static(mode));
            let default_retention = Some(dto::DefaultRetention { days, mode, years });
            default_retention_code(ObjectLockRule { default_retention })
        };
        assert_eq!(rule("GOVERNANCE", Some(1), None), None);
        assert_eq!(rule("COMPLIANCE", None, Some(100)), None);
        assert_eq!(rule("GOVERNANCE", Some(1), Some(1)), Some("MalformedXML"));
        assert_eq!(rule("GOVERNANCE", None, None), Some("MalformedXML"));
        assert_eq!(rule("SOMETIMES", Some(1), None), Some("MalformedXML"));
        for days in [0, -1, 36_501] {
            assert_eq!(rule("GOVERNANCE", Some(days), None), Some("InvalidRetentionPeriod"), "{days}");
        }
        assert_eq!(rule("GOVERNANCE", None, Some(101)), Some("InvalidRetentionPeriod"));
    }

    fn default_retention_code(rule: ObjectLockRule) -> Option<&'static str> {
        default_retention(Some(rule)).err().map(|refusal| refusal.code)
    }
}
