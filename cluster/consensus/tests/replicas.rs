//! Three nodes in one process: agreement, batching, barriers, loss of the leader, partitions.

mod support;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::future::join_all;
use support::{Cluster, GROUP, eventually, machine};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_applied_everywhere_and_answered_from_any_node() {
    let cluster = Cluster::formed(3).await;
    for (through, (key, value)) in [(1, ("a", "1")), (2, ("b", "2")), (3, ("a", "3"))] {
        let before = cluster.put(through, key, value).await;
        assert_eq!(before, if value == "3" { "1" } else { "" });
    }
    for id in 1..=3 {
        cluster.consensus(id).read_barrier(GROUP).await.unwrap();
        let state = cluster.running(id).state.lock().clone();
        assert_eq!((state.values["a"].as_str(), state.values["b"].as_str()), ("3", "2"), "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_concurrent_commands_are_applied_once_each() {
    let cluster = Arc::new(Cluster::formed(3).await);
    let callers = (0..100).map(|caller: u64| {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move {
            for _ in 0..100 {
                let command = machine::increment(&format!("k{caller}"));
                cluster.consensus(1 + caller % 3).propose(GROUP, command).await.unwrap();
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    for id in 1..=3 {
        cluster.consensus(id).read_barrier(GROUP).await.unwrap();
        let state = cluster.running(id).state.lock().clone();
        assert_eq!(state.commands, 10_000, "node {id}");
        assert!(state.values.values().all(|count| count == "100"), "node {id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_proposers_share_flushes() {
    let cluster = Arc::new(Cluster::formed(3).await);
    let flushes = |cluster: &Cluster| (1..=3).map(|id| cluster.consensus(id).counters().flushes).sum::<u64>();
    let leader = cluster.leader().await;
    let before = flushes(&cluster);
    let callers = (0..64).map(|caller: u64| {
        let cluster = Arc::clone(&cluster);
        tokio::spawn(async move {
            for _ in 0..50 {
                cluster
                    .consensus(leader)
                    .propose(GROUP, machine::increment(&format!("k{caller}")))
                    .await
                    .unwrap();
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    let per_command = (flushes(&cluster) - before) as f64 / 3200.0;
    println!("flushes per command, all three nodes together: {per_command:.3}");
    assert!(per_command < 0.5, "{per_command}");
    let counters = cluster.consensus(leader).counters();
    assert_eq!(counters.commands, 3200);
    assert!(counters.proposals < 1600, "{counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn initializing_again_changes_nothing() {
    let cluster = Cluster::formed(1).await;
    cluster.put(1, "a", "1").await;
    let only = BTreeSet::from([holdfast_model::NodeId::new(1)]);
    cluster.consensus(1).initialize(GROUP, only.clone()).await.unwrap();
    assert_eq!(cluster.put(1, "a", "2").await, "1");
    assert_eq!(cluster.consensus(1).status(GROUP).unwrap().voters, only);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_leader_goes_the_others_go_on_and_it_catches_up_later() {
    let mut cluster = Cluster::formed(3).await;
    cluster.put(1, "a", "1").await;
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    let other = if leader == 1 { 2 } else { 1 };
    assert_eq!(cluster.put(other, "a", "2").await, "1");
    cluster.boot(leader).await;
    cluster.consensus(leader).read_barrier(GROUP).await.unwrap();
    assert_eq!(cluster.running(leader).state.lock().values["a"], "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_serves_neither_reads_nor_writes_and_yields_when_healed() {
    let cluster = Cluster::formed(3).await;
    cluster.put(1, "a", "1").await;
    let old = cluster.leader().await;
    let rest: Vec<u64> = (1..=3).filter(|&id| id != old).collect();
    cluster.network.isolate(old, &rest);
    let new = cluster.leader_among(&rest).await;
    assert_eq!(cluster.put(new, "a", "2").await, "1");
    // The old leader still holds "1": a barrier there must not return while it is cut off.
    let cut_off = cluster.consensus(old);
    let barrier = tokio::time::timeout(Duration::from_secs(2), cut_off.read_barrier(GROUP)).await;
    assert!(!matches!(barrier, Ok(Ok(()))), "a stale read was allowed");
    assert_eq!(cluster.running(old).state.lock().values["a"], "1");
    cluster.network.heal();
    cluster.consensus(old).read_barrier(GROUP).await.unwrap();
    assert_eq!(cluster.running(old).state.lock().values["a"], "2");
    eventually("equal states", || {
        let states: Vec<_> = (1..=3).map(|id| cluster.running(id).state.lock().clone()).collect();
        states.windows(2).all(|pair| pair[0] == pair[1]).then_some(())
    })
    .await;
}
