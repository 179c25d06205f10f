//! Gives back the space of what no object refers to any more.
//!
//! Four kinds, and none is deleted without the catalog's word, or the control group's:
//!
//! - **garbage**: stripes of deleted or overwritten content. The catalog lists them; their shards are
//!   deleted [`GARBAGE_GRACE`] later (a reader may still be at them), and the catalog is told.
//! - **remains**: shards of a tenant whose key is destroyed. The control group's word for that is enough: the catalog
//!   of that tenant is gone, and nothing opens them. Every node deletes those on its own drives.
//! - **orphans**: shards on this node's drives that belong to no stripe the catalog knows, left by
//!   writes that never finished. After [`ORPHAN_AGE_MIN`] the catalog is asked to condemn the stripe, so
//!   that it can never become part of an object, and only what it condemns becomes garbage.
//! - **strays**: shards on this node's drives of stripes that live, elsewhere than the catalog places them. They are met
//!   where orphans are looked for, and deleted by [`super::strays`].
//!
//! Garbage is as old as the clocks of nodes say, or as this node has known it: one node's clock that was ahead for a moment
//! dates what dies days ahead of all others' ([`crate::stamps`]).
//!
//! The leader of a group sweeps the garbage of its partitions; every node looks for orphans on its own
//! drives.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use holdfast_catalog::{GarbageId, GarbageRow, Op, Orphan, PartitionReader, ReadError};
use holdfast_model::{DriveId, Generation, NodeId, ShardId, StripeId, TenantId, placement::Place};
use holdfast_store::ShardError;
use tokio::time::{Instant, Interval};

use super::{
    Route,
    absent::Standing,
    led_with_leftovers,
    status::Kind,
    strays::{self, Strays, is_placed},
    undeleted::{Refusing, Undeleted},
    worker::Worker,
};
use crate::{
    api::ObjectError, backing::Backing, body_writer::BODY_AGE_MAX, family, host::now, journal::CATALOG_OWNER,
    service::ObjectService,
};

/// How often garbage is looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How often drives are searched for orphans.
const ORPHAN_INTERVAL: Duration = Duration::from_secs(3600);

/// How long content stays on drives after nothing refers to it.
pub(super) const GARBAGE_GRACE: Duration = Duration::from_secs(30);

/// Age from which a stripe that the catalog does not know may be condemned.
const ORPHAN_AGE_MIN: Duration = Duration::from_secs(24 * 3600);

/// Garbage handled in one round, in stripes.
const BATCH: usize = 256;

/// Stripes whose shards are deleted at once.
const PARALLEL: usize = 8;

const _: () = assert!(ORPHAN_AGE_MIN.as_secs() >= 2 * BODY_AGE_MAX.as_secs());

pub(super) struct Sweep {
    service: Arc<ObjectService>,
    node: NodeId,
    garbage: Interval,
    orphans: Interval,
    orphans_due: bool,
    /// Destroyed tenants whose remains were looked for since the last look for orphans.
    cleared: BTreeSet<TenantId>,
    known: HashMap<Route, Known>,
    undeleted: Undeleted,
}

/// Garbage of a partition that is known since a moment: what entries up to one made.
#[derive(Debug, Clone, Copy)]
struct Known {
    since: Instant,
    up_to: u64,
}

impl Known {
    fn is_old(self) -> bool {
        self.since.elapsed() >= GARBAGE_GRACE
    }
}

impl Sweep {
    pub(super) fn new(service: Arc<ObjectService>, node: NodeId) -> Self {
        let every = |period| {
            let mut timer = tokio::time::interval(period);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            timer
        };
        let (garbage, orphans) = (every(SWEEP_INTERVAL), every(ORPHAN_INTERVAL));
        Self {
            service,
            node,
            garbage,
            orphans,
            orphans_due: false,
            cleared: BTreeSet::new(),
            known: HashMap::new(),
            undeleted: Undeleted::default(),
        }
    }
}

#[async_trait::async_trait]
impl Worker for Sweep {
    fn kind(&self) -> Kind {
        Kind::Sweep
    }

    async fn wait(&mut self) {
        tokio::select! {
            biased;
            _ = self.garbage.tick() => {}
            _ = self.orphans.tick() => self.orphans_due = true,
        }
    }

