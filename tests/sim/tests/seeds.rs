//! A few seeds with every test run, those that failed once, and that a seed does the same each time.

use std::{fs, path::Path};

use holdfast_sim::{plan::Plan, run::run};

/// Seeds of a plain test run. `cargo xtask test full` runs thousands.
const SEEDS: u64 = 40;

#[test]
fn a_few_seeds_keep_every_promise() {
    let mut rig = None;
    for seed in 1..=SEEDS {
        let outcome = run(&mut rig, &Plan::of(seed, seed.is_multiple_of(8)), false).unwrap();
        assert_eq!(outcome.violation, None, "cargo xtask sim --seed {seed} --print");
    }
}

#[test]
fn plans_that_failed_once_do_not_fail_again() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut rig = None;
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(!names.is_empty());
    for name in names {
        let plan: Plan = serde_json::from_slice(&fs::read(&name).unwrap()).unwrap();
        let outcome = run(&mut rig, &plan, false).unwrap();
        assert_eq!(outcome.violation, None, "{}", name.display());
    }
}

#[test]
fn a_seed_does_the_same_each_time() {
    // On another rig each time, and on one that has been used: nothing of a run before counts.
    let mut used = None;
    for seed in [3, 11, 16, 54, 106] {
        let plan = Plan::of(seed, seed.is_multiple_of(8));
        let first = run(&mut None, &plan, false).unwrap();
        let second = run(&mut used, &plan, false).unwrap();
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}
