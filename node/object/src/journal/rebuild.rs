//! Reads the catalog's second copy back from drives: bases and journal, with what is missing named exactly.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    ops::RangeInclusive,
    path::Path,
};

use bytes::Bytes;
use holdfast_drive::Drive;
use holdfast_format::{CatalogRecordHeader, CatalogRecordKind};
use holdfast_model::{ClusterId, Generation, GroupId, ShardId, UnixMillis};
use sha2::{Digest, Sha256};

use super::{
    BaseFile, CATALOG_OWNER, CatalogKeys, Owner,
    record::RecordName,
    sections::{self, BaseContents, FilePiece, JournaledCommand, Section, SectionError},
};
use holdfast_store::READ_TIMEOUT;

/// Records of one page of a drive's list.
const PAGE: usize = 4096;

/// One copy of a record.
#[derive(Debug, Clone)]
struct Copy {
    drive: usize,
    id: ShardId,
    generation: Generation,
    length: u32,
}

/// All catalog records on a set of drives.
#[derive(Debug)]
pub struct FoundRecords {
    cluster: ClusterId,
    drives: Vec<Drive>,
    records: BTreeMap<RecordName, Vec<Copy>>,
}

/// A base whose every byte was read and verified.
#[derive(Debug)]
pub struct FoundBase {
    /// Everything up to this log index is in it.
    pub covers: u64,
    /// When it was begun.
    pub begun: UnixMillis,
    /// Its files.
    pub files: Vec<BaseFile>,
    /// Bases that are newer and not whole, each with what is wrong with it.
    pub passed_over: Vec<String>,
    /// Owners whose files are in it and whose key does not open them.
    pub unopened: BTreeSet<Owner>,
}

/// What became of the journal of one group.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Entries given to the machine.
    pub entries: u64,
    /// Commands in them.
    pub commands: u64,
    /// The last entry, when there was one.
    pub last: Option<u64>,
    /// Log indices that no readable record covers, below the last entry.
    pub missing: Vec<RangeInclusive<u64>>,
    /// What could not be read, in words. Another record had the same entries unless they are missing.
    pub problems: Vec<String>,
    /// Owners whose commands are in it and whose key does not open them.
    pub unopened: BTreeSet<Owner>,
}

/// Entries of a record: index, and commands in order.
type Entries = BTreeMap<u64, Vec<(u32, Bytes)>>;

impl FoundRecords {
    /// Lists the catalog records of `cluster` on `drives`.
    #[must_use]
    pub fn on(cluster: ClusterId, drives: Vec<Drive>) -> Self {
        let mut records: BTreeMap<RecordName, Vec<Copy>> = BTreeMap::new();
        for (number, drive) in drives.iter().enumerate() {
            let mut after = None;
            loop {
                let page = drive.list(after, PAGE);
                let Some(last) = page.last() else { break };
                after = Some(last.id);
                for shard in page.iter().filter(|shard| shard.tenant == CATALOG_OWNER) {
                    let Some(name) = RecordName::parse(shard.id.stripe) else { continue };
                    records.entry(name).or_default().push(Copy {
                        drive: number,
                        id: shard.id,
                        generation: shard.generation,
                        length: shard.payload_len,
                    });
                }
            }
        }
        Self { cluster, drives, records }
    }

    /// How many records there are, copies counted once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The groups that records were found of.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupId> {
        let mut groups: Vec<GroupId> = self.records.keys().map(|name| name.group).collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Writes the files of the newest whole base of `group` into `dir`; `None` when there is no base.
    ///
    /// # Errors
    /// I/O in `dir`; a text when there are bases and none is whole.
    pub async fn base(
        &self,
        group: GroupId,
        keys: &dyn CatalogKeys,
        dir: &Path,
    ) -> io::Result<Option<FoundBase>> {
        let mut roots: Vec<RecordName> = self
            .records
            .keys()
            .filter(|name| name.kind == CatalogRecordKind::BaseRoot && name.group == group)
            .copied()
            .collect();
        roots.sort_by_key(|name| std::cmp::Reverse((name.last, name.begun)));
        let mut passed_over = Vec::new();
        for root in &roots {
            match self.extract(root, keys, dir).await {
                Ok((files, unopened)) => {
                    let (covers, begun) = (root.last, root.begun);
                    return Ok(Some(FoundBase { covers, begun, files, passed_over, unopened }));
                }
                Err(Extract::Io(error)) => return Err(error),
                Err(Extract::Base(what)) => {
                    passed_over.push(format!("base of {group} up to entry {}: {what}", root.last));
                }
            }
        }
        if passed_over.is_empty() { Ok(None) } else { Err(io::Error::other(passed_over.join("; "))) }
    }

