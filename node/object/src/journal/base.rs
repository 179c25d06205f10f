//! Bases: whole copies of a group's files, after which the journal before them may go.
//!
//! The leader of a group writes one when the journal since the last takes more of its node's drives than both
//! [`journal_room_max`] and the last base, so that bases cost at most as much again as the journal; one when it knows of
//! none; and one when copies are missing. Every node, on its own drives, deletes what a base with a root there has made
//! superfluous.
//!
//! What counts is what records take of the drives, not the bytes of their commands: a small command that a client waits for
//! is a record of two sectors. And it is counted on the drives: a process does not know what those before it wrote.
//!
//! A base is the way out when drives are full of journal. So drives keep room for it that journal records do not get, and
//! what was written of a base that failed is taken back at once.

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
use holdfast_model::{DriveId, GroupId, NodeId, StripeId, UnixMillis, placement::Place};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    BaseSource, Owner,
    inventory::{Inventory, Kept},
    keeper::{Journal, JournalParts},
    pending::{Left, Pending},
    record::{BODY_SIZE_MAX, Copied, GENERATION, PARTS_MAX, RecordName, RecordWriter, Spread, room_of},
    sections::{self, BaseContents, FileEntry, FilePiece},
};
use crate::host::now;

/// How often the leader looks whether a base is due.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// How often drives are searched for records that may go.
const TIDY_INTERVAL: Duration = Duration::from_secs(120);

/// A leader that knows of no base waits so long before it writes one: leaders settle first.
const FIRST_BASE_AFTER: Duration = Duration::from_secs(10);

/// Bytes of a node's drives that a group's journal may take between bases, whatever the size of these.
const JOURNAL_ROOM_MAX: u64 = 512 * 1024 * 1024;

/// The same where drives are small.
const JOURNAL_ROOM_MIN: u64 = 1024 * 1024;

/// Part of a node's drives that this is at most between those.
const JOURNAL_ROOM_PART: u64 = 64;

/// Pause after a base that failed; twice as long after each further one of that group.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The longest of these pauses: what is written of a base without room for all of it, and taken back, is work for drives that
/// are full.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Bytes of a file in one piece: with seal and framing around it, it fits a record.
const PIECE_SIZE: usize = BODY_SIZE_MAX - 4096;

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
    /// Bytes that it takes of this node's drives.
    room: u64,
}

/// Bytes of a node's drives that a group's journal may take between bases, of drives with so many bytes.
fn journal_room_max(capacity: u64) -> u64 {
    (capacity / JOURNAL_ROOM_PART).clamp(JOURNAL_ROOM_MIN, JOURNAL_ROOM_MAX)
}

/// Writes bases of the groups this node leads and tidies this node's drives.
pub(super) struct BaseKeeper {
    journal: Arc<Journal>,
    parts: JournalParts,
    writer: RecordWriter,
    known: BTreeMap<GroupId, Known>,
    inventory: Inventory,
    staying: Staying,
}

/// Bases of a group that failed one after the other.
#[derive(Debug)]
struct Failed {
    times: u32,
    /// The next is not begun before.
    until: Instant,
}

/// How long to wait after so many bases that failed one after the other.
fn pause_after(times: u32) -> Duration {
    (RETRY_AFTER * 2_u32.saturating_pow(times.saturating_sub(1).min(16))).min(RETRY_AFTER_MAX)
}

/// Drives that can be written and are not to be emptied; what was among them and is to be emptied takes copies with it.
#[derive(Debug, Default)]
struct Staying(BTreeSet<DriveId>);

impl Staying {
    /// Takes the drives that can be written now, and those that are to be emptied or have left; true when one of these was
    /// not among them before.
    fn leave(&mut self, present: impl IntoIterator<Item = DriveId>, leaving: &BTreeSet<DriveId>) -> bool {
        let before = self.0.len();
        self.0.retain(|drive| !leaving.contains(drive));
        let left = self.0.len() < before;
        self.0.extend(present.into_iter().filter(|drive| !leaving.contains(drive)));
        left
    }
}

