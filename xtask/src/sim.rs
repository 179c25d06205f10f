//! `cargo xtask sim`: builds the simulation of the whole cluster, with the bugs that can be planted in it, and runs it.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;

use crate::{binaries, run::run};

/// Arguments of `sim`: passed on.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct Sim {
    /// --seed S --count N --threads T --seconds S --print --plan FILE --save FILE --planted --bug NAME --help
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Sim {
    /// Runs seeds, or what else is asked for.
    ///
    /// # Errors
    /// When the build fails, or a promise was broken.
    pub fn run(self) -> Result<()> {
        run(binaries::sim()?.args(self.arguments))
    }
}
