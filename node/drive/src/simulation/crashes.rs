//! Going through every crash: after each step the disk took, with every subset of the cache of a stated
//! shape, the drive must mount to what had been acknowledged.
//!
//! The disk completes one operation at a time and writes down each sector that reached its cache and each
//! flush. An acknowledgement is seen in the round after the flush that earned it, so the requirement at
//! each step is as strict as it can be.

use holdfast_fault::{Cut, FaultDisk, Manners, Step};

use super::{
    CLUSTER, DRIVE, Pools, Rig, formatted,
    model::{Content, Model, bytes, shard},
    peek,
};
use crate::{
    index::Indexed,
    mount::mount,
    types::{DriveIdentity, MountReport},
};

/// What was acknowledged when the disk had taken so many steps.
struct Acknowledged {
    steps: usize,
    possible: Vec<(u8, Vec<Content>)>,
}

/// Runs `script` step by step and returns the disk as it was, and what was known after each step.
pub(super) struct Recording {
    base: FaultDisk,
    pub(super) steps: Vec<Step>,
    known: Vec<Acknowledged>,
}

pub(super) const SHARDS: u8 = 12;

/// Sectors of the cache at which a crash is tried, of each kind, when there are more.
const POSITIONS_MAX: usize = 6;

pub(super) fn record(
    pools: &Pools,
    base: FaultDisk,
    mut model: Model,
    script: impl FnOnce(&mut Rig, &mut Model, &mut dyn FnMut(&mut Rig, &mut Model)),
) -> Recording {
    let disk = base.copy();
    let base = disk.copy();
    disk.record_history();
    let manners = Manners { single: true, ..Manners::GOOD };
    let mut rig = Rig::mount(&disk, pools, 1, manners).unwrap();
    let mut known = Vec::new();
    let mut note = |rig: &mut Rig, model: &mut Model| {
        model.collect().unwrap();
        let possible = (0..SHARDS).map(|n| (n, model.possible_with_open(n))).collect();
        known.push(Acknowledged { steps: rig.disk.steps(), possible });
    };
    note(&mut rig, &mut model);
    script(&mut rig, &mut model, &mut note);
    note(&mut rig, &mut model);
    Recording { base, steps: disk.history(), known }
}

/// Turns until all requests are answered, noting what is known after every round.
pub(super) fn settle(rig: &mut Rig, model: &mut Model, note: &mut dyn FnMut(&mut Rig, &mut Model)) {
    for _ in 0..10_000 {
        rig.turn(500);
        model.collect().unwrap();
        note(rig, model);
        if model.waiting() == 0 {
            return;
        }
    }
    panic!("requests are never answered");
}

/// Mounts every crash state of the recording; returns how many there were.
pub(super) fn explore(pools: &Pools, recording: &Recording) -> u64 {
    let mut states = 0;
    let disk = recording.base.copy();
    let mut known = recording.known.iter().peekable();
    let mut current = known.next().unwrap();
    for done in 0..=recording.steps.len() {
        while let Some(next) = known.next_if(|k| k.steps <= done) {
            current = next;
        }
        // What was asked for later may have begun: the states after the next note are possible too.
        let allowed = |number: u8| {
            let mut all = current.possible[number as usize].1.clone();
            if let Some(next) = recording.known.iter().find(|k| k.steps > done) {
                all.extend(next.possible[number as usize].1.iter().copied());
            }
            all
        };
        let count = disk.unflushed();
        // All positions in a small cache, some of a large one: most of it is payload.
        let step = count.div_ceil(POSITIONS_MAX).max(1);
        let some = || (done % step..count).step_by(step);
        let mut cuts = vec![Cut::None, Cut::All, Cut::Random(done as u64), Cut::Torn(done as u64)];
        cuts.extend(some().map(Cut::Prefix));
        cuts.extend(some().map(Cut::AllBut));
        cuts.extend(some().map(Cut::Only));
        cuts.extend((0..count.min(6)).flat_map(|a| (a + 1..count.min(6)).map(move |b| Cut::Pair(a, b))));
        for cut in cuts {
            let crashed = disk.copy();
            crashed.cut_power(cut);
            states += 1;
            let mut device = crashed.connect(0, Manners::GOOD);
            let mounted = mount(&mut device, &pools.meta, "crashed", CLUSTER)
                .unwrap_or_else(|e| panic!("step {done}, {cut:?}: {e}"));
            let identity: DriveIdentity = mounted.label.into();
            assert_eq!(identity.drive, DRIVE);
            let index = mounted.state.index.list(None, usize::MAX);
            if let Err(what) = check(&mounted.report, &index, &allowed, |e| peek(&crashed, &identity, e)) {
                panic!(
                    "step {done} of {}, {cut:?} of {count}: {what}\n{:?}",
                    recording.steps.len(),
                    mounted.report
                );
            }
        }
        if let Some(step) = recording.steps.get(done) {
            disk.replay(step);
        }
    }
    states
}

