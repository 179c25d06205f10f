//! Bases: whole copies of a group's files, after which the journal before them may go.
//!
//! The leader of a group writes one when the journal since the last has outgrown both [`JOURNAL_BYTES_MIN`]
//! and the last base, so that bases cost at most as much again as the journal; and one when it knows of
//! none. Every node, on its own drives, deletes what a base with a root there has made superfluous.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use holdfast_format::{CatalogRecordHeader, CatalogRecordKind};
use holdfast_model::{DriveId, GroupId, ShardId, StripeId, UnixMillis, placement::Place};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    BaseSource, CATALOG_OWNER, Owner,
    keeper::{Journal, JournalParts},
    pending::{Left, Pending},
    record::{BODY_SIZE_MAX, GENERATION, PARTS_MAX, RecordName, RecordWriter, Spread},
    sections::{self, BaseContents, FileEntry, FilePiece},
};
use crate::host::now;

/// How often the leader looks whether a base is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How often drives are searched for records that may go.
const TIDY_INTERVAL: Duration = Duration::from_secs(120);

/// A leader that knows of no base waits so long before it writes one: leaders settle first.
const FIRST_BASE_AFTER: Duration = Duration::from_secs(10);

/// Bytes of commands between bases at least.
const JOURNAL_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// Pause after a base that failed.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// Bytes of a file in one piece: with seal and framing around it, it fits a record.
const PIECE_SIZE: usize = BODY_SIZE_MAX - 4096;

/// How long a drive may be away before the copies on it are taken for lost.
const AWAY_MAX: Duration = Duration::from_secs(300);

/// Records looked at together when drives are searched.
const PAGE: usize = 1024;

/// A copied file of a group's state.
#[derive(Debug)]
pub struct BaseFile {
    /// Its name in the group's state.
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// Where the copy lies.
    pub path: PathBuf,
}

/// The newest base that this node knows of.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    root: Option<(u64, UnixMillis)>,
    bytes: u64,
}

/// Writes bases of the groups this node leads and tidies this node's drives.
pub(super) struct BaseKeeper {
    journal: Arc<Journal>,
    parts: JournalParts,
    writer: RecordWriter,
    known: BTreeMap<GroupId, Known>,
    drives: DriveWatch,
}

/// Notices drives that went away and stay away, each time once: with them went copies.
#[derive(Debug, Default)]
struct DriveWatch {
    /// Drives seen, and when last.
    seen: BTreeMap<DriveId, Instant>,
}

impl DriveWatch {
    /// Takes the drives that can be written at `now`, and those that are to be emptied or have left; true when
    /// one of these was seen before, or another has been away for too long.
    fn lost(
        &mut self,
        now: Instant,
        present: impl IntoIterator<Item = DriveId>,
        leaving: &BTreeSet<DriveId>,
    ) -> bool {
        let before = self.seen.len();
        self.seen.retain(|drive, _| !leaving.contains(drive));
        let left = self.seen.len() < before;
        let staying = present.into_iter().filter(|drive| !leaving.contains(drive));
        self.seen.extend(staying.map(|drive| (drive, now)));
        let before = self.seen.len();
        self.seen.retain(|_, last| now.saturating_duration_since(*last) < AWAY_MAX);
        left || self.seen.len() < before
    }
}

