//! What requests and answers name: purposes, standings, places.

use std::path::PathBuf;

use holdfast_crypt::BodyUse;
use holdfast_model::{BucketId, ClusterId, KeyId, RootEpoch, TenantId, VersionId};
use serde::{Deserialize, Serialize};

use super::Hidden;

/// What protects the shares on this node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protect {
    /// The file's mode.
    File,
    /// A passphrase; `None`: an operator enters it.
    Passphrase(Option<Hidden>),
    /// The TPM behind a device.
    Tpm(PathBuf),
}

/// The first request, before the service gives its rights up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Whose keys.
    pub cluster: ClusterId,
    /// Where shares and the record of uses are: `keys` in the node's state directory.
    pub dir: PathBuf,
    /// What protects the shares.
    pub protect: Protect,
}

/// What a key is used for. Stated with each request, recorded with each use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// A client reads an object.
    ObjectRead,
    /// A client writes an object.
    ObjectWrite,
    /// The node's own work on objects.
    Background,
    /// Keys derived for the catalog.
    Catalog,
    /// A tenant's key is made, or gets a version.
    TenantKey,
    /// Everything is wrapped under a new root.
    Rotation,
    /// Public names of a tenant's keys, for the record of its destruction.
    Names,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ObjectRead,
        Self::ObjectWrite,
        Self::Background,
        Self::Catalog,
        Self::TenantKey,
        Self::Rotation,
        Self::Names,
    ];

    /// In logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ObjectRead => "object_read",
            Self::ObjectWrite => "object_write",
            Self::Background => "background",
            Self::Catalog => "catalog",
            Self::TenantKey => "tenant_key",
            Self::Rotation => "rotation",
            Self::Names => "names",
        }
    }
}

impl From<BodyUse> for Purpose {
    fn from(wanted: BodyUse) -> Self {
        match wanted {
            BodyUse::Read => Self::ObjectRead,
            BodyUse::Write => Self::ObjectWrite,
            BodyUse::Background => Self::Background,
        }
    }
}

/// How a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Served.
    Active,
    /// Its clients are refused; work on its data goes on.
    Suspended,
    /// Being destroyed.
    Shredding,
    /// Its key is destroyed.
    Destroyed,
}

/// A body, by everything its key is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyPlace {
    /// The tenant.
    pub tenant: TenantId,
    /// The bucket.
    pub bucket: BucketId,
    /// The body.
    pub content: VersionId,
    /// The object key.
    pub name: String,
}

/// A root by its epoch and public name.
pub type RootName = (RootEpoch, KeyId);
