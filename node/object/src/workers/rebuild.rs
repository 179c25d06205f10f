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
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use holdfast_catalog::{PartitionReader, ReadError, StripeRef};
use holdfast_model::{DriveId, GroupId, NodeId, PartitionId};
use tokio_util::sync::CancellationToken;

use super::{
    absent::{Absences, KnownDrive, Reported, Standing, Verdict},
    relocate::{Home, Leaving, Relocated, relocate},
    status::{Debt, Kind, PartitionDebt},
};
use crate::{api::ObjectError, directory::TenantEntry, service::ObjectService};

/// How often drives are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How often debt that does not change is counted again.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(30);

/// How long a node that starts waits for the first word of the others before it counts their drives as absent.
const SETTLE: Duration = Duration::from_secs(10);

/// Stripes planned at once; further ones are planned when these are done.
const PLAN_MAX: usize = 8192;

/// Stripes rebuilt at once. Their reads wait behind those of clients on each drive.
const PARALLEL: usize = 4;

/// Rows read from the catalog at once.
const PAGE: usize = 1024;

/// What is to be done about one partition.
#[derive(Debug, Default)]
struct Survey {
    stripes: Debt,
    unreadable: u64,
    draining: u64,
    /// Stripes to move shards of, by exposure.
    plan: BTreeMap<u8, Vec<StripeRef>>,
    /// Stripes that have shards to move, planned or not.
    work: u64,
}

/// Runs until cancelled.
pub(super) async fn run(service: Arc<ObjectService>, node: NodeId, stop: CancellationToken) {
    let mut absences = Absences::default();
    let mut timer = tokio::time::interval(LOOK_INTERVAL);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut last: Option<(Verdict, BTreeSet<PartitionId>, Instant)> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let known = service.directory.snapshot().drives.clone();
        service.stripes.health.set_closed(closed(&known));
        let reported = reported(&service);
        if started.elapsed() < SETTLE && known.iter().any(|drive| !reported.nodes.contains(&drive.node)) {
            continue;
        }
        let verdict = absences.judge(&known, &reported, Instant::now());
        let led = led(&service, node);
        let partitions: BTreeSet<PartitionId> = led.iter().map(|(_, route)| route.0).collect();
        let unchanged = last.as_ref().is_some_and(|(before, of, at)| {
            same(before, &verdict) && *of == partitions && at.elapsed() < RECOUNT_INTERVAL
        });
        if unchanged {
            continue;
        }
        let work = tokio::select! {
            () = stop.cancelled() => return,
            work = pass(&service, &verdict, &led) => work,
        };
        // What was worked on is counted again at once.
        last = (!work).then(|| (verdict, partitions, Instant::now()));
    }
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

/// Partitions whose groups this node leads.
fn led(service: &ObjectService, node: NodeId) -> Vec<(Arc<TenantEntry>, (PartitionId, GroupId))> {
    let leads = |group| service.consensus.status(group).is_some_and(|status| status.leader == Some(node));
    let snapshot = service.directory.snapshot();
    let routes = snapshot.tenants.values().flat_map(|tenant| {
        tenant.partitions.iter().map(|route| (Arc::clone(tenant), *route)).collect::<Vec<_>>()
    });
    routes.filter(|(_, route)| leads(route.1)).collect()
}

/// Counts, and works on what was found. Whether there was anything to work on.
async fn pass(
    service: &Arc<ObjectService>,
    verdict: &Verdict,
    led: &[(Arc<TenantEntry>, (PartitionId, GroupId))],
) -> bool {
    let mut debts = BTreeMap::new();
    let mut plans = Vec::new();
    for (tenant, route) in led {
        let verdict = verdict.clone();
        let survey = match service.read(*route, ("", ""), move |catalog| survey(catalog, &verdict)).await {
            Ok(survey) => survey,
            Err(error) => {
                tracing::warn!(tenant = tenant.name, partition = %route.0, %error, "debt not counted; will be tried again");
                continue;
            }
        };
        debts.insert(route.0, debt_of(tenant, &survey));
        if survey.work > 0 {
            plans.push((Arc::clone(tenant), *route, survey));
        }
    }
    let board = &service.workers;
    board.set_debt(debts);
    if plans.is_empty() {
        return false;
    }
    board.begin(Kind::Rebuild, plans.iter().map(|(_, _, survey)| survey.work).sum());
    let mut moved = 0;
    for (tenant, route, survey) in plans {
        tracing::info!(tenant = tenant.name, partition = %route.0, stripes = survey.work, debt = ?survey.stripes, "rebuilding");
        moved += work_on(service, verdict, &tenant, route, survey).await;
    }
    board.end(Kind::Rebuild);
    moved > 0
}

fn debt_of(tenant: &TenantEntry, survey: &Survey) -> PartitionDebt {
    PartitionDebt {
        tenant: tenant.id,
        stripes: survey.stripes.clone(),
        unreadable: survey.unreadable,
        draining: survey.draining,
    }
}

