//! Event notifications of a bucket: which events are told to whom, and the events themselves. Pure.
//!
//! The configuration is a document of the bucket, checked when stored, so that what is read back is always sound.
//! Events are queued by the command that makes the change, in the same transaction, and settled by the worker that
//! sent them. A target is a name here; what is behind it is the control state's.
//!
//! Source: AWS, "Event notification types and destinations", "Configuring event notifications using object key name
//! filtering".

use bytes::Bytes;
use holdfast_model::{UnixMillis, limits::KEY_SIZE_MAX};
use serde::{Deserialize, Serialize};

use crate::{
    command::{VERSION_OF_EVENTS, decode, encode_as},
    response::VersionRef,
};

/// Rules of one bucket at most (S3: 100).
pub const NOTIFICATION_RULES_MAX: usize = 100;

/// Longest id of a rule, and longest name of a target, in bytes.
pub const NOTIFICATION_NAME_SIZE_MAX: usize = 255;

/// Events of one partition that wait to be told, at most. What comes beyond is dropped and counted.
pub const EVENTS_MAX: i64 = 200_000;

/// Events of one bucket that wait to be told in one partition, at most: one bucket does not take all of
/// [`EVENTS_MAX`].
pub const EVENTS_OF_BUCKET_MAX: i64 = 100_000;

/// Events settled by one command at most.
pub const SETTLE_MAX: usize = 1000;

/// Longest text that a request leaves in its events, in bytes: a principal, an address, an id.
const ORIGIN_TEXT_SIZE_MAX: usize = 512;

const _: () = assert!(EVENTS_OF_BUCKET_MAX < EVENTS_MAX);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// An object was put.
    Put,
    /// An object came with a form.
    Post,
    /// An object was copied.
    Copy,
    /// A multipart upload was completed.
    CompleteUpload,
    /// An object or a version of it is gone for good.
    Delete,
    /// A delete marker was put in front of an object.
    DeleteMarker,
    /// A lifecycle rule removed an object or a version of it for good.
    Expired,
    /// A lifecycle rule put a delete marker in front of an object.
    ExpiredMarker,
    /// Tags of an object were set.
    TagsPut,
    /// Tags of an object were removed.
    TagsDelete,
    /// The access control list of an object was set.
    AclPut,
    /// Notifications were configured.
    Test,
}

impl EventKind {
    /// Every kind that a rule may ask for.
    pub const ALL: [Self; 11] = [
        Self::Put,
        Self::Post,
        Self::Copy,
        Self::CompleteUpload,
        Self::Delete,
        Self::DeleteMarker,
        Self::Expired,
        Self::ExpiredMarker,
        Self::TagsPut,
        Self::TagsDelete,
        Self::AclPut,
    ];

    /// Its name in configurations.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Put => "s3:ObjectCreated:Put",
            Self::Post => "s3:ObjectCreated:Post",
            Self::Copy => "s3:ObjectCreated:Copy",
            Self::CompleteUpload => "s3:ObjectCreated:CompleteMultipartUpload",
            Self::Delete => "s3:ObjectRemoved:Delete",
            Self::DeleteMarker => "s3:ObjectRemoved:DeleteMarkerCreated",
            Self::Expired => "s3:LifecycleExpiration:Delete",
            Self::ExpiredMarker => "s3:LifecycleExpiration:DeleteMarkerCreated",
            Self::TagsPut => "s3:ObjectTagging:Put",
            Self::TagsDelete => "s3:ObjectTagging:Delete",
            Self::AclPut => "s3:ObjectAcl:Put",
            Self::Test => "s3:TestEvent",
        }
    }

    /// Whether `pattern` of a rule names it: its name, or the part before the last colon and a star.
    #[must_use]
    pub fn is_named_by(self, pattern: &str) -> bool {
        match pattern.strip_suffix('*') {
            Some(before) => {
                before.ends_with(':') && before.len() > "s3:".len() && self.name().starts_with(before)
            }
            None => self.name() == pattern,
        }
    }
}

/// How an object came to be written, for commands that do not tell by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WrittenBy {
    /// PUT.
    #[default]
    Put,
    /// A browser's form.
    Post,
    /// A copy.
    Copy,
}

/// The request that a change comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// How it writes.
    pub by: WrittenBy,
    /// Who asked.
    pub principal: String,
    /// From which address.
    pub address: String,
    /// Id of the request.
    pub request: String,
}

impl Origin {
    /// Why it is not sound.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let long = [&self.principal, &self.address, &self.request];
        long.iter().any(|text| text.len() > ORIGIN_TEXT_SIZE_MAX).then_some("an origin that is too long")
    }
}

