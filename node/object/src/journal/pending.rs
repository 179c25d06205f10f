//! What a group has applied and its journal does not hold yet.
//!
//! Invariants:
//! - entries wait in log order; a batch taken has no gap inside;
//! - memory is bounded: when drives take nothing for long, the oldest entries are given up, which is said
//!   and asks for a new base.

use std::{
    collections::VecDeque,
    fmt, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast_consensus::{Applied, StateMachine};
use holdfast_model::GroupId;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{Owner, sections::JournaledCommand};

/// Bytes of commands that may wait for drives.
const PENDING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of commands in one batch; a single larger command has a batch of its own.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// From so many bytes on entries are written though nobody waits for them.
const LAZY_BYTES: usize = 384 * 1024;

/// How long entries wait when nobody waits for them.
pub(super) const LAZY_AFTER: Duration = Duration::from_secs(1);

struct Entry {
    index: u64,
    commands: Vec<(Owner, JournaledCommand)>,
    bytes: usize,
    applied: Instant,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Highest index that somebody waits for.
    wanted: Option<u64>,
    /// Bytes that this process's journal records have taken of this node's drives.
    written: u64,
    /// Bytes that journal records take of this node's drives which the last base does not replace.
    since_base: u64,
    /// First entry of the batch that is being written.
    taken: Option<u64>,
    /// How often entries were given up or copies lost, and how much of that a base has made good.
    broken: u64,
    mended: u64,
}

/// Where the journal stands when a base is begun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SinceBase {
    /// Bytes that journal records take of this node's drives which the last base does not replace.
    pub room: u64,
    broken: u64,
    mended: u64,
}

impl SinceBase {
    /// Only a new base makes the copy whole again.
    pub(super) fn is_broken(&self) -> bool {
        self.broken > self.mended
    }
}

/// A run of entries to be written as one record.
#[derive(Debug)]
pub(super) struct Batch {
    pub first: u64,
    pub last: u64,
    pub commands: Vec<(Owner, JournaledCommand)>,
    /// Somebody waits for it.
    pub wanted: bool,
}

/// One group's entries on their way into the journal.
pub(super) struct Pending {
    pub group: GroupId,
    queue: Mutex<Queue>,
    pub news: Notify,
    /// Index up to which the journal holds everything this node applied.
    durable: watch::Sender<Option<u64>>,
    /// What this node's drives held of the group when they were searched last.
    left: Mutex<Left>,
    /// When a new base was written, or heard of.
    based_at: Mutex<Option<tokio::time::Instant>>,
}

/// Records of a group on this node's drives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Left {
    /// Entries that the newest base covers.
    pub base: Option<u64>,
    /// The lowest last entry of a journal record, or entry up to which a base goes.
    pub lowest: Option<u64>,
    /// All of them were deleted that a base replaces.
    pub tidy: bool,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("group", &self.group).finish_non_exhaustive()
    }
}

impl Pending {
    pub(super) fn new(group: GroupId) -> Self {
        Self {
            group,
            queue: Mutex::default(),
            news: Notify::new(),
            durable: watch::Sender::new(None),
            left: Mutex::default(),
            based_at: Mutex::default(),
        }
    }

