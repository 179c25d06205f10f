//! What the object layer knows of tenants: a snapshot of the control group's state with
//! keys opened, exchanged whole whenever that state changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use holdfast_catalog::MetadataSeal;
use holdfast_crypt::{BodyUse, OuterKey, TenantCustody, TenantMetadata};
use holdfast_model::{ClusterId, GroupId, Level, PartitionId, TenantId};
use parking_lot::RwLock;

use crate::{
    api::ObjectError,
    body_writer::no_key,
    events::{EventSettings, Webhook},
    sealing::DEFAULT_NAMED_KEY,
    workers::{KnownDrive, Orders},
};

/// One tenant.
#[derive(Debug, Clone)]
pub struct TenantEntry {
    /// The tenant.
    pub id: TenantId,
    /// Its name.
    pub name: String,
    /// Its protection level.
    pub level: Level,
    /// Whoever holds its key; `None` while that waits for the tenant's external key service.
    pub key: Option<Arc<dyn TenantCustody>>,
    /// What its key waits for, for people.
    pub waits_for: Option<String>,
    /// Names of its named keys beside [`crate::sealing::DEFAULT_NAMED_KEY`].
    pub named_keys: BTreeSet<String>,
    /// Targets of its events by their names.
    pub webhooks: BTreeMap<String, Arc<Webhook>>,
    /// Its slices of the catalog and the groups that host them.
    pub partitions: Vec<(PartitionId, GroupId)>,
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub struct DirectorySnapshot {
    /// Tenants that are there, suspended ones among them: background work on theirs goes on.
    pub tenants: BTreeMap<TenantId, Arc<TenantEntry>>,
    /// All drives of the cluster.
    pub drives: Vec<KnownDrive>,
    /// What operators ask of workers.
    pub orders: Arc<Orders>,
    /// What the cluster lets events do.
    pub events: Arc<EventSettings>,
    /// Whether every node's program knows of events.
    pub can_tell_events: bool,
    /// What seals commands of every tenant whose key opens, active or not.
    pub seals: HashMap<TenantId, Arc<MetadataSeal>>,
    /// What seals records of the same tenants.
    pub metadata: HashMap<TenantId, Arc<TenantMetadata>>,
    /// Tenants whose keys are destroyed: what is on drives of theirs is noise.
    pub destroyed: BTreeSet<TenantId>,
}

/// The directory.
#[derive(Debug)]
pub struct Directory {
    cluster: ClusterId,
    region: String,
    now: RwLock<Arc<DirectorySnapshot>>,
}

impl Directory {
    /// An empty directory of a cluster.
    #[must_use]
    pub fn new(cluster: ClusterId, region: String) -> Self {
        Self { cluster, region, now: RwLock::default() }
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The region that signatures name.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Puts a newer snapshot in place.
    pub fn update(&self, snapshot: DirectorySnapshot) {
        *self.now.write() = Arc::new(snapshot);
    }

    /// The snapshot in force.
    #[must_use]
    pub fn snapshot(&self) -> Arc<DirectorySnapshot> {
        Arc::clone(&self.now.read())
    }

    /// What seals a tenant's commands.
    pub(crate) fn seal(&self, tenant: TenantId) -> Result<Arc<MetadataSeal>, ObjectError> {
        self.snapshot().seals.get(&tenant).cloned().ok_or_else(|| {
            ObjectError::Unavailable(format!("the key of tenant {tenant} is not on this node"))
        })
    }

    pub(crate) fn tenant(&self, tenant: TenantId) -> Result<Arc<TenantEntry>, ObjectError> {
        self.snapshot()
            .tenants
            .get(&tenant)
            .cloned()
            .ok_or_else(|| ObjectError::Unavailable(format!("tenant {tenant} is not active")))
    }
}

impl TenantEntry {
    /// Whoever holds its key, which bodies need.
    pub(crate) fn key(&self) -> Result<&Arc<dyn TenantCustody>, ObjectError> {
        let what = self.waits_for.as_deref().unwrap_or("its key is not on this node");
        self.key.as_ref().ok_or_else(|| ObjectError::Unavailable(format!("tenant {}: {what}", self.name)))
    }

    /// A named key of this tenant; `None` when it has none of that name.
    pub(crate) fn named_key(&self, wanted: BodyUse, id: &str) -> Result<Option<OuterKey>, ObjectError> {
        if id != DEFAULT_NAMED_KEY && !self.named_keys.contains(id) {
            return Ok(None);
        }
        self.key()?.named_key(wanted, id).map(Some).map_err(no_key)
    }

    /// The partition for everything of this tenant. A tenant has one until it is split.
    pub(crate) fn partition(&self) -> Result<(PartitionId, GroupId), ObjectError> {
        self.partitions
            .first()
            .copied()
            .ok_or_else(|| ObjectError::Internal(format!("tenant {} has no catalog partition", self.name)))
    }
}
