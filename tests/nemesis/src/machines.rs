//! Does things to virtual machines, through their supervisor's control socket. Their data drives are in memory and lose what was
//! not flushed when the power goes: of that, chance keeps what it likes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command as Program,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    admin,
    cluster_file::{ClusterFile, ProcessesFile},
};
use holdfast_fault::Random;
use holdfast_qemu::{ClusterSpec, Command, GuestState, Image, LinkFault, MEMORY_MIB, Reply, send};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    deck::{Event, Kind},
    hand::{Hand, MIXED, Shape, clock_step, drive_file, fill, in_turn, late, name},
};

/// How long an emulated machine may take to boot and serve, on a busy host.
const READY_LIMIT: Duration = Duration::from_secs(300);

/// How long a machine that was switched on may say nothing on its console: it takes 3 s on an idle host, 12 s on a busy one.
const FIRST_WORD_LIMIT: Duration = Duration::from_secs(120);

/// Between two looks at a console.
const CONSOLE_POLL: Duration = Duration::from_millis(500);

/// Blocks of 4 KiB that turn at once.
const ROT_BLOCKS: u64 = 400;

/// Of a thousand frames on lossy links, how many are lost at most.
const LOST_PER_MILLE_MAX: u64 = 150;

/// How long a node with a wrong clock, or with little memory, has to come up and to do what it can.
const ODD: Duration = Duration::from_secs(60);

/// Between two attempts to have a drive adopted.
const ADOPT_POLL: Duration = Duration::from_secs(1);

/// Memory of a machine that has little of it, in MiB.
const LITTLE_MEMORY_MIB: u32 = 256;

const CUT: LinkFault = LinkFault { cut: true, loss_per_mille: 0, delay_ms: 0 };

/// A cluster of virtual machines; stopped when dropped.
pub struct Machines {
    file: ClusterFile,
    dir: PathBuf,
    xtask: PathBuf,
    socket: PathBuf,
    nodes: usize,
    drives: u16,
    /// What all boot, and the same with another version of the program.
    image: Image,
    other: Option<Image>,
    /// Length of each machine's console when it was last switched on.
    said: Mutex<BTreeMap<usize, u64>>,
    /// What is to be told of machines that did not boot.
    notes: Mutex<Vec<String>>,
}

impl Machines {
    /// Builds the images, boots machines and forms a cluster of them, by `xtask up`.
    ///
    /// # Errors
    /// When that fails.
    pub fn start(shape: &Shape, xtask: &Path, noded: &Path) -> Result<Self> {
        let mut up = Program::new(xtask);
        up.args(["up", "--detach", "--nodes"]).arg(shape.nodes.to_string());
        up.arg("--drives").arg(shape.drives.to_string());
        up.arg("--volatile-mib").arg(shape.drive_mib.to_string());
        up.arg("--dir").arg(&shape.dir).env("HOLDFAST_NODED", noded);
        let status = up.status().with_context(|| format!("starting {}", xtask.display()))?;
        ensure!(status.success(), "xtask up: {status}");
        let processes = ProcessesFile::load(&shape.dir)?.context("processes.json")?;
        let socket = processes.supervisor.context("a supervisor")?.socket;
        let dir = shape.dir.clone();
        let file = ClusterFile::load(&dir)?;
        let spec = fs::read_to_string(dir.join("machines.json")).context("what the machines are made of")?;
        let image = serde_json::from_str::<ClusterSpec>(&spec)?.image;
        let (said, notes) = (Mutex::default(), Mutex::default());
        let (nodes, drives, xtask) = (shape.nodes, shape.drives, xtask.to_owned());
        let mut machines = Self { file, dir, xtask, socket, nodes, drives, image, other: None, said, notes };
        machines.other = shape.other.as_deref().map(|other| machines.image_of(other)).transpose()?;
        Ok(machines)
    }