    /// Takes what was just applied.
    fn push(&self, entries: &[Applied<'_>], owner: impl Fn(&[u8]) -> Option<Owner>) {
        let mut queue = self.queue.lock();
        for entry in entries {
            let commands: Vec<(Owner, JournaledCommand)> = (0u32..)
                .zip(entry.commands)
                .filter_map(|(position, command)| {
                    let journaled =
                        JournaledCommand { index: entry.index, position, command: command.clone() };
                    // A command of nobody, for a partition that does not exist, say, has changed nothing.
                    owner(command).map(|owner| (owner, journaled))
                })
                .collect();
            let bytes = commands.iter().map(|(_, command)| command.command.len()).sum();
            queue.bytes += bytes;
            queue.entries.push_back(Entry { index: entry.index, commands, bytes, applied: Instant::now() });
        }
        let mut dropped = 0;
        while queue.bytes > PENDING_BYTES_MAX
            && let Some(oldest) = queue.entries.pop_front()
        {
            queue.bytes -= oldest.bytes;
            dropped += 1;
        }
        queue.broken += u64::from(dropped > 0);
        drop(queue);
        if dropped > 0 {
            tracing::error!(group = %self.group, entries = dropped, "drives take no catalog records: entries are not in the catalog's second copy until the next base");
        }
        self.news.notify_one();
    }

    /// The state was replaced by a snapshot: what waits is in it, and in the journals of others, if there are any. A base
    /// that is written from here has it too.
    fn clear(&self) {
        let mut queue = self.queue.lock();
        queue.broken += u64::from(!queue.entries.is_empty());
        queue.entries.clear();
        queue.bytes = 0;
    }

    /// Asks for everything up to `index` to be written now.
    pub(super) fn want(&self, index: u64) {
        let mut queue = self.queue.lock();
        queue.wanted = queue.wanted.max(Some(index));
        drop(queue);
        self.news.notify_one();
    }

    pub(super) fn durable(&self) -> watch::Receiver<Option<u64>> {
        self.durable.subscribe()
    }

    /// The batch up to `last` is on drives.
    pub(super) fn set_durable(&self, last: u64) {
        self.queue.lock().taken = None;
        self.durable.send_if_modified(|durable| {
            let higher = *durable < Some(last);
            *durable = (*durable).max(Some(last));
            higher
        });
    }

    /// The next batch when one is due, `all` makes everything due; otherwise how long to wait for one.
    pub(super) fn take(&self, all: bool) -> Result<Batch, Option<Duration>> {
        let mut queue = self.queue.lock();
        let Some(oldest) = queue.entries.front() else { return Err(None) };
        let wanted = queue.wanted >= Some(oldest.index);
        let waited = oldest.applied.elapsed();
        if !all && !wanted && queue.bytes < LAZY_BYTES && waited < LAZY_AFTER {
            return Err(Some(LAZY_AFTER.saturating_sub(waited)));
        }
        let first = oldest.index;
        let mut batch = Batch { first, last: first, commands: Vec::new(), wanted };
        let mut bytes = 0;
        while let Some(next) = queue.entries.front()
            && (next.index == first || next.index == batch.last + 1)
            && (bytes == 0 || bytes + next.bytes <= BATCH_BYTES_MAX)
        {
            let next = queue.entries.pop_front().expect("it was just looked at");
            bytes += next.bytes;
            batch.last = next.index;
            batch.commands.extend(next.commands);
        }
        queue.bytes -= bytes;
        queue.taken = Some(first);
        Ok(batch)
    }

    /// Up to which entry the second copy must hold everything, of a group that had applied up to `applied` a moment ago:
    /// what is waiting or being written is not there yet.
    pub(super) fn journaled(&self, applied: u64) -> u64 {
        let queue = self.queue.lock();
        let waiting = queue.taken.or(queue.entries.front().map(|entry| entry.index));
        waiting.map_or(applied, |first| applied.min(first.saturating_sub(1)))
    }

    /// Where it stands.
    pub(super) fn since_base(&self) -> SinceBase {
        let queue = self.queue.lock();
        SinceBase { room: queue.since_base, broken: queue.broken, mended: queue.mended }
    }

    /// Entries were given up, or copies were lost.
    pub(super) fn set_broken(&self) {
        self.queue.lock().broken += 1;
    }

    /// A base is written that was begun when things stood at `before`. What broke since is not in it.
    pub(super) fn based(&self, before: SinceBase) {
        let mut queue = self.queue.lock();
        queue.since_base = queue.since_base.saturating_sub(before.room);
        queue.mended = queue.mended.max(before.broken);
        *self.based_at.lock() = Some(tokio::time::Instant::now());
    }

    /// When this process wrote a base of the group, or first heard of a newer one.
    pub(super) fn based_at(&self) -> Option<tokio::time::Instant> {
        *self.based_at.lock()
    }

    /// A journal record was written, which takes so many bytes of this node's drives.
    pub(super) fn wrote(&self, room: u64) {
        let mut queue = self.queue.lock();
        queue.written += room;
        queue.since_base += room;
    }

    /// Bytes that this process's journal records have taken of this node's drives so far.
    pub(super) fn written(&self) -> u64 {
        self.queue.lock().written
    }

    /// Drives were searched, from when [`Pending::written`] was `before`. Journal records that no base replaces take `room`
    /// bytes: of processes before this one as well, and of other nodes.
    pub(super) fn found(&self, left: Left, room: u64, before: u64) {
        let mut queue = self.queue.lock();
        // What was written meanwhile may be counted twice until the next search.
        queue.since_base = room + (queue.written - before);
        *self.left.lock() = left;
    }

    /// What drives held when they were searched last.
    pub(super) fn left(&self) -> Left {
        *self.left.lock()
    }

    /// Entries that wait.
    pub(super) fn waiting(&self) -> usize {
        self.queue.lock().entries.len()
    }
}

/// A state machine whose every applied entry goes into the journal as well.
pub struct JournaledMachine<M> {
    machine: M,
    pending: Arc<Pending>,
    owner: Box<dyn Fn(&[u8]) -> Option<Owner> + Send>,
}

impl<M> fmt::Debug for JournaledMachine<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournaledMachine").field("group", &self.pending.group).finish_non_exhaustive()
    }
}

