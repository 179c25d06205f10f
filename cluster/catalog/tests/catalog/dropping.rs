//! A partition whose tenant is destroyed ends at one entry of the log, and leaves no file.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use holdfast_catalog::{CatalogMachine, ReadError, Refusal, Response};
use holdfast_consensus::StateMachine;

use crate::common::*;

fn files(dir: &Path) -> Vec<String> {
    let state = dir.join("s0000000001");
    let mut names: Vec<String> = std::fs::read_dir(state)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('p'))
        .collect();
    names.sort();
    names
}

#[test]
fn a_dropped_partition_is_gone_at_once_and_its_files_with_the_next_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let reader = replica.machine.reader();
    replica.machine.checkpoint(b"before").unwrap();
    let drop = command(9, drop_partition(PARTITION));
    for index in [9, 10] {
        let outcome = apply(&mut replica.machine, index, std::slice::from_ref(&drop)).remove(0);
        assert_eq!(outcome, Ok(Response::PartitionDropped));
    }
    assert!(matches!(reader.partition(PARTITION), Err(ReadError::NoSuchPartition(_))));
    assert!(reader.partitions().is_empty());
    let late = command(11, put("late", 9, 1, inline("x")));
    assert!(matches!(apply(&mut replica.machine, 11, &[late])[0], Err(Refusal::NoSuchPartition(_))));
    assert!(!files(dir.path()).is_empty(), "a crash now replays the log onto what was checkpointed");
    let image = dir.path().join("image");
    replica.machine.snapshot(&image).unwrap();
    replica.machine.checkpoint(b"after").unwrap();
    assert!(files(dir.path()).is_empty(), "{:?}", files(dir.path()));
    drop_machine(replica);
    let machine = CatalogMachine::open(dir.path(), keys()).unwrap();
    assert!(machine.reader().partitions().is_empty());
}

#[test]
fn a_crash_after_the_drop_or_after_its_checkpoint_leaves_no_partition_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.machine.checkpoint(b"before").unwrap();
    let saved = tempfile::tempdir().unwrap();
    for name in files(dir.path()) {
        std::fs::copy(dir.path().join("s0000000001").join(&name), saved.path().join(&name)).unwrap();
    }
    let drop = command(9, drop_partition(PARTITION));
    apply(&mut replica.machine, 9, std::slice::from_ref(&drop)).remove(0).unwrap();
    drop_machine(replica);

    // Before the checkpoint: the files are there, the key is gone meanwhile, and the log is replayed.
    let keys = keys();
    keys.destroyed.store(true, Ordering::SeqCst);
    let mut machine = CatalogMachine::open(dir.path(), Arc::clone(&keys) as _).unwrap();
    assert_eq!(machine.reader().partitions().len(), 1);
    let refused = apply(&mut machine, 8, &[command(8, put("k", 9, 1, inline("x")))]).remove(0);
    assert!(matches!(refused, Err(Refusal::NoSuchPartition(_))), "{refused:?}");
    apply(&mut machine, 9, &[drop]).remove(0).unwrap();
    machine.checkpoint(b"after").unwrap();
    drop_machine(machine);

    // After the checkpoint, before the files went.
    for name in std::fs::read_dir(saved.path()).unwrap() {
        let name = name.unwrap().file_name();
        std::fs::copy(saved.path().join(&name), dir.path().join("s0000000001").join(&name)).unwrap();
    }
    let mut machine = CatalogMachine::open(dir.path(), crate::common::keys()).unwrap();
    assert!(machine.reader().partitions().is_empty() && files(dir.path()).is_empty());
    machine.checkpoint(b"later").unwrap();
}

fn drop_machine<T>(machine: T) {
    drop(machine);
}

#[test]
fn a_partition_that_begins_anew_is_as_one_that_was_just_made() {
    let (used, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut used = Replica::with_bucket(used.path());
    let before = used.reader();
    for number in 1..40 {
        let body = if number % 2 == 0 { inline("x") } else { stripes(number * 10..number * 10 + 3, 100) };
        used.done(put(&format!("key-{}", number % 7), number, 300, body));
    }
    used.done(create_upload("parts", 1));
    used.machine.checkpoint(b"kept").unwrap();
    used.done(delete("key-1"));
    used.machine.empty_for_simulation(50).unwrap();

    let mut new = CatalogMachine::open(fresh.path(), keys()).unwrap();
    apply(&mut new, 50, &[command(50, create_partition(PARTITION))]).remove(0).unwrap();
    assert_eq!(digests(&used.machine.reader()), digests(&new.reader()));
    let ops = [create_bucket(1, "photos"), put("key-1", 9, 300, stripes(10..13, 100)), delete("key-1")];
    for (index, op) in (51..).zip(ops) {
        let command = [command(index, op)];
        assert_eq!(apply(&mut used.machine, index, &command), apply(&mut new, index, &command));
        assert_eq!(digests(&used.machine.reader()), digests(&new.reader()));
    }
    assert_eq!(all_garbage(&before), all_garbage(&new.reader().partition(PARTITION).unwrap()));
}
