//! What keeps a version from being deleted: legal holds and retentions.
//!
//! A retention ends by the partition's clock, which never goes back. Compliance yields to nobody before
//! that; governance yields to a caller whom policy lets bypass it, which is decided above.

use bytes::Bytes;
use holdfast_model::UnixMillis;
use serde::{Deserialize, Serialize};

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1000;
const DAYS_PER_YEAR: u64 = 365;

/// Longest default retention in days (S3: 100 years).
pub const RETENTION_DAYS_MAX: u32 = 36_500;

/// Tags of one object at most, encoded, in bytes (S3: 10 tags of 128 + 256 characters).
pub const TAGS_SIZE_MAX: usize = 16 * 1024;

/// Access control list of one object at most, encoded, in bytes (S3: 100 grants).
pub const ACL_SIZE_MAX: usize = 32 * 1024;

/// How firm a retention is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetentionMode {
    /// May be bypassed by who is allowed to.
    Governance,
    /// Holds until its end, whoever asks.
    Compliance,
}

/// A version may not be deleted before a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// How firm.
    pub mode: RetentionMode,
    /// The first moment at which it does not hold any more.
    pub until: UnixMillis,
}

/// Length of a default retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RetentionPeriod {
    /// Days of 24 hours.
    Days(u32),
    /// Years of 365 days.
    Years(u32),
}

/// What new objects of a bucket are retained by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultRetention {
    /// How firm.
    pub mode: RetentionMode,
    /// How long, from the moment the object is stored.
    pub period: RetentionPeriod,
}

/// What is kept beside an object's content and attributes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectExtras {
    /// Opaque here; empty is none.
    pub tags: Bytes,
    /// Opaque here; empty is none.
    pub acl: Bytes,
    /// The bucket's default when `None`.
    pub retention: Option<Retention>,
    /// A legal hold.
    pub legal_hold: bool,
}

impl DefaultRetention {
    /// What is wrong with it, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        match self.days() {
            0 => Some("a default retention of no time"),
            days if days > u64::from(RETENTION_DAYS_MAX) => Some("a default retention of over 100 years"),
            _ => None,
        }
    }

    fn days(&self) -> u64 {
        match self.period {
            RetentionPeriod::Days(days) => u64::from(days),
            RetentionPeriod::Years(years) => u64::from(years) * DAYS_PER_YEAR,
        }
    }

    /// The retention of an object stored now.
    pub(crate) fn from(&self, now: UnixMillis) -> Retention {
        let until = now.get().saturating_add(self.days() * DAY_MILLIS);
        Retention { mode: self.mode, until: UnixMillis::new(until) }
    }
}

impl ObjectExtras {
    /// What is wrong with them, if anything.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        if self.tags.len() > TAGS_SIZE_MAX {
            return Some("tags that are too long");
        }
        (self.acl.len() > ACL_SIZE_MAX).then_some("an access control list that is too long")
    }
}

/// A version's protection as a column: bit flags beside the end of the retention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flags(pub(crate) i64);

impl Flags {
    /// Clients call the version `null`.
    pub(crate) const NULL: i64 = 1;
    /// A delete marker.
    pub(crate) const MARKER: i64 = 2;
    pub(crate) const LEGAL_HOLD: i64 = 4;
    const GOVERNANCE: i64 = 8;
    pub(crate) const COMPLIANCE: i64 = 16;
    /// A legal hold was set or lifted by name, which clients are told from one that never was.
    const HOLD_NAMED: i64 = 32;

    pub(crate) fn has(self, bit: i64) -> bool {
        self.0 & bit != 0
    }

    pub(crate) fn with(self, bit: i64, on: bool) -> Self {
        Self(if on { self.0 | bit } else { self.0 & !bit })
    }

    pub(crate) fn legal_hold(self) -> bool {
        self.has(Self::LEGAL_HOLD)
    }

    /// Whether a legal hold was ever set or lifted.
    pub(crate) fn hold_known(self) -> bool {
        self.legal_hold() || self.has(Self::HOLD_NAMED)
    }

