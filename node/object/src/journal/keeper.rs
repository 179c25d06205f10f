//! Keeps the journal of all groups on this node.
//!
//! One task a group writes its records, one at a time, so that everything applied while a record is on its
//! way shares the next one; the drives' group commit joins the records of all groups.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_consensus::{Consensus, SecondCopy};
use holdfast_format::{CatalogRecordHeader, CatalogRecordKind};
use holdfast_model::{ClusterId, GroupId, NodeId};
use holdfast_ring::BufferPool;
use holdfast_store::{Health, Shards};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    BaseSource, CatalogKeys, Owner,
    base::BaseKeeper,
    census::Census,
    holdings::{Answer, Holdings, Question},
    pending::{Batch, JournaledMachine, Pending},
    record::{BODY_SIZE_MAX, Copied, PARTS_MAX, RecordName, RecordWriter, Spread, room_of},
    sections::{self, JournaledCommand, Section},
};
use crate::host::now;

/// Pause before a record that no drive took is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How long the key of an owner may be missing: a tenant's creation reaches nodes one after the other.
const KEY_PATIENCE: Duration = Duration::from_secs(10);

/// How long a stopping node tries to bring its last entries to drives.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// What the journal works with, once the node has it.
#[derive(Clone)]
pub struct JournalParts {
    /// All drives.
    pub shards: Arc<Shards>,
    /// Who answers.
    pub health: Arc<Health>,
    /// Memory for records.
    pub pool: BufferPool,
    /// Tells who leads.
    pub consensus: Arc<Consensus>,
    /// Seals.
    pub keys: Arc<dyn CatalogKeys>,
    /// Copies of a record that the present level asks for.
    pub copies: Arc<dyn Fn() -> usize + Send + Sync>,
    /// Directory for copies of files while a base is written. Emptied at start.
    pub scratch: PathBuf,
}

impl std::fmt::Debug for JournalParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JournalParts").field("scratch", &self.scratch).finish_non_exhaustive()
    }
}

/// State and figures, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalStatus {
    /// Records written because somebody waited for them.
    pub records: u64,
    /// Records written for those who may lead later.
    pub lazy_records: u64,
    /// Bytes of records, one copy counted.
    pub bytes: u64,
    /// Records of which fewer copies were written than the level asks for.
    pub thin_records: u64,
    /// Bases written.
    pub bases: u64,
    /// Entries that wait.
    pub waiting: u64,
    /// No drive takes records: answers do not wait for them meanwhile.
    pub lagging: bool,
}

/// What a leader knows of the second copy of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// There were as many copies of everything as are asked for.
    pub whole: bool,
    /// All drives that were counted had been searched after this moment.
    pub searched: Instant,
}

/// What a search of this node's drives found.
#[derive(Debug)]
struct Held {
    searched: Instant,
    groups: BTreeMap<GroupId, Holdings>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    records: AtomicU64,
    lazy_records: AtomicU64,
    bytes: AtomicU64,
    thin_records: AtomicU64,
    pub(super) bases: AtomicU64,
}

