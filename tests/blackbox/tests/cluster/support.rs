//! Starting clusters for tests, and small words for what tests say often.

use anyhow::Result;
use bytes::Bytes;
use holdfast_blackbox::{
    dev::{DevCluster, DevSpec},
    http_client::Answer,
    s3::{Call, Client, first},
};
use holdfast_model::ByteCount;
use http::StatusCode;

/// The bucket that tests use.
pub const BUCKET: &str = "bucket";

/// A cluster with the bucket in it, stopped when dropped.
pub async fn cluster(name: &str, nodes: u16, drives: u16) -> Result<DevCluster> {
    let mut spec = DevSpec::for_test(name, nodes, drives)?;
    spec.drive_size = ByteCount::mib(512);
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    cluster.s3(0)?.create_bucket(BUCKET).await?;
    Ok(cluster)
}

/// A cluster of one node with four drives, and its client.
pub async fn single(name: &str) -> Result<(DevCluster, Client)> {
    let cluster = cluster(name, 1, 4).await?;
    let client = cluster.s3(0)?;
    Ok((cluster, client))
}

/// Sends a call and checks the status and the S3 error code it is refused with.
#[track_caller]
pub fn assert_refused(answer: &Answer, status: u16, code: &str) {
    let text = answer.text();
    assert_eq!(
        (answer.status.as_u16(), first(&text, "Code").as_deref()),
        (status, Some(code)),
        "{} {text}",
        answer.status
    );
    assert!(answer.header("x-amz-request-id").is_some(), "an error without a request id: {text}");
}

/// Sends a call with a body.
pub async fn send(client: &Client, call: Call, body: impl Into<Bytes>) -> Result<Answer> {
    client.send(call, body).await
}

/// Whether an object is there.
pub async fn exists(client: &Client, key: &str) -> Result<bool> {
    let answer = client.send(Call::new(http::Method::HEAD, BUCKET, key), Bytes::new()).await?;
    Ok(answer.status == StatusCode::OK)
}
