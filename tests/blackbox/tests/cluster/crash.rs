//! Power cuts: every process killed in the middle of a copy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use holdfast_blackbox::{ledger::Ledger, s3::Client, tree::noise};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{BUCKET, cluster};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const WRITERS: usize = 6;
/// Keys a writer goes round, so that overwriting is cut off too.
const KEYS_A_WRITER: usize = 40;
/// From kept within the catalog to many stripes.
const SIZES: [usize; 6] = [700, 12_000, 90_000, 400_000, 1_500_000, 6_000_000];
const ACKNOWLEDGED_BEFORE_THE_CUT: usize = 60;
const COPY_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_kill_9_of_every_process() -> Result<()> {
    let mut cluster = cluster("crash", 3, 4).await?;
    let ledger = Ledger::default();
    for round in 0..3 {
        let before = ledger.answers();
        let copying = Arc::new(AtomicBool::new(true));
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let client = cluster.s3(writer % NODES.len())?;
            writers.spawn(write(client, ledger.clone(), writer, round, Arc::clone(&copying)));
        }
        let begun = Instant::now();
        while ledger.answers() < before + ACKNOWLEDGED_BEFORE_THE_CUT {
            ensure!(begun.elapsed() < COPY_LIMIT, "only {} PUTs answered", ledger.answers() - before);
            sleep(Duration::from_millis(20)).await;
        }
        for name in NODES {
            cluster.kill(name)?;
        }
        copying.store(false, Ordering::Relaxed);
        while let Some(writer) = writers.join_next().await {
            writer??;
        }

        for name in NODES {
            cluster.launch(name)?;
        }
        for name in NODES {
            cluster.wait_ready(name).await?;
        }
        cluster.wait_whole(0).await?;
        for (node, name) in NODES.iter().enumerate() {
            let verdict = ledger.verify(&cluster.s3(node)?, BUCKET).await?;
            println!("round {round}, read through {name}: {verdict:?}");
            assert_eq!(verdict.broken, Vec::<String>::new(), "round {round}");
            assert!(verdict.intact > 0);
        }
        // The listing knows no object that is not whole.
        let client = cluster.s3(round % NODES.len())?;
        for (key, size) in client.list_all(BUCKET, "").await? {
            assert_eq!(client.get(BUCKET, &key).await?.len() as u64, size, "{key}");
        }
    }
    Ok(())
}

/// Writes until told to stop or until the node is gone.
async fn write(
    client: Client,
    ledger: Ledger,
    writer: usize,
    round: usize,
    copying: Arc<AtomicBool>,
) -> Result<()> {
    for number in 0.. {
        if !copying.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{writer}/{}", number % KEYS_A_WRITER);
        let size = SIZES[(number + writer) % SIZES.len()];
        let seed = (round * 1_000_000 + writer * 10_000 + number) as u64;
        if !ledger.put(&client, BUCKET, &key, noise(seed, size)).await? {
            break;
        }
    }
    Ok(())
}
