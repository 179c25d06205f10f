//! Digests of the whole state: equal on replicas that applied the same, and a differing one shows.

use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_catalog::{CatalogMachine, DIGEST_ENTRIES_MIN, StateDigest};
use holdfast_consensus::{Applied, StateMachine};

use crate::common::*;

/// Waits for the digest after entry [`DIGEST_ENTRIES_MIN`]: it is taken on a thread of its own.
fn digest_of(machine: &CatalogMachine) -> StateDigest {
    let begun = Instant::now();
    loop {
        if let Some(digest) = machine.reader().state_digests().first() {
            return *digest;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no digest came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn log() -> Vec<Vec<Bytes>> {
    let mut log = vec![vec![command(1, create_partition(PARTITION)), command(1, create_bucket(1, "b"))]];
    // One entry more than a digest covers: it is of its moment, whatever was applied since.
    log.extend((2..DIGEST_ENTRIES_MIN + 2).map(|index| {
        let body = stripes(index * 2..index * 2 + 2, 10);
        vec![command(index, put(&format!("{}", index % 50), index, 20, body))]
    }));
    log
}

/// Applies `log` in batches of so many entries.
fn applied(dir: &std::path::Path, log: &[Vec<Bytes>], batch: usize) -> CatalogMachine {
    let mut machine = CatalogMachine::open(dir, keys()).unwrap();
    let entries: Vec<Applied<'_>> =
        (1..).zip(log).map(|(index, commands)| Applied { index, commands }).collect();
    for batch in entries.chunks(batch) {
        machine.apply(batch).unwrap();
    }
    machine
}

#[test]
fn replicas_take_equal_digests_at_the_same_entry_however_entries_came() {
    let dir = tempfile::tempdir().unwrap();
    let log = log();
    let one = applied(&dir.path().join("one"), &log, 1);
    let many = applied(&dir.path().join("many"), &log, 1000);
    assert_eq!(digest_of(&one).index, DIGEST_ENTRIES_MIN);
    assert_eq!(digest_of(&one), digest_of(&many));
}

#[test]
fn replayed_entries_give_no_digest_of_a_state_that_is_ahead_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let log = log();
    digest_of(&applied(dir.path(), &log, 10));
    // Not checkpointed: the log is replayed from its beginning into files that hold all of it.
    let again = applied(dir.path(), &log, 10);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(again.reader().state_digests(), []);
}

#[test]
fn one_command_more_or_less_shows_and_a_discarded_state_is_filled_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = log();
    let good = applied(&dir.path().join("good"), &log, 10);
    let lost = std::mem::take(&mut log[100]);
    let mut bad = applied(&dir.path().join("bad"), &log, 10);
    log[100] = lost;
    let (expected, found) = (digest_of(&good), digest_of(&bad));
    assert_eq!(expected.index, found.index);
    assert_ne!(expected.sha256, found.sha256);

    let reader = bad.reader();
    bad.checkpoint(b"bad").unwrap();
    bad.discard().unwrap();
    assert_eq!((bad.position(), reader.partitions(), reader.state_digests()), (None, vec![], vec![]));
    let entries: Vec<Applied<'_>> =
        (1..).zip(&log).map(|(index, commands)| Applied { index, commands }).collect();
    bad.apply(&entries).unwrap();
    assert_eq!(digest_of(&bad), expected);
    assert_eq!(digests(&reader), digests(&good.reader()));
}
