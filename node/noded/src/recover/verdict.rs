//! What was recovered, and exactly what was not.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    ops::RangeInclusive,
};

use anyhow::{Context, Result};
use holdfast_catalog::{
    BodyRef, CatalogReader, PartitionReader, StripeRef, VersionMarker, VersionQuery, VersionSelector,
};
use holdfast_control::ControlView;
use holdfast_drive::Drive;
use holdfast_model::{DriveId, Generation, GroupId, ShardId, StripeId, VersionId, limits::LIST_KEYS_MAX};
use holdfast_object::journal::CATALOG_OWNER;

/// Objects named one by one at most; beyond it they are counted.
const NAMED_MAX: usize = 10_000;

/// Shards of one page of a drive's list.
const PAGE: usize = 4096;

/// One group.
#[derive(Debug)]
pub(super) struct GroupSummary {
    pub group: GroupId,
    /// What its base covers.
    pub covers: Option<u64>,
    /// Entries and commands after that.
    pub entries: u64,
    pub commands: u64,
    /// The last entry.
    pub last: u64,
    /// Entries that no record covers.
    pub missing: Vec<RangeInclusive<u64>>,
    pub problems: Vec<String>,
    /// Whose key does not open what is theirs.
    pub unopened: Vec<String>,
}

impl fmt::Display for GroupSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, covers, entries, commands, last, .. } = self;
        match covers {
            Some(covers) => write!(f, "group      {group}: base up to entry {covers}, ")?,
            None => write!(f, "group      {group}: no base, ")?,
        }
        writeln!(f, "{entries} entries with {commands} commands after it, up to entry {last}")?;
        for missing in &self.missing {
            writeln!(f, "MISSING    {group}: entries {} to {}", missing.start(), missing.end())?;
        }
        for owner in &self.unopened {
            writeln!(f, "NOT OPENED {group}: what belongs to {owner}: its key is not there")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem    {group}: {problem}")?;
        }
        Ok(())
    }
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub groups: Vec<GroupSummary>,
    /// Drives that could not be opened, and why.
    pub unopened: Vec<String>,
    pub problems: Vec<String>,
    tenants: u64,
    buckets: u64,
    objects: u64,
    older_versions: u64,
    bytes: u64,
    /// Objects of which a stripe lacks shards and can still be read.
    degraded: u64,
    /// Objects that cannot be read from these drives.
    unreadable: Vec<String>,
    unreadable_count: u64,
    /// Stripes on the drives that the catalog does not know.
    unknown_stripes: u64,
}

impl Verdict {
    /// Whether everything that was acknowledged is known to be there.
    pub(super) fn is_whole(&self) -> bool {
        self.unreadable_count == 0
            && self.problems.is_empty()
            && self
                .groups
                .iter()
                .all(|group| group.missing.is_empty() && group.unopened.is_empty() && group.last > 0)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for drive in &self.unopened {
            writeln!(f, "NOT OPEN   drive {drive}")?;
        }
        for group in &self.groups {
            write!(f, "{group}")?;
        }
        for problem in &self.problems {
            writeln!(f, "PROBLEM    {problem}")?;
        }
        let Self { tenants, buckets, objects, bytes, degraded, unreadable_count, unknown_stripes, .. } = self;
        writeln!(
            f,
            "recovered  {tenants} tenants, {buckets} buckets, {objects} objects, {} older versions, {bytes} bytes",
            self.older_versions
        )?;
        writeln!(f, "degraded   {degraded} objects lack shards and can be read")?;
        writeln!(f, "unreadable {unreadable_count} objects lack more shards than their level survives")?;
        for name in &self.unreadable {
            writeln!(f, "UNREADABLE {name}")?;
        }
        writeln!(
            f,
            "unknown    {unknown_stripes} stripes on the drives belong to no object: unfinished writes, and deleted content not yet swept"
        )?;
        writeln!(f, "{}", if self.is_whole() { "result     whole" } else { "result     NOT WHOLE" })
    }
}

