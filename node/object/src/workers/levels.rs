//! Levels: whatever does not have the level that is asked of it is cut anew ([`super::recut`]).
//!
//! That is what was written while drives were away, what lies in buckets or tenants whose level was changed,
//! and what lost shards that no other drive can take. The leader of each group looks through its partitions
//! when something changed that may make a difference: levels, drives that came or were given up, drives that
//! are back, shards that have to move and find no place; and once an hour. The catalog says what there is to do each time, so that a new leader goes on
//! where its predecessor was.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_catalog::{DocumentKind, StripedContent};
use holdfast_model::{
    BucketId, Level, NodeId, PartitionId, UnixMillis,
    fit::{Fit, Standard, StayingDrive, level_of},
};
use tokio::time::Instant;

use super::{
    Route,
    abreast::Abreast,
    absent::{Standing, Verdict},
    led,
    recut::{Recut, fit, recut},
    status::Kind,
    worker::Worker,
};
use crate::{api::ObjectError, directory::TenantEntry, service::ObjectService};

/// How often it is asked whether anything changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// How often everything is looked through although nothing is known to have changed.
const AGAIN_INTERVAL: Duration = Duration::from_secs(3600);

/// After a pass that left something undone, the next one waits so long.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// And so many times what it takes to look through the partition.
const RETRY_SPACING: u32 = 10;

/// Contents planned at once; further ones are planned when these are done.
const PLAN_MAX: usize = 4096;

/// Owners looked at in one read of the catalog.
const PAGE: usize = 256;

/// Part of all drives' bytes that has to be free for anything to be cut anew that is not in danger.
const FREE_SHARE_MIN: f64 = 0.05;

/// The level of one bucket's stripes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketLevel {
    /// The bucket's name.
    pub bucket: String,
    /// What is asked for.
    pub requested: Level,
    /// It is the bucket's own, and not the tenant's.
    pub own: bool,
    /// What its weakest stripe has; `None` when losing one node loses it.
    pub actual: Option<Level>,
    /// Stripes it has.
    pub stripes: u64,
    /// Stripes that are to be cut anew.
    pub pending: u64,
}

/// Levels in one partition, as its leader found them when it looked last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLevels {
    /// What was asked for then in buckets without a level of their own.
    pub requested: Level,
    /// All buckets.
    pub buckets: Vec<BucketLevel>,
}

/// Everything on which it depends what a stripe should look like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    default: Level,
    buckets: BTreeMap<BucketId, (String, Option<Level>)>,
    drives: Vec<StayingDrive>,
    members: usize,
    widen_before: UnixMillis,
}

/// What was found of a partition.
struct Seen {
    asked: Asked,
    at: Instant,
    /// Drives were away since: what was written meanwhile may be narrow.
    degraded: bool,
    /// Shards found no place since: what was written meanwhile is as it should have been before.
    homeless: bool,
    left: bool,
    /// How long looking took.
    looking: Duration,
}

pub(super) struct Levels {
    service: Arc<ObjectService>,
    node: NodeId,
    seen: BTreeMap<PartitionId, Seen>,
}

impl Levels {
    pub(super) fn new(service: Arc<ObjectService>, node: NodeId) -> Self {
        Self { service, node, seen: BTreeMap::new() }
    }

    fn is_due(&mut self, partition: PartitionId, asked: &Asked, degraded: bool) -> bool {
        let homeless = self.service.workers.take_homeless(partition) && !holdfast_planted::is("HomelessWait");
        let Some(seen) = self.seen.get_mut(&partition) else { return true };
        seen.degraded |= degraded;
        seen.homeless |= homeless;
        let undone = seen.left || seen.homeless || (seen.degraded && !degraded);
        let retry = RETRY_INTERVAL.max(seen.looking * RETRY_SPACING);
        let since = seen.at.elapsed();
        seen.asked != *asked || since > AGAIN_INTERVAL || (undone && since > retry)
    }
}

#[async_trait::async_trait]
impl Worker for Levels {
    fn kind(&self) -> Kind {
        Kind::Level
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }

    async fn work(&mut self) {
        let service = Arc::clone(&self.service);
        let Some(verdict) = service.workers.verdict() else { return };
        let Some(members) = service.stripes.health.members() else { return };
        let led = led(&service, self.node);
        self.seen.retain(|partition, _| led.iter().any(|(_, route)| route.0 == *partition));
        for partition in service.workers.levels().into_keys() {
            if !self.seen.contains_key(&partition) {
                service.workers.set_levels(partition, None);
            }
        }
        for (tenant, route) in led {
            let asked = match asked(&service, &tenant, route, &verdict, members).await {
                Ok(asked) => asked,
                Err(error) => {
                    tracing::debug!(tenant = tenant.name, %error, "levels not looked at; will be tried again");
                    continue;
                }
            };
            let degraded = asked.drives.iter().any(|drive| verdict.absent.contains(&drive.drive));
            if !self.is_due(route.0, &asked, degraded) {
                continue;
            }
            let at = Instant::now();
            match pass(&service, &tenant, route, &asked).await {
                Ok(Passed { left, looking }) => {
                    let seen = Seen { asked, at, degraded, homeless: false, left, looking };
                    self.seen.insert(route.0, seen);
                }
                Err(error) => {
                    tracing::warn!(tenant = tenant.name, partition = %route.0, %error, "levels not looked through; will be tried again");
                }
            }
        }
    }
}

