//! The acceptance scenario on virtual machines, through the commands that people use.

mod steal;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use holdfast_blackbox::{
    clients::{Access, all, round_trip},
    cluster_file::{ClusterFile, ProcessesFile},
    paths,
    s3::Client,
    scan::scan,
    tree::{self, noise},
};
use tokio::time::sleep;

const BUCKET: &str = "machines";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// Writes that are acknowledged before a fault, and again after it.
const WRITES_AROUND: usize = 8;
const SIZES: [usize; 4] = [900, 14_000, 300_000, 5_000_000];
const TAKEOVER_LIMIT: Duration = Duration::from_secs(120);
const REJOIN_LIMIT: Duration = Duration::from_secs(240);
const NEEDLE: &[u8] = b"QPlantedStringThatNoDocumentHoldsZ";

/// The project's commands on a cluster in a directory of its own; stops it when dropped.
struct Machines {
    dir: PathBuf,
}

impl Machines {
    fn up(name: &str) -> Result<Self> {
        let machines = Self { dir: paths::scratch_dir().join(name) };
        machines.xtask(&["up", "--nodes", "3", "--drives", "4", "--detach"])?;
        Ok(machines)
    }

    fn xtask(&self, arguments: &[&str]) -> Result<()> {
        let program =
            env::var_os("HOLDFAST_XTASK").map_or_else(|| paths::binaries().join("xtask"), PathBuf::from);
        let begun = Instant::now();
        let output = Command::new(&program).args(arguments).arg("--dir").arg(&self.dir).output()?;
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        println!("xtask {}: {:.1} s", arguments.join(" "), begun.elapsed().as_secs_f64());
        ensure!(output.status.success(), "xtask {}: {}\n{text}", arguments.join(" "), output.status);
        Ok(())
    }