/// The shards that are on the drives, with their generations.
type Shards = HashMap<(DriveId, ShardId), Generation>;

/// Goes through every object and looks whether its shards are there.
pub(super) fn examine(
    control: &ControlView,
    catalogs: &[CatalogReader],
    drives: &[Drive],
    verdict: &mut Verdict,
) -> Result<()> {
    let shards = all_shards(drives);
    let mut known: HashSet<StripeId> = HashSet::new();
    let names: BTreeMap<_, _> = control.tenants.values().map(|t| (t.tenant, t.name.as_str())).collect();
    verdict.tenants = names.len() as u64;
    for catalog in catalogs {
        for identity in catalog.partitions() {
            let reader = catalog.partition(identity.partition)?;
            let tenant = names.get(&identity.tenant).copied().unwrap_or("(unknown tenant)");
            let is_first = reader.layout()?.range.from == 0;
            for bucket in reader.list_buckets()? {
                verdict.buckets += u64::from(is_first);
                examine_bucket(&reader, tenant, &bucket.name, &shards, &mut known, verdict)?;
            }
        }
    }
    let mut unknown: Vec<_> =
        shards.keys().map(|(_, id)| id.stripe).filter(|stripe| !known.contains(stripe)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    verdict.unknown_stripes = unknown.len() as u64;
    Ok(())
}

fn examine_bucket(
    reader: &PartitionReader,
    tenant: &str,
    bucket: &str,
    shards: &Shards,
    known: &mut HashSet<StripeId>,
    verdict: &mut Verdict,
) -> Result<()> {
    let mut after: Option<(String, Option<VersionId>)> = None;
    loop {
        let marker = after.as_ref().map(|(key, version)| VersionMarker { key, version: *version });
        let query = VersionQuery { after: marker, limit: LIST_KEYS_MAX, ..VersionQuery::default() };
        let page = reader.list_versions(bucket, &query)?;
        for listed in page.versions.iter().filter(|listed| !listed.marker) {
            let version = Some(match listed.version {
                version if version.null => VersionSelector::Null,
                version => VersionSelector::Id(version.id),
            });
            let row = reader
                .get_object_range(bucket, &listed.key, version, |head| 0..head.size)
                .with_context(|| format!("reading {tenant}/{bucket}/{}", listed.key))?;
            if listed.latest {
                verdict.objects += 1;
            } else {
                verdict.older_versions += 1;
            }
            verdict.bytes += listed.size;
            let stripes = row.content.iter().flat_map(|part| match &part.body {
                BodyRef::Stripes(stripes) => stripes.as_slice(),
                BodyRef::Inline(_) => &[],
            });
            let (mut lacks, mut lost) = (false, false);
            for stripe in stripes {
                known.insert(stripe.id);
                let there = present(stripe, shards);
                lacks |= there < stripe.places.len();
                lost |= there < usize::from(stripe.data);
            }
            if lost {
                verdict.unreadable_count += 1;
                if verdict.unreadable.len() < NAMED_MAX {
                    let name = format!("{tenant}/{bucket}/{} version {}", listed.key, listed.version.id);
                    verdict.unreadable.push(name);
                }
            } else if lacks {
                verdict.degraded += 1;
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn present(stripe: &StripeRef, shards: &Shards) -> usize {
    stripe
        .shards()
        .filter(|(index, place)| {
            let id = ShardId { stripe: stripe.id, index: *index };
            shards.contains_key(&(place.drive, id))
        })
        .count()
}

fn all_shards(drives: &[Drive]) -> Shards {
    let mut shards = Shards::new();
    for drive in drives {
        let mut after = None;
        loop {
            let page = drive.list(after, PAGE);
            let Some(last) = page.last() else { break };
            after = Some(last.id);
            let of_tenants = page.iter().filter(|shard| shard.tenant != CATALOG_OWNER);
            shards.extend(of_tenants.map(|shard| ((drive.id(), shard.id), shard.generation)));
        }
    }
    shards
}
