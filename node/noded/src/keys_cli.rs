//! `noded keys`: what operators do with recovery shares, away from any node.

use std::{io::Read, process::ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use holdfast_keyring::recovery::recover;
use holdfast_model::{ClusterId, KeyId};
use zeroize::Zeroizing;

/// Longest input, in bytes: far more than all shares there can be.
const INPUT_SIZE_MAX: u64 = 64 * 1024;

/// What is done.
#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Prove that recovery shares, one a line on standard input, give a root key. Nothing is sent anywhere
    Drill {
        /// The root they should give, as the cluster's status names it
        #[arg(long)]
        expect: Option<KeyId>,
    },
}

impl Keys {
    /// Does it.
    ///
    /// # Errors
    /// What does not fit.
    pub fn run(self) -> Result<ExitCode> {
        let Self::Drill { expect } = self;
        let mut text = Zeroizing::new(String::new());
        std::io::stdin().take(INPUT_SIZE_MAX).read_to_string(&mut text).context("reading the shares")?;
        let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        // Whose cluster it is plays no part in putting the root together.
        let root = recover(ClusterId::from_bytes([0; 16]), &lines)?;
        let (id, epoch) = (root.id(), root.epoch().get());
        if let Some(expected) = expect {
            ensure!(id == expected, "these shares give root {id} of epoch {epoch}, not {expected}");
        }
        println!("{} shares give root {id} of epoch {epoch}", lines.len());
        Ok(ExitCode::SUCCESS)
    }
}
