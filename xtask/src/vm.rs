//! `cargo xtask vm`: faults on a running cluster of virtual machines.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use holdfast_blackbox::{cluster_file::ProcessesFile, paths};
use holdfast_qemu::{Command, Reply, send};

use crate::run::say;

/// 4 KiB blocks that `corrupt` changes at most.
const CORRUPT_BLOCKS_MAX: u64 = 1024;

/// Arguments of `vm`.
#[derive(Debug, Args)]
pub struct Vm {
    /// The machine: n1, n2, ...
    node: String,
    #[command(subcommand)]
    fault: Fault,
    #[arg(long, hide = true, global = true)]
    dir: Option<PathBuf>,
}

/// What happens to it.
#[derive(Debug, Subcommand)]
enum Fault {
    /// Power cut
    Kill,
    /// Power on
    Start,
    /// Power button, then wait until it is off
    Stop,
    /// Stand still
    Pause,
    /// Go on
    Resume,
    /// Pull a drive: d1, d2, ...
    Unplug { drive: String },
    /// Put a pulled drive back
    Plug { drive: String },
    /// Rot used blocks of a drive
    Corrupt {
        drive: String,
        /// Blocks of 4 KiB at most
        #[arg(long, default_value_t = CORRUPT_BLOCKS_MAX)]
        blocks: u64,
    },
    /// Cut the machine off from the others
    Partition,
    /// Take all faults from its links
    Heal,
    /// Say what state it is in
    Status,
}

impl Vm {
    /// Sends the command to the machines' supervisor.
    ///
    /// # Errors
    /// When no cluster of virtual machines runs, or the supervisor refuses.
    pub fn run(self) -> Result<()> {
        let dir = self.dir.unwrap_or_else(paths::cluster_dir);
        let supervisor = ProcessesFile::load(&dir)?
            .and_then(|processes| processes.supervisor)
            .filter(|supervisor| supervisor.process.is_running())
            .context("no cluster of virtual machines runs: cargo xtask up --detach")?;
        let node = self.node.clone();
        let command = match self.fault {
            Fault::Kill => Command::Kill { node },
            Fault::Start => Command::Start { node },
            Fault::Stop => Command::Stop { node },
            Fault::Pause => Command::Pause { node },
            Fault::Resume => Command::Resume { node },
            Fault::Unplug { drive } => Command::Unplug { node, drive },
            Fault::Plug { drive } => Command::Plug { node, drive },
            Fault::Corrupt { drive, blocks } => Command::Corrupt { node, drive, blocks_max: blocks },
            Fault::Partition => Command::Partition { node },
            Fault::Heal => Command::Heal { node },
            Fault::Status => Command::Status,
        };
        match send(&supervisor.socket, &command)? {
            Reply::Done => say("done"),
            Reply::Corrupted(drive) => say(&format!("{drive:?}")),
            Reply::Status(status) => {
                let Some(guest) = status.guests.iter().find(|guest| guest.name == self.node) else {
                    bail!("there is no {}", self.node);
                };
                say(&format!("{guest:?}"));
            }
            other => bail!("unexpected answer {other:?}"),
        }
        Ok(())
    }
}
