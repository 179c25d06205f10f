//! What travels over peer links: Raft messages, shards, and each node's word about itself.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast_consensus::{Consensus, Transport, TransportError};
use holdfast_drive::{Comparison, Drive, DriveState, DriveStatus};
use holdfast_model::{DriveId, NodeId, PartitionId};
use holdfast_object::{
    ObjectService,
    journal::Journal,
    workers::{BucketLevel, PartitionDebt, PartitionLevels, WorkerStatus},
};
use holdfast_peer::{Method, PeerClient, PeerError, PeerNode, Refusal, Reply, Service};
use holdfast_ring::Buffer;
use holdfast_store::{
    BucketLevelReport, DebtReport, DriveReport, DriveReportState, LevelReport, NodeReport, ShardService,
    StripeRebuilder, WorkerReport,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{
    comparison::{GroupDigest, States},
    drives::Keeper,
    groups::{Ailment, Groups},
    keys::{Holder, KeyWord},
    orders::Orders,
};

/// Buckets named in the report of one partition at most.
pub const LEVELS_REPORTED_MAX: usize = 256;

/// Code of a refusal by a part that is not up yet.
const STARTING: u16 = 10;
/// Code of a refusal by consensus.
const CONSENSUS: u16 = 11;

/// Carries consensus messages over peer links.
#[derive(Debug, Clone)]
pub struct RaftTransport(pub PeerClient);

#[async_trait::async_trait]
impl Transport for RaftTransport {
    async fn send(&self, to: NodeId, request: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        match self.0.call(to, Method::Raft, request, None, timeout).await {
            Ok(reply) => Ok(reply.body),
            Err(PeerError::Refused { message, .. }) => Err(TransportError::Refused(to, message)),
            Err(PeerError::Timeout { .. }) => Err(TransportError::Timeout(to, timeout)),
            Err(error @ (PeerError::UnknownNode(_) | PeerError::Unreachable { .. })) => {
                Err(TransportError::NotSent(to, error.to_string()))
            }
            Err(error) => Err(TransportError::Unreachable(to, error.to_string())),
        }
    }
}

/// A node's word about itself, as it travels.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Word {
    /// Drives and release.
    pub report: NodeReport,
    /// Groups that do not run on it.
    pub ailments: Vec<Ailment>,
    /// The states of its replicas.
    pub digests: Vec<GroupDigest>,
    /// Its shares of the root.
    pub keys: KeyWord,
}

/// Answers peers. Parts are put in as they come up; until then their callers are told to come back.
#[derive(Debug)]
pub struct NodeService {
    name: String,
    node: NodeId,
    started: Instant,
    consensus: OnceLock<Arc<Consensus>>,
    rebuilder: OnceLock<StripeRebuilder>,
    groups: OnceLock<Arc<Groups>>,
    orders: Arc<Orders>,
    objects: OnceLock<Arc<ObjectService>>,
    comparison: Mutex<Comparison>,
    states: OnceLock<States>,
    holder: Arc<Holder>,
    keeper: OnceLock<Arc<Keeper>>,
    journal: OnceLock<Arc<Journal>>,
}

impl NodeService {
    /// A service with no part up yet.
    #[must_use]
    pub fn new(node: NodeId, name: String, orders: Arc<Orders>, holder: Arc<Holder>) -> Self {
        Self {
            name,
            node,
            started: Instant::now(),
            consensus: OnceLock::new(),
            rebuilder: OnceLock::new(),
            groups: OnceLock::new(),
            orders,
            objects: OnceLock::new(),
            comparison: Mutex::default(),
            states: OnceLock::new(),
            holder,
            keeper: OnceLock::new(),
            journal: OnceLock::new(),
        }
    }

    /// Consensus is up.
    pub fn serve_consensus(&self, consensus: Arc<Consensus>, groups: Arc<Groups>) {
        let _ = self.consensus.set(consensus);
        self.orders.serve_groups(Arc::clone(&groups));
        let _ = self.groups.set(groups);
    }

    /// The catalogs are open.
    pub fn serve_states(&self, states: States) {
        let _ = self.states.set(states);
    }

    /// What this node says, groups and all.
    #[must_use]
    pub fn word(&self) -> Word {
        let ailments = self.groups.get().map(|groups| groups.ailments()).unwrap_or_default();
        let digests = self.states.get().map(States::digests).unwrap_or_default();
        Word { report: self.report(), ailments, digests, keys: self.holder.word() }
    }

    /// Drives are up.
    pub fn serve_shards(&self, rebuilder: StripeRebuilder, keeper: Arc<Keeper>) {
        self.orders.serve_drives(Arc::clone(&keeper));
        let _ = self.keeper.set(keeper);
        let _ = self.rebuilder.set(rebuilder);
    }

    /// The second copy of what groups hold is kept.
    pub fn serve_journal(&self, journal: Arc<Journal>) {
        let _ = self.journal.set(journal);
    }

    /// This node's drives, once they are up.
    fn drives(&self) -> Vec<Drive> {
        self.rebuilder.get().map(|rebuilder| rebuilder.shards.local()).unwrap_or_default()
    }

    /// Drives of this node that the cluster empties refuse new shards; the others take them.
    pub fn drain(&self, draining: &BTreeSet<DriveId>) {
        for drive in self.drives() {
            drive.set_draining(draining.contains(&drive.id()));
        }
    }

    /// Ends a round of comparing this node's drives: those that lag behind the others are slow.
    pub fn compare_drives(&self) {
        let drives = self.drives();
        let counters: Vec<_> = drives.iter().map(|drive| (drive.id(), drive.status().counters)).collect();
        let lagging = self.comparison.lock().round(&counters);
        for drive in drives {
            drive.set_lagging(lagging.contains(&drive.id()));
        }
    }

