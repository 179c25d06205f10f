//! Drives that are emptied leave for good when nothing is placed on them any more. The leader of the control
//! group sees to it; the workers do the emptying.
//!
//! A drive that its node does not find or cannot read is given up by the workers, and what it held is rebuilt
//! elsewhere. When nothing is left on it, it leaves as if an operator had asked for that.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use holdfast_consensus::Consensus;
use holdfast_control::{Command, DriveState};
use holdfast_model::{DriveId, GroupId, NodeId};
use holdfast_object::ObjectService;
use holdfast_store::Health;
use tokio_util::sync::CancellationToken;

use crate::control::Control;

/// How long a drive is kept at least: by then the leaders have written new bases of the catalog, which make up
/// for the copies on it.
const COPIES_RENEWED: Duration = Duration::from_secs(20);

/// How long a drive must have been away, its node answering, before it may leave by itself: longer than it
/// takes to put a pulled one back.
const AWAY_AT_LEAST: Duration = Duration::from_secs(60);

/// How often drives that are being emptied are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until cancelled; idle on nodes that do not lead the control group.
pub async fn run(
    control: Control,
    consensus: Arc<Consensus>,
    objects: Arc<ObjectService>,
    health: Arc<Health>,
    own: NodeId,
    stop: CancellationToken,
) {
    let mut known = Known::default();
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if consensus.status(GroupId::CONTROL).is_none_or(|status| status.leader != Some(own)) {
            continue;
        }
        if let Err(error) = finish(&control, &objects, &health, &mut known).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "drives that are emptied not looked at; will be tried again"
            );
        }
    }
}

/// What the leader remembers between two looks.
#[derive(Debug, Default)]
struct Known {
    /// Since when drives are seen to be emptied.
    draining: BTreeMap<DriveId, Instant>,
    /// Since when drives are seen to be away.
    away: BTreeMap<DriveId, Instant>,
    /// Those that are to leave because they are away, and stay when they come back.
    by_itself: BTreeSet<DriveId>,
}

async fn finish(
    control: &Control,
    objects: &ObjectService,
    health: &Health,
    known: &mut Known,
) -> Result<()> {
    let view = control.view().await?;
    let set = async |drive, state| {
        let outcome = control.propose(&Command::SetDriveState { drive, state }).await?;
        outcome.map(drop).map_err(|refusal| anyhow::anyhow!("{refusal}"))
    };
    let is = |drive: &DriveId, state| view.drives.get(drive).is_some_and(|record| record.state == state);
    known.draining.retain(|drive, _| is(drive, DriveState::Draining));
    known.by_itself.retain(|drive| is(drive, DriveState::Draining));
    known.away.retain(|drive, _| is(drive, DriveState::Active));
    for drive in view.drives.values() {
        let (id, path) = (drive.drive, &drive.path);
        match drive.state {
            DriveState::Active if !health.is_up(drive.node) || health.has_drive(drive.node, id) => {
                known.away.remove(&id);
            }
            DriveState::Active => {
                let since = *known.away.entry(id).or_insert_with(Instant::now);
                if since.elapsed() >= AWAY_AT_LEAST && objects.drive_is_empty(id).await? {
                    set(id, DriveState::Draining).await?;
                    known.by_itself.insert(id);
                    tracing::warn!(drive = %id, path, "drive is away and nothing is placed on it: it leaves");
                }
            }
            DriveState::Draining if known.by_itself.contains(&id) && health.has_drive(drive.node, id) => {
                set(id, DriveState::Active).await?;
                tracing::info!(drive = %id, path, "drive is back before it had left: it stays");
            }
            DriveState::Draining => {
                let since = *known.draining.entry(id).or_insert_with(Instant::now);
                if since.elapsed() >= COPIES_RENEWED && objects.drive_is_empty(id).await? {
                    set(id, DriveState::Removed).await?;
                    tracing::info!(drive = %id, path, "drive is empty and has left; it may be pulled");
                }
            }
            DriveState::Removed => {}
        }
    }
    Ok(())
}