async fn asked(
    service: &ObjectService,
    tenant: &TenantEntry,
    route: Route,
    verdict: &Verdict,
    members: usize,
) -> Result<Asked, ObjectError> {
    let stays = |drive: &&super::KnownDrive| {
        drive.standing == Standing::Active && !verdict.lost.contains(&drive.drive)
    };
    let snapshot = service.directory.snapshot();
    let drives = snapshot.drives.iter().filter(stays).map(|known| StayingDrive {
        drive: known.drive,
        node: known.node,
        since: known.since,
    });
    let buckets = service
        .read(route, ("", ""), |catalog| {
            let mut levels = BTreeMap::new();
            for bucket in catalog.list_buckets()? {
                let own = catalog.documents(&bucket.name, DocumentKind::Level)?;
                let own = own.first().and_then(|document| read_level(&document.body));
                levels.insert(bucket.id, (bucket.name, own));
            }
            Ok(levels)
        })
        .await?;
    Ok(Asked {
        default: tenant.level,
        buckets,
        drives: drives.collect(),
        members,
        widen_before: service.workers.orders().widen_before.unwrap_or(UnixMillis::new(0)),
    })
}

/// A bucket's own level from its document: its text.
pub(crate) fn read_level(document: &[u8]) -> Option<Level> {
    std::str::from_utf8(document).ok()?.parse().ok()
}

impl Asked {
    fn standards(&self) -> BTreeMap<BucketId, Standard> {
        let standard = |level: Option<Level>| {
            let level = level.unwrap_or(self.default);
            Standard::new(level, self.widen_before, self.drives.clone(), self.members)
        };
        self.buckets.iter().map(|(bucket, (_, own))| (*bucket, standard(*own))).collect()
    }
}

/// What a look through a partition found.
#[derive(Default)]
struct Found {
    /// To be cut anew: the stripes in danger first.
    plan: Vec<(Fit, u64, StripedContent)>,
    more: bool,
    counts: BTreeMap<BucketId, Counted>,
}

#[derive(Default)]
struct Counted {
    stripes: u64,
    pending: u64,
    weakest: Option<Option<Level>>,
}

/// By what it survives; a stripe without level is the weakest.
fn strength(level: Option<Level>) -> (u8, u8) {
    level.map_or((0, 0), |level| (level.nodes_survived(), level.drives_survived()))
}

impl Found {
    fn note(&mut self, standard: &Standard, owned: &StripedContent, stripe: &holdfast_catalog::StripeRef) {
        let fit = fit(standard, stripe);
        let counted = self.counts.entry(owned.bucket).or_default();
        counted.stripes += 1;
        let has = match fit {
            Fit::Right | Fit::Narrow | Fit::Homeless => Some(standard.level()),
            Fit::Wrong => level_of(stripe.data, stripe.parity, &stripe.places),
        };
        if counted.weakest.is_none_or(|weakest| strength(has) < strength(weakest)) {
            counted.weakest = Some(has);
        }
        if fit == Fit::Right {
            return;
        }
        counted.pending += 1;
        if let Some((worst, stripes, last)) = self.plan.last_mut()
            && last.content == owned.content
        {
            *worst = fit.max(*worst);
            *stripes += 1;
        } else if self.plan.len() < PLAN_MAX {
            self.plan.push((fit, 1, owned.clone()));
        } else {
            self.more = true;
        }
    }

    fn levels(&self, asked: &Asked) -> PartitionLevels {
        let of = |(id, (name, own)): (&BucketId, &(String, Option<Level>))| {
            let requested = own.unwrap_or(asked.default);
            let counted = self.counts.get(id);
            BucketLevel {
                bucket: name.clone(),
                requested,
                own: own.is_some(),
                actual: counted.and_then(|counted| counted.weakest).unwrap_or(Some(requested)),
                stripes: counted.map_or(0, |counted| counted.stripes),
                pending: counted.map_or(0, |counted| counted.pending),
            }
        };
        PartitionLevels { requested: asked.default, buckets: asked.buckets.iter().map(of).collect() }
    }
}

/// How a look through a partition ended.
struct Passed {
    /// Something is left to do.
    left: bool,
    /// How long looking took, without the work.
    looking: Duration,
}

