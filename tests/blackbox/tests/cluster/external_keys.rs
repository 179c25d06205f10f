//! A tenant whose key is sealed under a key of its own service: what the service takes away is not read, what it gives
//! back is, and other tenants hear nothing of either.
//!
//! The service is `holdfast_blackbox::transit`: a recorded protocol, not Vault.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_blackbox::{
    admin::Admin,
    dev::DevCluster,
    s3::{Call, Client},
    transit::{KEY, ROLE, TOKEN, TransitServer},
    tree::noise,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    support::{BUCKET, cluster},
    tenancy::{other_client, wait_answer, wait_shredded},
};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const EXTERNAL: &str = "/api/v1/tenants/demo/external-key";
const LIMIT: Duration = Duration::from_secs(60);
const CHECK_SECONDS: u64 = 5;
const WAITS: &str = "waits for the tenant's external key service";

fn spec(server: &TransitServer, grace_seconds: u64) -> Value {
    json!({
        "url": server.url(), "ca_pem": server.ca_pem(), "key": KEY, "token": TOKEN,
        "check_seconds": CHECK_SECONDS, "grace_seconds": grace_seconds,
    })
}

/// Every node answers so.
async fn everywhere(cluster: &DevCluster, key: &str, status: StatusCode, says: &str) -> Result<()> {
    for (node, name) in NODES.iter().enumerate() {
        let answer = wait_answer(&cluster.s3(node)?, key, status, says).await;
        answer.with_context(|| format!("node {name}"))?;
    }
    Ok(())
}

/// Sets it once the nodes have told each other that they can.
async fn set(admin: &Admin, spec: &Value) -> Result<()> {
    let begun = Instant::now();
    loop {
        match admin.post(EXTERNAL, spec).await {
            Err(error)
                if begun.elapsed() < LIMIT
                    && format!("{error:#}").contains("does not know of external keys") =>
            {
                sleep(Duration::from_millis(300)).await;
            }
            done => return done.map(drop),
        }
    }
}

async fn wait_state(cluster: &DevCluster, node: usize, state: &str) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let shown = cluster.file().admin(node).await?.get(EXTERNAL).await?;
        if shown["state"] == state {
            return Ok(shown);
        }
        ensure!(begun.elapsed() < LIMIT, "{state}: {shown}");
        sleep(Duration::from_millis(200)).await;
    }
}

