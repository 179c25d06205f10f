//! Crashes, images and files that went missing or back in time.

use std::{fs, io, path::Path};

use bytes::Bytes;
use holdfast_catalog::{CatalogMachine, ListQuery, Op, ReadError, Response};
use holdfast_consensus::{Applied, StateMachine};

use crate::common::*;

fn state_file(dir: &Path, name: &str) -> std::path::PathBuf {
    let state = fs::read_to_string(dir.join("current")).unwrap();
    dir.join(state.trim()).join(name)
}

#[test]
fn what_a_checkpoint_covered_is_there_without_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    assert_eq!(replica.machine.position(), None);
    replica.done(put("k", 1, 30, stripes(1..4, 10)));
    replica.machine.checkpoint(b"position").unwrap();
    let digest = digests(&replica.machine.reader());
    drop(replica);
    let machine = CatalogMachine::open(dir.path(), keys()).unwrap();
    assert_eq!(machine.position().unwrap(), b"position");
    assert_eq!(digests(&machine.reader()), digest);
}

#[test]
fn a_batch_that_failed_half_way_is_applied_again_as_if_it_had_not_been() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut replica, mut whole) = (Replica::with_bucket(dir.path()), Replica::with_bucket(other.path()));
    let next = replica.index + 1;
    let fine = [command(next, put("k", 1, 1, inline("x")))];
    let of_a_later_release = [Bytes::from_static(&[0xfa, 1, 2, 3])];
    let entries = [
        Applied { index: next, commands: &fine },
        Applied { index: next + 1, commands: &of_a_later_release },
    ];
    let error = replica.machine.apply(&entries).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    assert!(replica.reader().head_object("b", "k", None).is_err(), "nothing of it is seen");
    assert!(apply(&mut replica.machine, next, &fine)[0].is_ok());
    whole.done(put("k", 1, 1, inline("x")));
    assert_eq!(digests(&replica.machine.reader()), digests(&whole.machine.reader()));
}

#[test]
fn a_partition_whose_making_failed_half_way_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    // Files of a key that nobody has any more.
    for name in ["p1.sqlite", "p1.key"] {
        fs::write(state_file(dir.path(), name), [0x5a; 8192]).unwrap();
    }
    replica.expect(create_partition(PARTITION), Response::PartitionCreated);
    replica.machine.checkpoint(b"position").unwrap();
    drop(replica);
    let machine = CatalogMachine::open(dir.path(), keys()).unwrap();
    assert!(machine.reader().partition(PARTITION).is_ok());
}

#[test]
fn an_image_carries_the_state_to_another_replica() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 30, stripes(1..4, 10)));
    replica.done(create_upload("u", 1));
    let image = dir.path().join("image");
    replica.machine.snapshot(&image).unwrap();
    // What comes after the image is not in it.
    let digest = digests(&replica.machine.reader());
    replica.done(put("later", 2, 1, inline("x")));

    let mut fresh = CatalogMachine::open(other.path(), keys()).unwrap();
    let reader = fresh.reader();
    assert!(matches!(reader.partition(PARTITION), Err(ReadError::NoSuchPartition(_))));
    fresh.install(&image, b"there").unwrap();
    assert_eq!(fresh.position().unwrap(), b"there");
    assert_eq!(digests(&reader), digest);
    // It goes on from there, as the first one did, also after a restart.
    apply(&mut fresh, replica.index, &[command(replica.index, put("later", 2, 1, inline("x")))]);
    assert_eq!(digests(&reader), digests(&replica.machine.reader()));
    drop(fresh);
    let fresh = CatalogMachine::open(other.path(), keys()).unwrap();
    assert_eq!(digests(&fresh.reader()), digests(&replica.machine.reader()));
    assert_eq!(fresh.position().unwrap(), b"there");
}

#[test]
fn a_reader_goes_on_while_an_image_is_installed_under_it() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 1, inline("new")));
    let image = dir.path().join("image");
    replica.machine.snapshot(&image).unwrap();
    let mut second = Replica::with_bucket(other.path());
    second.done(put("old", 1, 1, inline("old")));
    let held = second.reader();
    assert!(held.head_object("b", "old", None).is_ok());
    second.machine.install(&image, b"p").unwrap();
    // The handle in use still shows the state it was made for; the next one the new state.
    assert!(held.head_object("b", "old", None).is_ok());
    assert!(second.reader().head_object("b", "k", None).is_ok());
    assert!(matches!(second.reader().head_object("b", "old", None), Err(ReadError::NoSuchKey)));
}

#[test]
fn what_is_written_anew_after_a_failed_flush_is_ahead_of_its_position_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.machine.checkpoint(b"there").unwrap();
    replica.done(put("k", 1, 1, inline("later than the checkpoint")));
    let (image, digest) = (dir.path().join("image"), digests(&replica.machine.reader()));
    replica.machine.snapshot(&image).unwrap();
    replica.machine.install(&image, b"there").unwrap();
    assert_eq!(digests(&replica.machine.reader()), digest);
    replica.done(put("k2", 2, 1, inline("it goes on")));
    let digest = digests(&replica.machine.reader());
    drop(replica);
    let machine = CatalogMachine::open(dir.path(), keys()).unwrap();
    assert_eq!((machine.position().unwrap(), digests(&machine.reader())), (b"there".to_vec(), digest));
}

