//! Plants each bug in turn and looks which check finds it: a seed of the cluster, a plan that is kept, or a test of the
//! drive's own simulation. Before that seeds and plans must pass without a bug: otherwise finding one proves nothing. That the
//! tests of the drive pass without one is what each run of its unit tests shows.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Result, bail};
use parking_lot::Mutex;

use crate::{
    bugs::{BUGS, By},
    panics,
    plan::Plan,
    plans::{self, PLANS},
    rig::Rig,
    run::run,
    shrink::check_of,
};

/// Seeds tried for a planted bug before it counts as missed.
const SEEDS_PER_BUG: u64 = 600;

/// Seeds that must keep every promise before a bug is planted.
const SEEDS_WITHOUT: u64 = 50;

/// A test of one drive: its name, and itself. It panics when a promise is broken.
type DriveCheck = (&'static str, fn());

/// The test of one drive that finds a bug.
#[cfg(feature = "planted")]
fn drive_check(bug: &str) -> Option<DriveCheck> {
    let found = holdfast_drive::simulation::CHECKS.iter().find(|check| check.name == bug);
    found.map(|check| (check.test, check.run))
}

#[cfg(not(feature = "planted"))]
fn drive_check(_: &str) -> Option<DriveCheck> {
    None
}

/// What a test of one drive says when it fails.
fn hold(test: fn()) -> Option<String> {
    panics::watch();
    let held = catch_unwind(AssertUnwindSafe(test));
    let said = panics::first();
    held.is_err().then(|| said.unwrap_or_else(|| "it panicked".to_owned()))
}

/// How a bug was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    /// The seed, the plan, or the test.
    by: String,
    /// The check that failed.
    check: String,
}

/// Plants all bugs, seeds from `first` on; whether each one was found.
///
/// # Errors
/// When this build has no bugs in it, or something fails without any.
pub fn hunt_all(first: u64, threads: usize) -> Result<bool> {
    if !holdfast_planted::CAN_PLANT {
        bail!("this build has no bugs in it; build it with the feature `planted`");
    }
    pass_without(first, threads)?;
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    on_threads(threads, || {
        while let Some((bug, _, by)) = BUGS.get(next.fetch_add(1, Ordering::Relaxed)) {
            holdfast_planted::plant(Some(bug));
            let outcome = hunt(bug, *by, first);
            holdfast_planted::plant(None);
            found.lock().insert(*bug, outcome?);
        }
        Ok(())
    })?;
    let found = found.into_inner();
    let mut missed = 0;
    println!("{:<26} {:<28} {:<16} what it is", "planted bug", "found by", "which said");
    for (bug, what, _) in BUGS {
        match found.get(bug).map(Vec::as_slice) {
            Some(all @ [_, ..]) => {
                for (row, Found { by, check }) in all.iter().enumerate() {
                    let (bug, what) = if row == 0 { (*bug, *what) } else { ("", "") };
                    println!("{bug:<26} {by:<28} {check:<16} {what}");
                }
            }
            _ => {
                missed += 1;
                println!("{bug:<26} {:<28} {:<16} {what}", "-", "NOT FOUND");
            }
        }
    }
    println!("{} of {} planted bugs found", BUGS.len() - missed, BUGS.len());
    Ok(missed == 0)
}

/// Without a bug, everything that is to find one passes.
fn pass_without(first: u64, threads: usize) -> Result<()> {
    enum Trial {
        Seed(u64),
        Plan(&'static str),
    }
    let mut trials: Vec<Trial> = PLANS.iter().map(|(name, _)| Trial::Plan(name)).collect();
    trials.extend((first..first + SEEDS_WITHOUT).map(Trial::Seed));
    let next = AtomicUsize::new(0);
    on_threads(threads, || {
        let mut rig = None;
        while let Some(trial) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (name, said) = match trial {
                Trial::Seed(seed) => {
                    (format!("seed {seed}"), run(&mut rig, &Plan::of_seed(*seed), false)?.violation)
                }
                Trial::Plan(name) => {
                    ((*name).to_owned(), run(&mut rig, &plans::plan(name)?, false)?.violation)
                }
            };
            if let Some(said) = said {
                bail!("{name} fails without any bug: {said}");
            }
        }
        Ok(())
    })
}

/// All ways in which the bug that is planted is found: nothing when it is missed.
fn hunt(bug: &str, by: By, first: u64) -> Result<Vec<Found>> {
    // What the bug does to replicas and disks is not for the next one.
    let mut rig: Option<Rig> = None;
    let mut found = Vec::new();
    match by {
        By::Seeds => {
            for seed in first..first + SEEDS_PER_BUG {
                if let Some(what) = run(&mut rig, &Plan::of_seed(seed), false)?.violation {
                    found.push(Found { by: format!("seed {seed}"), check: check_of(&what).to_owned() });
                    break;
                }
            }
        }
        By::Plan(name) => {
            if let Some(what) = run(&mut rig, &plans::plan(name)?, false)?.violation {
                found.push(Found { by: name.to_owned(), check: check_of(&what).to_owned() });
            }
        }
        By::Drive => {}
    }
    if by != By::Drive && found.is_empty() {
        return Ok(found);
    }
    if let Some((test, check)) = drive_check(bug) {
        match hold(check) {
            Some(_) => found.push(Found { by: "one drive".to_owned(), check: test.to_owned() }),
            None => found.clear(),
        }
    }
    Ok(found)
}

/// Does the same on so many threads; returns when all have ended.
///
/// # Errors
/// The first one that a thread met.
pub fn on_threads(threads: usize, work: impl Fn() -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(&work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })
}
