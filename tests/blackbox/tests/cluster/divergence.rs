//! Makes one replica's state differ, as a bug or a rotten memory would: behind the back of a node that is down.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use holdfast_catalog::{
    CatalogMachine, Command, Held, KeyVersion, MetadataKeys, MetadataSeal, Op, decode_outcome,
};
use holdfast_consensus::{Applied, StateMachine};
use holdfast_control::ControlMachine;
use holdfast_keyring::{Gathering, Keyring, ShareStore};
use holdfast_model::{BucketId, ClusterId, TenantId, UnixMillis};

/// A bucket that only the replica knows that was made to differ.
pub const BUCKET: &str = "only-here";

/// The tenant whose buckets are listed.
const TENANT: &str = "demo";

/// Version of every tenant's key.
const KEY_VERSION: KeyVersion = 1;

struct OneKey(Arc<MetadataSeal>);

impl MetadataKeys for OneKey {
    fn current(&self, _tenant: TenantId) -> Held {
        Held::Here(Arc::clone(&self.0))
    }

    fn version(&self, tenant: TenantId, _version: KeyVersion) -> Held {
        self.current(tenant)
    }

    fn is_closed(&self) -> bool {
        true
    }
}

/// Applies a command that no log holds to the partition of [`TENANT`] in the state directory of a node, with
/// keys from the shares in the state directories of `all`.
pub fn plant(state: &Path, all: &[PathBuf]) -> Result<()> {
    let identity: serde_json::Value = serde_json::from_slice(&std::fs::read(state.join("identity.json"))?)?;
    let cluster: ClusterId = serde_json::from_value(identity["cluster"].clone())?;
    let keyring = unlocked(cluster, all)?;
    let view = ControlMachine::open(&state.join("control"), [0; 16])?.1.view()?;
    let tenant = view.tenants.values().find(|tenant| tenant.name == TENANT).context("no tenant")?;
    let (partition, group) = *tenant.partitions.first().context("no partition")?;
    let key = keyring.tenant(tenant.tenant, &tenant.wrapped_key)?.metadata_key();
    let seal = Arc::new(MetadataSeal::new(KEY_VERSION, key));
    let dir = state.join("catalog").join(group.to_string());
    let mut machine = CatalogMachine::open(&dir, Arc::new(OneKey(Arc::clone(&seal))))?;
    let index = machine.reader().partition(partition)?.digest()?.next_index;
    let op = Op::CreateBucket {
        bucket: BucketId::from_bytes([0xd1; 16]),
        name: BUCKET.to_owned(),
        object_lock: false,
    };
    let commands = [Command { partition, at: UnixMillis::new(1), request: None, op }.seal(&seal)];
    let answers = machine.apply(&[Applied { index, commands: &commands }])?;
    ensure!(decode_outcome(&answers[0][0])?.is_ok(), "the bucket was not made");
    Ok(())
}

fn unlocked(cluster: ClusterId, states: &[PathBuf]) -> Result<Keyring> {
    let mut gathering = Gathering::default();
    for state in states {
        let shares = ShareStore::open(state, cluster, None)?.shares()?;
        shares.shares().iter().for_each(|share| gathering.add(share.clone()));
    }
    let keyring = Keyring::locked(cluster);
    gathering.roots(cluster).into_iter().for_each(|root| keyring.add_root(root));
    ensure!(!keyring.is_locked(), "too few shares of the root");
    Ok(keyring)
}