impl BaseKeeper {
    pub(super) fn new(journal: Arc<Journal>, parts: JournalParts) -> Self {
        let writer = parts.writer(journal.node);
        let inventory = Inventory::new(journal.node, &parts);
        Self { journal, parts, writer, known: BTreeMap::new(), inventory, staying: Staying::default() }
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
        let mut failed: BTreeMap<GroupId, Failed> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tidy.tick() => self.tidy().await,
                () = self.journal.tidy_wanted.notified() => self.tidy().await,
                _ = look.tick() => {}
            }
            self.drop_damaged().await;
            let present = self.parts.health.candidates().into_iter().map(|candidate| candidate.drive);
            if self.staying.leave(present, &self.parts.health.closed()) {
                tracing::info!(
                    "a drive is to be emptied: the catalog's second copy is made whole by new bases"
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
                let waits = failed.get(&group).is_some_and(|failed| failed.until > Instant::now());
                if waits || !self.due(&pending, since.elapsed()) {
                    continue;
                }
                let written = tokio::select! {
                    () = stop.cancelled() => return,
                    written = self.write(&pending) => written,
                };
                let Err(error) = written else {
                    failed.remove(&group);
                    continue;
                };
                let times = failed.get(&group).map_or(1, |failed| failed.times + 1);
                let pause = pause_after(times);
                tracing::warn!(%group, %error, again_after = ?pause, "base of the catalog not written");
                failed.insert(group, Failed { times, until: Instant::now() + pause });
            }
        }
    }

    /// Deletes records on this node's drives that do not read back: nobody can use them, and they keep their segments from
    /// becoming free. The leaders of their groups make up for them by new bases: this node at once, others when they count
    /// their copies.
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
            Some(known) => {
                let most = journal_room_max(self.parts.health.capacity(self.journal.node)).max(known.room);
                since_base.is_broken() || since_base.room > most
            }
            None => leading >= FIRST_BASE_AFTER,
        }
    }

    /// Writes a base of one group: copies its files, seals and writes piece by piece, reads each piece
    /// back, then writes the root to every node.
    async fn write(&mut self, pending: &Pending) -> io::Result<()> {
        let group = pending.group;
        let (copies, takers) = ((self.parts.copies)(), self.writer.takers());
        if takers < copies {
            return Err(io::Error::other(format!("{takers} drives can be written, {copies} are needed")));
        }
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
            written: Vec::new(),
        };
        if let Err(error) = base.all(&files).await {
            base.take_back().await;
            return Err(error);
        }
        let (root, bytes) = ((covers, base.header.begun), base.bytes);
        self.known.insert(group, Known { root: Some(root), room: base.room(self.journal.node) });
        pending.based(before);
        // What it replaces goes at once: somebody may wait for the room.
        self.journal.tidy_wanted.notify_one();
        empty(&dir)?;
        self.journal.counters.bases.fetch_add(1, Ordering::Relaxed);
        tracing::info!(%group, covers, files = files.len(), bytes, took = ?started.elapsed(), "base of the catalog written");
        Ok(())
    }

    /// Deletes from this node's drives what the newest root there has made superfluous.
    async fn tidy(&mut self) {
        let written: BTreeMap<GroupId, u64> =
            self.journal.groups.iter().map(|(group, pending)| (*group, pending.written())).collect();
        let found = self.inventory.search().await;
        let mut newest: BTreeMap<GroupId, (u64, UnixMillis)> = BTreeMap::new();
        let names = found.records.iter().map(|kept| kept.name);
        for name in names.filter(|name| name.kind == CatalogRecordKind::BaseRoot) {
            let root = newest.entry(name.group).or_insert((name.last, name.begun));
            *root = (*root).max((name.last, name.begun));
        }
        for (group, root) in &newest {
            let known = self.known.entry(*group).or_default();
            if known.root < Some(*root) {
                // Another node wrote it.
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
        let mut room: BTreeMap<GroupId, Room> = BTreeMap::new();
        let mut deleted = 0;
        let mut failed = Vec::new();
        let mut kept = Vec::with_capacity(found.records.len());
        for record in &found.records {
            let Kept { place, id, name, .. } = record;
            let left = left.entry(name.group).or_insert_with(|| Left {
                base: newest.get(&name.group).map(|(covers, _)| *covers),
                lowest: None,
                tidy: true,
            });
            if !superfluous(name) {
                left.lowest = Some(left.lowest.map_or(name.last, |lowest| lowest.min(name.last)));
                room.entry(name.group).or_default().add(record);
                kept.push(*record);
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
            let room = room.get(group).copied().unwrap_or_default();
            let before = written.get(group).copied().unwrap_or_default();
            pending.found(left.get(group).copied().unwrap_or_default(), room.journal, before);
            if let Some(known) = self.known.get_mut(group) {
                known.room = room.base;
            }
        }
        let searched = found.began;
        self.journal.publish(searched, self.inventory.holdings(found.written, &kept).await);
        if let Some(first) = failed.first() {
            let failed = failed.len();
            tracing::warn!(failed, %first, "catalog records not deleted; will be tried again");
        }
        if deleted > 0 {
            tracing::info!(deleted, "catalog records deleted that a base replaces");
        }
    }
}

/// Bytes that records of a group take of this node's drives.
#[derive(Debug, Clone, Copy, Default)]
struct Room {
    journal: u64,
    base: u64,
}

impl Room {
    fn add(&mut self, record: &Kept) {
        match record.name.kind {
            CatalogRecordKind::Journal => self.journal += record.room,
            CatalogRecordKind::BasePiece | CatalogRecordKind::BaseRoot => self.base += record.room,
        }
    }
}

/// A record of a base that was written.
struct Written {
    kind: CatalogRecordKind,
    room: u64,
    copies: Vec<Copied>,
}

/// A base being written.
struct Writing<'a> {
    header: CatalogRecordHeader,
    parts: &'a JournalParts,
    writer: &'a RecordWriter,
    bytes: u64,
    written: Vec<Written>,
}

impl Writing<'_> {
    async fn all(&mut self, files: &[BaseFile]) -> io::Result<()> {
        let mut contents = BaseContents { files: Vec::with_capacity(files.len()) };
        for file in files {
            contents.files.push(self.file(file).await?);
        }
        self.root(&contents).await
    }

    /// Bytes that it takes of the drives of `node`.
    fn room(&self, node: NodeId) -> u64 {
        let here =
            |written: &Written| written.copies.iter().filter(|copied| copied.place.node == node).count();
        self.written.iter().map(|written| here(written) as u64 * written.room).sum()
    }

    /// Deletes what was written of a base that failed, unless it has a root somewhere: then all of it is there, and the next
    /// one replaces it.
    async fn take_back(&self) {
        let rooted =
            |written: &Written| written.kind == CatalogRecordKind::BaseRoot && !written.copies.is_empty();
        if self.written.iter().any(rooted) {
            return;
        }
        for written in &self.written {
            self.writer.take_back(&written.copies).await;
        }
    }

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
        let written = self.writer.write(&self.header, &body, spread).await;
        let (kind, room) = (self.header.kind, room_of(body.len()));
        self.written.push(Written { kind, room, copies: written.clone() });
        if written.len() < copies {
            let what = format!("{} of {copies} copies written: too few drives have room", written.len());
            return Err(io::Error::other(what));
        }
        self.read_back(&written, &body)
            .await
            .ok_or_else(|| io::Error::other(format!("record {id} does not read back")))
    }

    async fn read_back(&self, copies: &[Copied], body: &[u8]) -> Option<()> {
        let length = u32::try_from(CatalogRecordHeader::SIZE + body.len()).expect("a record fits a shard");
        for copied in copies {
            if let Ok(read) = self.parts.shards.get(copied.place, copied.id, GENERATION, 0..length).await
                && &read[CatalogRecordHeader::SIZE..] == body
            {
                return Some(());
            }
        }
        None
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
    fn bases_that_fail_are_tried_ever_later() {
        assert_eq!([1, 2, 3, 4, 5].map(|times| pause_after(times).as_secs()), [30, 60, 120, 240, 300]);
        assert_eq!(pause_after(u32::MAX), RETRY_AFTER_MAX);
    }

    #[test]
    fn journals_may_take_a_part_of_the_drives() {
        assert_eq!(journal_room_max(4 << 30), 64 << 20);
        assert_eq!((journal_room_max(0), journal_room_max(1 << 45)), (JOURNAL_ROOM_MIN, JOURNAL_ROOM_MAX));
    }

    #[test]
    fn a_drive_that_is_to_be_emptied_is_noticed_once() {
        let drive = |number: u8| DriveId::from_bytes([number; 16]);
        let mut staying = Staying::default();
        assert!(!staying.leave([drive(1), drive(2), drive(3)], &BTreeSet::new()));
        assert!(
            !staying.leave([drive(1), drive(2)], &BTreeSet::new()),
            "what is away is looked for elsewhere"
        );
        let leaving = BTreeSet::from([drive(3)]);
        assert!(staying.leave([drive(1), drive(2)], &leaving));
        assert!(!staying.leave([drive(1), drive(2), drive(3)], &leaving));
    }
}
