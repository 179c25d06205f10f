//! Lifecycle rules are carried out on a cluster of three whose days have two seconds, and objects under keys
//! are opened by nothing else. One cluster for both.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use holdfast_blackbox::{
    dev::{DevCluster, DevSpec},
    s3::{Call, Client, first},
    tree::noise,
};
use holdfast_model::ByteCount;
use http::Method;
use md5::{Digest, Md5};
use tokio::time::sleep;

use crate::support::assert_refused;

const DAY_SECONDS: u64 = 2;
/// Everything that the rules ask for is done within so many days; a loaded machine is patient.
const DAYS_MAX: u64 = 30;

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_carried_out_and_keys_are_needed_on_every_node() -> Result<()> {
    let mut spec = DevSpec::for_test("lifecycle", 3, 4)?;
    spec.drive_size = ByteCount::mib(512);
    spec.s3.day_seconds = DAY_SECONDS;
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    rules(&cluster.s3(0)?).await?;
    keys(&cluster.s3(0)?, &cluster.s3(2)?).await
}

async fn rules(client: &Client) -> Result<()> {
    client.expect(Call::new(Method::PUT, "plain", ""), "").await?;
    client.expect(Call::new(Method::PUT, "versioned", ""), "").await?;
    let enabled = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    client.expect(Call::new(Method::PUT, "versioned", "").query("versioning", ""), enabled).await?;
    for key in ["old/a", "old/b", "kept/a"] {
        client.put("plain", key, noise(1, 200_000)).await?;
        client.put("versioned", key, "first").await?;
        client.put("versioned", key, "second").await?;
    }
    client.expect(Call::new(Method::POST, "plain", "old/upload").query("uploads", ""), "").await?;
    let plain = "<LifecycleConfiguration>\
        <Rule><ID>gone</ID><Filter><Prefix>old/</Prefix></Filter><Status>Enabled</Status>\
          <Expiration><Days>1</Days></Expiration>\
          <AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>\
        <Rule><ID>colder</ID><Filter><Prefix>kept/</Prefix></Filter><Status>Enabled</Status>\
          <Transition><Days>1</Days><StorageClass>STANDARD_IA</StorageClass></Transition></Rule>\
        </LifecycleConfiguration>";
    client.expect(Call::new(Method::PUT, "plain", "").query("lifecycle", ""), plain).await?;
    let versioned = "<LifecycleConfiguration>\
        <Rule><ID>gone</ID><Filter><Prefix>old/</Prefix></Filter><Status>Enabled</Status>\
          <Expiration><Days>1</Days></Expiration>\
          <NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule>\
        <Rule><ID>one</ID><Filter><Prefix>kept/</Prefix></Filter><Status>Enabled</Status>\
          <NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>\
        </LifecycleConfiguration>";
    client.expect(Call::new(Method::PUT, "versioned", "").query("lifecycle", ""), versioned).await?;

    let begun = Instant::now();
    loop {
        let listed: Vec<String> =
            client.list_all("plain", "").await?.into_iter().map(|(key, _)| key).collect();
        let uploads = client.expect(Call::new(Method::GET, "plain", "").query("uploads", ""), "").await?;
        let versions =
            client.expect(Call::new(Method::GET, "versioned", "").query("versions", ""), "").await?;
        let head = client.expect(Call::new(Method::GET, "plain", "kept/a"), "").await?;
        let (versions, class) = (versions.text(), head.header("x-amz-storage-class").map(str::to_owned));
        let done = listed == ["kept/a"]
            && !uploads.text().contains("<Upload>")
            && !versions.contains("old/")
            && class.as_deref() == Some("STANDARD_IA");
        if done {
            // The one noncurrent version that is to stay has stayed.
            ensure!(versions.matches("<VersionId>").count() == 2, "{versions}");
            println!("rules carried out in {:.1} s", begun.elapsed().as_secs_f64());
            return Ok(());
        }
        let patience = Duration::from_secs(DAY_SECONDS * DAYS_MAX);
        ensure!(begun.elapsed() < patience, "after {patience:?}: {listed:?}, {class:?}, {versions}");
        sleep(Duration::from_millis(300)).await;
    }
}

fn with_key(call: Call, key: u8) -> Call {
    let bytes = [key; 32];
    let name = |end: &str| format!("x-amz-server-side-encryption-customer-{end}");
    call.header(&name("algorithm"), "AES256")
        .header(&name("key"), BASE64.encode(bytes))
        .header(&name("key-md5"), BASE64.encode(Md5::digest(bytes)))
}

/// Written through one node, read through another.
async fn keys(client: &Client, other: &Client) -> Result<()> {
    client.expect(Call::new(Method::PUT, "sealed", ""), "").await?;
    for (key, size) in [("small", 1000), ("large", 3_000_000)] {
        let body = noise(7, size);
        client.expect(with_key(Call::new(Method::PUT, "sealed", key), 1), body.clone()).await?;
        let get = || Call::new(Method::GET, "sealed", key);
        let whole = other.expect(with_key(get(), 1), "").await?;
        ensure!(whole.body == body, "{key}: other bytes");
        let range = other.expect(with_key(get(), 1).header("range", "bytes=900-999"), "").await?;
        ensure!(range.body == body[900..1000], "{key}: another range");
        assert_refused(&other.send(get(), "").await?, 400, "InvalidRequest");
        assert_refused(&other.send(with_key(get(), 2), "").await?, 403, "AccessDenied");
    }
    let kms = |call: Call, id: &str| {
        call.header("x-amz-server-side-encryption", "aws:kms")
            .header("x-amz-server-side-encryption-aws-kms-key-id", id)
    };
    let put = || Call::new(Method::PUT, "sealed", "named");
    assert_refused(&client.send(kms(put(), "nobody-made-it"), "x").await?, 400, "KMS.NotFoundException");
    client.expect(kms(put(), "alias/aws/s3"), "x").await?;
    let read = other.expect(Call::new(Method::GET, "sealed", "named"), "").await?;
    ensure!(read.header("x-amz-server-side-encryption-aws-kms-key-id") == Some("alias/aws/s3"));
    let encryption = client.expect(Call::new(Method::GET, "sealed", "").query("encryption", ""), "").await?;
    ensure!(first(&encryption.text(), "SSEAlgorithm").as_deref() == Some("AES256"));
    Ok(())
}
