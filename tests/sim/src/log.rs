//! The log that decides, in place of consensus: a list that is appended to while a leader reaches a majority, and
//! replicas that follow it each at its own pace. What consensus itself does wrong is tried by its own simulation.

use std::{
    collections::BTreeMap,
    fmt,
    future::pending,
    sync::{Arc, Weak},
    time::Duration,
};

use bytes::Bytes;
use holdfast_catalog::{CatalogMachine, CatalogReader, Response, decode_outcome};
use holdfast_consensus::{Applied, ProposeError, ReadError, StateMachine};
use holdfast_fault::Random;
use holdfast_model::{GroupId, NodeId};
use holdfast_object::Decides;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::world::{World, node_id};

/// How long a leader is looked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// How late a command may be decided whose outcome is unknown, in milliseconds.
const LATE_MAX_MILLIS: u64 = 3000;

/// Entries that a replica applies again when its node starts.
const REPLAYED: usize = 6;

/// The group of the catalog.
pub const GROUP: GroupId = GroupId::new(1);

/// Replicas by node.
pub type Machines = Vec<Arc<Mutex<CatalogMachine>>>;

/// See the module.
pub struct SimLog {
    machines: Machines,
    state: Mutex<State>,
}

impl fmt::Debug for SimLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLog").field("last", &self.last()).finish_non_exhaustive()
    }
}

struct State {
    random: Random,
    entries: Vec<(u64, Bytes)>,
    next: u64,
    /// How many entries each replica has applied.
    applied: Vec<usize>,
    answers: BTreeMap<u64, Bytes>,
    leader: usize,
    /// Whose word counts.
    voters: Vec<usize>,
    /// Until when outcomes may be unknown, and of how many commands, in percent.
    unknown: Option<(Instant, u64)>,
    /// When a command was decided last whose caller had been told before.
    late: Option<Instant>,
}

/// What becomes of a command whose outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// It is never decided.
    Lost,
    /// It is decided after its caller was told.
    Late,
    /// It is decided, and the answer does not come.
    Unheard,
}

impl State {
    /// Whether the outcome of the next command is unknown, and what becomes of it then.
    fn confused(&mut self) -> Option<Unknown> {
        let (until, percent) = self.unknown?;
        if Instant::now() >= until || !self.random.chance(percent) {
            return None;
        }
        let all = [Unknown::Lost, Unknown::Late, Unknown::Unheard];
        Some(all[self.random.below(all.len() as u64) as usize])
    }
}