impl BaseKeeper {
    pub(super) fn new(journal: Arc<Journal>, parts: JournalParts) -> Self {
        let writer = parts.writer(journal.node);
        Self { journal, parts, writer, known: BTreeMap::new(), drives: DriveWatch::default() }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        if let Err(error) = empty(&self.parts.scratch) {
            tracing::error!(%error, dir = %self.parts.scratch.display(), "no place for copies of the catalog: no bases are written");
            return;
        }
        self.tidy().await;
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        let mut tidy = tokio::time::interval_at(Instant::now() + TIDY_INTERVAL, TIDY_INTERVAL);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leading: BTreeMap<GroupId, Instant> = BTreeMap::new();
        let mut not_before: BTreeMap<GroupId, Instant> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tidy.tick() => self.tidy().await,
                () = self.journal.tidy_wanted.notified() => self.tidy().await,
                _ = look.tick() => {}
            }
            self.drop_damaged().await;
            let present = self.parts.health.candidates().into_iter().map(|candidate| candidate.drive);
            if self.drives.lost(Instant::now(), present, &self.parts.health.closed()) {
                tracing::info!(
                    "a drive stays away or is to be emptied: the catalog's second copy is made whole by new bases"
                );
                self.journal.groups.values().for_each(|pending| pending.set_broken());
            }
            let groups: Vec<Arc<Pending>> = self.journal.groups.values().cloned().collect();
            for pending in groups {
                let group = pending.group;
                if !self.parts.leads(group, self.journal.node) {
                    leading.remove(&group);
                    continue;
                }
                let since = *leading.entry(group).or_insert_with(Instant::now);
                let patient = not_before.get(&group).is_none_or(|moment| *moment <= Instant::now());
                if !patient || !self.due(&pending, since.elapsed()) {
                    continue;
                }
                let written = tokio::select! {
                    () = stop.cancelled() => return,
                    written = self.write(&pending) => written,
                };
                if let Err(error) = written {
                    tracing::warn!(%group, %error, "base of the catalog not written; will be tried again");
                    not_before.insert(group, Instant::now() + RETRY_AFTER);
                }
            }
        }
    }

    /// Deletes records on this node's drives that do not read back: nobody can use them, and they keep their segments from
    /// becoming free. As the leader of their groups this node makes up for them by new bases.
    async fn drop_damaged(&self) {
        let damaged = self.parts.shards.take_damaged_records();
        if damaged.is_empty() {
            return;
        }
        let (mut deleted, mut failed, mut groups) = (0, 0, BTreeSet::new());
        for (drive, id) in damaged {
            let place = Place { node: self.journal.node, drive };
            match self.parts.shards.delete(place, id, GENERATION).await {
                Ok(()) => {
                    deleted += 1;
                    groups.extend(RecordName::parse(id.stripe).map(|name| name.group));
                }
                Err(error) => {
                    failed += 1;
                    tracing::debug!(%id, %error, "damaged catalog record not deleted");
                }
            }
        }
        tracing::warn!(
            deleted,
            failed,
            "catalog records that do not read back deleted; their copies are elsewhere, and what failed is left to the next scrub"
        );
        groups.iter().filter_map(|group| self.journal.groups.get(group)).for_each(|group| group.set_broken());
    }

    fn due(&self, pending: &Pending, leading: Duration) -> bool {
        let since_base = pending.since_base();
        match self.known.get(&pending.group).filter(|known| known.root.is_some()) {
            Some(known) => since_base.is_broken() || since_base.bytes > JOURNAL_BYTES_MIN.max(known.bytes),
            None => leading >= FIRST_BASE_AFTER,
        }
    }

    /// Writes a base of one group: copies its files, seals and writes piece by piece, reads each piece
    /// back, then writes the root to every node.
    async fn write(&mut self, pending: &Pending) -> io::Result<()> {
        let group = pending.group;
        let before = pending.since_base();
        let status = self.parts.consensus.status(group);
        let Some(covers) = status.and_then(|status| status.applied) else { return Ok(()) };
        let source = self.journal.sources.lock().get(&group).cloned();
        let Some(source) = source else { return Ok(()) };
        let started = Instant::now();
        let dir = self.parts.scratch.join(group.to_string());
        let files = {
            let dir = dir.clone();
            holdfast_background::run("catalog-base", move || copy(source.as_ref(), &dir)).await??
        };
        let mut base = Writing {
            header: CatalogRecordHeader {
                kind: CatalogRecordKind::BasePiece,
                group,
                cluster: self.journal.cluster,
                node: self.journal.node,
                first: 0,
                last: covers,
                begun: now(),
                part: 0,
                parts: 0,
                length: 0,
            },
            parts: &self.parts,
            writer: &self.writer,
            bytes: 0,
        };
        let mut contents = BaseContents { files: Vec::with_capacity(files.len()) };
        for file in &files {
            contents.files.push(base.file(file).await?);
        }
        base.root(&contents).await?;
        let (root, bytes) = ((covers, base.header.begun), base.bytes);
        empty(&dir)?;
        self.known.insert(group, Known { root: Some(root), bytes });
        pending.based(before);
        self.journal.counters.bases.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%group, covers, files = files.len(), bytes, took = ?started.elapsed(), "base of the catalog written");
        Ok(())
    }

    /// Deletes from this node's drives what the newest root there has made superfluous.
    async fn tidy(&mut self) {
        let mut found: Vec<(Place, ShardId, RecordName)> = Vec::new();
        for drive in self.parts.shards.local() {
            let place = Place { node: self.journal.node, drive: drive.id() };
            let mut after = None;
            loop {
                let page = drive.list(after, PAGE);
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                let ours = page.iter().filter(|shard| shard.tenant == CATALOG_OWNER);
                found.extend(
                    ours.filter_map(|shard| Some((place, shard.id, RecordName::parse(shard.id.stripe)?))),
                );
                tokio::task::yield_now().await;
            }
        }
        let mut newest: BTreeMap<GroupId, (u64, UnixMillis)> = BTreeMap::new();
        for (_, _, name) in found.iter().filter(|(_, _, name)| name.kind == CatalogRecordKind::BaseRoot) {
            let root = newest.entry(name.group).or_insert((name.last, name.begun));
            *root = (*root).max((name.last, name.begun));
        }
        for (group, root) in &newest {
            let known = self.known.entry(*group).or_default();
            if known.root < Some(*root) {
                // Another node wrote it; its size becomes known with the first one of our own.
                known.root = Some(*root);
                if let Some(pending) = self.journal.groups.get(group) {
                    pending.based(pending.since_base());
                }
            }
        }
        let superfluous = |name: &RecordName| {
            newest.get(&name.group).is_some_and(|(covers, begun)| match name.kind {
                CatalogRecordKind::Journal => name.last <= *covers,
                CatalogRecordKind::BasePiece | CatalogRecordKind::BaseRoot => {
                    (name.last, name.begun) < (*covers, *begun)
                }
            })
        };
        let mut left: BTreeMap<GroupId, Left> = BTreeMap::new();
        let mut deleted = 0;
        let mut failed = Vec::new();
        for (place, id, name) in &found {
            let left = left.entry(name.group).or_insert_with(|| Left {
                base: newest.get(&name.group).map(|(covers, _)| *covers),
                lowest: None,
                tidy: true,
            });
            if !superfluous(name) {
                left.lowest = Some(left.lowest.map_or(name.last, |lowest| lowest.min(name.last)));
                continue;
            }
            match self.parts.shards.delete(*place, *id, GENERATION).await {
                Ok(()) => deleted += 1,
                Err(error) => {
                    left.tidy = false;
                    tracing::debug!(%id, %error, "catalog record not deleted");
                    failed.push(error);
                }
            }
        }
        for (group, pending) in &self.journal.groups {
            pending.found(left.get(group).copied().unwrap_or_default());
        }
        if let Some(first) = failed.first() {
            let failed = failed.len();
            tracing::warn!(failed, %first, "catalog records not deleted; will be tried again");
        }
        if deleted > 0 {
            tracing::info!(deleted, "catalog records deleted that a base replaces");
        }
    }
}

