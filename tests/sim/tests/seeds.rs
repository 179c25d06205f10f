//! A few seeds with every test run, those that failed once, and that a seed does the same each time.

use std::{collections::BTreeSet, fs, path::Path};

use holdfast_sim::{
    plan::Plan,
    plans::{PLANS, plan},
    run::run,
};

/// Seeds of a plain test run. `cargo xtask test full` runs thousands.
const SEEDS: u64 = 40;

#[test]
fn a_few_seeds_keep_every_promise() {
    let mut rig = None;
    for seed in 1..=SEEDS {
        let outcome = run(&mut rig, &Plan::of_seed(seed), false).unwrap();
        assert_eq!(outcome.violation, None, "cargo xtask sim --seed {seed} --print");
    }
}

#[test]
fn plans_that_are_kept_keep_every_promise() {
    let mut rig = None;
    for (name, _) in PLANS {
        let outcome = run(&mut rig, &plan(name).unwrap(), false).unwrap();
        assert_eq!(outcome.violation, None, "{name}");
    }
}

#[test]
fn every_plan_that_lies_there_is_tried() {
    let mut there = BTreeSet::new();
    for dir in ["regressions", "scenarios"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            there.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(there, PLANS.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[test]
fn a_seed_does_the_same_each_time() {
    // On another rig each time, and on one that has been used: nothing of a run before counts.
    let mut used = None;
    for seed in [3, 11, 16, 54, 106] {
        let plan = Plan::of_seed(seed);
        let first = run(&mut None, &plan, false).unwrap();
        let second = run(&mut used, &plan, false).unwrap();
        assert_eq!((first.hash, first.events), (second.hash, second.events), "seed {seed}");
    }
}
