//! The keys of a stopped cluster, from the shares of its root that lie in state directories.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use holdfast_catalog::{Held, KeyVersion, MetadataKeys, MetadataSeal};
use holdfast_control::{ControlMachine, ControlView};
use holdfast_keyring::{Gathering, Keyring, ShareStore};
use holdfast_model::{ClusterId, TenantId};

/// Version of every tenant's metadata key.
const KEY_VERSION: KeyVersion = 1;

/// What seals the catalogs of each tenant.
#[derive(Debug)]
pub struct TenantKeys(HashMap<TenantId, Arc<MetadataSeal>>);

impl TenantKeys {
    /// Opens the keys of the tenants that the control state in `state` knows, the state directory of a node that does not run,
    /// with the shares of the root in the state directories `all`.
    ///
    /// # Errors
    /// Too few shares of the root, a key that does not open, or files that cannot be read.
    pub fn gather(state: &Path, all: &[PathBuf]) -> Result<(Arc<Self>, ControlView)> {
        let identity = state.join("identity.json");
        let identity: serde_json::Value = serde_json::from_slice(
            &std::fs::read(&identity).with_context(|| format!("reading {}", identity.display()))?,
        )?;
        let cluster: ClusterId = serde_json::from_value(identity["cluster"].clone())?;
        let keyring = unlocked(cluster, all)?;
        let view = ControlMachine::open(&state.join("control"), [0; 16])?.1.view()?;
        let mut seals = HashMap::new();
        for tenant in view.tenants.values() {
            let key = keyring
                .tenant(tenant.tenant, &tenant.wrapped_key)
                .with_context(|| format!("the key of tenant {}", tenant.name))?;
            seals.insert(tenant.tenant, Arc::new(MetadataSeal::new(KEY_VERSION, key.metadata_key())));
        }
        Ok((Arc::new(Self(seals)), view))
    }

    /// What seals what is new of a tenant.
    #[must_use]
    pub fn seal(&self, tenant: TenantId) -> Option<&Arc<MetadataSeal>> {
        self.0.get(&tenant)
    }
}

fn unlocked(cluster: ClusterId, states: &[PathBuf]) -> Result<Keyring> {
    let mut gathering = Gathering::default();
    for state in states {
        let shares = ShareStore::open(state, cluster, None)?.shares()?;
        shares.shares().iter().for_each(|share| gathering.add(share.clone()));
    }
    let keyring = Keyring::locked(cluster);
    gathering.roots(cluster).into_iter().for_each(|root| keyring.add_root(root));
    ensure!(!keyring.is_locked(), "too few shares of the root in {} state directories", states.len());
    Ok(keyring)
}

impl MetadataKeys for TenantKeys {
    fn current(&self, tenant: TenantId) -> Held {
        self.version(tenant, KEY_VERSION)
    }

    fn version(&self, tenant: TenantId, version: KeyVersion) -> Held {
        match self.0.get(&tenant) {
            Some(seal) if seal.version == version => Held::Here(Arc::clone(seal)),
            _ => Held::Destroyed,
        }
    }

    fn is_closed(&self) -> bool {
        true
    }
}
