//! What buckets and partitions hold, counted exactly, and what they may hold.

use crate::{
    protect::DefaultRetention,
    settings::{Quota, Versioning},
};

/// What counts against a quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) versions: i64,
    pub(crate) bytes: i64,
}

/// A quota as columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) versions: Option<i64>,
    pub(crate) bytes: Option<i64>,
}

impl Limits {
    pub(crate) fn of(quota: Quota) -> Self {
        let column = |limit: Option<u64>| limit.map(|limit| i64::try_from(limit).unwrap_or(i64::MAX));
        Self { versions: column(quota.objects), bytes: column(quota.bytes) }
    }

    pub(crate) fn quota(self) -> Quota {
        Quota { objects: self.versions.map(i64::cast_unsigned), bytes: self.bytes.map(i64::cast_unsigned) }
    }

    /// Whether `held` may grow by `more`. What does not grow is always allowed: a quota lowered below what
    /// is held still lets clients delete and overwrite.
    pub(crate) fn allow(self, held: Stored, more: Stored) -> bool {
        let fits = |limit: Option<i64>, held: i64, more: i64| {
            more <= 0 || limit.is_none_or(|limit| held.saturating_add(more) <= limit)
        };
        fits(self.versions, held.versions, more.versions) && fits(self.bytes, held.bytes, more.bytes)
    }
}

impl Limits {
    /// These limits in two parts that add up to them, when `moved` of `held` goes to the other half of a split:
    /// what is free is shared evenly.
    pub(crate) fn split(self, held: Stored, moved: Stored) -> (Self, Self) {
        let part = |limit: Option<i64>, held: i64, moved: i64| {
            limit.map(|limit| (moved + (limit - held).max(0) / 2).min(limit))
        };
        let other = Self {
            versions: part(self.versions, held.versions, moved.versions),
            bytes: part(self.bytes, held.bytes, moved.bytes),
        };
        let rest = |limit: Option<i64>, part: Option<i64>| Some(limit? - part?);
        let own =
            Self { versions: rest(self.versions, other.versions), bytes: rest(self.bytes, other.bytes) };
        (own, other)
    }
}

/// A bucket's number, counters and settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BucketRow {
    pub(crate) no: i64,
    pub(crate) used: Used,
    pub(crate) versioning: Versioning,
    pub(crate) object_lock: bool,
    pub(crate) retention: Option<DefaultRetention>,
    pub(crate) quota: Limits,
    /// It is being deleted by who knows this token: nothing may come in.
    pub(crate) closed: Option<[u8; 16]>,
}

/// Exact counters of a bucket, or a change of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) objects: i64,
    pub(crate) bytes: i64,
    pub(crate) old_versions: i64,
    pub(crate) old_bytes: i64,
    pub(crate) uploads: i64,
    pub(crate) upload_bytes: i64,
}

impl Used {
    /// Nothing is there, uploads included.
    pub(crate) fn is_empty(self) -> bool {
        self.objects == 0 && self.old_versions == 0 && self.uploads == 0
    }

    /// What of it counts against quotas.
    pub(crate) fn stored(self) -> Stored {
        Stored {
            versions: self.objects + self.old_versions,
            bytes: self.bytes + self.old_bytes + self.upload_bytes,
        }
    }
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, more: Self) {
        self.objects += more.objects;
        self.bytes += more.bytes;
        self.old_versions += more.old_versions;
        self.old_bytes += more.old_bytes;
        self.uploads += more.uploads;
        self.upload_bytes += more.upload_bytes;
    }
}

impl std::ops::Neg for Used {
    type Output = Self;
    fn neg(self) -> Self {
        Self {
            objects: -self.objects,
            bytes: -self.bytes,
            old_versions: -self.old_versions,
            old_bytes: -self.old_bytes,
            uploads: -self.uploads,
            upload_bytes: -self.upload_bytes,
        }
    }
}

impl std::ops::AddAssign for Stored {
    fn add_assign(&mut self, more: Self) {
        self.versions += more.versions;
        self.bytes += more.bytes;
    }
}
