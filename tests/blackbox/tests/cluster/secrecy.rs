//! What lies on drives and in state directories says nothing of what was stored.

use std::{fs::File, os::unix::fs::FileExt, path::PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use holdfast_blackbox::{
    dev::{DevCluster, DevSpec},
    s3::{Call, first},
    scan::{Hit, scan},
    tree::noise,
};
use holdfast_model::ByteCount;
use http::Method;

use crate::support::BUCKET;

const NEEDLE: usize = 24;

#[tokio::test(flavor = "multi_thread")]
async fn planted_strings_are_found_nowhere_but_where_we_put_them() -> Result<()> {
    let mut spec = DevSpec::for_test("secrecy", 3, 2)?;
    spec.drive_size = ByteCount::mib(512);
    let mut cluster = DevCluster::create(&spec, &|_| {}).await?;
    let client = cluster.s3(0)?;
    client.create_bucket(BUCKET).await?;

    // One needle for each way a body takes: within the catalog, in stripes, in parts.
    let needles: Vec<Vec<u8>> = (0..3).map(|_| random_text()).collect::<Result<_>>()?;
    for number in 0..50 {
        client.put(BUCKET, &format!("small/{number}"), planted(&needles[0], 3000)).await?;
    }
    client.put(BUCKET, "large", planted(&needles[1], 20 << 20)).await?;
    let begun =
        client.expect(Call::new(Method::POST, BUCKET, "parts").query("uploads", ""), Bytes::new()).await?;
    let upload = first(&begun.text(), "UploadId").context("no UploadId")?;
    let part = Call::new(Method::PUT, BUCKET, "parts").query("partNumber", 1).query("uploadId", &upload);
    client.expect(part, planted(&needles[2], 6 << 20)).await?;
    assert!(client.get(BUCKET, "large").await? == planted(&needles[1], 20 << 20));

    let mut wanted = needles.clone();
    wanted.push(client.credentials().secret_key.clone().into_bytes());
    wanted.push(cluster.file().operator.password.clone().into_bytes());
    cluster.stop()?;
    let roots: Vec<PathBuf> = ["n1", "n2", "n3"].iter().map(|name| cluster.dir().join(name)).collect();
    let report = scan(&roots, &wanted)?;
    println!("{} files, {} MB read", report.files, report.bytes / 1_000_000);
    assert!(report.bytes > 40_000_000, "the scan read less than was stored: {report:?}");
    assert_eq!(report.hits, [], "plain text on disk");

    // The scan can find: one needle into the middle of a drive, and it is reported, there and nowhere else.
    let drive = roots[1].join("drives/d2");
    File::options().write(true).open(&drive)?.write_all_at(&needles[1], (200 << 20) + 4093)?;
    assert_eq!(scan(&roots, &wanted)?.hits, [Hit { file: drive, needle: 1 }]);
    Ok(())
}

/// Letters that no document holds.
fn random_text() -> Result<Vec<u8>> {
    let mut seed = [0; NEEDLE];
    getrandom::fill(&mut seed)?;
    Ok(seed.iter().map(|byte| b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"[usize::from(byte % 32)]).collect())
}

/// A body with the needle all over it, at every alignment.
fn planted(needle: &[u8], length: usize) -> Vec<u8> {
    let filler = noise(length as u64, 37);
    let mut body = Vec::with_capacity(length + 64);
    while body.len() < length {
        body.extend_from_slice(needle);
        body.extend_from_slice(&filler);
    }
    body.truncate(length);
    body
}
