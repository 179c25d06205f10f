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

#[derive(Debug, Parser)]
#[command(name = "holdfast-fuzz", about = "Fuzz the parsers")]
struct Arguments {
    /// Only this target
    target: Option<String>,
    /// For each target
    #[arg(long, default_value_t = 10)]
    seconds: u64,
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
        "{:<16} {:>8} {:>14} {:>10} {:>8}  result",
        "target", "seconds", "executions", "per second", "words"
    );
    for target in TARGETS.iter().filter(|target| wanted(target.name)) {
        ran += 1;
        let inputs = corpus::load(target.name).with_context(|| format!("the corpus of {}", target.name))?;
        let inputs = inputs.into_iter().map(|(_, bytes)| bytes).collect();
        let budget = Budget::Time(Duration::from_secs(arguments.seconds));
        let outcome = fuzz(target, inputs, arguments.seed, budget);
        let result = match &outcome.crash {
            None => "no crash".to_owned(),
            Some((bytes, panic)) => {
                crashes += 1;
                format!("CRASH: {panic}; input kept as {}", corpus::keep(target.name, bytes)?.display())
            }
        };
        println!(
            "{:<16} {:>8} {:>14} {:>10} {:>8}  {result}",
            target.name,
            arguments.seconds,
            outcome.executions,
            outcome.executions / arguments.seconds.max(1),
            outcome.words.len()
        );
    }
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    ensure!(ran > 0, "there is no such target; there are {}", names.join(", "));
    Ok(if crashes == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
