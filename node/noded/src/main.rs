//! The node program. As PID 1 it brings the machine up and supervises itself as a child; as an ordinary
//! process it is that child, with the same configuration document.

#![forbid(unsafe_code)]

mod access_keys;
mod admin;
mod admission;
mod clock;
mod comparison;
mod control;
mod drains;
mod drive_admin;
mod drives;
mod events;
mod external_keys;
mod features;
mod founding;
mod groups;
mod identities;
mod identity;
mod kept;
mod key_admin;
mod keys;
mod keys_cli;
mod leaders;
mod links;
mod membership;
mod metadata_keys;
mod metrics;
mod node;
mod orders;
mod panics;
mod partitions;
mod poller;
mod protection;
mod readmission;
mod recover;
mod restarts;
mod second_copy;
mod splits;
mod suspects;
mod tenancy;
mod tenants;
mod tls;
mod work;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use holdfast_model::config::NodeConfig;
use nix::sys::{
    prctl::set_dumpable,
    resource::{Resource, setrlimit},
};
use tracing_subscriber::EnvFilter;

/// Holdfast node.
#[derive(Debug, Parser)]
#[command(name = "noded", version, about = "A Holdfast storage node")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Hold this node's keys: started by the node itself, which talks to it over its standard input.
    #[command(hide = true)]
    KeyService,
    /// Run the node until SIGTERM or SIGINT.
    Node {
        /// The configuration document (JSON).
        #[arg(long)]
        config: PathBuf,
    },
    /// Rebuild the catalog of nodes that lost their state from the drives alone. No node may run.
    Recover(recover::Recover),
    /// Try recovery shares, away from any node.
    Keys {
        #[command(subcommand)]
        command: keys_cli::Keys,
    },
}

fn main() -> ExitCode {
    panics::say_where_and_why();
    if holdfast_appliance::is_pid1() {
        holdfast_appliance::run_pid1(holdfast_appliance::Role::node());
    }
    if let Err(error) = keep_memory_private() {
        eprintln!("noded: {error:#}");
        return ExitCode::FAILURE;
    }
    let outcome = match Arguments::parse().command {
        Command::Node { config } => run_node(&config),
        Command::KeyService => run_key_service(),
        Command::Recover(recover) => run_recover(recover),
        Command::Keys { command } => command.run(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("noded: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Keys are in memory: no core file of this process is ever written, whatever limit it is given later, and no process
/// of the same user reads it.
fn keep_memory_private() -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("setting the limit of core files to nothing")?;
    set_dumpable(false).context("keeping memory out of core files")
}

fn run_node(path: &std::path::Path) -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter()?)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let config: NodeConfig = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a configuration document", path.display()))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(node::run(config))?;
    Ok(ExitCode::SUCCESS)
}

fn run_key_service() -> Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter()?)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    Ok(holdfast_keyservice::process::run())
}

fn run_recover(recover: recover::Recover) -> Result<ExitCode> {
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(asked).with_ansi(false).with_writer(std::io::stderr).init();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?
        .block_on(recover.run())
}

/// What is logged: `RUST_LOG`, or everything from `info` on.
///
/// Two libraries stay silent whatever is asked for: s3s prints the signature that would have been right,
/// and openraft repeats in its own words, many times a second, what consensus says once.
fn log_filter() -> Result<EnvFilter> {
    let asked = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    Ok(asked.add_directive("s3s=off".parse()?).add_directive("openraft=off".parse()?))
}
