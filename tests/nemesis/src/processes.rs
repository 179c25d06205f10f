//! Does things to processes: signals, the files of their drives, and what stands between them.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use holdfast_blackbox::{
    clocks::{self, Stepped},
    cluster_file::ClusterFile,
    dev::{DevCluster, DevSpec, stop_leftovers},
    process::Identity,
};
use holdfast_fault::Random;
use holdfast_model::ByteCount;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use crate::{
    deck::{Event, Kind},
    hand::{Hand, MIXED, Shape, clock_step, drive_file, fill, in_turn, late, name},
    links::{Links, Rule},
};

/// Bytes at both ends of a drive that are left alone when it rots: its labels, which have tests of their own.
const LABELS: u64 = 1 << 20;

/// Unit of a drive's writes.
const SECTOR: usize = 4096;

/// Sectors that turn at once.
const ROT_SECTORS: u64 = 400;

/// How long a node may take to stop when it is asked to.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How long a node has little memory, or a wrong clock, at least.
const ODD_MIN: Duration = Duration::from_secs(5);

/// MiB that a node gets beyond what it has when its memory is limited.
const SPARE_MIB: [u64; 6] = [0, 1, 2, 4, 8, 16];

/// A cluster of processes.
pub struct Processes {
    cluster: DevCluster,
    /// What stands between its nodes.
    links: Links,
    /// Copies of drives, taken a while ago.
    images: PathBuf,
    nodes: usize,
    /// Another version of the program.
    other: Option<PathBuf>,
    /// Processes whose clocks are wrong.
    stepped: Vec<Stepped>,
}

impl Processes {
    /// Starts a cluster; copies of drives go to `images`.
    ///
    /// # Errors
    /// When it does not form, or links between its nodes cannot be had.
    pub async fn start(shape: &Shape, noded: PathBuf, images: PathBuf) -> Result<Self> {
        stop_leftovers(&shape.dir)?;
        let links = Links::open(&shape.dir, shape.nodes, shape.seed).await?;
        let spec = DevSpec {
            dir: shape.dir.clone(),
            noded,
            nodes: u16::try_from(shape.nodes)?,
            drives: shape.drives,
            drive_size: ByteCount::mib(shape.drive_mib),
            reserved: true,
            watched: false,
            buffer_memory: ByteCount::mib(64),
            level: None,
            cluster_name: "nemesis".to_owned(),
            unlock: holdfast_model::config::Unlock::default(),
            feature_level_max: None,
            advertise: links.addresses(),
            s3: holdfast_model::config::S3Settings::default(),
            known_ports: false,
        };
        let cluster = DevCluster::create(&spec, &|what| println!("{what}")).await?;
        let (nodes, other) = (shape.nodes, shape.other.clone());
        Ok(Self { cluster, links, images, nodes, other, stepped: Vec::new() })
    }
}

impl Hand for Processes {
    const PATIENCE: u32 = 1;
    const STATE_IS_READABLE: bool = true;

