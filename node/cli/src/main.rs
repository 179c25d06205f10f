//! `holdfast`: commands for people, beside the node program. `drive inspect` looks at a drive offline,
//! `level table` says what levels cost and survive.
//!
//! Links nothing of the node but the drive and the model: it is there when a node does not start.

#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use holdfast_drive::inspect::{InspectedRecord, inspect_each};
use holdfast_model::table::LevelTable;

/// Exit code of a drive on which something is damaged or missing.
const UNSOUND: u8 = 2;

/// Holdfast from the command line.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, about = "Holdfast from the command line")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Protection levels.
    Level {
        #[command(subcommand)]
        command: LevelCommand,
    },
    /// Look at a drive without a node.
    Drive {
        #[command(subcommand)]
        command: DriveCommand,
    },
}

#[derive(Debug, Subcommand)]
enum LevelCommand {
    /// Print what every level costs and survives on so many nodes.
    Table {
        /// Nodes of the cluster, 1 to 252.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=252))]
        nodes: u16,
        /// Drives of each node, 1 to 64.
        #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=64))]
        drives: u16,
    },
}

#[derive(Debug, Subcommand)]
enum DriveCommand {
    /// Print and verify everything on a drive that nobody has open. Reads only. Exit code 0: sound;
    /// 2: something is damaged or missing; 1: it cannot be read, or is no drive of Holdfast.
    Inspect {
        /// Block device or drive file.
        device: PathBuf,
        /// Print every record as well.
        #[arg(long)]
        records: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Level { command: LevelCommand::Table { nodes, drives } } => level_table(nodes, drives),
        Command::Drive { command: DriveCommand::Inspect { device, records } } => inspect(&device, records),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn level_table(nodes: u16, drives: u16) -> Result<ExitCode> {
    let table = LevelTable::new(usize::from(nodes), usize::from(drives));
    write!(io::stdout(), "{table}").context("printing the table")?;
    Ok(ExitCode::SUCCESS)
}

fn inspect(device: &Path, records: bool) -> Result<ExitCode> {
    let mut out = io::stdout();
    let mut printed = Ok(());
    let print = |record: &InspectedRecord| {
        if records && printed.is_ok() {
            printed = writeln!(out, "{record}");
        }
    };
    let report = inspect_each(device, print).with_context(|| format!("inspecting {}", device.display()))?;
    printed.context("printing records")?;
    writeln!(out, "{report}").context("printing the report")?;
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(UNSOUND) })
}
