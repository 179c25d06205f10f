//! Strays: shards of live stripes on drives where the catalog does not place them. A move leaves some when it fails half
//! way, or when nobody learns whether the catalog has switched; a drive that is put back to an older image brings some
//! along.
//!
//! A stray looks like a copy that a move has just made, of which the catalog is about to be told. The stripe's generation
//! tells them apart: a move is switched only from the generation that it started from, and its copies are of the next
//! one. Once a stripe has reached a stray's generation, nothing that is under way can make the stray a part of it, and
//! what is written later is of a higher one, which a delete of the stray does not touch.
//!
//! Invariants:
//! - a shard is deleted only where the catalog, asked anew, does not place it, and only when the stripe has reached
//!   the shard's generation; of a dead stripe also where it is placed, when it is newer than what the sweep deletes:
//!   a shard that was written anew in its place when its stripe died;
//! - the catalog raises the generation, by a move of a shard to where it is: nobody takes it to be raised.

use holdfast_catalog::{KnownStripe, MoveShards, Op, Refusal, ShardMove, StripeRef};
use holdfast_model::{Generation, ShardId, ShardIndex, StripeId, placement::Place};
use holdfast_store::ShardError;

use super::Route;
use crate::{api::ObjectError, service::ObjectService};

/// How often a stripe is looked at again because others move it, or because it is many generations behind its stray.
const LOOKS_MAX: usize = 8;

/// What drives hold of one stripe where the catalog does not place it.
#[derive(Debug, Clone)]
pub(super) struct Strays {
    pub stripe: StripeId,
    /// The highest generation among them.
    pub generation: Generation,
    pub shards: Vec<(ShardIndex, Place)>,
}

/// What became of strays.
#[derive(Debug)]
pub(super) struct Deleted {
    pub shards: usize,
    /// What the last drive said that does not delete now.
    pub failed: Option<ShardError>,
    /// The stripe, as the catalog has it now.
    pub known: Option<KnownStripe>,
}

/// Deletes strays, unless the catalog has come to name their places. What is left, of a stripe that the catalog does not
/// know any more as well, is found by the next look for orphans on its drive.
///
/// # Errors
/// When the catalog does not decide. Nothing is deleted then.
pub(super) async fn delete(
    service: &ObjectService,
    route: Route,
    strays: &Strays,
) -> Result<Deleted, ObjectError> {
    let known = match holdfast_planted::is("StraysAreNotBarred") {
        true => read(service, route, strays.stripe).await?,
        false => reached(service, route, strays.stripe, strays.generation).await?,
    };
    let mut result = Deleted { shards: 0, failed: None, known };
    let Some(KnownStripe { stripe, live }) = &result.known else { return Ok(result) };
    let outlives = !live && strays.generation > stripe.generation && !holdfast_planted::is("DeadCopiesStay");
    for (index, place) in &strays.shards {
        let placed = is_placed(stripe, *index, *place) && !holdfast_planted::is("TakesBackWhatIsPlaced");
        if placed && !outlives {
            continue;
        }
        let shard = ShardId { stripe: stripe.id, index: *index };
        match service.stripes.shards.delete(*place, shard, strays.generation).await {
            Ok(()) => result.shards += 1,
            Err(error) => result.failed = Some(error),
        }
    }
    Ok(result)
}

/// Whether the catalog has that shard there, of a dead stripe too: then it is garbage, and swept as such.
pub(super) fn is_placed(stripe: &StripeRef, index: ShardIndex, at: Place) -> bool {
    stripe.places.get(usize::from(index.get())).is_some_and(|place| place.drive == at.drive)
}

async fn read(
    service: &ObjectService,
    route: Route,
    stripe: StripeId,
) -> Result<Option<KnownStripe>, ObjectError> {
    service.read(route, ("", ""), move |catalog| catalog.stripe(stripe)).await
}

/// The stripe, which has reached `generation` if it is live.
async fn reached(
    service: &ObjectService,
    route: Route,
    stripe: StripeId,
    generation: Generation,
) -> Result<Option<KnownStripe>, ObjectError> {
    for _ in 0..LOOKS_MAX {
        let known = read(service, route, stripe).await?;
        let Some(KnownStripe { live: true, stripe: current }) = &known else { return Ok(known) };
        if current.generation >= generation {
            return Ok(known);
        }
        match service.propose(route, Op::MoveShards(to_where_it_is(current))).await? {
            Ok(_) | Err(Refusal::StripeChanged(_) | Refusal::NoSuchStripe) => {}
            Err(refusal) => return Err(ObjectError::Unavailable(format!("stripe {stripe}: {refusal}"))),
        }
    }
    Err(ObjectError::Unavailable(format!("stripe {stripe} does not come to rest")))
}

fn to_where_it_is(stripe: &StripeRef) -> MoveShards {
    let moves = stripe.shards().take(1).map(|(index, place)| ShardMove { index, from: place, to: place });
    MoveShards { stripe: stripe.id, expected: stripe.generation, moves: moves.collect() }
}
