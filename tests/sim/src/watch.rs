//! Watches a run while it goes on. At any moment
//!
//! - whatever the catalog places on a drive is on that drive: a drive that fails, a power cut and a move are no reason for
//!   it not to be, only what makes drives forget is;
//! - no shard lies where garbage of its stripe waits to be swept.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_catalog::PartitionReader;
use holdfast_model::ShardId;
use tokio::time::sleep;

use crate::{audit::live, faults::Site, world::World};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Entries of the garbage looked at.
const GARBAGE_MAX: usize = 256;

/// Looks whenever something was decided.
pub async fn watch(world: Arc<World>, site: Arc<Site>) {
    let mut seen = 0;
    loop {
        sleep(LOOK).await;
        let count = world.log.len();
        if count == seen {
            continue;
        }
        let Some(log) = world.log.complete() else { continue };
        seen = count;
        let catalogs: Vec<_> =
            world.partitions().into_iter().filter_map(|partition| log.partition(partition).ok()).collect();
        let live: BTreeMap<_, _> = catalogs.iter().flat_map(live).collect();
        for (key, stripe) in live.values() {
            for (index, place) in stripe.shards() {
                let id = ShardId { stripe: stripe.id, index };
                if site.keeper(&world, place).is_some_and(|drive| !drive.holds(id)) {
                    let at = place.node;
                    world.trace.violation(
                        "held",
                        format_args!("shard {index} of {key} is not on its drive of {at}"),
                    );
                }
            }
        }
        let garbage = |catalog: &PartitionReader| {
            catalog.garbage(None, GARBAGE_MAX).map_or(Vec::new(), |(rows, _)| rows)
        };
        for row in catalogs.iter().flat_map(garbage) {
            let Some((key, stripe)) = live.get(&row.stripe) else { continue };
            let waits = |drive| row.shards.iter().any(|(_, place)| place.drive == drive);
            if stripe.places.iter().any(|place| waits(place.drive)) {
                let what = format_args!("a shard of {key} lies where garbage of its stripe waits");
                world.trace.violation("placement", what);
            }
        }
    }
}
