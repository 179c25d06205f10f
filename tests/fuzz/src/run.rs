//! The loop: pick an input, change it, run it, keep it when something new came of it.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use holdfast_fault::Random;

use crate::{corpus::INPUT_SIZE_MAX, mutate::mutate, targets::Target};

/// Inputs held at most; beyond that a new one takes the place of another.
const INPUTS_MAX: usize = 2000;

/// How long to go on.
#[derive(Debug, Clone, Copy)]
pub enum Budget {
    /// So long.
    Time(Duration),
    /// So many inputs.
    Inputs(u64),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Inputs run.
    pub executions: u64,
    /// Different things that came of them.
    pub words: BTreeSet<String>,
    /// Inputs that led to something new, the corpus included.
    pub inputs: Vec<Vec<u8>>,
    /// The first input that crashed, and the panic's message.
    pub crash: Option<(Vec<u8>, String)>,
}

/// Fuzzes one target, from a corpus and a seed. Ends at the first crash.
#[must_use]
pub fn fuzz(target: &Target, corpus: Vec<Vec<u8>>, seed: u64, budget: Budget) -> Outcome {
    let mut random = Random::new(seed);
    let mut outcome = Outcome::default();
    let began = Instant::now();
    for input in &corpus {
        assert!(input.len() <= INPUT_SIZE_MAX, "an input of {} bytes would never be changed", input.len());
    }
    let mut pending = corpus;
    loop {
        let bytes = match pending.pop() {
            Some(bytes) => bytes,
            None if over(budget, outcome.executions, began) => break,
            None => {
                let mut pick = || random.below(outcome.inputs.len().max(1) as u64) as usize;
                let (one, other) = (pick(), pick());
                let empty = Vec::new();
                let input = |which: usize| outcome.inputs.get(which).unwrap_or(&empty);
                mutate(input(one), input(other), &mut random)
            }
        };
        outcome.executions += 1;
        match catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))) {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
                outcome.crash = Some((bytes, text.unwrap_or_default()));
                break;
            }
            Ok(word) => {
                if outcome.words.insert(word) && bytes.len() <= INPUT_SIZE_MAX {
                    if outcome.inputs.len() < INPUTS_MAX {
                        outcome.inputs.push(bytes);
                    } else {
                        let which = random.below(INPUTS_MAX as u64) as usize;
                        outcome.inputs[which] = bytes;
                    }
                }
            }
        }
    }
    outcome
}

fn over(budget: Budget, executions: u64, began: Instant) -> bool {
    match budget {
        Budget::Inputs(most) => executions >= most,
        // The clock is looked at now and then: most inputs take less than reading it.
        Budget::Time(limit) => executions.is_multiple_of(16) && began.elapsed() >= limit,
    }
}
