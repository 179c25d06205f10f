//! Makes one replica's state differ, as a bug or a rotten memory would: behind the back of a node that is down.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use holdfast_audit::keys::TenantKeys;
use holdfast_catalog::{CatalogMachine, Command, Op, decode_outcome};
use holdfast_consensus::{Applied, StateMachine};
use holdfast_model::{BucketId, UnixMillis};

/// A bucket that only the replica knows that was made to differ.
pub const BUCKET: &str = "only-here";

/// The tenant whose buckets are listed.
const TENANT: &str = "demo";

/// Applies a command that no log holds to the partition of [`TENANT`] in the state directory of a node, with
/// keys from the shares in the state directories of `all`.
pub fn plant(state: &Path, all: &[PathBuf]) -> Result<()> {
    let (keys, view) = TenantKeys::gather(state, all)?;
    let tenant = view.tenants.values().find(|tenant| tenant.name == TENANT).context("no tenant")?;
    let (partition, group) = *tenant.partitions.first().context("no partition")?;
    let seal = keys.seal(tenant.tenant).context("no key")?;
    let dir = state.join("catalog").join(group.to_string());
    let mut machine = CatalogMachine::open(&dir, Arc::clone(&keys) as _)?;
    let index = machine.reader().partition(partition)?.digest()?.next_index;
    let op = Op::CreateBucket {
        bucket: BucketId::from_bytes([0xd1; 16]),
        name: BUCKET.to_owned(),
        object_lock: false,
    };
    let commands = [Command { partition, at: UnixMillis::new(1), request: None, op }.seal(seal)];
    let answers = machine.apply(&[Applied { index, commands: &commands }])?;
    ensure!(decode_outcome(&answers[0][0])?.is_ok(), "the bucket was not made");
    Ok(())
}
