//! What one inventory is to hold, and when it is due.

use holdfast_object::versioned::ListedVersion;
use serde::{Deserialize, Serialize};

/// An inventory of a bucket; stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inventory {
    /// Unique in its bucket.
    pub id: String,
    /// Whether it is made.
    pub enabled: bool,
    /// The bucket that takes it.
    pub target: String,
    /// The account that owned the target when it was set up, if it was named.
    pub account: Option<String>,
    /// What its objects' keys begin with.
    pub prefix: Option<String>,
    /// Whether `SSE-S3` was asked for. All that is stored is sealed; it is shown as it was given.
    pub sealed: bool,
    /// How often.
    pub frequency: Frequency,
    /// Every version, or what is current.
    pub all_versions: bool,
    /// Only keys that begin so.
    pub filter: Option<String>,
    /// Columns beside those that are always there, in the order in which they were given.
    pub fields: Vec<Field>,
}

/// How often an inventory is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Frequency {
    /// At each midnight UTC.
    Daily,
    /// When Sunday begins.
    Weekly,
}

impl Frequency {
    /// The day, counted from the start of 1970, whose midnight the inventory of `day` is for.
    pub(crate) fn due(self, day: u64) -> u64 {
        match self {
            Self::Daily => day,
            // The first day of 1970 was a Thursday.
            Self::Weekly => day - (day + 4) % 7,
        }
    }
}

/// A column that is there when it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub(crate) enum Field {
    Size,
    LastModifiedDate,
    StorageClass,
    ETag,
    IsMultipartUploaded,
    ReplicationStatus,
    ChecksumAlgorithm,
}

impl Field {
    /// All that can be asked for.
    pub(crate) const ALL: [Self; 7] = [
        Self::Size,
        Self::LastModifiedDate,
        Self::StorageClass,
        Self::ETag,
        Self::IsMultipartUploaded,
        Self::ReplicationStatus,
        Self::ChecksumAlgorithm,
    ];

    /// As configurations and manifests name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Size => "Size",
            Self::LastModifiedDate => "LastModifiedDate",
            Self::StorageClass => "StorageClass",
            Self::ETag => "ETag",
            Self::IsMultipartUploaded => "IsMultipartUploaded",
            Self::ReplicationStatus => "ReplicationStatus",
            Self::ChecksumAlgorithm => "ChecksumAlgorithm",
        }
    }
}

impl Inventory {
    /// Whether a version is a row of it.
    pub(crate) fn holds(&self, version: &ListedVersion) -> bool {
        self.all_versions || (version.latest && !version.marker)
    }

    /// Columns of a row in order, by name.
    pub(crate) fn schema(&self) -> String {
        let versions = if self.all_versions { ", VersionId, IsLatest, IsDeleteMarker" } else { "" };
        let fields: String = self.fields.iter().map(|field| format!(", {}", field.name())).collect();
        format!("Bucket, Key{versions}{fields}")
    }

    /// What all of its keys begin with.
    pub(crate) fn root(&self, source: &str) -> String {
        let prefix = self.prefix.as_deref().map(|prefix| format!("{}/", prefix.trim_end_matches('/')));
        format!("{}{source}/{}", prefix.unwrap_or_default(), self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_sundays() {
        // 2026-11-28 is a Saturday, day 20785.
        assert_eq!(Frequency::Weekly.due(20_785), 20_779);
        assert_eq!(Frequency::Weekly.due(20_786), 20_786);
        assert_eq!(Frequency::Weekly.due(20_787), 20_786);
        assert_eq!(Frequency::Daily.due(20_785), 20_785);
    }
}