/// The journal of all groups on this node.
pub struct Journal {
    pub(super) cluster: ClusterId,
    pub(super) node: NodeId,
    pub(super) groups: BTreeMap<GroupId, Arc<Pending>>,
    pub(super) sources: Mutex<BTreeMap<GroupId, Arc<dyn BaseSource>>>,
    pub(super) counters: Counters,
    started: AtomicBool,
    /// Asks for a search of this node's drives.
    pub(super) tidy_wanted: Notify,
    /// What the last search found.
    held: Mutex<Option<Held>>,
    /// What is known of the groups that this node leads.
    pub(super) standings: Mutex<BTreeMap<GroupId, Standing>>,
    lagging: watch::Sender<bool>,
    stop: CancellationToken,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Journal {
    /// A journal for `groups` that keeps what is applied in memory until it is started.
    #[must_use]
    pub fn new(cluster: ClusterId, node: NodeId, groups: impl IntoIterator<Item = GroupId>) -> Arc<Self> {
        let groups = groups.into_iter().map(|group| (group, Arc::new(Pending::new(group)))).collect();
        Arc::new(Self {
            cluster,
            node,
            groups,
            sources: Mutex::default(),
            counters: Counters::default(),
            started: AtomicBool::new(false),
            tidy_wanted: Notify::new(),
            held: Mutex::default(),
            standings: Mutex::default(),
            lagging: watch::Sender::new(false),
            stop: CancellationToken::new(),
            tasks: tokio::sync::Mutex::default(),
        })
    }

    /// Has everything that `machine` applies journaled. `owner` says whose a command is, once it has been
    /// applied; `source` is where the group's files are copied from.
    ///
    /// # Panics
    /// When the group is not one that the journal was made for.
    pub fn keep<M>(
        &self,
        group: GroupId,
        machine: M,
        owner: impl Fn(&[u8]) -> Option<Owner> + Send + 'static,
        source: Arc<dyn BaseSource>,
    ) -> JournaledMachine<M> {
        let pending = self.groups.get(&group).expect("the journal was made for every group of the node");
        self.sources.lock().insert(group, source);
        JournaledMachine::new(machine, Arc::clone(pending), owner)
    }

    /// Starts writing. Until then only answers of the control group do not wait: a node that founds or
    /// starts has no drives yet.
    pub async fn start(self: &Arc<Self>, parts: JournalParts) {
        let mut tasks = self.tasks.lock().await;
        for pending in self.groups.values() {
            tasks.spawn(Arc::clone(self).write_group(Arc::clone(pending), parts.clone()));
        }
        tasks.spawn(Census::new(Arc::clone(self), parts.clone()).run(self.stop.clone()));
        tasks.spawn(BaseKeeper::new(Arc::clone(self), parts).run(self.stop.clone()));
        self.started.store(true, Ordering::Release);
    }

    /// Writes what still waits, for a short while, and ends. Call it while drives are open.
    pub async fn stop(&self) {
        self.stop.cancel();
        let mut tasks = self.tasks.lock().await;
        let ended =
            tokio::time::timeout(STOP_PATIENCE * 2, async { while tasks.join_next().await.is_some() {} });
        if ended.await.is_err() {
            tracing::warn!("the catalog's journal is cut off; other nodes hold what this one did not write");
            tasks.shutdown().await;
        }
    }

    /// State and figures.
    #[must_use]
    pub fn status(&self) -> JournalStatus {
        let counters = &self.counters;
        JournalStatus {
            records: counters.records.load(Ordering::Relaxed),
            lazy_records: counters.lazy_records.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            thin_records: counters.thin_records.load(Ordering::Relaxed),
            bases: counters.bases.load(Ordering::Relaxed),
            waiting: self.groups.values().map(|pending| pending.waiting() as u64).sum(),
            lagging: *self.lagging.borrow(),
        }
    }

    /// Asks for a new base of a group, should this node lead it: what is on the drives of it is no longer to
    /// be relied on.
    pub fn renew(&self, group: GroupId) {
        if let Some(pending) = self.groups.get(&group) {
            pending.set_broken();
        }
    }

    /// Whether no new base of a group is asked for.
    #[must_use]
    pub fn is_renewed(&self, group: GroupId) -> bool {
        self.groups.get(&group).is_none_or(|pending| !pending.since_base().is_broken())
    }

    /// Whether this node's drives hold nothing of a group that tells of its entries up to `through`. If they do, what it
    /// takes is begun: where `leads`, a newer base; here, the search for what it replaces. Ask again later.
    #[must_use]
    pub fn is_purged(&self, group: GroupId, through: u64, leads: bool) -> bool {
        let Some(pending) = self.groups.get(&group) else { return true };
        let left = pending.left();
        // A base that goes up to there was copied after it; a journal record that does is gone with that base.
        if left.tidy && left.base >= Some(through) && left.lowest >= Some(through) {
            return true;
        }
        if leads && left.base < Some(through) && !pending.since_base().is_broken() {
            pending.set_broken();
        }
        self.tidy_wanted.notify_one();
        false
    }

    /// This node's drives were searched.
    pub(super) fn publish(&self, searched: Instant, groups: BTreeMap<GroupId, Holdings>) {
        *self.held.lock() = Some(Held { searched, groups });
    }

    /// What this node's drives held of a group when they were searched, and how long ago that was; `None` before the first
    /// search.
    pub(super) fn holdings(&self, question: Question) -> Option<Answer> {
        if question.fresh {
            self.tidy_wanted.notify_one();
        }
        let held = self.held.lock();
        let held = held.as_ref()?;
        let age_ms = u64::try_from(held.searched.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(Answer { age_ms, holdings: held.groups.get(&question.group).cloned().unwrap_or_default() })
    }

    /// Answers another node's `CatalogHoldings`.
    ///
    /// # Errors
    /// A text: the question does not parse, or this node has not searched its drives yet.
    pub fn answer(&self, question: &[u8]) -> Result<Vec<u8>, String> {
        let question: Question = postcard::from_bytes(question).map_err(|error| error.to_string())?;
        let answer = self.holdings(question).ok_or("drives are not searched yet; ask again")?;
        postcard::to_stdvec(&answer).map_err(|error| error.to_string())
    }

    /// What is known of the second copies of the groups that this node leads and has counted the copies of.
    #[must_use]
    pub fn standings(&self) -> BTreeMap<GroupId, Standing> {
        self.standings.lock().clone()
    }

    async fn write_group(self: Arc<Self>, pending: Arc<Pending>, parts: JournalParts) {
        let writer = parts.writer(self.node);
        loop {
            match pending.take(false) {
                Ok(batch) => self.write_batch(&pending, &parts, &writer, batch).await,
                Err(wait) => {
                    let lazily = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(3600)));
                    tokio::select! {
                        () = self.stop.cancelled() => break,
                        () = pending.news.notified() => {}
                        () = lazily => {}
                    }
                }
            }
            if self.stop.is_cancelled() {
                break;
            }
        }
        let last = async {
            while let Ok(batch) = pending.take(true) {
                self.write_batch(&pending, &parts, &writer, batch).await;
            }
        };
        if tokio::time::timeout(STOP_PATIENCE, last).await.is_err() {
            tracing::warn!(group = %pending.group, "its last entries are not in the catalog's journal of this node");
        }
    }

