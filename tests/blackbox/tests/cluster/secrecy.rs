//! What lies on drives and in state directories says nothing of what was stored.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

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

    // What clients call things: a bucket, keys of objects and of an upload that stays open, metadata.
    let names: Vec<String> = (0..4).map(|_| random_text().map(lower)).collect::<Result<_>>()?;
    client.create_bucket(&names[0]).await?;
    for number in 0..40 {
        let call = Call::new(Method::PUT, &names[0], &format!("{}/{number}", names[1]))
            .header("x-amz-meta-said", &names[2]);
        client.expect(call, Bytes::from_static(b"said")).await?;
    }
    let open = Call::new(Method::POST, &names[0], &names[3]).query("uploads", "");
    client.expect(open, Bytes::new()).await?;
    assert_eq!(client.list_all(&names[0], &names[1]).await?.len(), 40);

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
    wanted.extend(names.iter().map(|name| name.clone().into_bytes()));
    let roots: Vec<PathBuf> = ["n1", "n2", "n3"].iter().map(|name| cluster.dir().join(name)).collect();
    // While it runs: write-ahead files and the log's tail are as they are after a crash.
    let states: Vec<PathBuf> = roots.iter().map(|root| root.join("state")).collect();
    assert_eq!(scan(&states, &wanted)?.hits, [], "plain text in the state of running nodes");
    let plain = [b"SQLite format 3".to_vec()];
    let sealed_only = scan(&states.iter().map(|state| state.join("catalog")).collect::<Vec<_>>(), &plain)?;
    assert!(
        sealed_only.files > 0 && sealed_only.hits.iter().all(|hit| is_position(&hit.file)),
        "a catalog file in the clear: {sealed_only:?}"
    );
    cluster.stop()?;
    let report = scan(&roots, &wanted)?;
    println!("{} files, {} MB read", report.files, report.bytes / 1_000_000);
    assert!(report.bytes > 40_000_000, "the scan read less than was stored: {report:?}");
    assert_eq!(report.hits, [], "plain text on disk");

    // The scan can find: one needle into the middle of a drive, and it is reported, there and nowhere else.
    let drive = roots[1].join("drives/d2");
    File::options().write(true).open(&drive)?.write_all_at(&needles[1], (200 << 20) + 4093)?;
    assert_eq!(scan(&roots, &wanted)?.hits, [Hit { file: drive, needle: 1 }]);
    // And one in a log of the catalog's.
    let planted = states[0].join("raft").join("planted");
    std::fs::write(&planted, [b"before ", names[1].as_bytes(), b" after"].concat())?;
    assert_eq!(scan(&states, &wanted)?.hits, [Hit { file: planted, needle: needles.len() + 3 }]);
    Ok(())
}

/// The file in which a catalog group keeps how far it has come, and nothing of a tenant.
fn is_position(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("group.sqlite"))
}

/// The same letters as a bucket may be named with.
fn lower(text: Vec<u8>) -> String {
    text.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect()
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
