//! What lies on drives and in state directories says nothing of what was stored.

use std::{
    fs::{self, File},
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_blackbox::{
    dev::{DevCluster, DevSpec},
    process::Identity,
    s3::{Call, first},
    scan::{Hit, scan},
    tree::noise,
};
use holdfast_model::ByteCount;
use http::Method;
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::time::sleep;

use crate::support::{BUCKET, single};

const NEEDLE: usize = 24;

/// Nothing that is waited for takes longer, unless it does not come.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn planted_strings_are_found_nowhere_but_where_we_put_them() -> Result<()> {
    let mut spec = DevSpec::for_test("secrecy", 3, 2)?;
    spec.drive_size = ByteCount::mib(512);
    let mut cluster = DevCluster::create(&spec, &|_| {}).await?;
    let client = cluster.s3(0)?;
    client.create_bucket(BUCKET).await?;

    // What clients call things: a bucket, keys of objects and of an upload that stays open, metadata, tags.
    let names: Vec<String> = (0..6).map(|_| random_text().map(lower)).collect::<Result<_>>()?;
    client.create_bucket(&names[0]).await?;
    for number in 0..40 {
        let call = Call::new(Method::PUT, &names[0], &format!("{}/{number}", names[1]))
            .header("x-amz-meta-said", &names[2])
            .header("x-amz-tagging", format!("said={}", names[4]));
        client.expect(call, Bytes::from_static(b"said")).await?;
    }
    let open = Call::new(Method::POST, &names[0], &names[3]).query("uploads", "");
    client.expect(open, Bytes::new()).await?;
    assert_eq!(client.list_all(&names[0], &names[1]).await?.len(), 40);
    // Policies name buckets and objects: of a user, and of an access key.
    let policy = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*",
        "Resource": [format!("arn:aws:s3:::{}/{}", names[0], names[5]), "*"]}]});
    for (action, parameters) in [
        ("CreateUser", vec![("UserName", "someone")]),
        (
            "PutUserPolicy",
            vec![("UserName", "someone"), ("PolicyName", "p"), ("PolicyDocument", &policy.to_string())],
        ),
    ] {
        let (call, form) = Call::iam(action, &parameters);
        client.expect(call, form).await?;
    }
    let admin = cluster.file().admin(0).await?;
    let begun = Instant::now();
    // A cluster just founded knows such keys once all of its nodes have said that they do.
    while let Err(error) = admin.post("/api/v1/tenants/demo/access-keys", &json!({ "policy": policy })).await
    {
        ensure!(begun.elapsed() < PATIENCE, "{error:#}");
        sleep(Duration::from_millis(200)).await;
    }

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
    fs::write(&planted, [b"before ", names[1].as_bytes(), b" after"].concat())?;
    assert_eq!(scan(&states, &wanted)?.hits, [Hit { file: planted, needle: needles.len() + 3 }]);
    Ok(())
}

/// Memory holds keys and plain text: a node that aborts leaves none of it behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_aborts_leaves_no_core_file() -> Result<()> {
    let (mut cluster, client) = single("core").await?;
    client.put(BUCKET, "large", planted(&random_text()?, 6 << 20)).await?;

    // The method: a program that keeps nothing secret leaves a core file under the same limit.
    let control = cluster.dir().join("control");
    fs::create_dir(&control)?;
    let mut sleeper = Command::new("sleep").arg("60").current_dir(&control).spawn()?;
    abort(Identity::of(i32::try_from(sleeper.id())?)?)?;
    ensure!(sleeper.wait()?.core_dumped(), "this machine writes no core files: nothing would be shown");
    ensure!(!core_files(&control)?.is_empty(), "core files of this machine are not where they arise");

    let node = cluster.process("n1").context("n1 runs")?;
    abort(node)?;
    ensure!(node.wait_gone(Duration::from_secs(20)), "n1 survives SIGABRT");
    assert_eq!(core_files(&cluster.dir().join("n1"))?, Vec::<PathBuf>::new());
    cluster.start("n1").await?;
    ensure!(client.get(BUCKET, "large").await?.len() == 6 << 20);
    Ok(())
}

/// Lifts the limit of a process's core file, as far as this user may (a hard limit of nothing takes
/// `CAP_SYS_RESOURCE`), and ends it with SIGABRT.
fn abort(process: Identity) -> Result<()> {
    let raised = Command::new("prlimit")
        .args(["--core=unlimited:unlimited", "--pid", &process.pid.to_string()])
        .output()
        .context("prlimit, of util-linux")?;
    println!("limit of {} lifted: {}", process.pid, raised.status.success());
    process.signal(Signal::SIGABRT)?;
    Ok(())
}

fn core_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().contains("core") {
            found.push(entry.path());
        }
    }
    Ok(found)
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
