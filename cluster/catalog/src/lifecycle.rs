//! Lifecycle rules of a bucket: what expires, and when. Pure; the worker that deletes asks here.
//!
//! Encoded as one version byte and the postcard form, and checked when stored, so that what is read back
//! is always sound.

use holdfast_model::UnixMillis;
use serde::{Deserialize, Serialize};

use crate::command::{decode, encode};

/// Rules of one bucket at most (S3: 1000).
pub const RULES_MAX: usize = 1000;

/// Longest id of a rule in bytes (S3: 255).
pub const RULE_ID_SIZE_MAX: usize = 255;

/// All rules of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// In the order they were given.
    pub rules: Vec<LifecycleRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleRule {
    /// Unique in the bucket.
    pub id: String,
    /// Disabled rules are kept and do nothing.
    pub enabled: bool,
    /// What it is about.
    pub filter: LifecycleFilter,
    /// What happens to current versions.
    pub expiration: Option<Expiration>,
    /// What happens to noncurrent versions.
    pub noncurrent: Option<NoncurrentExpiration>,
    /// Days after which an upload that was not completed is aborted.
    pub abort_uploads_days: Option<u32>,
}

/// Which objects a rule is about: all conditions hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleFilter {
    /// Keys that begin so.
    pub prefix: String,
    /// Objects with all of these tags.
    pub tags: Vec<(String, String)>,
    /// Objects of more bytes than this.
    pub larger_than: Option<u64>,
    /// Objects of fewer bytes than this.
    pub smaller_than: Option<u64>,
}

/// When a current version expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expiration {
    /// This many days after it was stored, at the next midnight.
    Days(u32),
    /// From this moment on.
    Date(UnixMillis),
    /// A delete marker goes when it is the only version left.
    ExpiredMarkers,
}

/// When a noncurrent version expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoncurrentExpiration {
    /// This many days after it ceased to be current, at the next midnight.
    pub days: u32,
    /// This many of the newest noncurrent versions stay all the same.
    pub keep_newest: u32,
}

/// What rules look at in an object.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The key.
    pub key: &'a str,
    /// Bytes of plaintext.
    pub size: u64,
    /// Its tags.
    pub tags: &'a [(String, String)],
}

/// Lifecycle rules that are not sound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleError {
    /// Not the encoded form, or of a newer release.
    #[error("not lifecycle rules this release knows")]
    Malformed,
    /// More than [`RULES_MAX`].
    #[error("{0} rules, more than {RULES_MAX}")]
    TooMany(usize),
    /// Ids are not unique or too long.
    #[error("the id of rule {0} is used twice or too long")]
    Id(usize),
    /// A rule without action, with zero days, or with bounds that exclude each other.
    #[error("rule {0} asks for nothing that can be done")]
    Empty(usize),
}

impl LifecycleFilter {
    /// Whether the object is one of these.
    #[must_use]
    pub fn matches(&self, object: &Candidate<'_>) -> bool {
        object.key.starts_with(&self.prefix)
            && self.tags.iter().all(|tag| object.tags.contains(tag))
            && self.larger_than.is_none_or(|least| object.size > least)
            && self.smaller_than.is_none_or(|most| object.size < most)
    }
}

/// The moment `days` after `since`, moved to the next midnight UTC, as S3 counts. `day_millis` is a day's
/// length, which only tests shorten.
fn due_at(since: UnixMillis, days: u32, day_millis: u64) -> u64 {
    let end = since.get().saturating_add(u64::from(days).saturating_mul(day_millis));
    end.div_ceil(day_millis.max(1)).saturating_mul(day_millis)
}