    /// Builds an image of another program.
    fn image_of(&self, program: &Path) -> Result<Image> {
        let output = self.dir.join("other-image");
        let mut build = Program::new(&self.xtask);
        build.arg("image").arg("--output").arg(&output).env("HOLDFAST_NODED", program);
        let status = build.status().with_context(|| format!("starting {}", self.xtask.display()))?;
        ensure!(status.success(), "xtask image: {status}");
        Ok(Image {
            vmlinux: output.join("vmlinux"),
            initrd: output.join("initrd.zst"),
            disk: output.join("disk.img"),
        })
    }

    /// Every node in turn is switched off and boots `image`, while clients go on.
    async fn change_to(&self, event: &Event, image: &Image) -> Result<()> {
        for node in in_turn(event, self.nodes) {
            self.tell(&Command::Stop { node: name(node) })?;
            self.tell(&Command::SetImage { node: name(node), image: image.clone() })?;
            self.start_again(node).await?;
            self.wait_whole().await?;
            sleep(MIXED).await;
        }
        Ok(())
    }

    /// Approves of a blank drive, as an operator does who has swapped one: a machine asks for that.
    async fn adopt(&self, node: usize, serial: &str) -> Result<()> {
        let begun = Instant::now();
        let what = json!({ "node": name(node), "device": serial });
        loop {
            // It is looked for every two seconds, and the node may be busy.
            match async { self.file.admin(node).await?.post("/api/v1/drives/adopt", &what).await }.await {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() >= READY_LIMIT => {
                    return Err(error.context("adopting a blank drive"));
                }
                Err(_) => sleep(ADOPT_POLL).await,
            }
        }
    }

    /// A node starts as `odd` makes it after a power cut, for a while, and then as `usual` does. Whether it served as it was odd.
    async fn oddly(&self, node: usize, odd: Command, usual: Command) -> Result<bool> {
        self.kill(node)?;
        self.tell(&odd)?;
        self.boot(node)?;
        // What it does then is its own business; the others must go on.
        sleep(ODD).await;
        let served = admin::is_ready(&self.file.node_at(node)?.admin, self.file.trust()?).await;
        self.kill(node)?;
        self.tell(&usual)?;
        self.start_again(node).await?;
        Ok(served)
    }

    fn tell(&self, command: &Command) -> Result<Reply> {
        send(&self.socket, command).with_context(|| format!("{command:?}"))
    }

    fn kill(&self, node: usize) -> Result<()> {
        self.tell(&Command::Kill { node: name(node) }).map(drop)
    }

    fn boot(&self, node: usize) -> Result<()> {
        self.said.lock().insert(node, self.console_length(node));
        self.tell(&Command::Start { node: name(node) }).map(drop)
    }

    fn console_length(&self, node: usize) -> u64 {
        fs::metadata(self.dir.join(name(node)).join("console.log")).map_or(0, |file| file.len())
    }

    /// Whether a machine has said a word since it was switched on. Waits for it.
    async fn speaks(&self, node: usize) -> bool {
        let Some(before) = self.said.lock().get(&node).copied() else { return true };
        let begun = Instant::now();
        while self.console_length(node) <= before {
            if begun.elapsed() >= FIRST_WORD_LIMIT {
                return false;
            }
            sleep(CONSOLE_POLL).await;
        }
        true
    }

    /// Waits until a node serves. Now and then an emulated processor spins before the kernel's first word, when no program of
    /// ours runs yet. Such a machine is switched off and on, once, where its processors are is kept, and the report says so.
    async fn wait_ready(&self, node: usize) -> Result<()> {
        if !self.speaks(node).await {
            let kept = self.dir.join(name(node)).join("registers.txt");
            if let Reply::Registers { text } = self.tell(&Command::Registers { node: name(node) })? {
                fs::write(&kept, text).with_context(|| format!("writing {}", kept.display()))?;
            }
            let what = format!(
                "{} said nothing for {FIRST_WORD_LIMIT:?} after it was switched on, and was switched off and on again; its \
                 registers are in {}",
                name(node),
                kept.display()
            );
            println!("         {what}");
            self.notes.lock().push(what);
            self.kill(node)?;
            self.boot(node)?;
        }
        let node = self.file.node_at(node)?;
        self.file.wait_ready(node, READY_LIMIT, &mut || Ok(())).await
    }

