//! The life of a drive: plugged in, approved, pulled, put back, copied, restored from an old image.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    admin::Admin,
    dev::{DevCluster, DevSpec},
    tree::noise,
};
use holdfast_drive::{FormatParams, format};
use holdfast_model::{ByteCount, ClusterId, DriveId, NodeId};
use serde_json::{Value, json};

use crate::support::BUCKET;

const DRIVE_SIZE: ByteCount = ByteCount::mib(128);

/// Devices are looked at every two seconds, and nodes asked every second.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a device of a node to be shown so, and returns it.
async fn device(admin: &Admin, node: &str, serial: &str, standing: &str) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let list = admin.get("/api/v1/drives").await?;
        let devices = list["devices"].as_array().context("devices")?;
        let found = devices.iter().find(|row| row["node"] == node && row["device"]["serial"] == serial);
        if let Some(row) = found.filter(|row| row["device"]["standing"] == standing) {
            return Ok(row["device"].clone());
        }
        ensure!(begun.elapsed() < PATIENCE, "{serial} of {node} is not {standing}: {list:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits for the drive in a place to be in a state, and returns it.
async fn drive(admin: &Admin, node: &str, serial: &str, state: &str) -> Result<Value> {
    let begun = Instant::now();
    let ending = format!("{node}/drives/{serial}");
    loop {
        let list = admin.get("/api/v1/drives").await?;
        let drives = list["drives"].as_array().context("drives")?;
        let here = |row: &&Value| row["drive"]["path"].as_str().is_some_and(|path| path.ends_with(&ending));
        if let Some(row) = drives.iter().filter(here).find(|row| row["drive"]["state"]["kind"] == state) {
            return Ok(row["drive"].clone());
        }
        ensure!(begun.elapsed() < PATIENCE, "no drive at {ending} is {state}: {list:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Puts a file into a node's directory of drives at once, whole.
fn plug_in(
    cluster: &DevCluster,
    node: &str,
    serial: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let directory = cluster.dir().join(node).join("drives");
    let hidden = directory.join(format!(".{serial}"));
    fill(&hidden)?;
    Ok(fs::rename(hidden, directory.join(serial))?)
}

fn blank(path: &Path) -> Result<()> {
    Ok(File::create(path)?.set_len(DRIVE_SIZE.get())?)
}

fn place(cluster: &DevCluster, node: &str, serial: &str) -> PathBuf {
    cluster.dir().join(node).join("drives").join(serial)
}

/// What a refusal says.
fn why(refused: Result<Value>) -> Result<String> {
    match refused {
        Ok(answer) => anyhow::bail!("not refused: {answer}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

fn says(device: &Value, what: &str) -> Result<()> {
    let reason = device["reason"].as_str().unwrap_or_default();
    println!("{}: {reason}", device["standing"]);
    ensure!(reason.contains(what), "{what:?} is not said: {device:#}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn drives_come_and_go_and_only_what_is_current_and_approved_is_used() -> Result<()> {
    let mut spec = DevSpec::for_test("drives", 3, 2)?;
    spec.drive_size = DRIVE_SIZE;
    spec.watched = true;
    let mut cluster = DevCluster::create(&spec, &|_| {}).await?;
    let client = cluster.s3(0)?;
    client.create_bucket(BUCKET).await?;
    let admin = cluster.file().admin(0).await?;
    let bodies: Vec<Vec<u8>> = (0..6).map(|n| noise(n, 300_000)).collect();
    for (n, body) in bodies.iter().enumerate() {
        client.put(BUCKET, &format!("{n}"), body.clone()).await?;
    }
    let begun = Instant::now();

    // A blank one waits, whatever the node is told, until an operator approves.
    plug_in(&cluster, "n2", "d3", blank)?;
    let waiting = device(&admin, "n2", "d3", "waiting").await?;
    ensure!(waiting["size_bytes"] == DRIVE_SIZE.get(), "{waiting:#}");
    admin.post("/api/v1/drives/adopt", &json!({ "node": "n2", "device": "d3" })).await?;
    let adopted = drive(&admin, "n2", "d3", "healthy").await?;
    ensure!(adopted["serial"] == "d3" && adopted["capacity_bytes"].as_u64() > Some(0), "{adopted:#}");
    println!("adopted after {:?}", begun.elapsed());

    // What is not blank is shown and left alone, until it is named.
    plug_in(&cluster, "n1", "d3", |path| {
        blank(path)?;
        Ok(File::options().write(true).open(path)?.write_all_at(&noise(5, 4096), 0)?)
    })?;
    says(&device(&admin, "n1", "d3", "unknown").await?, "it holds")?;
    let adopt = |erase: Option<&str>| {
        let body = json!({ "node": "n1", "device": "d3", "erase": erase });
        let admin = admin.clone();
        async move { admin.post("/api/v1/drives/adopt", &body).await }
    };
    let refused = why(adopt(None).await)?;
    ensure!(refused.contains("not blank") && refused.contains("d3"), "{refused}");
    ensure!(why(adopt(Some("d2")).await)?.contains("not blank"), "another name erases it");

    // A drive of another cluster.
    plug_in(&cluster, "n3", "d3", foreign)?;
    says(&device(&admin, "n3", "d3", "foreign").await?, "another cluster")?;

    // A copy of a drive that is open, here and on another node.
    let original = place(&cluster, "n1", "d1");
    for node in ["n1", "n3"] {
        plug_in(&cluster, node, "d4", |path| Ok(fs::copy(&original, path).map(drop)?))?;
        says(&device(&admin, node, "d4", "duplicate").await?, "copy of drive")?;
        fs::remove_file(place(&cluster, node, "d4"))?;
    }

    // Pulled and put back: it serves again, without anybody's doing.
    let image = cluster.dir().join("image");
    fs::copy(&original, &image)?;
    fs::rename(&original, cluster.dir().join("pulled"))?;
    drive(&admin, "n1", "d1", "missing").await?;
    for (n, body) in bodies.iter().enumerate() {
        ensure!(client.get(BUCKET, &format!("{n}")).await? == *body, "{n}: other bytes while a drive is out");
    }
    fs::rename(cluster.dir().join("pulled"), &original)?;
    drive(&admin, "n1", "d1", "healthy").await?;

    // The image that was taken before is behind by now: the drive has been mounted since.
    fs::rename(&original, cluster.dir().join("pulled"))?;
    drive(&admin, "n1", "d1", "missing").await?;
    plug_in(&cluster, "n1", "d1", |path| Ok(fs::copy(&image, path).map(drop)?))?;
    says(&device(&admin, "n1", "d1", "stale").await?, "old image")?;
    let erase = json!({ "node": "n1", "device": "d1", "erase": "d1" });
    let refused = why(admin.post("/api/v1/drives/adopt", &erase).await)?;
    ensure!(refused.contains("still placed"), "{refused}");
    // After a restart too.
    cluster.kill("n1")?;
    cluster.start("n1").await?;
    let admin = cluster.file().admin(0).await?;
    device(&admin, "n1", "d1", "stale").await?;
    fs::rename(cluster.dir().join("pulled"), &original)?;
    drive(&admin, "n1", "d1", "healthy").await?;

    // A light blinks for a while.
    let locate = |minutes: u32| json!({ "node": "n2", "device": adopted["id"], "minutes": minutes });
    admin.post("/api/v1/drives/locate", &locate(5)).await?;
    let begun_blinking = Instant::now();
    while drive(&admin, "n2", "d3", "healthy").await?["locate_until_unix_ms"].is_null() {
        ensure!(begun_blinking.elapsed() < PATIENCE, "nobody can find the drive");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    admin.post("/api/v1/drives/locate", &locate(0)).await?;

    // And now the one that was named.
    admin.post("/api/v1/drives/adopt", &json!({ "node": "n1", "device": "d3", "erase": "d3" })).await?;
    drive(&admin, "n1", "d3", "healthy").await?;
    for (n, body) in bodies.iter().enumerate() {
        ensure!(client.get(BUCKET, &format!("{n}")).await? == *body, "{n}: other bytes");
    }
    println!("done after {:?}", begun.elapsed());
    Ok(())
}

/// A drive that another cluster has formatted.
fn foreign(path: &Path) -> Result<()> {
    blank(path)?;
    let cluster = ClusterId::from_bytes([0xf0; 16]);
    let params = FormatParams { cluster, drive: DriveId::from_bytes([0xf1; 16]), node: NodeId::new(1) };
    Ok(format(path, &params).map(drop)?)
}
