//! Repair: single shards that a read or a scrub found missing or damaged on a drive that works.
//!
//! The node that found it repairs it: looks the stripe up, looks at the shard again, and moves it to another
//! drive, or writes it anew in its place when no other drive can take it. Several nodes may do so with one stripe at a
//! time; of their moves one is decided, and the others begin again. What fails is tried again ([`super::later`]).

use std::{collections::BTreeMap, future::pending, sync::Arc, time::Duration};

use holdfast_catalog::KnownStripe;
use holdfast_model::ShardId;
use holdfast_store::{BadShard, Fault, Found, ShardError};
use tokio::time::sleep_until;

use super::{
    later::{Later, Name, name},
    rebuild::home,
    relocate::{Home, Leaving, Relocated, Targets, relocate},
    status::Kind,
    worker::Worker,
};
use crate::{api::ObjectError, service::ObjectService};

/// How often a shard is tried whose stripe others move meanwhile: at each try one of them is done.
const ATTEMPTS: usize = 16;

/// Findings taken together: the same shard is often found by many reads at once.
const BATCH: usize = 256;

pub(super) struct Repair {
    service: Arc<ObjectService>,
    found: Found,
    batch: Vec<BadShard>,
    later: Later,
}

impl Repair {
    pub(super) fn new(service: Arc<ObjectService>, found: Found) -> Self {
        Self { service, found, batch: Vec::new(), later: Later::default() }
    }
}

#[async_trait::async_trait]
impl Worker for Repair {
    fn kind(&self) -> Kind {
        Kind::Repair
    }

    async fn wait(&mut self) {
        let Self { found, batch, later, .. } = self;
        let again = async {
            match later.next() {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            received = found.recv_many(batch, BATCH) => {
                if received == 0 {
                    // Nobody is left who could find anything.
                    pending::<()>().await;
                }
            }
            () = again => {}
        }
    }

    async fn work(&mut self) {
        let service = &self.service;
        self.batch.extend(self.later.take_due());
        let bad: BTreeMap<Name, BadShard> = self.batch.drain(..).map(|bad| (name(&bad), bad)).collect();
        service.workers.begin(Kind::Repair, bad.len() as u64);
        for shard in bad.into_values() {
            service.workers.leave(Kind::Repair).await;
            let begun = tokio::time::Instant::now();
            let result = repair(service, shard).await;
            let again = match &result {
                Ok(Some(Relocated::NoPlace)) | Err(_) => self.later.failed(shard),
                Ok(_) => {
                    self.later.done(&shard);
                    None
                }
            };
            note(service, shard, result, again);
            service.workers.rest(Kind::Repair, begun.elapsed()).await;
        }
        service.workers.end(Kind::Repair);
    }
}

fn note(
    service: &ObjectService,
    bad: BadShard,
    result: Result<Option<Relocated>, ObjectError>,
    again: Option<Duration>,
) {
    let board = &service.workers;
    board.update(Kind::Repair, |progress| progress.left = progress.left.saturating_sub(1));
    match result {
        Ok(Some(Relocated::Done { bytes, .. })) => {
            tracing::info!(stripe = %bad.stripe, shard = %bad.index, drive = %bad.place.drive, "shard repaired");
            service.stripes.counters.shards_repaired.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            board.update(Kind::Repair, |progress| {
                progress.done += 1;
                progress.bytes += bytes;
            });
        }
        Ok(Some(Relocated::NoPlace)) => {
            board.update(Kind::Repair, |progress| progress.failed += 1);
            board.trouble(
                Kind::Repair,
                "no drive can take a shard: bring back what is missing, or add drives",
            );
        }
        Ok(Some(Relocated::Overtaken) | None) => {}
        Err(error) => {
            board.update(Kind::Repair, |progress| progress.failed += 1);
            board.trouble(Kind::Repair, error.to_string());
            let again = again.map(|pause| pause.as_secs());
            tracing::warn!(stripe = %bad.stripe, shard = %bad.index, %error, again_seconds = ?again, "shard not repaired; the next read or scrub finds it again, if no further try comes first");
        }
    }
}

/// `None` when there is nothing to repair after all.
async fn repair(service: &ObjectService, bad: BadShard) -> Result<Option<Relocated>, ObjectError> {
    for _ in 0..ATTEMPTS {
        match attempt(service, bad).await? {
            Some(Relocated::Overtaken) if !holdfast_planted::is("RepairGivesUp") => {}
            outcome => return Ok(outcome),
        }
    }
    Err(ObjectError::Unavailable(format!("stripe {} does not come to rest", bad.stripe)))
}

async fn attempt(service: &ObjectService, bad: BadShard) -> Result<Option<Relocated>, ObjectError> {
    let Some((home, known)) = find(service, bad).await? else { return Ok(None) };
    if !known.live || known.stripe.places.get(usize::from(bad.index.get())) != Some(&bad.place) {
        return Ok(None);
    }
    let id = ShardId { stripe: bad.stripe, index: bad.index };
    match service.stripes.shards.get_whole(bad.place, id, known.stripe.generation).await {
        // Whole after all, or whole by checksums that were made for wrong bytes.
        Ok(_) if bad.fault == Fault::Unreadable => return Ok(None),
        Ok(_) => {}
        Err(ShardError::Damaged { .. }) if holdfast_planted::is("RepairLooksAway") => return Ok(None),
        Err(ShardError::NotFound { .. }) if holdfast_planted::is("RepairWantsToSee") => return Ok(None),
        Err(ShardError::NotFound { .. } | ShardError::Damaged { .. }) => {}
        // Its drive or node is away: that is the rebuild's business.
        Err(_) => return Ok(None),
    }
    let leaving = [Leaving { index: bad.index, readable: false, in_place: true }];
    relocate(service, home, &known.stripe, &leaving, Targets::Any).await.map(Some)
}

/// The stripe, and whose it is. A stripe's id does not say.
async fn find(service: &ObjectService, bad: BadShard) -> Result<Option<(Home, KnownStripe)>, ObjectError> {
    let snapshot = service.directory.snapshot();
    for tenant in snapshot.tenants.values() {
        for route in tenant.partitions.iter().filter(|route| service.is_settled(**route)) {
            let stripe = bad.stripe;
            let known = service.read(*route, ("", ""), move |catalog| catalog.stripe(stripe)).await?;
            if let Some(known) = known {
                return Ok(Some((home(service, tenant, *route), known)));
            }
        }
    }
    Ok(None)
}
