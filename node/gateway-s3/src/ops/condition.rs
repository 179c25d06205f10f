//! Conditions on reads (RFC 9110, section 13.2.2; AWS documents the same precedence).

use holdfast_object::api::ObjectInfo;
use http::header;
use s3s::dto::{ETagCondition, Timestamp, TimestampFormat};

use crate::{errors::Refusal, ops::shared::timestamp_seconds};

/// Conditions as a client wrote them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
    pub if_modified_since: Option<Timestamp>,
    pub if_unmodified_since: Option<Timestamp>,
}

fn names(condition: &ETagCondition, etag: &str, weak: bool) -> bool {
    match condition.as_etag() {
        None => condition.is_any(),
        Some(named) => named.value() == etag && (weak || named.as_weak().is_none()),
    }
}

/// What conditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Holds,
    /// The client has it already.
    NotModified,
    /// Refused.
    Failed,
}

impl Conditions {
    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.if_match.is_some()
            || self.if_none_match.is_some()
            || self.if_modified_since.is_some()
            || self.if_unmodified_since.is_some()
    }

    /// Judges an object.
    pub(crate) fn judge(&self, info: &ObjectInfo) -> Verdict {
        let modified = timestamp_seconds(info.modified);
        if let Some(condition) = &self.if_match {
            if !names(condition, &info.etag, false) {
                return Verdict::Failed;
            }
        } else if self.if_unmodified_since.as_ref().is_some_and(|since| modified > *since) {
            return Verdict::Failed;
        }
        if let Some(condition) = &self.if_none_match {
            if names(condition, &info.etag, true) {
                return Verdict::NotModified;
            }
        } else if self.if_modified_since.as_ref().is_some_and(|since| modified <= *since) {
            return Verdict::NotModified;
        }
        Verdict::Holds
    }

    /// Judges the object of a GET or HEAD.
    ///
    /// # Errors
    /// `PreconditionFailed`, or `NotModified` with the headers RFC 9110 (section 15.4.5) wants.
    pub(crate) fn check(&self, info: &ObjectInfo) -> Result<(), Refusal> {
        match self.judge(info) {
            Verdict::Holds => Ok(()),
            Verdict::Failed => Err(Refusal::new("PreconditionFailed")),
            Verdict::NotModified => {
                let mut modified = Vec::new();
                // Only an out-of-range year cannot be written; the header is then left out.
                let _ = timestamp_seconds(info.modified).format(TimestampFormat::HttpDate, &mut modified);
                Err(Refusal::new("NotModified")
                    .with_header(header::ETAG, &format!("\"{}\"", info.etag))
                    .with_header(header::LAST_MODIFIED, &String::from_utf8_lossy(&modified)))
            }
        }
    }

    /// Judges the source of a copy.
    ///
    /// # Errors
    /// `PreconditionFailed`, for every condition that does not hold.
    pub(crate) fn check_source(&self, info: &ObjectInfo) -> Result<(), Refusal> {
        match self.judge(info) {
            Verdict::Holds => Ok(()),
            Verdict::Failed | Verdict::NotModified => Err(Refusal::new("PreconditionFailed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::{UnixMillis, VersionId};
    use holdfast_object::api::Attributes;

    use super::*;

    fn info() -> ObjectInfo {
        ObjectInfo {
            key: "k".to_owned(),
            version: VersionId::from_bytes([0; 16]),
            size: 1,
            etag: "e".to_owned(),
            modified: UnixMillis::new(1_000_000_000_900),
            attributes: Attributes::default(),
        }
    }

    fn at(seconds: u64) -> Option<Timestamp> {
        Some(timestamp_seconds(UnixMillis::new(seconds * 1000)))
    }

    fn tag(text: &str) -> Option<ETagCondition> {
        Some(ETagCondition::parse_http_header(text.as_bytes()).unwrap())
    }

    #[test]
    fn precedence_is_that_of_the_rfc() {
        let n = Conditions::default;
        let same = 1_000_000_000;
        let cases = [
            (Conditions { if_match: tag("\"e\""), ..n() }, Verdict::Holds),
            (Conditions { if_match: tag("*"), ..n() }, Verdict::Holds),
            (Conditions { if_match: tag("\"x\""), ..n() }, Verdict::Failed),
            (Conditions { if_match: tag("W/\"e\""), ..n() }, Verdict::Failed),
            (Conditions { if_match: tag("\"e\""), if_unmodified_since: at(same - 1), ..n() }, Verdict::Holds),
            (Conditions { if_unmodified_since: at(same - 1), ..n() }, Verdict::Failed),
            (Conditions { if_unmodified_since: at(same), ..n() }, Verdict::Holds),
            (Conditions { if_none_match: tag("\"e\""), ..n() }, Verdict::NotModified),
            (Conditions { if_none_match: tag("W/\"e\""), ..n() }, Verdict::NotModified),
            (Conditions { if_none_match: tag("\"x\""), if_modified_since: at(same), ..n() }, Verdict::Holds),
            (Conditions { if_modified_since: at(same), ..n() }, Verdict::NotModified),
            (Conditions { if_modified_since: at(same - 1), ..n() }, Verdict::Holds),
        ];
        for (conditions, verdict) in cases {
            assert_eq!(conditions.judge(&info()), verdict, "{conditions:?}");
        }
    }
}