impl Lifecycle {
    /// The stored form.
    ///
    /// # Errors
    /// [`LifecycleError`] when the rules are not sound.
    pub fn encode(&self) -> Result<bytes::Bytes, LifecycleError> {
        self.check()?;
        Ok(encode(self))
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`LifecycleError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, LifecycleError> {
        let rules: Self = decode(bytes).map_err(|_| LifecycleError::Malformed)?;
        rules.check()?;
        Ok(rules)
    }

    fn check(&self) -> Result<(), LifecycleError> {
        if self.rules.len() > RULES_MAX {
            return Err(LifecycleError::TooMany(self.rules.len()));
        }
        let mut ids = std::collections::BTreeSet::new();
        for (at, rule) in self.rules.iter().enumerate() {
            if rule.id.is_empty() || rule.id.len() > RULE_ID_SIZE_MAX || !ids.insert(&rule.id) {
                return Err(LifecycleError::Id(at));
            }
            let acts =
                rule.expiration.is_some() || rule.noncurrent.is_some() || rule.abort_uploads_days.is_some();
            let zero = rule.expiration == Some(Expiration::Days(0))
                || rule.noncurrent.is_some_and(|n| n.days == 0)
                || rule.abort_uploads_days == Some(0);
            let nothing = match (rule.filter.larger_than, rule.filter.smaller_than) {
                (Some(least), Some(most)) => least.saturating_add(1) >= most,
                _ => false,
            };
            if !acts || zero || nothing {
                return Err(LifecycleError::Empty(at));
            }
        }
        Ok(())
    }

    /// When a current version stored at `modified` expires, the earliest rule counting, with its id.
    #[must_use]
    pub fn current_expires(
        &self,
        object: &Candidate<'_>,
        modified: UnixMillis,
        day_millis: u64,
    ) -> Option<(UnixMillis, &str)> {
        let due = |rule: &LifecycleRule| match rule.expiration? {
            Expiration::Days(days) => Some(due_at(modified, days, day_millis)),
            Expiration::Date(date) => Some(date.get()),
            Expiration::ExpiredMarkers => None,
        };
        self.matching(object)
            .filter_map(|rule| Some((UnixMillis::new(due(rule)?), rule.id.as_str())))
            .min_by_key(|(due, _)| *due)
    }

    /// Whether a noncurrent version is due, of which `newer` noncurrent ones are newer.
    #[must_use]
    pub fn noncurrent_due(
        &self,
        object: &Candidate<'_>,
        since: UnixMillis,
        newer: u32,
        now: UnixMillis,
        day_millis: u64,
    ) -> bool {
        self.matching(object).filter_map(|rule| rule.noncurrent).any(|noncurrent| {
            newer >= noncurrent.keep_newest && due_at(since, noncurrent.days, day_millis) <= now.get()
        })
    }

    /// Whether a delete marker that is its key's only version goes.
    #[must_use]
    pub fn lone_marker_due(&self, key: &str) -> bool {
        let object = Candidate { key, size: 0, tags: &[] };
        self.matching(&object).any(|rule| rule.expiration.is_some())
    }

    /// Whether an upload that was begun at `initiated` is due.
    #[must_use]
    pub fn upload_due(&self, key: &str, initiated: UnixMillis, now: UnixMillis, day_millis: u64) -> bool {
        let rules = self.rules.iter().filter(|rule| rule.enabled && key.starts_with(&rule.filter.prefix));
        rules
            .filter_map(|rule| rule.abort_uploads_days)
            .any(|days| due_at(initiated, days, day_millis) <= now.get())
    }

    fn matching<'r>(&'r self, object: &Candidate<'_>) -> impl Iterator<Item = &'r LifecycleRule> {
        self.rules
            .iter()
            .filter(move |rule| rule.enabled && rule.filter.matches(object))
            .collect::<Vec<_>>()
            .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn rule(id: &str) -> LifecycleRule {
        LifecycleRule {
            id: id.into(),
            enabled: true,
            filter: LifecycleFilter { prefix: "logs/".into(), ..LifecycleFilter::default() },
            expiration: Some(Expiration::Days(2)),
            noncurrent: Some(NoncurrentExpiration { days: 1, keep_newest: 1 }),
            abort_uploads_days: Some(7),
        }
    }

    #[test]
    fn rules_count_days_to_the_next_midnight_and_only_what_they_name() {
        let rules = Lifecycle { rules: vec![rule("a")] };
        let object = Candidate { key: "logs/x", size: 1, tags: &[] };
        let stored = UnixMillis::new(10 * DAY + 5);
        assert_eq!(rules.current_expires(&object, stored, DAY), Some((UnixMillis::new(13 * DAY), "a")));
        let other = Candidate { key: "data/x", ..object };
        assert_eq!(rules.current_expires(&other, stored, DAY), None);
        let now = UnixMillis::new(12 * DAY);
        assert!(rules.noncurrent_due(&object, stored, 1, now, DAY));
        assert!(!rules.noncurrent_due(&object, stored, 0, now, DAY), "the newest one stays");
        assert!(!rules.upload_due("logs/x", stored, now, DAY));
        assert!(rules.upload_due("logs/x", stored, UnixMillis::new(18 * DAY), DAY));
        let tagged = LifecycleFilter { tags: vec![("k".into(), "v".into())], ..LifecycleFilter::default() };
        assert!(!tagged.matches(&object));
        assert!(tagged.matches(&Candidate { tags: &[("k".into(), "v".into())], ..object }));
    }

    #[test]
    fn unsound_rules_are_not_stored() {
        let good = Lifecycle { rules: vec![rule("a"), rule("b")] };
        assert_eq!(Lifecycle::decode(&good.encode().unwrap()), Ok(good));
        let twice = Lifecycle { rules: vec![rule("a"), rule("a")] };
        assert_eq!(twice.encode(), Err(LifecycleError::Id(1)));
        let idle =
            LifecycleRule { expiration: None, noncurrent: None, abort_uploads_days: None, ..rule("a") };
        assert_eq!(Lifecycle { rules: vec![idle] }.encode(), Err(LifecycleError::Empty(0)));
        let none =
            LifecycleFilter { larger_than: Some(9), smaller_than: Some(10), ..LifecycleFilter::default() };
        let empty = LifecycleRule { filter: none, ..rule("a") };
        assert_eq!(Lifecycle { rules: vec![empty] }.encode(), Err(LifecycleError::Empty(0)));
        assert_eq!(Lifecycle::decode(b"\x02\xff"), Err(LifecycleError::Malformed));
    }
}
