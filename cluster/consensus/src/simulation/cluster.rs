//! The nodes of a simulation: what of each survives, what runs, and how its power is cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use holdfast_model::NodeId;
use parking_lot::Mutex;

use super::{
    faults::{Keep, Planted},
    host::SimulatedHost,
    keeper::Keeper,
    machine::{Ledger, LedgerMachine, Saved},
    network::{Link, Network},
    observe::Observer,
    random::Random,
    runtime::{Executor, Owner},
    space::Room,
};
use crate::{
    Consensus, ConsensusOptions,
    host::Host,
    log::liar::LiarDisk,
    options::{CheckpointLimits, LogLimits, Timing},
};

/// A node that runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) run: Owner,
    pub(crate) consensus: Arc<Consensus>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

/// Who runs. Clones share it.
pub(crate) type Board = Arc<Mutex<BTreeMap<NodeId, Running>>>;

/// One node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    disk: LiarDisk,
    saved: Arc<Mutex<Saved>>,
    /// Of the disk with the machine's files.
    pub(crate) room: Room,
    pub(crate) timing: Timing,
    /// Its present run, if the power is on.
    pub(crate) on: Option<SimulatedHost>,
    /// The power went off in the middle of something.
    dark: Arc<AtomicBool>,
    /// Its present run is being shut down.
    pub(crate) closing: Arc<AtomicBool>,
}

pub(crate) struct Cluster {
    pub(crate) executor: Executor,
    pub(crate) network: Network,
    pub(crate) observer: Observer,
    pub(crate) board: Board,
    pub(crate) nodes: Vec<Node>,
    pub(crate) random: Random,
    pub(crate) planted: Option<Planted>,
    dir: PathBuf,
    runs: Owner,
}

/// Clocks of different nodes do not run alike: what is a lease to one is more to another.
fn timing(random: &mut Random) -> Timing {
    let percent = 100 + u32::try_from(random.below(40)).unwrap();
    let millis = |millis: u32| Duration::from_millis(u64::from(millis * percent / 100));
    Timing { heartbeat: millis(50), append_timeout: millis(200), lease: millis(400), spread: millis(200) }
}

impl Cluster {
    /// Nodes `1..=count`, switched off.
    pub(crate) fn new(
        executor: Executor,
        observer: Observer,
        mut random: Random,
        planted: Option<Planted>,
        dir: PathBuf,
        count: u64,
    ) -> Self {
        let lies = planted == Some(Planted::SentButSaysNotSent);
        let network = Network::new(executor.clone(), observer.clone(), random.fork(), lies);
        let node = |id| Node {
            id: NodeId::new(id),
            disk: LiarDisk::default(),
            saved: Arc::default(),
            room: Room::default(),
            timing: timing(&mut random),
            on: None,
            dark: Arc::default(),
            closing: Arc::default(),
        };
        let nodes = (1..=count).map(node).collect();
        Self { executor, network, observer, board: Board::default(), nodes, random, planted, dir, runs: 0 }
    }

    /// Switches a node on. It is on the board when it has started.
    pub(crate) fn boot(&mut self, at: usize) {
        self.runs += 1;
        let run = self.runs;
        let host = SimulatedHost::new(self.executor.clone(), run, self.random.fork(), self.planted);
        let node = &mut self.nodes[at];
        let (id, disk) = (node.id, node.disk.clone());
        self.observer.note(format_args!("{id} is switched on"));
        if self.planted == Some(Planted::DiskThatLies) {
            disk.lie();
        }
        node.on = Some(host.clone());
        node.dark = Arc::default();
        node.closing = Arc::default();
        let link = Link { from: id, run, network: self.network.clone() };
        let mut options = ConsensusOptions::new(id, self.dir.join(id.to_string()), Arc::new(link));
        options.timing = node.timing;
        // Small, so that checkpoints, purges, snapshots and new segments are frequent.
        options.checkpoint =
            CheckpointLimits { entries: 25, bytes: 1 << 20, keep_entries: 10, keep_bytes: 1 << 20 };
        options.log = LogLimits { segment_bytes: 16 * 1024, segments_max: 4 };
        options.host = Host::Simulated(host);
        let ledger = Arc::new(Mutex::new(node.saved.lock().ledger.clone()));
        let machine = LedgerMachine {
            node: id,
            ledger: Arc::clone(&ledger),
            saved: Arc::clone(&node.saved),
            room: node.room.clone(),
            held: node.saved.lock().held,
            observer: self.observer.clone(),
            planted: self.planted,
        };
        let (network, board, observer) =
            (self.network.clone(), Arc::clone(&self.board), self.observer.clone());
        let (dark, closing) = (Arc::clone(&node.dark), Arc::clone(&node.closing));
        self.executor.spawn_on(run, async move {
            let starting = async {
                let consensus = Consensus::open_on(options, Arc::new(disk.clone())).await?;
                let keeper = Keeper { node: id, consensus, machine, observer: observer.clone(), closing };
                let runs = keeper.start().await?;
                Ok::<_, crate::ConsensusError>((keeper, runs))
            };
            match starting.await {
                Ok((keeper, runs)) => {
                    observer.note(format_args!("{id} has started, and the group: {runs}"));
                    let consensus = Arc::clone(&keeper.consensus);
                    network.attach(id, run, &consensus, disk);
                    board.lock().insert(id, Running { run, consensus, ledger });
                    keeper.run(runs).await;
                }
                Err(_) if dark.load(Ordering::SeqCst) => {}
                Err(error) => observer.violation(format!("{id} does not start: {error}")),
            }
        });
    }

