//! Calls over links: what arrives, what bounds them, what breaks them.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures::future::join_all;
use holdfast_model::{ByteCount, NodeId, limits::SHARD_SIZE_MAX};
use holdfast_peer::{
    BULK_IN_FLIGHT_MAX, ConnectError, Method, PeerClient, PeerError, PeerServer, SharedPayload,
    frame::BODY_SIZE_MAX, pki::PEER_VALIDITY,
};
use holdfast_ring::BufferPool;
use support::*;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// Longer than anything a test waits for: a call that runs this long was not ended by what it should be.
const FOREVER: Duration = Duration::from_secs(300);

async fn control(client: &PeerClient, body: &'static str, timeout: Duration) -> Result<Bytes, PeerError> {
    client.call(SERVER, Method::Control, Bytes::from(body), None, timeout).await.map(|answer| answer.body)
}

/// Waits for something that will come, however slow the machine.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what} did not happen");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_of_every_size_come_back_as_they_went() {
    let pair = pair().await;
    let sizes = [
        1,
        15,
        4095,
        4096,
        4097,
        16_383,
        65_536,
        65_552,
        100_000,
        262_144,
        SHARD_SIZE_MAX - 1,
        SHARD_SIZE_MAX,
    ];
    for (seed, size) in sizes.into_iter().enumerate() {
        let mut shard = pair.pool.acquire(size).await;
        fill(&mut shard, seed as u64);
        let expected = shard.to_vec();
        let name = Bytes::from(size.to_string());
        let put = pair
            .client
            .call(SERVER, Method::ShardPut, name.clone(), Some(shard.into()), TIMEOUT)
            .await
            .unwrap();
        assert!(put.body.is_empty() && put.payload.is_none());
        let answer = pair.client.call(SERVER, Method::ShardGet, name, None, TIMEOUT).await.unwrap();
        assert_eq!(&*answer.payload.unwrap(), expected.as_slice(), "{size} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_every_size_come_back_as_they_went() {
    let pair = pair().await;
    for size in [0, 1, 16 * 1024, 16 * 1024 + 1, 1 << 20, BODY_SIZE_MAX] {
        let mut body = vec![0; size];
        fill(&mut body, size as u64);
        let body = Bytes::from(body);
        let answer = pair.client.call(SERVER, Method::Raft, body.clone(), None, TIMEOUT).await.unwrap();
        assert_eq!(answer.body, body, "{size} bytes");
    }
    let over = Bytes::from(vec![0; BODY_SIZE_MAX + 1]);
    let error = pair.client.call(SERVER, Method::Raft, over, None, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, PeerError::TooLarge(_)), "{error}");
    let over = SharedPayload::from(Bytes::from(vec![0; SHARD_SIZE_MAX + 1]));
    let error =
        pair.client.call(SERVER, Method::ShardPut, Bytes::new(), Some(over), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, PeerError::TooLarge(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_calls_are_in_progress_at_once_and_each_gets_its_own_answer() {
    let pair = pair().await;
    *pair.service.meeting.lock() = Some(Arc::new(tokio::sync::Barrier::new(64)));
    let calls = (0..64_u64).map(|i| {
        let body = Bytes::from(format!("meet {i}"));
        let client = pair.client.clone();
        async move {
            let answer = client.call(SERVER, Method::Control, body.clone(), None, TIMEOUT).await.unwrap();
            assert_eq!(answer.body, body);
        }
    });
    // The service answers none before all are there.
    join_all(calls).await;
    assert_eq!(pair.client.counters()[0].1.connects, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_shards_are_never_mixed_up() {
    let pair = pair().await;
    let calls = (0..64_u64).map(|i| {
        let (client, pool) = (pair.client.clone(), pair.pool.clone());
        async move {
            let mut shard = pool.acquire(10_000 + 3 * i as usize).await;
            fill(&mut shard, i);
            let expected = shard.to_vec();
            let name = Bytes::from(i.to_string());
            client.call(SERVER, Method::ShardPut, name.clone(), Some(shard.into()), TIMEOUT).await.unwrap();
            let answer = client.call(SERVER, Method::ShardGet, name, None, TIMEOUT).await.unwrap();
            assert_eq!(&*answer.payload.unwrap(), expected.as_slice());
        }
    });
    join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_calls_than_may_be_in_flight_wait_their_turn() {
    let pair = pair().await;
    let all = 4 * BULK_IN_FLIGHT_MAX;
    let answers = join_all((0..all).map(|_| control(&pair.client, "20", TIMEOUT))).await;
    assert!(answers.iter().all(Result::is_ok));
    let most = pair.service.most_in_progress.load(Ordering::SeqCst);
    assert!(most <= 2 * BULK_IN_FLIGHT_MAX, "{most} at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passed_deadline_ends_one_call_and_leaves_the_link() {
    let pair = pair().await;
    let error = control(&pair.client, "hang", Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, PeerError::Timeout { method: Method::Control, .. }), "{error}");
    // The server drops the work as well.
    eventually("the server gives the request up", async || {
        pair.service.in_progress.load(Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(control(&pair.client, "0", TIMEOUT).await.unwrap(), "0");
    let counters = pair.client.counters()[0].1;
    assert_eq!((counters.connects, counters.errors, counters.requests), (3, 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_frees_its_place() {
    let pair = pair().await;
    for _ in 0..10 * BULK_IN_FLIGHT_MAX {
        let call = control(&pair.client, "hang", FOREVER);
        assert!(tokio::time::timeout(Duration::from_millis(1), call).await.is_err());
    }
    // Far more than either side holds at once: the peer was told to stop working on them.
    eventually("the server gives them up", async || pair.service.in_progress.load(Ordering::SeqCst) == 0)
        .await;
    assert_eq!(control(&pair.client, "0", TIMEOUT).await.unwrap(), "0");
    assert_eq!(pair.client.counters()[0].1.connects, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_failures_are_told_apart_and_leave_the_link() {
    let pair = pair().await;
    let call = async |method, body: &'static str| {
        pair.client.call(SERVER, method, Bytes::from(body), None, TIMEOUT).await.unwrap_err()
    };
    let error = call(Method::ShardGet, "nothing").await;
    assert!(
        matches!(&error, PeerError::Refused { code: 7, message, .. } if message == "no such shard"),
        "{error}"
    );
    for body in ["panic", "reserved", "large"] {
        let error = call(Method::Control, body).await;
        assert!(matches!(error, PeerError::Failed { .. }), "{body}: {error}");
    }
    let before = pair.service.calls.load(Ordering::SeqCst);
    let error = call(Method::Join, "a node is in already").await;
    assert!(matches!(error, PeerError::NotPermitted { .. }), "{error}");
    assert_eq!(pair.service.calls.load(Ordering::SeqCst), before, "the service never saw it");
    assert_eq!(pair.client.counters()[0].1.connects, 3);
    let served = pair.server.counters();
    assert_eq!(served[0].0, CLIENT);
    assert_eq!((served[0].1.connections, served[0].1.errors), (3, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_down_fails_all_its_calls_at_once() {
    let pair = pair().await;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let client = pair.client.clone();
            tokio::spawn(async move { control(&client, "hang", FOREVER).await })
        })
        .collect();
    eventually("the calls arrive", async || pair.service.in_progress.load(Ordering::SeqCst) == 10).await;
    pair.server.shutdown().await;
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(matches!(error, PeerError::Broken { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_found_again() {
    let pair = pair().await;
    control(&pair.client, "0", TIMEOUT).await.unwrap();
    let address = pair.server.local_addr();
    pair.server.shutdown().await;
    eventually("the client notices", async || {
        matches!(control(&pair.client, "0", TIMEOUT).await, Err(PeerError::Unreachable { .. }))
    })
    .await;
    eventually("it says so", async || !pair.client.is_connected(SERVER)).await;
    let identity = identity(&pair.ca, SERVER);
    let _again = PeerServer::bind(address, &identity, pair.service.clone(), pool()).await.unwrap();
    eventually("the client comes back", async || control(&pair.client, "0", TIMEOUT).await.is_ok()).await;
    eventually("all its links come back", async || pair.client.counters()[0].1.connections == 3).await;
    eventually("it says so", async || pair.client.is_connected(SERVER)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_falls_silent_is_noticed_long_before_the_deadline() {
    let pair = pair().await;
    // Everything goes through a relay that can stop without closing.
    let relay = TcpListener::bind(any_port()).await.unwrap();
    let (address, target) = (relay.local_addr().unwrap(), pair.server.local_addr());
    let (freeze, frozen) = tokio::sync::watch::channel(false);
    let forward = tokio::spawn(async move {
        let mut open = tokio::task::JoinSet::new();
        loop {
            let (mut from, _) = relay.accept().await.unwrap();
            let mut to = TcpStream::connect(target).await.unwrap();
            let mut frozen = frozen.clone();
            open.spawn(async move {
                tokio::select! {
                    _ended = copy_bidirectional(&mut from, &mut to) => {}
                    () = async { drop(frozen.wait_for(|frozen| *frozen).await) } => {
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    pair.client.set_address(SERVER, address);
    eventually("calls go through the relay", async || control(&pair.client, "0", TIMEOUT).await.is_ok())
        .await;
    let hanging = tokio::spawn({
        let client = pair.client.clone();
        async move { control(&client, "hang", FOREVER).await }
    });
    eventually("the call arrives", async || pair.service.in_progress.load(Ordering::SeqCst) == 1).await;
    // Heartbeats keep an idle link up for longer than silence is borne.
    let connects = pair.client.counters()[0].1.connects;
    tokio::time::sleep(holdfast_peer::DEAD_AFTER + Duration::from_secs(1)).await;
    assert_eq!(pair.client.counters()[0].1.connects, connects);
    freeze.send(true).unwrap();
    let error = hanging.await.unwrap().unwrap_err();
    assert!(matches!(&error, PeerError::Broken { reason, .. } if reason.contains("heard")), "{error}");
    // The server, too, lets go of the other end.
    eventually("the server notices", async || pair.server.counters()[0].1.connections == 0).await;
    forward.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_can_be_unknown_wrong_corrected_and_forgotten() {
    let pair = pair().await;
    let node = NodeId::new(8);
    let call = async || pair.client.call(node, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await;
    assert!(matches!(call().await, Err(PeerError::UnknownNode(n)) if n == node));
    let closed = TcpListener::bind(any_port()).await.unwrap().local_addr().unwrap();
    pair.client.set_address(node, closed);
    let error = call().await.unwrap_err();
    assert!(matches!(error, PeerError::Unreachable { source: ConnectError::Network { .. }, .. }), "{error}");
    let service = Arc::new(TestService::default());
    let server = PeerServer::bind(any_port(), &identity(&pair.ca, node), service, pool()).await.unwrap();
    pair.client.set_address(node, server.local_addr());
    eventually("the right address works", async || call().await.is_ok()).await;
    assert_eq!(call().await.unwrap().body, CLIENT.to_string());
    assert_eq!(pair.client.addresses().len(), 2);

    let hanging = tokio::spawn({
        let client = pair.client.clone();
        async move { client.call(node, Method::Control, Bytes::from("hang"), None, FOREVER).await }
    });
    eventually("a call is in progress", async || pair.client.counters()[1].1.requests >= 3).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    pair.client.remove(node);
    let error = hanging.await.unwrap().unwrap_err();
    assert!(matches!(error, PeerError::Broken { .. } | PeerError::Unreachable { .. }), "{error}");
    assert!(matches!(call().await, Err(PeerError::UnknownNode(_))));
    eventually("the server sees it leave", async || server.counters()[0].1.connections == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_is_cut_off_and_stays_out() {
    let pair = pair().await;
    control(&pair.client, "0", TIMEOUT).await.unwrap();
    let hanging = tokio::spawn({
        let client = pair.client.clone();
        async move { control(&client, "hang", FOREVER).await }
    });
    eventually("a call is in progress", async || pair.service.in_progress.load(Ordering::SeqCst) == 1).await;
    pair.server.revoke(CLIENT);
    assert!(matches!(hanging.await.unwrap(), Err(PeerError::Broken { .. })));
    let calls = pair.service.calls.load(Ordering::SeqCst);
    eventually("it is refused", async || {
        matches!(
            control(&pair.client, "0", TIMEOUT).await,
            Err(PeerError::Unreachable { source: ConnectError::Rejected { .. }, .. })
        )
    })
    .await;
    assert_eq!(pair.service.calls.load(Ordering::SeqCst), calls);
    // Others are not concerned.
    let other = PeerClient::new(identity(&pair.ca, NodeId::new(3)), pool());
    other.set_address(SERVER, pair.server.local_addr());
    control(&other, "0", TIMEOUT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_certificate() {
    let pair = pair().await;
    let ending = SystemTime::now() - PEER_VALIDITY + Duration::from_secs(4);
    let client = PeerClient::new(identity_at(&pair.ca, NodeId::new(3), ending), pool());
    client.set_address(SERVER, pair.server.local_addr());
    control(&client, "0", TIMEOUT).await.unwrap();
    let error = control(&client, "hang", FOREVER).await.unwrap_err();
    assert!(matches!(error, PeerError::Broken { .. }), "{error}");
    eventually("it stays out", async || {
        matches!(
            control(&client, "0", TIMEOUT).await,
            Err(PeerError::Unreachable { source: ConnectError::Rejected { .. }, .. })
        )
    })
    .await;
    // Renewed, it is back.
    client.set_identity(identity(&pair.ca, NodeId::new(3)));
    eventually("it comes back", async || control(&client, "0", TIMEOUT).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_buffers_says_busy_and_keeps_the_link() {
    let tight = BufferPool::new(BufferPool::BUDGET_MIN).unwrap();
    let pair = pair_with(tight.clone()).await;
    let put = async || {
        let mut shard = pair.pool.acquire(SHARD_SIZE_MAX).await;
        fill(&mut shard, 1);
        pair.client.call(SERVER, Method::ShardPut, Bytes::from("discard"), Some(shard.into()), TIMEOUT).await
    };
    put().await.unwrap();
    let held = (tight.acquire(SHARD_SIZE_MAX).await, tight.try_acquire(SHARD_SIZE_MAX));
    let error = put().await.unwrap_err();
    assert!(matches!(error, PeerError::Busy { .. }), "{error}");
    drop(held);
    put().await.unwrap();
    assert_eq!(pair.client.counters()[0].1.connects, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_buffers_can_bring_its_own() {
    let pair = pair().await;
    let tight = BufferPool::new(ByteCount::new(BufferPool::BUDGET_MIN.get())).unwrap();
    let client = PeerClient::new(identity(&pair.ca, NodeId::new(3)), tight.clone());
    client.set_address(SERVER, pair.server.local_addr());
    let mut shard = tight.acquire(SHARD_SIZE_MAX).await;
    fill(&mut shard, 5);
    let expected = shard.to_vec();
    let name = Bytes::from("own");
    client.call(SERVER, Method::ShardPut, name.clone(), Some(shard.into()), TIMEOUT).await.unwrap();

    let mine = tight.acquire(SHARD_SIZE_MAX).await;
    let _rest: Vec<_> = std::iter::from_fn(|| tight.try_acquire(4096)).collect();
    let error = client.call(SERVER, Method::ShardGet, name.clone(), None, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, PeerError::Busy { .. }), "{error}");
    let answer = client.call_into(SERVER, Method::ShardGet, name, mine, TIMEOUT).await.unwrap();
    assert_eq!(&*answer.payload.unwrap(), expected.as_slice());
}
