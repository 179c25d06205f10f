//! An audit: what the drives hold against what the catalog says, counted by another way than debt is.
//!
//! Debt is counted from the catalog's index by drive and from which drives answer. An audit asks every drive
//! what it holds, walks through all objects by their owners, and looks for each shard of each stripe. It names
//! the objects that cannot be read. Where both disagree, one of them is wrong, and that is worth knowing.
//!
//! Shards move while it runs, so whatever seems missing on a drive that was listed is asked for once more.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use holdfast_catalog::{StripeRef, StripedContent};
use holdfast_model::{
    BucketId, DriveId, GroupId, PartitionId, ShardId, TenantId, UnixMillis, placement::Place,
};
use parking_lot::Mutex;

use crate::{api::ObjectError, backing::Backing, host::now, service::ObjectService, workers::Standing};

/// Shards listed at once.
const PAGE: usize = 4096;

/// Owners looked at in one read of the catalog.
const OWNERS: usize = 256;

/// Shards an audit keeps in memory at most, 16 bytes each and the set's slack.
const SHARDS_MAX: usize = 50_000_000;

/// Objects named at most.
const NAMED_MAX: usize = 1000;

/// What an audit found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// When it began.
    pub begun: UnixMillis,
    /// When it ended.
    pub ended: UnixMillis,
    /// Drives that were listed.
    pub drives_listed: u64,
    /// Drives that could not be: what they hold counts as missing.
    pub drives_unreadable: Vec<DriveId>,
    /// Shards on the drives that were listed, those that nothing refers to among them.
    pub shards: u64,
    /// Stripes that objects, versions and parts of uploads are in.
    pub stripes: u64,
    /// Of those, the ones that miss a shard.
    pub debt_stripes: u64,
    /// Of those, the ones that miss more than can be rebuilt.
    pub unreadable_stripes: u64,
    /// Stripes that miss a shard, by tenant.
    pub by_tenant: BTreeMap<TenantId, u64>,
    /// Objects that cannot be read, the first of them when they are many.
    pub lost: Vec<LostObject>,
    /// How many cannot be read.
    pub lost_count: u64,
}

/// An object that cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostObject {
    /// Whose.
    pub tenant: TenantId,
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
}

/// The audits of this node.
#[derive(Debug, Default)]
pub(crate) struct Audits(Mutex<(bool, Option<AuditReport>)>);

/// What drives hold.
struct Held {
    hasher: RandomState,
    drives: HashMap<DriveId, HashSet<u64>>,
    unreadable: Vec<DriveId>,
    shards: u64,
}

impl Held {
    fn has(&self, place: Place, shard: ShardId) -> Option<bool> {
        self.drives.get(&place.drive).map(|held| held.contains(&self.hasher.hash_one(shard)))
    }
}

impl ObjectService {
    /// Whether an audit runs here, and what the last one found.
    #[must_use]
    pub fn audit_status(&self) -> (bool, Option<AuditReport>) {
        self.audits.0.lock().clone()
    }

    /// Starts an audit, unless one runs.
    pub fn start_audit(self: &Arc<Self>) {
        if std::mem::replace(&mut self.audits.0.lock().0, true) {
            return;
        }
        let service = Arc::clone(self);
        tokio::spawn(async move {
            let outcome = service.audit().await;
            let mut audits = service.audits.0.lock();
            audits.0 = false;
            match outcome {
                Ok(report) => {
                    tracing::info!(
                        stripes = report.stripes,
                        debt = report.debt_stripes,
                        unreadable = report.unreadable_stripes,
                        "audited"
                    );
                    audits.1 = Some(report);
                }
                Err(error) => tracing::warn!(%error, "the audit was given up"),
            }
        });
    }

    async fn audit(&self) -> Result<AuditReport, ObjectError> {
        let mut report = AuditReport { begun: now(), ..AuditReport::default() };
        let held = self.list_all().await?;
        report.drives_listed = held.drives.len() as u64;
        report.drives_unreadable.clone_from(&held.unreadable);
        report.shards = held.shards;
        let held = Arc::new(held);
        let snapshot = self.directory.snapshot();
        for tenant in snapshot.tenants.values() {
            for route in &self.routes(tenant.id).await? {
                if !self.is_settled(*route) {
                    return Err(ObjectError::Unavailable(format!(
                        "partition {} of tenant {} was split and still holds rows of the other half; try again when \
                         they are cleared away",
                        route.0, tenant.name
                    )));
                }
                self.audit_partition(tenant.id, *route, &held, &mut report).await?;
            }
        }
        report.ended = now();
        Ok(report)
    }