    /// Writes a batch until it is on drives. Gives it up only when the key it is sealed with does not come.
    async fn write_batch(
        &self,
        pending: &Pending,
        parts: &JournalParts,
        writer: &RecordWriter,
        batch: Batch,
    ) {
        let Batch { first, last, commands, wanted } = batch;
        let begun = now();
        let mut header = CatalogRecordHeader {
            kind: CatalogRecordKind::Journal,
            group: pending.group,
            cluster: self.cluster,
            node: self.node,
            first,
            last,
            begun,
            part: 0,
            parts: 1,
            length: 0,
        };
        let id = RecordName::of(&header).id();
        let (sections, whole) = self.seal(parts, &id, commands).await;
        if !whole {
            pending.set_broken();
        }
        let blob = sections::encode(&sections);
        let pieces: Vec<&[u8]> = blob.chunks(BODY_SIZE_MAX).collect();
        header.parts = u32::try_from(pieces.len()).unwrap_or(PARTS_MAX);
        assert!(header.parts < PARTS_MAX, "a batch is a few commands, and a command is bounded");
        // A leader's records are protected as the level asks, whoever waits; a follower's are a second source.
        let protected = wanted || parts.leads(pending.group, self.node);
        for (part, piece) in (0..).zip(pieces) {
            header.part = part;
            header.length = u32::try_from(piece.len()).expect("a piece is smaller than a shard");
            let copies = self.write_piece(pending, parts, writer, &header, piece, protected).await;
            let here = copies.iter().filter(|copied| copied.place.node == self.node).count() as u64;
            pending.wrote(here * room_of(piece.len()));
        }
        let counter = if protected { &self.counters.records } else { &self.counters.lazy_records };
        counter.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(blob.len() as u64, Ordering::Relaxed);
        pending.set_durable(last);
    }

