//! The key service as a process: what it is shut in by, that keys are in its memory and not in the node's, and that
//! nothing acknowledged is lost when it is killed under load.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    dev::DevCluster, ledger::Ledger, metrics::Samples, paths, process::Identity, s3::Call, tree::noise,
};
use http::{Method, StatusCode};
use nix::{sys::signal::Signal, unistd::geteuid};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    shred::{control_view, open_with, wrapped_key},
    support::{BUCKET, cluster},
};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const WRITERS: usize = 6;
const SIZES: [usize; 3] = [300, 90_000, 1_500_000];
const ACKNOWLEDGED_BEFORE_EACH_KILL: usize = 40;
const LIMIT: Duration = Duration::from_secs(60);
/// The user that the service has where root starts it.
const USER: &str = "977";
/// Read from a process at once.
const PIECE: usize = 1024 * 1024;

/// The key service of a node: its child.
fn service_of(cluster: &DevCluster, name: &str) -> Result<Identity> {
    let node = cluster.process(name).with_context(|| format!("{name} does not run"))?;
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(status) = status_of(pid) else { continue };
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_it = line.split(|byte| *byte == 0).nth(1) == Some(b"key-service");
        if field(&status, "PPid") == Some(node.pid.to_string().as_str()) && is_it {
            return Identity::of(pid);
        }
    }
    anyhow::bail!("{name} has no key service")
}

fn status_of(pid: i32) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/status"))?)
}

fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    let line = status.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_once(':')?.1.split_whitespace().next()
}

