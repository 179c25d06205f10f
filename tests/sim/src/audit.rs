//! An auditor that believes nobody: it walks the catalog, reads every shard from its drive, and computes for itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast_audit::placement::misplaces;
use holdfast_catalog::{PartitionReader, StripeRef};
use holdfast_drive::{Drive, GetError, ShardInfo};
use holdfast_erasure::Code;
use holdfast_model::{DriveId, ShardId, StripeId};

use crate::{
    faults::Site,
    keys::KeyState,
    rig::{GUEST, PARTITION},
    world::World,
};

/// How long one shard may take to be read.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// Owners of stripes looked at at once.
const PAGE: usize = 256;

/// Shards listed at once.
const LIST_PAGE: usize = 512;

/// What was found.
#[derive(Debug, Default)]
pub struct Audit {
    /// Stripes that are live.
    pub stripes: usize,
    /// Shards that are not what they should be, in words.
    pub bad: Vec<String>,
    /// Stripes whose places do not keep their level, in words.
    pub misplaced: Vec<String>,
    /// Stripes with places on drives that are not there.
    pub absent: usize,
    /// Keys of objects that have a stripe with too few whole shards.
    pub lost: Vec<String>,
    /// Shards on drives of stripes that are not live.
    pub orphans: Vec<ShardId>,
    /// Shards of live stripes on drives where the catalog does not place them, in words.
    pub strays: Vec<String>,
    /// Shards on drives of a tenant whose key is destroyed.
    pub remains: usize,
    /// Entries of the garbage.
    pub garbage: usize,
}

/// Looks at everything. `None` when no node is on.
pub async fn audit(world: &World) -> Option<Audit> {
    let drives: BTreeMap<DriveId, Drive> = (0..world.plan.nodes)
        .filter_map(|node| world.node(node))
        .flat_map(|node| node.shards.local())
        .map(|drive| (drive.id(), drive))
        .filter(|(drive, _)| !world.has_left(*drive))
        .collect();
    let catalogs = catalogs(world)?;
    let mut audit = Audit::default();
    let live: BTreeMap<_, _> = catalogs.iter().flat_map(live).collect();
    let destroyed = world.key_state() == KeyState::Destroyed;
    audit.stripes = live.len();
    for (key, stripe) in live.values() {
        look_at(&mut audit, world, &drives, (key, stripe)).await;
    }
    let garbage =
        |catalog: &PartitionReader| catalog.garbage(None, LIST_PAGE).map_or(0, |(rows, _)| rows.len());
    audit.garbage = catalogs.iter().map(garbage).sum();
    for (id, drive) in &drives {
        let mut after = None;
        loop {
            let page = drive.list(after, LIST_PAGE);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            for ShardInfo { id: shard, generation, tenant, .. } in page {
                if destroyed && tenant == GUEST {
                    audit.remains += 1;
                    continue;
                }
                let Some((key, stripe)) = live.get(&shard.stripe) else {
                    audit.orphans.push(shard);
                    continue;
                };
                let place = stripe.places.get(usize::from(shard.index.get()));
                if place.map(|place| place.drive) != Some(*id) {
                    let (index, reached) = (shard.index, stripe.generation);
                    audit.strays.push(format!("shard {index} of {key}, {generation} of {reached}"));
                }
            }
        }
    }
    Some(audit)
}

/// The catalog of a node that is on, up to date.
#[must_use]
pub fn catalog(world: &World) -> Option<PartitionReader> {
    let node = (0..world.plan.nodes).find(|node| world.node(*node).is_some())?;
    world.log.catch_up(world, node, world.log.len());
    world.log.reader(node).partition(PARTITION).ok()
}

/// All partitions of a node that is on, up to date.
fn catalogs(world: &World) -> Option<Vec<PartitionReader>> {
    catalog(world)?;
    let reader = world.log.reader((0..world.plan.nodes).find(|node| world.node(*node).is_some())?);
    world.partitions().into_iter().map(|partition| reader.partition(partition).ok()).collect()
}

