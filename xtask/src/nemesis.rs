//! `cargo xtask nemesis`: builds the nemesis and lets it loose on a cluster of its own, of processes or virtual machines.

use std::{env, ffi::OsString};

use anyhow::Result;
use clap::Args;
use holdfast_blackbox::paths;

use crate::{binaries, run::run};

/// Arguments of `nemesis`: passed on.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Nemesis {
    /// --qemu --minutes M --seed S --nodes N --drives N --drive-mib N --clients N --other PROGRAM --only KIND,KIND --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Nemesis {
    /// Starts a cluster, hurts it, judges, stops it. The report is left in `target/nemesis/report.md`.
    ///
    /// # Errors
    /// When a build fails, the cluster does not form, or a promise was broken.
    pub fn run(self) -> Result<()> {
        let noded = binaries::noded()?;
        let mut nemesis = binaries::nemesis()?;
        nemesis.arg("--dir").arg(paths::target().join("nemesis")).arg("--noded").arg(noded);
        // Which boots the virtual machines.
        nemesis.arg("--xtask").arg(env::current_exe()?);
        run(nemesis.args(self.arguments))
    }
}
