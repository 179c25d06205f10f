//! Many seeds: on threads, and for hours in blocks that are entered in a ledger.

use std::{
    ops::Range,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use holdfast_sim::{
    hunt::on_threads,
    ledger::{self, Entry},
    plan::Plan,
    run::run,
};
use parking_lot::Mutex;

use super::{commit, line, tell};

/// One seed in this many is run twice, and must do the same.
const TWICE_INTERVAL: u64 = 100;

/// Violations that end a run.
const VIOLATIONS_MAX: usize = 5;

pub const MILLIS_PER_HOUR: u64 = 3_600_000;

/// What this process is, also when its file was replaced meanwhile.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// What was run, and what came of it.
#[derive(Debug, Default)]
pub struct Sum {
    pub runs: u64,
    pub events: u64,
    pub millis: u64,
    pub acknowledged: u64,
    pub read: u64,
    pub refused: u64,
    pub twice: u64,
    pub failed: Vec<(u64, String)>,
}

impl Sum {
    fn add(&mut self, block: Entry) {
        self.runs += block.seeds;
        self.events += block.events;
        self.millis += block.simulated_hours * MILLIS_PER_HOUR;
        self.acknowledged += block.acknowledged;
        self.read += block.read;
        self.refused += block.refused;
        self.twice += block.twice;
        self.failed.extend(block.violations);
    }
}

/// Runs seeds until one of them, the time or patience with violations ends. All before the last one that was begun are run.
pub fn run_seeds(threads: usize, seeds: Range<u64>, limit: Option<Duration>) -> Result<Sum> {
    let begun = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let sum = Mutex::new(Sum::default());
    let work = || -> Result<()> {
        let mut rig = None;
        loop {
            let enough = sum.lock().failed.len() >= VIOLATIONS_MAX;
            if enough || limit.is_some_and(|limit| begun.elapsed() > limit) {
                return Ok(());
            }
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(());
            }
            let plan = Plan::of_seed(seed);
            let outcome = run(&mut rig, &plan, false)?;
            if let Some(what) = &outcome.violation {
                println!("{}", line(seed, &outcome));
                sum.lock().failed.push((seed, what.clone()));
                tell(&mut rig, &plan, outcome.clone(), None)?;
            }
            let twice = seed.is_multiple_of(TWICE_INTERVAL);
            if twice {
                let again = run(&mut rig, &plan, false)?;
                if again.hash != outcome.hash {
                    let what = format!("determinism: {:016x}, then {:016x}", outcome.hash, again.hash);
                    println!("seed {seed}: {what}");
                    sum.lock().failed.push((seed, what));
                }
            }
            let mut sum = sum.lock();
            sum.runs += 1;
            sum.twice += u64::from(twice);
            sum.events += outcome.events;
            sum.millis += outcome.millis;
            sum.acknowledged += outcome.figures.acknowledged;
            sum.read += outcome.figures.read;
            sum.refused += outcome.figures.refused;
        }
    };
    on_threads(threads, work)?;
    Ok(sum.into_inner())
}

/// Runs seeds in blocks, each of which leaves a line in the ledger: what was run is known whenever this is ended. Goes on
/// after the last seed that the ledger has of this commit. Each block has a process of its own: what operations that hang
/// for ever hold is given back with it.
pub fn run_in_blocks(
    threads: usize,
    mut seeds: Range<u64>,
    limit: Option<Duration>,
    path: &Path,
) -> Result<Sum> {
    let (begun, commit) = (Instant::now(), commit());
    seeds.start = seeds.start.max(ledger::next(path, &commit)?);
    let mut all = Sum::default();
    while !seeds.is_empty() && all.failed.len() < VIOLATIONS_MAX {
        let left = limit.map(|limit| limit.saturating_sub(begun.elapsed()).as_secs());
        if left == Some(0) {
            break;
        }
        let mut block = Command::new(THIS_PROGRAM);
        block.arg("--block-of").arg(&commit).arg("--ledger").arg(path);
        block.args(["--threads", &threads.to_string(), "--seed", &seeds.start.to_string()]);
        block.args(["--count", &(seeds.end - seeds.start).min(ledger::BLOCK).to_string()]);
        block.args(left.map(|left| format!("--seconds={left}")));
        let ended = block.status().context("running a block of seeds")?;
        let entry =
            ledger::last(path)?.filter(|entry| (&entry.commit, entry.first) == (&commit, seeds.start));
        let Some(entry) = entry else {
            bail!("the block of seeds from {} on ended without its line in the ledger: {ended}", seeds.start);
        };
        seeds.start += entry.seeds;
        all.add(entry);
    }
    Ok(all)
}

/// Runs one block, and enters it in the ledger.
pub fn run_block(
    threads: usize,
    seeds: Range<u64>,
    limit: Option<Duration>,
    path: &Path,
    commit: &str,
) -> Result<bool> {
    let (since, first) = (Instant::now(), seeds.start);
    let sum = run_seeds(threads, seeds, limit)?;
    let held = sum.failed.is_empty();
    let entry = Entry {
        commit: commit.to_owned(),
        first,
        seeds: sum.runs,
        twice: sum.twice,
        violations: sum.failed,
        core_seconds: ledger::processor_time()?.as_secs_f64(),
        seconds: since.elapsed().as_secs_f64(),
        simulated_hours: sum.millis / MILLIS_PER_HOUR,
        events: sum.events,
        acknowledged: sum.acknowledged,
        read: sum.read,
        refused: sum.refused,
    };
    entry.append(path)?;
    Ok(held)
}
