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

/// Smaller objects do not change class, unless the rule's filter names a size (S3: 128 KiB).
pub const TRANSITION_SIZE_MIN: u64 = 128 * 1024;

/// All rules of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// In the order they were given.
    pub rules: Vec<LifecycleRule>,
    /// The client asked that the smallest object that changes class depend on the class
    /// (`varies_by_storage_class`). Of the classes kept here none has another one than
    /// [`TRANSITION_SIZE_MIN`]; it is kept to be shown.
    pub minimum_by_class: bool,
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
    /// Current versions get another storage class.
    pub transitions: Vec<Transition>,
    /// Noncurrent versions get another storage class.
    pub noncurrent_transitions: Vec<NoncurrentTransition>,
}

/// How a filter was written; rules are shown as they were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterForm {
    /// `Prefix` of the rule itself, as before filters existed.
    Rule,
    /// One condition, or none.
    #[default]
    Single,
    /// Conditions below `And`.
    And,
}

/// Which objects a rule is about: all conditions hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleFilter {
    /// How it was written.
    pub form: FilterForm,
    /// Keys that begin so.
    pub prefix: Option<String>,
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
    /// `true`: a delete marker goes when it is the only version left.
    ExpiredMarkers(bool),
}

/// When a noncurrent version expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoncurrentExpiration {
    /// This many days after it ceased to be current, at the next midnight.
    pub days: u32,
    /// This many of the newest noncurrent versions stay all the same.
    pub keep_newest: u32,
}

/// When a current version gets another storage class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Days after it was stored, 0 included, or a date.
    pub when: TransitionTime,
    /// The class.
    pub class: String,
}

/// The moment of a [`Transition`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransitionTime {
    /// Days after the object was stored.
    Days(u32),
    /// From this moment on.
    Date(UnixMillis),
}

