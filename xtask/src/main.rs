//! `cargo xtask ...`: every command of the project. One module a command; `--help` lists them.

#![forbid(unsafe_code)]

mod bench;
mod binaries;
mod dev;
mod down;
mod follow;
mod image;
mod nemesis;
mod run;
mod setup;
mod sim;
mod test;
mod up;
mod vm;
mod web;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Build, run, hurt and test Holdfast clusters", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install what is missing on this machine (as root), or print the line that does
    Setup,
    /// Build the web console into admin-web/dist
    Web,
    /// Boot a cluster of virtual machines, form it, make tenant `demo`
    Up(up::Up),
    /// The same cluster as ordinary processes on loopback, in seconds
    Dev(dev::Dev),
    /// Stop whatever `up` or `dev` started
    Down(down::Down),
    /// Faults on a running cluster of virtual machines
    Vm(vm::Vm),
    /// Build the bootable image; prints sizes and hashes
    Image(image::Image),
    /// Run all tests; `quick` leaves out clients and virtual machines
    Test(test::Test),
    /// Benchmarks with a table of results
    Bench(bench::Bench),
    /// Hurt a cluster of processes while clients work, and judge what they saw
    Nemesis(nemesis::Nemesis),
    /// The whole cluster in one thread, under one seed: runs seeds, replays and shrinks what fails
    Sim(sim::Sim),
    /// What `up` leaves in the background: owns the virtual machines
    #[command(hide = true)]
    Supervise(up::Supervise),
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    // The supervisor has its own threads and must not hold a runtime's.
    if let Command::Supervise(supervise) = &arguments.command {
        return supervise.run().map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting")?;
    runtime.block_on(async {
        match arguments.command {
            Command::Setup => setup::run()?,
            Command::Web => web::build()?,
            Command::Up(up) => up.run().await?,
            Command::Dev(dev) => dev.run().await?,
            Command::Down(down) => down.run()?,
            Command::Vm(vm) => vm.run()?,
            Command::Image(image) => image.run()?,
            Command::Test(test) => return test.run(),
            Command::Bench(bench) => bench.run().await?,
            Command::Nemesis(nemesis) => nemesis.run()?,
            Command::Sim(sim) => sim.run()?,
            Command::Supervise(supervise) => supervise.run()?,
        }
        Ok(ExitCode::SUCCESS)
    })
}
