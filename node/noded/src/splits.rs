//! Splits partitions of the catalog: when an operator asks, and when one has grown beyond [`VERSIONS_MAX`].
//!
//! The control group gives the new partition its number first. From then on the leader of the partition's group has it
//! split, however often it is interrupted, and clears away what the split left behind.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use holdfast_consensus::Consensus;
use holdfast_control::{
    Command, ControlView, FEATURE_LEVEL_SPLITS, Outcome, Refusal, TenantRecord, TenantState,
};
use holdfast_model::{GroupId, NodeId, PartitionId};
use holdfast_object::ObjectService;
use tokio_util::sync::CancellationToken;

use crate::control::Control;

/// Versions of objects from which a partition is split without being asked. While it is split its group waits for a
/// copy of its file: 0.64 s measured for so many.
pub const VERSIONS_MAX: u64 = 1_000_000;

/// How often partitions are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Pause after each command that clears rows away: clients come first.
const REST: Duration = Duration::from_millis(20);

/// Splits and clears.
#[derive(Debug)]
pub struct Splitter {
    /// The control group.
    pub control: Control,
    /// Who leads what.
    pub consensus: Arc<Consensus>,
    /// The catalog.
    pub objects: Arc<ObjectService>,
    /// This node.
    pub own: NodeId,
}

impl Splitter {
    /// Runs until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let worked = tokio::select! {
                () = stop.cancelled() => return,
                worked = self.look() => worked,
            };
            if let Err(error) = worked {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "partitions that are split not looked at; will be tried again"
                );
            }
        }
    }

    fn leads(&self, group: GroupId) -> bool {
        self.consensus.status(group).is_some_and(|status| status.leader == Some(self.own))
    }

    async fn look(&self) -> Result<()> {
        let view = self.control.view().await?;
        for tenant in view.tenants.values().filter(|tenant| tenant.state != TenantState::Shredding) {
            for (partition, group) in tenant.partitions.iter().filter(|(_, group)| self.leads(*group)) {
                if let Err(error) = self.look_at(&view, tenant, (*partition, *group)).await {
                    let error = format!("{error:#}");
                    tracing::warn!(tenant = tenant.name, %partition, error, "a partition was not looked at; will be tried again");
                }
            }
        }
        Ok(())
    }

    async fn look_at(
        &self,
        view: &ControlView,
        tenant: &TenantRecord,
        (partition, group): (PartitionId, GroupId),
    ) -> Result<()> {
        let Some(layout) = self.objects.layout((partition, group)).await? else {
            let Some(source) = tenant.split_from.get(&partition) else { return Ok(()) };
            let database = tenant.database_of(partition);
            if self.objects.split_off((*source, group), partition, database).await? {
                tracing::info!(tenant = tenant.name, %source, into = %partition, "a partition of the catalog is split");
            }
            return Ok(());
        };
        if layout.clearing {
            return self.clear(tenant, (partition, group)).await;
        }
        let can = view.cluster.as_ref().is_some_and(|cluster| cluster.feature_level >= FEATURE_LEVEL_SPLITS);
        if can && layout.versions > VERSIONS_MAX && layout.range.halves().is_some() {
            let added = add(&self.control, tenant, partition).await?;
            match added {
                Ok(_) => {
                    tracing::info!(tenant = tenant.name, %partition, versions = layout.versions, "a partition has grown large and is to be split");
                }
                Err(refusal) => {
                    tracing::warn!(tenant = tenant.name, %partition, %refusal, "a large partition is not split");
                }
            }
        }
        Ok(())
    }

    /// Clears until nothing is left, or this node does not lead the group any more.
    async fn clear(&self, tenant: &TenantRecord, route: (PartitionId, GroupId)) -> Result<()> {
        let mut commands = 0u64;
        while self.leads(route.1) {
            if self.objects.clear_after_split(route).await? {
                tracing::info!(tenant = tenant.name, partition = %route.0, commands, "what a split left behind is cleared away");
                return Ok(());
            }
            commands += 1;
            tokio::time::sleep(REST).await;
        }
        Ok(())
    }
}

/// Gets a number for a half of a partition; the rest follows.
///
/// # Errors
/// When the control group does not decide.
pub async fn add(control: &Control, tenant: &TenantRecord, partition: PartitionId) -> Result<Outcome> {
    let of = u32::try_from(tenant.partitions.len())
        .map_err(|_| anyhow!("tenant {} has too many partitions", tenant.name))?;
    control.propose(&Command::SplitPartition { partition, of }).await
}

/// What a refusal to split means to an operator.
#[must_use]
pub fn explain(refusal: &Refusal) -> String {
    match refusal {
        Refusal::FeatureLevel { .. } => {
            format!("Not every node can work with split partitions yet. {refusal}.")
        }
        Refusal::Changed(_) => {
            "A partition was added meanwhile. Look at the partitions and ask again.".to_owned()
        }
        other => other.to_string(),
    }
}
