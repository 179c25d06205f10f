//! `holdfast`: commands for people. Most ask a node through its admin API; `drive inspect` looks at a drive offline,
//! and `level table` says what levels cost and survive.
//!
//! Links nothing of the node but the drive and the model: what is offline is there when a node does not start.

#![forbid(unsafe_code)]

mod access_keys;
mod arguments;
mod client;
mod external_keys;
mod online;
mod session;
mod table;

use std::{
    env,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::Parser;
use holdfast_drive::inspect::{InspectedRecord, inspect_each};
use holdfast_model::table::LevelTable;

use crate::{
    arguments::{Arguments, Command, DriveCommand, LevelCommand, Reach},
    client::Client,
    session::Login,
};

/// Exit code of a drive on which something is damaged or missing.
const UNSOUND: u8 = 2;

/// The admin address, when the command line does not say.
const SERVER: &str = "HOLDFAST_SERVER";

/// The CA certificate, when the command line does not say.
const CA: &str = "HOLDFAST_CA";

fn main() -> ExitCode {
    let Arguments { reach, command } = Arguments::parse();
    let outcome = match command {
        Command::Level { command: LevelCommand::Table { nodes, drives } } => level_table(nodes, drives),
        Command::Drive { command: DriveCommand::Inspect { device, records } } => inspect(&device, records),
        command => ask(reach, command),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("holdfast: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn ask(reach: Reach, command: Command) -> Result<ExitCode> {
    let server = reach.server.or_else(|| env::var(SERVER).ok());
    let server =
        server.with_context(|| format!("which node? Give --server https://HOST:PORT, or set {SERVER}"))?;
    let ca = reach.ca.or_else(|| env::var_os(CA).map(PathBuf::from));
    let ca =
        ca.with_context(|| format!("whom to trust? Give --ca FILE with the cluster's CA, or set {CA}"))?;
    let client = Client::new(&server, &ca)?;
    let login = Login { user: reach.user, password_file: reach.password_file };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    runtime.block_on(async {
        match command {
            Command::Login => {
                let kept = session::login(&client, &login).await?;
                writeln!(io::stdout(), "session kept in {}", kept.display()).context("printing")
            }
            Command::Logout => {
                let ended = session::logout(client).await?;
                let forgotten = if ended { "session ended" } else { "no session was kept" };
                writeln!(io::stdout(), "{forgotten}").context("printing")
            }
            command => online::run(&session::enter(client, &login).await?, command, reach.json).await,
        }
    })?;
    Ok(ExitCode::SUCCESS)
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