    /// Writes a part of a batch until it is on a drive. Returns where it is.
    async fn write_piece(
        &self,
        pending: &Pending,
        parts: &JournalParts,
        writer: &RecordWriter,
        header: &CatalogRecordHeader,
        piece: &[u8],
        protected: bool,
    ) -> Vec<Copied> {
        let mut asked_for_base = false;
        loop {
            let copies = if protected { (parts.copies)() } else { 1 };
            let spread = if protected { Spread::Copies(copies) } else { Spread::Own };
            let durable = writer.write(header, piece, spread).await;
            if !durable.is_empty() {
                if durable.len() < copies {
                    self.counters.thin_records.fetch_add(1, Ordering::Relaxed);
                }
                if self.lagging.send_replace(false) {
                    tracing::info!("drives take catalog records again");
                }
                return durable;
            }
            // A base replaces journals, and drives keep room for it.
            if !asked_for_base {
                pending.set_broken();
                asked_for_base = true;
            }
            if !self.lagging.send_replace(true) {
                tracing::error!(group = %header.group, "no drive takes catalog records: until one does, the catalog's second copy falls behind");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Seals commands for their owners. False when an owner's key did not come.
    async fn seal(
        &self,
        parts: &JournalParts,
        id: &holdfast_model::StripeId,
        commands: Vec<(Owner, JournaledCommand)>,
    ) -> (Vec<Section>, bool) {
        let mut by_owner: BTreeMap<Owner, Vec<JournaledCommand>> = BTreeMap::new();
        for (owner, command) in commands {
            by_owner.entry(owner).or_default().push(command);
        }
        let deadline = Instant::now() + KEY_PATIENCE;
        let (mut sealed, mut whole) = (Vec::with_capacity(by_owner.len()), true);
        for (owner, commands) in by_owner {
            loop {
                if let Some(section) = sections::seal(parts.keys.as_ref(), owner, id, &commands) {
                    sealed.push(section);
                    break;
                }
                if Instant::now() >= deadline {
                    tracing::error!(?owner, record = %id, "commands are not journaled: their owner's key is not known here");
                    whole = false;
                    break;
                }
                tokio::time::sleep(RETRY_PAUSE / 4).await;
            }
        }
        (sealed, whole)
    }
}

impl JournalParts {
    pub(super) fn writer(&self, node: NodeId) -> RecordWriter {
        RecordWriter {
            node,
            shards: Arc::clone(&self.shards),
            health: Arc::clone(&self.health),
            pool: self.pool.clone(),
        }
    }

    pub(super) fn leads(&self, group: GroupId, node: NodeId) -> bool {
        self.consensus.status(group).is_some_and(|status| status.leader == Some(node))
    }
}

#[async_trait::async_trait]
impl SecondCopy for Journal {
    async fn holds(&self, group: GroupId, index: u64) {
        let Some(pending) = self.groups.get(&group) else { return };
        if group == GroupId::CONTROL && !self.started.load(Ordering::Acquire) {
            return;
        }
        pending.want(index);
        let (mut durable, mut lagging) = (pending.durable(), self.lagging.subscribe());
        tokio::select! {
            // Either ends only with the journal itself.
            _ = durable.wait_for(|durable| *durable >= Some(index)) => {}
            _ = lagging.wait_for(|lagging| *lagging) => {}
        }
    }
}
