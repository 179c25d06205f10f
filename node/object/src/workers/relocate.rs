//! Moves shards of one stripe: choose drives, have the new copies written and read back, switch the catalog,
//! and clean up after a move that did not come about.
//!
//! Invariants:
//! - the old places are given up by the catalog's word alone, after the new copies were read back;
//! - a copy is taken back only where the catalog, asked anew, does not place it and cannot come to ([`super::strays`]).

use holdfast_catalog::{MoveShards, Op, Outcome as Decision, Refusal, ShardMove, StripeRef};
use holdfast_model::{
    DriveId, Generation, ShardIndex, TenantId,
    fit::per_node_max,
    limits::SECTOR_SIZE,
    placement::{Candidate, Place, replace},
};
use holdfast_store::{RebuildFailed, Relocation, StripeRebuilder};
use holdfast_stripe::Layout;

use super::{
    Route,
    strays::{self, Strays},
};
use crate::{api::ObjectError, host::chance, service::ObjectService, stripes::stored};

/// How often other drives are tried when the catalog finds that one still holds an unswept shard.
const ATTEMPTS: usize = 4;

/// A shard that should not stay where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaving {
    pub index: ShardIndex,
    /// What is at its place may be read.
    pub readable: bool,
    /// It may be written anew at its own place when no other drive can take it.
    pub in_place: bool,
}

/// What came of a move.
#[derive(Debug)]
pub(super) enum Relocated {
    /// So many shards have new places on these drives; so many bytes were read and written for it.
    Done { shards: usize, bytes: u64, to: Vec<DriveId> },
    /// No drive may take any of them now.
    NoPlace,
    /// Nothing needs the stripe any more, or somebody else moved it meanwhile.
    Overtaken,
}

/// Where a stripe is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    pub tenant: TenantId,
    pub route: Route,
    /// The cluster has one node: its stripes span its drives.
    pub alone: bool,
}

/// Which drives shards may go to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Targets<'a> {
    /// Any that take shards now, those with more room more often.
    Any,
    /// These only.
    These(&'a [Candidate]),
}

pub(super) fn rebuilder(service: &ObjectService) -> StripeRebuilder {
    let io = &service.stripes;
    StripeRebuilder {
        shards: std::sync::Arc::clone(&io.shards),
        health: std::sync::Arc::clone(&io.health),
        memory: io.read_memory.clone(),
    }
}

/// Moves as many of `leaving` as find a place.
pub(super) async fn relocate(
    service: &ObjectService,
    home: Home,
    stripe: &StripeRef,
    leaving: &[Leaving],
    targets: Targets<'_>,
) -> Result<Relocated, ObjectError> {
    let mut avoid: Vec<DriveId> = stripe.places.iter().map(|place| place.drive).collect();
    let mut stripe = stripe.clone();
    for _ in 0..ATTEMPTS {
        let relocations = choose(service, home, &stripe, leaving, (&avoid, targets))?;
        if relocations.is_empty() {
            return Ok(Relocated::NoPlace);
        }
        let generation = next_generation(&stripe)?;
        let moved = match holdfast_planted::is("SwitchesWithoutCopy") {
            true => Ok(holdfast_store::Moved::default()),
            false => {
                let stored = stored(&stripe, false);
                rebuilder(service).relocate(home.tenant, &stored, &relocations, generation).await
            }
        };
        let moved = match moved {
            Ok(moved) => moved,
            Err(_) if holdfast_planted::is("FailedMoveCounts") => holdfast_store::Moved::default(),
            Err(failed) => {
                if wrote(&failed) {
                    take_back(service, home, &stripe, &relocations, generation).await;
                }
                return Err(unmovable(&stripe, &failed));
            }
        };
        let refusal = match switch(service, home, &stripe, &relocations).await {
            Ok(Ok(_)) => {
                let bytes = moved.read_bytes + moved.written_bytes;
                tracing::debug!(stripe = %stripe.id, from = ?stripe.places, moves = ?relocations, "shards moved");
                let to = relocations.iter().map(|relocation| relocation.to.drive).collect();
                return Ok(Relocated::Done { shards: relocations.len(), bytes, to });
            }
            Ok(Err(refusal)) => refusal,
            Err(error) => {
                // It may have been decided, or come to be.
                take_back(service, home, &stripe, &relocations, generation).await;
                return Err(error);
            }
        };
        let current = take_back(service, home, &stripe, &relocations, generation).await;
        match refusal {
            Refusal::NoSuchStripe | Refusal::StripeChanged(_) => return Ok(Relocated::Overtaken),
            Refusal::PlaceOccupied => avoid.extend(relocations.iter().map(|r| r.to.drive)),
            other => return Err(ObjectError::Internal(other.to_string())),
        }
        match current {
            Some(current) if current.places == stripe.places => stripe = current,
            _ => return Ok(Relocated::Overtaken),
        }
    }
    Ok(Relocated::NoPlace)
}

