//! `cargo run -p holdfast-fuzz -- [TARGET] --seconds N --seed N`: fuzzes one target or all of them.
//!
//! A crash leaves its input in the target's corpus, where the tests find it until it is mended.

#![forbid(unsafe_code)]

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use holdfast_fuzz::{
    corpus,
    run::{Budget, fuzz},
    targets::TARGETS,
};

/// Largest input that is kept for being new, in bytes.
const KEPT_SIZE_MAX: usize = 12 << 10;

#[derive(Debug, Parser)]
#[command(name = "holdfast-fuzz", about = "Fuzz the parsers")]
struct Arguments {
    /// Only this target
    target: Option<String>,
    /// For each target
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Keep so many small inputs that led to something the corpus does not reach, for each target
    #[arg(long, default_value_t = 0)]
    keep: usize,
    /// The same seed and corpus try the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let wanted = |name: &str| arguments.target.as_ref().is_none_or(|target| target == name);
    let mut crashes = 0;
    let mut ran = 0;
    println!(
        "{:<16} {:>8} {:>8} {:>14} {:>12} {:>8}  result",
        "target", "seconds", "CPU s", "executions", "per CPU s", "words"
    );
    for target in TARGETS.iter().filter(|target| wanted(target.name)) {
        ran += 1;
        let inputs = corpus::load(target.name).with_context(|| format!("the corpus of {}", target.name))?;
        let inputs: Vec<Vec<u8>> = inputs.into_iter().map(|(_, bytes)| bytes).collect();
        let (known, cpu_before) = (inputs.clone(), cpu_seconds());
        let budget = Budget::Time(Duration::from_secs(arguments.seconds));
        let outcome = fuzz(target, inputs, arguments.seed, budget);
        let result = match &outcome.crash {
            None => "no crash".to_owned(),
            Some((bytes, panic)) => {
                crashes += 1;
                format!("CRASH: {panic}; input kept as {}", corpus::keep(target.name, bytes)?.display())
            }
        };
        let cpu = cpu_seconds() - cpu_before;
        println!(
            "{:<16} {:>8} {cpu:>8.1} {:>14} {:>12.0} {:>8}  {result}",
            target.name,
            arguments.seconds,
            outcome.executions,
            outcome.executions as f64 / cpu.max(0.01),
            outcome.words.len()
        );
        let mut new: Vec<&Vec<u8>> = outcome.inputs.iter().filter(|input| !known.contains(input)).collect();
        new.sort_by_key(|input| input.len());
        for input in new.into_iter().filter(|input| input.len() <= KEPT_SIZE_MAX).take(arguments.keep) {
            corpus::keep_new(target.name, input)?;
        }
    }
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    ensure!(ran > 0, "there is no such target; there are {}", names.join(", "));
    Ok(if crashes == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// User and system time of this process so far, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Fields 14 and 15 of proc_pid_stat(5), in ticks of 10 ms; the first here is field 3.
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
