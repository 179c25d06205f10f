//! Reads a log back after a stop or a crash, and tells a torn tail from damage.
//!
//! A torn tail is the last batch of the last segment, when not all of it is there and nothing follows
//! it: it was never acknowledged and is dropped whole. Anything else that does not read back is damage
//! to something that was acknowledged; it is reported and never cut. When the damaged record's header
//! is intact the damage belongs to one group and the others can start; otherwise to all of them.
//!
//! What reads back is not known to be on the disk when the flush before this start failed, so the newest
//! segment is written and flushed once more before anything is concluded from it.
//!
//! Known limit: when the very last batch was flushed and rots before anything follows it, it looks
//! like a torn tail. Single-node logs cannot tell the two apart; replicas can.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

use holdfast_model::{GroupId, NodeId};

use super::{
    LogError,
    disk::{Disk, Segment},
    index::{GroupIndex, Place, Stored},
    record::{
        HeaderError, Kind, LogIdentity, RECORD_ALIGNMENT, RECORD_HEADER_SIZE, RecordHeader,
        SEGMENT_HEADER_SIZE, SegmentHeader,
    },
};
use crate::{
    codec::{self, LogIdV1, VoteV1},
    types::LogId,
};

/// Damage that belongs to one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) what: String,
}

/// Entries of one group that are in one segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) segment: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// Which segments a group's live entries are in, oldest first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs(pub(crate) VecDeque<Run>);

impl Runs {
    pub(crate) fn push(&mut self, segment: u64, index: u64) {
        match self.0.back_mut() {
            Some(run) if run.segment == segment && run.last + 1 == index => run.last = index,
            _ => self.0.push_back(Run { segment, first: index, last: index }),
        }
    }

    pub(crate) fn truncate(&mut self, since: u64) {
        while let Some(run) = self.0.back_mut() {
            if run.last < since {
                return;
            }
            if run.first < since {
                run.last = since - 1;
                return;
            }
            self.0.pop_back();
        }
    }

    pub(crate) fn purge(&mut self, upto: u64) {
        while let Some(run) = self.0.front_mut() {
            if run.first > upto {
                return;
            }
            if run.last > upto {
                run.first = upto + 1;
                return;
            }
            self.0.pop_front();
        }
    }
}

/// The newest vote, commit hint and purge of a group as encoded: repeated at the head of each segment,
/// so that older segments can go.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) vote: Option<Vec<u8>>,
    pub(crate) committed: Option<(u64, Vec<u8>)>,
    pub(crate) purged: Option<(u64, Vec<u8>)>,
}

/// One group as read back.
#[derive(Debug, Default)]
pub(crate) struct RecoveredGroup {
    pub(crate) index: GroupIndex,
    pub(crate) runs: Runs,
    pub(crate) head: Head,
    pub(crate) damage: Option<Damage>,
    damaged_entries: BTreeMap<u64, Damage>,
    damaged_vote: Option<Damage>,
    damaged_purge: Option<Damage>,
}

/// A whole log as read back.
pub(crate) struct Recovered {
    pub(crate) identity: Option<LogIdentity>,
    pub(crate) groups: BTreeMap<GroupId, RecoveredGroup>,
    pub(crate) segments: BTreeMap<u64, Arc<dyn Segment>>,
    pub(crate) next_segment: u64,
    pub(crate) next_batch: u64,
    /// Bytes of the batch that was being written when the node stopped.
    pub(crate) torn_bytes: u64,
}

/// Reads all segments of `disk`. Cuts a torn tail, and writes what it found in the newest segment once more.
pub(crate) fn recover(disk: &dyn Disk, node: NodeId) -> Result<Recovered, LogError> {
    let failed = |doing: &'static str| move |source: io::Error| LogError::Io { doing, source };
    let numbers = disk.segments().map_err(failed("listing log segments"))?;
    let mut log = Recovered {
        identity: None,
        groups: BTreeMap::new(),
        segments: BTreeMap::new(),
        next_segment: 1,
        next_batch: 1,
        torn_bytes: 0,
    };
    for (at, &number) in numbers.iter().enumerate() {
        let segment = disk.open(number).map_err(failed("opening a log segment"))?;
        let content = segment.read_all().map_err(failed("reading a log segment"))?;
        let newest = at + 1 == numbers.len();
        let end = scan(&mut log, node, number, &content, newest)?;
        if newest {
            log.torn_bytes = written_after(&content, end);
            // After a flush that failed Linux takes pages for written that are not: they read back until the power
            // goes, and no later flush writes them (Rebello et al., ATC 2020). These can only be of the last batch.
            segment.write_at(0, &content[..end]).map_err(failed("writing the end of the log once more"))?;
            segment.flush().map_err(failed("flushing the end of the log"))?;
            disk.cut(number, end as u64).map_err(failed("cutting the tail of the log"))?;
        }
        log.segments.insert(number, segment);
        log.next_segment = number + 1;
    }
    for group in log.groups.values_mut() {
        group.finish();
    }
    Ok(log)
}