/// A base being written.
struct Writing<'a> {
    header: CatalogRecordHeader,
    parts: &'a JournalParts,
    writer: &'a RecordWriter,
    bytes: u64,
}

impl Writing<'_> {
    async fn file(&mut self, file: &BaseFile) -> io::Result<FileEntry> {
        let mut input = File::open(&file.path)?;
        let mut entry = FileEntry {
            name: file.name.clone(),
            owner: file.owner,
            size: 0,
            first_part: self.header.part,
            pieces: 0,
            sha256: [0; 32],
        };
        let mut hash = Sha256::new();
        loop {
            let mut bytes = Vec::with_capacity(PIECE_SIZE);
            Read::by_ref(&mut input).take(PIECE_SIZE as u64).read_to_end(&mut bytes)?;
            if bytes.is_empty() {
                break;
            }
            hash.update(&bytes);
            let length = bytes.len() as u64;
            let piece = FilePiece { file: file.name.clone(), offset: entry.size, bytes: Bytes::from(bytes) };
            let copies = (self.parts.copies)();
            self.record(file.owner, &piece, Spread::Copies(copies), copies).await?;
            self.header.part += 1;
            entry.pieces += 1;
            entry.size += length;
        }
        entry.sha256 = hash.finalize().into();
        self.bytes += entry.size;
        Ok(entry)
    }

    async fn root(&mut self, contents: &BaseContents) -> io::Result<()> {
        self.header.kind = CatalogRecordKind::BaseRoot;
        self.header.parts = self.header.part;
        let copies = (self.parts.copies)();
        self.record(Owner::Cluster, contents, Spread::EveryNode(copies), copies).await
    }

    /// Seals a value, writes it and reads it back.
    async fn record<T: serde::Serialize>(
        &mut self,
        owner: Owner,
        value: &T,
        spread: Spread,
        copies: usize,
    ) -> io::Result<()> {
        if self.header.part >= PARTS_MAX {
            return Err(io::Error::other(format!(
                "the state of {} is too large for a base",
                self.header.group
            )));
        }
        let id: StripeId = RecordName::of(&self.header).id();
        let section = sections::seal(self.parts.keys.as_ref(), owner, &id, value)
            .ok_or_else(|| io::Error::other(format!("the key of {owner:?} is not known here")))?;
        let body = sections::encode(&[section].as_slice());
        self.header.length = u32::try_from(body.len())
            .ok()
            .filter(|length| *length as usize <= BODY_SIZE_MAX)
            .ok_or_else(|| io::Error::other(format!("a record of {} bytes", body.len())))?;
        let places = self.writer.write(&self.header, &body, spread).await;
        if places.len() < copies {
            let what = format!("{} of {copies} copies written: too few drives take records", places.len());
            return Err(io::Error::other(what));
        }
        self.read_back(&places, id, &body).await
    }

    async fn read_back(&self, places: &[Place], id: StripeId, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(CatalogRecordHeader::SIZE + body.len()).expect("a record fits a shard");
        for (index, place) in (0u8..).zip(places) {
            let id = ShardId { stripe: id, index: holdfast_model::ShardIndex::new(index) };
            if let Ok(read) = self.parts.shards.get(*place, id, GENERATION, 0..length).await
                && &read[CatalogRecordHeader::SIZE..] == body
            {
                return Ok(());
            }
        }
        Err(io::Error::other(format!("record {id} does not read back")))
    }
}

