//! Background work whose ground gives way: a node dies during a rebuild, a drive during rebalancing, a leader while
//! a level changes. Nothing is lost, and the work goes on where it can and ends.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use holdfast_blackbox::{
    admin::Admin,
    dev::DevCluster,
    s3::{Call, Client},
    tree::noise,
};
use holdfast_model::ByteCount;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{BUCKET, cluster};

const TENANT: &str = "demo";
const DRIVE_SIZE: ByteCount = ByteCount::mib(512);
const OBJECTS: usize = 80;
const POLL: Duration = Duration::from_millis(200);

/// Far longer than any of it takes.
const PATIENCE: Duration = Duration::from_secs(300);

fn object(number: usize) -> (String, Vec<u8>) {
    let size = if number.is_multiple_of(4) { 60_000 } else { 3_000_000 };
    (format!("kept/{number}"), noise(number as u64, size))
}

async fn intact(client: &Client) -> Result<()> {
    for number in 0..OBJECTS {
        let (key, body) = object(number);
        ensure!(client.get(BUCKET, &key).await? == body, "{key}: other bytes");
    }
    Ok(())
}

/// Asks until there is an answer. A node that was asked may be the one that is down.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        let found = ask().await;
        if let Ok(Some(found)) = found {
            println!("{what}: after {:?}", begun.elapsed());
            return Ok(found);
        }
        ensure!(begun.elapsed() < PATIENCE, "gave up waiting for {what}: {:?}", found.err());
        sleep(POLL).await;
    }
}

async fn settled(admin: &Admin) -> Result<()> {
    until("the debt to be settled", async || {
        let work = admin.work().await?;
        Ok((work.complete && work.debt_stripes == 0 && work.unreadable_stripes == 0).then_some(()))
    })
    .await
}

/// The node comes back without one of its drives.
async fn lose_drive(cluster: &mut DevCluster, node: &str, drive: &str) -> Result<()> {
    cluster.kill(node)?;
    fs::remove_file(cluster.dir().join(node).join("drives").join(drive))?;
    cluster.start(node).await
}

/// Used bytes of all drives of a node.
async fn used(admin: &Admin, node: &str) -> Result<f64> {
    let cluster = admin.cluster().await?;
    let nodes = cluster["nodes"].as_array().context("nodes")?;
    let found = nodes.iter().find(|entry| entry["name"] == node).context("no such node")?;
    let drives = found["drives"].as_array().context("drives")?;
    Ok(drives.iter().filter_map(|drive| drive["usage"]["live_bytes"].as_f64()).sum())
}

/// The node that leads most of the tenant's partitions, and not the one that is asked.
async fn busy_leader(admin: &Admin, spared: &str) -> Result<String> {
    let names: BTreeMap<u64, String> =
        admin.members().await?.into_iter().map(|member| (member.id, member.name)).collect();
    let mut led: BTreeMap<&str, u64> = BTreeMap::new();
    let document = admin.cluster().await?;
    for group in document["groups"].as_array().context("groups")? {
        let name = group["leader"].as_u64().and_then(|leader| names.get(&leader));
        if let Some(name) = name.filter(|name| *name != spared) {
            *led.entry(name).or_default() += group["applied_index"].as_u64().unwrap_or(0);
        }
    }
    let busiest = led.into_iter().max_by_key(|(_, applied)| *applied).context("nobody leads")?;
    Ok(busiest.0.to_owned())
}

fn stripes_left(levels: &Value) -> Option<u64> {
    levels["pending_stripes"].as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_interrupted_ends_all_the_same() -> Result<()> {
    let mut cluster = cluster("interrupted", 4, 3).await?;
    let client = cluster.s3(0)?;
    for number in 0..OBJECTS {
        let (key, body) = object(number);
        client.put(BUCKET, &key, body).await?;
    }
    let admin = cluster.file().admin(0).await?;

    // A node dies while another's lost drive is rebuilt.
    lose_drive(&mut cluster, "n2", "d1").await?;
    let owed = until("the loss to be noticed", async || {
        let work = admin.work().await?;
        Ok((work.complete && work.debt_stripes > 0).then_some(work.debt_stripes))
    })
    .await?;
    until("the rebuild to be under way", async || {
        let work = admin.work().await?;
        Ok((work.debt_stripes < owed).then_some(()))
    })
    .await?;
    cluster.kill("n3")?;
    // A drive and another's node are more than the level promises to survive: what is answered is right, what cannot
    // be is put off until the node is back.
    let mut put_off = 0;
    for number in 0..OBJECTS {
        let (key, body) = object(number);
        let answer = client.send(Call::new(Method::GET, BUCKET, &key), Bytes::new()).await?;
        match answer.status {
            StatusCode::OK => ensure!(answer.body == body, "{key}: other bytes"),
            StatusCode::SERVICE_UNAVAILABLE => put_off += 1,
            other => bail!("{key}: {other}"),
        }
    }
    println!("{put_off} of {OBJECTS} objects cannot be read before the node is back");
    cluster.start("n3").await?;
    settled(&admin).await?;
    intact(&cluster.s3(2)?).await?;

    // A drive dies while a new node is given its share.
    admin.set_worker("rebalance", &json!({ "impact": "high" })).await?;
    cluster.add_node(3, DRIVE_SIZE, false).await?;
    until("the new node to be given something", async || {
        Ok((used(&admin, "n5").await? > 3_000_000.0).then_some(()))
    })
    .await?;
    lose_drive(&mut cluster, "n4", "d2").await?;
    until("the loss to be noticed", async || {
        let work = admin.work().await?;
        Ok((work.complete && work.debt_stripes > 0).then_some(()))
    })
    .await?;
    settled(&admin).await?;
    intact(&cluster.s3(4)?).await?;

    // A leader dies while stripes are cut anew.
    admin.set_bucket_level(TENANT, BUCKET, Some("4x")).await?;
    until("some stripes to be cut anew, not all", async || {
        let levels = admin.levels(TENANT).await?;
        let stripes = levels["stripes"].as_u64().unwrap_or(0);
        Ok(stripes_left(&levels).filter(|left| *left > 0 && *left < stripes))
    })
    .await?;
    let leader = busy_leader(&admin, "n1").await?;
    println!("{leader} is killed");
    cluster.kill(&leader)?;
    intact(&client).await?;
    cluster.start(&leader).await?;
    until("4x to be reached", async || {
        let levels = admin.levels(TENANT).await?;
        let buckets = levels["buckets"].as_array().context("buckets")?;
        let actual = buckets.iter().find(|bucket| bucket["bucket"] == BUCKET).map(|bucket| &bucket["actual"]);
        let reached = levels["complete"] == true && stripes_left(&levels) == Some(0);
        Ok((reached && actual == Some(&json!("4x"))).then_some(()))
    })
    .await?;
    settled(&admin).await?;
    intact(&cluster.s3(1)?).await?;
    let audit = admin.audit().await?;
    ensure!(audit["debt_stripes"] == 0 && audit["lost_count"] == 0, "{audit}");
    Ok(())
}
