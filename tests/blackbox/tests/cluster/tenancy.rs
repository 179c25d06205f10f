//! A tenant's standing on one node: suspended, limited, and what keeps it from being destroyed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_blackbox::{
    admin::Admin,
    dev::DevCluster,
    s3::{Call, Client, Credentials},
    tree::noise,
};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::{BUCKET, single};

const LIMIT: Duration = Duration::from_secs(90);

/// A client of the second tenant.
pub fn other_client(cluster: &DevCluster, node: usize) -> Result<Client> {
    let tenants = &cluster.file().tenants;
    let other = tenants.iter().find(|tenant| tenant.name == "other").context("no second tenant")?;
    Ok(cluster.s3(node)?.with_credentials(Credentials {
        access_key: other.access_key.clone(),
        secret_key: other.secret_key.clone(),
        region: other.region.clone(),
    }))
}

/// What the cluster says of the destruction of `demo`.
pub async fn shred_of_demo(admin: &Admin) -> Result<Value> {
    let listed = admin.get("/api/v1/shreds").await?;
    let of_demo = listed["shreds"].as_array().and_then(|shreds| shreds.iter().find(|s| s["name"] == "demo"));
    of_demo.cloned().with_context(|| format!("{listed}"))
}

/// Waits until `demo` is destroyed.
pub async fn wait_shredded(cluster: &DevCluster) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let status = shred_of_demo(&cluster.file().admin(0).await?).await?;
        if status["state"] == "done" {
            return Ok(status);
        }
        ensure!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {status}");
        sleep(Duration::from_millis(300)).await;
    }
}

/// Waits until a read is answered so.
pub async fn wait_answer(client: &Client, key: &str, status: StatusCode, code: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let answer = client.send(Call::new(Method::GET, BUCKET, key), Bytes::new()).await?;
        if answer.status == status && answer.text().contains(code) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(20),
            "{status} {code}: {} {}",
            answer.status,
            answer.text()
        );
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_suspended_limited_and_kept_by_legal_holds_until_a_reason_is_given() -> Result<()> {
    let (cluster, client) = single("tenancy").await?;
    let admin = cluster.file().admin(0).await?;
    let other = other_client(&cluster, 0)?;
    other.create_bucket(BUCKET).await?;
    other.put(BUCKET, "theirs", "other's").await?;
    client.put(BUCKET, "before", "kept").await?;

    // Suspended: refused with the reason, the other tenant is not; resumed: as before.
    admin.post("/api/v1/tenants/demo/suspend", &json!({})).await?;
    wait_answer(&client, "before", StatusCode::FORBIDDEN, "The tenant is suspended").await?;
    let put = client.send(Call::new(Method::PUT, BUCKET, "x"), "x").await?;
    ensure!(put.status == StatusCode::FORBIDDEN && put.text().contains("AccessDenied"), "{}", put.text());
    ensure!(other.get(BUCKET, "theirs").await? == "other's");
    let tenants = admin.get("/api/v1/tenants").await?;
    ensure!(tenants["tenants"][0]["state"] == "suspended", "{tenants}");
    admin.post("/api/v1/tenants/demo/resume", &json!({})).await?;
    wait_answer(&client, "before", StatusCode::OK, "kept").await?;

    // Limited: what fits is taken, what does not is refused; a quota lifted is lifted.
    admin.post("/api/v1/tenants/demo/quota", &json!({ "bytes": 10_000, "objects": 3 })).await?;
    client.put(BUCKET, "fits", noise(1, 5_000)).await?;
    let full = client.send(Call::new(Method::PUT, BUCKET, "large"), noise(2, 6_000)).await?;
    ensure!(full.status == StatusCode::FORBIDDEN && full.text().contains("QuotaExceeded"), "{}", full.text());
    client.put(BUCKET, "third", "3").await?;
    let many = client.send(Call::new(Method::PUT, BUCKET, "fourth"), "4").await?;
    ensure!(many.text().contains("QuotaExceeded"), "{}", many.text());
    let quota = admin.get("/api/v1/tenants/demo/quota").await?;
    let expected = json!({ "bytes_max": 10_000, "objects_max": 3, "used_bytes": 5_005, "used_objects": 3 });
    ensure!(quota == expected, "{quota}");
    admin.post("/api/v1/tenants/demo/quota", &json!({})).await?;
    client.put(BUCKET, "fourth", "4").await?;

    // Destroyed only when suspended, and against legal holds only with a reason, which stands in the certificate.
    let locked = Call::new(Method::PUT, "locked", "").header("x-amz-bucket-object-lock-enabled", "true");
    client.expect(locked, Bytes::new()).await?;
    let held = Call::new(Method::PUT, "locked", "held").header("x-amz-object-lock-legal-hold", "ON");
    client.expect(held, "evidence").await?;
    let shred = "/api/v1/tenants/demo/shred";
    let plain = json!({ "confirm": "demo" });
    let early = admin.post(shred, &plain).await.unwrap_err();
    ensure!(format!("{early:#}").contains("Suspend it first"), "{early:#}");
    admin.post("/api/v1/tenants/demo/suspend", &json!({})).await?;
    let kept = admin.post(shred, &plain).await.unwrap_err();
    ensure!(format!("{kept:#}").contains("1 versions of objects are under legal hold"), "{kept:#}");
    let with_reason = json!({ "confirm": "demo", "override_retention": "order 7 of the court" });
    let begun = admin.post(shred, &with_reason).await?;
    ensure!(begun["state"] == "pending", "{begun}");
    let done = wait_shredded(&cluster).await?;
    let certificate =
        admin.text(&format!("/api/v1/shreds/{}/certificate", done["tenant"].as_str().context("id")?)).await?;
    ensure!(
        certificate.contains("order 7 of the court") && certificate.contains("under legal hold"),
        "{certificate}"
    );
    wait_answer(&client, "before", StatusCode::FORBIDDEN, "InvalidAccessKeyId").await?;
    ensure!(other.get(BUCKET, "theirs").await? == "other's");
    // The name is free, and what is made under it is another tenant.
    let again = admin.create_tenant("demo").await?;
    ensure!(again.access_key != cluster.file().tenants[0].access_key);
    Ok(())
}
