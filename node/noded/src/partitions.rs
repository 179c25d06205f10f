//! Answers the admin API about the partitions of a tenant's catalog.

use holdfast_admin_api::{AdminError, PartitionBackend, PartitionState, PartitionStatus};
use holdfast_control::Response;
use holdfast_model::PartitionId;

use crate::{
    admin::{Admin, internal, unavailable},
    protection::tenant,
    splits,
};

fn failed(error: holdfast_object::api::ObjectError) -> AdminError {
    unavailable(&anyhow::Error::new(error))
}

#[async_trait::async_trait]
impl PartitionBackend for Admin {
    async fn partitions(&self, name: &str) -> Result<Vec<PartitionStatus>, AdminError> {
        let view = self.view().await?;
        let record = tenant(&view, name)?;
        let mut found = Vec::new();
        for (partition, group) in &record.partitions {
            let layout = self.objects.layout((*partition, *group)).await.map_err(failed)?;
            let leader = self.consensus.status(*group).and_then(|status| status.leader);
            let state = match &layout {
                None => PartitionState::ToBeSplit,
                Some(layout) if layout.clearing => PartitionState::Clearing,
                Some(_) => PartitionState::Settled,
            };
            let range = layout.map(|layout| layout.range);
            found.push(PartitionStatus {
                partition: *partition,
                group: *group,
                leader: leader.and_then(|node| view.nodes.get(&node)).map(|node| node.name.clone()),
                split_from: record.split_from.get(partition).copied(),
                state,
                hash_from: range.map(|range| range.from),
                hash_until: range.map(|range| range.until),
                versions: layout.map_or(0, |layout| layout.versions),
                bytes: layout.map_or(0, |layout| layout.bytes),
            });
        }
        Ok(found)
    }

    async fn split_partition(
        &self,
        name: &str,
        wanted: Option<PartitionId>,
    ) -> Result<PartitionId, AdminError> {
        let known = self.partitions(name).await?;
        let view = self.view().await?;
        let record = tenant(&view, name)?;
        let conflict = |what: String| Err(AdminError::Conflict { what });
        if let Some(waiting) = known.iter().find(|found| found.state == PartitionState::ToBeSplit) {
            return conflict(format!("Partition {} is being split off; wait for it.", waiting.partition));
        }
        let chosen = match wanted {
            Some(id) => known
                .iter()
                .find(|found| found.partition == id)
                .ok_or_else(|| AdminError::NotFound { what: format!("partition {id} of tenant {name:?}") })?,
            None => match known.iter().max_by_key(|found| found.versions) {
                Some(largest) => largest,
                None => return conflict(format!("Tenant {name} has no partition yet; try again.")),
            },
        };
        if chosen.state == PartitionState::Clearing {
            return conflict(format!(
                "Partition {} was split and still holds rows of the other half; wait until they are cleared away.",
                chosen.partition
            ));
        }
        let outcome = splits::add(&self.control, record, chosen.partition).await;
        match outcome.map_err(|error| unavailable(&error))? {
            Ok(Response::PartitionAdded(into, _)) => {
                tracing::info!(target: "audit", tenant = name, partition = %chosen.partition, %into, "a partition is to be split");
                Ok(into)
            }
            Ok(other) => Err(internal("splitting a partition", anyhow::anyhow!("the answer is {other:?}"))),
            Err(refusal) => conflict(splits::explain(&refusal)),
        }
    }
}