fn check(
    report: &MountReport,
    index: &[Indexed],
    allowed: &dyn Fn(u8) -> Vec<Content>,
    read: impl Fn(&Indexed) -> Result<Vec<u8>, String>,
) -> Result<(), String> {
    if !report.is_clean() {
        return Err("a crash is not damage".to_owned());
    }
    for number in 0..SHARDS {
        let allowed = allowed(number);
        match index.iter().find(|e| e.shard == shard(number)) {
            None if allowed.contains(&None) => {}
            None => return Err(format!("shard {number} is gone; it may be {allowed:?}")),
            Some(entry) => {
                let state = allowed
                    .iter()
                    .flatten()
                    .find(|(g, _, l)| (*g, *l) == (entry.generation.get(), entry.payload_len as usize));
                let Some((_, seed, length)) = state else {
                    return Err(format!("shard {number} is {entry:?}; it may be {allowed:?}"));
                };
                if read(entry)? != bytes(*seed, *length) {
                    return Err(format!("shard {number} has wrong bytes"));
                }
            }
        }
    }
    Ok(())
}

#[test]
pub(super) fn every_crash_of_puts_replacements_and_deletes_keeps_what_was_acknowledged() {
    let pools = Pools::new();
    let recording = record(&pools, formatted(), Model::default(), |rig, model, note| {
        for round in 0..5 {
            for number in 0..7 {
                model.put(rig, number, 3000 + 5000 * usize::from(number));
                if number % 2 == 0 {
                    rig.turn(100);
                    note(rig, model);
                }
            }
            settle(rig, model, note);
            model.delete(rig, round);
            model.put(rig, round + 5, 100);
            model.delete(rig, 4);
            settle(rig, model, note);
        }
    });
    let states = explore(&pools, &recording);
    println!("{} steps, {states} crash states", recording.steps.len());
    assert!(states > 4000, "only {states} crash states");
}

#[cfg_attr(test, test)]
pub(super) fn every_crash_of_sealing_and_reclaiming_keeps_what_was_acknowledged() {
    let pools = Pools::new();
    // A drive with most of its segments used, prepared without recording.
    let base = formatted();
    let mut rig = Rig::mount(&base, &pools, 1, Manners::GOOD).unwrap();
    let mut model = Model::default();
    for round in 0..4 {
        for number in 0..SHARDS {
            model.put(&rig, number, 130_000 + 100 * round);
            settle(&mut rig, &mut model, &mut |_, _| {});
        }
    }
    rig.close();
    drop(rig);
    base.cut_power(Cut::All);
    let recording = record(&pools, base, model, |rig, model, note| {
        for round in 0..3 {
            // Several on their way when a segment is full.
            for number in [0, 3, 6, 9] {
                model.put(rig, number + round, 120_000);
            }
            settle(rig, model, note);
            model.delete(rig, round);
            settle(rig, model, note);
        }
        for _ in 0..400 {
            rig.turn(5000);
            note(rig, model);
        }
        assert!(rig.counters().segments_reclaimed > 0, "nothing was reclaimed: {:?}", rig.counters());
    });
    let states = explore(&pools, &recording);
    println!("{} steps, {states} crash states", recording.steps.len());
    assert!(states > 4000, "only {states} crash states");
}

/// A drive whose first segment is full of the shards 0 to 6.
fn one_full_segment(pools: &Pools) -> (FaultDisk, Model) {
    let disk = formatted();
    let mut rig = Rig::mount(&disk, pools, 1, Manners::GOOD).unwrap();
    let mut model = Model::default();
    for number in 0..7 {
        model.put(&rig, number, 130_000);
        settle(&mut rig, &mut model, &mut |_, _| {});
    }
    rig.close();
    disk.cut_power(Cut::All);
    (disk, model)
}

#[test]
pub(super) fn every_crash_of_freeing_two_segments_keeps_what_was_deleted_deleted() {
    let pools = Pools::new();
    let (base, model) = one_full_segment(&pools);
    let recording = record(&pools, base, model, |rig, model, note| {
        // The tombstones go into the second segment, which fills with what dies there.
        for number in 0..6 {
            model.delete(rig, number);
        }
        for _ in 0..7 {
            model.put(rig, 8, 120_000);
            settle(rig, model, note);
        }
        // Both are dead at the same moment: the first with its last shard, the second when it is sealed.
        model.delete(rig, 6);
        model.put(rig, 8, 120_000);
        settle(rig, model, note);
        model.put(rig, 8, 120_000);
        settle(rig, model, note);
        for _ in 0..60 {
            rig.turn(5000);
            note(rig, model);
        }
        assert!(rig.counters().segments_reclaimed > 1, "{:?}", rig.counters());
    });
    let states = explore(&pools, &recording);
    println!("{} steps, {states} crash states", recording.steps.len());
    assert!(states > 1000, "only {states} crash states");
}

#[cfg_attr(test, test)]
pub(super) fn every_crash_of_freeing_tombstones_keeps_what_was_deleted_deleted() {
    let pools = Pools::new();
    let (base, model) = one_full_segment(&pools);
    let recording = record(&pools, base, model, |rig, model, note| {
        // The first segment stays: six of its shards live. The tombstone of the seventh must outlive the second.
        model.delete(rig, 3);
        for _ in 0..9 {
            model.put(rig, 8, 120_000);
            settle(rig, model, note);
        }
        for _ in 0..60 {
            rig.turn(5000);
            note(rig, model);
        }
        assert!(rig.counters().segments_reclaimed > 0, "{:?}", rig.counters());
    });
    let states = explore(&pools, &recording);
    println!("{} steps, {states} crash states", recording.steps.len());
    assert!(states > 1000, "only {states} crash states");
}
