//! One group's log as openraft uses it.
//!
//! A purge is visible at once but written only when the machine's durable state covers it: while a
//! snapshot is being installed openraft purges first, and a crash in between must not leave a hole.
//! Nothing is appended behind such a purge before it is written; when the snapshot cannot be installed,
//! it is taken back before the group starts again.

use std::{fmt::Debug, io, ops::RangeBounds, sync::Arc};

use holdfast_model::GroupId;
use openraft::{
    AnyError, LogState, OptionalSend, RaftLogReader, StorageIOError,
    storage::{LogFlushed, RaftLogStorage},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{
    LogIdentity, LogPoisoned, Shared,
    index::{Found, GroupIndex, Stored},
    record::{Kind, RECORD_HEADER_SIZE, Record, RecordHeader, record_size},
    recovery::Damage,
    writer::{Done, Request, Requests, Write},
};
use crate::{
    codec::{self, EntryV1, LogIdV1, VoteV1},
    types::{Entry, EntryPayload, LogId, StorageError, TypeConfig, Vote},
};

/// Encoded entries of one replication message, in bytes; one entry alone may exceed it.
pub(crate) const APPEND_BYTES_MAX: u64 = 1024 * 1024;

/// The part of the log that belongs to one group.
#[derive(Clone)]
pub(crate) struct GroupLog {
    group: GroupId,
    shared: Arc<Shared>,
    requests: Requests,
    index: Arc<Mutex<GroupIndex>>,
    /// Told when a purge that waited is written, or waits in vain.
    settled: Arc<Notify>,
}

impl GroupLog {
    pub(super) fn new(
        group: GroupId,
        shared: Arc<Shared>,
        requests: Requests,
        index: Arc<Mutex<GroupIndex>>,
    ) -> Self {
        Self { group, shared, requests, index, settled: Arc::default() }
    }

    /// Identity of the log this is part of.
    pub(crate) fn identity(&self) -> LogIdentity {
        self.shared.identity
    }

    /// Reads the index under its lock.
    pub(crate) fn inspect<T>(&self, look: impl FnOnce(&GroupIndex) -> T) -> T {
        look(&self.index.lock())
    }

    /// The machine's durable state has come to `position`: purges up to there may be written.
    pub(crate) fn cover(&self, position: LogId) -> Result<(), LogPoisoned> {
        let due = self.index.lock().cover(position);
        let written = due.map_or(Ok(()), |upto| self.write_purge(upto));
        self.settled.notify_waiters();
        written
    }

    /// The machine has failed: whoever waits for it to cover something waits in vain.
    pub(crate) fn abandon(&self) {
        self.index.lock().abandon();
        self.settled.notify_waiters();
    }

    /// Takes back a purge that was not written because the machine failed. Before the group starts.
    pub(crate) fn restore(&self) {
        self.index.lock().restore();
    }

    fn write_purge(&self, upto: LogId) -> Result<(), LogPoisoned> {
        self.write_lazily(Kind::Purge, upto.index, codec::encode(&LogIdV1::from(upto)))
    }

    /// Returns when no purge waits to be written.
    async fn settle(&self) -> io::Result<()> {
        loop {
            let settled = self.settled.notified();
            match self.index.lock().awaits_cover() {
                None => return Ok(()),
                Some(true) => return Err(io::Error::other("a snapshot was not installed")),
                Some(false) => {}
            }
            settled.await;
        }
    }

    /// Forgets everything about this group, durably: it has left this node.
    pub(crate) async fn forget(&self) -> Result<(), LogPoisoned> {
        *self.index.lock() = GroupIndex::default();
        self.write_durably(Record { kind: Kind::Forget, index: 0, payload: Vec::new() }).await
    }

    fn write_lazily(&self, kind: Kind, index: u64, payload: Vec<u8>) -> Result<(), LogPoisoned> {
        self.shared.check()?;
        self.send(vec![(Record { kind, index, payload }, None)], Done::Lazy)
    }

    async fn write_durably(&self, record: Record) -> Result<(), LogPoisoned> {
        self.shared.check()?;
        let (told, answer) = oneshot::channel();
        self.send(vec![(record, None)], Done::Told(told))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn send(&self, records: Vec<(Record, Option<LogId>)>, done: Done) -> Result<(), LogPoisoned> {
        let write = Write { group: self.group, records, done };
        self.requests.send(Request::Write(write)).map_err(|_| closed())
    }

    async fn read(&self, range: impl RangeBounds<u64>, bytes_max: u64) -> io::Result<Vec<Entry>> {
        let found = self.index.lock().find(range, bytes_max);
        if found.iter().all(|found| matches!(found, Found::Cached(_))) {
            return found.into_iter().map(|found| self.resolve(found)).collect();
        }
        let log = self.clone();
        let resolving = move || found.into_iter().map(|found| log.resolve(found)).collect();
        self.shared.host.blocking(resolving).await.map_err(io::Error::other)?
    }

    fn resolve(&self, found: Found) -> io::Result<Entry> {
        match found {
            Found::Cached(entry) => Ok(entry),
            Found::Stored(stored) => self.read_back(stored),
        }
    }

    /// Reads one entry from its segment, with every check that recovery makes.
    fn read_back(&self, Stored { log_id, place, length }: Stored) -> io::Result<Entry> {
        let segment = self.shared.segments.read().get(&place.segment).cloned();
        let segment = segment.ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("log segment {:016x} is gone", place.segment))
        })?;
        let mut bytes = vec![0; record_size(length as usize)];
        segment.read_at(place.offset, &mut bytes)?;
        let damaged = || {
            let what = format!("entry {} does not read back", log_id.index);
            let error = io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{}: {what} from log segment {:016x} at byte {}",
                    self.group, place.segment, place.offset
                ),
            );
            // From now on the group is refused as one found damaged at the start is.
            let damage = Damage { segment: place.segment, offset: place.offset, what };
            self.shared.damage.write().entry(self.group).or_insert(damage);
            error
        };
        let header = RecordHeader::parse(&self.shared.identity, &bytes[..RECORD_HEADER_SIZE])
            .map_err(|_| damaged())?;
        if header.kind != Kind::Entry || header.group != self.group || header.length != length {
            return Err(damaged());
        }
        let payload = header.payload(&self.shared.identity, &bytes).ok_or_else(damaged)?;
        let entry: EntryV1 = codec::decode(payload).map_err(|_| damaged())?;
        let entry = Entry::from(entry);
        if entry.log_id == log_id { Ok(entry) } else { Err(damaged()) }
    }
}

