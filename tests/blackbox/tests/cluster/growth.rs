//! A cluster that grows from one node to five and shrinks to three again, with clients at work all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use holdfast_blackbox::{dev::DevCluster, ledger::Ledger, s3::Client, tree::noise};
use holdfast_model::ByteCount;
use parking_lot::Mutex;
use tokio::{task::JoinSet, time::sleep};

use crate::support::{BUCKET, cluster};

/// Kept within the catalog: drives hold nothing when their node leaves.
const SIZE: usize = 3_000;
const WRITERS: usize = 6;
const KEYS_A_WRITER: usize = 50;
/// As S3 clients retry: some attempts, each on another node, with growing pauses.
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const DRIVE_SIZE: ByteCount = ByteCount::mib(256);
const SETTLED_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(200);

/// The clients' side: which nodes there are, and what became of the requests.
#[derive(Default)]
struct Load {
    nodes: Mutex<Vec<Client>>,
    working: AtomicBool,
    retries: AtomicUsize,
    failed: Mutex<Vec<String>>,
    slowest: Mutex<Duration>,
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_grows_to_five_and_shrinks_to_three_under_load() -> Result<()> {
    let mut cluster = cluster("growth", 1, 2).await?;
    let (ledger, load) = (Ledger::default(), Arc::new(Load::default()));
    load.working.store(true, Ordering::Relaxed);
    follow(&cluster, &load)?;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(Arc::clone(&load), ledger.clone(), writer));
    }
    for _ in 2..=5 {
        cluster.add_node(1, DRIVE_SIZE, false).await?;
        follow(&cluster, &load)?;
        if cluster.file().nodes.len() % 2 == 1 {
            wait_balanced(&cluster).await?;
        }
    }
    // The founder among those that leave.
    for name in ["n1", "n4"] {
        let begun = Instant::now();
        cluster.remove_node(name, true).await?;
        println!("{name} left within {:?}", begun.elapsed());
        follow(&cluster, &load)?;
    }
    wait_balanced(&cluster).await?;
    load.working.store(false, Ordering::Relaxed);
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    println!(
        "{} PUTs answered, {} retries, slowest {:?}",
        ledger.answers(),
        load.retries.load(Ordering::Relaxed),
        *load.slowest.lock()
    );
    assert_eq!(*load.failed.lock(), Vec::<String>::new(), "requests that no retry helped");
    for node in 0..3 {
        let verdict = ledger.verify(&cluster.s3(node)?, BUCKET).await?;
        ensure!(verdict.broken.is_empty() && verdict.intact > 0, "{verdict:?}");
    }
    Ok(())
}

/// Tells the clients which nodes there are.
fn follow(cluster: &DevCluster, load: &Load) -> Result<()> {
    *load.nodes.lock() = (0..cluster.file().nodes.len()).map(|at| cluster.s3(at)).collect::<Result<_>>()?;
    Ok(())
}

/// Overwrites its keys in turn until told to stop.
async fn write(load: Arc<Load>, ledger: Ledger, writer: usize) -> Result<()> {
    let mut number = 0;
    while load.working.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("{writer}/{}", number % KEYS_A_WRITER);
        let body = noise((writer * 1_000_000 + number) as u64, SIZE);
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut accepted = false;
        for attempt in 0..ATTEMPTS {
            let client = {
                let nodes = load.nodes.lock();
                nodes[(writer + number + attempt as usize) % nodes.len()].clone()
            };
            if ledger.put(&client, BUCKET, &key, body.clone()).await? {
                accepted = true;
                break;
            }
            load.retries.fetch_add(1, Ordering::Relaxed);
            sleep(pause).await;
            pause *= 2;
        }
        if !accepted {
            load.failed.lock().push(format!("{key} for {:?}", begun.elapsed()));
        }
        let mut slowest = load.slowest.lock();
        *slowest = begun.elapsed().max(*slowest);
    }
    Ok(())
}

/// Waits until every group has its voters, and no node leads or votes more than it should.
async fn wait_balanced(cluster: &DevCluster) -> Result<()> {
    let begun = Instant::now();
    let count = cluster.file().nodes.len();
    let voters = if count >= 5 { 5 } else { count.min(3) };
    loop {
        let mut seen = String::new();
        if let Ok(admin) = cluster.file().admin(0).await {
            let (members, groups) = (admin.members().await?, admin.groups().await?);
            let ids: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
            let mut leads: BTreeMap<u64, usize> = ids.iter().map(|id| (*id, 0)).collect();
            for leader in groups.iter().filter_map(|group| group.leader) {
                *leads.entry(leader).or_default() += 1;
            }
            let even = leads.values().max().unwrap_or(&0) - leads.values().min().unwrap_or(&0) <= 1;
            let whole = groups.iter().all(|group| {
                group.leader.is_some() && group.voters.len() == voters && group.voters.is_subset(&ids)
            });
            if members.len() == count && members.iter().all(|member| member.state == "up") && whole && even {
                println!("{count} nodes: balanced after {:?}, leaders {leads:?}", begun.elapsed());
                return Ok(());
            }
            seen = format!("{members:?} {groups:?}");
        }
        ensure!(begun.elapsed() < SETTLED_LIMIT, "{count} nodes are not balanced: {seen}");
        sleep(POLL).await;
    }
}