/// Takes in one segment; returns where its whole batches end.
fn scan(
    log: &mut Recovered,
    node: NodeId,
    number: u64,
    content: &[u8],
    newest: bool,
) -> Result<usize, LogError> {
    let damaged = |offset: usize, what: &str| LogError::Damaged {
        segment: number,
        offset: offset as u64,
        what: what.to_owned(),
    };
    let header = SegmentHeader::parse(content).map_err(|error| match error {
        HeaderError::UnknownVersion(version) => LogError::UnknownVersion { segment: number, version },
        other => damaged(0, &other.to_string()),
    })?;
    if header.node != node {
        return Err(LogError::OtherNode { expected: node, found: header.node });
    }
    let identity = *log.identity.get_or_insert(header.log);
    let first = log.segments.is_empty();
    if header.log != identity || header.number != number {
        return Err(damaged(0, "the segment belongs to another log"));
    }
    if !first && (number != log.next_segment || header.first_batch != log.next_batch) {
        return Err(damaged(0, "segments before this one are missing"));
    }
    log.next_batch = header.first_batch;

    let mut end = SEGMENT_HEADER_SIZE;
    let mut offset = end;
    // Records of the batch being read, and a whole batch with a bad payload that is either the torn
    // tail or damage, depending on whether anything follows.
    let mut staged: Vec<(RecordHeader, usize)> = Vec::new();
    let mut suspect = false;
    while let Some(header) = record_at(&identity, content, offset, number, log.next_batch)? {
        if suspect {
            commit(log, &identity, number, content, &mut staged)?;
            suspect = false;
            end = offset;
        }
        if header.batch != log.next_batch {
            return Err(damaged(offset, "a batch is missing"));
        }
        staged.push((header, offset));
        offset += header.size();
        if header.last {
            let whole =
                staged.iter().all(|(header, at)| header.payload(&identity, &content[*at..]).is_some());
            if whole || !newest {
                commit(log, &identity, number, content, &mut staged)?;
                end = offset;
            } else {
                suspect = true;
            }
        }
    }
    let zeros = content[offset..].iter().all(|byte| *byte == 0);
    if staged.is_empty() && zeros {
        return Ok(end);
    }
    if !newest {
        return Err(damaged(offset, "a record inside the log does not read back"));
    }
    if follows(&identity, &content[offset..], log.next_batch) {
        return Err(damaged(offset, "a record that was flushed does not read back"));
    }
    Ok(end)
}

/// The record at `offset` when it continues the log; `None` when there is none.
fn record_at(
    identity: &LogIdentity,
    content: &[u8],
    offset: usize,
    segment: u64,
    batch: u64,
) -> Result<Option<RecordHeader>, LogError> {
    match RecordHeader::parse(identity, &content[offset.min(content.len())..]) {
        Ok(header) if offset + header.size() > content.len() => Ok(None),
        // The batch after a suspect one is accepted here and judged by the caller.
        Ok(header) if header.batch == batch || header.batch == batch + 1 => Ok(Some(header)),
        Ok(_) => Ok(None),
        Err(HeaderError::UnknownVersion(version)) => Err(LogError::UnknownVersion { segment, version }),
        Err(_) => Ok(None),
    }
}

/// True when a record of a batch after `torn` is anywhere in `rest`: `torn` had been flushed then.
fn follows(identity: &LogIdentity, rest: &[u8], torn: u64) -> bool {
    (0..rest.len().saturating_sub(RECORD_HEADER_SIZE - 1))
        .step_by(RECORD_ALIGNMENT)
        .any(|at| RecordHeader::parse(identity, &rest[at..]).is_ok_and(|header| header.batch > torn))
}

/// Bytes from `end` to the last one that is not zero.
fn written_after(content: &[u8], end: usize) -> u64 {
    content[end..].iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1)
}

