//! `cargo xtask down`: stops what `up` or `dev` started, and nothing else.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use holdfast_blackbox::{
    cluster_file::{Kind, ProcessesFile},
    dev::DevCluster,
    paths,
};

use crate::run::say;

/// Longer than the supervisor gives its machines to switch themselves off.
const SUPERVISOR_GRACE: Duration = Duration::from_secs(90);

/// Arguments of `down`.
#[derive(Debug, Args)]
pub struct Down {
    #[arg(long, hide = true)]
    dir: Option<PathBuf>,
}

impl Down {
    /// Stops everything that runs. Data stays until the next `up` or `dev`.
    ///
    /// # Errors
    /// When a process cannot be stopped.
    pub fn run(self) -> Result<()> {
        let dir = self.dir.unwrap_or_else(paths::cluster_dir);
        let Some(processes) = ProcessesFile::load(&dir)?.filter(ProcessesFile::anything_runs) else {
            say("nothing runs");
            return Ok(());
        };
        match processes.kind {
            Kind::Dev => {
                for name in DevCluster::open(&dir)?.stop()? {
                    say(&format!("{name} did not stop by itself within ten seconds and was killed"));
                }
            }
            Kind::Qemu => {
                let supervisor = processes.supervisor.context("processes.json names no supervisor")?;
                say("switching the machines off");
                if !supervisor.process.stop(SUPERVISOR_GRACE)? {
                    say("the supervisor did not stop by itself and was killed, its machines with it");
                }
            }
        }
        say("stopped");
        Ok(())
    }
}