    /// Objects are served: the workers' word becomes part of the report.
    pub fn serve_objects(&self, objects: Arc<ObjectService>) {
        let _ = self.objects.set(objects);
    }

    /// What this node says about itself.
    #[must_use]
    pub fn report(&self) -> NodeReport {
        let drives = self.drives();
        NodeReport {
            node: self.node,
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs(),
            drives_open: self.rebuilder.get().is_some(),
            drives: drives.iter().map(|drive| self.drive_report(&drive.status())).collect(),
            devices: self.keeper.get().map(|keeper| keeper.devices()).unwrap_or_default(),
            workers: self.objects.get().map(|objects| worker_reports(objects)).unwrap_or_default(),
            debts: self.objects.get().map(|objects| debt_reports(objects)).unwrap_or_default(),
            levels: self.objects.get().map(|objects| level_reports(objects)).unwrap_or_default(),
        }
    }

    /// A drive's status as its node reports it.
    fn drive_report(&self, status: &DriveStatus) -> DriveReport {
        let (serial, locate_until) =
            self.keeper.get().map(|keeper| keeper.about(&status.path)).unwrap_or_default();
        DriveReport {
            id: status.id,
            path: status.path.display().to_string(),
            state: match status.state {
                DriveState::Live => DriveReportState::Live,
                DriveState::Slow => DriveReportState::Slow,
                DriveState::Failing => DriveReportState::Failing,
                DriveState::Draining => DriveReportState::Draining,
                DriveState::Gone => DriveReportState::Gone,
                DriveState::Fenced | DriveState::Closed => DriveReportState::Fenced,
            },
            capacity_bytes: status.capacity.get(),
            used_bytes: status.used.get(),
            live_bytes: status.live.get(),
            free_bytes: status.free.get(),
            shards: status.shards,
            errors: status.counters.errors(),
            serial,
            reason: status.reason.clone(),
            locate_until,
        }
    }
}

fn worker_reports(objects: &ObjectService) -> Vec<WorkerReport> {
    let report = |status: WorkerStatus| WorkerReport {
        kind: status.kind.name().to_owned(),
        working: status.working,
        held: status.held,
        done: status.progress.done,
        left: status.progress.left,
        failed: status.progress.failed,
        bytes: status.progress.bytes,
        bytes_per_second: status.rate(),
        elapsed_seconds: status.elapsed.as_secs(),
        remaining_seconds: status.remaining().map(|left| left.as_secs()),
        trouble: status.trouble,
    };
    objects.workers().workers().into_iter().map(report).collect()
}

fn debt_reports(objects: &ObjectService) -> Vec<DebtReport> {
    let report = |(partition, debt): (PartitionId, PartitionDebt)| DebtReport {
        partition,
        tenant: debt.tenant,
        by_lost: debt.stripes.into_iter().collect(),
        unreadable: debt.unreadable,
        draining: debt.draining,
    };
    objects.workers().debt().into_iter().map(report).collect()
}

fn level_reports(objects: &ObjectService) -> Vec<LevelReport> {
    let bucket = |level: &BucketLevel| BucketLevelReport {
        bucket: level.bucket.clone(),
        requested: level.requested,
        own: level.own,
        actual: level.actual,
        stripes: level.stripes,
        pending: level.pending,
    };
    let report = |(partition, found): (PartitionId, PartitionLevels)| LevelReport {
        partition,
        requested: found.requested,
        stripes: found.buckets.iter().map(|level| level.stripes).sum(),
        pending: found.buckets.iter().map(|level| level.pending).sum(),
        buckets: found
            .buckets
            .iter()
            .filter(|level| level.own || level.pending > 0 || level.actual != Some(level.requested))
            .take(LEVELS_REPORTED_MAX)
            .map(bucket)
            .collect(),
    };
    objects.workers().levels().into_iter().map(report).collect()
}

#[async_trait::async_trait]
impl Service for NodeService {
    async fn call(
        &self,
        peer: PeerNode,
        method: Method,
        body: Bytes,
        payload: Option<Buffer>,
    ) -> Result<Reply, Refusal> {
        let starting =
            || Refusal { code: STARTING, message: format!("{} is starting; try again", self.name) };
        match method {
            Method::Raft => {
                let consensus = self.consensus.get().ok_or_else(starting)?;
                let answer = consensus
                    .handle(peer.node, body)
                    .await
                    .map_err(|message| Refusal { code: CONSENSUS, message })?;
                Ok(Reply::with_body(answer))
            }
            Method::NodeStatus => {
                let report = postcard::to_stdvec(&self.word())
                    .map_err(|e| Refusal { code: STARTING, message: format!("report: {e}") })?;
                Ok(Reply::with_body(Bytes::from(report)))
            }
            Method::Clock => {
                let shown = postcard::to_stdvec(&holdfast_clock::machine())
                    .map_err(|e| Refusal { code: STARTING, message: format!("clock: {e}") })?;
                Ok(Reply::with_body(Bytes::from(shown)))
            }
            Method::CatalogHoldings => {
                let journal = self.journal.get().ok_or_else(starting)?;
                let held = journal.answer(&body).map_err(|message| Refusal { code: STARTING, message })?;
                Ok(Reply::with_body(Bytes::from(held)))
            }
            Method::Control => Ok(Reply::with_body(self.orders.carry_out(peer.node, &body).await?)),
            method => {
                let rebuilder = self.rebuilder.get().ok_or_else(starting)?;
                ShardService::new(rebuilder.clone()).call(method, body, payload).await
            }
        }
    }
}
