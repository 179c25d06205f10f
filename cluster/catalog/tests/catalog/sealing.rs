//! What is a tenant's is on the disk only sealed, and a key that is not here yet is waited for.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use holdfast_catalog::{
    BucketChange, CatalogMachine, Command, DocumentKind, ObjectChange, Op, ReadError, Refusal, SetObject,
};
use holdfast_consensus::{Applied, StateMachine};
use holdfast_model::UnixMillis;

use crate::common::*;

const PLANTED: [&str; 4] =
    ["bucketplantedname", "key-planted-name", "planted-tag-text", "planted-policy-text"];

/// A replica with something planted in every kind of place, and the commands that did it.
fn planted(dir: &Path, keys: Arc<TestKeys>) -> (CatalogMachine, Vec<bytes::Bytes>) {
    let mut machine = CatalogMachine::open(dir, keys).unwrap();
    let tags = ObjectChange::Tags(PLANTED[2].into());
    let policy = BucketChange::Document {
        kind: DocumentKind::Policy,
        id: String::new(),
        body: Some(PLANTED[3].into()),
    };
    let mut ops = vec![
        create_partition(PARTITION),
        create_bucket(1, PLANTED[0]),
        Op::SetBucket { bucket: bucket_id(1), change: policy },
    ];
    ops.extend((0..200).map(|n| put(&format!("{}/{n}", PLANTED[1]), n + 1, 1, inline("x"))));
    ops.push(Op::SetObject(SetObject {
        bucket: bucket_id(1),
        key: format!("{}/7", PLANTED[1]),
        version: None,
        change: tags,
    }));
    let commands: Vec<bytes::Bytes> = ops.into_iter().map(|op| command(1, op)).collect();
    assert!(apply(&mut machine, 1, &commands).iter().all(Result::is_ok));
    (machine, commands)
}

fn hits(bytes: &[u8]) -> Vec<&'static str> {
    PLANTED
        .into_iter()
        .chain(["SQLite format", "CREATE TABLE"])
        .filter(|needle| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
        .collect()
}

fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[test]
fn names_tags_and_documents_are_in_no_file_image_or_command() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, commands) = planted(dir.path(), keys());
    machine.snapshot(&dir.path().join("image")).unwrap();
    let check = || {
        for file in files_below(dir.path()).iter().filter(|file| !file.ends_with("group.sqlite")) {
            assert_eq!(hits(&fs::read(file).unwrap()), [""; 0], "{}", file.display());
        }
    };
    check();
    machine.checkpoint(b"p").unwrap();
    check();
    assert!(files_below(dir.path()).iter().any(|file| file.ends_with("p1.sqlite")));
    for command in &commands {
        assert_eq!(hits(command), [""; 0]);
    }
    // The search finds what is in the clear.
    let clear = Command {
        partition: PARTITION,
        at: UnixMillis::new(1),
        request: None,
        op: create_bucket(1, PLANTED[0]),
    };
    assert_eq!(hits(&clear.encode()), [PLANTED[0]]);
}

#[test]
fn a_command_in_the_clear_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let clear =
        Command { partition: PARTITION, at: UnixMillis::new(1), request: None, op: create_bucket(2, "c") };
    assert!(matches!(apply(&mut replica.machine, 9, &[clear.encode()])[0], Err(Refusal::Invalid(_))));
    // So is one that was sealed for another partition, or under another key.
    let elsewhere = for_partition(2, 9, create_bucket(2, "c"));
    let mut moved = elsewhere.to_vec();
    moved[1] = 1;
    assert!(matches!(apply(&mut replica.machine, 10, &[moved.into()])[0], Err(Refusal::Invalid(_))));
}

