//! One node of three is gone, and comes back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use holdfast_blackbox::{s3::Client, tree::noise};
use tokio::time::sleep;

use crate::support::{BUCKET, cluster};

const SIZES: [usize; 5] = [500, 15_000, 100_000, 1_200_000, 9_000_000];
/// New leaders are elected and links given up within this.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_serve_everything_and_the_third_comes_back() -> Result<()> {
    let mut cluster = cluster("outage", 3, 4).await?;
    for lost in [2, 1, 3] {
        let name = format!("n{lost}");
        let survivors: Vec<Client> =
            (1..=3).filter(|&node| node != lost).map(|node| cluster.s3(node - 1)).collect::<Result<_>>()?;
        let before = write(&survivors[0], &format!("before-{name}")).await?;
        cluster.kill(&name)?;

        let begun = Instant::now();
        for survivor in &survivors {
            read_all(survivor, &before).await?;
        }
        println!("without {name}: {} objects read twice in {:?}", before.len(), begun.elapsed());
        let during = write_when_possible(&survivors[1], &format!("during-{name}")).await?;
        for survivor in &survivors {
            read_all(survivor, &during).await?;
        }

        cluster.start(&name).await?;
        cluster.wait_whole(lost - 1).await?;
        let returned = cluster.s3(lost - 1)?;
        read_all(&returned, &before).await?;
        read_all(&returned, &during).await?;
        write(&returned, &format!("after-{name}")).await?;
    }
    Ok(())
}

async fn write(client: &Client, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut written = BTreeMap::new();
    for (number, size) in SIZES.into_iter().cycle().take(15).enumerate() {
        let (key, body) = (format!("{prefix}/{number}"), noise(number as u64, size));
        client.put(BUCKET, &key, body.clone()).await?;
        written.insert(key, body);
    }
    Ok(written)
}

/// A write may be refused while a leader is elected; within the limit all must be accepted.
async fn write_when_possible(client: &Client, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let begun = Instant::now();
    loop {
        match write(client, prefix).await {
            Ok(written) => {
                println!("writes accepted {:?} after the loss", begun.elapsed());
                return Ok(written);
            }
            Err(error) if begun.elapsed() > TAKEOVER_LIMIT => bail!("writes are still refused: {error:#}"),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn read_all(client: &Client, wanted: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    for (key, body) in wanted {
        let begun = Instant::now();
        loop {
            match client.get(BUCKET, key).await {
                Ok(found) => {
                    assert!(found == *body, "{key}: other bytes");
                    break;
                }
                Err(error) if begun.elapsed() > TAKEOVER_LIMIT => bail!("{key} is still refused: {error:#}"),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
    }
    Ok(())
}
