//! Drives that are emptied leave for good when nothing is placed on them any more. The leader of the control
//! group sees to it; the workers do the emptying.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use holdfast_consensus::Consensus;
use holdfast_control::{Command, DriveState};
use holdfast_model::{DriveId, GroupId, NodeId};
use holdfast_object::ObjectService;
use tokio_util::sync::CancellationToken;

use crate::control::Control;

/// How long a drive is kept at least: by then the leaders have written new bases of the catalog, which make up
/// for the copies on it.
const COPIES_RENEWED: Duration = Duration::from_secs(20);

/// How often drives that are being emptied are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Runs until cancelled; idle on nodes that do not lead the control group.
pub async fn run(
    control: Control,
    consensus: Arc<Consensus>,
    objects: Arc<ObjectService>,
    own: NodeId,
    stop: CancellationToken,
) {
    let mut draining: BTreeMap<DriveId, Instant> = BTreeMap::new();
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
        if let Err(error) = finish(&control, &objects, &mut draining).await {
            tracing::warn!(
                error = format!("{error:#}"),
                "drives that are emptied not looked at; will be tried again"
            );
        }
    }
}

async fn finish(
    control: &Control,
    objects: &ObjectService,
    draining: &mut BTreeMap<DriveId, Instant>,
) -> Result<()> {
    let view = control.view().await?;
    draining.retain(|drive, _| view.drives.get(drive).is_some_and(|d| d.state == DriveState::Draining));
    for drive in view.drives.values().filter(|drive| drive.state == DriveState::Draining) {
        let since = *draining.entry(drive.drive).or_insert_with(Instant::now);
        if since.elapsed() >= COPIES_RENEWED && objects.drive_is_empty(drive.drive).await? {
            let removed = Command::SetDriveState { drive: drive.drive, state: DriveState::Removed };
            control.propose(&removed).await?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            tracing::info!(drive = %drive.drive, path = drive.path, "drive is empty and has left; it may be pulled");
        }
    }
    Ok(())
}