fn closed() -> LogPoisoned {
    LogPoisoned { cause: "the log is closed".into() }
}

fn write_error(error: &LogPoisoned) -> StorageError {
    StorageIOError::write_logs(AnyError::new(error)).into()
}

fn read_error(error: &io::Error) -> StorageError {
    StorageIOError::read_logs(AnyError::new(error)).into()
}

impl RaftLogReader<TypeConfig> for GroupLog {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(range, u64::MAX).await.map_err(|error| read_error(&error))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        let mut entries =
            self.read(start..end, APPEND_BYTES_MAX).await.map_err(|error| read_error(&error))?;
        // A leader that was deposed may still be reading what it purges as a follower. The rest behind what
        // is gone would be sent as if it followed what came before: a hole in somebody's log.
        if entries.first().is_some_and(|first| first.log_id.index != start) {
            entries.clear();
        }
        Ok(entries)
    }
}

impl RaftLogStorage<TypeConfig> for GroupLog {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let index = self.index.lock();
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last_log_id() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let payload = codec::encode(&VoteV1::from(*vote));
        self.write_durably(Record { kind: Kind::Vote, index: 0, payload })
            .await
            .map_err(|error| StorageIOError::write_vote(AnyError::new(&error)))?;
        self.index.lock().vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.index.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let Some(committed) = committed else { return Ok(()) };
        self.index.lock().committed = Some(committed);
        let payload = codec::encode(&LogIdV1::from(committed));
        self.write_lazily(Kind::Committed, committed.index, payload).map_err(|error| write_error(&error))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.index.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.shared.check().map_err(|error| write_error(&error))?;
        self.settle().await.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)))?;
        let mut records = Vec::new();
        {
            let mut index = self.index.lock();
            for entry in entries {
                if let EntryPayload::Normal(batch) = &entry.payload {
                    batch.mark_appended();
                }
                let log_id = entry.log_id;
                assert!(
                    index.last_log_id().is_none() || log_id.index == index.next_index(),
                    "{}: appending entry {} behind {:?} would leave a hole",
                    self.group,
                    log_id.index,
                    index.last_log_id()
                );
                let payload = codec::encode(&EntryV1::from(&entry));
                let length = u32::try_from(payload.len()).expect("entries are bounded far below 4 GiB");
                index.push(entry, length);
                records.push((Record { kind: Kind::Entry, index: log_id.index, payload }, Some(log_id)));
            }
        }
        self.send(records, Done::Appended(callback)).map_err(|error| write_error(&error))
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.index.lock().truncate(log_id.index);
        self.write_lazily(Kind::Truncate, log_id.index, Vec::new()).map_err(|error| write_error(&error))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let written = self.index.lock().purge_when_covered(upto);
        if written { self.write_purge(upto).map_err(|error| write_error(&error)) } else { Ok(()) }
    }
}
