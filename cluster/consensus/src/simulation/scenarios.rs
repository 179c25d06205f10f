//! What seeds found, each by itself and without anything else that goes wrong.

use std::{collections::BTreeSet, future::Future, time::Duration};

use holdfast_model::NodeId;
use tokio::time::{sleep, timeout};

use super::{
    FIRST_VOTERS, GROUP,
    cluster::{Cluster, Running},
    faults::Keep,
    machine::{command, number},
    run_with,
    runtime::WORLD,
};
use crate::Role;

/// How long machines that stand still are watched.
const WATCHED: Duration = Duration::from_secs(120);

/// Elections in that time at most: each node finds out once or twice how slow the leader is.
const ELECTIONS_MAX: u64 = 12;

/// Runs `scenario` under some seeds.
fn under_seeds<F: Future<Output = ()> + Send + 'static>(scenario: fn(Cluster) -> F) {
    for seed in 0..20 {
        let outcome = run_with(seed, None, move |cluster, _| scenario(cluster));
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}

impl Cluster {
    fn leader(&self) -> usize {
        let board = self.board.lock();
        let leads = |id: NodeId| {
            board.get(&id).and_then(|running| running.consensus.status(GROUP)).map(|status| status.role)
                == Some(Role::Leader)
        };
        (0..self.nodes.len()).find(|at| leads(self.nodes[*at].id)).unwrap()
    }

    fn running(&self, at: usize) -> Option<Running> {
        self.board.lock().get(&self.nodes[at].id).cloned()
    }

    fn term(&self) -> u64 {
        let board = self.board.lock();
        let statuses = board.values().filter_map(|running| running.consensus.status(GROUP));
        statuses.map(|status| status.term).max().unwrap_or(0)
    }

    async fn write(&self, at: usize) {
        let Running { run, consensus, .. } = self.running(at).unwrap();
        let (id, told) = self.observer.clients(|history| Ok(history.begin())).unwrap();
        let writing = self.executor.spawn_on(run, async move { consensus.propose(GROUP, command(id)).await });
        let place = writing.await.unwrap().unwrap();
        self.observer.clients(|history| history.acknowledged(id, told, number(&place)));
    }

    async fn read(&self, at: usize) {
        let Running { run, consensus, ledger } = self.running(at).unwrap();
        let (_, told) = self.observer.clients(|history| Ok(history.begin())).unwrap();
        let reading = self.executor.spawn_on(run, async move { consensus.read_barrier(GROUP).await });
        reading.await.unwrap().unwrap();
        let length = ledger.lock().ids.len() as u64;
        self.observer.clients(|history| history.read(told, length));
    }
}

/// openraft lets it lead on at once, and does not know how far it had committed.
#[test]
fn a_leader_that_is_restarted_reads_what_it_had_acknowledged() {
    under_seeds(|mut cluster| async move {
        cluster.form(FIRST_VOTERS).await;
        cluster.serve_again().await.unwrap();
        let leader = cluster.leader();
        for _ in 0..5 {
            cluster.write(leader).await;
            cluster.power_cut(leader, Keep::Nothing);
            cluster.boot(leader);
            while cluster.running(leader).is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            cluster.read(leader).await;
            cluster.serve_again().await.unwrap();
            if cluster.leader() != leader {
                return;
            }
        }
    });
}

/// openraft asserts that it does not, though it leads on for a moment.
#[test]
fn a_leader_that_left_the_group_makes_no_further_change() {
    under_seeds(|mut cluster| async move {
        cluster.form(FIRST_VOTERS).await;
        cluster.serve_again().await.unwrap();
        let leader = cluster.leader();
        let Running { run, consensus, .. } = cluster.running(leader).unwrap();
        let own = cluster.nodes[leader].id;
        let others: BTreeSet<NodeId> =
            cluster.ids().into_iter().take(FIRST_VOTERS).filter(|id| *id != own).collect();
        let leaving = cluster.executor.spawn_on(run, async move {
            consensus.change_voters(GROUP, others).await.unwrap();
            // Whether the rest of the group makes it, or nobody, is not decided here.
            let _ = timeout(Duration::from_millis(500), consensus.add_learner(GROUP, NodeId::new(5))).await;
        });
        leaving.await.unwrap();
        cluster.serve_again().await.unwrap();
    });
}

/// From a change that was left in its middle, openraft goes on to the next one in one step, which may take the leader
/// out of the group, and then asks it for another.
#[test]
fn a_change_that_was_left_in_its_middle_ends_before_the_next() {
    under_seeds(|mut cluster| async move {
        cluster.form(FIRST_VOTERS).await;
        for patience in 1..30 {
            cluster.serve_again().await.unwrap();
            let leader = cluster.leader();
            let Running { run, consensus, .. } = cluster.running(leader).unwrap();
            let own = cluster.nodes[leader].id;
            let all = cluster.ids();
            let others: Vec<NodeId> = all.iter().copied().filter(|id| *id != own).collect();
            let changing = cluster.executor.spawn_on(run, async move {
                for node in all {
                    let _ = timeout(Duration::from_millis(500), consensus.add_learner(GROUP, node)).await;
                }
                let [first, next] = [&others[..2], &others[1..3]].map(|some| some.iter().copied().collect());
                let patience = Duration::from_millis(patience);
                let _ = timeout(patience, consensus.change_voters(GROUP, first)).await;
                // Whether it is made is not decided here: this leader may be the one to go.
                let _ = timeout(Duration::from_millis(500), consensus.change_voters(GROUP, next)).await;
            });
            changing.await.unwrap();
        }
        cluster.serve_again().await.unwrap();
    });
}

/// Emulated machines on a busy host: now and then each stands still for longer than a lease. Leaders that are only late
/// were deposed by the dozen, and every election was more work for machines that could not do the work they had.
#[test]
fn machines_that_are_slow_keep_their_leader() {
    under_seeds(|mut cluster| async move {
        cluster.form(FIRST_VOTERS).await;
        cluster.serve_again().await.unwrap();
        for at in 0..FIRST_VOTERS {
            let owner = cluster.nodes[at].on.clone().unwrap().owner;
            let (executor, mut random) = (cluster.executor.clone(), cluster.random.fork());
            cluster.executor.spawn_on(WORLD, async move {
                loop {
                    sleep(Duration::from_millis(100 + random.below(1000))).await;
                    executor.pause(owner);
                    sleep(Duration::from_millis(200 + random.below(700))).await;
                    executor.resume(owner);
                }
            });
        }
        let before = cluster.term();
        sleep(WATCHED).await;
        let elections = cluster.term() - before;
        cluster.observer.note(format_args!("{elections} elections"));
        println!("{elections} elections");
        assert!(elections <= ELECTIONS_MAX, "{elections} elections in {WATCHED:?}");
    });
}