fn copy(source: &dyn BaseSource, dir: &Path) -> io::Result<Vec<BaseFile>> {
    empty(dir)?;
    source.copy_to(dir)
}

/// Makes `dir` an empty directory.
fn empty(dir: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_that_stays_away_is_noticed_once_and_one_that_comes_back_is_not() {
        let drive = |number: u8| DriveId::from_bytes([number; 16]);
        let (begin, step) = (Instant::now(), AWAY_MAX / 2);
        let mut watch = DriveWatch::default();
        let none = BTreeSet::new();
        assert!(!watch.lost(begin, [drive(1), drive(2), drive(3)], &none));
        assert!(!watch.lost(begin + step, [drive(1), drive(2)], &none));
        assert!(
            !watch.lost(begin + step + step / 2, [drive(1), drive(3)], &none),
            "the third is back in time"
        );
        assert!(!watch.lost(begin + step * 2, [drive(1), drive(3)], &none));
        assert!(watch.lost(begin + step * 3, [drive(1), drive(3)], &none), "the second stays away");
        assert!(!watch.lost(begin + step * 4, [drive(1), drive(3)], &none), "and is noticed once");
        let leaving = BTreeSet::from([drive(3)]);
        assert!(watch.lost(begin + step * 4, [drive(1), drive(3)], &leaving), "the third is to be emptied");
        assert!(!watch.lost(begin + step * 4, [drive(1), drive(3)], &leaving));
    }
}