    fn kinds() -> &'static [Kind] {
        &Kind::OF_PROCESSES
    }

    fn file(&self) -> &ClusterFile {
        self.cluster.file()
    }

    async fn wait_whole(&self) -> Result<()> {
        self.cluster.wait_whole(0).await
    }

    async fn carry_out(&mut self, event: &Event) -> Result<String> {
        let node = name(event.node);
        match event.kind {
            Kind::Kill => {
                self.cluster.kill(&node)?;
                sleep(event.lasts).await;
                self.cluster.start(&node).await?;
                Ok(format!("{node} away for {:?}", event.lasts))
            }
            Kind::Pause => {
                let process = self.cluster.process(&node).context("it runs")?;
                process.signal(Signal::SIGSTOP)?;
                sleep(event.lasts).await;
                process.signal(Signal::SIGCONT)?;
                Ok(format!("{node} stood still for {:?}", event.lasts))
            }
            Kind::KillAll => {
                self.all_down(|cluster, node| cluster.kill(node))?;
                self.all_up().await?;
                Ok("all of them".to_owned())
            }
            Kind::RollingRestart => {
                for at in 0..self.nodes {
                    self.stop(&name(at))?;
                    self.cluster.start(&name(at)).await?;
                    self.cluster.wait_whole(at).await?;
                }
                Ok("one after the other".to_owned())
            }
            Kind::Isolate | Kind::CutBetween | Kind::Mute | Kind::SlowLinks | Kind::LossyLinks => {
                self.links_of(event);
                sleep(event.lasts).await;
                self.links.heal();
                Ok(format!("{node} (and {}) for {:?}", name(event.other), event.lasts))
            }
            Kind::Rot => {
                let turned = rot(&self.drive(event), event.seed)?;
                Ok(format!("{turned} sectors of d{} of {node}", event.drive))
            }
            Kind::StaleDrive => {
                let drive = self.drive(event);
                let image = self.images.join("stale");
                copy_sparse(&drive, &image)?;
                // Meanwhile more is written; then none of that ever was, as far as the drive is concerned.
                sleep(event.lasts).await;
                self.cluster.kill(&node)?;
                copy_sparse(&image, &drive)?;
                fs::remove_file(&image)?;
                self.cluster.start(&node).await?;
                Ok(format!("d{} of {node} forgot {:?}", event.drive, event.lasts))
            }
            Kind::BlankDrive => {
                let drive = self.drive(event);
                self.cluster.kill(&node)?;
                let length = fs::metadata(&drive)?.len();
                fs::remove_file(&drive)?;
                File::create(&drive)?.set_len(length)?;
                self.cluster.start(&node).await?;
                Ok(format!("d{} of {node}", event.drive))
            }
            Kind::TwoVersions => {
                let other = self.other.clone().context("--other")?;
                self.change_to(event, Some(&other)).await?;
                sleep(event.lasts).await;
                self.change_to(event, None).await?;
                Ok(format!("there and back, {node} first"))
            }
            Kind::MemoryLimit => self.limit_memory(event).await,
            Kind::ClockStep => {
                let seconds = clock_step(event);
                let process = self.cluster.process(&node).context("it runs")?;
                clocks::step(process, seconds, &mut self.stepped)?;
                let lasts = ODD_MIN + event.lasts;
                sleep(lasts).await;
                self.clocks_right()?;
                self.cluster.wait_whole(event.node).await?;
                Ok(format!("{node} by {seconds} s for {lasts:?}, while it ran"))
            }
            Kind::Full => fill(&self.cluster.s3(event.node)?, Self::PATIENCE).await,
            Kind::Unplug => bail!("{} is for machines", event.kind),
        }
    }

    async fn heal(&mut self) -> Result<()> {
        self.links.heal();
        self.clocks_right()?;
        for at in 0..self.nodes {
            self.cluster.runs_with(&name(at), None);
            match self.cluster.process(&name(at)) {
                Some(process) => drop(process.signal(Signal::SIGCONT)?),
                None => self.cluster.start(&name(at)).await?,
            }
        }
        self.cluster.wait_whole(0).await
    }

    async fn stop_all(&mut self) -> Result<()> {
        self.cluster.stop().map(drop)
    }
}

impl Processes {
    fn drive(&self, event: &Event) -> PathBuf {
        drive_file(self.cluster.dir(), event.node, event.drive)
    }

    fn stop(&mut self, node: &str) -> Result<()> {
        let process = self.cluster.process(node).with_context(|| format!("{node} runs"))?;
        ensure!(process.stop(STOP_LIMIT)?, "{node} did not stop within {STOP_LIMIT:?} and was killed");
        Ok(())
    }

    /// Every node in turn is stopped and started with `program`, or its own, while clients go on.
    async fn change_to(&mut self, event: &Event, program: Option<&Path>) -> Result<()> {
        for at in in_turn(event, self.nodes) {
            self.stop(&name(at))?;
            self.cluster.runs_with(&name(at), program.map(Path::to_owned));
            self.cluster.start(&name(at)).await?;
            self.cluster.wait_whole(at).await?;
            sleep(MIXED).await;
        }
        Ok(())
    }

    fn clocks_right(&mut self) -> Result<()> {
        self.stepped.drain(..).try_for_each(Stepped::back)
    }

    /// For a while a node gets hardly more memory than it has. It may refuse, and it may end: then it starts again.
    async fn limit_memory(&mut self, event: &Event) -> Result<String> {
        let node = name(event.node);
        let process = self.cluster.process(&node).context("it runs")?;
        let used = memory_used(process)?;
        let spare = ByteCount::mib(SPARE_MIB[Random::new(event.seed).below(SPARE_MIB.len() as u64) as usize]);
        set_memory_limit(process, Some(used.get() + spare.get()))?;
        let lasts = ODD_MIN + event.lasts;
        sleep(lasts).await;
        let ended = !process.is_running() || {
            let lifted = set_memory_limit(process, None);
            let ended = !process.is_running();
            if !ended {
                lifted?;
            }
            ended
        };
        if ended {
            self.cluster.start(&node).await?;
        }
        self.cluster.wait_whole(event.node).await?;
        let outcome = if ended { "it ended" } else { "it went on" };
        Ok(format!("{node} with {spare} beyond the {used} it had, for {lasts:?}; {outcome}"))
    }

