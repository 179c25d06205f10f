//! The catalog's second copy on this node's side: whose key seals what, where files are copied from.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::Path,
    sync::Arc,
};

use holdfast_catalog::{CatalogReader, Command, Held, KeyVersion, MetadataKeys, MetadataSeal};
use holdfast_control::{CONTROL_FILE, ControlReader, ControlView, TenantRecord};
use holdfast_crypt::TenantMetadata;
use holdfast_keyring::Keyring;
use holdfast_keyservice::Client;
use holdfast_model::{Level, StripeId, TenantId};
use holdfast_object::{
    Directory,
    journal::{BaseFile, BaseSource, CatalogKeys, Owner},
};

use crate::metadata_keys::{KEY_VERSION, seal_of};

/// Name under which the cluster's own part of a catalog record is sealed.
fn secret_name(id: &StripeId) -> String {
    format!("catalog record {id}")
}

/// Seals for the journal of a running node.
pub struct LiveKeys {
    /// The roots.
    pub keyring: Arc<Client>,
    /// Tenants' keys.
    pub directory: Arc<Directory>,
}

impl CatalogKeys for LiveKeys {
    fn has(&self, owner: Owner) -> bool {
        match owner {
            Owner::Cluster => !self.keyring.is_locked(),
            Owner::Tenant(tenant) => self.directory.snapshot().metadata.contains_key(&tenant),
        }
    }

    fn seal(&self, owner: Owner, id: &StripeId, plain: &[u8]) -> Option<Vec<u8>> {
        match owner {
            Owner::Cluster => self.keyring.seal_record(&secret_name(id), plain).ok(),
            Owner::Tenant(tenant) => {
                Some(self.directory.snapshot().metadata.get(&tenant)?.seal_manifest(id, plain))
            }
        }
    }

    fn open(&self, owner: Owner, id: &StripeId, sealed: &[u8]) -> Result<Vec<u8>, String> {
        match owner {
            Owner::Cluster => {
                self.keyring.open_record(&secret_name(id), sealed).map_err(|error| error.to_string())
            }
            Owner::Tenant(tenant) => {
                let snapshot = self.directory.snapshot();
                open_for(snapshot.metadata.get(&tenant), id, sealed)
            }
        }
    }
}

/// Opens records during recovery: the root's at once, tenants' when the control state is there.
pub struct RecoveryKeys {
    keyring: Arc<Keyring>,
    tenants: HashMap<TenantId, Arc<TenantMetadata>>,
    seals: HashMap<TenantId, Arc<MetadataSeal>>,
}

impl RecoveryKeys {
    /// With the root alone.
    pub fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring, tenants: HashMap::new(), seals: HashMap::new() }
    }

    /// Opens the keys of the tenants in `view`; returns those that do not open.
    pub fn learn(&mut self, view: &ControlView) -> Vec<String> {
        let mut unopened = Vec::new();
        for record in view.tenants.values() {
            match self.keyring.tenant_metadata(record.tenant, &record.wrapped_key) {
                Ok(key) => {
                    self.seals.insert(record.tenant, seal_of(&key));
                    self.tenants.insert(record.tenant, key);
                }
                Err(error) => {
                    unopened.push(format!("tenant {}: its key does not open: {error}", record.name))
                }
            }
        }
        unopened
    }

    /// Tenants whose contents wait for an external key service, once recovered, each with the service's key.
    pub fn waiting(&self, view: &ControlView) -> Vec<(String, String)> {
        let of = |record: &TenantRecord| {
            let sealing = self.keyring.external_sealing(record.tenant, &record.wrapped_key).ok()??;
            Some((record.name.clone(), sealing.description))
        };
        view.tenants.values().filter_map(of).collect()
    }
}

impl CatalogKeys for RecoveryKeys {
    fn has(&self, owner: Owner) -> bool {
        match owner {
            Owner::Cluster => true,
            Owner::Tenant(tenant) => self.tenants.contains_key(&tenant),
        }
    }

    fn seal(&self, _owner: Owner, _id: &StripeId, _plain: &[u8]) -> Option<Vec<u8>> {
        // Recovery reads; new records are the running node's.
        None
    }

    fn open(&self, owner: Owner, id: &StripeId, sealed: &[u8]) -> Result<Vec<u8>, String> {
        match owner {
            Owner::Cluster => open_own(&self.keyring, id, sealed),
            Owner::Tenant(tenant) => open_for(self.tenants.get(&tenant), id, sealed),
        }
    }
}

impl MetadataKeys for RecoveryKeys {
    fn current(&self, tenant: TenantId) -> Held {
        self.version(tenant, KEY_VERSION)
    }

    fn version(&self, tenant: TenantId, version: KeyVersion) -> Held {
        match self.seals.get(&tenant) {
            Some(seal) if seal.version == version => Held::Here(Arc::clone(seal)),
            // What recovery does not have will not come.
            _ => Held::Destroyed,
        }
    }

    fn is_closed(&self) -> bool {
        true
    }
}

/// The files of a catalog group.
pub struct CatalogFiles(pub CatalogReader);

impl BaseSource for CatalogFiles {
    fn copy_to(&self, dir: &Path) -> io::Result<Vec<BaseFile>> {
        let mut files = Vec::new();
        let mut copied = BTreeSet::new();
        loop {
            // One that was split while it was waited for is copied as the lower half: the upper half is there then.
            let found = self.0.partitions().into_iter().find(|found| !copied.contains(&found.partition));
            let Some(identity) = found else { return Ok(files) };
            // A locked one cannot be copied: then there is no base, rather than one without it.
            let reader = self.0.partition(identity.partition).map_err(io::Error::other)?;
            for name in reader.copy_to(dir)? {
                let path = dir.join(&name);
                files.push(BaseFile { name, owner: Owner::Tenant(identity.tenant), path });
            }
            copied.insert(identity.partition);
        }
    }
}

/// The control group's file.
pub struct ControlFiles(pub ControlReader);

impl BaseSource for ControlFiles {
    fn copy_to(&self, dir: &Path) -> io::Result<Vec<BaseFile>> {
        let path = dir.join(CONTROL_FILE);
        self.0.copy_to(&path)?;
        Ok(vec![BaseFile { name: CONTROL_FILE.to_owned(), owner: Owner::Cluster, path }])
    }
}

/// Whose a command of a catalog group is, once it has been applied.
pub fn owner_of(reader: &CatalogReader, command: &[u8]) -> Option<Owner> {
    let identity = reader.identity(Command::partition_of(command)?)?;
    Some(Owner::Tenant(identity.tenant))
}

/// Copies of a catalog record: as many drives may be lost as the most demanding tenant's level says.
pub fn copies(directory: &Directory, members: usize) -> usize {
    let snapshot = directory.snapshot();
    let levels = snapshot.tenants.values().map(|tenant| tenant.level).chain([Level::suggested(members)]);
    levels.map(|level| usize::from(level.drives_survived()) + 1).max().unwrap_or(1)
}

fn open_own(keyring: &Keyring, id: &StripeId, sealed: &[u8]) -> Result<Vec<u8>, String> {
    keyring.open_record(&secret_name(id), sealed).map_err(|error| error.to_string())
}

fn open_for(key: Option<&Arc<TenantMetadata>>, id: &StripeId, sealed: &[u8]) -> Result<Vec<u8>, String> {
    let key = key.ok_or("the tenant's key is not there")?;
    key.open_manifest(id, sealed).map(|plain| plain.to_vec()).map_err(|error| error.to_string())
}