    async fn start_again(&self, node: usize) -> Result<()> {
        self.boot(node)?;
        self.wait_ready(node).await
    }

    fn states(&self) -> Result<Vec<GuestState>> {
        match self.tell(&Command::Status)? {
            Reply::Status(status) => Ok(status.guests.iter().map(|guest| guest.state).collect()),
            other => anyhow::bail!("unexpected answer {other:?}"),
        }
    }

    fn link(&self, from: usize, to: usize, fault: LinkFault) -> Result<()> {
        self.tell(&Command::Link { from: name(from), to: name(to), fault }).map(drop)
    }

    fn set_links(&self, event: &Event) -> Result<()> {
        let both = |other, fault| {
            self.link(event.node, other, fault)?;
            self.link(other, event.node, fault)
        };
        let mut others = (0..self.nodes).filter(|at| *at != event.node);
        let lost = 1 + Random::new(event.seed).below(LOST_PER_MILLE_MAX);
        let delay = u32::try_from(late(event).as_millis())?;
        match event.kind {
            Kind::CutBetween => both(event.other, CUT),
            Kind::Mute => others.try_for_each(|other| self.link(event.node, other, CUT)),
            Kind::SlowLinks => others.try_for_each(|other| {
                both(other, LinkFault { cut: false, loss_per_mille: 0, delay_ms: delay })
            }),
            Kind::LossyLinks => others.try_for_each(|other| {
                both(other, LinkFault { cut: false, loss_per_mille: lost as u16, delay_ms: 0 })
            }),
            _ => others.try_for_each(|other| both(other, CUT)),
        }
    }

    fn heal_links(&self) -> Result<()> {
        (0..self.nodes).try_for_each(|node| self.tell(&Command::Heal { node: name(node) }).map(drop))
    }
}

impl Hand for Machines {
    const PATIENCE: u32 = 5;
    const STATE_IS_READABLE: bool = false;

