//! Drives that are lost, drives that are emptied, shards that vanish: the level holds again by itself.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    admin::{Admin, Work},
    dev::DevCluster,
    s3::Client,
    tree::noise,
};

use crate::support::{BUCKET, cluster};

const NODES: [&str; 3] = ["n1", "n2", "n3"];

/// Far longer than it takes; a rebuild waits half a minute before it begins.
const PATIENCE: Duration = Duration::from_secs(300);

fn objects() -> Vec<(String, Vec<u8>)> {
    let sizes = [20_000, 300_000, 1_500_000, 5_000_000];
    let object = |seed: usize| (format!("{seed}"), noise(seed as u64, sizes[seed % sizes.len()]));
    (0..48).map(object).collect()
}

async fn all_intact(client: &Client, objects: &[(String, Vec<u8>)]) -> Result<()> {
    for (key, body) in objects {
        ensure!(client.get(BUCKET, key).await? == *body, "{key}: other bytes");
    }
    Ok(())
}

async fn restart(cluster: &mut DevCluster, between: impl FnOnce(&DevCluster) -> Result<()>) -> Result<()> {
    for name in NODES {
        cluster.kill(name)?;
    }
    between(cluster)?;
    for name in NODES {
        cluster.launch(name)?;
    }
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    cluster.wait_whole(0).await
}

/// Asks until `wanted` holds, and returns what was told then.
async fn work_until(admin: &Admin, what: &str, wanted: impl Fn(&Work) -> bool) -> Result<Work> {
    let begun = Instant::now();
    loop {
        let work = admin.work().await?;
        if wanted(&work) {
            return Ok(work);
        }
        ensure!(begun.elapsed() < PATIENCE, "gave up waiting for {what}: {work:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn whole(work: &Work) -> bool {
    work.complete && work.debt_stripes == 0
}

/// Id of the member drive at a path that ends so, as the admin API names it.
async fn drive_id(admin: &Admin, ending: &str) -> Result<Option<String>> {
    let cluster = admin.cluster().await?;
    let nodes = cluster["nodes"].as_array().context("nodes")?;
    let drives = nodes.iter().filter_map(|node| node["drives"].as_array()).flatten();
    for drive in drives {
        if drive["path"].as_str().is_some_and(|path| path.ends_with(ending)) {
            return Ok(Some(drive["id"].as_str().context("a drive without an id")?.to_owned()));
        }
    }
    Ok(None)
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_drained_drives_are_rebuilt_elsewhere_and_two_more_may_go() -> Result<()> {
    let mut cluster = cluster("rebuild", 3, 4).await?;
    let client = cluster.s3(0)?;
    let objects = objects();
    for (key, body) in &objects {
        client.put(BUCKET, key, body.clone()).await?;
    }

    // One drive is gone for good, and another is to be emptied.
    restart(&mut cluster, |cluster| Ok(fs::remove_file(cluster.dir().join("n2/drives/d1"))?)).await?;
    let admin = cluster.file().admin(0).await?;
    let owed =
        work_until(&admin, "the loss to be noticed", |work| work.complete && work.debt_stripes > 0).await?;
    ensure!(owed.unreadable_stripes == 0, "{owed:?}");
    println!("debt after the loss: {owed:?}");
    let drained = drive_id(&admin, "n3/drives/d4").await?.context("n3 has no fourth drive")?;
    admin.drain(&drained).await?;
    all_intact(&cluster.s3(2)?, &objects).await?;
    work_until(&admin, "the debt to be settled", whole).await?;
    // Both leave: the one that was emptied, and, by itself, the one that nobody will see again.
    let begun = Instant::now();
    for leaving in ["n3/drives/d4", "n2/drives/d1"] {
        while drive_id(&admin, leaving).await?.is_some() {
            ensure!(begun.elapsed() < PATIENCE, "{leaving} does not leave");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        println!("{leaving} has left after {:?}", begun.elapsed());
    }

    // The level survives two drives, whatever was lost before: two more go, and the drained one is pulled.
    restart(&mut cluster, |cluster| {
        for drive in ["n1/drives/d2", "n3/drives/d1", "n3/drives/d4"] {
            fs::remove_file(cluster.dir().join(drive))?;
        }
        Ok(())
    })
    .await?;
    for node in 0..NODES.len() {
        all_intact(&cluster.s3(node)?, &objects).await?;
    }
    let admin = cluster.file().admin(0).await?;
    work_until(&admin, "the loss to be noticed", |work| work.complete && work.debt_stripes > 0).await?;
    work_until(&admin, "the debt to be settled", whole).await?;
    all_intact(&cluster.s3(1)?, &objects).await?;
    Ok(())
}