    async fn extract(
        &self,
        root: &RecordName,
        keys: &dyn CatalogKeys,
        dir: &Path,
    ) -> Result<(Vec<BaseFile>, BTreeSet<Owner>), Extract> {
        let contents: BaseContents = self.one(root, keys).await.map_err(Extract::Base)?.1;
        let mut files = Vec::with_capacity(contents.files.len());
        let mut unopened = BTreeSet::new();
        for entry in contents.files {
            if !keys.has(entry.owner) {
                unopened.insert(entry.owner);
                continue;
            }
            let path = dir.join(&entry.name);
            if entry.name.is_empty() || entry.name.starts_with('.') || entry.name.contains(['/', '\0']) {
                return Err(Extract::Base(format!("it names a file {:?}", entry.name)));
            }
            let mut out = File::create(&path).map_err(Extract::Io)?;
            let mut hash = Sha256::new();
            let mut size = 0;
            for part in entry.first_part..entry.first_part.saturating_add(entry.pieces) {
                let name = RecordName { kind: CatalogRecordKind::BasePiece, part, ..*root };
                let (owner, piece): (Owner, FilePiece) =
                    self.one(&name, keys).await.map_err(Extract::Base)?;
                if owner != entry.owner || piece.file != entry.name || piece.offset != size {
                    return Err(Extract::Base(format!("part {part} is of something else")));
                }
                out.seek(SeekFrom::Start(piece.offset)).map_err(Extract::Io)?;
                out.write_all(&piece.bytes).map_err(Extract::Io)?;
                hash.update(&piece.bytes);
                size += piece.bytes.len() as u64;
            }
            if size != entry.size || <[u8; 32]>::from(hash.finalize()) != entry.sha256 {
                return Err(Extract::Base(format!("{} is not what it was", entry.name)));
            }
            out.sync_all().map_err(Extract::Io)?;
            files.push(BaseFile { name: entry.name, owner: entry.owner, path });
        }
        Ok((files, unopened))
    }

    /// Gives the journal of `group` after entry `covers` to `apply`, in the order of the log.
    ///
    /// # Errors
    /// What `apply` returns.
    pub async fn replay(
        &self,
        group: GroupId,
        covers: Option<u64>,
        keys: &dyn CatalogKeys,
        mut apply: impl FnMut(Vec<(u64, Vec<Bytes>)>) -> io::Result<()>,
    ) -> io::Result<Replayed> {
        let mut replayed = Replayed::default();
        let mut next = covers.map_or(0, |covers| covers + 1);
        let spans = self.spans(group, next, &mut replayed.problems).await;
        // Of the records that cover the next entry the one that reaches furthest is tried first.
        loop {
            let mut reach: Vec<&Span> =
                spans.iter().filter(|span| span.first <= next && next <= span.last).collect();
            reach.sort_by_key(|span| std::cmp::Reverse(span.last));
            let mut done = false;
            for span in reach {
                match self.entries(span, keys).await {
                    Ok((entries, unopened)) => {
                        replayed.unopened.extend(unopened);
                        let batch = batch_of(entries, next, span.last);
                        replayed.entries += batch.len() as u64;
                        replayed.commands +=
                            batch.iter().map(|(_, commands)| commands.len() as u64).sum::<u64>();
                        apply(batch)?;
                        replayed.last = Some(span.last);
                        next = span.last + 1;
                        done = true;
                        break;
                    }
                    Err(what) => replayed.problems.push(what),
                }
            }
            if done {
                continue;
            }
            let Some(after) =
                spans.iter().flat_map(|span| [span.first, span.last]).filter(|index| *index > next).min()
            else {
                break;
            };
            // A log begins at entry 0 or 1; before the first journaled entry of all there may be nothing.
            if next > 0 || covers.is_some() || after > 1 {
                replayed.missing.push(next..=after - 1);
            }
            next = after;
        }
        Ok(replayed)
    }

