//! Rebalance: when a drive or a node was added, shards move from the fullest drives to the emptiest, until
//! all are about equally full.
//!
//! Each leader moves its partitions' part of what a drive has too much, so that together they move what is
//! needed and not more. Moves are verified copies under the level's rules ([`super::relocate`]). Nothing is
//! moved while drives are away or being emptied: what they hold comes first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use holdfast_catalog::{ShardOnDrive, StripeRef};
use holdfast_model::{
    DriveId, NodeId, ShardIndex, StripeId,
    balance::{Balance, Fill, balance},
    fit::per_node_max,
    limits::SECTOR_SIZE,
    placement::Candidate,
};
use holdfast_stripe::Layout;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Route,
    abreast::Abreast,
    absent::Standing,
    led,
    rebuild::home,
    relocate::{Home, Leaving, Relocated, Targets, relocate},
    status::Kind,
    sweep::GARBAGE_GRACE,
    worker::Worker,
};
use crate::{api::ObjectError, directory::TenantEntry, service::ObjectService};

/// How often drives are compared.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// After a round: until what was moved away is swept, drives look fuller than they are.
const SETTLE: Duration = Duration::from_secs(GARBAGE_GRACE.as_secs() + 15);

/// After a round in which nothing could be moved.
const STUCK: Duration = Duration::from_secs(600);

/// Shards planned for one drive of one partition in one round.
const PLAN_MAX: usize = 8192;

/// Shards of one stripe planned in one round: more would meet on the same few drives that are empty.
const OF_ONE_STRIPE_MAX: u8 = 2;

/// Rows read from the catalog at once.
const PAGE: usize = 1024;

pub(super) struct Rebalance {
    service: Arc<ObjectService>,
    node: NodeId,
    quiet_until: Instant,
}

/// A shard that may move.
struct Movable {
    home: Home,
    stripe: StripeRef,
    index: ShardIndex,
    bytes: u64,
}

/// What is still to be filled, shared by the moves of one round.
struct Deficits {
    nodes: BTreeMap<DriveId, NodeId>,
    left: Mutex<BTreeMap<DriveId, u64>>,
}

impl Rebalance {
    pub(super) fn new(service: Arc<ObjectService>, node: NodeId) -> Self {
        Self { service, node, quiet_until: Instant::now() + SETTLE }
    }
}

#[async_trait::async_trait]
impl Worker for Rebalance {
    fn kind(&self) -> Kind {
        Kind::Rebalance
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }

    async fn work(&mut self) {
        let service = Arc::clone(&self.service);
        if !service.workers.may_run(Kind::Rebalance) || Instant::now() < self.quiet_until {
            return;
        }
        let Some((fills, shards)) = fills(&service) else { return };
        let balance = balance(&fills);
        if balance.excess.is_empty() {
            return;
        }
        let deficits = Deficits {
            nodes: fills.iter().map(|fill| (fill.drive, fill.node)).collect(),
            left: Mutex::new(balance.deficit.clone()),
        };
        let mut plan = Vec::new();
        for (tenant, route) in led(&service, self.node) {
            match movable(&service, &tenant, route, &balance, &shards, &deficits).await {
                Ok(found) => plan.extend(found),
                Err(error) => {
                    tracing::debug!(tenant = tenant.name, %error, "not balanced; will be tried again");
                }
            }
        }
        let moved = if plan.is_empty() { 0 } else { carry_out(&service, plan, &deficits).await };
        self.quiet_until = Instant::now() + if moved > 0 { SETTLE } else { STUCK.min(SETTLE) };
    }
}

/// What the drives that stay hold, and how many shards each; `None` while some of them are away or leaving.
fn fills(service: &ObjectService) -> Option<(Vec<Fill>, BTreeMap<DriveId, u64>)> {
    let verdict = service.workers.verdict()?;
    let snapshot = service.directory.snapshot();
    let (mut fills, mut shards) = (Vec::new(), BTreeMap::new());
    let health = service.stripes.health.snapshot();
    for known in &snapshot.drives {
        match known.standing {
            Standing::Removed => continue,
            Standing::Draining => return None,
            Standing::Active if verdict.lost.contains(&known.drive) => continue,
            Standing::Active => {}
        }
        let node = health.iter().find(|(health, up)| *up && health.report.node == known.node);
        let report = node?.0.report.drives.iter().find(|drive| drive.id == known.drive)?;
        if !report.state.writable() {
            return None;
        }
        fills.push(Fill {
            drive: known.drive,
            node: known.node,
            capacity_bytes: report.capacity_bytes,
            live_bytes: report.live_bytes,
        });
        shards.insert(known.drive, report.shards);
    }
    Some((fills, shards))
}