/// An event that waits to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// When, by the partition's clock.
    pub at: UnixMillis,
    /// Name of the bucket.
    pub bucket: String,
    /// Who owns it, as the configuration said.
    pub owner: String,
    /// The key; empty for [`EventKind::Test`].
    pub key: String,
    /// The version, where versioning is or was enabled.
    pub version: Option<VersionRef>,
    /// Bytes of plaintext, of what is there.
    pub size: Option<u64>,
    /// Without quotes, of what is there.
    pub etag: Option<String>,
    /// Id of the rule.
    pub rule: String,
    /// The request, if one was known.
    pub origin: Origin,
}

impl Event {
    pub(crate) fn encode(&self) -> Bytes {
        encode_as(VERSION_OF_EVENTS, self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        decode(bytes).ok()
    }
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settle {
    /// The target has it.
    Delivered,
    /// It is given up.
    Dropped,
    /// It is to be sent again, not before this.
    Retry {
        /// When.
        due: UnixMillis,
    },
}

/// As what a target was named. Rules are shown as they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetForm {
    /// `QueueConfiguration`
    Queue,
    /// `TopicConfiguration`
    Topic,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationRule {
    /// Unique in the bucket.
    pub id: String,
    /// As what the target was named.
    pub form: TargetForm,
    /// The target's ARN as it was given.
    pub arn: String,
    /// The target's name.
    pub target: String,
    /// Names of events, or patterns: see [`EventKind::is_named_by`].
    pub events: Vec<String>,
    /// Keys that begin so.
    pub prefix: Option<String>,
    /// Keys that end so.
    pub suffix: Option<String>,
}

impl NotificationRule {
    fn tells(&self, kind: EventKind, key: &str) -> bool {
        self.prefix.as_deref().is_none_or(|prefix| key.starts_with(prefix))
            && self.suffix.as_deref().is_none_or(|suffix| key.ends_with(suffix))
            && self.events.iter().any(|pattern| kind.is_named_by(pattern))
    }

    /// Whether an event could be told by both.
    fn overlaps(&self, other: &Self) -> bool {
        let either = |a: &Option<String>, b: &Option<String>, fits: fn(&str, &str) -> bool| {
            let (a, b) = (a.as_deref().unwrap_or(""), b.as_deref().unwrap_or(""));
            fits(a, b) || fits(b, a)
        };
        let tells = |rule: &Self, kind: EventKind| rule.events.iter().any(|name| kind.is_named_by(name));
        EventKind::ALL.into_iter().any(|kind| tells(self, kind) && tells(other, kind))
            && either(&self.prefix, &other.prefix, |long, short| long.starts_with(short))
            && either(&self.suffix, &other.suffix, |long, short| long.ends_with(short))
    }
}

/// All rules of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notifications {
    /// Who owns the bucket, as events say it.
    pub owner: String,
    /// In the order they were given.
    pub rules: Vec<NotificationRule>,
}

/// Rules that are not sound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotificationsError {
    /// The bytes are not rules of this release.
    #[error("notification rules cannot be read")]
    Malformed,
    /// More than [`NOTIFICATION_RULES_MAX`].
    #[error("a bucket has at most {NOTIFICATION_RULES_MAX} notification rules")]
    TooMany,
    /// Two rules of one id.
    #[error("two notification rules have the id {0:?}")]
    SameId(String),
    /// A name, a filter or an owner that is empty or too long.
    #[error("a name or a filter of rule {0:?} is empty or too long")]
    Text(String),
    /// No event, or one that is not known.
    #[error("rule {0:?} names no event, or one that is not known")]
    Event(String),
    /// An event would be told twice.
    #[error("an event could be told by two rules, {0:?} and {1:?}")]
    Overlap(String, String),
}

