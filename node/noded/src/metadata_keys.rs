//! Tenants' metadata keys on a running node, for the catalog: opened with the root key from what the control
//! group holds of each tenant.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use holdfast_catalog::{Held, KeyVersion, MetadataKeys, MetadataSeal};
use holdfast_control::ControlReader;
use holdfast_crypt::TenantKey;
use holdfast_keyring::Keyring;
use holdfast_model::TenantId;
use parking_lot::Mutex;

/// Version of every tenant's key: keys are not exchanged yet.
pub const KEY_VERSION: KeyVersion = 1;

/// What seals a tenant's metadata.
pub fn seal_of(key: &TenantKey) -> Arc<MetadataSeal> {
    Arc::new(MetadataSeal::new(KEY_VERSION, key.metadata_key()))
}

/// The keys of the tenants that this node's copy of the control state knows.
pub struct LiveMetadataKeys {
    keyring: Arc<Keyring>,
    control: ControlReader,
    known: Mutex<HashMap<TenantId, Arc<MetadataSeal>>>,
    closed: AtomicBool,
}

impl LiveMetadataKeys {
    /// Opens what is asked for.
    pub fn new(keyring: Arc<Keyring>, control: ControlReader) -> Arc<Self> {
        Arc::new(Self { keyring, control, known: Mutex::default(), closed: AtomicBool::new(false) })
    }

    /// Lets go of everybody who waits for a key: the node stops.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn open(&self, tenant: TenantId) -> Option<Arc<MetadataSeal>> {
        if let Some(seal) = self.known.lock().get(&tenant) {
            return Some(Arc::clone(seal));
        }
        let view = self
            .control
            .view()
            .inspect_err(|error| tracing::error!(%error, "the control state could not be read"))
            .ok()?;
        let record = view.tenants.get(&tenant)?;
        let key = self
            .keyring
            .tenant(tenant, &record.wrapped_key)
            .inspect_err(|error| tracing::error!(%tenant, %error, "a tenant's key does not open"))
            .ok()?;
        let seal = seal_of(&key);
        self.known.lock().insert(tenant, Arc::clone(&seal));
        Some(seal)
    }
}

impl MetadataKeys for LiveMetadataKeys {
    fn current(&self, tenant: TenantId) -> Held {
        self.open(tenant).map_or(Held::NotYet, Held::Here)
    }

    fn version(&self, tenant: TenantId, version: KeyVersion) -> Held {
        match self.open(tenant) {
            Some(seal) if seal.version == version => Held::Here(seal),
            _ => Held::NotYet,
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
