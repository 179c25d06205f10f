//! Rebuild: what lost drives held gets new places; drives that are to be emptied are emptied the same way.
//!
//! The leader of a catalog group rebuilds the stripes of its partitions, so all nodes work at once and no
//! stripe is worked on twice. The catalog's index by drive says what a drive held; most exposed stripes come
//! first. Before a drive is given up it has a grace ([`super::absent`]); its debt is counted from the start.
//!
//! A run ends with a recount: debt is what the catalog says, never what was meant to be repaired.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use holdfast_catalog::{PartitionReader, ReadError, StripeRef};
use holdfast_model::{DriveId, NodeId, PartitionId, StripeId};
use holdfast_store::DebtReport;
use tokio::time::Instant;

use super::{
    Route,
    abreast::Abreast,
    absent::{Absences, KnownDrive, Reported, Standing, Verdict},
    control::Impact,
    led,
    relocate::{Home, Leaving, Relocated, Targets, relocate},
    status::{Kind, PartitionDebt},
    survey::{debt_of, survey},
    worker::Worker,
};
use crate::{api::ObjectError, directory::TenantEntry, service::ObjectService};

/// How often drives are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How often debt that does not change is counted again.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(30);

/// While shards are placed on drives that are away, counts follow each other after so many times what one takes.
const RECOUNT_SPACING: u32 = 10;

/// How long a node that starts waits for the first word of the others before it counts their drives as absent.
const SETTLE: Duration = Duration::from_secs(10);

pub(super) struct Rebuild {
    service: Arc<ObjectService>,
    node: NodeId,
    absences: Absences,
    started: Instant,
    /// The last count; `None` after work, which is followed by a recount.
    last: Option<Count>,
}

/// What was counted, and when.
struct Count {
    verdict: Verdict,
    partitions: BTreeSet<PartitionId>,
    /// What the catalog had placed on these drives when it began.
    placements: u64,
    ended: Instant,
    took: Duration,
}

impl Count {
    /// Whether debt has to be counted again. What is written beside a drive that goes is placed on it after the
    /// count that its going began.
    fn is_old(&self, verdict: &Verdict, partitions: &BTreeSet<PartitionId>, placements: u64) -> bool {
        let placed = placements != self.placements && !holdfast_planted::is("DebtMissesLateWrites");
        let soon = (self.took * RECOUNT_SPACING).min(RECOUNT_INTERVAL);
        let again = if placed { soon } else { RECOUNT_INTERVAL };
        !same(&self.verdict, verdict) || self.partitions != *partitions || self.ended.elapsed() >= again
    }
}

impl Rebuild {
    pub(super) fn new(service: Arc<ObjectService>, node: NodeId) -> Self {
        Self { service, node, absences: Absences::default(), started: Instant::now(), last: None }
    }
}

#[async_trait::async_trait]
impl Worker for Rebuild {
    fn kind(&self) -> Kind {
        Kind::Rebuild
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }

    async fn work(&mut self) {
        let Some(verdict) = self.look() else { return };
        let led = led(&self.service, self.node);
        let partitions: BTreeSet<PartitionId> = led.iter().map(|(_, route)| route.0).collect();
        let placements = self.service.placements_on(&verdict.concerned());
        if self.last.as_ref().is_some_and(|last| !last.is_old(&verdict, &partitions, placements)) {
            return;
        }
        let begun = Instant::now();
        let worked = self.pass(&verdict, &led).await;
        let (ended, took) = (Instant::now(), begun.elapsed());
        self.last = (!worked).then_some(Count { verdict, partitions, placements, ended, took });
    }
}

impl Rebuild {
    /// What has become of all drives. `None` while nodes have not spoken that may do so soon.
    fn look(&mut self) -> Option<Verdict> {
        let service = &self.service;
        let known = service.directory.snapshot().drives.clone();
        service.stripes.health.set_closed(closed(&known));
        let reported = reported(service);
        let silent = known.iter().any(|drive| !reported.nodes.contains(&drive.node));
        if self.started.elapsed() < SETTLE && silent {
            return None;
        }
        let verdict = self.absences.judge(&known, &reported, Instant::now().into_std());
        service.workers.set_verdict(verdict.clone());
        Some(verdict)
    }

