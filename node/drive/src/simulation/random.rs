//! Random sequences of requests, crashes and restarts.

#[cfg(test)]
use proptest::prelude::*;

use super::{Pools, Rig, formatted, model::Model};
use holdfast_fault::{Cut, FaultDisk, Manners, Random};

/// What a run does next.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Put {
        shard: u8,
        length: usize,
    },
    Delete {
        shard: u8,
    },
    /// So many rounds of the engine, each so many microseconds later.
    Turn {
        rounds: u8,
        micros: u16,
    },
    Crash {
        mode: u8,
        seed: u64,
    },
    Restart,
}

/// Runs `actions` on a fresh disk; the message says what went wrong.
pub(super) fn run(pools: &Pools, seed: u64, manners: Manners, actions: &[Action]) -> Result<Model, String> {
    let disk = formatted();
    let mut random = Random::new(seed);
    let mut model = Model::default();
    let mut rig = remount(&disk, pools, &mut random, manners, &mut model)?;
    for action in actions {
        match action {
            // So many that the engine's buffers cannot run out.
            Action::Put { .. } if model.waiting() > 100 => {}
            Action::Put { shard, length } => model.put(&rig, *shard, *length),
            Action::Delete { shard } => model.delete(&rig, *shard),
            Action::Turn { rounds, micros } => {
                for _ in 0..*rounds {
                    rig.turn(u64::from(*micros));
                }
                model.collect()?;
            }
            Action::Crash { mode, seed } => {
                model.collect()?;
                model.crash();
                let count = disk.unflushed().max(1) as u64;
                let some = usize::try_from(seed % count).expect("small");
                disk.cut_power(match mode % 7 {
                    0 => Cut::None,
                    1 => Cut::All,
                    2 => Cut::Prefix(some),
                    3 => Cut::AllBut(some),
                    4 => Cut::Only(some),
                    5 => Cut::Random(*seed),
                    _ => Cut::Torn(*seed),
                });
                rig = remount(&disk, pools, &mut random, manners, &mut model)?;
            }
            Action::Restart => {
                rig.close();
                model.collect()?;
                model.crash();
                rig = remount(&disk, pools, &mut random, manners, &mut model)?;
                if rig.report.segments_scanned > 1 || !rig.report.torn.is_empty() {
                    return Err(format!("a closed drive has one unsealed segment at most: {:?}", rig.report));
                }
            }
        }
    }
    for _ in 0..2000 {
        rig.turn(200);
        model.collect()?;
        if model.waiting() == 0 {
            break;
        }
    }
    if model.waiting() > 0 {
        return Err(format!("{} requests are never answered: {:?}", model.waiting(), rig.engine));
    }
    let index = rig.index();
    model.check(&rig.report, &index, |entry| rig.peek(entry))?;
    rig.close();
    Ok(model)
}

fn remount(
    disk: &FaultDisk,
    pools: &Pools,
    random: &mut Random,
    manners: Manners,
    model: &mut Model,
) -> Result<Rig, String> {
    // A crash during the mount, now and then: it must be able to start over.
    if random.chance(20) {
        let copy = disk.copy();
        if let Ok(rig) = Rig::mount(&copy, pools, random.number(), manners) {
            drop(rig);
            copy.cut_power(Cut::Random(random.number()));
            let rig = Rig::mount(&copy, pools, random.number(), manners)
                .map_err(|e| format!("second mount: {e}"))?;
            if !rig.report.is_clean() {
                return Err(format!("after a crash during a mount: {:?}", rig.report));
            }
        }
    }
    let rig = Rig::mount(disk, pools, random.number(), manners).map_err(|e| format!("mount: {e}"))?;
    model.check(&rig.report, &rig.index(), |entry| rig.peek(entry))?;
    Ok(rig)
}

#[cfg(test)]
pub(super) fn action() -> impl Strategy<Value = Action> {
    let length = prop_oneof![1usize..9000, 1usize..9000, 60_000usize..140_000];
    prop_oneof![
        8 => (0u8..24, length).prop_map(|(shard, length)| Action::Put { shard, length }),
        3 => (0u8..24).prop_map(|shard| Action::Delete { shard }),
        8 => (1u8..12, 0u16..400).prop_map(|(rounds, micros)| Action::Turn { rounds, micros }),
        1 => (any::<u8>(), any::<u64>()).prop_map(|(mode, seed)| Action::Crash { mode, seed }),
        1 => Just(Action::Restart),
    ]
}

#[cfg(test)]
proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn random_sequences_with_crashes_agree_with_the_model(
        seed: u64,
        bad: bool,
        actions in prop::collection::vec(action(), 1..250),
    ) {
        let manners = if bad { Manners::BAD } else { Manners::GOOD };
        if let Err(what) = run(&Pools::new(), seed, manners, &actions) {
            return Err(TestCaseError::fail(what));
        }
    }
}

/// A run that fills the drive again and again, so that sealing and reclaiming happen all the time.
fn fill(pools: &Pools, seed: u64, steps: usize) -> u64 {
    let mut random = Random::new(seed);
    let mut actions = Vec::new();
    for _ in 0..steps {
        let shard = random.below(60) as u8;
        actions.push(match random.below(100) {
            0..50 => Action::Put { shard, length: 1 + random.below(150_000) as usize },
            50..62 => Action::Delete { shard },
            62..99 => Action::Turn { rounds: 1 + random.below(30) as u8, micros: random.below(2000) as u16 },
            _ => Action::Crash { mode: random.number() as u8, seed: random.number() },
        });
    }
    let manners = if seed.is_multiple_of(2) { Manners::BAD } else { Manners::GOOD };
    let model = run(pools, seed, manners, &actions).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    model.acknowledged
}

/// Many small runs with many crashes.
pub(super) fn short_runs() {
    let pools = Pools::new();
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let mut actions = Vec::new();
        for _ in 0..60 {
            let shard = random.below(8) as u8;
            actions.push(match random.below(20) {
                0..8 => Action::Put { shard, length: 1 + random.below(30_000) as usize },
                8..11 => Action::Delete { shard },
                11..18 => {
                    Action::Turn { rounds: 1 + random.below(6) as u8, micros: random.below(400) as u16 }
                }
                18 => Action::Restart,
                _ => Action::Crash { mode: random.number() as u8, seed: random.number() },
            });
        }
        let manners = if seed.is_multiple_of(2) { Manners::BAD } else { Manners::GOOD };
        if let Err(what) = run(&pools, seed, manners, &actions) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn short_runs_with_many_crashes_agree_with_the_model() {
    short_runs();
}

#[test]
pub(super) fn long_runs_that_fill_the_drive_agree_with_the_model() {
    let pools = Pools::new();
    let acknowledged: u64 = (0..12).map(|seed| fill(&pools, seed, 1500)).sum();
    println!("{acknowledged} requests acknowledged");
    assert!(acknowledged > 4000, "{acknowledged}: the drive was full most of the time");
}