/// This partition's part of what the fullest drives have too much.
async fn movable(
    service: &ObjectService,
    tenant: &TenantEntry,
    route: Route,
    balance: &Balance,
    shards: &BTreeMap<DriveId, u64>,
    deficits: &Deficits,
) -> Result<Vec<Movable>, ObjectError> {
    let (mut found, mut planned_of) = (Vec::new(), HashMap::<StripeId, u8>::new());
    let home = home(service, tenant, route);
    for (drive, excess) in &balance.excess {
        let drive = *drive;
        let own = service.read(route, ("", ""), move |catalog| catalog.shards_on_drive(drive)).await?;
        let all = shards.get(&drive).copied().unwrap_or(0).max(own).max(1);
        let mut budget = u64::try_from(u128::from(*excess) * u128::from(own) / u128::from(all)).unwrap_or(0);
        let (mut after, mut planned) = (None, 0);
        'drive: while budget > 0 {
            let page = service
                .read(route, ("", ""), move |catalog| catalog.stripes_on_drive(drive, after, PAGE))
                .await?;
            let Some(end) = page.last() else { break };
            after = Some(end.known.stripe.id);
            for shard in page {
                let Some(shard) = may_move(home, shard, deficits) else { continue };
                let of_stripe = planned_of.entry(shard.stripe.id).or_default();
                if *of_stripe == OF_ONE_STRIPE_MAX {
                    continue;
                }
                // The last one may be a little more than what is left: half of it is nearer than nothing.
                if shard.bytes / 2 > budget || planned == PLAN_MAX {
                    break 'drive;
                }
                budget = budget.saturating_sub(shard.bytes);
                planned += 1;
                *of_stripe += 1;
                found.push(shard);
            }
        }
    }
    Ok(found)
}

/// A shard that some emptier drive may take under the level's rules.
fn may_move(home: Home, shard: ShardOnDrive, deficits: &Deficits) -> Option<Movable> {
    let ShardOnDrive { index, known } = shard;
    let stripe = known.stripe;
    let layout = Layout::new(stripe.data, stripe.parity, stripe.plain_len as usize)?;
    let takes = |drive: &DriveId| {
        let node = deficits.nodes.get(drive);
        let others = stripe.shards().filter(|(other, _)| *other != index);
        let on_node = others.filter(|(_, place)| Some(&place.node) == node).count();
        stripe.places.iter().all(|place| place.drive != *drive)
            && (home.alone || on_node < usize::from(per_node_max(stripe.parity, &stripe.places)))
    };
    let somewhere = known.live && deficits.left.lock().keys().any(takes);
    let bytes = (layout.shard_len() + SECTOR_SIZE) as u64;
    somewhere.then_some(Movable { home, stripe, index, bytes })
}

async fn carry_out(service: &Arc<ObjectService>, plan: Vec<Movable>, deficits: &Deficits) -> u64 {
    let board = &service.workers;
    board.begin(Kind::Rebalance, plan.len() as u64);
    tracing::info!(shards = plan.len(), "moving shards to emptier drives");
    let mut moved = 0;
    let parallel = || board.orders().of(Kind::Rebalance).impact.parallel();
    let mut results = Abreast::new(plan, parallel, |shard| async move {
        board.leave(Kind::Rebalance).await;
        let begun = Instant::now();
        let result = move_one(service, &shard, deficits).await;
        board.rest(Kind::Rebalance, begun.elapsed()).await;
        result
    });
    while let Some(result) = results.next(true).await {
        board.update(Kind::Rebalance, |progress| progress.left = progress.left.saturating_sub(1));
        match result {
            Ok(Relocated::Done { bytes, .. }) => {
                moved += 1;
                board.update(Kind::Rebalance, |progress| {
                    progress.done += 1;
                    progress.bytes += bytes;
                });
            }
            Ok(Relocated::NoPlace | Relocated::Overtaken) => {
                board.update(Kind::Rebalance, |progress| progress.failed += 1);
            }
            Err(error) => {
                board.update(Kind::Rebalance, |progress| progress.failed += 1);
                board.trouble(Kind::Rebalance, error.to_string());
                tracing::debug!(%error, "shard not moved");
            }
        }
    }
    board.end(Kind::Rebalance);
    moved
}

async fn move_one(
    service: &ObjectService,
    shard: &Movable,
    deficits: &Deficits,
) -> Result<Relocated, ObjectError> {
    // Another shard of it may have moved since it was planned.
    let id = shard.stripe.id;
    let known = service.read(shard.home.route, ("", ""), move |catalog| catalog.stripe(id)).await?;
    let Some(stripe) = known.filter(|known| known.live).map(|known| known.stripe) else {
        return Ok(Relocated::Overtaken);
    };
    let at = usize::from(shard.index.get());
    if stripe.places.get(at) != shard.stripe.places.get(at) {
        return Ok(Relocated::Overtaken);
    }
    let targets: Vec<Candidate> = service
        .stripes
        .health
        .candidates()
        .into_iter()
        .filter_map(|candidate| {
            let deficit = deficits.left.lock().get(&candidate.drive).copied()?;
            // The emptiest are chosen most often.
            let free_bytes = deficit.min(candidate.free_bytes);
            (candidate.free_bytes >= shard.bytes && deficit >= shard.bytes / 2)
                .then_some(Candidate { free_bytes: free_bytes.max(shard.bytes), ..candidate })
        })
        .collect();
    let leaving = [Leaving { index: shard.index, readable: true, in_place: false }];
    let result = relocate(service, shard.home, &stripe, &leaving, Targets::These(&targets)).await?;
    if let Relocated::Done { to, .. } = &result {
        let mut left = deficits.left.lock();
        for drive in to {
            if let Some(deficit) = left.get_mut(drive) {
                *deficit = deficit.saturating_sub(shard.bytes);
            }
        }
    }
    Ok(result)
}