    /// Counts, and works on what was found. Whether there was anything to work on.
    async fn pass(&mut self, verdict: &Verdict, led: &[(Arc<TenantEntry>, Route)]) -> bool {
        let service = Arc::clone(&self.service);
        let mut debts = BTreeMap::new();
        let mut plan = BTreeMap::<u8, Vec<Planned>>::new();
        let (mut rebuilds, mut moves) = (0, 0);
        for (tenant, route) in led {
            let verdict = verdict.clone();
            let survey = match service.read(*route, ("", ""), move |catalog| survey(catalog, &verdict)).await
            {
                Ok(survey) => survey,
                Err(error) => {
                    tracing::warn!(tenant = tenant.name, partition = %route.0, %error, "debt not counted; will be tried again");
                    continue;
                }
            };
            debts.insert(route.0, debt_of(tenant, &survey));
            if survey.rebuilds + survey.moves > 0 {
                tracing::info!(tenant = tenant.name, partition = %route.0, rebuilds = survey.rebuilds, moves = survey.moves, debt = ?survey.stripes, "rebuilding");
            }
            rebuilds += survey.rebuilds;
            moves += survey.moves;
            let home = home(&service, tenant, *route);
            for (level, stripes) in survey.plan {
                plan.entry(level).or_default().extend(stripes.into_iter().map(|stripe| Planned {
                    home,
                    level,
                    stripe,
                }));
            }
        }
        let board = &service.workers;
        board.set_debt(debts.clone());
        if plan.is_empty() {
            return false;
        }
        let totals = [(Kind::Rebuild, rebuilds), (Kind::Smartfail, moves)];
        for (kind, left) in totals.into_iter().filter(|(_, left)| *left > 0) {
            board.begin(kind, left);
        }
        let moved = self.work_on(verdict, debts, plan.into_values().rev().flatten()).await;
        for (kind, _) in totals {
            board.end(kind);
        }
        moved > 0
    }

    /// Moves what is planned, most exposed first, until the standing of drives changes: then other stripes may be the
    /// most exposed. Returns how many were moved.
    async fn work_on(
        &mut self,
        verdict: &Verdict,
        mut debts: BTreeMap<PartitionId, PartitionDebt>,
        plan: impl Iterator<Item = Planned>,
    ) -> u64 {
        let service = Arc::clone(&self.service);
        let board = &service.workers;
        let begin = |planned: Planned| {
            let service = &service;
            async move { (planned, move_one(service, verdict, planned).await) }
        };
        let mut results = Abreast::new(plan, || streams(&service), begin);
        let (mut moved, mut looked, mut current) = (0, Instant::now(), true);
        while let Some((planned, outcome)) = results.next(current).await {
            if looked.elapsed() >= LOOK_INTERVAL {
                looked = Instant::now();
                current = self.look().is_none_or(|now| same(&now, verdict));
            }
            let Some((kind, leaves, result)) = outcome else { continue };
            board.update(kind, |progress| progress.left = progress.left.saturating_sub(1));
            match result {
                Ok(Relocated::Done { shards, bytes, .. }) => {
                    moved += 1;
                    board.update(kind, |progress| {
                        progress.done += 1;
                        progress.bytes += bytes;
                    });
                    let partition = planned.home.route.0;
                    if shards == leaves.shards
                        && let Some(debt) = debts.get_mut(&partition)
                    {
                        debt.settle(planned.level, leaves.lost);
                        board.set_partition_debt(partition, debt.clone());
                    }
                }
                Ok(Relocated::Overtaken) => {}
                Ok(Relocated::NoPlace) => {
                    board.set_homeless(planned.home.route.0);
                    board.update(kind, |progress| progress.failed += 1);
                    board.trouble(
                        kind,
                        "no drive can take shards of some stripes without breaking their level: add a drive or a node, or bring one back",
                    );
                }
                Err(error) => {
                    board.update(kind, |progress| progress.failed += 1);
                    board.trouble(kind, error.to_string());
                    tracing::warn!(%error, "stripe not rebuilt; will be tried again");
                }
            }
        }
        moved
    }
}