/// Looks through a partition and cuts anew what it finds.
async fn pass(
    service: &Arc<ObjectService>,
    tenant: &TenantEntry,
    route: Route,
    asked: &Asked,
) -> Result<Passed, ObjectError> {
    let begun = Instant::now();
    let standards = Arc::new(asked.standards());
    let mut found = Found::default();
    let mut after = None;
    loop {
        let (standards, mut so_far) = (Arc::clone(&standards), std::mem::take(&mut found));
        (found, after) = service
            .read(route, ("", ""), move |catalog| {
                let next = catalog.visit_stripes(after, PAGE, |owned, stripe| {
                    if let Some(standard) = standards.get(&owned.bucket) {
                        so_far.note(standard, owned, stripe);
                    }
                })?;
                Ok((so_far, next))
            })
            .await?;
        if after.is_none() {
            break;
        }
    }
    let looking = begun.elapsed();
    let board = &service.workers;
    let mut levels = found.levels(asked);
    board.set_levels(route.0, Some(levels.clone()));
    if found.plan.is_empty() {
        return Ok(Passed { left: false, looking });
    }
    found.plan.sort_by_key(|(fit, _, owned)| (std::cmp::Reverse(*fit), owned.content));
    board.begin(Kind::Level, found.plan.iter().map(|(_, stripes, _)| stripes).sum());
    tracing::info!(tenant = tenant.name, partition = %route.0, contents = found.plan.len(), "cutting stripes anew for their level");
    let mut left = found.more;
    let parallel = || board.orders().of(Kind::Level).impact.parallel();
    let begin = |(fit, stripes, owned): (Fit, u64, StripedContent)| {
        let standard = standards.get(&owned.bucket);
        async move {
            let result = match standard {
                Some(standard) => one(service, tenant, route, &owned, standard, fit).await,
                None => Ok(Recut::Overtaken),
            };
            (stripes, owned, result)
        }
    };
    let mut results = Abreast::new(std::mem::take(&mut found.plan), parallel, begin);
    while let Some((stripes, owned, result)) = results.next(true).await {
        board.update(Kind::Level, |progress| progress.left = progress.left.saturating_sub(stripes));
        match result {
            Ok(Recut::Done { bytes }) => {
                board.update(Kind::Level, |progress| {
                    progress.done += stripes;
                    progress.bytes += 3 * bytes;
                });
                if let Some((name, _)) = asked.buckets.get(&owned.bucket) {
                    let bucket = levels.buckets.iter_mut().find(|level| level.bucket == *name);
                    if let Some(level) = bucket {
                        level.pending = level.pending.saturating_sub(stripes);
                    }
                    board.set_levels(route.0, Some(levels.clone()));
                }
            }
            Ok(Recut::Overtaken) => {}
            Ok(Recut::Closed) => {
                board.update(Kind::Level, |progress| progress.failed += stripes);
                board.trouble(
                    Kind::Level,
                    "objects under customers' keys keep the stripes they have until they are written anew",
                );
            }
            Ok(Recut::Worse) => {
                left = true;
                board.update(Kind::Level, |progress| progress.failed += stripes);
                board.trouble(
                    Kind::Level,
                    "drives that are away, or too little room, keep stripes from getting their level",
                );
            }
            Err(error) => {
                left = true;
                board.update(Kind::Level, |progress| progress.failed += stripes);
                board.trouble(Kind::Level, error.to_string());
                tracing::warn!(content = owned.content, partition = %route.0, %error, "content not cut anew; will be tried again");
            }
        }
    }
    board.end(Kind::Level);
    // What was cut anew is counted again: the numbers come from the catalog.
    Ok(Passed { left: left || !levels.buckets.is_empty(), looking })
}

async fn one(
    service: &Arc<ObjectService>,
    tenant: &TenantEntry,
    route: Route,
    owned: &StripedContent,
    standard: &Standard,
    fit: Fit,
) -> Result<Recut, ObjectError> {
    service.workers.leave(Kind::Level).await;
    if !can_be_written(service, standard, fit) {
        return Ok(Recut::Worse);
    }
    let begun = Instant::now();
    let result = recut(service, tenant, route, owned, standard).await;
    service.workers.rest(Kind::Level, begun.elapsed()).await;
    result
}

/// Whether what is up now gives a stripe as it should be, with room to spare.
fn can_be_written(service: &ObjectService, standard: &Standard, fit: Fit) -> bool {
    let candidates = service.stripes.health.candidates();
    let mut by_node: BTreeMap<NodeId, usize> = BTreeMap::new();
    for candidate in &candidates {
        *by_node.entry(candidate.node).or_default() += 1;
    }
    let drives: Vec<usize> = by_node.into_values().collect();
    let full = fit != Fit::Homeless && service.stripes.health.free_share() < FREE_SHARE_MIN;
    !full && standard.level().geometry(&drives) == standard.geometry()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buckets_level_is_its_text() {
        assert_eq!(read_level(b"+2d:1n"), Some(Level::PLUS_2D_1N));
        assert_eq!(read_level(b"+5n"), None);
        assert_eq!(read_level(&[0xff]), None);
    }

    #[test]
    fn nodes_count_before_drives() {
        let of = |text: &str| strength(Some(text.parse().unwrap()));
        assert!(strength(None) < of("+1n") && of("+1n") < of("+2d:1n"));
        assert!(of("+4d:1n") < of("+2n") && of("+2n") < of("4x"));
    }
}