/// Applies the records of one whole batch.
fn commit(
    log: &mut Recovered,
    identity: &LogIdentity,
    segment: u64,
    content: &[u8],
    staged: &mut Vec<(RecordHeader, usize)>,
) -> Result<(), LogError> {
    for (header, offset) in staged.drain(..) {
        if header.batch != log.next_batch {
            return Err(LogError::Damaged {
                segment,
                offset: offset as u64,
                what: "records of two batches are mixed".to_owned(),
            });
        }
        let group = log.groups.entry(header.group).or_default();
        let place = Place { segment, offset: offset as u64 };
        group.apply(&header, place, header.payload(identity, &content[offset..]))?;
    }
    log.next_batch += 1;
    Ok(())
}

impl RecoveredGroup {
    fn apply(&mut self, header: &RecordHeader, place: Place, payload: Option<&[u8]>) -> Result<(), LogError> {
        let damage = |what: String| Damage { segment: place.segment, offset: place.offset, what };
        let unreadable = || damage(format!("{:?} record: the payload does not read back", header.kind));
        let log_id = payload.and_then(|bytes| log_id_prefix(bytes).ok());
        match header.kind {
            Kind::Entry => {
                if self.index.has_entries() && header.index != self.index.next_index() {
                    return Err(LogError::Damaged {
                        segment: place.segment,
                        offset: place.offset,
                        what: format!("{}: entry {} is out of order", header.group, header.index),
                    });
                }
                let known = log_id.filter(|id| id.index == header.index);
                if known.is_none() {
                    self.damaged_entries.insert(header.index, unreadable());
                }
                let log_id = known.unwrap_or_else(|| LogId { index: header.index, ..LogId::default() });
                self.index.push_stored(Stored { log_id, place, length: header.length });
                self.runs.push(place.segment, header.index);
            }
            Kind::Vote => match payload.and_then(|bytes| codec::decode::<VoteV1>(bytes).ok()) {
                Some(vote) => {
                    self.index.vote = Some(vote.into());
                    self.head.vote = payload.map(<[u8]>::to_vec);
                    self.damaged_vote = None;
                }
                None => self.damaged_vote = Some(unreadable()),
            },
            Kind::Truncate => {
                self.index.truncate(header.index);
                self.runs.truncate(header.index);
                drop(self.damaged_entries.split_off(&header.index));
            }
            Kind::Purge => {
                self.runs.purge(header.index);
                self.damaged_entries = self.damaged_entries.split_off(&(header.index + 1));
                match log_id {
                    Some(log_id) => {
                        self.index.purge(log_id);
                        self.head.purged = payload.map(|bytes| (header.index, bytes.to_vec()));
                        self.damaged_purge = None;
                    }
                    None => self.damaged_purge = Some(unreadable()),
                }
            }
            Kind::Committed => {
                if let (Some(log_id), Some(bytes)) = (log_id, payload) {
                    self.index.committed = Some(log_id);
                    self.head.committed = Some((header.index, bytes.to_vec()));
                }
            }
            Kind::Forget => *self = Self::default(),
        }
        Ok(())
    }

    /// Judges the group once everything has been read.
    fn finish(&mut self) {
        let expected = self.index.purged.map_or(0, |id| id.index + 1);
        let first = self.index.first_index();
        let hole = (self.index.has_entries() && first != expected).then(|| Damage {
            segment: self.runs.0.front().map_or(0, |run| run.segment),
            offset: 0,
            what: format!("entries {expected}..{first} are missing"),
        });
        let entry = self.damaged_entries.pop_first().map(|(_, damage)| damage);
        self.damage = self.damaged_vote.take().or(self.damaged_purge.take()).or(entry).or(hole);
        // The hint may be ahead of the entries: it is saved before a snapshot is installed.
        if self.index.committed.is_some_and(|id| self.index.log_id(id.index) != Some(id)) {
            self.index.committed = None;
        }
    }
}

/// The id that an entry, purge or commit record starts with.
fn log_id_prefix(payload: &[u8]) -> Result<LogId, codec::CodecError> {
    match payload.split_first() {
        Some((&codec::VERSION, rest)) => postcard::take_from_bytes::<LogIdV1>(rest)
            .map(|(id, _)| id.into())
            .map_err(|error| codec::CodecError::Malformed(error.to_string())),
        Some((&version, _)) => Err(codec::CodecError::UnknownVersion(version)),
        None => Err(codec::CodecError::Malformed("empty".to_owned())),
    }
}