impl<M> JournaledMachine<M> {
    pub(super) fn new(
        machine: M,
        pending: Arc<Pending>,
        owner: impl Fn(&[u8]) -> Option<Owner> + Send + 'static,
    ) -> Self {
        Self { machine, pending, owner: Box::new(owner) }
    }
}

impl<M: StateMachine> StateMachine for JournaledMachine<M> {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let answers = self.machine.apply(entries)?;
        // Afterwards: a partition is known once its creation has been applied.
        self.pending.push(entries, &self.owner);
        Ok(answers)
    }

    fn checkpoint(&mut self, position: &[u8]) -> io::Result<()> {
        self.machine.checkpoint(position)
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.machine.position()
    }

    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        self.machine.snapshot(path)
    }

    fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()> {
        self.machine.install(path, position)?;
        self.pending.clear();
        Ok(())
    }

    fn discard(&mut self) -> io::Result<()> {
        self.machine.discard()?;
        self.pending.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(pending: &Pending, index: u64, commands: &[&[u8]]) {
        let commands: Vec<Bytes> = commands.iter().map(|command| Bytes::copy_from_slice(command)).collect();
        pending.push(&[Applied { index, commands: &commands }], |command| {
            (command != b"nobody's").then_some(Owner::Cluster)
        });
    }

    #[test]
    fn what_is_waited_for_goes_at_once_and_everything_before_it_as_well() {
        let pending = Pending::new(GroupId::new(1));
        push(&pending, 7, &[b"a", b"nobody's", b"b"]);
        push(&pending, 8, &[]);
        push(&pending, 9, &[b"c"]);
        assert!(matches!(pending.take(false), Err(Some(_))));
        pending.want(8);
        let batch = pending.take(false).unwrap();
        assert!(batch.wanted && (batch.first, batch.last) == (7, 9));
        let positions: Vec<(u64, u32)> = batch.commands.iter().map(|(_, c)| (c.index, c.position)).collect();
        assert_eq!(positions, [(7, 0), (7, 2), (9, 0)]);
        assert_eq!(pending.take(true).unwrap_err(), None);
    }

    #[test]
    fn what_waited_when_the_state_was_replaced_is_to_be_in_a_base() {
        let pending = Pending::new(GroupId::new(1));
        pending.clear();
        assert!(!pending.since_base().is_broken());
        push(&pending, 3, &[b"a"]);
        let before = pending.since_base();
        pending.clear();
        assert!(pending.take(true).is_err() && pending.since_base().is_broken());
        pending.based(before);
        assert!(pending.since_base().is_broken(), "that base was begun before");
        pending.based(pending.since_base());
        assert!(!pending.since_base().is_broken());
    }

    #[test]
    fn a_batch_ends_before_a_gap() {
        let pending = Pending::new(GroupId::new(1));
        push(&pending, 3, &[b"a"]);
        push(&pending, 5, &[b"b"]);
        assert_eq!(pending.journaled(5), 2);
        assert_eq!(pending.take(true).unwrap().last, 3);
        assert_eq!(pending.journaled(5), 2, "it is being written");
        pending.set_durable(3);
        assert_eq!(pending.journaled(5), 4);
        assert_eq!(pending.take(true).unwrap().first, 5);
        pending.set_durable(5);
        assert_eq!(pending.journaled(5), 5);
    }

    #[test]
    fn when_drives_take_nothing_memory_stays_bounded_and_a_base_is_asked_for() {
        let pending = Pending::new(GroupId::new(1));
        let large = vec![1; BATCH_BYTES_MAX];
        for index in 0..40 {
            push(&pending, index, &[&large]);
        }
        assert!(pending.waiting() <= PENDING_BYTES_MAX / BATCH_BYTES_MAX);
        let before = pending.since_base();
        assert!(before.is_broken());
        pending.set_broken();
        pending.based(before);
        assert!(pending.since_base().is_broken(), "what broke while a base was written is not in it");
        pending.based(pending.since_base());
        assert!(!pending.since_base().is_broken());
    }

    #[test]
    fn what_the_journal_takes_of_drives_is_what_was_found_there_and_what_was_written_since() {
        let pending = Pending::new(GroupId::new(1));
        pending.wrote(8192);
        let searched = pending.written();
        pending.wrote(4096);
        // What processes before this one wrote is found as well.
        pending.found(Left::default(), 100_000, searched);
        assert_eq!(pending.since_base().room, 104_096);
        let before = pending.since_base();
        pending.wrote(8192);
        pending.based(before);
        assert_eq!(pending.since_base().room, 8192, "written while the base was");
    }
}
