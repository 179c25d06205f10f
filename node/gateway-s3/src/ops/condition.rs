//! Conditions on reads and on the sources of copies (RFC 9110, section 13.2.2; AWS documents the same
//! precedence). They are read from the head as it was sent: a date that is none is ignored, as the RFC says.

use holdfast_object::api::ObjectInfo;
use http::{HeaderMap, HeaderName, header};
use s3s::dto::{Timestamp, TimestampFormat};

use crate::{errors::Refusal, ops::shared::timestamp_seconds};

/// The four conditions of a GET or HEAD.
const READ: [HeaderName; 4] =
    [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];

/// The same on the source of a copy.
const SOURCE: [HeaderName; 4] = [
    HeaderName::from_static("x-amz-copy-source-if-match"),
    HeaderName::from_static("x-amz-copy-source-if-none-match"),
    HeaderName::from_static("x-amz-copy-source-if-modified-since"),
    HeaderName::from_static("x-amz-copy-source-if-unmodified-since"),
];

/// Entity tags as a client lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    /// Value, and whether it was marked as weak.
    Of(Vec<(String, bool)>),
}

impl Tags {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        if text == "*" || text == "\"*\"" {
            return Self::Any;
        }
        let tag = |tag: &str| {
            let (value, weak) = match tag.trim().strip_prefix("W/") {
                Some(value) => (value, true),
                None => (tag.trim(), false),
            };
            (value.trim_matches('"').to_owned(), weak)
        };
        Self::Of(text.split(',').map(tag).collect())
    }

    /// `weakly`: a weak tag names an object as well.
    fn name(&self, etag: &str, weakly: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Of(tags) => tags.iter().any(|(value, weak)| value == etag && (weakly || !weak)),
        }
    }
}

/// Conditions as a client wrote them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Conditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
    if_modified_since: Option<Timestamp>,
    if_unmodified_since: Option<Timestamp>,
}

fn date(text: &str) -> Option<Timestamp> {
    Timestamp::parse(TimestampFormat::HttpDate, text).ok()
}

/// What conditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go on.
    Holds,
    /// The client has it already.
    NotModified,
    /// Refused: this one does not hold.
    Failed(&'static str),
}

impl Conditions {
    /// Those of a GET or HEAD.
    pub(crate) fn of_read(headers: &HeaderMap) -> Self {
        Self::of(headers, &READ)
    }

    /// Those on the source of a copy.
    pub(crate) fn of_source(headers: &HeaderMap) -> Self {
        Self::of(headers, &SOURCE)
    }

    fn of(headers: &HeaderMap, [matches, none_match, modified, unmodified]: &[HeaderName; 4]) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            if_match: text(matches).map(Tags::parse),
            if_none_match: text(none_match).map(Tags::parse),
            if_modified_since: text(modified).and_then(date),
            if_unmodified_since: text(unmodified).and_then(date),
        }
    }

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
            if !condition.name(&info.etag, false) {
                return Verdict::Failed("If-Match");
            }
        } else if self.if_unmodified_since.as_ref().is_some_and(|since| modified > *since) {
            return Verdict::Failed("If-Unmodified-Since");
        }
        if let Some(condition) = &self.if_none_match {
            if condition.name(&info.etag, true) {
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
            Verdict::Failed(which) => Err(Refusal::new("PreconditionFailed").with("Condition", which)),
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
            Verdict::Failed(_) | Verdict::NotModified => Err(Refusal::new("PreconditionFailed")),
        }
    }
}

/// Whether a range is to be answered (RFC 9110, section 13.1.5): not when `If-Range` names another object.
pub(crate) fn range_wanted(headers: &HeaderMap, info: &ObjectInfo) -> bool {
    let Some(text) = headers.get(header::IF_RANGE).and_then(|value| value.to_str().ok()) else {
        return true;
    };
    match date(text) {
        Some(date) => timestamp_seconds(info.modified) == date,
        None => Tags::parse(text).name(&info.etag, false),
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

    fn tag(text: &str) -> Option<Tags> {
        Some(Tags::parse(text))
    }

    #[test]
    fn precedence_is_that_of_the_rfc() {
        let n = Conditions::default;
        let same = 1_000_000_000;
        let cases = [
            (Conditions { if_match: tag("\"e\""), ..n() }, Verdict::Holds),
            (Conditions { if_match: tag("*"), ..n() }, Verdict::Holds),
            (Conditions { if_match: tag("\"x\""), ..n() }, Verdict::Failed("If-Match")),
            (Conditions { if_match: tag("\"x\", \"e\""), ..n() }, Verdict::Holds),
            (Conditions { if_match: tag("W/\"e\""), ..n() }, Verdict::Failed("If-Match")),
            (Conditions { if_match: tag("\"e\""), if_unmodified_since: at(same - 1), ..n() }, Verdict::Holds),
            (Conditions { if_unmodified_since: at(same - 1), ..n() }, Verdict::Failed("If-Unmodified-Since")),
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
