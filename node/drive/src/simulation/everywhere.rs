//! Short random sequences of requests, and a crash at every write and flush of each: what `random` does at one
//! moment is done at all of them here.
//!
//! A sequence that fails is shrunk: requests are taken away, then made smaller, as long as it still fails.

use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};

use super::{
    Pools,
    crashes::{SHARDS, explore, record, settle},
    formatted,
    model::Model,
};

/// A request, or time that passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Put {
        number: u8,
        length: usize,
    },
    Delete {
        number: u8,
    },
    /// So many microseconds.
    Pause(u16),
}

/// Requests of one sequence at most.
const STEPS_MAX: usize = 8;

/// Sequences tried.
const CASES: u32 = 24;

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![4 => 1usize..9000, 1 => 60_000usize..80_000];
    let step = prop_oneof![
        5 => (0..SHARDS, length).prop_map(|(number, length)| Step::Put { number, length }),
        2 => (0..SHARDS).prop_map(|number| Step::Delete { number }),
        3 => (0u16..400).prop_map(Step::Pause),
    ];
    prop::collection::vec(step, 1..STEPS_MAX)
}

/// Runs the sequence and mounts every crash of it; how many there were. Panics when one is not as it must be.
pub(super) fn crash_everywhere(pools: &Pools, steps: &[Step]) -> u64 {
    let recording = record(pools, formatted(), Model::default(), |rig, model, note| {
        for step in steps {
            match step {
                Step::Put { number, length } => model.put(rig, *number, *length),
                Step::Delete { number } => model.delete(rig, *number),
                Step::Pause(micros) => {
                    rig.turn(u64::from(*micros));
                    note(rig, model);
                }
            }
        }
        settle(rig, model, note);
    });
    explore(pools, &recording)
}

/// Tries sequences until one fails; that one, shrunk, and what it led to.
pub(super) fn search(pools: &Pools, cases: u32) -> (u64, Result<(), (Vec<Step>, String)>) {
    let states = std::cell::Cell::new(0);
    // The same sequences each time: a failure is seen again by running the test again.
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, super::shrinking::fixed_rng());
    let outcome = runner.run(&steps(), |steps| {
        let explored =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| crash_everywhere(pools, &steps)));
        match explored {
            Ok(count) => {
                states.set(states.get() + count);
                Ok(())
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                Err(TestCaseError::fail(text))
            }
        }
    });
    let outcome = match outcome {
        Ok(()) => Ok(()),
        Err(proptest::test_runner::TestError::Fail(reason, steps)) => {
            Err((steps, reason.message().to_owned()))
        }
        Err(proptest::test_runner::TestError::Abort(reason)) => {
            Err((Vec::new(), reason.message().to_owned()))
        }
    };
    (states.get(), outcome)
}

#[test]
fn every_crash_of_random_sequences_keeps_what_was_acknowledged() {
    let (states, outcome) = search(&Pools::new(), CASES);
    if let Err((steps, why)) = outcome {
        panic!("shrunk to {steps:?}: {why}");
    }
    println!("{CASES} sequences, {states} crash states");
    assert!(states > 5000, "only {states} crash states");
}
