//! Checkpoints and purges of one group: when its machine has work to make durable, and when its old
//! entries keep segments of the shared log alive.

use std::{collections::BTreeMap, time::Duration};

use holdfast_model::GroupId;
use tokio::sync::watch;

use crate::{apply::Applier, context::Context, log::store::GroupLog};

/// Entries kept behind a checkpoint, so that a follower that was away shortly needs no snapshot.
const KEEP_ENTRIES: u64 = 4096;

/// Bytes of entries kept behind a checkpoint.
const KEEP_BYTES: u64 = 16 * 1024 * 1024;

/// How long a checkpoint may take before the task looks at the group again.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs until the group stops.
pub(crate) async fn maintain(
    context: Context,
    log: GroupLog,
    applier: Applier,
    mut holding: watch::Receiver<BTreeMap<GroupId, u64>>,
) {
    let group = context.group;
    loop {
        tokio::select! {
            () = applier.checkpoint_due() => {}
            changed = holding.changed() => if changed.is_err() { return },
        }
        let held = holding.borrow_and_update().get(&group).copied();
        let due = applier.checkpoint().and_then(|meta| meta.last_log_id).map(|id| id.index);
        if held.is_some_and(|upto| due < Some(upto)) || held.is_none() {
            checkpoint(&context, &applier).await;
        }
        let spare = log.inspect(|index| index.purgeable(KEEP_ENTRIES, KEEP_BYTES));
        let Some(upto) = spare.max(held) else { continue };
        // The group has stopped when this fails; its status says why.
        if context.raft.trigger().purge_log(upto).await.is_err() {
            return;
        }
    }
}

/// Has openraft take a checkpoint of what is applied now, and waits for it.
async fn checkpoint(context: &Context, applier: &Applier) {
    let applied = *applier.applied().borrow();
    if context.raft.trigger().snapshot().await.is_err() {
        return;
    }
    let reached = context.raft.wait(Some(CHECKPOINT_TIMEOUT));
    let result =
        reached.metrics(|metrics| metrics.snapshot.map(|id| id.index) >= applied, "checkpoint").await;
    if let Err(error) = result {
        tracing::warn!(group = %context.group, %error, "a checkpoint is late");
    }
}