    async fn work(&mut self) {
        self.service.workers.leave(Kind::Sweep).await;
        let destroyed = self.service.directory.snapshot().destroyed.clone();
        if destroyed.iter().any(|tenant| !self.cleared.contains(tenant)) {
            if sweep_remains(&self.service, self.node, &destroyed).await {
                self.cleared = destroyed;
            }
        } else if std::mem::take(&mut self.orphans_due) {
            // A drive may have come back with them.
            self.cleared.clear();
            sweep_orphans(&self.service, self.node).await;
        } else {
            sweep_garbage(&self.service, self.node, &mut self.known, &mut self.undeleted).await;
        }
    }
}

async fn sweep_garbage(
    service: &Arc<ObjectService>,
    node: NodeId,
    known: &mut HashMap<Route, Known>,
    undeleted: &mut Undeleted,
) {
    let mut run = Run { service, begun: false, refusing: Refusing::default() };
    let led = led_with_leftovers(service, node);
    // Whoever leads again begins anew.
    let routes: Vec<Route> = led.iter().map(|(_, route)| *route).collect();
    known.retain(|route, _| routes.contains(route));
    undeleted.keep_only(&routes);
    for (tenant, route) in led {
        if let Err(error) = sweep_partition(&mut run, route, known, undeleted).await {
            tracing::warn!(tenant = tenant.name, partition = %route.0, %error, "garbage not swept; will be tried again");
        }
    }
    if run.begun {
        service.workers.end(Kind::Sweep);
    }
}

/// A sweep that is shown from the first thing it finds.
struct Run<'a> {
    service: &'a Arc<ObjectService>,
    begun: bool,
    refusing: Refusing,
}

impl Run<'_> {
    /// What a drive refuses, it refuses of each of its shards: told once.
    fn not_deleted(&self, id: ShardId, drive: DriveId, error: &ShardError) {
        if self.refusing.note(drive) {
            tracing::warn!(%id, %error, "shard not deleted, nor others on its drive; will be tried again");
        }
    }

    fn swept(&mut self, due: usize, swept: usize) {
        let board = &self.service.workers;
        if !self.begun {
            board.begin(Kind::Sweep, 0);
            self.begun = true;
        }
        board.update(Kind::Sweep, |progress| {
            progress.done += swept as u64;
            progress.failed += (due - swept) as u64;
        });
    }
}