    fn kinds() -> &'static [Kind] {
        &Kind::OF_MACHINES
    }

    fn file(&self) -> &ClusterFile {
        &self.file
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().clone()
    }

    async fn wait_whole(&self) -> Result<()> {
        self.file.wait_whole(0, READY_LIMIT).await
    }

    async fn carry_out(&mut self, event: &Event) -> Result<String> {
        let (at, node, drive) = (event.node, name(event.node), format!("d{}", event.drive));
        match event.kind {
            Kind::Kill => {
                self.kill(at)?;
                sleep(event.lasts).await;
                self.start_again(at).await?;
                Ok(format!("{node} without power for {:?}", event.lasts))
            }
            Kind::Pause => {
                self.tell(&Command::Pause { node: node.clone() })?;
                sleep(event.lasts).await;
                self.tell(&Command::Resume { node: node.clone() })?;
                Ok(format!("{node} stood still for {:?}", event.lasts))
            }
            Kind::KillAll => {
                // They stand still first, so that nobody sees the others go.
                for node in 0..self.nodes {
                    self.tell(&Command::Pause { node: name(node) })?;
                }
                (0..self.nodes).try_for_each(|node| self.kill(node))?;
                (0..self.nodes).try_for_each(|node| self.boot(node))?;
                for node in 0..self.nodes {
                    self.wait_ready(node).await?;
                }
                Ok("all of them".to_owned())
            }
            Kind::RollingRestart => {
                for node in 0..self.nodes {
                    self.tell(&Command::Stop { node: name(node) })?;
                    self.start_again(node).await?;
                    self.wait_whole().await?;
                }
                Ok("one after the other".to_owned())
            }
            Kind::Isolate | Kind::CutBetween | Kind::Mute | Kind::SlowLinks | Kind::LossyLinks => {
                self.set_links(event)?;
                sleep(event.lasts).await;
                self.heal_links()?;
                Ok(format!("{node} (and {}) for {:?}", name(event.other), event.lasts))
            }
            Kind::Rot => {
                let rotten = Command::Corrupt { node: node.clone(), drive, blocks_max: ROT_BLOCKS };
                match self.tell(&rotten)? {
                    Reply::Corrupted(rotten) => {
                        Ok(format!("{} blocks of d{} of {node}", rotten.blocks_changed, event.drive))
                    }
                    other => anyhow::bail!("unexpected answer {other:?}"),
                }
            }
            Kind::StaleDrive => {
                self.tell(&Command::Remember { node: node.clone(), drive: drive.clone() })?;
                // Meanwhile more is written; then none of that ever was, as far as the drive is concerned.
                sleep(event.lasts).await;
                self.kill(at)?;
                self.tell(&Command::PutBack { node: node.clone(), drive: drive.clone() })?;
                self.start_again(at).await?;
                Ok(format!("{drive} of {node} forgot {:?}", event.lasts))
            }
            Kind::BlankDrive => {
                self.kill(at)?;
                self.tell(&Command::PutBack { node: node.clone(), drive: drive.clone() })?;
                self.start_again(at).await?;
                self.adopt(at, &format!("{node}{drive}")).await?;
                Ok(format!("{drive} of {node}"))
            }
            Kind::Unplug => {
                self.tell(&Command::Unplug { node: node.clone(), drive: drive.clone() })?;
                sleep(event.lasts).await;
                self.tell(&Command::Plug { node: node.clone(), drive: drive.clone() })?;
                Ok(format!("{drive} of {node} out for {:?}", event.lasts))
            }
            Kind::ClockStep => {
                let step = clock_step(event);
                let set = |ahead_seconds| Command::SetClock { node: node.clone(), ahead_seconds };
                let served = self.oddly(at, set(step), set(0)).await?;
                Ok(format!("{node} by {step} s over a restart; {}", outcome(served)))
            }
            Kind::MemoryLimit => {
                let set = |memory_mib| Command::SetMemory { node: node.clone(), memory_mib };
                let served = self.oddly(at, set(LITTLE_MEMORY_MIB), set(MEMORY_MIB)).await?;
                Ok(format!("{node} with {LITTLE_MEMORY_MIB} MiB; {}", outcome(served)))
            }
            Kind::TwoVersions => {
                let other = self.other.as_ref().context("--other")?;
                self.change_to(event, other).await?;
                sleep(event.lasts).await;
                self.change_to(event, &self.image).await?;
                Ok(format!("there and back, {node} first"))
            }
            Kind::Full => fill(&self.file.s3(at)?, Self::PATIENCE).await,
        }
    }

    async fn heal(&mut self) -> Result<()> {
        self.heal_links()?;
        for (node, state) in self.states()?.into_iter().enumerate() {
            match state {
                GuestState::Off => {
                    self.tell(&Command::SetClock { node: name(node), ahead_seconds: 0 })?;
                    self.tell(&Command::SetMemory { node: name(node), memory_mib: MEMORY_MIB })?;
                    self.tell(&Command::SetImage { node: name(node), image: self.image.clone() })?;
                    self.start_again(node).await?;
                }
                GuestState::Paused => drop(self.tell(&Command::Resume { node: name(node) })?),
                GuestState::Running => {}
            }
        }
        self.wait_whole().await
    }

    async fn stop_all(&mut self) -> Result<()> {
        for node in 0..self.nodes {
            self.tell(&Command::Stop { node: name(node) })?;
        }
        for node in 0..self.nodes {
            for drive in 1..=self.drives {
                let file = drive_file(&self.dir, node, drive);
                fs::create_dir_all(file.parent().context("a directory of drives")?)?;
                self.tell(&Command::Dump { node: name(node), drive: format!("d{drive}"), file })?;
            }
        }
        Ok(())
    }
}

/// What became of a node that was odd.
fn outcome(served: bool) -> &'static str {
    if served { "it served" } else { "it did not serve" }
}

impl Drop for Machines {
    fn drop(&mut self) {
        let down = Program::new(&self.xtask).arg("down").arg("--dir").arg(&self.dir).status();
        if !down.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("xtask down: {down:?}");
        }
    }
}
