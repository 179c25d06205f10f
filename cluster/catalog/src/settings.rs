//! Settings of buckets: versioning, quotas, named documents with their limits.

use serde::{Deserialize, Serialize};

/// Documents of one bucket at most.
pub const DOCUMENTS_MAX: i64 = 1024;

/// Longest id of a document in bytes (S3: 64 for inventories).
pub const DOCUMENT_ID_SIZE_MAX: usize = 128;

const KIB: usize = 1024;

/// Whether a bucket keeps what is overwritten and deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versioning {
    /// Never was enabled: one version a key, the null version.
    #[default]
    Off,
    /// Every write makes a version.
    Enabled,
    /// Writes replace the null version; versions made before stay.
    Suspended,
}

impl Versioning {
    pub(crate) fn column(self) -> i64 {
        match self {
            Self::Off => 0,
            Self::Enabled => 1,
            Self::Suspended => 2,
        }
    }

    pub(crate) fn from_column(value: i64) -> Option<Self> {
        [Self::Off, Self::Enabled, Self::Suspended].into_iter().find(|v| v.column() == value)
    }
}

/// What a bucket or a partition may hold. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of plaintext of all versions and of parts of uploads.
    pub bytes: Option<u64>,
    /// Versions, current or not, delete markers included.
    pub objects: Option<u64>,
}

/// A named document of a bucket. Its meaning belongs to the gateway; lifecycle rules are checked here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DocumentKind {
    /// [`crate::Lifecycle`], encoded.
    Lifecycle,
    /// Access policy.
    Policy,
    /// Cross-origin rules.
    Cors,
    /// Static website.
    Website,
    /// Tags of the bucket.
    Tags,
    /// Default encryption.
    Encryption,
    /// Event notifications.
    Notification,
    /// Access logging.
    Logging,
    /// Public access block.
    PublicAccess,
    /// Object ownership.
    Ownership,
    /// Access control list.
    Acl,
    /// Inventory configurations, by id.
    Inventory,
    /// Who pays for requests.
    RequestPayment,
    /// Settings of the bucket's protection level.
    Level,
    /// The account that owns the bucket. Given when the bucket is created, and stays.
    Owner,
}

impl DocumentKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::Lifecycle,
        Self::Policy,
        Self::Cors,
        Self::Website,
        Self::Tags,
        Self::Encryption,
        Self::Notification,
        Self::Logging,
        Self::PublicAccess,
        Self::Ownership,
        Self::Acl,
        Self::Inventory,
        Self::RequestPayment,
        Self::Level,
        Self::Owner,
    ];

    /// Largest document of this kind in bytes.
    #[must_use]
    pub const fn size_max(self) -> usize {
        match self {
            Self::Lifecycle => 512 * KIB,
            Self::Cors | Self::Website | Self::Notification => 128 * KIB,
            Self::Policy | Self::Acl | Self::Inventory => 64 * KIB,
            Self::Tags | Self::Encryption | Self::Logging => 32 * KIB,
            Self::PublicAccess | Self::Ownership | Self::RequestPayment | Self::Level | Self::Owner => {
                4 * KIB
            }
        }
    }

    pub(crate) fn column(self) -> i64 {
        // The order of `ALL` is the encoding: new kinds go to its end.
        Self::ALL.iter().position(|kind| *kind == self).map_or(-1, |at| at as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_column_of_its_own() {
        let columns: Vec<i64> = DocumentKind::ALL.iter().map(|kind| kind.column()).collect();
        assert_eq!(columns, (0..DocumentKind::ALL.len() as i64).collect::<Vec<_>>());
    }

    #[test]
    fn versioning_survives_its_column() {
        for versioning in [Versioning::Off, Versioning::Enabled, Versioning::Suspended] {
            assert_eq!(Versioning::from_column(versioning.column()), Some(versioning));
        }
        assert_eq!(Versioning::from_column(3), None);
    }
}