impl SimLog {
    /// A log whose next entry has the index after `last`, of so many nodes, of which the first few vote.
    #[must_use]
    pub fn new(machines: Machines, (nodes, voters): (usize, usize), last: u64, seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            entries: Vec::new(),
            next: last + 1,
            applied: vec![0; nodes],
            answers: BTreeMap::new(),
            leader: 0,
            voters: (0..voters).collect(),
            unknown: None,
            late: None,
        };
        Self { machines, state: Mutex::new(state) }
    }

    /// What a node's replica holds.
    #[must_use]
    pub fn reader(&self, node: usize) -> CatalogReader {
        self.machines[node].lock().reader()
    }

    /// What a replica holds that has applied everything, if one has.
    #[must_use]
    pub fn complete(&self) -> Option<CatalogReader> {
        let node = {
            let state = self.state.lock();
            state.applied.iter().position(|applied| *applied == state.entries.len())
        };
        node.map(|node| self.reader(node))
    }

    /// The index of the last entry.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.state.lock().next - 1
    }

    /// Entries of this run.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Outcomes may be unknown for so long, of so many commands in a hundred.
    pub fn confuse(&self, time: Duration, percent: u64) {
        self.state.lock().unknown = Some((Instant::now() + time, percent));
    }

    /// All outcomes are known again.
    pub fn heal(&self) {
        self.state.lock().unknown = None;
    }

    /// Whether a command was decided within the last `time` whose caller had been told before.
    #[must_use]
    pub fn decided_late(&self, time: Duration) -> bool {
        self.state.lock().late.is_some_and(|late| late.elapsed() < time)
    }

    /// Who leads.
    #[must_use]
    pub fn leader(&self) -> usize {
        self.state.lock().leader
    }

    /// Who votes, from now on.
    pub fn set_voters(&self, voters: Vec<usize>) {
        self.state.lock().voters = voters;
    }

    /// Who votes.
    #[must_use]
    pub fn voters(&self) -> Vec<usize> {
        self.state.lock().voters.clone()
    }

    /// Another node leads, if one can.
    pub fn hand_over(&self, world: &World) {
        let able: Vec<usize> = (0..world.plan.nodes).filter(|node| has_majority(world, *node)).collect();
        let mut state = self.state.lock();
        let others: Vec<usize> = able.into_iter().filter(|node| *node != state.leader).collect();
        if others.is_empty() {
            return;
        }
        state.leader = others[state.random.below(others.len() as u64) as usize];
        world.trace.note(format_args!("n{} leads", state.leader + 1));
    }

    /// Puts a command into the log as it is, for what founds a run.
    pub fn append(&self, command: Bytes) -> u64 {
        let mut state = self.state.lock();
        let index = state.next;
        state.next += 1;
        state.entries.push((index, command));
        index
    }

    /// Has the replica of a node apply everything up to the `count`-th entry.
    pub fn catch_up(&self, world: &World, node: usize, count: usize) {
        let (from, entries) = {
            let state = self.state.lock();
            let from = state.applied[node];
            (from, state.entries[from.min(count)..count].to_vec())
        };
        self.apply(world, node, &entries);
        self.state.lock().applied[node] = from.max(count);
    }

    /// The index of the entry that founds a run: it makes the partition.
    fn founding(&self) -> u64 {
        self.state.lock().entries.first().map_or(0, |(index, _)| *index)
    }

    /// Has the replica of a node that starts apply once more what it may have applied before its end.
    pub fn replay(&self, world: &World, node: usize) {
        let entries = {
            let state = self.state.lock();
            let applied = state.applied[node];
            state.entries[applied.saturating_sub(REPLAYED)..applied].to_vec()
        };
        let commands: Vec<[Bytes; 1]> = entries.iter().map(|(_, command)| [command.clone()]).collect();
        let again: Vec<Applied<'_>> = entries
            .iter()
            .zip(&commands)
            .map(|((index, _), commands)| Applied { index: *index, commands })
            .collect();
        let answers = match self.machines[node].lock().apply(&again) {
            Ok(answers) => answers.concat(),
            Err(error) => {
                return world.trace.violation("catalog", format_args!("n{} replays: {error}", node + 1));
            }
        };
        let (founding, replayed) = (self.founding(), Ok(Ok(Response::Replayed)));
        for ((index, _), answer) in entries.iter().zip(answers) {
            if *index != founding && decode_outcome(&answer) != replayed {
                world.trace.violation(
                    "catalog",
                    format_args!("n{} applies entry +{} again", node + 1, index - founding),
                );
            }
        }
    }

    fn apply(&self, world: &World, node: usize, entries: &[(u64, Bytes)]) {
        if entries.is_empty() {
            return;
        }
        let commands: Vec<[Bytes; 1]> = entries.iter().map(|(_, command)| [command.clone()]).collect();
        let batch: Vec<Applied<'_>> = entries
            .iter()
            .zip(&commands)
            .map(|((index, _), commands)| Applied { index: *index, commands })
            .collect();
        let answers = match self.machines[node].lock().apply(&batch) {
            Ok(answers) => answers,
            Err(error) => {
                return world.trace.violation("catalog", format_args!("n{} applies: {error}", node + 1));
            }
        };
        let mut state = self.state.lock();
        for ((index, _), answer) in entries.iter().zip(answers) {
            let answer = answer.into_iter().next().unwrap_or_default();
            let first = state.answers.entry(*index).or_insert_with(|| answer.clone());
            if *first != answer {
                let at = index.saturating_sub(entries[0].0);
                world
                    .trace
                    .violation("replicas", format_args!("n{} answers entry +{at} as no other did", node + 1));
            }
        }
    }

    /// Where a node's proposal or read gets its word from: the leader, if the node reaches it and it a majority.
    fn reaches_leader(&self, world: &World, node: usize) -> Option<usize> {
        let leader = self.leader();
        (has_majority(world, leader) && world.net.connects(node, leader)).then_some(leader)
    }

    async fn find_leader(&self, world: &World, node: usize, life: u64) -> bool {
        let begun = Instant::now();
        loop {
            if !world.is_on(node, life) {
                pending::<()>().await;
            }
            if self.reaches_leader(world, node).is_some() {
                return true;
            }
            if begun.elapsed() > PATIENCE {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    async fn propose(
        &self,
        world: &Arc<World>,
        node: usize,
        life: u64,
        command: Bytes,
    ) -> Result<Bytes, ProposeError> {
        if !self.find_leader(world, node, life).await {
            return Err(ProposeError::NoLeader { group: GROUP, waited: PATIENCE });
        }
        sleep(world.net.latency()).await;
        let unknown = |reason: &str| ProposeError::Unknown { group: GROUP, reason: reason.to_owned() };
        let confused = self.state.lock().confused();
        if confused == Some(Unknown::Lost) || self.reaches_leader(world, node).is_none() {
            return Err(unknown("lost on its way"));
        }
        if confused == Some(Unknown::Late) {
            let late = Duration::from_millis(self.state.lock().random.below(LATE_MAX_MILLIS));
            let world = Arc::clone(world);
            tokio::spawn(async move {
                sleep(late).await;
                if has_majority(&world, world.log.leader()) {
                    world.log.append(command);
                    world.log.state.lock().late = Some(Instant::now());
                }
            });
            return Err(unknown("still under way"));
        }
        let index = self.append(command);
        let count = self.len();
        sleep(world.net.latency()).await;
        if !world.is_on(node, life) {
            return pending().await;
        }
        if confused == Some(Unknown::Unheard) {
            return Err(unknown("the answer did not come"));
        }
        self.catch_up(world, node, count);
        let answer = self.state.lock().answers.get(&index).cloned();
        answer.ok_or_else(|| unknown("not applied"))
    }

    async fn read_barrier(&self, world: &World, node: usize, life: u64) -> Result<(), ReadError> {
        if !self.find_leader(world, node, life).await {
            return Err(ReadError::NoQuorum { group: GROUP, waited: PATIENCE });
        }
        let count = self.len();
        sleep(world.net.latency()).await;
        if !world.is_on(node, life) {
            return pending().await;
        }
        self.catch_up(world, node, count);
        Ok(())
    }
}

fn has_majority(world: &World, node: usize) -> bool {
    let voters = world.log.voters();
    if world.node(node).is_none() || !voters.contains(&node) {
        return false;
    }
    let reached = |other: &&usize| world.node(**other).is_some() && world.net.connects(node, **other);
    voters.iter().filter(reached).count() * 2 > voters.len()
}

/// Looks after the leader of a run until it ends.
pub async fn lead(world: Arc<World>) {
    loop {
        sleep(Duration::from_millis(500)).await;
        if !has_majority(&world, world.log.leader()) {
            world.log.hand_over(&world);
        }
    }
}

/// The log as one node, in one of its lives, sees it.
#[derive(Debug)]
pub struct Seat {
    /// The run.
    pub world: Weak<World>,
    /// Who.
    pub node: usize,
    /// In which life.
    pub life: u64,
}

#[async_trait::async_trait]
impl Decides for Seat {
    async fn propose(&self, _: GroupId, command: Bytes) -> Result<Bytes, ProposeError> {
        let Some(world) = self.world.upgrade() else { return pending().await };
        world.log.propose(&world, self.node, self.life, command).await
    }

    async fn read_barrier(&self, _: GroupId) -> Result<(), ReadError> {
        let Some(world) = self.world.upgrade() else { return pending().await };
        world.log.read_barrier(&world, self.node, self.life).await
    }

    fn leader(&self, _: GroupId) -> Option<NodeId> {
        let world = self.world.upgrade()?;
        if !world.is_on(self.node, self.life) {
            return None;
        }
        let leader = world.log.leader();
        world.net.connects(self.node, leader).then(|| node_id(leader))
    }

    fn leads(&self, group: GroupId) -> bool {
        self.leader(group) == Some(node_id(self.node))
    }
}
