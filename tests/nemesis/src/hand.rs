//! Carries out what the deck deals, and undoes it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    dev::DevCluster,
    s3::{Call, Client},
    tree::noise,
};
use holdfast_fault::Random;
use http::{Method, StatusCode};
use nix::sys::signal::Signal;
use tokio::time::{sleep, timeout};

use crate::{
    deck::{Event, Kind},
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

/// The bucket that drives are filled through.
pub const FILLER_BUCKET: &str = "filler";

/// Size of one object that fills, in bytes.
const FILLER_SIZE: usize = 8 << 20;

/// Objects being written at once while filling.
const FILLERS: usize = 4;

/// How long filling may take.
const FILL_LIMIT: Duration = Duration::from_secs(90);

/// How late what is said on slow links comes at most, in milliseconds.
const LATE_MAX_MILLIS: u64 = 120;

/// Does things to one cluster.
pub struct Hand {
    /// The cluster.
    pub cluster: DevCluster,
    /// What stands between its nodes.
    pub links: Links,
    /// Copies of drives, taken a while ago.
    images: PathBuf,
    nodes: usize,
}

fn name(node: usize) -> String {
    format!("n{}", node + 1)
}

impl Hand {
    /// A hand on `cluster`; copies of drives go to `images`.
    #[must_use]
    pub fn new(cluster: DevCluster, links: Links, images: PathBuf, nodes: usize) -> Self {
        Self { cluster, links, images, nodes }
    }

    /// Does it, waits as long as it lasts, undoes it. Returns a word on what came of it.
    ///
    /// # Errors
    /// When the cluster does not do what it must: a node that does not come back, a full cluster that does
    /// not read or delete.
    pub async fn carry_out(&mut self, event: &Event) -> Result<String> {
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
            Kind::Isolate | Kind::CutBetween | Kind::Mute | Kind::SlowLinks => {
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
            Kind::Full => self.fill(event).await,
        }
    }

    /// Everything that lasts is ended: whatever stands still goes on, nothing is held, every node runs.
    ///
    /// # Errors
    /// When a node does not come back.
    pub async fn heal(&mut self) -> Result<()> {
        self.links.heal();
        for at in 0..self.nodes {
            match self.cluster.process(&name(at)) {
                Some(process) => drop(process.signal(Signal::SIGCONT)?),
                None => self.cluster.start(&name(at)).await?,
            }
        }
        self.cluster.wait_whole(0).await
    }

    /// Stops every node, gently.
    ///
    /// # Errors
    /// When one does not stop.
    pub fn stop_all(&mut self) -> Result<()> {
        self.cluster.stop().map(drop)
    }

    /// The file of a drive.
    #[must_use]
    pub fn drive(&self, event: &Event) -> PathBuf {
        drive_file(self.cluster.dir(), event.node, event.drive)
    }

    fn stop(&mut self, node: &str) -> Result<()> {
        let process = self.cluster.process(node).with_context(|| format!("{node} runs"))?;
        ensure!(process.stop(STOP_LIMIT)?, "{node} did not stop within {STOP_LIMIT:?} and was killed");
        Ok(())
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
                let late = Duration::from_millis(1 + Random::new(event.seed).below(LATE_MAX_MILLIS));
                for other in others {
                    self.links.set(event.node, other, Rule::Late(late));
                    self.links.set(other, event.node, Rule::Late(late));
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

    /// Writes until it is refused for want of room; then reading and deleting must still work.
    async fn fill(&self, event: &Event) -> Result<String> {
        let client = self.cluster.s3(event.node)?;
        let begun = Instant::now();
        let mut written = 0;
        let mut refused = None;
        while refused.is_none() && begun.elapsed() < FILL_LIMIT {
            let writes = (0..FILLERS).map(|n| {
                let client = client.clone();
                tokio::spawn(async move { fill_one(&client, written + n).await })
            });
            for write in writes.collect::<Vec<_>>() {
                match write.await? {
                    Ok(None) => written += 1,
                    Ok(Some(answer)) => refused = Some(answer),
                    // Other faults are not at work now, but the clients are: a busy node may be late.
                    Err(_) => sleep(Duration::from_millis(200)).await,
                }
            }
        }
        let outcome = match &refused {
            Some(answer) => format!("{written} x {} MiB, then {answer}", FILLER_SIZE >> 20),
            None => format!("{written} x {} MiB in {FILL_LIMIT:?} and never full", FILLER_SIZE >> 20),
        };
        let mut left = Vec::new();
        for (key, size) in client.list_all(FILLER_BUCKET, "").await? {
            if left.is_empty() {
                let body = client.get(FILLER_BUCKET, &key).await.context("reading while full")?;
                ensure!(body.len() as u64 == size, "{key} read while full: {} of {size} bytes", body.len());
            }
            left.push(key);
        }
        for key in left {
            client.delete(FILLER_BUCKET, &key).await.context("deleting while full")?;
        }
        Ok(outcome)
    }
}

/// `None` when it was accepted, or what it was refused with.
async fn fill_one(client: &Client, number: usize) -> Result<Option<String>> {
    let call = Call::new(Method::PUT, FILLER_BUCKET, &format!("filler-{number}"));
    let body = noise(number as u64, FILLER_SIZE);
    let answer = timeout(Duration::from_secs(30), client.send(call, body)).await??;
    match answer.status {
        status if status.is_success() => Ok(None),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE => {
            Ok(Some(answer.status.to_string()))
        }
        status => anyhow::bail!("{status}"),
    }
}

/// The file of a drive: node from 0, drive from 1.
#[must_use]
pub fn drive_file(dir: &Path, node: usize, drive: u16) -> PathBuf {
    dir.join(name(node)).join("drives").join(format!("d{drive}"))
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
