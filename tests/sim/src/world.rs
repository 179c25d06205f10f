//! Everything around the nodes of one run: links, the log, disks, chance, and who is on.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_crypt::TenantKey;
use holdfast_fault::Random;
use holdfast_model::{DriveId, NodeId, PartitionId, UnixMillis};
use holdfast_object::host::Host;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    keys::{Gate, KeyState},
    log::SimLog,
    net::Net,
    node::Running,
    plan::Plan,
    rig::{GUEST_PARTITION, PARTITION},
    trace::Trace,
};

/// When every run begins.
const BEGINNING_MILLIS: u64 = 1_800_000_000_000;

/// The world of one run.
pub struct World {
    /// The plan.
    pub plan: Plan,
    /// What happened.
    pub trace: Trace,
    /// Links.
    pub net: Net,
    /// The log that decides.
    pub log: SimLog,
    /// Nodes, while they are on.
    pub nodes: Mutex<Vec<Option<Arc<Running>>>>,
    /// The second tenant's key on each node.
    pub gates: Vec<Arc<Gate>>,
    /// How that key stands, as was decided.
    key_state: Mutex<KeyState>,
    /// Drives that have left.
    left: Mutex<Vec<DriveId>>,
    /// Which nodes are members, as each node has heard.
    members: Mutex<Vec<Vec<usize>>>,
    /// How often each node was started; a node's tasks of before do nothing any more.
    lives: Vec<AtomicU64>,
    /// Added to the time of day.
    skipped_millis: AtomicU64,
    begun: Instant,
    chance: Mutex<Random>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.plan.seed).finish_non_exhaustive()
    }
}

impl World {
    /// The world of a plan. Needs a runtime.
    #[must_use]
    pub fn new(plan: Plan, log: SimLog, guest_key: &Arc<TenantKey>, print: bool) -> Arc<Self> {
        let nodes = plan.nodes;
        Arc::new(Self {
            trace: Trace::new(print),
            net: Net::new(nodes, stream(plan.seed, "net", 0)),
            log,
            nodes: Mutex::new((0..nodes).map(|_| None).collect()),
            gates: (0..nodes).map(|_| Gate::new(Arc::clone(guest_key))).collect(),
            key_state: Mutex::default(),
            left: Mutex::default(),
            members: Mutex::new(vec![(0..plan.founders()).collect(); nodes]),
            lives: (0..nodes).map(|_| AtomicU64::new(0)).collect(),
            skipped_millis: AtomicU64::new(0),
            begun: Instant::now(),
            chance: Mutex::new(Random::new(stream(plan.seed, "chance", 0))),
            plan,
        })
    }

    /// The node of a number, when it is on.
    #[must_use]
    pub fn node(&self, node: usize) -> Option<Arc<Running>> {
        self.nodes.lock()[node].clone()
    }

    /// How the second tenant's key stands.
    #[must_use]
    pub fn key_state(&self) -> KeyState {
        *self.key_state.lock()
    }

    /// How it stands is decided. What is to be destroyed does not come back.
    pub fn decide_key_state(&self, state: KeyState) {
        let mut held = self.key_state.lock();
        let destroyed = matches!(*held, KeyState::Shredding | KeyState::Destroyed);
        if !destroyed || state == KeyState::Destroyed {
            *held = state;
        }
    }

    /// Partitions of tenants whose keys are not destroyed.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionId> {
        let with_guest = !self.plan.guests.is_empty() && self.key_state() != KeyState::Destroyed;
        [PARTITION, GUEST_PARTITION][..1 + usize::from(with_guest)].to_vec()
    }

    /// A drive has left for good, whether it is in its bay or not.
    pub fn drive_left(&self, drive: DriveId) {
        self.left.lock().push(drive);
    }

    /// Whether a drive has left.
    #[must_use]
    pub fn has_left(&self, drive: DriveId) -> bool {
        self.left.lock().contains(&drive)
    }

    /// The nodes that a node takes for members.
    #[must_use]
    pub fn members_known_to(&self, node: usize) -> Vec<usize> {
        self.members.lock()[node].clone()
    }

    /// A node hears which nodes are members.
    pub fn hear_of_members(&self, node: usize, members: &[usize]) {
        self.members.lock()[node] = members.to_vec();
    }

    /// Nodes that are on.
    #[must_use]
    pub fn serving(&self) -> Vec<usize> {
        let nodes = self.nodes.lock();
        (0..nodes.len()).filter(|node| nodes[*node].is_some()).collect()
    }

    /// The life a node is in.
    #[must_use]
    pub fn life(&self, node: usize) -> u64 {
        self.lives[node].load(Ordering::Relaxed)
    }

    /// A node's life ends, or begins.
    pub fn next_life(&self, node: usize) {
        self.lives[node].fetch_add(1, Ordering::Relaxed);
    }

    /// Whether a node is on, and in this life.
    #[must_use]
    pub fn is_on(&self, node: usize, life: u64) -> bool {
        self.life(node) == life
    }

    /// The time of day goes on without anything happening.
    pub fn skip(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.skipped_millis.fetch_add(millis, Ordering::Relaxed);
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> UnixMillis {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        UnixMillis::new(BEGINNING_MILLIS + since + self.skipped_millis.load(Ordering::Relaxed))
    }
}

/// Puts a world in the place of the machine.
pub struct SimHost(pub Arc<World>);

impl fmt::Debug for SimHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimHost")
    }
}

impl Host for SimHost {
    fn now(&self) -> UnixMillis {
        self.0.now()
    }

    fn fill(&self, bytes: &mut [u8]) {
        let mut chance = self.0.chance.lock();
        for chunk in bytes.chunks_mut(8) {
            let word = chance.number().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// The seed of one part of a run: parts do not disturb each other.
#[must_use]
pub fn stream(seed: u64, part: &str, number: u64) -> u64 {
    let mut mixed = Random::new(seed);
    let mut state = mixed.number();
    for byte in part.bytes() {
        state = Random::new(state ^ u64::from(byte)).number();
    }
    Random::new(state ^ number).number()
}

/// The id of a node's number.
#[must_use]
pub fn node_id(node: usize) -> NodeId {
    NodeId::new(node as u64 + 1)
}

/// The number of a node's id.
#[must_use]
pub fn node_number(node: NodeId) -> usize {
    usize::try_from(node.get()).expect("few nodes") - 1
}