    /// As a client sets it on what is stored.
    pub(crate) fn with_hold_named(self, on: bool) -> Self {
        self.with_legal_hold(on).with(Self::HOLD_NAMED, true)
    }

    pub(crate) fn with_legal_hold(self, on: bool) -> Self {
        self.with(Self::LEGAL_HOLD, on)
    }

    /// The flags with this retention, and the column of its end.
    pub(crate) fn with_retention(self, retention: Option<Retention>) -> (Self, Option<i64>) {
        let mode = retention.map(|r| r.mode);
        let flags = self
            .with(Self::GOVERNANCE, mode == Some(RetentionMode::Governance))
            .with(Self::COMPLIANCE, mode == Some(RetentionMode::Compliance));
        (flags, retention.map(|r| r.until.get().cast_signed()))
    }

    pub(crate) fn retention(self, until: Option<i64>) -> Option<Retention> {
        let mode = if self.has(Self::COMPLIANCE) {
            RetentionMode::Compliance
        } else if self.has(Self::GOVERNANCE) {
            RetentionMode::Governance
        } else {
            return None;
        };
        until.map(|until| Retention { mode, until: UnixMillis::new(until.cast_unsigned()) })
    }

    /// Whether the version may not be deleted now.
    pub(crate) fn locked(self, until: Option<i64>, now: UnixMillis, bypass_governance: bool) -> bool {
        let retained = self
            .retention(until)
            .is_some_and(|r| r.until > now && !(bypass_governance && r.mode == RetentionMode::Governance));
        self.legal_hold() || retained
    }
}

/// Whether a retention may be put in the place of another.
pub(crate) fn may_replace(
    old: Option<Retention>,
    new: Option<Retention>,
    now: UnixMillis,
    bypass_governance: bool,
) -> bool {
    let Some(old) = old.filter(|old| old.until > now) else { return true };
    let as_firm = new.is_some_and(|new| {
        let longer = new.until >= old.until;
        longer && new.mode == old.mode
    });
    as_firm || (bypass_governance && old.mode == RetentionMode::Governance)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(mode: RetentionMode, until: u64) -> Option<Retention> {
        Some(Retention { mode, until: UnixMillis::new(until) })
    }

    #[test]
    fn compliance_can_only_grow_and_governance_yields_to_a_bypass() {
        use RetentionMode::{Compliance, Governance};
        let now = UnixMillis::new(100);
        let (c, g) = (retention(Compliance, 200), retention(Governance, 200));
        for bypass in [false, true] {
            assert!(may_replace(c, retention(Compliance, 300), now, bypass));
            assert!(!may_replace(c, retention(Compliance, 199), now, bypass));
            assert!(!may_replace(c, retention(Governance, 300), now, bypass));
            assert!(!may_replace(c, None, now, bypass));
            assert!(may_replace(g, retention(Governance, 200), now, bypass));
            assert_eq!(
                may_replace(g, retention(Compliance, 200), now, bypass),
                bypass,
                "firmer is other too"
            );
            assert_eq!(may_replace(g, retention(Governance, 150), now, bypass), bypass);
            assert_eq!(may_replace(g, None, now, bypass), bypass);
            assert!(may_replace(c, None, UnixMillis::new(200), bypass), "it has ended");
        }
    }

    #[test]
    fn what_is_locked_follows_hold_retention_and_clock() {
        let hold = Flags::default().with_legal_hold(true);
        assert!(hold.locked(None, UnixMillis::new(1), true));
        let lifted = hold.with_hold_named(false);
        assert!(!lifted.locked(None, UnixMillis::new(1), false) && lifted.hold_known());
        assert!(!Flags::default().with_legal_hold(false).hold_known());
        let (flags, until) = Flags::default().with_retention(retention(RetentionMode::Governance, 50));
        assert!(flags.locked(until, UnixMillis::new(49), false));
        assert!(!flags.locked(until, UnixMillis::new(49), true));
        assert!(!flags.locked(until, UnixMillis::new(50), false));
        assert_eq!(flags.retention(until), retention(RetentionMode::Governance, 50));
        assert_eq!(flags.with_retention(None), (Flags::default(), None));
    }
}
