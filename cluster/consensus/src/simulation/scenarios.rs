//! What seeds found, each by itself and without anything else that goes wrong.

use std::{collections::BTreeSet, future::Future, time::Duration};

use holdfast_model::NodeId;
use tokio::time::{sleep, timeout};

use super::{
    FIRST_VOTERS, GROUP,
    cluster::{Cluster, Running},
    faults::Keep,
    machine::{command, number},
    network::Weather,
    run_with,
    runtime::WORLD,
};
use crate::Role;

/// Seeds of each scenario, unless `HOLDFAST_SCENARIO_SEEDS` says otherwise.
const SEEDS: u64 = 20;

/// How long machines that stand still are watched.
const WATCHED: Duration = Duration::from_secs(120);

/// Elections in that time at most: each node finds out once or twice how slow the leader is.
const ELECTIONS_MAX: u64 = 12;

/// Longest flush where machines are slow.
const SLOW_FLUSH_MILLIS_MAX: u64 = 120;

/// Longest way of most messages there.
const SLOW_WAY_MILLIS_MAX: u64 = 60;

/// Hand-overs and losses of leaders in one run.
const CHANGES: usize = 6;

/// Candidatures that such a change may take on slow machines. Two that stand in the same moment are no fault of either.
const CANDIDATURES_MAX: usize = 2;

/// Longer than it takes to replace a leader there.
const REPLACED: Duration = Duration::from_secs(5);

/// Runs `scenario` under some seeds.
fn under_seeds<F: Future<Output = ()> + Send + 'static>(scenario: fn(Cluster) -> F) {
    let asked = std::env::var("HOLDFAST_SCENARIO_SEEDS").ok().and_then(|value| value.parse().ok());
    for seed in 0..asked.unwrap_or(SEEDS) {
        let outcome = run_with(seed, None, move |cluster, _| scenario(cluster));
        if let Some(violation) = outcome.violation {
            println!("{}", outcome.trace);
            panic!("seed {seed}: {violation}");
        }
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

    /// A vote takes longer than it is between the turns of two voters.
    fn is_slow(&self) {
        for node in &self.nodes {
            node.on.iter().for_each(|host| host.set_flush_millis_max(SLOW_FLUSH_MILLIS_MAX));
        }
        self.network.set_weather(Weather { millis_max: SLOW_WAY_MILLIS_MAX, ..Weather::CALM });
    }

    /// Checks that nobody outdated votes that it had asked for and that might still have come.
    fn candidates_wait_for_their_votes(&self) {
        let all = self.observer.candidatures();
        for node in &self.nodes {
            let own: Vec<_> = all.iter().filter(|((_, by), _)| *by == node.id.get()).collect();
            for pair in own.windows(2) {
                let [((earlier, _), asked), ((later, _), again)] = pair else { continue };
                let waited = **again - **asked;
                if waited < node.timing.lease {
                    self.observer.violation(format!(
                        "node {} stood in term {earlier} and again in {later}, {waited:?} later",
                        node.id
                    ));
                }
            }
        }
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

/// On slow machines: who was chosen stood again at every pulse, before the votes for it were in, and outdated them. And
/// who had handed over, gave its vote, and had heard of nobody for as long as it led, stood at once and deposed it.
#[test]
fn who_is_handed_the_lead_waits_for_the_votes_it_asked_for() {
    under_seeds(|mut cluster| async move {
        cluster.form(FIRST_VOTERS).await;
        cluster.is_slow();
        let mut done = 0;
        for _ in 0..CHANGES {
            cluster.serve_again().await.unwrap();
            let (leader, before) = (cluster.leader(), cluster.observer.candidatures().len());
            let to = cluster.nodes[(leader + 1) % FIRST_VOTERS].id;
            let Running { run, consensus, .. } = cluster.running(leader).unwrap();
            let handing = cluster.executor.spawn_on(run, async move { consensus.hand_over(GROUP, to).await });
            let handed = handing.await.unwrap();
            done += usize::from(handed.is_ok());
            let stood = cluster.observer.candidatures().len() - before;
            cluster.observer.note(format_args!("{handed:?} after {stood} candidatures"));
            if stood > CANDIDATURES_MAX {
                return cluster.observer.violation(format!("a hand-over took {stood} candidatures"));
            }
        }
        if done * 2 < CHANGES {
            cluster.observer.violation(format!("{done} of {CHANGES} hand-overs were done"));
        }
        cluster.candidates_wait_for_their_votes();
    });
}

/// On slow machines: who had asked whether it would be elected stood when it was told so, though it had given its own
/// vote to another since, and deposed that one.
#[test]
fn a_leader_that_is_lost_is_replaced_once() {
    under_seeds(|mut cluster| async move {
        cluster.form(FIRST_VOTERS).await;
        cluster.is_slow();
        for _ in 0..CHANGES {
            cluster.serve_again().await.unwrap();
            let lost = cluster.leader();
            let (stood, led) = (cluster.observer.candidatures().len(), cluster.observer.leaders().len());
            cluster.power_cut(lost, Keep::Everything);
            sleep(REPLACED).await;
            let stood = cluster.observer.candidatures().len() - stood;
            let led = cluster.observer.leaders().len() - led;
            cluster.observer.note(format_args!("{led} leaders after {stood} candidatures"));
            if led != 1 {
                return cluster.observer.violation(format!("{led} leaders instead of one that was lost"));
            }
            if stood > CANDIDATURES_MAX {
                return cluster.observer.violation(format!("a new leader took {stood} candidatures"));
            }
            cluster.boot(lost);
            while cluster.running(lost).is_none() {
                sleep(Duration::from_millis(1)).await;
            }
            cluster.is_slow();
        }
        cluster.candidates_wait_for_their_votes();
    });
}
