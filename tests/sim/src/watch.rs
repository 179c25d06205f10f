//! Watches a run while it goes on. At any moment
//!
//! - whatever the catalog places on a drive is on that drive: a drive that fails, a power cut and a move are no reason for
//!   it not to be, only what makes drives forget is;
//! - no shard lies where garbage of its stripe waits to be swept.

use std::{sync::Arc, time::Duration};

use holdfast_model::ShardId;
use tokio::time::sleep;

use crate::{audit::live, faults::Site, rig::PARTITION, world::World};

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
        let Some(catalog) = world.log.complete().and_then(|log| log.partition(PARTITION).ok()) else {
            continue;
        };
        seen = count;
        let live = live(&catalog);
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
        let garbage = catalog.garbage(None, GARBAGE_MAX).map_or(Vec::new(), |(rows, _)| rows);
        for row in &garbage {
            let Some((key, stripe)) = live.get(&row.stripe) else { continue };
            let waits = |drive| row.shards.iter().any(|(_, place)| place.drive == drive);
            if stripe.places.iter().any(|place| waits(place.drive)) {
                let what = format_args!("a shard of {key} lies where garbage of its stripe waits");
                world.trace.violation("placement", what);
            }
        }
    }
}
