//! Whose key seals what: tenants' metadata keys as the catalog asks for them, and the key of each file.
//!
//! A tenant's commands are sealed under its metadata key by whoever proposes them, so that logs, entries on
//! their way and journals hold ciphertext. Each partition's file has a random key of its own, kept beside it
//! under the metadata key: a new metadata key wraps it anew, and no page is rewritten.
//!
//! A key that is not here yet makes whoever applies wait, never skip: the node is locked, not damaged.

use std::{fmt, sync::Arc, time::Duration};

use holdfast_crypt::{CommandCipher, MetadataKey};
use holdfast_model::TenantId;

/// How long between two looks for a key that is not here yet.
pub(crate) const KEY_POLL: Duration = Duration::from_millis(50);

/// A version of a tenant's key. Counts up from 1.
pub type KeyVersion = u32;

/// What seals a tenant's metadata: one version of its metadata key, ready for use.
pub struct MetadataSeal {
    /// Which version.
    pub version: KeyVersion,
    /// Wraps file keys.
    pub key: MetadataKey,
    /// Seals commands.
    pub commands: CommandCipher,
}

impl MetadataSeal {
    /// Makes a key ready for use.
    #[must_use]
    pub fn new(version: KeyVersion, key: MetadataKey) -> Self {
        let commands = key.commands();
        Self { version, key, commands }
    }
}

impl fmt::Debug for MetadataSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetadataSeal").field("version", &self.version).finish_non_exhaustive()
    }
}

/// Whether a key can be had.
#[derive(Debug, Clone)]
pub enum Held {
    /// It is here.
    Here(Arc<MetadataSeal>),
    /// It may come: the node is locked, or has not heard of the tenant yet.
    NotYet,
    /// It was destroyed: what it sealed is gone for good.
    Destroyed,
}

/// Tenants' metadata keys on this node. Called from blocking threads, often: answers from memory.
pub trait MetadataKeys: Send + Sync + 'static {
    /// The version that seals what is new.
    fn current(&self, tenant: TenantId) -> Held;

    /// The version that something was sealed with.
    fn version(&self, tenant: TenantId, version: KeyVersion) -> Held;

    /// Whether no key will come any more, because the node stops.
    fn is_closed(&self) -> bool;
}
