//! Tenants' metadata keys on a running node, for the catalog: opened with the root key from what the control
//! group holds of each tenant.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use holdfast_catalog::{Held, KeyVersion, MetadataKeys, MetadataSeal};
use holdfast_control::{ControlReader, ControlView};
use holdfast_crypt::TenantMetadata;
use holdfast_keyservice::Client;
use holdfast_model::TenantId;
use parking_lot::{Mutex, RwLock};

/// Version of every tenant's metadata key: it is derived from the first version of the tenant's key, and stays when
/// later ones come.
pub const KEY_VERSION: KeyVersion = 1;

/// What seals a tenant's metadata.
pub fn seal_of(key: &TenantMetadata) -> Arc<MetadataSeal> {
    Arc::new(MetadataSeal::new(KEY_VERSION, key.metadata_key()))
}

/// The keys of the tenants that this node's copy of the control state knows.
pub struct LiveMetadataKeys {
    keyring: Arc<Client>,
    control: ControlReader,
    known: Mutex<HashMap<TenantId, Arc<MetadataSeal>>>,
    destroyed: RwLock<BTreeSet<TenantId>>,
    closed: AtomicBool,
}

impl LiveMetadataKeys {
    /// Opens what is asked for.
    pub fn new(keyring: Arc<Client>, control: ControlReader) -> Arc<Self> {
        Arc::new(Self {
            keyring,
            control,
            known: Mutex::default(),
            destroyed: RwLock::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Lets go of everybody who waits for a key: the node stops.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Forgets the keys of tenants that are destroyed.
    pub fn forget_destroyed(&self, view: &ControlView) {
        for tenant in view.shreds.keys().copied().filter(|tenant| view.is_destroyed(*tenant)) {
            self.destroyed.write().insert(tenant);
            self.known.lock().remove(&tenant);
        }
    }

    /// Whether a tenant's key is in memory.
    pub fn remembers(&self, tenant: TenantId) -> bool {
        self.known.lock().contains_key(&tenant)
    }

    fn is_destroyed(&self, tenant: TenantId) -> bool {
        self.destroyed.read().contains(&tenant)
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
        self.forget_destroyed(&view);
        let record = view.tenants.get(&tenant)?;
        let key = self
            .keyring
            .tenant_metadata(tenant, &record.wrapped_key)
            .inspect_err(|error| tracing::error!(%tenant, %error, "a tenant's key does not open"))
            .ok()?;
        let seal = seal_of(&key);
        self.known.lock().insert(tenant, Arc::clone(&seal));
        Some(seal)
    }
}

impl MetadataKeys for LiveMetadataKeys {
    fn current(&self, tenant: TenantId) -> Held {
        match self.open(tenant) {
            Some(seal) => Held::Here(seal),
            None if self.is_destroyed(tenant) => Held::Destroyed,
            None => Held::NotYet,
        }
    }

    fn version(&self, tenant: TenantId, version: KeyVersion) -> Held {
        match self.open(tenant) {
            Some(seal) if seal.version == version => Held::Here(seal),
            None if self.is_destroyed(tenant) => Held::Destroyed,
            _ => Held::NotYet,
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