    fn file(&self) -> Result<ClusterFile> {
        ClusterFile::load(&self.dir)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        if let Err(error) = self.xtask(&["down"]) {
            eprintln!("{error:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_machines_keep_their_promises_when_power_and_drives_go() -> Result<()> {
    let machines = Machines::up("machines")?;
    let cluster = machines.file()?;
    let (one, two, three) = (cluster.s3(0)?, cluster.s3(1)?, cluster.s3(2)?);

    let scratch = machines.dir.join("scratch");
    fs::create_dir_all(&scratch)?;
    let source = scratch.join("source");
    tree::make_real(&source, 60, 60, &[6_000_001])?;
    let access = Access::of(&cluster, cluster.node_at(0)?, &scratch)?;
    for client in all(&access, &scratch)? {
        round_trip(client.as_ref(), &source, &scratch)?;
    }

    one.create_bucket(BUCKET).await?;
    let before = write(&one, "before").await?;
    machines.xtask(&["vm", "n2", "kill"])?;
    for node in [&one, &three] {
        read_all(node, &before).await?;
    }
    let during =
        until(TAKEOVER_LIMIT, "new writes are accepted", async || write(&three, "during").await).await?;
    read_all(&one, &during).await?;

    machines.xtask(&["vm", "n2", "start"])?;
    let node = cluster.node_at(1)?.clone();
    cluster.wait_ready(&node, REJOIN_LIMIT, &mut || Ok(())).await?;
    cluster.wait_whole(0, REJOIN_LIMIT).await?;
    read_all(&two, &during).await?;
    read_all(&two, &before).await?;

    let pulled =
        while_writing(&one, "pulled", async || machines.xtask(&["vm", "n3", "unplug", "d1"])).await?;
    read_all(&two, &pulled).await?;
    read_all(&three, &pulled).await?;

    let cut = while_writing(&two, "cut", async || {
        for node in NODES {
            machines.xtask(&["vm", node, "kill"])?;
        }
        for node in NODES {
            machines.xtask(&["vm", node, "start"])?;
        }
        for node in &cluster.nodes {
            cluster.wait_ready(node, REJOIN_LIMIT, &mut || Ok(())).await?;
        }
        Ok(())
    })
    .await?;
    for written in [&before, &during, &pulled, &cut] {
        read_all(&three, written).await?;
    }

    steal::stolen_machines_open_with_their_tpms_and_as_many_as_the_threshold(&machines, &cluster, &cut)
        .await?;

    machines.xtask(&["down"])?;
    let processes = ProcessesFile::load(&machines.dir)?.context("processes.json")?;
    assert!(!processes.anything_runs(), "nothing is left running");
    fs::remove_dir_all(&scratch)?;
    nothing_on_disk(&machines.dir)?;
    fs::remove_dir_all(&machines.dir)?;
    Ok(())
}

/// No machine's disk holds what was planted; the scan proves itself on a file of its own.
fn nothing_on_disk(dir: &Path) -> Result<()> {
    let control = dir.join("control");
    fs::write(&control, [&noise(1, 10_000_000)[..], NEEDLE].concat())?;
    let report = scan(&[dir.to_path_buf()], &[NEEDLE.to_vec()])?;
    println!("{} files, {} MB read", report.files, report.bytes / 1_000_000);
    let files: Vec<_> = report.hits.iter().map(|hit| hit.file.clone()).collect();
    assert_eq!(files, [control], "plain text on a machine's disk");
    assert!(report.bytes > 60_000_000, "the scan read less than was stored");
    Ok(())
}

/// Writes one object after the other while `what` happens and until more writes are accepted after it. Returns what
/// was acknowledged; refusals in between are no failures.
async fn while_writing(
    client: &Client,
    prefix: &str,
    what: impl AsyncFnOnce() -> Result<()>,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let stop = Arc::new(AtomicBool::new(false));
    let (client, prefix, stopping) = (client.clone(), prefix.to_owned(), Arc::clone(&stop));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&acknowledged);
    let writer = tokio::spawn(async move {
        let mut written = BTreeMap::new();
        for number in 0_usize.. {
            if stopping.load(Ordering::Relaxed) {
                break;
            }
            let key = format!("{prefix}/{number}");
            let body = noise(number as u64, SIZES[number % SIZES.len()]);
            match client.put(BUCKET, &key, body.clone()).await {
                Ok(_) => {
                    written.insert(key, body);
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => sleep(Duration::from_millis(300)).await,
            }
        }
        written
    });
    let more = async |since: usize| {
        until(TAKEOVER_LIMIT, "more writes are accepted", async || {
            let count = acknowledged.load(Ordering::Relaxed);
            ensure!(count >= since + WRITES_AROUND, "{count} so far");
            Ok(())
        })
        .await
    };
    more(0).await?;
    what().await?;
    more(acknowledged.load(Ordering::Relaxed)).await?;
    stop.store(true, Ordering::Relaxed);
    let written = writer.await?;
    println!("{} objects acknowledged", written.len());
    Ok(written)
}

/// Objects of all sizes with the needle throughout.
async fn write(client: &Client, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut written = BTreeMap::new();
    for (number, size) in SIZES.into_iter().cycle().take(12).enumerate() {
        let mut body = noise(number as u64, size);
        for chunk in body.chunks_exact_mut(NEEDLE.len() + 61) {
            chunk[..NEEDLE.len()].copy_from_slice(NEEDLE);
        }
        let key = format!("{prefix}/{number}");
        client.put(BUCKET, &key, body.clone()).await?;
        written.insert(key, body);
    }
    Ok(written)
}

async fn read_all(client: &Client, wanted: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    for (key, body) in wanted {
        let found = until(TAKEOVER_LIMIT, key, async || client.get(BUCKET, key).await).await?;
        assert!(found == *body, "{key}: other bytes");
    }
    Ok(())
}

/// Tries until it succeeds: a cluster that has just lost a node may refuse for a while.
async fn until<T>(limit: Duration, what: &str, attempt: impl AsyncFn() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) if begun.elapsed() > limit => {
                bail!("{what}: still refused after {limit:?}: {error:#}")
            }
            Err(_) => sleep(Duration::from_millis(300)).await,
        }
    }
}