async fn wait_service(cluster: &DevCluster, name: &str, not: Option<Identity>) -> Result<Identity> {
    let begun = Instant::now();
    loop {
        match service_of(cluster, name) {
            Ok(found) if Some(found) != not => return Ok(found),
            other => ensure!(begun.elapsed() < LIMIT, "{name}: {other:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_service_is_shut_in_and_what_was_acknowledged_outlives_its_being_killed() -> Result<()> {
    let cluster = cluster("keyservice", 3, 4).await?;
    let service = wait_service(&cluster, "n1", None).await?;
    is_shut_in(service.pid)?;
    // A tenant's key is opened when a body's is first wrapped.
    for (node, name) in NODES.iter().enumerate() {
        cluster.s3(node)?.put(BUCKET, name, "a body").await?;
    }
    if geteuid().is_root() {
        holds_keys_alone(&cluster)?;
    } else {
        println!("memory is not looked through: only root can");
    }
    let samples = Samples::fetch(&cluster.file().nodes[0].metrics, cluster.file().trust()?).await?;
    ensure!(samples.sum("holdfast_key_service_up") == Some(1.0), "{:?}", samples.names());
    // Not everywhere may root lock memory; what is said of it is to be so.
    let said = samples.sum("holdfast_key_service_memory_locked");
    let status = status_of(service.pid)?;
    let is_locked = field(&status, "VmLck").is_some_and(|kib| kib != "0");
    println!("memory locked: {is_locked}");
    ensure!(said == Some(f64::from(u8::from(is_locked))), "{said:?}: {status}");
    let log = fs::read_to_string(cluster.dir().join("n1/console.log"))?;
    ensure!(is_locked != log.contains("its memory is not locked"), "its log says why it is not locked");

    let ledger = Ledger::default();
    let writes = Arc::new(AtomicBool::new(true));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (client, ledger, writes) =
            (cluster.s3(writer % NODES.len())?, ledger.clone(), Arc::clone(&writes));
        writers.spawn(async move {
            let mut refused = 0;
            for number in 0.. {
                if !writes.load(Ordering::Relaxed) {
                    break;
                }
                let body = noise((writer * 100_000 + number) as u64, SIZES[number % SIZES.len()]);
                let key = format!("{writer}/{}", number % 40);
                if !ledger.put(&client, BUCKET, &key, body).await? {
                    refused += 1;
                    sleep(Duration::from_millis(20)).await;
                }
            }
            anyhow::Ok(refused)
        });
    }
    let mut back = Vec::new();
    for round in 0..6 {
        let name = NODES[round % NODES.len()];
        let before = ledger.answers();
        let begun = Instant::now();
        while ledger.answers() < before + ACKNOWLEDGED_BEFORE_EACH_KILL {
            ensure!(begun.elapsed() < LIMIT, "only {} PUTs answered", ledger.answers() - before);
            sleep(Duration::from_millis(20)).await;
        }
        let service = service_of(&cluster, name)?;
        let node = cluster.process(name);
        ensure!(service.signal(Signal::SIGKILL)?, "the service of {name} was gone");
        let killed = Instant::now();
        wait_service(&cluster, name, Some(service)).await?;
        let client = cluster.s3(round % NODES.len())?;
        let mut said = BTreeSet::new();
        loop {
            let answer = client.send(Call::new(Method::PUT, BUCKET, "probe"), "a body").await?;
            said.insert(answer.status.as_u16());
            if answer.status == StatusCode::OK {
                break;
            }
            ensure!(killed.elapsed() < LIMIT, "{name} does not come back: {}", answer.text());
            sleep(Duration::from_millis(20)).await;
        }
        back.push(killed.elapsed().as_millis());
        ensure!(said.iter().all(|status| matches!(status, 200 | 503)), "{name} answered {said:?}");
        ensure!(cluster.process(name) == node, "{name} itself goes on");
    }
    writes.store(false, Ordering::Relaxed);
    let mut refused = 0;
    while let Some(writer) = writers.join_next().await {
        refused += writer??;
    }
    println!("{} PUTs acknowledged, {refused} refused; back after {back:?} ms", ledger.answers());
    for (node, name) in NODES.iter().enumerate() {
        let verdict = ledger.verify(&cluster.s3(node)?, BUCKET).await?;
        println!("read through {name}: {verdict:?}");
        ensure!(verdict.broken.is_empty() && verdict.intact > 0, "{name}: {:?}", verdict.broken);
    }
    uses_are_on_record(&cluster)?;
    Ok(())
}

fn is_shut_in(pid: i32) -> Result<()> {
    let status = status_of(pid)?;
    ensure!(field(&status, "NoNewPrivs") == Some("1"), "{status}");
    ensure!(field(&status, "Seccomp") == Some("2"), "{status}");
    ensure!(field(&status, "CoreDumping").is_none_or(|now| now == "0"), "{status}");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let core =
        limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit of cores")?;
    ensure!(core.split_whitespace().nth(4) == Some("0"), "{core}");
    if !geteuid().is_root() {
        return Ok(());
    }
    ensure!(field(&status, "Uid") == Some(USER) && field(&status, "Gid") == Some(USER), "{status}");
    ensure!(field(&status, "CapEff") == Some("0000000000000000"), "{status}");
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    ensure!(network(&pid.to_string())? != network("self")?, "its network is the node's");
    let peers = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    ensure!(peers.lines().count() == 1, "{peers}");
    let mut sockets = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(entry?.path())?.to_string_lossy().into_owned();
        if target.starts_with("socket:") {
            sockets.insert(target);
        }
    }
    ensure!(sockets.len() == 1, "its end of the pair is to be its only socket: {sockets:?}");
    Ok(())
}

/// The tenant's key, put together from the nodes' disks, is in the memory of a key service and of no node.
fn holds_keys_alone(cluster: &DevCluster) -> Result<()> {
    let states: Vec<_> = NODES.iter().map(|name| cluster.dir().join(name).join("state")).collect();
    let view = control_view(&states[0], &cluster.dir().join("control-read"))?;
    let (tenant, wrapped) = wrapped_key(&view)?;
    let key = open_with(&states, &view, tenant, &wrapped)?.context("the shares do not open the key")?;
    let bytes = key.to_bytes();
    let secret = &bytes[4..36];
    for name in NODES {
        let node = cluster.process(name).with_context(|| format!("{name} does not run"))?;
        ensure!(
            is_in_memory(service_of(cluster, name)?.pid, secret)?,
            "the method finds it where it is: {name}"
        );
        ensure!(!is_in_memory(node.pid, secret)?, "a tenant's key is in the memory of {name}");
    }
    Ok(())
}

fn is_in_memory(pid: i32, secret: &[u8]) -> Result<bool> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut piece = vec![0; PIECE + secret.len()];
    for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw")))
    {
        let (from, to) = line.split(' ').next().and_then(|range| range.split_once('-')).context("a range")?;
        let (mut at, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        while at < to {
            let wanted = piece.len().min(usize::try_from(to - at)?);
            // Pages may go while they are read.
            let Ok(read) = memory.read_at(&mut piece[..wanted], at) else { break };
            if piece[..read].windows(secret.len()).any(|window| window == secret) {
                return Ok(true);
            }
            at += PIECE as u64;
        }
    }
    Ok(false)
}

fn uses_are_on_record(cluster: &DevCluster) -> Result<()> {
    let dir = cluster.dir().join("n1/state/keys");
    let output = Command::new(paths::noded()).args(["keys", "uses"]).arg(&dir).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success() && said.contains("object_write") && said.contains("VERIFIED"), "{said}");
    Ok(())
}
