//! Shrinking is real: with a bug planted, what a failing sequence is reduced to is hardly more than the bug
//! needs to show.

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::{
    Pools,
    everywhere::{self, Step},
    random::{Action, action, run},
};
use crate::planted::{Bug, with};
use holdfast_fault::Manners;

/// Random numbers that are the same each time.
pub(super) fn fixed_rng() -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &[0x5F; 32])
}

/// The smallest sequence of requests and crashes that shows `bug`, as found, and what it was before.
fn shrunk(bug: Bug) -> (Vec<Action>, usize) {
    let pools = Pools::new();
    let config =
        Config { cases: 400, failure_persistence: None, max_shrink_iters: 5000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, fixed_rng());
    let first = std::cell::Cell::new(None);
    let actions = proptest::collection::vec(action(), 1..250);
    let outcome = with(bug, || {
        runner.run(&actions, |actions| match run(&pools, 1, Manners::GOOD, &actions) {
            Ok(_) => Ok(()),
            Err(what) => {
                first.set(first.get().or(Some(actions.len())));
                Err(TestCaseError::fail(what))
            }
        })
    });
    match outcome {
        Err(TestError::Fail(_, actions)) => (actions, first.get().unwrap_or_default()),
        other => panic!("{bug:?} is not found: {other:?}"),
    }
}

#[test]
fn random_sequences_that_fail_shrink_to_what_the_bug_needs() {
    // An acknowledgement without a flush takes a put, time for it to be answered, and a crash.
    for (bug, most) in [(Bug::SkipFlush, 3), (Bug::AckBeforeFlush, 3)] {
        let (actions, before) = shrunk(bug);
        println!("{bug:?}: {before} actions shrunk to {actions:?}");
        assert!(before > most, "{before} actions are no test of shrinking");
        assert!(actions.len() <= most, "{bug:?}: {actions:?}");
        assert!(matches!(actions[0], Action::Put { length: 1, .. }), "{bug:?}: {actions:?}");
        assert!(matches!(actions.last(), Some(Action::Crash { .. })), "{bug:?}: {actions:?}");
    }
}

#[test]
fn sequences_that_crash_everywhere_shrink_to_one_request() {
    let (_, outcome) = with(Bug::SkipFlush, || everywhere::search(&Pools::new(), 50));
    let (steps, why) = outcome.expect_err("the bug is found");
    println!("SkipFlush: shrunk to {steps:?}: {why}");
    assert!(matches!(steps[..], [Step::Put { number: 0, length: 1 }]), "{steps:?}");
}