#[test]
fn a_damaged_image_leaves_the_old_state() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 1, inline("x")));
    let image = dir.path().join("image");
    replica.machine.snapshot(&image).unwrap();
    let good = fs::read(&image).unwrap();

    let mut second = Replica::with_bucket(other.path());
    second.machine.checkpoint(b"old").unwrap();
    let digest = digests(&second.machine.reader());
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [flipped, good[..good.len() - 1].to_vec(), b"nonsense".to_vec(), Vec::new()] {
        fs::write(&image, bad).unwrap();
        let error = second.machine.install(&image, b"new").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert_eq!(digests(&second.machine.reader()), digest);
    }
    second.done(put("k", 2, 1, inline("still working")));
    drop(second);
    assert_eq!(CatalogMachine::open(other.path(), keys()).unwrap().position().unwrap(), b"old");
    // The good one is accepted after all of that.
    fs::write(&image, good).unwrap();
    let mut machine = CatalogMachine::open(other.path(), keys()).unwrap();
    machine.install(&image, b"new").unwrap();
    assert_eq!(digests(&machine.reader()), digests(&replica.machine.reader()));
}

#[test]
fn a_missing_or_older_file_is_damage_and_not_an_empty_catalog() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.machine.checkpoint(b"one").unwrap();
    let file = state_file(dir.path(), "p1.sqlite");
    let old = fs::read(&file).unwrap();
    replica.done(put("k", 1, 1, inline("x")));
    replica.machine.checkpoint(b"two").unwrap();
    drop(replica);
    let new = fs::read(&file).unwrap();
    for damage in [None, Some(old.as_slice()), Some(&[]), Some(&[7; 8192])] {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(holdfast_catalog::sqlite::beside(&file, suffix));
        }
        if let Some(bytes) = damage {
            fs::write(&file, bytes).unwrap();
        }
        let error = CatalogMachine::open(dir.path(), keys()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
    fs::write(&file, new).unwrap();
    CatalogMachine::open(dir.path(), keys()).unwrap();
}

#[test]
fn a_file_left_half_made_by_a_crash_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.machine.checkpoint(b"before").unwrap();
    drop(replica);
    fs::write(state_file(dir.path(), "p1.sqlite"), b"").unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(create_partition(PARTITION));
    replica.done(create_bucket(1, "b"));
    assert_eq!(replica.reader().list_buckets().unwrap().len(), 1);
}

#[test]
fn reads_go_on_beside_writes_and_see_whole_entries() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let reader = replica.machine.reader();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let partition = reader.partition(PARTITION).unwrap();
                    let page =
                        partition.list("b", &ListQuery { limit: 1000, ..ListQuery::default() }).unwrap();
                    // Every entry puts two keys or removes two.
                    assert!(page.objects.len().is_multiple_of(2), "{}", page.objects.len());
                }
            });
        }
        for n in 0..200u64 {
            let (a, b) = (format!("a{}", n % 7), format!("b{}", n % 7));
            let ops: Vec<Op> = match n % 3 {
                2 => vec![delete(&a), delete(&b)],
                _ => vec![put(&a, 2 * n, 1, inline("x")), put(&b, 2 * n + 1, 1, inline("x"))],
            };
            replica.apply_all(ops);
            if n.is_multiple_of(20) {
                replica.machine.checkpoint(b"p").unwrap();
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn files_that_lost_different_amounts_are_replayed_to_the_same_state() {
    const PARTITIONS: u64 = 4;
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("whole");
    let mut machine = CatalogMachine::open(&dir, keys()).unwrap();
    let first: Vec<Bytes> = (1..=PARTITIONS)
        .flat_map(|p| [create_partition(PARTITION), create_bucket(1, "b")].map(|op| for_partition(p, 1, op)))
        .collect();
    // Every entry touches every partition; keys differ, so that nothing is hidden by a later write.
    let log: Vec<Vec<Bytes>> = std::iter::once(first)
        .chain((2..40u64).map(|index| {
            let put = || put(&format!("{index}"), index, 30, stripes(index * 3..index * 3 + 3, 10));
            (1..=PARTITIONS).map(|p| for_partition(p, index, put())).collect()
        }))
        .collect();
    let entries: Vec<_> =
        log.iter().enumerate().map(|(i, c)| Applied { index: i as u64 + 1, commands: c }).collect();
    for entry in &entries[..10] {
        machine.apply(std::slice::from_ref(entry)).unwrap();
    }
    machine.checkpoint(b"ten").unwrap();
    for entry in &entries[10..] {
        machine.apply(std::slice::from_ref(entry)).unwrap();
    }
    let cut = root.path().join("cut");
    copy_dir(&dir, &cut, &|name| match name {
        "p1" => Some(0.0),
        "p2" => Some(0.4),
        "p3" => Some(0.9),
        _ => None,
    });
    let mut machine_after = CatalogMachine::open(&cut, keys()).unwrap();
    let left: Vec<u64> = digests(&machine_after.reader()).iter().map(|d| d.next_index).collect();
    assert!(left[0] == 11 && left[0] < left[1] && left[1] < left[2] && left[3] == 40, "{left:?}");
    assert_eq!(machine_after.position().unwrap(), b"ten");
    machine_after.apply(&entries[10..]).unwrap();
    assert_eq!(digests(&machine_after.reader()), digests(&machine.reader()));

    // An image carries all of them.
    let image = root.path().join("image");
    machine.snapshot(&image).unwrap();
    let mut restored = CatalogMachine::open(&root.path().join("restored"), keys()).unwrap();
    restored.install(&image, b"p").unwrap();
    assert_eq!(digests(&restored.reader()), digests(&machine.reader()));
    assert_eq!(restored.reader().partitions().len() as u64, PARTITIONS);
}
