//! What goes wrong in a simulation, and when: drawn from the seed.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use holdfast_model::NodeId;
use tokio::time::{sleep, timeout};

use super::{
    GROUP,
    cluster::{Cluster, Running},
    network::Weather,
    runtime::WORLD,
    space::Space,
};

/// Bugs that a test plants to see them caught. All sit in what the simulation puts in place of disk,
/// network, threads, machine and clients; the code under test is as it ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// The log answers a vote before its flush.
    VoteAnsweredBeforeFlush,
    /// The log keeps votes in memory only: a restart forgets them.
    VoteNotWritten,
    /// The log answers an append before its flush.
    AppendAnsweredBeforeFlush,
    /// The log does not write that entries were truncated.
    TruncationNotWritten,
    /// The disk acknowledges flushes and does nothing.
    DiskThatLies,
    /// At a restart the end of the log is cut, though it was flushed.
    TailDropped,
    /// A checkpoint stores its position and not the state.
    CheckpointWithoutState,
    /// The machine's state survives without the position that belongs to it: entries are applied again.
    StateSavedWithoutPosition,
    /// What a machine computes depends on where it runs.
    MachineThatKnowsItsNode,
    /// A machine whose group is started again applies once more what it holds.
    MachineThatForgetsWhatItHolds,
    /// A node that believes to lead serves reads without asking a quorum.
    LeaderThatReadsAlone,
    /// The transport says that nothing was sent, when only the answer was lost.
    SentButSaysNotSent,
}

/// What a power cut leaves of the sectors that were written and not flushed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keep {
    Nothing,
    Everything,
    /// The first so many.
    First(u64),
    /// Any, by chance.
    Some,
}

/// How long one membership change is tried.
const CHANGE_PATIENCE: Duration = Duration::from_secs(4);

/// How long a disk stays full at most, in milliseconds.
const FULL_MILLIS_MAX: u64 = 3000;

impl Cluster {
    /// Waits a while, then does some harm.
    pub(crate) async fn harm(&mut self) {
        sleep(Duration::from_millis(50 + self.random.below(600))).await;
        for at in self.dark() {
            let keep = self.keep();
            self.power_cut(at, keep);
        }
        let at = usize::try_from(self.random.below(self.nodes.len() as u64)).unwrap();
        if self.nodes[at].on.is_none() {
            return self.boot(at);
        }
        match self.random.below(26) {
            0 | 1 => self.isolate(at),
            2 => self.cut_one_link(),
            3 => self.split(),
            4..=6 => {
                self.observer.note(format_args!("the network heals"));
                self.network.heal();
            }
            7 => {
                let weather = Weather {
                    millis_max: self.random.pick(&[1, 5, 30, 120]),
                    lost_percent: self.random.pick(&[0, 0, 3, 15]),
                    doubled_percent: self.random.pick(&[0, 10, 30]),
                };
                self.observer.note(format_args!("{weather:?}"));
                self.network.set_weather(weather);
            }
            8..=10 => {
                let keep = self.keep();
                self.power_cut(at, keep);
            }
            11..=13 => {
                let moments = self.random.below(40);
                self.power_cut_within(at, moments);
            }
            14 => self.restart_in_order(at).await,
            15 | 16 => self.pause(at),
            17 => {
                let millis = self.random.pick(&[0, 2, 20, 150, 300]);
                self.observer.note(format_args!("flushes of {} take {millis} ms", self.nodes[at].id));
                self.nodes[at].on.iter().for_each(|host| host.set_flush_millis_max(millis));
            }
            18 => {
                let unseen = self.random.percent(50);
                self.observer.note(format_args!("a flush of {} fails, unseen: {unseen}", self.nodes[at].id));
                self.fail_one_flush(at, unseen);
            }
            19 | 20 => self.change_membership(at),
            21..=23 => self.fill_disk(at),
            24 => self.kill(at),
            _ => self.hand_over(at),
        }
    }

    /// Everything is well from now on.
    pub(crate) fn relent(&mut self) {
        self.observer.note(format_args!("no more harm"));
        self.network.heal();
        self.network.set_weather(Weather::CALM);
        for at in 0..self.nodes.len() {
            self.nodes[at].room.set(Space::Plenty);
            // Armed power cuts end with the run.
            let keep = self.keep();
            self.power_cut(at, keep);
            self.boot(at);
        }
    }

    fn keep(&mut self) -> Keep {
        match self.random.below(4) {
            0 => Keep::Nothing,
            1 => Keep::Everything,
            2 => Keep::First(self.random.below(4)),
            _ => Keep::Some,
        }
    }