fn next_generation(stripe: &StripeRef) -> Result<Generation, ObjectError> {
    let next = stripe.generation.get().checked_add(1);
    next.map(Generation::new)
        .ok_or_else(|| ObjectError::Internal(format!("stripe {} has had its last generation", stripe.id)))
}

fn unmovable(stripe: &StripeRef, failed: &RebuildFailed) -> ObjectError {
    let text = format!("stripe {}: {failed}", stripe.id);
    match failed {
        RebuildFailed::Description(_) => ObjectError::Damaged(text),
        _ => ObjectError::Unavailable(text),
    }
}

/// A new place for each shard that finds one: those that cannot be read first.
fn choose(
    service: &ObjectService,
    home: Home,
    stripe: &StripeRef,
    leaving: &[Leaving],
    (avoid, targets): (&[DriveId], Targets<'_>),
) -> Result<Vec<Relocation>, ObjectError> {
    let layout = Layout::new(stripe.data, stripe.parity, stripe.plain_len as usize)
        .ok_or_else(|| ObjectError::Damaged(format!("stripe {} has no layout", stripe.id)))?;
    let mut leaving = leaving.to_vec();
    leaving.sort_by_key(|shard| (shard.readable, shard.index));
    let leaves = |index: ShardIndex| leaving.iter().any(|shard| shard.index == index);
    let kept: Vec<Place> =
        stripe.shards().filter(|(index, _)| !leaves(*index)).map(|(_, place)| place).collect();
    let bytes = (layout.shard_len() + SECTOR_SIZE) as u64;
    let candidates = match targets {
        Targets::Any => service.stripes.health.candidates(),
        Targets::These(candidates) => candidates.to_vec(),
    };
    let found = replace(
        &kept,
        leaving.len(),
        (!home.alone && !holdfast_planted::is("MovesIgnoreNodes"))
            .then(|| per_node_max(stripe.parity, &stripe.places)),
        &candidates,
        avoid,
        bytes,
        u64::from_le_bytes(chance()),
    );
    let mut relocations = assign(&mut leaving, found, &stripe.places);
    for shard in leaving.iter().filter(|shard| shard.in_place) {
        let to = stripe.places[usize::from(shard.index.get())];
        relocations.push(Relocation { index: shard.index, readable: false, to });
    }
    Ok(relocations)
}

/// Which of `leaving` goes where, when there are fewer places than shards. A place goes to a shard of the same node if one
/// leaves: what stays behind is still on its node, and with another's shard beside it that would hold more than it may.
fn assign(leaving: &mut Vec<Leaving>, found: Vec<Place>, places: &[Place]) -> Vec<Relocation> {
    let mut relocations = Vec::with_capacity(found.len());
    let mut give = |leaving: &mut Vec<Leaving>, at: usize, to: Place| {
        let Leaving { index, readable, .. } = leaving.remove(at);
        relocations.push(Relocation { index, readable, to });
    };
    let mut others = Vec::new();
    for to in found {
        let stays = |shard: &Leaving| places[usize::from(shard.index.get())].node == to.node;
        match leaving.iter().position(stays).filter(|_| !holdfast_planted::is("PlacesGoToAny")) {
            Some(at) => give(leaving, at, to),
            None => others.push(to),
        }
    }
    others.into_iter().for_each(|to| give(leaving, 0, to));
    relocations
}

async fn switch(
    service: &ObjectService,
    home: Home,
    stripe: &StripeRef,
    relocations: &[Relocation],
) -> Result<Decision, ObjectError> {
    let moves = relocations
        .iter()
        .map(|relocation| ShardMove {
            index: relocation.index,
            from: stripe.places[usize::from(relocation.index.get())],
            to: relocation.to,
        })
        .collect();
    let moves = MoveShards { stripe: stripe.id, expected: stripe.generation, moves };
    service.propose(home.route, Op::MoveShards(moves)).await
}

/// Whether copies may be on drives after this.
fn wrote(failed: &RebuildFailed) -> bool {
    !matches!(failed, RebuildFailed::TooFewShards { .. } | RebuildFailed::Description(_))
}

/// Deletes new copies that the catalog does not place. What cannot be deleted now is left to the look for orphans. Returns
/// the stripe as it is then, if the catalog can be asked and it lives.
async fn take_back(
    service: &ObjectService,
    home: Home,
    stripe: &StripeRef,
    relocations: &[Relocation],
    generation: Generation,
) -> Option<StripeRef> {
    let shards = relocations.iter().map(|relocation| (relocation.index, relocation.to)).collect();
    let copies = Strays { stripe: stripe.id, generation, shards };
    let left = |error: &dyn std::error::Error| {
        tracing::debug!(stripe = %stripe.id, %error, "copies of a move that failed are left for the sweep");
    };
    let deleted = strays::delete(service, home.route, &copies).await.inspect_err(|error| left(error)).ok()?;
    deleted.failed.iter().for_each(|error| left(error));
    deleted.known.filter(|known| known.live).map(|known| known.stripe)
}

#[cfg(test)]
mod tests {
    use holdfast_model::NodeId;

    use super::*;

    fn place(node: u8, drive: u8) -> Place {
        Place { node: NodeId::new(node.into()), drive: DriveId::from_bytes([drive; 16]) }
    }

    fn assigned(leaving: &[(u8, bool)], found: &[Place], places: &[Place]) -> (Vec<(u8, u8)>, Vec<u8>) {
        let leaves = |(index, readable): &(u8, bool)| Leaving {
            index: ShardIndex::new(*index),
            readable: *readable,
            in_place: false,
        };
        let mut leaving: Vec<Leaving> = leaving.iter().map(leaves).collect();
        let relocations = assign(&mut leaving, found.to_vec(), places);
        let moved = relocations.iter().map(|moved| (moved.index.get(), moved.to.drive.as_bytes()[0]));
        (moved.collect(), leaving.iter().map(|shard| shard.index.get()).collect())
    }

    #[test]
    fn a_place_goes_to_a_shard_of_its_node_if_one_leaves() {
        // Two shards on each node.
        let places = [place(1, 1), place(1, 2), place(2, 3), place(2, 4)];
        // Another's beside one that stays behind would make three.
        assert_eq!(assigned(&[(0, false), (3, true)], &[place(2, 9)], &places), (vec![(3, 9)], vec![0]));
        // With places enough for all, all go.
        let both = [place(2, 9), place(3, 8)];
        assert_eq!(assigned(&[(0, false), (3, true)], &both, &places), (vec![(3, 9), (0, 8)], vec![]));
        // Those that cannot be read come first otherwise.
        assert_eq!(assigned(&[(0, false), (3, true)], &[place(3, 8)], &places), (vec![(0, 8)], vec![3]));
    }
}
