//! The root key split over three nodes: cold start, recovery shares, rotation of root and tenant keys.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use holdfast_blackbox::{
    admin,
    dev::DevCluster,
    metrics::Samples,
    paths,
    s3::{Call, Client},
};
use http::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{BUCKET, cluster};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_in_no_ones_hands_alone_and_is_rotated_under_the_data() -> Result<()> {
    let mut cluster = cluster("keys", 3, 4).await?;
    let client = cluster.s3(0)?;
    client.put(BUCKET, "before", "written before").await?;
    let keys = wait_keys(&cluster, "split over three", |keys| {
        keys["threshold"] == 2 && every_node(keys, |node| node["has_share"] == true)
    })
    .await?;
    for name in NODES {
        let dir = cluster.dir().join(name).join("state/keys");
        ensure!(!dir.join("root.key").exists() && dir.join("shares").exists(), "{}", dir.display());
    }
    let first_shares = issue(&cluster, 2, 3).await?;
    drill_proves_shares(&first_shares, &keys)?;

    // A cold start: one node has one share of two, and says so on every service.
    stop_all(&mut cluster)?;
    cluster.launch("n1")?;
    let lock = wait_lock(&cluster, 0, "locked").await?;
    ensure!(lock["shares"] == 1 && lock["shares_needed"] == 2, "{lock}");
    let detail = lock["detail"].as_str().unwrap_or_default();
    ensure!(detail.contains("n2") && detail.contains("n3"), "it names who is silent: {detail}");
    let refused = client.send(Call::new(Method::GET, BUCKET, "before"), "").await?;
    ensure!(refused.status == 503 && refused.text().contains("1 of 2 shares"), "{}", refused.text());
    let samples = Samples::fetch(&cluster.file().nodes[0].metrics, cluster.file().trust()?).await?;
    ensure!(samples.sum("holdfast_keys_locked") == Some(1.0), "{:?}", samples.names());
    let wrong = unlock(&cluster, &json!({ "recovery_shares": [&first_shares[0]] })).await;
    ensure!(format!("{:#}", wrong.unwrap_err()).contains("1 of the 2 shares"), "one share is not enough");
    cluster.launch("n2")?;
    for name in ["n1", "n2"] {
        cluster.wait_ready(name).await?;
    }
    ensure!(read(&client, "before").await? == "written before");
    cluster.start("n3").await?;

    // A new root: nothing is rewritten, the one before is let go, shares of it lose their worth.
    let admin = cluster.file().admin(0).await?;
    admin.post("/api/v1/keys/rotation", &json!({})).await?;
    client.put(BUCKET, "between", "written while two roots are in force").await?;
    let rotated = wait_keys(&cluster, "the old root let go", |keys| {
        keys["root_epoch"] == 2
            && keys["retiring"] == json!([])
            && every_node(keys, |node| node["has_share"] == true)
    })
    .await?;
    ensure!(rotated["root_id"] != keys["root_id"] && rotated["recovery"]["valid"] == false, "{rotated}");
    admin.post("/api/v1/tenants/demo/key-rotation", &json!({})).await?;
    client.put(BUCKET, "after", "under the second version of the tenant's key").await?;
    let second_shares = issue(&cluster, 2, 3).await?;

    // Everything is gone from memory: what is on disk is enough, and old shares are not.
    stop_all(&mut cluster)?;
    cluster.launch("n2")?;
    wait_lock(&cluster, 1, "locked").await?;
    let old = unlock_at(&cluster, 1, &json!({ "recovery_shares": &first_shares[1..] })).await;
    ensure!(format!("{:#}", old.unwrap_err()).contains("not in force"), "shares of the root before");
    unlock_at(&cluster, 1, &json!({ "recovery_shares": &second_shares[1..] })).await?;
    wait_lock(&cluster, 1, "unlocked").await?;
    cluster.launch("n1")?;
    cluster.launch("n3")?;
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    for (index, _) in NODES.iter().enumerate() {
        let client = cluster.s3(index)?;
        ensure!(read(&client, "before").await? == "written before");
        ensure!(read(&client, "between").await? == "written while two roots are in force");
        ensure!(read(&client, "after").await? == "under the second version of the tenant's key");
    }
    Ok(())
}

async fn read(client: &Client, key: &str) -> Result<String> {
    Ok(String::from_utf8(client.get(BUCKET, key).await?.to_vec())?)
}

fn every_node(keys: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    keys["nodes"].as_array().is_some_and(|nodes| nodes.len() == NODES.len() && nodes.iter().all(holds))
}

async fn wait_keys(cluster: &DevCluster, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let keys = cluster.file().admin(0).await?.get("/api/v1/keys").await?;
        if holds(&keys) {
            return Ok(keys);
        }
        ensure!(begun.elapsed() < LIMIT, "{what}: not within {LIMIT:?}: {keys}");
        sleep(POLL).await;
    }
}

pub async fn issue(cluster: &DevCluster, threshold: u8, shares: u8) -> Result<Vec<String>> {
    let wanted = json!({ "threshold": threshold, "shares": shares });
    let issued = cluster.file().admin(0).await?.post("/api/v1/keys/recovery-shares", &wanted).await?;
    serde_json::from_value(issued["shares"].clone()).context("shares")
}

fn drill_proves_shares(shares: &[String], keys: &Value) -> Result<()> {
    let drill = |given: &str| -> Result<(bool, String)> {
        let mut child = Command::new(paths::noded())
            .args(["keys", "drill", "--expect", keys["root_id"].as_str().context("root_id")?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child.stdin.take().context("stdin")?.write_all(given.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (proven, said) = drill(&shares[1..].join("\n"))?;
    ensure!(proven && said.contains("2 shares give root"), "{said}");
    let (proven, said) = drill(&shares[0])?;
    ensure!(!proven && said.contains("1 of the 2 shares"), "{said}");
    Ok(())
}

fn stop_all(cluster: &mut DevCluster) -> Result<()> {
    NODES.iter().try_for_each(|name| cluster.kill(name))
}

pub async fn wait_lock(cluster: &DevCluster, node: usize, state: &str) -> Result<Value> {
    let begun = Instant::now();
    let mut last = String::new();
    while begun.elapsed() < LIMIT {
        match admin::open_get(&cluster.file().nodes[node].admin, cluster.file().trust()?, "/api/v1/lock")
            .await
        {
            Ok(lock) if lock["state"] == state => return Ok(lock),
            Ok(lock) => last = lock.to_string(),
            Err(error) => last = format!("{error:#}"),
        }
        sleep(POLL).await;
    }
    bail!("node {node} is not {state} within {LIMIT:?}: {last}")
}

async fn unlock(cluster: &DevCluster, with: &Value) -> Result<Value> {
    unlock_at(cluster, 0, with).await
}

async fn unlock_at(cluster: &DevCluster, node: usize, with: &Value) -> Result<Value> {
    let url = &cluster.file().nodes[node].admin;
    admin::open_post(url, cluster.file().trust()?, "/api/v1/unlock", with).await
}