/// Everything the catalog places on drives that are absent or leaving. One scan of each drive's range.
fn survey(catalog: &PartitionReader, verdict: &Verdict) -> Result<Survey, ReadError> {
    let leaving = verdict.leaving();
    let concerned: BTreeSet<DriveId> = verdict.absent.union(&verdict.draining).copied().collect();
    let mut survey = Survey::default();
    for drive in &concerned {
        let mut after = None;
        loop {
            let page = catalog.stripes_on_drive(*drive, after, PAGE)?;
            let Some(end) = page.last() else { break };
            after = Some(end.known.stripe.id);
            for shard in page.into_iter().filter(|shard| shard.known.live) {
                let stripe = shard.known.stripe;
                let on = |drives: &BTreeSet<DriveId>| {
                    stripe.places.iter().filter(|place| drives.contains(&place.drive)).count()
                };
                // A stripe is met once for each of these drives, and counted at the first.
                let first =
                    stripe.places.iter().map(|place| place.drive).filter(|d| concerned.contains(d)).min();
                if first == Some(*drive) {
                    let (exposed, to_move) = (on(&verdict.absent), on(&leaving));
                    survey.draining += on(&verdict.draining) as u64;
                    survey.note(stripe, exposed, to_move);
                }
            }
        }
    }
    Ok(survey)
}

impl Survey {
    fn note(&mut self, stripe: StripeRef, exposed: usize, to_move: usize) {
        let level = u8::try_from(exposed).unwrap_or(u8::MAX);
        if exposed > 0 {
            *self.stripes.entry(level).or_default() += 1;
            self.unreadable += u64::from(exposed > usize::from(stripe.parity));
        }
        if to_move > 0 && exposed <= usize::from(stripe.parity) {
            self.work += 1;
            let planned = self.plan.entry(level).or_default();
            if planned.len() < PLAN_MAX {
                planned.push(stripe);
            }
        }
    }
}

/// Moves what the survey planned, most exposed first; returns how many stripes were moved.
async fn work_on(
    service: &Arc<ObjectService>,
    verdict: &Verdict,
    tenant: &TenantEntry,
    route: (PartitionId, GroupId),
    survey: Survey,
) -> u64 {
    let board = &service.workers;
    let home = home(service, tenant, route);
    let mut debt = debt_of(tenant, &survey);
    let plan = survey
        .plan
        .into_iter()
        .rev()
        .flat_map(|(level, stripes)| stripes.into_iter().map(move |stripe| (level, stripe)));
    let mut results = stream::iter(plan.take(PLAN_MAX))
        .map(|(level, stripe)| async move {
            let leaving = leaving_shards(&stripe, verdict);
            (level, leaving.len(), stripe.id, relocate(service, home, &stripe, &leaving).await)
        })
        .buffer_unordered(PARALLEL);
    let mut moved = 0;
    while let Some((level, wanted, stripe, result)) = results.next().await {
        board.update(Kind::Rebuild, |progress| progress.left = progress.left.saturating_sub(1));
        match result {
            Ok(Relocated::Done { shards, bytes }) => {
                moved += 1;
                board.update(Kind::Rebuild, |progress| {
                    progress.done += 1;
                    progress.bytes += bytes;
                });
                if shards == wanted {
                    debt.settle(level);
                    board.set_partition_debt(route.0, debt.clone());
                }
            }
            Ok(Relocated::Overtaken) => {}
            Ok(Relocated::NoPlace) => {
                board.update(Kind::Rebuild, |progress| progress.failed += 1);
                board.trouble(
                    Kind::Rebuild,
                    format!("no drive can take shards of some stripes without breaking level {}: add a drive or a node, or bring one back", tenant.level),
                );
            }
            Err(error) => {
                board.update(Kind::Rebuild, |progress| progress.failed += 1);
                board.trouble(Kind::Rebuild, error.to_string());
                tracing::warn!(%stripe, %error, "stripe not rebuilt; will be tried again");
            }
        }
    }
    moved
}

impl PartitionDebt {
    /// One stripe fewer of this exposure; the recount at the end of the run has the last word.
    fn settle(&mut self, level: u8) {
        if let Some(count) = self.stripes.get_mut(&level) {
            *count = count.saturating_sub(1);
        }
        self.stripes.retain(|_, count| *count > 0);
    }
}

fn leaving_shards(stripe: &StripeRef, verdict: &Verdict) -> Vec<Leaving> {
    let shards = stripe.shards().filter_map(|(index, place)| {
        let lost = verdict.lost.contains(&place.drive);
        let draining = verdict.draining.contains(&place.drive);
        (lost || draining).then_some(Leaving { index, readable: !lost, in_place: false })
    });
    shards.collect()
}

/// Where stripes of `tenant` are kept, and under which rule.
pub(super) fn home(service: &ObjectService, tenant: &TenantEntry, route: (PartitionId, GroupId)) -> Home {
    let several = service.stripes.health.members().is_none_or(|members| members > 1);
    Home { tenant: tenant.id, route, per_node_max: several.then(|| tenant.level.shards_per_node()) }
}

impl ObjectService {
    /// Whether no stripe, live or dead, has a place on `drive` any more: then it may leave for good.
    ///
    /// # Errors
    /// When a partition cannot be read now.
    pub async fn drive_is_empty(&self, drive: DriveId) -> Result<bool, ObjectError> {
        let snapshot = self.directory.snapshot();
        for route in snapshot.tenants.values().flat_map(|tenant| tenant.partitions.clone()) {
            let held =
                self.read(route, ("", ""), move |catalog| catalog.stripes_on_drive(drive, None, 1)).await?;
            if !held.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