/// When a noncurrent version gets another storage class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoncurrentTransition {
    /// Days after it ceased to be current, 0 included.
    pub days: u32,
    /// This many of the newest noncurrent versions keep theirs.
    pub keep_newest: u32,
    /// The class.
    pub class: String,
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
    fn prefix(&self) -> &str {
        self.prefix.as_deref().unwrap_or("")
    }

    fn names_size(&self) -> bool {
        self.larger_than.is_some() || self.smaller_than.is_some()
    }

    /// Whether the object is one of these.
    #[must_use]
    pub fn matches(&self, object: &Candidate<'_>) -> bool {
        object.key.starts_with(self.prefix())
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
            let acts = rule.expiration.is_some()
                || rule.noncurrent.is_some()
                || rule.abort_uploads_days.is_some()
                || !rule.transitions.is_empty()
                || !rule.noncurrent_transitions.is_empty();
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
            Expiration::ExpiredMarkers(_) => None,
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

    /// Whether a delete marker, the only version of its key since `modified`, goes. A rule that says so takes
    /// it at once; one that expires objects by days takes it when it is as old as an object would have to be.
    #[must_use]
    pub fn lone_marker_due(&self, key: &str, modified: UnixMillis, now: UnixMillis, day_millis: u64) -> bool {
        let object = Candidate { key, size: 0, tags: &[] };
        self.matching(&object).any(|rule| match rule.expiration {
            Some(Expiration::ExpiredMarkers(on)) => on,
            Some(Expiration::Days(days)) => due_at(modified, days, day_millis) <= now.get(),
            Some(Expiration::Date(date)) => date <= now,
            None => false,
        })
    }

    /// The class a current version should have by now: that of the transition due last.
    #[must_use]
    pub fn current_class(
        &self,
        object: &Candidate<'_>,
        modified: UnixMillis,
        now: UnixMillis,
        day_millis: u64,
    ) -> Option<&str> {
        let due = |transition: &Transition| match transition.when {
            TransitionTime::Days(days) => due_at(modified, days, day_millis),
            TransitionTime::Date(date) => date.get(),
        };
        self.moving(object)
            .flat_map(|rule| &rule.transitions)
            .map(|transition| (due(transition), transition.class.as_str()))
            .filter(|(due, _)| *due <= now.get())
            .max_by_key(|(due, _)| *due)
            .map(|(_, class)| class)
    }

    /// The same for a noncurrent version, of which `newer` noncurrent ones are newer.
    #[must_use]
    pub fn noncurrent_class(
        &self,
        object: &Candidate<'_>,
        since: UnixMillis,
        newer: u32,
        now: UnixMillis,
        day_millis: u64,
    ) -> Option<&str> {
        self.moving(object)
            .flat_map(|rule| &rule.noncurrent_transitions)
            .filter(|transition| newer >= transition.keep_newest)
            .map(|transition| (due_at(since, transition.days, day_millis), transition.class.as_str()))
            .filter(|(due, _)| *due <= now.get())
            .max_by_key(|(due, _)| *due)
            .map(|(_, class)| class)
    }

    /// Whether an upload that was begun at `initiated` is due.
    #[must_use]
    pub fn upload_due(&self, key: &str, initiated: UnixMillis, now: UnixMillis, day_millis: u64) -> bool {
        let rules = self.rules.iter().filter(|rule| rule.enabled && key.starts_with(rule.filter.prefix()));
        rules
            .filter_map(|rule| rule.abort_uploads_days)
            .any(|days| due_at(initiated, days, day_millis) <= now.get())
    }

    /// Rules by which the object may change class.
    fn moving<'r>(&'r self, object: &Candidate<'_>) -> impl Iterator<Item = &'r LifecycleRule> {
        let small = object.size < TRANSITION_SIZE_MIN;
        self.matching(object).filter(move |rule| !small || rule.filter.names_size())
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
            filter: LifecycleFilter { prefix: Some("logs/".into()), ..LifecycleFilter::default() },
            expiration: Some(Expiration::Days(2)),
            noncurrent: Some(NoncurrentExpiration { days: 1, keep_newest: 1 }),
            abort_uploads_days: Some(7),
            transitions: vec![Transition { when: TransitionTime::Days(0), class: "STANDARD_IA".into() }],
            noncurrent_transitions: Vec::new(),
        }
    }

    #[test]
    fn rules_count_days_to_the_next_midnight_and_only_what_they_name() {
        let rules = Lifecycle { minimum_by_class: false, rules: vec![rule("a")] };
        let object = Candidate { key: "logs/x", size: TRANSITION_SIZE_MIN, tags: &[] };
        let stored = UnixMillis::new(10 * DAY + 5);
        assert_eq!(rules.current_expires(&object, stored, DAY), Some((UnixMillis::new(13 * DAY), "a")));
        let other = Candidate { key: "data/x", ..object };
        assert_eq!(rules.current_expires(&other, stored, DAY), None);
        let now = UnixMillis::new(12 * DAY);
        assert!(rules.noncurrent_due(&object, stored, 1, now, DAY));
        assert!(!rules.noncurrent_due(&object, stored, 0, now, DAY), "the newest one stays");
        let class = |now| rules.current_class(&object, stored, UnixMillis::new(now), DAY);
        assert_eq!((class(10 * DAY + 5), class(11 * DAY)), (None, Some("STANDARD_IA")));
        let small = Candidate { size: TRANSITION_SIZE_MIN - 1, ..object };
        assert_eq!(rules.current_class(&small, stored, UnixMillis::new(11 * DAY), DAY), None);
        assert!(!rules.upload_due("logs/x", stored, now, DAY));
        assert!(rules.upload_due("logs/x", stored, UnixMillis::new(18 * DAY), DAY));
        let tagged = LifecycleFilter { tags: vec![("k".into(), "v".into())], ..LifecycleFilter::default() };
        assert!(!tagged.matches(&object));
        assert!(tagged.matches(&Candidate { tags: &[("k".into(), "v".into())], ..object }));
    }

    #[test]
    fn a_lone_marker_goes_at_once_by_its_own_rule_and_with_age_by_others() {
        let stored = UnixMillis::new(10 * DAY + 5);
        let due = |expiration, now: u64| {
            let rules =
                Lifecycle { minimum_by_class: false, rules: vec![LifecycleRule { expiration, ..rule("a") }] };
            rules.lone_marker_due("logs/x", stored, UnixMillis::new(now), DAY)
        };
        assert!(due(Some(Expiration::ExpiredMarkers(true)), 10 * DAY + 6));
        assert!(!due(Some(Expiration::ExpiredMarkers(false)), 20 * DAY));
        assert!(!due(Some(Expiration::Days(2)), 12 * DAY) && due(Some(Expiration::Days(2)), 13 * DAY));
        assert!(!due(None, 20 * DAY));
    }

    #[test]
    fn unsound_rules_are_not_stored() {
        let good = Lifecycle { minimum_by_class: false, rules: vec![rule("a"), rule("b")] };
        assert_eq!(Lifecycle::decode(&good.encode().unwrap()), Ok(good));
        let twice = Lifecycle { minimum_by_class: false, rules: vec![rule("a"), rule("a")] };
        assert_eq!(twice.encode(), Err(LifecycleError::Id(1)));
        let idle = LifecycleRule {
            expiration: None,
            noncurrent: None,
            abort_uploads_days: None,
            transitions: Vec::new(),
            ..rule("a")
        };
        assert_eq!(
            Lifecycle { minimum_by_class: false, rules: vec![idle] }.encode(),
            Err(LifecycleError::Empty(0))
        );
        let none =
            LifecycleFilter { larger_than: Some(9), smaller_than: Some(10), ..LifecycleFilter::default() };
        let empty = LifecycleRule { filter: none, ..rule("a") };
        assert_eq!(
            Lifecycle { minimum_by_class: false, rules: vec![empty] }.encode(),
            Err(LifecycleError::Empty(0))
        );
        assert_eq!(Lifecycle::decode(b"\x02\xff"), Err(LifecycleError::Malformed));
    }
}
