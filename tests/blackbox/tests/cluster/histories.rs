//! Leaders killed under load: histories of all keys are judged by a linearizability checker.

use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_blackbox::{
    dev::DevCluster,
    linear::{Did, Operation, Recorder},
    s3::{Call, Client},
};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::sleep};

use crate::support::{BUCKET, cluster};

const CLIENTS: usize = 64;
const KEYS: u64 = 96;
/// Operations of all clients together at least; more when this variable says so. The clients go on until
/// the last leader is killed and writes are accepted again.
const OPERATIONS: usize = 5_000;
const OPERATIONS_VARIABLE: &str = "HOLDFAST_HISTORY_OPERATIONS";
/// Leaders killed in one run.
const KILLS: usize = 2;
/// Longest time without an accepted write after a kill. The aim is 2 s; a busy machine may take longer.
const RESUME_LIMIT: Duration = Duration::from_secs(20);
/// Between two operations of one client.
const PAUSE: Duration = Duration::from_millis(10);
/// How long after a kill accepted writes are looked at.
const WATCHED: Duration = Duration::from_secs(3);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

#[derive(Default)]
struct Shared {
    recorder: Recorder,
    begun: AtomicUsize,
    written: AtomicUsize,
    unanswered: AtomicUsize,
    /// When writes were accepted, since the recorder began.
    accepted: Mutex<Vec<Duration>>,
    kills_done: AtomicBool,
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_stay_linearizable_when_leaders_are_killed() -> Result<()> {
    let operations = match env::var(OPERATIONS_VARIABLE) {
        Ok(text) => text.parse().context(OPERATIONS_VARIABLE)?,
        Err(_) => OPERATIONS,
    };
    let mut cluster = cluster("histories", 3, 1).await?;
    let shared = Arc::new(Shared::default());
    let clients: Vec<Client> = (0..NODES.len()).map(|at| cluster.s3(at)).collect::<Result<_>>()?;
    let mut running = JoinSet::new();
    for client in 0..CLIENTS {
        running.spawn(work(Arc::clone(&shared), clients.clone(), client, operations));
    }
    let mut gaps = Vec::new();
    for kill in 1..=KILLS {
        let at = operations * kill / (KILLS + 1);
        while shared.begun.load(Ordering::Relaxed) < at {
            sleep(Duration::from_millis(5)).await;
        }
        let leader = busiest_leader(&cluster).await?;
        let killed = shared.recorder.now();
        cluster.kill(&leader)?;
        let resumed = resumed_after(&shared, killed).await?;
        println!("{leader} killed at {killed:?}: the longest time without an accepted write was {resumed:?}");
        gaps.push(resumed);
        cluster.start(&leader).await?;
    }
    shared.kills_done.store(true, Ordering::Relaxed);
    while let Some(client) = running.join_next().await {
        client??;
    }
    // What was acknowledged is there at the end, whoever is asked.
    for client in &clients {
        for key in 0..KEYS {
            read(&shared, client, &format!("key-{key}")).await;
        }
    }
    let (count, unanswered) = (shared.recorder.count(), shared.unanswered.load(Ordering::Relaxed));
    let begun = Instant::now();
    let broken = shared.recorder.judge();
    println!(
        "{count} operations on {KEYS} keys by {CLIENTS} clients, {} writes accepted, {unanswered} unanswered; judged in {:?}",
        shared.written.load(Ordering::Relaxed),
        begun.elapsed()
    );
    for (key, verdict) in &broken {
        eprintln!("{key}: {verdict}");
    }
    ensure!(broken.is_empty(), "{} of {KEYS} histories are not linearizable", broken.len());
    ensure!(gaps.iter().all(|gap| *gap < RESUME_LIMIT), "{gaps:?}");
    Ok(())
}

/// One client: reads and writes one key after the other, through one node until that fails.
async fn work(shared: Arc<Shared>, clients: Vec<Client>, number: usize, operations: usize) -> Result<()> {
    let mut node = number % clients.len();
    let mut state = number as u64 + 1;
    loop {
        let turn = shared.begun.fetch_add(1, Ordering::Relaxed);
        if turn >= operations && shared.kills_done.load(Ordering::Relaxed) {
            return Ok(());
        }
        sleep(PAUSE).await;
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = format!("key-{}", (state >> 33) % KEYS);
        let answered = if (state >> 20) & 1 == 0 {
            write(&shared, &clients[node], &key, turn as u64).await
        } else {
            read(&shared, &clients[node], &key).await
        };
        if !answered {
            node = (node + 1) % clients.len();
        }
    }
}

/// Whether there was an answer.
async fn write(shared: &Shared, client: &Client, key: &str, value: u64) -> bool {
    let start = shared.recorder.now();
    let answer = client.send(Call::new(Method::PUT, BUCKET, key), Bytes::from(value.to_string())).await;
    let accepted = answer.is_ok_and(|answer| answer.status == StatusCode::OK);
    let end = shared.recorder.now();
    if accepted {
        shared.written.fetch_add(1, Ordering::Relaxed);
        shared.accepted.lock().push(end);
    } else {
        shared.unanswered.fetch_add(1, Ordering::Relaxed);
    }
    // Anything but a 200 leaves open whether it was written, now or later.
    shared.recorder.note(key, Operation { start, end: accepted.then_some(end), did: Did::Wrote(value) });
    accepted
}

/// Whether there was an answer.
async fn read(shared: &Shared, client: &Client, key: &str) -> bool {
    let start = shared.recorder.now();
    let answer = client.send(Call::new(Method::GET, BUCKET, key), Bytes::new()).await;
    let end = Some(shared.recorder.now());
    let found = match answer {
        Ok(answer) if answer.status == StatusCode::OK => answer.text().parse().ok(),
        Ok(answer) if answer.status == StatusCode::NOT_FOUND => None,
        _ => return false,
    };
    shared.recorder.note(key, Operation { start, end, did: Did::Found(found) });
    true
}

/// The node that leads the group in which most is happening: the tenant's.
async fn busiest_leader(cluster: &DevCluster) -> Result<String> {
    let admin = cluster.file().admin(0).await?;
    let document = admin.cluster().await?;
    let groups = document["groups"].as_array().context("groups")?;
    let busiest = groups.iter().max_by_key(|group| group["applied_index"].as_u64()).context("a group")?;
    let names: BTreeMap<u64, String> =
        admin.members().await?.into_iter().map(|member| (member.id, member.name)).collect();
    let leader = busiest["leader"].as_u64().context("the busiest group has no leader")?;
    names.get(&leader).cloned().with_context(|| format!("no node {leader}"))
}

/// The longest time without an accepted write around `killed`, once writes are accepted again.
async fn resumed_after(shared: &Shared, killed: Duration) -> Result<Duration> {
    loop {
        sleep(Duration::from_millis(100)).await;
        let now = shared.recorder.now();
        let mut accepted: Vec<Duration> = shared.accepted.lock().clone();
        accepted.sort_unstable();
        // Once some time has passed with writes again, the gap is over.
        let since: Vec<Duration> = accepted.into_iter().filter(|at| *at >= killed).collect();
        if since.last().is_some_and(|last| *last > killed + WATCHED) {
            let starts = std::iter::once(&killed).chain(&since);
            return starts.zip(&since).map(|(from, to)| *to - *from).max().context("no writes");
        }
        ensure!(now < killed + Duration::from_secs(60), "no write was accepted since the leader was killed");
    }
}
