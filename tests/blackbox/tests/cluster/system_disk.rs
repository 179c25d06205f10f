//! A node whose system disk is full, whose Raft log cannot be written, or whose flushes fail: it says so, the cluster goes on, and when there is space again so does the node.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{admin::Admin, dev::DevCluster, ledger::Ledger, tree::noise};
use serde_json::Value;
use tokio::time::sleep;

use crate::support::{BUCKET, cluster};

/// Far longer than it takes: a group that stopped is tried again after 5, 10, 20 seconds and so on.
const PATIENCE: Duration = Duration::from_secs(240);

/// Bytes of an object: nearly the most that the catalog holds itself, without a stripe on drives.
const SIZE: usize = 16_000;

const POLL: Duration = Duration::from_millis(200);

/// Holds what a small node keeps beside its drives, with room for a while.
const DISK_MIB: u64 = 160;

/// A file system of its own in memory, mounted on a node's state.
#[derive(Default)]
struct SmallDisk(Option<PathBuf>);

impl SmallDisk {
    /// Moves what is in `dir` onto it. `false` where nothing may be mounted.
    fn mount(&mut self, dir: &Path) -> Result<bool> {
        let aside = dir.with_extension("aside");
        fs::rename(dir, &aside)?;
        fs::create_dir(dir)?;
        let size = format!("size={DISK_MIB}m,mode=0700");
        if !run("mount", &["-t", "tmpfs", "-o", &size, "holdfast-test", utf8(dir)?])? {
            return Ok(false);
        }
        self.0 = Some(dir.to_owned());
        ensure!(run("cp", &["-a", utf8(&aside.join("."))?, utf8(dir)?])?, "the state was not copied");
        Ok(true)
    }

    /// Fills it to the last byte.
    fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast()?)?;
        let piece = vec![0x5a; 4096];
        loop {
            match file.write_all(&piece) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast()?)?)
    }

    fn ballast(&self) -> Result<PathBuf> {
        Ok(self.0.as_ref().context("it is mounted")?.join("ballast"))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Some(Ok(dir)) = self.0.take().as_deref().map(utf8) {
            let _ = run("umount", &["--lazy", dir]);
        }
    }
}

fn utf8(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}

fn run(program: &str, arguments: &[&str]) -> Result<bool> {
    Ok(Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("running {program}"))?
        .success())
}

/// Puts small objects, which the catalog holds, until `enough`; returns how many there are then.
async fn write_until(
    cluster: &DevCluster,
    ledger: &Ledger,
    first: u64,
    what: &str,
    mut enough: impl AsyncFnMut(u64) -> Result<bool>,
) -> Result<u64> {
    let (begun, client) = (Instant::now(), cluster.s3(0)?);
    for number in first.. {
        ensure!(begun.elapsed() < PATIENCE, "{what}: {}", cluster.log_tail("n2"));
        if enough(number).await? {
            return Ok(number);
        }
        while !ledger.put(&client, BUCKET, &format!("object-{number}"), noise(number, SIZE)).await? {
            ensure!(begun.elapsed() < PATIENCE, "object-{number} is still refused");
            sleep(POLL).await;
        }
    }
    Ok(0)
}

/// What the groups say that do not run on node n2.
async fn ailing_on_n2(admin: &Admin) -> Result<Vec<String>> {
    let n2 = admin.members().await?.into_iter().find(|member| member.name == "n2").context("n2")?.id;
    let groups = admin.groups().await?;
    let of_n2 = groups.into_iter().flat_map(|group| group.ailing).filter(|ailing| ailing.node == n2);
    Ok(of_n2.map(|ailing| ailing.what).collect())
}

/// Waits until all groups run on node n2; how long that took.
async fn runs_again(cluster: &DevCluster, admin: &Admin) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let ailing = ailing_on_n2(admin).await?;
        if ailing.is_empty() {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < PATIENCE, "still stopped: {ailing:?}\n{}", cluster.log_tail("n2"));
        sleep(POLL).await;
    }
}

