//! A tenant's catalog is split while clients work: nobody notices but for the order of things inside.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_blackbox::{
    admin::Admin,
    dev::{DevCluster, DevSpec},
    ledger::Ledger,
    s3::{Call, Client},
    tree::noise,
};
use holdfast_control::FEATURE_LEVEL;
use holdfast_model::ByteCount;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use crate::support::{BUCKET, assert_refused};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const PARTITIONS: &str = "/api/v1/tenants/demo/partitions";
const QUOTA: &str = "/api/v1/tenants/demo/quota";
const LIMIT: Duration = Duration::from_secs(120);
const WRITERS: usize = 4;
const KEYS_A_WRITER: usize = 40;
/// Within the catalog, and in stripes.
const SIZES: [usize; 3] = [300, 9_000, 90_000];

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_is_split_under_load_once_every_node_can() -> Result<()> {
    let mut spec = DevSpec::for_test("splitting", 3, 4)?;
    spec.drive_size = ByteCount::mib(512);
    spec.feature_level_max = Some(1);
    let mut cluster = DevCluster::create(&spec, &|_| {}).await?;
    cluster.s3(0)?.create_bucket(BUCKET).await?;
    let refused = split(&cluster.file().admin(0).await?).await.unwrap_err();
    ensure!(format!("{refused:#}").contains("feature level 2 is needed"), "{refused:#}");
    // Nor does a bucket ask for events that some node would not queue.
    let asks = "<NotificationConfiguration><QueueConfiguration><Queue>arn:holdfast:sqs::hook:webhook</Queue>\
        <Event>s3:ObjectCreated:*</Event></QueueConfiguration></NotificationConfiguration>";
    let call = Call::new(Method::PUT, BUCKET, "").query("notification", "");
    assert_refused(&cluster.s3(0)?.send(call, asks).await?, 501, "NotImplemented");
    update(&mut cluster).await?;

    let client = cluster.s3(0)?;
    let versioned = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    client.expect(Call::new(Method::PUT, BUCKET, "").query("versioning", ""), versioned).await?;
    let upload = begin_upload(&client, "upload/open").await?;
    let (ledger, working) = (Ledger::default(), Arc::new(AtomicBool::new(true)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = cluster.s3(writer % NODES.len())?;
        writers.spawn(write(client, ledger.clone(), Arc::clone(&working), writer));
    }
    sleep(Duration::from_secs(2)).await;
    // Two splits, and between them the node that leads the group is killed while it clears.
    wait_split(&cluster, 1, "n1").await?;
    let leader = partitions(&cluster.file().admin(0).await?).await?[0]["leader"].clone();
    let leader = leader.as_str().context("no leader")?.to_owned();
    cluster.kill(&leader)?;
    let left = NODES.iter().position(|name| **name != *leader).context("no other node")?;
    sleep(Duration::from_secs(3)).await;
    cluster.start(&leader).await?;
    wait_settled(&cluster, left, 2).await?;
    split(&cluster.file().admin(left).await?).await?;
    wait_settled(&cluster, left, 3).await?;
    working.store(false, Ordering::Relaxed);
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    println!("{} PUTs answered", ledger.answers());
    for node in 0..NODES.len() {
        let verdict = ledger.verify(&cluster.s3(node)?, BUCKET).await?;
        ensure!(verdict.broken.is_empty() && verdict.intact > WRITERS, "{verdict:?}");
        // In pages of every size the listing is the same.
        let whole = cluster.s3(node)?.list_all(BUCKET, "").await?;
        ensure!(whole.len() == verdict.intact, "{} listed, {verdict:?}", whole.len());
        ensure!(whole == paged(&cluster.s3(node)?, 7).await?, "pages differ from the whole");
    }
    // The upload that was begun before the splits goes on.
    finish_upload(&client, "upload/open", &upload).await?;
    check_quota(&cluster, &client).await?;
    check_buckets(&cluster).await?;
    // An independent look at every drive, and the day of rest: no debt, no leftovers.
    let audit = cluster.file().admin(0).await?.audit().await?;
    ensure!(audit["debt_stripes"] == 0 && audit["lost_count"] == 0, "{audit}");
    restart(&mut cluster).await?;
    let verdict = ledger.verify(&cluster.s3(2)?, BUCKET).await?;
    ensure!(verdict.broken.is_empty(), "{verdict:?}");

    // A program that cannot is not let in any more.
    cluster.kill("n3")?;
    cluster.reconfigure("n3", |config| config.feature_level_max = Some(1))?;
    cluster.launch("n3")?;
    let begun = Instant::now();
    let said = format!("the cluster uses feature level {FEATURE_LEVEL}");
    while !cluster.log_tail("n3").contains(&said) {
        ensure!(begun.elapsed() < LIMIT, "{}", cluster.log_tail("n3"));
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Nodes are restarted one by one with what they held back.
async fn update(cluster: &mut DevCluster) -> Result<()> {
    for name in NODES {
        cluster.kill(name)?;
        cluster.reconfigure(name, |config| config.feature_level_max = None)?;
        cluster.start(name).await?;
    }
    cluster.wait_whole(0).await
}

async fn restart(cluster: &mut DevCluster) -> Result<()> {
    for name in NODES {
        cluster.kill(name)?;
    }
    for name in NODES {
        cluster.launch(name)?;
    }
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    Ok(())
}

async fn split(admin: &Admin) -> Result<Value> {
    admin.post(PARTITIONS, &json!({})).await
}

/// Asks until the level is raised, and waits until there are `count` more partitions.
async fn wait_split(cluster: &DevCluster, count: usize, name: &str) -> Result<()> {
    let node = NODES.iter().position(|known| *known == name).context("no such node")?;
    let admin = cluster.file().admin(node).await?;
    let begun = Instant::now();
    while let Err(error) = split(&admin).await {
        ensure!(format!("{error:#}").contains("feature level"), "{error:#}");
        ensure!(begun.elapsed() < LIMIT, "{error:#}");
        sleep(Duration::from_millis(300)).await;
    }
    loop {
        let found = partitions(&admin).await?;
        if found.len() == count + 1 && found.iter().all(|one| one["state"] != "to-be-split") {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "{found:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until `count` partitions hold their own keys and no others.
async fn wait_settled(cluster: &DevCluster, node: usize, count: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let found = match cluster.file().admin(node).await {
            Ok(admin) => partitions(&admin).await.unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        if found.len() == count && found.iter().all(|one| one["state"] == "settled") {
            let hashes = |one: &Value| one["hash_until"].as_u64().zip(one["hash_from"].as_u64());
            let all: u64 = found.iter().filter_map(hashes).map(|(until, from)| until - from).sum();
            ensure!(all == 65_536, "{found:?}");
            println!("{count} partitions after {:?}: {found:?}", begun.elapsed());
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "{found:?}");
        sleep(Duration::from_millis(300)).await;
    }
}

async fn partitions(admin: &Admin) -> Result<Vec<Value>> {
    let listed = admin.get(PARTITIONS).await?;
    Ok(listed["partitions"].as_array().context("no partitions")?.clone())
}

/// Overwrites its keys in turn and reads what it wrote; what a client would retry is tried again.
async fn write(client: Client, ledger: Ledger, working: Arc<AtomicBool>, writer: usize) -> Result<()> {
    let mut number = 0;
    while working.load(Ordering::Relaxed) {
        number += 1;
        let key = format!("{writer}/{}", number % KEYS_A_WRITER);
        let body = noise((writer * 1_000_000 + number) as u64, SIZES[number % SIZES.len()]);
        if ledger.put(&client, BUCKET, &key, body.clone()).await? {
            match client.send(Call::new(Method::GET, BUCKET, &key), Bytes::new()).await {
                Ok(answer) if answer.status == StatusCode::OK => {
                    ensure!(answer.body == body, "{key}: another body than was acknowledged");
                }
                Ok(answer) => {
                    ensure!(answer.status.is_server_error(), "{key}: {} {}", answer.status, answer.text());
                }
                // The node was killed.
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        } else {
            sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

async fn paged(client: &Client, size: usize) -> Result<Vec<(String, u64)>> {
    let (mut all, mut token) = (Vec::new(), None::<String>);
    loop {
        let mut call = Call::new(Method::GET, BUCKET, "").query("max-keys", size);
        if let Some(token) = token.take() {
            call = call.query("continuation-token", token);
        }
        let page = client.list_page(call).await?;
        all.extend(page.keys.into_iter().zip(page.sizes));
        match page.next_token {
            Some(next) => token = Some(next),
            None => return Ok(all),
        }
    }
}

async fn begin_upload(client: &Client, key: &str) -> Result<String> {
    let answer =
        client.expect(Call::new(Method::POST, BUCKET, key).query("uploads", ""), Bytes::new()).await?;
    holdfast_blackbox::s3::first(&answer.text(), "UploadId").context("no upload id")
}

async fn finish_upload(client: &Client, key: &str, upload: &str) -> Result<()> {
    let body = noise(77, 100_000);
    let part = Call::new(Method::PUT, BUCKET, key).query("partNumber", 1).query("uploadId", upload);
    let answer = client.expect(part, body.clone()).await?;
    let etag = answer.header("etag").context("no ETag")?.to_owned();
    let complete = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    client.expect(Call::new(Method::POST, BUCKET, key).query("uploadId", upload), complete).await?;
    ensure!(client.get(BUCKET, key).await? == body, "another body");
    Ok(())
}

/// A quota holds for all partitions together, exactly.
async fn check_quota(cluster: &DevCluster, client: &Client) -> Result<()> {
    let admin = cluster.file().admin(0).await?;
    let used = admin.get(QUOTA).await?["used_objects"].as_u64().context("no count")?;
    let more = 30;
    admin.post(QUOTA, &json!({"objects": used + more})).await?;
    let mut stored = 0;
    let refused = loop {
        let key = format!("quota/{stored}");
        let answer = client.send(Call::new(Method::PUT, BUCKET, &key), "small").await?;
        if !answer.status.is_success() {
            break answer;
        }
        stored += 1;
        ensure!(stored <= more, "more than the quota was taken");
    };
    assert_refused(&refused, 403, "QuotaExceeded");
    ensure!(stored == more, "{stored} of {more} were taken");
    let shown = admin.get(QUOTA).await?;
    ensure!(shown["objects_max"] == used + more && shown["used_objects"] == used + more, "{shown}");
    admin.post(QUOTA, &json!({})).await?;
    Ok(())
}

/// Buckets are everywhere or nowhere.
async fn check_buckets(cluster: &DevCluster) -> Result<()> {
    let (one, two) = (cluster.s3(0)?, cluster.s3(1)?);
    one.create_bucket("second").await?;
    let mut bodies = BTreeMap::new();
    for number in 0..20 {
        let (key, body) = (format!("k{number}"), format!("body {number}"));
        two.put("second", &key, body.clone()).await?;
        bodies.insert(key, body);
    }
    let delete = || Call::new(Method::DELETE, "second", "");
    assert_refused(&one.send(delete(), Bytes::new()).await?, 409, "BucketNotEmpty");
    // Refused is refused: it takes what comes.
    two.put("second", "after", "refused").await?;
    for key in bodies.keys().chain([&"after".to_owned()]) {
        one.delete("second", key).await?;
    }
    one.expect(delete(), Bytes::new()).await?;
    assert_refused(&two.send(Call::new(Method::PUT, "second", "k1"), "late").await?, 404, "NoSuchBucket");
    one.create_bucket("second").await?;
    ensure!(two.list_all("second", "").await?.is_empty(), "a new bucket of the name is empty");
    Ok(())
}
