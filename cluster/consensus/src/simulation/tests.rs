//! Seeds, two runs of a seed, and bugs that must be found.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use super::{Outcome, faults::Planted, run};

/// Faults of one run, unless `HOLDFAST_FAULTS` says otherwise.
const FAULTS: u64 = 25;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Seeds of this run: the one asked for; else a fixed part, and a part that is new each time.
fn seeds() -> Vec<u64> {
    if let Some(seed) = setting("HOLDFAST_SEED") {
        return vec![seed];
    }
    let count = setting("HOLDFAST_SEEDS").unwrap_or(400);
    let mut fresh = [0; 8];
    getrandom::fill(&mut fresh).unwrap();
    // Short enough to be typed.
    let fresh = u64::from_le_bytes(fresh) % 1_000_000_000 + 1_000_000;
    (0..count).map(|at| if at % 4 == 3 { fresh + at } else { at }).collect()
}

fn check(seed: u64, outcome: &Outcome) {
    if let Some(violation) = &outcome.violation {
        let lines: Vec<&str> = outcome.trace.lines().collect();
        let shown = if setting("HOLDFAST_SEED").is_some() { lines.len() } else { 60.min(lines.len()) };
        println!("{}", lines[lines.len() - shown..].join("\n"));
        panic!(
            "seed {seed}: {violation}\nagain, with the whole trace: HOLDFAST_SEED={seed} cargo test \
             -p holdfast-consensus --lib simulation::tests::groups -- --nocapture"
        );
    }
}

#[test]
fn groups_keep_their_promises_whatever_a_seed_does() {
    let started = Instant::now();
    let (seeds, next) = (seeds(), AtomicU64::new(0));
    let faults = setting("HOLDFAST_FAULTS").unwrap_or(FAULTS);
    let work = || {
        let (mut acknowledged, mut unknown, mut reads) = (0, 0, 0);
        while let Some(seed) =
            usize::try_from(next.fetch_add(1, Ordering::Relaxed)).ok().and_then(|at| seeds.get(at))
        {
            let outcome = run(*seed, faults, None);
            println!(
                "seed {seed}: trace {:016x}, {} lines, {} acknowledged, {} unknown, {} reads",
                outcome.hash(),
                outcome.trace.lines().count(),
                outcome.acknowledged,
                outcome.unknown,
                outcome.reads
            );
            check(*seed, &outcome);
            acknowledged += outcome.acknowledged;
            unknown += outcome.unknown;
            reads += outcome.reads;
        }
        (acknowledged, unknown, reads)
    };
    let sums = thread::scope(|scope| {
        let other = scope.spawn(work);
        let (one, other) = (work(), other.join().unwrap());
        (one.0 + other.0, one.1 + other.1, one.2 + other.2)
    });
    println!(
        "{} seeds in {:?}: {} commands acknowledged, {} unknown, {} reads",
        seeds.len(),
        started.elapsed(),
        sums.0,
        sums.1,
        sums.2
    );
    assert!(sums.0 > seeds.len() as u64 * 20, "the groups hardly served");
}

#[test]
fn two_runs_of_a_seed_are_byte_identical() {
    for seed in 1000..1012 {
        let (one, two) = (run(seed, FAULTS, None), run(seed, FAULTS, None));
        println!("seed {seed}: trace {:016x}, {} bytes", one.hash(), one.trace.len());
        let differs = one.trace.lines().zip(two.trace.lines()).find(|(one, two)| one != two);
        assert_eq!(differs, None, "seed {seed}");
        assert!(one.trace == two.trace, "seed {seed}");
    }
    assert_ne!(run(1, FAULTS, None).hash(), run(2, FAULTS, None).hash());
}

/// Runs seeds until one finds what was planted.
fn is_found(planted: Planted) {
    for seed in 1..=100 {
        if let Some(violation) = run(seed, FAULTS, Some(planted)).violation {
            println!("{planted:?} is found by seed {seed}: {violation}");
            return;
        }
    }
    panic!("{planted:?} is not found by any of 100 seeds");
}

macro_rules! planted {
    ($($test:ident: $planted:ident,)*) => {
        $(#[test]
        fn $test() {
            is_found(Planted::$planted);
        })*
    };
}

planted! {
    a_vote_answered_before_its_flush_is_found: VoteAnsweredBeforeFlush,
    a_vote_that_a_restart_forgets_is_found: VoteNotWritten,
    an_append_answered_before_its_flush_is_found: AppendAnsweredBeforeFlush,
    a_truncation_that_is_not_written_is_found: TruncationNotWritten,
    a_disk_that_lies_is_found: DiskThatLies,
    a_log_cut_at_its_end_is_found: TailDropped,
    a_checkpoint_without_its_state_is_found: CheckpointWithoutState,
    entries_applied_twice_after_a_crash_are_found: StateSavedWithoutPosition,
    a_machine_that_is_not_deterministic_is_found: MachineThatKnowsItsNode,
    entries_applied_twice_after_a_full_disk_are_found: MachineThatForgetsWhatItHolds,
    a_stale_read_from_a_deposed_leader_is_found: LeaderThatReadsAlone,
    a_transport_that_says_not_sent_is_found: SentButSaysNotSent,
}