async fn sweep_partition(
    run: &mut Run<'_>,
    route: Route,
    known: &mut HashMap<Route, Known>,
    undeleted: &mut Undeleted,
) -> Result<(), ObjectError> {
    let service = run.service;
    let (now, begun, mut newest) = (now().get(), Instant::now(), 0);
    let until = now.saturating_sub(millis(GARBAGE_GRACE));
    let old = known.get(&route).filter(|known| known.is_old()).map(|known| known.up_to);
    let is_due = |row: &GarbageRow| match row.since.get() {
        since if since > now => old.is_some_and(|up_to| row.since_index <= up_to),
        since => since <= until,
    };
    let drives = service.directory.snapshot().drives.clone();
    let removed: BTreeSet<DriveId> =
        drives.iter().filter(|drive| drive.standing == Standing::Removed).map(|drive| drive.drive).collect();
    let removed = &removed;
    let mut after = None;
    loop {
        let (rows, next) =
            service.read(route, ("", ""), move |catalog| catalog.garbage(after, BATCH)).await?;
        newest = rows.iter().map(|row| row.since_index).fold(newest, u64::max);
        let due: Vec<GarbageRow> = rows.into_iter().filter(&is_due).collect();
        let found = due.len();
        let outcomes: Vec<(GarbageId, Deleted)> = stream::iter(due)
            .map(|row| {
                let (run, before) = (&*run, undeleted.deleted(route, row.id));
                async move { (row.id, delete_shards(run, removed, &row, before).await) }
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let mut swept = Vec::new();
        for (id, deleted) in outcomes {
            match deleted {
                Deleted::All => swept.push(id),
                Deleted::Some(shards) => undeleted.remember(route, id, shards),
            }
        }
        if found > 0 {
            run.swept(found, swept.len());
        }
        if !swept.is_empty() {
            tracing::debug!(partition = %route.0, stripes = swept.len(), "garbage swept");
            swept.iter().for_each(|id| undeleted.forget(route, *id));
            service
                .propose(route, Op::RemoveGarbage { ids: swept })
                .await?
                .map_err(|refusal| ObjectError::Internal(refusal.to_string()))?;
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    if known.get(&route).is_none_or(|known| known.is_old()) {
        known.insert(route, Known { since: begun, up_to: newest });
    }
    Ok(())
}

/// What is deleted of a stripe.
enum Deleted {
    /// Every shard is gone from its drive.
    All,
    /// These are, bit by bit in the order of the row.
    Some(u32),
}

/// Deletes the shards of a row but those that were deleted `before`.
async fn delete_shards(run: &Run<'_>, removed: &BTreeSet<DriveId>, row: &GarbageRow, before: u32) -> Deleted {
    let service = run.service;
    let (mut whole, mut deleted) = (true, before);
    if holdfast_planted::is("SweepDeletesNothing") {
        return Deleted::All;
    }
    for (at, (index, place)) in (0u32..).zip(&row.shards) {
        let bit = 1u32.checked_shl(at).unwrap_or(0);
        if removed.contains(&place.drive) || deleted & bit != 0 {
            // It left for good, and its shards with it; or this one is gone.
            continue;
        }
        if !service.stripes.health.has_drive(place.node, place.drive) {
            // What is away keeps its shards; they are deleted when it is back.
            whole &= holdfast_planted::is("SweepForgetsAbsent");
            continue;
        }
        if run.refusing.has(place.drive) {
            whole = false;
            continue;
        }
        let id = ShardId { stripe: row.stripe, index: *index };
        let id = match holdfast_planted::is("SweepDeletesAnother") {
            true => ShardId { index: holdfast_model::ShardIndex::new(index.get() ^ 1), ..id },
            false => id,
        };
        let generation = match holdfast_planted::is("SweepDeletesAnyGeneration") {
            true => Generation::new(u32::MAX),
            false => row.generation,
        };
        match service.stripes.shards.delete(*place, id, generation).await {
            Ok(()) => deleted |= bit,
            Err(error @ ShardError::Node { .. }) => {
                if holdfast_planted::is("SweepForgetsAbsent") {
                    continue;
                }
                // A node that is down keeps its shards; they are deleted when it is back.
                tracing::debug!(%id, %error, "shard not deleted");
                whole = false;
            }
            Err(error) => {
                run.not_deleted(id, place.drive, &error);
                whole = false;
            }
        }
    }
    if whole { Deleted::All } else { Deleted::Some(deleted) }
}

/// Deletes what drives of this node hold of destroyed tenants; whether all of it is gone.
async fn sweep_remains(service: &Arc<ObjectService>, node: NodeId, destroyed: &BTreeSet<TenantId>) -> bool {
    if holdfast_planted::is("RemainsStay") {
        return true;
    }
    let mut run = Run { service, begun: false, refusing: Refusing::default() };
    let mut whole = true;
    for drive in service.stripes.shards.local() {
        let place = Place { node, drive: drive.id() };
        let mut after = None;
        loop {
            let page = drive.list(after, BATCH);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let due: Vec<(ShardId, Generation)> = page
                .iter()
                .filter(|shard| destroyed.contains(&shard.tenant) || holdfast_planted::is("RemainsOfAll"))
                .map(|shard| (shard.id, shard.generation))
                .collect();
            let found = due.len();
            let outcomes: Vec<bool> = stream::iter(due)
                .map(|(id, generation)| async move {
                    service.stripes.shards.delete(place, id, generation).await.is_ok()
                })
                .buffer_unordered(PARALLEL)
                .collect()
                .await;
            let gone = outcomes.into_iter().filter(|gone| *gone).count();
            if found > 0 {
                run.swept(found, gone);
                whole &= gone == found;
            }
        }
    }
    if run.begun {
        tracing::info!(
            tenants = destroyed.len(),
            whole,
            "shards of destroyed tenants deleted from this node's drives"
        );
        service.workers.end(Kind::Sweep);
    }
    whole
}

async fn sweep_orphans(service: &Arc<ObjectService>, node: NodeId) {
    let destroyed = service.directory.snapshot().destroyed.clone();
    if holdfast_planted::is("OrphansStay") {
        return;
    }
    for drive in service.stripes.shards.local() {
        let mut after = None;
        loop {
            let page = drive.list(after, BATCH);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let oldest = now().get().saturating_sub(millis(ORPHAN_AGE_MIN));
            let mut by_tenant: BTreeMap<TenantId, BTreeMap<StripeId, Orphan>> = BTreeMap::new();
            let judged = |shard: &&holdfast_drive::ShardInfo| {
                shard.tenant != CATALOG_OWNER
                    && !destroyed.contains(&shard.tenant)
                    && shard.id.stripe.created().get() < oldest
            };
            for shard in page.iter().filter(judged) {
                let stripe = shard.id.stripe;
                let place = Place { node, drive: drive.id() };
                let orphan = by_tenant
                    .entry(shard.tenant)
                    .or_default()
                    .entry(stripe)
                    .or_insert_with(|| Orphan { stripe, generation: shard.generation, shards: Vec::new() });
                orphan.generation = orphan.generation.max(shard.generation);
                orphan.shards.push((shard.id.index, place));
            }
            for (tenant, found) in by_tenant {
                if let Err(error) = condemn(service, tenant, found).await {
                    tracing::warn!(%tenant, drive = %drive.id(), %error, "orphans not judged; will be tried again");
                }
            }
        }
    }
}

/// Asks the catalog about stripes it may not know; those it condemns become garbage there. Of those that it knows, what lies
/// elsewhere than it says is deleted.
async fn condemn(
    service: &Arc<ObjectService>,
    tenant: TenantId,
    found: BTreeMap<StripeId, Orphan>,
) -> Result<(), ObjectError> {
    let mut unknown: Vec<Orphan> = found.into_values().collect();
    for route in service.routes(tenant).await? {
        let asked: Vec<Orphan> = std::mem::take(&mut unknown);
        let judged = service
            .read(route, ("", ""), move |catalog| {
                asked.into_iter().map(|found| judge(catalog, found)).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        for judged in judged {
            match judged {
                Judged::Unknown(orphan) => unknown.push(orphan),
                Judged::Strays(found) if service.is_settled(route) => {
                    delete_strays(service, route, &found).await;
                }
                Judged::Right | Judged::Strays(_) => {}
            }
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let asked = unknown.len();
    let first = service.tenant(tenant)?.partition()?;
    let condemned = family::condemn(|op| service.propose(first, op), unknown).await?;
    tracing::info!(%tenant, asked, condemned, "stripes of unfinished writes condemned");
    Ok(())
}

/// What a partition says of what a drive holds of a stripe.
enum Judged {
    /// It knows no such stripe.
    Unknown(Orphan),
    /// It is where it belongs, or waits to be swept.
    Right,
    Strays(Strays),
}

fn judge(catalog: &PartitionReader, found: Orphan) -> Result<Judged, ReadError> {
    // Those that wait for the sweeper are asked about again: shards of theirs on other drives do not wait yet.
    if holdfast_planted::is("OrphansADriveAtATime") && catalog.stripe_known(found.stripe)? {
        return Ok(Judged::Right);
    }
    let Some(known) = catalog.stripe(found.stripe)? else { return Ok(Judged::Unknown(found)) };
    let Orphan { stripe, generation, mut shards } = found;
    shards.retain(|(index, place)| !is_placed(&known.stripe, *index, *place));
    if shards.is_empty() || holdfast_planted::is("StraysStay") {
        return Ok(Judged::Right);
    }
    // What a move has left there lately is swept when nobody can be reading it any more.
    let waiting = catalog.unswept(stripe)?;
    shards.retain(|(index, place)| !waiting.contains(&(*index, *place)));
    Ok(match shards.is_empty() {
        true => Judged::Right,
        false => Judged::Strays(Strays { stripe, generation, shards }),
    })
}

async fn delete_strays(service: &ObjectService, route: Route, found: &Strays) {
    match strays::delete(service, route, found).await {
        Ok(deleted) => {
            tracing::info!(stripe = %found.stripe, found = found.shards.len(), deleted = deleted.shards, "shards deleted that lay elsewhere than the catalog says");
        }
        Err(error) => {
            tracing::warn!(stripe = %found.stripe, %error, "shards lie elsewhere than the catalog says, and are not deleted; will be tried again");
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