    async fn list_all(&self) -> Result<Held, ObjectError> {
        let mut held =
            Held { hasher: RandomState::new(), drives: HashMap::new(), unreadable: Vec::new(), shards: 0 };
        let drives = self.directory.snapshot().drives.clone();
        for known in drives.iter().filter(|known| known.standing != Standing::Removed) {
            let place = Place { node: known.node, drive: known.drive };
            let (mut shards, mut after) = (HashSet::new(), None);
            let listed = loop {
                match self.stripes.shards.list(place, after, PAGE).await {
                    Ok(page) => {
                        shards.extend(page.iter().map(|(shard, _)| held.hasher.hash_one(shard)));
                        held.shards += page.len() as u64;
                        after = page.last().map(|(shard, _)| *shard);
                        if page.len() < PAGE {
                            break true;
                        }
                    }
                    Err(error) => {
                        tracing::info!(drive = %known.drive, %error, "audit: drive not listed");
                        break false;
                    }
                }
                if held.shards > SHARDS_MAX as u64 {
                    return Err(ObjectError::Unavailable(format!(
                        "more than {SHARDS_MAX} shards: too many for an audit in the memory of one node"
                    )));
                }
            };
            if listed {
                held.drives.insert(known.drive, shards);
            } else {
                held.unreadable.push(known.drive);
            }
        }
        Ok(held)
    }

    async fn audit_partition(
        &self,
        tenant: TenantId,
        route: (PartitionId, GroupId),
        held: &Arc<Held>,
        report: &mut AuditReport,
    ) -> Result<(), ObjectError> {
        let names: HashMap<BucketId, String> = self
            .read(route, ("", ""), |catalog| catalog.list_buckets())
            .await?
            .into_iter()
            .map(|bucket| (bucket.id, bucket.name))
            .collect();
        let mut lost: HashSet<(BucketId, String)> = HashSet::new();
        let mut after = None;
        loop {
            let held_here = Arc::clone(held);
            let (count, suspects, next) = self
                .read(route, ("", ""), move |catalog| {
                    let (mut count, mut suspects) = (0u64, Vec::new());
                    let next = catalog.visit_stripes(after, OWNERS, |owned, stripe| {
                        count += 1;
                        let missing = stripe.shards().any(|(index, place)| {
                            held_here.has(place, ShardId { stripe: stripe.id, index }) != Some(true)
                        });
                        if missing {
                            suspects.push((owned.clone(), stripe.clone()));
                        }
                    })?;
                    Ok((count, suspects, next))
                })
                .await?;
            report.stripes += count;
            for (owned, stripe) in suspects {
                let Some((stripe, missing)) = self.missing(route, held, &owned, stripe).await? else {
                    continue;
                };
                if missing == 0 {
                    continue;
                }
                report.debt_stripes += 1;
                *report.by_tenant.entry(tenant).or_default() += 1;
                if missing > usize::from(stripe.parity) {
                    report.unreadable_stripes += 1;
                    lost.insert((owned.bucket, owned.key));
                }
            }
            after = next;
            if after.is_none() {
                break;
            }
        }
        report.lost_count += lost.len() as u64;
        let mut lost: Vec<(BucketId, String)> = lost.into_iter().collect();
        lost.sort();
        for (bucket, key) in lost {
            if report.lost.len() < NAMED_MAX {
                let bucket = names.get(&bucket).cloned().unwrap_or_default();
                report.lost.push(LostObject { tenant, bucket, key });
            }
        }
        Ok(())
    }

    /// How many shards a stripe misses, looked at anew; `None` when it is not live any more.
    async fn missing(
        &self,
        route: (PartitionId, GroupId),
        held: &Held,
        owned: &StripedContent,
        seen: StripeRef,
    ) -> Result<Option<(StripeRef, usize)>, ObjectError> {
        let id = seen.id;
        let known = self.read(route, ("", ""), move |catalog| catalog.stripe(id)).await?;
        let Some(known) = known.filter(|known| known.live) else { return Ok(None) };
        let stripe = known.stripe;
        let mut missing = 0;
        for (index, place) in stripe.shards() {
            let shard = ShardId { stripe: id, index };
            if held.has(place, shard) == Some(true) {
                continue;
            }
            // On a drive that could not be listed it counts as missing; elsewhere it may have come since.
            let listed = held.drives.contains_key(&place.drive);
            if !listed || !self.stripes.shards.holds(place, shard).await {
                missing += 1;
                tracing::debug!(%shard, drive = %place.drive, key = owned.key, "audit: missing");
            }
        }
        Ok(Some((stripe, missing)))
    }
}
