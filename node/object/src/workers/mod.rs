//! Background work that keeps the promises about what is stored.
//!
//! ```text
//! drives lost or to be emptied ──> rebuild, smartfail ─┐
//! drives of unequal fill ────────> rebalance ──────────┼─> relocate: copy or rebuild, read back, switch
//! reads and scrubs that find bad shards ──> repair ────┘
//! stripes without their level ───> levels ─────────────> recut: read, cut, seal, write, read back, switch
//! what nothing refers to ────────> sweep, strays
//! what buckets ask to be told ────> events
//! ```
//!
//! Each looks at the catalog and the drives anew, so any of them may be stopped at any point and started
//! elsewhere. What they do and what debt they know of is on the [`Board`]; what operators ask of them comes
//! with the directory ([`Orders`]).

mod abreast;
mod absent;
mod control;
mod events;
mod later;
mod levels;
mod lifecycle;
mod rebalance;
mod rebuild;
mod reclaim;
mod recut;
mod relocate;
mod repair;
mod scrub;
mod status;
mod strays;
mod survey;
mod sweep;
mod undeleted;
mod worker;

use std::sync::Arc;

use holdfast_model::{GroupId, NodeId, PartitionId};
use holdfast_store::Found;
use tokio_util::sync::CancellationToken;

pub use absent::{DRIVE_GRACE, KnownDrive, NODE_GRACE, Standing};
pub use control::{Hours, Impact, Order, Orders};
pub use events::PartitionEvents;
pub(crate) use levels::read_level;
pub use levels::{BucketLevel, PartitionLevels};
pub use status::{Board, Debt, Kind, PartitionDebt, Progress, WorkerStatus};

use crate::{directory::TenantEntry, service::ObjectService};

/// Runs all workers until cancelled.
pub async fn run(service: Arc<ObjectService>, node: NodeId, found: Found, stop: CancellationToken) {
    tokio::join!(
        lifecycle::run(Arc::clone(&service), node, stop.clone()),
        worker::run(rebuild::Rebuild::new(Arc::clone(&service), node), stop.clone()),
        worker::run(repair::Repair::new(Arc::clone(&service), found), stop.clone()),
        worker::run(scrub::Scrub::new(Arc::clone(&service), node), stop.clone()),
        worker::run(levels::Levels::new(Arc::clone(&service), node), stop.clone()),
        worker::run(rebalance::Rebalance::new(Arc::clone(&service), node), stop.clone()),
        worker::run(sweep::Sweep::new(Arc::clone(&service), node), stop.clone()),
        worker::run(events::Events::new(Arc::clone(&service), node), stop.clone()),
        worker::run(reclaim::Reclaim::new(service), stop),
    );
}

/// A tenant's partition and the group that hosts it.
type Route = (PartitionId, GroupId);

/// Partitions whose groups this node leads and whose shards may be worked on: not those that are not split off
/// yet, nor those that still hold rows of others after a split.
fn led(service: &ObjectService, node: NodeId) -> Vec<(Arc<TenantEntry>, Route)> {
    let mut found = led_with_leftovers(service, node);
    found.retain(|(_, route)| service.is_settled(*route));
    found
}

/// Partitions whose groups this node leads.
fn led_with_leftovers(service: &ObjectService, node: NodeId) -> Vec<(Arc<TenantEntry>, Route)> {
    let leads = |group| service.consensus.leader(group) == Some(node);
    let snapshot = service.directory.snapshot();
    let routes = snapshot.tenants.values().flat_map(|tenant| {
        tenant.partitions.iter().map(|route| (Arc::clone(tenant), *route)).collect::<Vec<_>>()
    });
    let is_there = |(partition, group): Route| {
        service.catalogs.get(&group).is_some_and(|catalog| catalog.identity(partition).is_some())
    };
    routes.filter(|(_, route)| leads(route.1) && is_there(*route)).collect()
}
