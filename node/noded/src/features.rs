//! Feature levels: this node tells the control group what its program can, and the leader raises the level once every
//! node can ([`holdfast_control::FEATURE_LEVEL`]).

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use holdfast_consensus::Consensus;
use holdfast_control::{
    Command, ControlView, FEATURE_LEVEL, FEATURE_LEVEL_BASE, FeatureCommand, NodeState, Refusal,
};
use holdfast_model::{GroupId, NodeId};
use tokio_util::sync::CancellationToken;

use crate::control::Control;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// What this node's program can: everything of its release, unless its configuration holds it back.
#[must_use]
pub fn level(held_back_at: Option<u32>) -> u32 {
    held_back_at.map_or(FEATURE_LEVEL, |at| at.clamp(FEATURE_LEVEL_BASE, FEATURE_LEVEL))
}

/// Refuses to start below the level in force: this node could not apply what the others decide.
///
/// # Errors
/// Then, with what to do.
pub fn check(view: &ControlView, own: u32) -> Result<()> {
    let in_force = view.cluster.as_ref().map_or(FEATURE_LEVEL_BASE, |cluster| cluster.feature_level);
    if own < in_force {
        bail!(
            "the cluster uses feature level {in_force} and this node's program knows {own}: update this node (or \
             remove feature_level_max from its configuration)"
        );
    }
    Ok(())
}

/// Runs until cancelled.
pub async fn run(
    control: Control,
    consensus: Arc<Consensus>,
    own: NodeId,
    level: u32,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let leads = consensus.status(GroupId::CONTROL).is_some_and(|status| status.leader == Some(own));
        if let Err(error) = look(&control, own, level, leads).await {
            tracing::warn!(error = format!("{error:#}"), "feature levels not looked at; will be tried again");
        }
    }
}

async fn look(control: &Control, own: NodeId, level: u32, leads: bool) -> Result<()> {
    let view = control.view().await?;
    let decide = async |command| control.propose(&Command::Features(command)).await;
    if view.nodes.get(&own).is_some_and(|node| node.feature_level != level) {
        match decide(FeatureCommand::Report { node: own, level }).await? {
            Ok(_) => tracing::info!(level, "told what this node's program can"),
            Err(refusal @ Refusal::FeatureLevel { .. }) => {
                tracing::error!(%refusal, "this node's program is older than what the cluster uses");
            }
            Err(refusal) => bail!("{refusal}"),
        }
    }
    let members = view.nodes.values().filter(|node| node.state != NodeState::Removed);
    let lowest = members.map(|node| node.feature_level).min().unwrap_or(FEATURE_LEVEL_BASE);
    let in_force = view.cluster.as_ref().map_or(lowest, |cluster| cluster.feature_level);
    if leads && lowest > in_force {
        match decide(FeatureCommand::Raise { level: lowest }).await? {
            Ok(_) => {
                tracing::info!(target: "audit", level = lowest, "every node can: the feature level is raised")
            }
            Err(refusal) => tracing::info!(%refusal, "the feature level is not raised yet"),
        }
    }
    Ok(())
}