async fn same(client: &Client, small: &str, large: &Bytes) -> Result<()> {
    ensure!(client.get(BUCKET, "small").await? == small, "the small object is another one");
    ensure!(client.get(BUCKET, "large").await? == *large, "the large object is another one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_own_key_service_decides_whether_its_data_are_read() -> Result<()> {
    let mut cluster = cluster("external-keys", 3, 2).await?;
    let mut server = TransitServer::start().await?;
    let (client, other) = (cluster.s3(0)?, other_client(&cluster, 0)?);
    let large = Bytes::from(noise(7, 3 << 20));
    for client in [&client, &other] {
        client.create_bucket(BUCKET).await?;
        client.put(BUCKET, "small", "before").await?;
    }
    client.put(BUCKET, "large", large.clone()).await?;
    let admin = cluster.file().admin(0).await?;
    ensure!(admin.get(EXTERNAL).await?["service"].is_null(), "none yet");

    // This machine is not connected to until the cluster's settings say so.
    let refused = set(&admin, &spec(&server, 3600)).await.unwrap_err();
    ensure!(format!("{refused:#}").contains("do not connect to"), "{refused:#}");
    admin.post("/api/v1/cluster/events", &json!({ "networks": ["127.0.0.0/8"] })).await?;
    let mut wrong = spec(&server, 3600);
    wrong["token"] = json!("hvs.wrong");
    let refused = set(&admin, &wrong).await.unwrap_err();
    ensure!(format!("{refused:#}").contains("permission denied"), "{refused:#}");
    ensure!(admin.get(EXTERNAL).await?["service"].is_null(), "nothing was changed");

    // Set: what was there is read, and written on, everywhere.
    set(&admin, &spec(&server, 3600)).await?;
    for node in 0..NODES.len() {
        let shown = wait_state(&cluster, node, "allowed").await?;
        ensure!(shown["key_here"] == true && !shown.to_string().contains(TOKEN), "{shown}");
        same(&cluster.s3(node)?, "before", &large).await?;
    }
    client.put(BUCKET, "after", "written under it").await?;

    // The tenant's word is obeyed within the interval, and what it costs to ask.
    server.forbid(true);
    let begun = Instant::now();
    everywhere(&cluster, "small", StatusCode::SERVICE_UNAVAILABLE, WAITS).await?;
    println!("refused on all nodes after {:.1} s", begun.elapsed().as_secs_f64());
    ensure!(begun.elapsed() < Duration::from_secs(CHECK_SECONDS + 5), "{:?}", begun.elapsed());
    let put = client.send(Call::new(Method::PUT, BUCKET, "x"), "x").await?;
    ensure!(put.status == StatusCode::SERVICE_UNAVAILABLE, "{}", put.text());
    let list = client.send(Call::new(Method::GET, BUCKET, ""), Bytes::new()).await?;
    ensure!(list.status == StatusCode::SERVICE_UNAVAILABLE, "{}", list.text());
    ensure!(other.get(BUCKET, "small").await? == "before", "the other tenant is served");
    other.put(BUCKET, "meanwhile", "written").await?;
    let shown = wait_state(&cluster, 1, "refused").await?;
    ensure!(shown["key_here"] == false, "{shown}");
    server.forbid(false);
    let begun = Instant::now();
    everywhere(&cluster, "after", StatusCode::OK, "written under it").await?;
    println!("served on all nodes again after {:.1} s", begun.elapsed().as_secs_f64());
    same(&client, "before", &large).await?;

    // Silence is borne; a restart in it is not, for that tenant.
    server.stop().await;
    for node in 0..NODES.len() {
        wait_state(&cluster, node, "silent").await?;
    }
    same(&client, "before", &large).await?;
    NODES.iter().try_for_each(|name| cluster.kill(name))?;
    NODES.iter().try_for_each(|name| cluster.launch(name))?;
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    everywhere(&cluster, "small", StatusCode::SERVICE_UNAVAILABLE, WAITS).await?;
    let other = other_client(&cluster, 0)?.patient(LIMIT);
    ensure!(other.get(BUCKET, "meanwhile").await? == "written", "others are served");
    other.put(BUCKET, "later", "written").await?;
    // The root is exchanged meanwhile: that needs the tenant's service for nothing.
    cluster.file().admin(0).await?.post("/api/v1/keys/rotation", &json!({})).await?;
    server.resume().await?;
    everywhere(&cluster, "after", StatusCode::OK, "written under it").await?;
    same(&cluster.s3(1)?, "before", &large).await?;

    rotations(&cluster, &server, &large).await?;
    without_grace(&cluster, &mut server).await?;
    removed_and_destroyed(&cluster, &mut server, &large).await
}

/// Versions of the service's key and of the tenant's, and a role in the place of a token.
async fn rotations(cluster: &DevCluster, server: &TransitServer, large: &Bytes) -> Result<()> {
    let admin = cluster.file().admin(0).await?;
    let version = server.rotate();
    admin.post(&format!("{EXTERNAL}/rotation"), &json!({})).await?;
    admin.post("/api/v1/tenants/demo/key-rotation", &json!({})).await?;
    server.require_version(version);
    let mut role = spec(server, 3600);
    role["token"] = Value::Null;
    (role["role_id"], role["secret_id"]) = (json!(ROLE.0), json!(ROLE.1));
    set(&admin, &role).await?;
    server.revoke_tokens();
    sleep(Duration::from_secs(CHECK_SECONDS + 1)).await;
    for node in 0..NODES.len() {
        wait_state(cluster, node, "allowed").await?;
        same(&cluster.s3(node)?, "before", large).await?;
    }
    cluster.s3(0)?.put(BUCKET, "third", "under a second version").await?;
    everywhere(cluster, "third", StatusCode::OK, "under a second version").await
}

/// With no grace the first question without an answer counts.
async fn without_grace(cluster: &DevCluster, server: &mut TransitServer) -> Result<()> {
    let mut role = spec(server, 0);
    role["token"] = Value::Null;
    (role["role_id"], role["secret_id"]) = (json!(ROLE.0), json!(ROLE.1));
    set(&cluster.file().admin(0).await?, &role).await?;
    everywhere(cluster, "third", StatusCode::OK, "under a second version").await?;
    server.seal(true);
    everywhere(cluster, "third", StatusCode::SERVICE_UNAVAILABLE, WAITS).await?;
    server.seal(false);
    everywhere(cluster, "third", StatusCode::OK, "under a second version").await
}

/// Leaving needs the service's word; destroying does not.
async fn removed_and_destroyed(
    cluster: &DevCluster,
    server: &mut TransitServer,
    large: &Bytes,
) -> Result<()> {
    let admin = cluster.file().admin(0).await?;
    server.forbid(true);
    let refused = admin.delete(EXTERNAL).await.err().context("it was removed without its service's word")?;
    ensure!(format!("{refused:#}").contains("permission denied"), "{refused:#}");
    server.forbid(false);
    everywhere(cluster, "third", StatusCode::OK, "under a second version").await?;
    admin.delete(EXTERNAL).await?;
    let begun = Instant::now();
    while !admin.get(EXTERNAL).await?["service"].is_null() {
        ensure!(begun.elapsed() < LIMIT, "still there");
        sleep(Duration::from_millis(100)).await;
    }
    server.stop().await;
    sleep(Duration::from_secs(CHECK_SECONDS + 1)).await;
    same(&cluster.s3(2)?, "before", large).await?;
    server.resume().await?;
    let mut role = spec(server, 0);
    role["token"] = Value::Null;
    (role["role_id"], role["secret_id"]) = (json!(ROLE.0), json!(ROLE.1));
    set(&admin, &role).await?;
    server.stop().await;
    everywhere(cluster, "third", StatusCode::SERVICE_UNAVAILABLE, WAITS).await?;
    admin.post("/api/v1/tenants/demo/suspend", &json!({})).await?;
    admin.post("/api/v1/tenants/demo/shred", &json!({ "confirm": "demo" })).await?;
    let done = wait_shredded(cluster).await?;
    let id = done["tenant"].as_str().context("no id")?;
    let certificate = admin.text(&format!("/api/v1/shreds/{id}/certificate")).await?;
    ensure!(
        certificate.contains(&format!("sealed-under-external-key \"transit key transit/{KEY} at")),
        "{certificate}"
    );
    ensure!(other_client(cluster, 1)?.get(BUCKET, "later").await? == "written");
    Ok(())
}
