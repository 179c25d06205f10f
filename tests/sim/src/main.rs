//! `cargo xtask sim`: runs seeds, replays one, shrinks what fails, and shows that planted bugs are found.

#![forbid(unsafe_code)]

mod many;

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use clap::Parser;
use holdfast_sim::{
    bugs::BUGS,
    hunt::hunt_all,
    plan::Plan,
    rig::Rig,
    run::{Outcome, run},
    shrink::shrink,
};

use many::{MILLIS_PER_HOUR, run_block, run_in_blocks, run_seeds};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask sim",
    about = "The whole cluster in one thread, under one seed",
    max_term_width = 100
)]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seeds to run
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Threads, each with clusters of its own
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Ends after so many seconds, whatever is left
    #[arg(long)]
    seconds: Option<u64>,
    /// Writes a line for each block of seeds to this file, and goes on where it ends
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Runs one block of a ledger, as the process that writes the ledger of this commit has it done
    #[arg(long, hide = true, requires = "ledger")]
    block_of: Option<String>,
    /// Tells everything that happens in a single run
    #[arg(long)]
    print: bool,
    /// Runs a plan that was written down
    #[arg(long)]
    plan: Option<PathBuf>,
    /// Writes the smallest plan that fails to this file
    #[arg(long)]
    save: Option<PathBuf>,
    /// Plants every bug in turn, and looks which check finds it (needs a build with the feature `planted`)
    #[arg(long)]
    planted: bool,
    /// Plants this bug
    #[arg(long)]
    bug: Option<String>,
}

fn main() -> ExitCode {
    match go(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn go(arguments: &Arguments) -> Result<bool> {
    if arguments.print {
        let filter = tracing_subscriber::EnvFilter::from_env("HOLDFAST_LOG");
        tracing_subscriber::fmt().without_time().with_env_filter(filter).init();
    }
    if arguments.planted {
        return hunt_all(arguments.seed, arguments.threads);
    }
    if let Some(name) = &arguments.bug {
        let known = BUGS.iter().find(|(bug, ..)| bug == name);
        let known = known.with_context(|| format!("no bug is called {name}"))?;
        holdfast_planted::plant(Some(known.0));
    }
    let mut rig = None;
    if let Some(path) = &arguments.plan {
        let plan: Plan = serde_json::from_slice(&fs::read(path)?).context("reading the plan")?;
        let outcome = run(&mut rig, &plan, arguments.print)?;
        println!("{}", line(plan.seed, &outcome));
        return Ok(outcome.violation.is_none());
    }
    if arguments.ledger.is_none() && (arguments.count == 1 || arguments.bug.is_some()) {
        for seed in arguments.seed..arguments.seed + arguments.count {
            let plan = Plan::of_seed(seed);
            let outcome = run(&mut rig, &plan, arguments.print)?;
            println!("{}", line(seed, &outcome));
            if outcome.violation.is_some() {
                tell(&mut rig, &plan, outcome, arguments.save.as_ref())?;
                return Ok(false);
            }
        }
        return Ok(true);
    }
    run_many(arguments)
}

fn line(seed: u64, outcome: &Outcome) -> String {
    let Outcome { hash, events, millis, figures, violation } = outcome;
    format!(
        "seed {seed}: trace {hash:016x}, {events} events, {}.{:03} s, {} acknowledged, {} read, {} refused{}",
        millis / 1000,
        millis % 1000,
        figures.acknowledged,
        figures.read,
        figures.refused,
        violation.as_ref().map_or(String::new(), |what| format!("\n  VIOLATION {what}"))
    )
}

/// Tells of a failure: what to type to see it again, and the least that it takes.
fn tell(rig: &mut Option<Rig>, plan: &Plan, outcome: Outcome, save: Option<&PathBuf>) -> Result<()> {
    println!("  at commit {}, again: cargo xtask sim --seed {} --print", commit(), plan.seed);
    let (least, outcome) = shrink(rig, plan, outcome)?;
    let text = serde_json::to_string(&least)?;
    println!("  the least that fails: {text}");
    println!("  which gives: {}", outcome.violation.unwrap_or_default());
    if let Some(path) = save {
        fs::write(path, serde_json::to_string_pretty(&least)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The commit that is checked out, as far as git tells.
fn commit() -> String {
    let told = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let told = told.ok().filter(|told| told.status.success());
    told.map_or("unknown".to_owned(), |told| String::from_utf8_lossy(&told.stdout).trim().to_owned())
}

fn run_many(arguments: &Arguments) -> Result<bool> {
    let begun = Instant::now();
    let limit = arguments.seconds.map(Duration::from_secs);
    let seeds = arguments.seed..arguments.seed.saturating_add(arguments.count);
    let sum = match (&arguments.ledger, &arguments.block_of) {
        (Some(path), Some(commit)) => return run_block(arguments.threads, seeds, limit, path, commit),
        (Some(path), None) => run_in_blocks(arguments.threads, seeds, limit, path)?,
        (None, _) => run_seeds(arguments.threads, seeds, limit)?,
    };
    let took = begun.elapsed();
    println!(
        "{} schedules in {:.1} s, {:.0} a minute; {} h simulated, {} events, {} acknowledged, {} read, {} refused; \
         {} run twice; {} violations",
        sum.runs,
        took.as_secs_f64(),
        (sum.runs + sum.twice) as f64 * 60.0 / took.as_secs_f64(),
        sum.millis / MILLIS_PER_HOUR,
        sum.events,
        sum.acknowledged,
        sum.read,
        sum.refused,
        sum.twice,
        sum.failed.len()
    );
    Ok(sum.failed.is_empty())
}
