//! Restarts, replay, images, damage.

use std::{fs, io};

use holdfast_consensus::{Applied, StateMachine};
use holdfast_control::{Command, ControlMachine, Refusal, decode_outcome};

use crate::common::*;

#[test]
fn replicas_agree_and_a_replay_changes_nothing() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Replica::scripted(one.path());
    let digest = first.machine.digest().unwrap();

    let mut second = Replica::open(two.path());
    for command in &script()[..4] {
        second.done(command);
    }
    second.machine.checkpoint(b"four").unwrap();
    for command in &script()[4..7] {
        second.done(command);
    }
    // The process dies without a checkpoint; the log is replayed from the one there is.
    drop(second);
    let mut second = Replica::open(two.path());
    assert_eq!(second.machine.position().as_deref(), Some(&b"four"[..]));
    second.index = 4;
    for command in &script()[4..] {
        second.done(command);
    }
    assert_eq!(second.machine.digest().unwrap(), digest);
    assert_eq!(second.reader.view().unwrap(), first.reader.view().unwrap());
}

#[test]
fn an_image_carries_the_whole_state_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = Replica::scripted(&dir.path().join("a"));
    let image = dir.path().join("image");
    source.machine.snapshot(&image).unwrap();
    let mut target = Replica::open(&dir.path().join("b"));
    let damaged = dir.path().join("damaged");
    let mut bytes = fs::read(&image).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let error = target.machine.install(&damaged, b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(target.reader.view().unwrap().cluster.is_none());
    assert_eq!(target.machine.position(), None);
    target.machine.install(&image, b"position").unwrap();
    assert_eq!(target.machine.position().as_deref(), Some(&b"position"[..]));
    assert_eq!(target.machine.digest().unwrap(), source.machine.digest().unwrap());
    assert_eq!(target.reader.view().unwrap(), source.reader.view().unwrap());
    target.machine.checkpoint(b"next").unwrap();
    let again = ControlMachine::open(&dir.path().join("b"), [0; 16]).unwrap().0;
    assert_eq!(again.position().as_deref(), Some(&b"next"[..]));
}

#[test]
fn a_state_that_was_put_aside_comes_again_out_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(&dir.path().join("control"));
    let (digest, view) = (replica.machine.digest().unwrap(), replica.reader.view().unwrap());
    replica.machine.discard().unwrap();
    assert!(replica.reader.view().unwrap().cluster.is_none() && replica.machine.position().is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing of it is left");
    replica.index = 0;
    for command in &script() {
        replica.done(command);
    }
    assert_eq!((replica.machine.digest().unwrap(), replica.reader.view().unwrap()), (digest, view));
    drop(replica);
    assert_eq!(Replica::open(&dir.path().join("control")).machine.digest().unwrap(), digest);
}

#[test]
fn a_missing_or_older_file_is_damage_and_not_a_new_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(&init());
    replica.machine.checkpoint(b"one").unwrap();
    let state = fs::read_to_string(dir.path().join("current")).unwrap();
    let file = dir.path().join(state.trim()).join("control.sqlite");
    let old = fs::read(&file).unwrap();
    replica.done(&tenant(1, "demo"));
    replica.machine.checkpoint(b"two").unwrap();
    drop(replica);
    for damage in [None, Some(old.as_slice()), Some(&[]), Some(&[7; 8192])] {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(holdfast_catalog::sqlite::beside(&file, suffix));
        }
        if let Some(bytes) = damage {
            fs::write(&file, bytes).unwrap();
        }
        let error = ControlMachine::open(dir.path(), [7; 16]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
}

#[test]
fn malformed_commands_are_refused_and_unknown_versions_stop_the_replica() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    let digest = replica.machine.digest().unwrap();
    let good = tenant(5, "fifth").encode();
    let run = |replica: &mut Replica, index, commands: &[bytes::Bytes]| {
        replica.machine.apply(&[Applied { index, commands }])
    };
    let answers = run(&mut replica, 50, &[good.slice(..good.len() - 1)]).unwrap();
    assert!(matches!(decode_outcome(&answers[0][0]).unwrap(), Err(Refusal::Invalid(_))));
    let newer = bytes::Bytes::from([&[good[0] + 1], &good[1..]].concat());
    assert!(run(&mut replica, 51, &[good.clone(), newer]).is_err());
    assert_eq!(replica.machine.digest().unwrap(), digest, "nothing of the entry is kept");
    run(&mut replica, 51, &[good]).unwrap();
    assert_eq!(replica.reader.view().unwrap().tenants.len(), 3);
    assert!(Command::decode(&[]).is_err());
}