/// Node n2 takes part again: it is one of the two that are left, and nothing is missing.
async fn takes_part_again(cluster: &mut DevCluster, ledger: &Ledger, first: u64) -> Result<()> {
    cluster.kill("n3")?;
    write_until(cluster, ledger, first, "without n3", async |at| Ok(at >= first + 20)).await?;
    for node in [0, 1] {
        let verdict = ledger.verify(&cluster.s3(node)?, BUCKET).await?;
        ensure!(verdict.broken.is_empty() && verdict.intact > 0, "through node {node}: {verdict:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_stopped_because_a_system_disk_was_full_go_on_when_there_is_space() -> Result<()> {
    let mut disk = SmallDisk::default();
    let mut cluster = cluster("system-disk", 3, 1).await?;
    cluster.kill("n2")?;
    if !disk.mount(&cluster.state_dir("n2"))? {
        println!("nothing may be mounted here: left out");
        return Ok(());
    }
    cluster.start("n2").await?;
    cluster.wait_whole(0).await?;
    let (ledger, admin) = (Ledger::default(), cluster.file().admin(0).await?);
    let ailing = async || ailing_on_n2(&admin).await;
    let written = write_until(&cluster, &ledger, 0, "before", async |number| Ok(number >= 20)).await?;

    disk.fill()?;
    let stopped = write_until(&cluster, &ledger, written, "no group of n2 stopped", async |_| {
        Ok(!ailing().await?.is_empty())
    })
    .await?;
    println!("after {} more objects: {:?}", stopped - written, ailing().await?);
    let more =
        write_until(&cluster, &ledger, stopped, "without n2", async |at| Ok(at >= stopped + 50)).await?;

    disk.make_room()?;
    println!("with space again all groups ran after {:?}", runs_again(&cluster, &admin).await?);
    takes_part_again(&mut cluster, &ledger, more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_raft_log_failed_reads_it_back_and_goes_on() -> Result<()> {
    let mut cluster = cluster("failed-log", 3, 1).await?;
    let (ledger, admin) = (Ledger::default(), cluster.file().admin(0).await?);
    // The next segment of its log cannot be made.
    let log = cluster.state_dir("n2").join("raft/log");
    let away = log.with_extension("away");
    fs::rename(&log, &away)?;
    let stopped = write_until(&cluster, &ledger, 0, "the log of n2 did not fail", async |at| {
        // Not at each object: a segment holds many.
        Ok(at % 50 == 49 && !ailing_on_n2(&admin).await?.is_empty())
    })
    .await?;
    // All groups stop, also those that nobody asks for anything, and none starts as long as the log cannot be read.
    let (all, begun) = (admin.groups().await?.len(), Instant::now());
    let groups = loop {
        let groups = ailing_on_n2(&admin).await?;
        if groups.len() == all {
            break groups;
        }
        ensure!(begun.elapsed() < PATIENCE, "of {all} groups only these stopped: {groups:?}");
        sleep(POLL).await;
    };
    println!("after {stopped} objects: {groups:?}");
    ensure!(groups.iter().all(|what| what.contains("Raft log")), "{groups:?}");

    fs::rename(&away, &log)?;
    println!("with its log again all groups ran after {:?}", runs_again(&cluster, &admin).await?);
    takes_part_again(&mut cluster, &ledger, stopped).await
}

/// Has all flushes of `files` by a process fail from now on, with an error that the kernel did not make. `None` where no process may be
/// traced. Ends with the process.
async fn fail_flushes(process: i32, files: &[PathBuf]) -> Result<Option<Child>> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
    strace.args(["-e", "inject=fsync,fdatasync:error=EIO", "-p", &process.to_string()]);
    for file in files {
        strace.arg("-P").arg(file);
    }
    let mut strace = strace.stderr(Stdio::null()).spawn().context("starting strace")?;
    let begun = Instant::now();
    while !is_traced(process)? {
        if strace.try_wait()?.is_some() {
            return Ok(None);
        }
        ensure!(begun.elapsed() < PATIENCE, "strace does not get hold of process {process}");
        sleep(POLL).await;
    }
    Ok(Some(strace))
}

/// Whether every thread of a process is traced.
fn is_traced(process: i32) -> Result<bool> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        // Threads may end meanwhile.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        if status.lines().any(|line| line.split_whitespace().eq(["TracerPid:", "0"])) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where a node keeps the state of a group.
fn dir_of_group(state: &Path, group: u64) -> PathBuf {
    if group == 0 { state.join("control") } else { state.join(format!("catalog/g{group}")) }
}

/// The files of a node's groups, and those of SQLite beside them, each with its number in the file system.
fn group_files(state: &Path) -> Result<BTreeMap<PathBuf, u64>> {
    let mut files = BTreeMap::new();
    for group in (0..).map(|group| dir_of_group(state, group)).take_while(|dir| dir.is_dir()) {
        let current = fs::read_to_string(group.join("current"))?;
        for file in fs::read_dir(group.join(current.trim_end()))? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            let is_state = name.starts_with('p') || name.starts_with("control");
            if is_state && (name.ends_with(".sqlite") || name.ends_with(".sqlite-wal")) {
                files.insert(file.path(), file.metadata()?.ino());
            }
        }
    }
    Ok(files)
}

/// Ends node n2 in order, with flushes of its groups' files that fail or not. `false` where nothing may be traced.
async fn stop_n2(cluster: &DevCluster, flushes_fail: bool) -> Result<bool> {
    let process = cluster.process("n2").context("n2 runs")?;
    let mut strace = None;
    if flushes_fail {
        let files: Vec<PathBuf> = group_files(&cluster.state_dir("n2"))?.into_keys().collect();
        strace = fail_flushes(process.pid, &files).await?;
        if strace.is_none() {
            return Ok(false);
        }
    }
    ensure!(run("kill", &["-TERM", &process.pid.to_string()])?, "n2 cannot be stopped");
    let begun = Instant::now();
    while process.is_running() {
        ensure!(begun.elapsed() < PATIENCE, "n2 does not end: {}", cluster.log_tail("n2"));
        sleep(POLL).await;
    }
    if let Some(mut strace) = strace {
        strace.wait()?;
    }
    Ok(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_whose_flush_failed_are_written_anew_before_their_node_counts_on_them() -> Result<()> {
    let mut cluster = cluster("failed-flush", 3, 1).await?;
    let (ledger, state) = (Ledger::default(), cluster.state_dir("n2"));
    let suspects = || -> Result<Vec<u64>> {
        let noted: Value = serde_json::from_slice(&fs::read(state.join("suspects.json"))?)?;
        Ok(noted["groups"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect())
    };
    let mut written = 0;
    // The first time the log has everything. The second time it is a copy of the state that takes its place.
    for round in 1..=2 {
        let enough = written + 20;
        written = write_until(&cluster, &ledger, written, "before", async |at| Ok(at >= enough)).await?;
        // A node that stops makes everything durable.
        let before = group_files(&state)?;
        if !stop_n2(&cluster, true).await? {
            println!("nothing may be traced here: left out");
            return Ok(());
        }
        let noted = suspects().context("nothing was noted")?;
        println!("round {round}: flushes of groups {noted:?} failed");
        ensure!(!noted.is_empty(), "round {round}");
        cluster.start("n2").await?;
        cluster.wait_whole(0).await?;
        let (after, left) = (group_files(&state)?, suspects()?);
        ensure!(left.is_empty(), "round {round}: {left:?} left\n{}", cluster.log_tail("n2"));
        for group in noted {
            let dir = dir_of_group(&state, group);
            let mut of_group = after.iter().filter(|(file, _)| file.starts_with(&dir));
            let are_new = of_group.all(|(file, number)| before.get(file) != Some(number));
            ensure!(are_new, "round {round}: {before:?}, then {after:?}");
        }
        stop_n2(&cluster, false).await?;
        cluster.start("n2").await?;
    }
    takes_part_again(&mut cluster, &ledger, written).await
}
