//! Multipart uploads.

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_blackbox::{
    s3::{Call, Client, first},
    tree::noise,
};
use http::Method;

use crate::support::{BUCKET, assert_refused, cluster, exists, send, single};

const PART: usize = 5 << 20;

pub async fn begin(client: &Client, key: &str) -> Result<String> {
    let answer =
        client.expect(Call::new(Method::POST, BUCKET, key).query("uploads", ""), Bytes::new()).await?;
    first(&answer.text(), "UploadId").context("no UploadId")
}

pub async fn part(client: &Client, key: &str, upload: &str, number: u32, body: Vec<u8>) -> Result<String> {
    let call = Call::new(Method::PUT, BUCKET, key).query("partNumber", number).query("uploadId", upload);
    let answer = client.expect(call, body).await?;
    Ok(answer.header("etag").context("part without ETag")?.to_owned())
}

pub fn completion(parts: &[(u32, String)]) -> String {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>")
}

pub fn complete(key: &str, upload: &str) -> Call {
    Call::new(Method::POST, BUCKET, key).query("uploadId", upload)
}

#[tokio::test]
async fn parts_sent_to_different_nodes_out_of_order_make_one_object() -> Result<()> {
    let cluster = cluster("multipart", 3, 2).await?;
    let nodes = [cluster.s3(0)?, cluster.s3(1)?, cluster.s3(2)?];
    let bodies = [noise(1, PART), noise(2, PART + 12_345), noise(3, 777)];
    let upload = begin(&nodes[0], "big").await?;
    let third = part(&nodes[2], "big", &upload, 9, bodies[2].clone()).await?;
    let _replaced = part(&nodes[0], "big", &upload, 2, noise(9, PART)).await?;
    let first_part = part(&nodes[1], "big", &upload, 1, bodies[0].clone()).await?;
    let second = part(&nodes[2], "big", &upload, 2, bodies[1].clone()).await?;
    assert!(!exists(&nodes[0], "big").await?, "an upload in progress is not an object");
    let list = completion(&[(1, first_part), (2, second), (9, third)]);
    let answer = nodes[1].expect(complete("big", &upload), list).await?;
    let etag = first(&answer.text(), "ETag").context("no ETag")?;
    assert!(etag.trim_matches('"').ends_with("-3"), "{etag}");

    let whole = bodies.concat();
    for node in &nodes {
        assert!(node.get(BUCKET, "big").await? == whole, "other bytes");
    }
    let seam = format!("bytes={}-{}", PART - 10, PART + 9);
    let answer =
        nodes[2].expect(Call::new(Method::GET, BUCKET, "big").header("range", seam), Bytes::new()).await?;
    assert!(answer.body == whole[PART - 10..PART + 10], "a range over the seam of two parts");
    Ok(())
}

#[tokio::test]
async fn an_upload_that_is_not_right_does_not_complete() -> Result<()> {
    let (_cluster, client) = single("multipart-errors").await?;
    let upload = begin(&client, "key").await?;
    let one = part(&client, "key", &upload, 1, noise(1, 1000)).await?;
    let two = part(&client, "key", &upload, 2, noise(2, 1000)).await?;
    let try_complete =
        async |parts: &[(u32, String)]| send(&client, complete("key", &upload), completion(parts)).await;
    assert_refused(&try_complete(&[(1, one.clone()), (2, two.clone())]).await?, 400, "EntityTooSmall");
    assert_refused(&try_complete(&[(2, two.clone()), (1, one.clone())]).await?, 400, "InvalidPartOrder");
    assert_refused(&try_complete(&[(1, two.clone())]).await?, 400, "InvalidPart");
    assert_refused(&try_complete(&[(7, one.clone())]).await?, 400, "InvalidPart");
    assert!(!exists(&client, "key").await?);

    let listed =
        client.expect(Call::new(Method::GET, BUCKET, "").query("uploads", ""), Bytes::new()).await?.text();
    assert!(listed.contains(&upload), "{listed}");
    let abort = Call::new(Method::DELETE, BUCKET, "key").query("uploadId", &upload);
    client.expect(abort, Bytes::new()).await?;
    assert_refused(&try_complete(&[(1, one)]).await?, 404, "NoSuchUpload");
    let late = Call::new(Method::PUT, BUCKET, "key").query("partNumber", 3).query("uploadId", &upload);
    assert_refused(&send(&client, late, "late").await?, 404, "NoSuchUpload");
    assert_eq!(client.list_all(BUCKET, "").await?, []);
    Ok(())
}