    /// Nothing of a node goes on. False when it was off.
    fn ends(&mut self, at: usize, how: std::fmt::Arguments<'_>) -> bool {
        let node = &mut self.nodes[at];
        let Some(host) = node.on.take() else { return false };
        self.observer.note(format_args!("{} {how}", node.id));
        self.network.kill(node.id, host.owner);
        let running = self.board.lock().remove(&node.id);
        self.executor.kill(host.owner);
        drop(running);
        true
    }

    /// The program of a node ends where it is; its machine, and what that has in memory of its disk, do not.
    pub(crate) fn kill(&mut self, at: usize) {
        if self.ends(at, format_args!("is killed")) {
            self.nodes[at].disk = self.nodes[at].disk.after_process_end();
        }
    }

    /// Cuts the power of a node that is on: of what was not flushed `keep` says what is kept.
    pub(crate) fn power_cut(&mut self, at: usize, keep: Keep) {
        if !self.ends(at, format_args!("loses power, keeps {keep:?}")) {
            return;
        }
        let node = &mut self.nodes[at];
        let mut sectors = 0;
        let random = &mut self.random;
        node.disk = node.disk.after_power_cut(|| {
            sectors += 1;
            match keep {
                Keep::Nothing => false,
                Keep::Everything => true,
                Keep::First(count) => sectors <= count,
                Keep::Some => random.percent(50),
            }
        });
        if self.planted == Some(Planted::TailDropped) {
            node.disk = without_tail(&node.disk);
        }
    }

    /// Arranges for the power to go off in the middle of what the log does, some moments from now.
    pub(crate) fn power_cut_within(&self, at: usize, moments: u64) {
        let node = &self.nodes[at];
        let Some(host) = &node.on else { return };
        let (executor, network, owner, id) =
            (self.executor.clone(), self.network.clone(), host.owner, node.id);
        let (dark, observer) = (Arc::clone(&node.dark), self.observer.clone());
        node.disk.cut_power_in(moments, move || {
            observer.note(format_args!("{id} goes dark"));
            dark.store(true, Ordering::SeqCst);
            network.kill(id, owner);
            executor.pause(owner);
        });
    }

    /// Nodes that lost power by themselves.
    pub(crate) fn dark(&self) -> Vec<usize> {
        let dark = |node: &Node| node.on.is_some() && node.dark.load(Ordering::SeqCst);
        (0..self.nodes.len()).filter(|at| dark(&self.nodes[*at])).collect()
    }

    /// Tells later whether the present run of a node lost power by itself.
    pub(crate) fn is_dark(&self, at: usize) -> impl Fn() -> bool + Send + use<> {
        let dark = Arc::clone(&self.nodes[at].dark);
        move || dark.load(Ordering::SeqCst)
    }

    /// A flush of its log fails, and what it should have written is gone at once, or is seen to be once the power goes.
    pub(crate) fn fail_one_flush(&self, at: usize, unseen: bool) {
        let disk = &self.nodes[at].disk;
        if unseen { disk.fail_one_flush_unseen() } else { disk.fail_one_flush() }
    }

    pub(crate) fn ids(&self) -> BTreeSet<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }
}

/// The disk as if somebody had cut the log at what does not read back.
fn without_tail(disk: &LiarDisk) -> LiarDisk {
    const SECTOR: usize = 512;
    let mut image = disk.image();
    if let Some(content) = image.values_mut().next_back()
        && let Some(last) = content.iter().rposition(|byte| *byte != 0)
        && last >= SECTOR
    {
        let start = last / SECTOR * SECTOR;
        content[start..].fill(0);
    }
    LiarDisk::from_image(image)
}
