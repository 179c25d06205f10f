//! Access keys that end and that may do less: made with the `holdfast` command, met by clients on every node.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_blackbox::{
    dev::DevCluster,
    s3::{Call, Client, Credentials},
};
use http::Method;
use serde_json::{Value, json};

use crate::{commands::Holdfast, support::BUCKET};

/// How long a change may take to be seen by all nodes.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the key of the test works.
const LIFE_MILLIS: u64 = 4_000;

/// Asks until the answer is the one that is waited for.
async fn wait(client: &Client, key: &str, code: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = client.send(Call::new(Method::GET, BUCKET, key), Bytes::new()).await?;
        let text = answer.text();
        if text.contains(code) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{code} is waited for: {} {text}", answer.status);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn key_of(listed: &Value, access_key: &str) -> Option<Value> {
    let keys = listed["access_keys"].as_array()?;
    keys.iter().find(|key| key["access_key"] == access_key).cloned()
}

/// Every tenant has an address for its journals, and no two the same.
async fn journal_addresses(holdfast: &Holdfast<'_>) -> Result<()> {
    let begun = Instant::now();
    loop {
        let document = holdfast.json("tenant list")?;
        let tenants = document["tenants"].as_array().context("tenants")?;
        let addresses: BTreeSet<_> =
            tenants.iter().filter_map(|tenant| tenant["journal_address"].as_str()).collect();
        if addresses.len() == tenants.len() && addresses.iter().all(|address| address.len() == 26) {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "addresses for journals: {document:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// All of it, in a cluster with an operator's session.
pub async fn check(cluster: &DevCluster, holdfast: &Holdfast<'_>) -> Result<()> {
    journal_addresses(holdfast).await?;
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "s3:GetObject", "Resource": format!("arn:aws:s3:::{BUCKET}/open/*")}]});
    let (sound, broken) = (cluster.dir().join("key-policy.json"), cluster.dir().join("broken-policy.json"));
    fs::write(&sound, policy.to_string())?;
    fs::write(&broken, json!({"Statement": "all"}).to_string())?;
    let create =
        |file: &std::path::Path| format!("access-key create demo --days 90 --policy-file {}", file.display());
    ensure!(holdfast.refused(None, &create(&broken))?.contains("The policy cannot be used"));
    let pair = holdfast.json(&create(&sound))?;
    let text =
        |field: &str| pair[field].as_str().map(str::to_owned).with_context(|| format!("{field}: {pair}"));
    let credentials = Credentials {
        access_key: text("access_key")?,
        secret_key: text("secret_key")?,
        region: cluster.file().tenants[0].region.clone(),
    };
    let listed = holdfast.json("access-key list demo")?;
    let key = key_of(&listed, &credentials.access_key).context("the key is not listed")?;
    ensure!(key["policy"] == policy && key["expired"] == false, "{key}");
    ensure!(!listed.to_string().contains(&credentials.secret_key), "a secret is listed");

    // It may do less than whom it is of, on every node.
    let owner = cluster.s3(0)?;
    for name in ["open/a", "closed/a"] {
        owner.put(BUCKET, name, "content").await?;
    }
    for node in 0..cluster.file().nodes.len() {
        let bounded = cluster.s3(node)?.with_credentials(credentials.clone());
        wait(&bounded, "open/a", "content").await?;
        wait(&bounded, "closed/a", "AccessDenied").await?;
        let put = bounded.send(Call::new(Method::PUT, BUCKET, "open/b"), Bytes::from_static(b"x")).await?;
        ensure!(put.text().contains("AccessDenied"), "{}", put.text());
    }

    // It ends by itself, everywhere.
    let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
    let admin = cluster.file().admin(1).await?;
    let bounds = format!("/api/v1/tenants/demo/access-keys/{}/bounds", credentials.access_key);
    let past = admin.post(&bounds, &json!({ "expires_unix_ms": 1 })).await;
    ensure!(past.is_err_and(|error| format!("{error:#}").contains("in the past")));
    admin.post(&bounds, &json!({ "expires_unix_ms": now + LIFE_MILLIS })).await?;
    for node in 0..cluster.file().nodes.len() {
        let bounded = cluster.s3(node)?.with_credentials(credentials.clone());
        wait(&bounded, "closed/a", "The access key expired at").await?;
    }
    ensure!(holdfast.run("access-key list demo")?.contains("expired"));

    // Freed, and taken away.
    let id = &credentials.access_key;
    holdfast.run(&format!("access-key bound demo {id}"))?;
    let last = cluster.s3(2)?.with_credentials(credentials.clone());
    wait(&last, "closed/a", "content").await?;
    ensure!(holdfast.refused(None, &format!("access-key bound other {id} --days 1"))?.contains("404"));
    ensure!(holdfast.refused(None, &format!("access-key delete other {id}"))?.contains("404"));
    holdfast.run(&format!("access-key delete demo {id}"))?;
    wait(&last, "closed/a", "InvalidAccessKeyId").await?;
    ensure!(key_of(&holdfast.json("access-key list demo")?, id).is_none());
    Ok(())
}