    /// The journal records of a group that reach beyond entry `from`.
    async fn spans(&self, group: GroupId, from: u64, problems: &mut Vec<String>) -> Vec<Span> {
        let mut spans = Vec::new();
        let names = self.records.keys().filter(|name| {
            name.kind == CatalogRecordKind::Journal
                && name.group == group
                && name.last >= from
                && name.part == 0
        });
        for name in names {
            match self.read(name).await {
                Ok((header, _)) => {
                    spans.push(Span {
                        name: *name,
                        first: header.first,
                        last: header.last,
                        parts: header.parts,
                    });
                }
                Err(what) => problems.push(what),
            }
        }
        spans.sort_by_key(|span| (span.first, span.last));
        spans
    }

    async fn entries(
        &self,
        span: &Span,
        keys: &dyn CatalogKeys,
    ) -> Result<(Entries, BTreeSet<Owner>), String> {
        let mut blob = Vec::new();
        for part in 0..span.parts {
            blob.extend_from_slice(&self.read(&RecordName { part, ..span.name }).await?.1);
        }
        let id = span.name.id();
        let text = |error: SectionError| error.to_string();
        let sections: Vec<Section> = sections::decode(&id, &blob).map_err(text)?;
        let (mut entries, mut unopened) = (Entries::new(), BTreeSet::new());
        for section in &sections {
            if !keys.has(section.owner) {
                unopened.insert(section.owner);
                continue;
            }
            let commands: Vec<JournaledCommand> = sections::open(keys, &id, section).map_err(text)?;
            for command in commands {
                entries.entry(command.index).or_default().push((command.position, command.command));
            }
        }
        Ok((entries, unopened))
    }

    /// A record with one section, opened.
    async fn one<T: serde::de::DeserializeOwned>(
        &self,
        name: &RecordName,
        keys: &dyn CatalogKeys,
    ) -> Result<(Owner, T), String> {
        let (_, body) = self.read(name).await?;
        let id = name.id();
        let text = |error: SectionError| error.to_string();
        let sections: Vec<Section> = sections::decode(&id, &body).map_err(text)?;
        let [section] = sections.as_slice() else {
            return Err(format!("record {id} has {} sections", sections.len()));
        };
        Ok((section.owner, sections::open(keys, &id, section).map_err(text)?))
    }

    /// A record from whichever drive has it whole.
    async fn read(&self, name: &RecordName) -> Result<(CatalogRecordHeader, Vec<u8>), String> {
        let copies = self.records.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut what = format!("record {name:?} is on none of the drives");
        for copy in copies {
            let drive = &self.drives[copy.drive];
            let payload = match drive.get(copy.id, copy.generation, 0..copy.length, READ_TIMEOUT).await {
                Ok(payload) => payload,
                Err(error) => {
                    what = error.to_string();
                    continue;
                }
            };
            match CatalogRecordHeader::parse(&payload) {
                Ok((header, body)) if header.cluster == self.cluster && RecordName::of(&header) == *name => {
                    return Ok((header, body.to_vec()));
                }
                Ok(_) => what = format!("record {name:?} says it is something else"),
                Err(error) => what = format!("record {name:?}: {error}"),
            }
        }
        Err(what)
    }
}

#[derive(Debug)]
struct Span {
    name: RecordName,
    first: u64,
    last: u64,
    parts: u32,
}

enum Extract {
    Io(io::Error),
    Base(String),
}

/// Entries `from..=to` in order; an entry without commands has none journaled.
fn batch_of(mut entries: Entries, from: u64, to: u64) -> Vec<(u64, Vec<Bytes>)> {
    (from..=to)
        .map(|index| {
            let mut commands = entries.remove(&index).unwrap_or_default();
            commands.sort_by_key(|(position, _)| *position);
            (index, commands.into_iter().map(|(_, command)| command).collect())
        })
        .collect()
}
