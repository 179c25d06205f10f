//! Nodes that come, go, restart, fall behind and are damaged.

mod support;

use std::{collections::BTreeSet, io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use holdfast_consensus::{
    Applied, Consensus, ConsensusError, ConsensusOptions, LogError, MembershipError, ProposeError, Role,
    StateMachine,
};
use holdfast_model::{GroupId, NodeId};
use parking_lot::Mutex;
use support::{Cluster, GROUP, eventually, machine};

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId::new).collect()
}

/// Checkpoints, purges and rotations after a few entries.
fn small(options: &mut ConsensusOptions) {
    options.checkpoint.entries = 20;
    options.checkpoint.keep_entries = 5;
    options.log.segment_bytes = 16 * 1024;
    options.log.segments_max = 4;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_grows_from_one_to_three_and_replaces_a_node() {
    let mut cluster = Cluster::start(4).await;
    cluster.form(1).await;
    cluster.put(1, "a", "1").await;
    for id in 2..=3 {
        cluster.consensus(1).add_learner(GROUP, NodeId::new(id)).await.unwrap();
    }
    assert_eq!(cluster.consensus(2).status(GROUP).unwrap().role, Role::Learner);
    cluster.consensus(1).change_voters(GROUP, nodes(&[1, 2, 3])).await.unwrap();
    // Asked through a node that does not lead.
    let leader = cluster.leader_among(&[1, 2, 3]).await;
    let follower = if leader == 3 { 2 } else { 3 };
    let refused = cluster.consensus(follower).change_voters(GROUP, nodes(&[1, 2, 4])).await;
    assert!(
        matches!(refused, Err(MembershipError::NotALearner { node, .. }) if node == NodeId::new(4)),
        "{refused:?}"
    );
    cluster.consensus(follower).add_learner(GROUP, NodeId::new(4)).await.unwrap();
    let gone = follower;
    let rest: Vec<u64> = (1..=4).filter(|&id| id != gone).collect();
    cluster.consensus(follower).change_voters(GROUP, nodes(&rest)).await.unwrap();
    cluster.stop(gone).await;
    assert_eq!(cluster.put(4, "a", "2").await, "1");
    let status = cluster.consensus(4).status(GROUP).unwrap();
    assert_eq!((status.voters, status.learners, status.changing), (nodes(&rest), nodes(&[]), false));
    // Repeating a change is harmless.
    cluster.consensus(4).change_voters(GROUP, nodes(&rest)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_learner_gets_a_snapshot_when_the_log_was_purged() {
    let cluster = Cluster::start_tuned(2, small).await;
    cluster.form(1).await;
    for at in 0..120 {
        cluster.put(1, &format!("k{at}"), &"v".repeat(100)).await;
    }
    let purged = eventually("a purge", || cluster.consensus(1).status(GROUP).unwrap().purged).await;
    assert!(purged > 10, "{purged}");
    cluster.consensus(1).add_learner(GROUP, NodeId::new(2)).await.unwrap();
    eventually("equal states", || {
        let states = [1, 2].map(|id| cluster.running(id).state.lock().clone());
        (states[0] == states[1]).then_some(())
    })
    .await;
    let status = cluster.consensus(2).status(GROUP).unwrap();
    assert!(status.purged > Some(10), "the learner was fed from the log: {status:?}");
    cluster.consensus(1).change_voters(GROUP, nodes(&[1, 2])).await.unwrap();
    cluster.put(2, "after", "1").await;
    cluster.consensus(2).read_barrier(GROUP).await.unwrap();
    assert_eq!(cluster.running(2).state.lock().values.len(), 121);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_cannot_be_installed_leaves_the_log_as_it_was() {
    let cluster = Cluster::start_tuned(3, small).await;
    cluster.form(3).await;
    let leader = cluster.leader().await;
    let behind = leader % 3 + 1;
    cluster.put(leader, "early", "1").await;
    eventually("it everywhere", || cluster.running(behind).state.lock().values.get("early").map(drop)).await;
    cluster.network.isolate(behind, &[1, 2, 3]);
    for at in 0..120 {
        cluster.put(leader, &format!("k{at}"), &"v".repeat(100)).await;
    }
    // Nothing can be written there, as on a full disk.
    let dir = cluster.nodes[behind as usize - 1].dir.join("machine");
    std::fs::create_dir(dir.join("state.new")).unwrap();
    cluster.network.heal();
    let consensus = cluster.consensus(behind);
    eventually("it to stop", || consensus.status(GROUP)?.failure).await;
    consensus.stop_group(GROUP).await.unwrap();
    std::fs::remove_dir(dir.join("state.new")).unwrap();

    // As a restart would find it: with the entries it had, to be filled again.
    let machine = machine::KvMachine::open(&dir).unwrap();
    assert!(machine.position().is_none(), "it never made a checkpoint");
    let state = machine.state();
    consensus.start_group(GROUP, Box::new(machine)).await.unwrap();
    eventually("all of it", || (state.lock().values.len() == 121).then_some(())).await;
    cluster.put(behind, "late", "1").await;
    consensus.read_barrier(GROUP).await.unwrap();
    assert_eq!(state.lock().values["late"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_failed_is_read_back_before_the_group_starts_again() {
    let cluster = Cluster::start_tuned(3, small).await;
    cluster.form(3).await;
    let leader = cluster.leader().await;
    let failing = leader % 3 + 1;
    let (consensus, dir) = (cluster.consensus(failing), &cluster.nodes[failing as usize - 1].dir);
    let (log, away) = (dir.join("raft/log"), dir.join("raft/away"));
    // The next segment cannot be made, as on a full disk.
    std::fs::rename(&log, &away).unwrap();
    let mut written = 0;
    while consensus.log_failure().is_none() {
        cluster.put(leader, &format!("k{written}"), &"v".repeat(500)).await;
        written += 1;
        assert!(written < 1000, "the log needed no segment");
    }
    eventually("it to stop", || consensus.status(GROUP)?.failure).await;
    consensus.stop_group(GROUP).await.unwrap();
    let machine = || Box::new(machine::KvMachine::open(&dir.join("machine")).unwrap());
    let refused = consensus.start_group(GROUP, machine()).await;
    assert!(matches!(refused, Err(ConsensusError::Log(_))), "{refused:?}");
    assert!(consensus.log_failure().is_some());

    std::fs::rename(&away, &log).unwrap();
    let machine = machine();
    let state = machine.state();
    consensus.start_group(GROUP, machine).await.unwrap();
    assert!(consensus.log_failure().is_none());
    eventually("all of it", || (state.lock().values.len() == written).then_some(())).await;
    cluster.put(failing, "late", "1").await;
    consensus.read_barrier(GROUP).await.unwrap();
    assert_eq!(state.lock().values["late"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_segments_go_and_a_restart_loses_nothing() {
    let mut cluster = Cluster::start_tuned(1, small).await;
    cluster.form(1).await;
    for round in 0..5 {
        for at in 0..60 {
            cluster.put(1, &format!("k{round}-{at}"), &"v".repeat(300)).await;
        }
        if round % 2 == 0 {
            cluster.stop(1).await;
        } else {
            cluster.kill(1).await;
        }
        cluster.boot(1).await;
        cluster.leader().await;
        cluster.consensus(1).read_barrier(GROUP).await.unwrap();
        assert_eq!(cluster.running(1).state.lock().values.len(), 60 * (round + 1));
    }
    let log = cluster.nodes[0].dir.join("raft/log");
    let segments = eventually("old segments to go", || {
        let count = std::fs::read_dir(&log).unwrap().count();
        (count <= 6).then_some(count)
    })
    .await;
    println!("{segments} segments left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_group_does_not_keep_the_log_of_a_busy_one() {
    let cluster = Cluster::start_tuned(1, small).await;
    cluster.form(1).await;
    let idle = GroupId::new(7);
    let dir = cluster.root.path().join("idle");
    cluster.consensus(1).start_group(idle, Box::new(machine::KvMachine::open(&dir).unwrap())).await.unwrap();
    cluster.consensus(1).initialize(idle, nodes(&[1])).await.unwrap();
    cluster.consensus(1).propose(idle, machine::put("a", "1")).await.unwrap();
    for at in 0..400 {
        cluster.put(1, &format!("k{at}"), &"v".repeat(300)).await;
    }
    let log = cluster.nodes[0].dir.join("raft/log");
    eventually("old segments to go", || (std::fs::read_dir(&log).unwrap().count() <= 6).then_some(())).await;
    assert!(cluster.consensus(1).status(idle).unwrap().purged.is_some());
    cluster.consensus(1).propose(idle, machine::put("a", "2")).await.unwrap();
}

/// Whether a log holds these bytes.
fn holds(log: &std::path::Path, bytes: &[u8]) -> bool {
    let mut files = std::fs::read_dir(log).expect("the log is a directory");
    files.any(|entry| {
        // A segment may go while it is looked for.
        let read = entry.and_then(|entry| std::fs::read(entry.path())).unwrap_or_default();
        read.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_log_holds_nothing_of_before_and_the_group_goes_on() {
    let mut cluster = Cluster::formed(3).await;
    let planted = "a wrapped key that is to leave the log";
    cluster.put(1, "k", planted).await;
    cluster.put(1, "k", "replaced").await;
    for id in 1..=3 {
        cluster.consensus(id).read_barrier(GROUP).await.unwrap();
        let log = cluster.nodes[usize::try_from(id).unwrap() - 1].dir.join("raft/log");
        assert!(holds(&log, planted.as_bytes()), "the search finds it while it is there");
        let renewal = cluster.consensus(id).renew_log().await.unwrap();
        eventually("the log to be renewed", || cluster.consensus(id).has_renewed(renewal).then_some(()))
            .await;
        assert!(!holds(&log, planted.as_bytes()), "node {id}");
    }
    cluster.put(2, "l", "afterwards").await;
    cluster.kill(1).await;
    cluster.boot(1).await;
    cluster.leader().await;
    cluster.consensus(1).read_barrier(GROUP).await.unwrap();
    assert_eq!(cluster.running(1).state.lock().values.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_does_not_depose_the_leader() {
    let cluster = Cluster::formed(3).await;
    let leader = cluster.leader().await;
    let away = leader % 3 + 1;
    let term = cluster.consensus(leader).status(GROUP).unwrap().term;
    cluster.network.isolate(away, &[1, 2, 3]);
    tokio::time::sleep(Duration::from_secs(4)).await;
    cluster.network.heal();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.put(away, "a", "1").await;
    let status = cluster.consensus(away).status(GROUP).unwrap();
    assert_eq!((status.term, status.leader), (term, Some(NodeId::new(leader))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_group_is_refused_by_name_and_can_be_added_again() {
    let mut cluster = Cluster::formed(3).await;
    for at in 0..20 {
        cluster.put(1, &format!("k{at}"), "v").await;
    }
    let leader = cluster.leader().await;
    let victim = leader % 3 + 1;
    cluster.consensus(victim).read_barrier(GROUP).await.unwrap();
    cluster.kill(victim).await;
    let dir = cluster.nodes[victim as usize - 1].dir.clone();
    // One bit of one entry's payload, in the middle of the log.
    let segment = std::fs::read_dir(dir.join("raft/log")).unwrap().map(|e| e.unwrap().path()).min().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(7).position(|window| window == b"put k10").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).unwrap();

    let transport = std::sync::Arc::new(cluster.network.endpoint(NodeId::new(victim)));
    let options = ConsensusOptions::new(NodeId::new(victim), dir.join("raft"), transport);
    let consensus = Consensus::open(options).await.unwrap();
    let open = |name: &str| Box::new(machine::KvMachine::open(&dir.join(name)).unwrap());
    let refused = consensus.start_group(GROUP, open("machine")).await;
    assert!(
        matches!(&refused, Err(ConsensusError::Log(LogError::GroupDamaged { group, .. })) if *group == GROUP),
        "{refused:?}"
    );
    // Another group of the same log is not affected.
    consensus.start_group(GroupId::new(5), open("other")).await.unwrap();

    // The way back: out of the group, forget, in again, with the state from the others.
    let rest: Vec<u64> = (1..=3).filter(|&id| id != victim).collect();
    cluster.consensus(leader).change_voters(GROUP, nodes(&rest)).await.unwrap();
    consensus.forget_group(GROUP).await.unwrap();
    let machine = machine::KvMachine::open(&dir.join("machine-again")).unwrap();
    let state = machine.state();
    consensus.start_group(GROUP, Box::new(machine)).await.unwrap();
    cluster.network.attach(NodeId::new(victim), &consensus);
    cluster.consensus(leader).add_learner(GROUP, NodeId::new(victim)).await.unwrap();
    cluster.consensus(leader).change_voters(GROUP, nodes(&[1, 2, 3])).await.unwrap();
    consensus.read_barrier(GROUP).await.unwrap();
    assert_eq!(state.lock().values.len(), 20);
    consensus.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_can_be_handed_to_a_chosen_node_while_commands_keep_coming() {
    let cluster = std::sync::Arc::new(Cluster::formed(3).await);
    let (mut handed_over, mut increments) = (0, 0);
    for _ in 0..12 {
        let from = cluster.leader().await;
        let to = from % 3 + 1;
        let caller = {
            let cluster = std::sync::Arc::clone(&cluster);
            tokio::spawn(async move {
                for _ in 0..50 {
                    cluster.consensus(from).propose(GROUP, machine::increment("a")).await.unwrap();
                }
            })
        };
        let handed = cluster.consensus(from).hand_over(GROUP, NodeId::new(to)).await;
        let leader = cluster.leader().await;
        caller.await.unwrap();
        match handed {
            Ok(()) => assert_eq!(leader, to),
            // On a machine without time to spare another voter may win; never unsaid.
            Err(error) => assert!(leader != to, "{error}"),
        }
        increments += 50;
        if leader == from {
            continue;
        }
        handed_over += u32::from(leader == to);
        let refused = cluster.consensus(from).hand_over(GROUP, NodeId::new(to)).await;
        assert!(matches!(refused, Err(MembershipError::Invalid { .. })), "{refused:?}");
        if handed_over == 3 {
            break;
        }
    }
    assert!(handed_over >= 3, "{handed_over} of 12");
    let value = cluster.consensus(1).propose(GROUP, machine::increment("a")).await.unwrap();
    assert_eq!(value, (increments + 1).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_can_be_stopped_and_started_again() {
    let cluster = Cluster::formed(1).await;
    let consensus = cluster.consensus(1);
    cluster.put(1, "a", "1").await;
    consensus.stop_group(GROUP).await.unwrap();
    assert!(matches!(
        consensus.propose(GROUP, machine::increment("b")).await,
        Err(ProposeError::NoSuchGroup(_))
    ));
    let machine = machine::KvMachine::open(&cluster.nodes[0].dir.join("machine")).unwrap();
    consensus.start_group(GROUP, Box::new(machine)).await.unwrap();
    assert_eq!(cluster.put(1, "a", "2").await, "1");
}

/// Applies nothing while its gate is closed.
struct Gated {
    gate: std::sync::Arc<std::sync::atomic::AtomicBool>,
    applied: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl StateMachine for Gated {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        use std::sync::atomic::Ordering::SeqCst;
        while self.gate.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let commands: usize = entries.iter().map(|entry| entry.commands.len()).sum();
        self.applied.fetch_add(commands as u64, SeqCst);
        Ok(entries.iter().map(|entry| vec![Bytes::new(); entry.commands.len()]).collect())
    }
    fn checkpoint(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn position(&self) -> Option<Vec<u8>> {
        None
    }
    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        std::fs::write(path, b"")
    }
    fn install(&mut self, _: &Path, _: &[u8]) -> io::Result<()> {
        panic!("the slow follower is fed from the log")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_machine_is_stuck_takes_a_bounded_part_of_the_log() {
    use std::sync::atomic::Ordering::SeqCst;
    let cluster = Cluster::start_tuned(3, |options| options.checkpoint.keep_bytes = 1 << 30).await;
    let slow = GroupId::new(9);
    let mut gates = Vec::new();
    for id in 1..=3 {
        let gated = Gated { gate: Default::default(), applied: Default::default() };
        gates.push((std::sync::Arc::clone(&gated.gate), std::sync::Arc::clone(&gated.applied)));
        cluster.consensus(id).start_group(slow, Box::new(gated)).await.unwrap();
    }
    cluster.consensus(1).initialize(slow, nodes(&[1, 2, 3])).await.unwrap();
    let one = Bytes::from(vec![7; 1 << 20]);
    cluster.consensus(1).propose(slow, one.clone()).await.unwrap();
    let leader = cluster.consensus(1).status(slow).unwrap().leader.unwrap().get();
    let stuck = leader % 3 + 1;
    gates[stuck as usize - 1].0.store(true, SeqCst);
    for _ in 0..60 {
        cluster.consensus(leader).propose(slow, one.clone()).await.unwrap();
    }
    let taken = cluster.consensus(stuck).status(slow).unwrap().last_log.unwrap();
    let all = cluster.consensus(leader).status(slow).unwrap();
    assert!(taken < 45, "{taken} MiB were taken, of {:?}", all.last_log);
    assert_eq!((all.role, all.leader), (Role::Leader, Some(NodeId::new(leader))));
    gates[stuck as usize - 1].0.store(false, SeqCst);
    eventually("the slow machine", || (gates[stuck as usize - 1].1.load(SeqCst) == 61).then_some(())).await;
}

/// Fails until it is told that it need not, and keeps what it has applied.
#[derive(Clone, Default)]
struct Starved(Arc<Mutex<(bool, Vec<Bytes>)>>);

impl StateMachine for Starved {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let mut state = self.0.lock();
        let commands = || entries.iter().flat_map(|entry| entry.commands).cloned();
        if !state.0 && commands().any(|command| &command[..] == b"hungry") {
            return Err(io::Error::other("no memory"));
        }
        state.1.extend(commands());
        Ok(entries.iter().map(|entry| entry.commands.to_vec()).collect())
    }
    fn checkpoint(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn position(&self) -> Option<Vec<u8>> {
        None
    }
    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        std::fs::write(path, b"")
    }
    fn install(&mut self, _: &Path, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_fails_stops_its_group_and_no_other() {
    let cluster = Cluster::formed(1).await;
    let brittle = GroupId::new(8);
    let consensus = cluster.consensus(1);
    consensus.start_group(brittle, Box::new(Starved::default())).await.unwrap();
    consensus.initialize(brittle, nodes(&[1])).await.unwrap();
    assert_eq!(consensus.propose(brittle, Bytes::from_static(b"fine")).await.unwrap(), "fine");
    let broken = consensus.propose(brittle, Bytes::from_static(b"hungry")).await;
    assert!(matches!(broken, Err(ProposeError::Unknown { .. })), "{broken:?}");
    let after = consensus.propose(brittle, Bytes::from_static(b"fine")).await;
    assert!(matches!(after, Err(ProposeError::Stopped { .. })), "{after:?}");
    assert!(consensus.read_barrier(brittle).await.is_err());
    let status = consensus.status(brittle).unwrap();
    assert!(status.role == Role::Stopped && status.failure.unwrap().contains("no memory"));
    cluster.put(1, "a", "1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_machine_failed_starts_again_and_applies_what_it_could_not() {
    let cluster = Cluster::formed(1).await;
    let (group, machine) = (GroupId::new(8), Starved::default());
    let consensus = cluster.consensus(1);
    consensus.start_group(group, Box::new(machine.clone())).await.unwrap();
    consensus.initialize(group, nodes(&[1])).await.unwrap();
    let unknown = consensus.propose(group, Bytes::from_static(b"hungry")).await;
    assert!(matches!(unknown, Err(ProposeError::Unknown { .. })), "{unknown:?}");
    consensus.stop_group(group).await.unwrap();
    machine.0.lock().0 = true;
    consensus.start_group(group, Box::new(machine.clone())).await.unwrap();
    eventually("a leader", || consensus.status(group).filter(|status| status.leader.is_some())).await;
    assert_eq!(consensus.propose(group, Bytes::from_static(b"fed")).await.unwrap(), "fed");
    assert_eq!(machine.0.lock().1, ["hungry", "fed"], "it was decided, and is applied once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_commands_are_refused_as_busy_and_not_queued() {
    let cluster = Cluster::start_tuned(1, |options| options.batch.commands_queued = 8).await;
    // No leader yet: whatever is accepted waits.
    let consensus = cluster.consensus(1);
    let started = std::time::Instant::now();
    let wait = Duration::from_millis(300);
    let all = join_all((0..20).map(|_| consensus.propose_within(GROUP, machine::increment("a"), wait))).await;
    let busy = all.iter().filter(|result| matches!(result, Err(ProposeError::Busy(_)))).count();
    let waited = all.iter().filter(|result| matches!(result, Err(ProposeError::NoLeader { .. }))).count();
    assert_eq!((busy, waited), (12, 8), "{all:?}");
    assert!(started.elapsed() >= wait);
    // Nothing of it comes back once there is a leader.
    cluster.form(1).await;
    assert_eq!(consensus.propose(GROUP, machine::increment("a")).await.unwrap(), "1");
    let large = Bytes::from(vec![b'x'; holdfast_consensus::COMMAND_BYTES_MAX + 1]);
    assert!(matches!(consensus.propose(GROUP, large).await, Err(ProposeError::TooLarge { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_of_the_largest_size_reaches_all_nodes() {
    let cluster = Cluster::formed(3).await;
    let value = "v".repeat(holdfast_consensus::COMMAND_BYTES_MAX - 6);
    let follower = cluster.leader().await % 3 + 1;
    cluster.put(follower, "a", &value).await;
    for id in 1..=3 {
        cluster.consensus(id).read_barrier(GROUP).await.unwrap();
        assert_eq!(cluster.running(id).state.lock().values["a"].len(), value.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_log_is_noticed_by_itself_and_by_the_leader() {
    let mut cluster = Cluster::formed(3).await;
    cluster.put(1, "a", "1").await;
    let leader = cluster.leader().await;
    let victim = leader % 3 + 1;
    cluster.consensus(victim).read_barrier(GROUP).await.unwrap();
    assert!(cluster.consensus(victim).log_is_fresh());
    cluster.stop(victim).await;
    let dir = cluster.nodes[victim as usize - 1].dir.clone();
    std::fs::remove_dir_all(dir.join("raft")).unwrap();
    let transport = std::sync::Arc::new(cluster.network.endpoint(NodeId::new(victim)));
    let options = ConsensusOptions::new(NodeId::new(victim), dir.join("raft"), transport);
    let consensus = Consensus::open(options).await.unwrap();
    assert!(consensus.log_is_fresh());
    // The machine's files remember the log that is gone.
    let machine = machine::KvMachine::open(&dir.join("machine")).unwrap();
    let refused = consensus.start_group(GROUP, Box::new(machine)).await;
    assert!(matches!(refused, Err(ConsensusError::LogLost { .. })), "{refused:?}");
    // With those lost as well, the leader does not count the node, and goes on.
    let machine = machine::KvMachine::open(&dir.join("machine-anew")).unwrap();
    consensus.start_group(GROUP, Box::new(machine)).await.unwrap();
    cluster.network.attach(NodeId::new(victim), &consensus);
    let before = cluster.consensus(leader).status(GROUP).unwrap().replicated[&NodeId::new(victim)];
    cluster.put(leader, "a", "2").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let status = cluster.consensus(leader).status(GROUP).unwrap();
    assert_eq!((status.role, status.replicated[&NodeId::new(victim)]), (Role::Leader, before));
    assert_eq!(consensus.status(GROUP).unwrap().last_log, None);
    consensus.shutdown().await.unwrap();
}
