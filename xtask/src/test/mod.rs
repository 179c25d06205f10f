//! `cargo xtask test`: everything that says whether the tree is good, in the order in which it fails fastest.
//!
//! Invariants:
//! - a step that ran nothing is a failure, not a pass;
//! - a step that fails does not hide the steps after it;
//! - whatever a step's programs left running is stopped before the last line is printed.

mod count;
mod step;
mod tidy;

use std::{env, fs, process::ExitCode, time::Instant};

use anyhow::Result;
use clap::{Args, ValueEnum};
use holdfast_blackbox::{dev::stop_leftovers, paths};

use crate::{
    binaries,
    run::{cargo, duration, say},
    web,
};
use count::Count;
use step::{Step, command, function};

/// How much is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Scope {
    /// Without real clients and virtual machines
    Quick,
    /// Everything; what CI runs
    Full,
}

/// Arguments of `test`.
#[derive(Debug, Args)]
pub struct Test {
    /// How much
    #[arg(value_enum, default_value = "quick")]
    scope: Scope,
    /// Only steps whose name holds this word
    #[arg(long)]
    only: Option<String>,
}

impl Test {
    /// Runs the steps and prints the sum.
    ///
    /// # Errors
    /// When leftovers cannot be stopped; a failed test is an exit code.
    pub fn run(&self) -> Result<ExitCode> {
        sweep()?;
        let begun = Instant::now();
        let mut sum = Count::default();
        let mut broken = Vec::new();
        for step in steps(self.scope).into_iter().filter(|step| self.wanted(step)) {
            let name = step.name;
            let outcome = step.run();
            sum += outcome.count;
            if outcome.count.failed > 0 {
                broken.push((name, outcome.failed_tests));
            }
            sweep()?;
        }
        if !broken.is_empty() {
            println!("\n  failed:");
            for (step, tests) in &broken {
                println!(
                    "    {step}: {}",
                    if tests.is_empty() { "see above".to_owned() } else { tests.join(", ") }
                );
            }
        }
        println!("\n  {}", duration(begun.elapsed()));
        println!("{sum}");
        Ok(if sum.failed == 0 && sum.passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn wanted(&self, step: &Step) -> bool {
        self.only.as_ref().is_none_or(|word| step.name.contains(word.as_str()))
    }
}

fn steps(scope: Scope) -> Vec<Step> {
    let mut steps = vec![
        command("format", || Ok(with(&["fmt", "--all", "--check"]))),
        function("tidy", tidy::run),
        function("console: build", || web::build().map(|()| one_check())),
        command("console: lints", || web::npm_command(&["run", "lint"])),
        command("console: tests", || web::npm_command(&["test"])),
        command("lints", || {
            Ok(with(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--features",
                ALL_TESTS,
                "--",
                "-D",
                "warnings",
            ]))
        }),
        command("unit tests", || Ok(with(&["test", "--workspace", "--no-fail-fast"]))),
        function("node program", || binaries::noded().map(|_| one_check())),
        function("command", || binaries::command().map(|()| one_check())),
        command("black box: clusters of processes", || blackbox("cluster", Turn::Together)),
        command("black box: clusters one at a time", || blackbox("cluster", Turn::Alone)),
    ];
    if scope == Scope::Full {
        steps.push(command("simulated cluster: seeds", || simulated(&["--count", SIMULATED_SEEDS])));
        steps.push(command("simulated cluster: planted bugs", || simulated(&["--planted"])));
        steps.push(command("black box: aws, rclone, s3cmd, boto3, js, rust, restic", || {
            binaries::sdk_client()?;
            blackbox("clients", Turn::Together)
        }));
        steps.push(command("formats: second implementation", || blackbox("formats", Turn::Together)));
        steps.push(command("virtual machines: harness", || {
            Ok(with(&[
                "test",
                "--workspace",
                "--features",
                "holdfast-qemu/machines",
                "--no-fail-fast",
                "--test",
                "pvh",
                "--test",
                "ovmf",
                "--",
                "--test-threads=1",
            ]))
        }));
        steps.push(command("virtual machines: cluster", || blackbox("machines", Turn::Alone)));
    }
    steps
}

/// Seeds of the simulated cluster in a full run.
const SIMULATED_SEEDS: &str = "5000";

/// The simulation of the whole cluster, built and run.
fn simulated(arguments: &[&str]) -> Result<std::process::Command> {
    let mut sim = binaries::sim()?;
    sim.args(arguments);
    Ok(sim)
}

/// A step that is one check and has nothing to add.
fn one_check() -> (Count, String) {
    (Count::one_passed(), String::new())
}

/// Features that bring in every test of the black box.
const ALL_TESTS: &str = "holdfast-blackbox/cluster,holdfast-blackbox/clients,holdfast-blackbox/formats,\
     holdfast-blackbox/machines,holdfast-qemu/machines";

fn with(arguments: &[&str]) -> std::process::Command {
    let mut command = cargo();
    command.args(arguments).current_dir(paths::workspace()).env("CARGO_TERM_COLOR", "never");
    command
}

/// Clusters that run at once: they wait for each other's nodes, timers and disks far more than they compute.
const CLUSTERS_AT_ONCE: &str = "--test-threads=3";

/// Tests that compare times, or what a node gets done: nothing else runs beside them.
const ALONE: &[&str] = &["crowd::", "histories::", "limits::", "load::", "timing::"];

/// Which black-box tests of a feature run, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// All but those of [`ALONE`], several at once.
    Together,
    /// One after the other; of clusters of processes only those of [`ALONE`].
    Alone,
}

/// The black-box tests of one feature.
///
/// All packages are selected, as for the unit tests: what those built is not built again with other features. The
/// tests' names tell them from those of other packages.
fn blackbox(feature: &str, turn: Turn) -> Result<std::process::Command> {
    let features = format!("holdfast-blackbox/{feature}");
    let mut command =
        with(&["test", "--workspace", "--features", &features, "--no-fail-fast", "--test", feature, "--"]);
    match turn {
        // What they print is shown test by test, in the end.
        Turn::Together => {
            command.args([CLUSTERS_AT_ONCE, "--show-output"]);
            ALONE.iter().for_each(|name| {
                command.args(["--skip", name]);
            });
        }
        Turn::Alone => {
            command.args(["--test-threads=1", "--nocapture"]);
            if feature == "cluster" {
                command.args(ALONE);
            }
        }
    }
    command
        .env("RUST_LIB_BACKTRACE", "0")
        .env("HOLDFAST_NODED", paths::noded())
        .env("HOLDFAST_XTASK", env::current_exe()?);
    Ok(command)
}

/// Stops what interrupted tests left behind in their scratch directories.
fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir(paths::scratch_dir()) else { return Ok(()) };
    for entry in entries {
        let dir = entry?.path();
        let stopped = stop_leftovers(&dir)?;
        if stopped > 0 {
            say(&format!("stopped {stopped} processes left in {}", dir.display()));
        }
    }
    Ok(())
}
