//! The records of the second copy on this node's drives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use holdfast_drive::{Drive, DriveState};
use holdfast_format::{CATALOG_OWNER, CatalogRecordHeader, CatalogRecordKind};
use holdfast_model::{DriveId, GroupId, NodeId, ShardId, StripeId, placement::Place};
use holdfast_store::{Health, JournalSpan, ShardError, Shards};
use tokio::time::Instant;

use super::{
    holdings::Holdings,
    keeper::JournalParts,
    record::{GENERATION, RecordName, room_on_drive},
};

/// Records looked at together when drives are searched.
const PAGE: usize = 1024;

/// Headers of records read together.
const HEADERS_TOGETHER: usize = 16;

/// A record on one of this node's drives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub place: Place,
    pub id: ShardId,
    pub name: RecordName,
    /// Bytes that it takes of the drive.
    pub room: u64,
}

/// What a search found.
#[derive(Debug)]
pub(super) struct Found {
    /// When it began.
    pub began: Instant,
    /// What was noted of records written before it began.
    pub written: BTreeMap<StripeId, JournalSpan>,
    /// All records.
    pub records: Vec<Kept>,
}

/// Searches this node's drives, and remembers what the names of records do not say.
pub(super) struct Inventory {
    node: NodeId,
    shards: Arc<Shards>,
    health: Arc<Health>,
    /// Where journal records begin.
    spans: BTreeMap<RecordName, JournalSpan>,
}

impl Inventory {
    pub(super) fn new(node: NodeId, parts: &JournalParts) -> Self {
        let (shards, health) = (Arc::clone(&parts.shards), Arc::clone(&parts.health));
        Self { node, shards, health, spans: BTreeMap::new() }
    }

    /// Lists all records on this node's drives.
    pub(super) async fn search(&self) -> Found {
        // What is noted from here on may be of records that the search does not find yet.
        let (began, written) = (Instant::now(), self.shards.take_written_records());
        let mut records = Vec::new();
        for drive in self.shards.local() {
            let place = Place { node: self.node, drive: drive.id() };
            let mut after = None;
            loop {
                let page = drive.list(after, PAGE);
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                let ours = page.iter().filter(|shard| shard.tenant == CATALOG_OWNER);
                records.extend(ours.filter_map(|shard| {
                    let name = RecordName::parse(shard.id.stripe)?;
                    Some(Kept { place, id: shard.id, name, room: room_on_drive(shard.payload_len as usize) })
                }));
                tokio::task::yield_now().await;
            }
        }
        Found { began, written, records }
    }

    /// What the records that are `kept` amount to, by group. Of drives that may keep them, that is: not of those that are to
    /// be emptied or cannot be written.
    pub(super) async fn holdings(
        &mut self,
        written: BTreeMap<StripeId, JournalSpan>,
        kept: &[Kept],
    ) -> BTreeMap<GroupId, Holdings> {
        self.learn(written, kept).await;
        let closed = self.health.closed();
        let stays = |drive: &&Drive| !closed.contains(&drive.id()) && is_writable(drive.status().state);
        let drives: BTreeSet<DriveId> = self.shards.local().iter().filter(stays).map(Drive::id).collect();
        // A record counts once on each drive, whatever came of writing it there twice.
        let listed: BTreeSet<(RecordName, DriveId)> = kept
            .iter()
            .filter(|kept| drives.contains(&kept.place.drive))
            .map(|kept| (kept.name, kept.place.drive))
            .collect();
        let mut groups: BTreeMap<GroupId, BTreeMap<RecordName, u32>> = BTreeMap::new();
        for (name, _) in listed {
            *groups.entry(name.group).or_default().entry(name).or_default() += 1;
        }
        groups.iter().map(|(group, records)| (*group, Holdings::of(records, &self.spans))).collect()
    }

    /// Finds out where the journal records begin that are kept: from what was noted, or from their headers.
    async fn learn(&mut self, written: BTreeMap<StripeId, JournalSpan>, kept: &[Kept]) {
        let names: BTreeSet<RecordName> = kept.iter().map(|kept| kept.name).collect();
        self.spans.retain(|name, _| names.contains(name));
        let noted = written.into_iter().filter_map(|(id, span)| Some((RecordName::parse(id)?, span)));
        self.spans.extend(noted.filter(|(name, _)| names.contains(name)));
        let is_unknown =
            |name: &RecordName| name.kind == CatalogRecordKind::Journal && !self.spans.contains_key(name);
        let unknown: Vec<Kept> = kept.iter().filter(|kept| is_unknown(&kept.name)).copied().collect();
        let head = 0..u32::try_from(CatalogRecordHeader::SIZE).expect("a header is small");
        for some in unknown.chunks(HEADERS_TOGETHER) {
            let reads =
                some.iter().map(|kept| self.shards.get(kept.place, kept.id, GENERATION, head.clone()));
            let outcomes = futures::future::join_all(reads).await;
            for (Kept { place, id, name, .. }, read) in some.iter().zip(outcomes) {
                match read {
                    Ok(payload) => {
                        self.spans.extend(JournalSpan::of(&payload).map(|span| (*name, span)));
                    }
                    Err(ShardError::Damaged { .. }) => self.shards.note_damaged_record(place.drive, *id),
                    Err(error) => tracing::debug!(%id, %error, "catalog record not read"),
                }
            }
        }
    }
}

/// Whether what lies on a drive in that state counts as a copy.
fn is_writable(state: DriveState) -> bool {
    matches!(state, DriveState::Live | DriveState::Slow | DriveState::Failing)
}