    fn isolate(&mut self, at: usize) {
        let (id, both) = (self.nodes[at].id, self.random.percent(60));
        let outward = self.random.percent(50);
        self.observer.note(format_args!("{id} is cut off, both ways: {both}, outward: {outward}"));
        for other in self.ids().into_iter().filter(|other| *other != id) {
            if both || outward {
                self.network.cut(id, other);
            }
            if both || !outward {
                self.network.cut(other, id);
            }
        }
    }

    fn cut_one_link(&mut self) {
        let ids: Vec<NodeId> = self.ids().into_iter().collect();
        let (from, to) = (self.random.pick(&ids), self.random.pick(&ids));
        self.observer.note(format_args!("{from} does not reach {to}"));
        self.network.cut(from, to);
    }

    fn split(&mut self) {
        let (one, other): (Vec<NodeId>, Vec<NodeId>) =
            self.ids().into_iter().partition(|_| self.random.percent(50));
        self.observer.note(format_args!("{one:?} and {other:?} are apart"));
        for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
            self.network.cut(a, b);
            self.network.cut(b, a);
        }
    }

    /// Its tasks lie still, then all its timers have run out at once: to it, the clock jumped.
    fn pause(&mut self, at: usize) {
        let Some(host) = self.nodes[at].on.clone() else { return };
        let millis = 30 + self.random.below(1500);
        self.observer.note(format_args!("{} stands still for {millis} ms", self.nodes[at].id));
        let executor = self.executor.clone();
        executor.pause(host.owner);
        let dark = self.is_dark(at);
        self.executor.spawn_on(WORLD, async move {
            sleep(Duration::from_millis(millis)).await;
            if !dark() {
                executor.resume(host.owner);
            }
        });
    }

    /// Its machine finds no room for some time.
    fn fill_disk(&mut self, at: usize) {
        let (id, room) = (self.nodes[at].id, self.nodes[at].room.clone());
        let (space, millis) =
            (self.random.pick(&[Space::Little, Space::None]), self.random.below(FULL_MILLIS_MAX));
        self.observer.note(format_args!("for {millis} ms the machine of {id} has room for {space:?}"));
        room.set(space);
        self.executor.spawn_on(WORLD, async move {
            sleep(Duration::from_millis(millis)).await;
            room.set(Space::Plenty);
        });
    }

    async fn restart_in_order(&mut self, at: usize) {
        let id = self.nodes[at].id;
        let Some(Running { run, consensus, .. }) = self.board.lock().get(&id).cloned() else { return };
        self.observer.note(format_args!("{id} is shut down"));
        self.nodes[at].closing.store(true, Ordering::SeqCst);
        let closing = self.executor.spawn_on(run, async move { consensus.shutdown().await });
        let closed = timeout(Duration::from_millis(300), closing).await;
        self.observer.note(format_args!("{id} has shut down: {}", closed.is_ok()));
        let keep = self.keep();
        self.power_cut(at, keep);
    }

    fn change_membership(&mut self, through: usize) {
        let id = self.nodes[through].id;
        let Some(Running { run, consensus, .. }) = self.board.lock().get(&id).cloned() else { return };
        let size = self.random.pick(&[2, 3, 3, 3, 4, 5]);
        let mut ids: Vec<NodeId> = self.ids().into_iter().collect();
        while ids.len() > size {
            let at = usize::try_from(self.random.below(ids.len() as u64)).unwrap();
            ids.remove(at);
        }
        let (voters, keep): (BTreeSet<NodeId>, bool) = (ids.into_iter().collect(), self.random.percent(40));
        self.observer.note(format_args!("through {id}: {voters:?} shall vote, others stay: {keep}"));
        let observer = self.observer.clone();
        self.executor.spawn_on(run, async move {
            let changing = async {
                let status = consensus.status(GROUP);
                let known = status.map(|status| &status.voters | &status.learners).unwrap_or_default();
                for node in voters.difference(&known) {
                    consensus.add_learner(GROUP, *node).await?;
                }
                if keep {
                    return consensus.demote_others(GROUP, voters).await;
                }
                consensus.change_voters(GROUP, voters).await
            };
            let result = timeout(CHANGE_PATIENCE, changing).await;
            observer.note(format_args!("through {id}: {result:?}"));
        });
    }

    fn hand_over(&mut self, to: usize) {
        let to = self.nodes[to].id;
        let observer = self.observer.clone();
        for (from, Running { run, consensus, .. }) in self.board.lock().clone() {
            let observer = observer.clone();
            self.executor.spawn_on(run, async move {
                if consensus.status(GROUP).is_some_and(|status| status.role == crate::Role::Leader) {
                    let result = consensus.hand_over(GROUP, to).await;
                    observer.note(format_args!("{from} hands over to {to}: {result:?}"));
                }
            });
        }
    }
}