impl Notifications {
    /// Checks what a bucket is to keep.
    ///
    /// # Errors
    /// See [`NotificationsError`].
    pub fn check(&self) -> Result<(), NotificationsError> {
        if self.rules.len() > NOTIFICATION_RULES_MAX {
            return Err(NotificationsError::TooMany);
        }
        let is_name = |text: &str| !text.is_empty() && text.len() <= NOTIFICATION_NAME_SIZE_MAX;
        for (at, rule) in self.rules.iter().enumerate() {
            let filters = [&rule.prefix, &rule.suffix].into_iter().flatten();
            let fits = is_name(&rule.id)
                && is_name(&rule.target)
                && rule.arn.len() <= 2 * NOTIFICATION_NAME_SIZE_MAX
                && self.owner.len() <= NOTIFICATION_NAME_SIZE_MAX;
            if !fits || filters.into_iter().any(|filter| filter.len() > KEY_SIZE_MAX) {
                return Err(NotificationsError::Text(rule.id.clone()));
            }
            let is_known = |name: &String| EventKind::ALL.into_iter().any(|kind| kind.is_named_by(name));
            if rule.events.is_empty() || !rule.events.iter().all(is_known) {
                return Err(NotificationsError::Event(rule.id.clone()));
            }
            for before in &self.rules[..at] {
                if before.id == rule.id {
                    return Err(NotificationsError::SameId(rule.id.clone()));
                }
                if before.overlaps(rule) {
                    return Err(NotificationsError::Overlap(before.id.clone(), rule.id.clone()));
                }
            }
        }
        Ok(())
    }

    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode_as(VERSION_OF_EVENTS, self)
    }

    /// Reads and checks the encoded form.
    ///
    /// # Errors
    /// See [`NotificationsError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NotificationsError> {
        let rules: Self = decode(bytes).map_err(|_| NotificationsError::Malformed)?;
        rules.check()?;
        Ok(rules)
    }

    /// The rule that tells an event. There is one at most, since no two overlap.
    #[must_use]
    pub fn rule_for(&self, kind: EventKind, key: &str) -> Option<&NotificationRule> {
        self.rules.iter().find(|rule| rule.tells(kind, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, events: &[&str], prefix: &str, suffix: &str) -> NotificationRule {
        let filter = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        NotificationRule {
            id: id.to_owned(),
            form: TargetForm::Queue,
            arn: "arn".to_owned(),
            target: "hook".to_owned(),
            events: events.iter().map(|name| (*name).to_owned()).collect(),
            prefix: filter(prefix),
            suffix: filter(suffix),
        }
    }

    fn check(rules: Vec<NotificationRule>) -> Result<(), NotificationsError> {
        Notifications { owner: "owner".to_owned(), rules }.check()
    }

    #[test]
    fn patterns_name_their_events_and_no_others() {
        let named = |pattern| EventKind::ALL.into_iter().filter(|kind| kind.is_named_by(pattern)).count();
        let patterns =
            ["s3:ObjectCreated:*", "s3:ObjectRemoved:*", "s3:LifecycleExpiration:*", "s3:ObjectAcl:Put"];
        assert_eq!(patterns.map(named), [4, 2, 2, 1]);
        for pattern in ["*", "s3:*", "s3:Object*", "s3:TestEvent", "s3:ObjectRestore:Post", ""] {
            assert_eq!(named(pattern), 0, "{pattern}");
        }
    }

    #[test]
    fn a_rule_tells_what_its_filter_admits() {
        let rules = Notifications {
            owner: String::new(),
            rules: vec![rule("a", &["s3:ObjectCreated:*"], "in/", ".jpg")],
        };
        let told = |kind, key| rules.rule_for(kind, key).is_some();
        assert!(told(EventKind::Copy, "in/x.jpg"));
        assert!(!told(EventKind::Copy, "in/x.png") && !told(EventKind::Copy, "out/x.jpg"));
        assert!(!told(EventKind::Delete, "in/x.jpg"));
        assert_eq!(Notifications::decode(&rules.encode()), Ok(rules));
    }

    #[test]
    fn rules_that_could_tell_one_event_twice_are_refused() {
        let all = &["s3:ObjectCreated:*"];
        let put = &["s3:ObjectCreated:Put"];
        let overlap = |a, b| matches!(check(vec![a, b]), Err(NotificationsError::Overlap(..)));
        assert!(overlap(rule("a", all, "", ""), rule("b", put, "x", "")));
        assert!(overlap(rule("a", all, "im", ""), rule("b", put, "images/", "")));
        assert!(overlap(rule("a", all, "im", ".jpg"), rule("b", put, "images/", "")));
        assert!(!overlap(rule("a", all, "im", ""), rule("b", put, "vi", "")));
        assert!(!overlap(rule("a", all, "im", ".jpg"), rule("b", put, "im", ".png")));
        assert!(!overlap(rule("a", &["s3:ObjectRemoved:*"], "", ""), rule("b", put, "", "")));
    }

    #[test]
    fn unsound_rules_are_refused() {
        let put: &[&str] = &["s3:ObjectCreated:Put"];
        assert!(matches!(check(vec![rule("", put, "", "")]), Err(NotificationsError::Text(_))));
        assert!(matches!(check(vec![rule("a", &[], "", "")]), Err(NotificationsError::Event(_))));
        assert!(matches!(check(vec![rule("a", &["s3:Else"], "", "")]), Err(NotificationsError::Event(_))));
        let twice = vec![rule("a", put, "x", ""), rule("a", put, "y", "")];
        assert!(matches!(check(twice), Err(NotificationsError::SameId(_))));
        assert_eq!(Notifications::decode(b"\x05junk"), Err(NotificationsError::Malformed));
    }
}