/// How many stripes may be worked on at once. The nodes that get the shards do the work, so one that leads for others
/// has more under way; at low impact each leader has one.
fn streams(service: &ObjectService) -> usize {
    let orders = service.workers.orders();
    let impact = orders.of(Kind::Rebuild).impact.max(orders.of(Kind::Smartfail).impact);
    if impact == Impact::Low {
        return impact.parallel();
    }
    let up = service.stripes.health.snapshot().into_iter().filter(|(_, up)| *up);
    let (nodes, leading) = up.fold((0, 0), |(nodes, leading), (health, _)| {
        let owes = |debt: &DebtReport| !debt.by_lost.is_empty() || debt.draining > 0;
        (nodes + 1, leading + usize::from(health.report.debts.iter().any(owes)))
    });
    impact.parallel() * (nodes / leading.max(1)).max(1)
}

fn same(a: &Verdict, b: &Verdict) -> bool {
    (&a.absent, &a.lost, &a.draining) == (&b.absent, &b.lost, &b.draining)
}

fn closed(known: &[KnownDrive]) -> BTreeSet<DriveId> {
    known.iter().filter(|drive| drive.standing != Standing::Active).map(|drive| drive.drive).collect()
}

fn reported(service: &ObjectService) -> Reported {
    let mut reported = Reported::default();
    for (health, up) in service.stripes.health.snapshot() {
        // A node that is still opening its drives is as good as silent.
        if up && health.report.drives_open {
            reported.nodes.insert(health.report.node);
            let usable = health.report.drives.iter().filter(|drive| drive.state.readable());
            reported.drives.extend(usable.map(|drive| drive.id));
        }
    }
    reported
}

/// A stripe that is to be moved.
#[derive(Debug, Clone, Copy)]
struct Planned {
    home: Home,
    /// Shards of it that could not be read when it was planned.
    level: u8,
    stripe: StripeId,
}

/// What leaves its places in one stripe.
#[derive(Debug, Clone, Copy, Default)]
struct Leaves {
    shards: usize,
    /// Of those, what is on drives that were given up.
    lost: u8,
}

/// Moves what leaves of one stripe. `None` when its worker may not run now: counting goes on meanwhile.
async fn move_one(
    service: &Arc<ObjectService>,
    verdict: &Verdict,
    planned: Planned,
) -> Option<(Kind, Leaves, Result<Relocated, ObjectError>)> {
    let board = &service.workers;
    if !board.may_run(Kind::Rebuild) && !board.may_run(Kind::Smartfail) {
        return None;
    }
    let Planned { home, stripe, .. } = planned;
    // The catalog refuses the move if this is out of date.
    let known = service.read_applied(home.route, move |catalog| catalog.stripe(stripe)).await;
    let stripe = match known {
        Ok(Some(known)) if known.live => known.stripe,
        Ok(_) => return Some((Kind::Rebuild, Leaves::default(), Ok(Relocated::Overtaken))),
        Err(error) => return Some((Kind::Rebuild, Leaves::default(), Err(error))),
    };
    let leaving = leaving_shards(&stripe, verdict);
    let lost = leaving.iter().filter(|shard| !shard.readable).count();
    let leaves = Leaves { shards: leaving.len(), lost: u8::try_from(lost).unwrap_or(u8::MAX) };
    let kind = if lost == 0 { Kind::Smartfail } else { Kind::Rebuild };
    if leaving.is_empty() {
        return Some((kind, leaves, Ok(Relocated::Overtaken)));
    }
    if !board.may_run(kind) {
        return None;
    }
    let begun = Instant::now();
    let result = relocate(service, home, &stripe, &leaving, Targets::Any).await;
    board.rest(kind, begun.elapsed()).await;
    Some((kind, leaves, result))
}