    fn all_down(&mut self, mut down: impl FnMut(&mut DevCluster, &str) -> Result<()>) -> Result<()> {
        // Told all at once first, so that nobody sees the others go.
        let running: Vec<_> = (0..self.nodes).filter_map(|at| self.cluster.process(&name(at))).collect();
        for process in running {
            process.signal(Signal::SIGSTOP)?;
        }
        (0..self.nodes).try_for_each(|at| down(&mut self.cluster, &name(at)))
    }

    async fn all_up(&mut self) -> Result<()> {
        for at in 0..self.nodes {
            self.cluster.launch(&name(at))?;
        }
        for at in 0..self.nodes {
            self.cluster.wait_ready(&name(at)).await?;
        }
        Ok(())
    }

    fn links_of(&self, event: &Event) {
        let others = (0..self.nodes).filter(|at| *at != event.node);
        match event.kind {
            Kind::CutBetween => {
                self.links.set(event.node, event.other, Rule::Cut);
                self.links.set(event.other, event.node, Rule::Cut);
            }
            Kind::Mute => others.for_each(|other| self.links.set(event.node, other, Rule::Cut)),
            Kind::SlowLinks => {
                let late = late(event);
                for other in others {
                    self.links.set(event.node, other, Rule::Late(late));
                    self.links.set(other, event.node, Rule::Late(late));
                }
            }
            Kind::LossyLinks => {
                for other in others {
                    self.links.set(event.node, other, Rule::Lossy);
                    self.links.set(other, event.node, Rule::Lossy);
                }
            }
            _ => {
                for other in others {
                    self.links.set(event.node, other, Rule::Cut);
                    self.links.set(other, event.node, Rule::Cut);
                }
            }
        }
    }
}

/// Memory of a process that its limit counts: what it may write to and shares with nobody.
fn memory_used(process: Identity) -> Result<ByteCount> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).context("VmData")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("VmData")?;
    Ok(ByteCount::new(kib << 10))
}

/// Sets how much such memory a process may have, by a program of util-linux; `None`: all there is. What it has it keeps.
fn set_memory_limit(process: Identity, limit: Option<u64>) -> Result<()> {
    let soft = limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string());
    let mut prlimit = Command::new("prlimit");
    prlimit.arg("--pid").arg(process.pid.to_string()).arg(format!("--data={soft}:"));
    let status = prlimit.status().context("starting prlimit; is util-linux installed?")?;
    ensure!(status.success(), "prlimit: {status}");
    Ok(())
}

/// Turns a bit in each of many sectors that hold something; how many.
fn rot(drive: &Path, seed: u64) -> Result<u64> {
    let file = File::options().read(true).write(true).open(drive)?;
    let sectors = (file.metadata()?.len() - 2 * LABELS) / SECTOR as u64;
    let mut random = Random::new(seed);
    let mut sector = [0; SECTOR];
    let mut turned = 0;
    for _ in 0..ROT_SECTORS * 8 {
        let offset = LABELS + random.below(sectors) * SECTOR as u64;
        file.read_exact_at(&mut sector, offset)?;
        if sector.iter().all(|byte| *byte == 0) {
            continue;
        }
        let at = offset + random.below(SECTOR as u64);
        let byte = sector[(at - offset) as usize] ^ (1 << random.below(8));
        file.write_all_at(&[byte], at)?;
        turned += 1;
        if turned == ROT_SECTORS {
            break;
        }
    }
    file.sync_all()?;
    Ok(turned)
}

/// Copies a file, leaving out what is zero.
fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    let source = File::open(from).with_context(|| format!("opening {}", from.display()))?;
    let length = source.metadata()?.len();
    // Emptied and made long again: all of it is zero then.
    let target = File::options().create(true).write(true).truncate(true).open(to)?;
    target.set_len(length)?;
    let mut piece = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < length {
        let count = piece.len().min(usize::try_from(length - offset)?);
        source.read_exact_at(&mut piece[..count], offset)?;
        if piece[..count].iter().any(|byte| *byte != 0) {
            target.write_all_at(&piece[..count], offset)?;
        }
        offset += count as u64;
    }
    Ok(target.sync_all()?)
}
