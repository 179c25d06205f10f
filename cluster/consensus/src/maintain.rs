//! Checkpoints and purges of one group: when its machine has work to make durable, and when its old
//! entries keep segments of the shared log alive.

use std::{collections::BTreeMap, time::Duration};

use holdfast_model::GroupId;
use tokio::{sync::watch, time::sleep};

use crate::{
    apply::{Applier, CheckpointLimits},
    context::Context,
    log::store::GroupLog,
};

/// How long a checkpoint may take before the task looks at the group again.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(300);

/// Pause before old entries that still hold segments are asked for again.
const PURGE_AGAIN: Duration = Duration::from_secs(1);

/// Runs until the group stops.
pub(crate) async fn maintain(
    context: Context,
    log: GroupLog,
    applier: Applier,
    limits: CheckpointLimits,
    mut holding: watch::Receiver<BTreeMap<GroupId, u64>>,
) {
    let group = context.group;
    let mut held = None;
    loop {
        let due = tokio::select! {
            biased;
            () = applier.checkpoint_due() => true,
            changed = holding.changed() => if changed.is_ok() { false } else { return },
            // A purge may have been put off, by a follower that was just being sent those entries.
            () = sleep(PURGE_AGAIN), if held.is_some() => false,
        };
        held = holding.borrow_and_update().get(&group).copied();
        let covered = applier.checkpoint().and_then(|meta| meta.last_log_id).map(|id| id.index);
        if due || held.is_some_and(|upto| covered < Some(upto)) {
            checkpoint(&context, &applier).await;
        } else if held.is_none() {
            continue;
        }
        let spare = log.inspect(|index| index.purgeable(limits.keep_entries, limits.keep_bytes));
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