fn leaving_shards(stripe: &StripeRef, verdict: &Verdict) -> Vec<Leaving> {
    let shards = stripe.shards().filter_map(|(index, place)| {
        let lost = verdict.lost.contains(&place.drive);
        let draining = verdict.draining.contains(&place.drive);
        let draining = draining && !holdfast_planted::is("DrainsNothing");
        (lost || draining).then_some(Leaving { index, readable: !lost, in_place: false })
    });
    shards.collect()
}

/// Where stripes of `tenant` are kept.
pub(super) fn home(service: &ObjectService, tenant: &TenantEntry, route: Route) -> Home {
    let alone = service.stripes.health.members() == Some(1);
    Home { tenant: tenant.id, route, alone }
}

/// Stripes of a drive looked at at once.
const PLACED_PAGE: usize = 256;

/// Whether a stripe has a place on a drive, one that lives or with `garbage` any.
fn keeps_stripe(catalog: &PartitionReader, drive: DriveId, garbage: bool) -> Result<bool, ReadError> {
    let mut after = None;
    loop {
        let limit = if garbage { 1 } else { PLACED_PAGE };
        let page = catalog.stripes_on_drive(drive, after, limit)?;
        if page.iter().any(|shard| garbage || shard.known.live) {
            return Ok(true);
        }
        match page.last() {
            Some(last) => after = Some(last.known.stripe.id),
            None => return Ok(false),
        }
    }
}

impl ObjectService {
    /// What the replicas of this node have placed on `drives`, to be compared with an earlier answer.
    fn placements_on(&self, drives: &BTreeSet<DriveId>) -> u64 {
        self.catalogs.values().map(|catalog| catalog.placements_on(drives)).sum()
    }

    /// Whether no stripe has a place on `drive` any more: then it may leave for good. Dead stripes keep it while it is there
    /// for the sweep; of one that is gone they would wait for ever, and with them every drive that holds a shard of theirs.
    ///
    /// # Errors
    /// When a partition cannot be read now.
    pub async fn drive_is_empty(&self, drive: DriveId) -> Result<bool, ObjectError> {
        if holdfast_planted::is("FullCountsAsEmpty") {
            return Ok(true);
        }
        let known = self.directory.snapshot().drives.iter().find(|known| known.drive == drive).copied();
        let is_there = known.is_some_and(|known| self.stripes.health.has_drive(known.node, drive));
        let garbage_counts = is_there || holdfast_planted::is("GarbageKeepsGone");
        // What is hosted counts, not what this node knows of tenants.
        for (group, catalog) in &self.catalogs {
            self.barrier(*group).await?;
            for identity in catalog.partitions() {
                let route = (identity.partition, *group);
                let held =
                    self.read(route, ("", ""), move |catalog| keeps_stripe(catalog, drive, garbage_counts));
                if held.await? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn debt_is_counted_again_at_once_when_a_drive_that_is_away_was_given_more() {
        let count = |took: u64| Count {
            verdict: Verdict::default(),
            partitions: BTreeSet::new(),
            placements: 5,
            ended: Instant::now(),
            took: Duration::from_secs(took),
        };
        let (verdict, partitions) = (Verdict::default(), BTreeSet::new());
        let (short, long) = (count(0), count(2));
        assert!(!short.is_old(&verdict, &partitions, 5) && short.is_old(&verdict, &partitions, 6));
        // Counting takes a share of the time only.
        assert!(!long.is_old(&verdict, &partitions, 6));
        tokio::time::advance(Duration::from_secs(20)).await;
        assert!(long.is_old(&verdict, &partitions, 6) && !long.is_old(&verdict, &partitions, 5));
        tokio::time::advance(RECOUNT_INTERVAL - Duration::from_secs(20)).await;
        assert!(long.is_old(&verdict, &partitions, 5));
        // But it is never later than where nothing is new.
        let slow = count(60);
        tokio::time::advance(RECOUNT_INTERVAL).await;
        assert!(slow.is_old(&verdict, &partitions, 6));
        assert!(count(0).is_old(&verdict, &BTreeSet::from([PartitionId::new(1)]), 5));
    }
}