/// Stripes that objects are made of, each with the key of its object.
#[must_use]
pub fn live(catalog: &PartitionReader) -> BTreeMap<StripeId, (String, StripeRef)> {
    let mut live = BTreeMap::new();
    let mut after = None;
    loop {
        let visited = catalog.visit_stripes(after, PAGE, |owner, stripe| {
            live.insert(stripe.id, (owner.key.clone(), stripe.clone()));
        });
        match visited {
            Ok(Some(next)) => after = Some(next),
            Ok(None) | Err(_) => return live,
        }
    }
}

/// What the catalog's index by drive says otherwise than the places of stripes, in words.
#[must_use]
pub fn index_by_drive(world: &World, site: &Site) -> Vec<String> {
    let Some(catalog) = catalog(world) else { return Vec::new() };
    let mut placed = BTreeSet::new();
    for (_, stripe) in live(&catalog).values() {
        placed.extend(stripe.shards().map(|(index, place)| (place.drive, stripe.id, index)));
    }
    let mut listed = BTreeSet::new();
    for drive in site.known() {
        let mut after = None;
        while let Ok(page) = catalog.stripes_on_drive(drive, after, PAGE)
            && let Some(last) = page.last()
        {
            after = Some(last.known.stripe.id);
            let of_live = page.iter().filter(|shard| shard.known.live);
            listed.extend(of_live.map(|shard| (drive, shard.known.stripe.id, shard.index)));
        }
    }
    let missing = placed.difference(&listed).map(|(_, _, index)| format!("shard {index} is not listed"));
    let wrong =
        listed.difference(&placed).map(|(_, _, index)| format!("shard {index} is listed and not there"));
    missing.chain(wrong).collect()
}

async fn look_at(
    audit: &mut Audit,
    world: &World,
    drives: &BTreeMap<DriveId, Drive>,
    (key, stripe): (&str, &StripeRef),
) {
    if stripe.places.iter().any(|place| !drives.contains_key(&place.drive)) {
        audit.absent += 1;
    }
    if let Some(what) = misplaces(world.plan.level(), stripe) {
        audit.misplaced.push(what);
    }
    let mut shards: Vec<Option<Vec<u8>>> = Vec::new();
    for (index, place) in stripe.shards() {
        let id = ShardId { stripe: stripe.id, index };
        let read = match drives.get(&place.drive) {
            Some(drive) => read(drive, id, stripe).await,
            None => Err("its drive is not there".to_owned()),
        };
        shards.push(match read {
            Ok(bytes) => Some(bytes),
            Err(what) => {
                audit
                    .bad
                    .push(format!("shard {index} of {}+{} of {key}: {what}", stripe.data, stripe.parity));
                None
            }
        });
    }
    let whole = shards.iter().flatten().count();
    if whole < usize::from(stripe.data) {
        audit.lost.push(key.to_owned());
    }
    if whole == shards.len() {
        let shards: Vec<&[u8]> = shards.iter().flatten().map(Vec::as_slice).collect();
        let (data, parity) = shards.split_at(usize::from(stripe.data));
        let agrees = Code::of(stripe.data, stripe.parity).and_then(|code| code.parity_agrees(data, parity));
        if !matches!(agrees, Ok(true)) {
            audit.bad.push(format!("shards of {key} do not belong together: {agrees:?}"));
        }
    }
}

async fn read(drive: &Drive, id: ShardId, stripe: &StripeRef) -> Result<Vec<u8>, String> {
    let mut read = drive.get_whole(id, stripe.generation, READ_TIMEOUT).await;
    if let Err(GetError::OtherGeneration { stored, .. }) = read {
        read = drive.get_whole(id, stored, READ_TIMEOUT).await;
    }
    read.map(|(buffer, _)| buffer.to_vec()).map_err(|error| error.to_string())
}