#[test]
fn a_locked_replica_is_not_damaged_and_applies_once_its_key_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _) = planted(dir.path(), keys());
    machine.checkpoint(b"p").unwrap();
    let digest = digests(&machine.reader());
    drop(machine);

    let late = TestKeys::with(0, 0);
    let mut machine = CatalogMachine::open(dir.path(), Arc::clone(&late) as _).unwrap();
    let reader = machine.reader();
    assert!(matches!(reader.partition(PARTITION), Err(ReadError::Locked(_))));
    assert_eq!(reader.identity(PARTITION).unwrap().partition, PARTITION);
    assert_eq!(reader.partitions().len(), 1);
    assert_eq!(machine.position().unwrap(), b"p");
    let image = dir.path().join("image");
    assert_eq!(machine.snapshot(&image).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // Entries that concern no locked partition go on, and so do checkpoints.
    machine.apply(&[Applied { index: 2, commands: &[] }]).unwrap();
    machine.checkpoint(b"q").unwrap();

    let more = command(3, put("more", 1000, 1, inline("x")));
    let applying = std::thread::spawn(move || {
        let outcome = apply(&mut machine, 3, &[more]).remove(0);
        (machine, outcome)
    });
    std::thread::sleep(Duration::from_millis(150));
    assert!(!applying.is_finished(), "it waits for the key");
    late.set(1, 1);
    let (machine, outcome) = applying.join().unwrap();
    outcome.unwrap();
    assert_ne!(digests(&reader), digest);
    assert!(reader.partition(PARTITION).unwrap().head_object(PLANTED[0], "more", None).is_ok());
    drop(machine);

    // A node that stops while it waits stops.
    let never = TestKeys::with(0, 0);
    let mut machine = CatalogMachine::open(dir.path(), Arc::clone(&never) as _).unwrap();
    never.closed.store(true, Ordering::SeqCst);
    let commands = [command(4, delete("more"))];
    let error = machine.apply(&[Applied { index: 4, commands: &commands }]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
}

#[test]
fn an_image_installed_on_a_locked_node_opens_when_the_key_comes() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut machine, _) = planted(dir.path(), keys());
    let image = dir.path().join("image");
    machine.snapshot(&image).unwrap();
    let late = TestKeys::with(0, 0);
    let mut locked = CatalogMachine::open(other.path(), Arc::clone(&late) as _).unwrap();
    locked.install(&image, b"p").unwrap();
    assert!(matches!(locked.reader().partition(PARTITION), Err(ReadError::Locked(_))));
    late.set(1, 1);
    apply(&mut locked, 2, &[command(2, delete("nothing"))]);
    apply(&mut machine, 2, &[command(2, delete("nothing"))]);
    assert_eq!(digests(&locked.reader()), digests(&machine.reader()));
}

#[test]
fn a_new_version_of_the_key_wraps_files_anew_and_old_commands_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let rotating = TestKeys::with(1, 1);
    let (mut machine, _) = planted(dir.path(), Arc::clone(&rotating));
    machine.checkpoint(b"p").unwrap();
    rotating.set(1, 2);
    let new = Command {
        partition: PARTITION,
        at: UnixMillis::new(1),
        request: None,
        op: put("new", 500, 1, inline("x")),
    };
    let commands = [command(2, put("old", 501, 1, inline("x"))), new.seal(&seal(2))];
    assert!(apply(&mut machine, 2, &commands).iter().all(Result::is_ok));
    machine.checkpoint(b"q").unwrap();
    let digest = digests(&machine.reader());
    drop(machine);
    // The first version is gone: the file opens with the second, and only with it.
    let machine = CatalogMachine::open(dir.path(), TestKeys::with(2, 2)).unwrap();
    assert_eq!(digests(&machine.reader()), digest);
    drop(machine);
    let machine = CatalogMachine::open(dir.path(), TestKeys::with(1, 1)).unwrap();
    assert!(matches!(machine.reader().partition(PARTITION), Err(ReadError::Locked(_))));
}

#[test]
fn commands_under_a_destroyed_key_are_refused_and_stop_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, _) = planted(dir.path(), keys());
    machine.checkpoint(b"p").unwrap();
    drop(machine);
    let gone = keys();
    gone.destroyed.store(true, Ordering::SeqCst);
    let mut machine = CatalogMachine::open(dir.path(), gone).unwrap();
    let refused = apply(&mut machine, 2, &[command(2, delete("k"))]);
    assert_eq!(refused, [Err(Refusal::NoSuchPartition(PARTITION))]);
    // Other replicas can still be filled from this one.
    let (image, other) = (dir.path().join("image"), tempfile::tempdir().unwrap());
    machine.snapshot(&image).unwrap();
    let mut filled = CatalogMachine::open(other.path(), keys()).unwrap();
    filled.install(&image, b"p").unwrap();
    assert_eq!(filled.reader().partitions(), []);
}
