//! Shares under a TPM, against `swtpm`.

#[path = "../../../node/tpm/tests/common/mod.rs"]
mod common;

use std::{fs, path::Path};

use common::Emulator;
use holdfast_crypt::Root;
use holdfast_keyring::{HeldShare, Protection, Protector, Seal, ShareStore, StoreError, deal};
use holdfast_model::{ClusterId, RootEpoch, SplitId};
use holdfast_tpm::Tpm;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

fn share(split: u8) -> HeldShare {
    let root = Root::generate(CLUSTER, RootEpoch::new(1));
    deal(&root, SplitId::from_bytes([split; 16]), None, 2, 3).expect("shares").remove(0)
}

fn open(state: &Path, tpm: Tpm) -> ShareStore {
    ShareStore::open(state, CLUSTER, Some(Protector::Tpm(tpm))).expect("a store")
}

#[test]
fn a_copied_disk_yields_no_share_without_its_tpm() {
    let (chip, other, state) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let emulator = Emulator::start(chip.path());
    let store = open(state.path(), emulator.tpm());
    assert_eq!(store.protection(), Protection::Tpm);
    let (one, two) = (share(4), share(5));
    store.add(one.clone()).unwrap();
    store.add(two.clone()).unwrap();
    let path = state.path().join("keys/shares");
    let whole = fs::read(&path).unwrap();

    // With its TPM, after a restart of both.
    drop(emulator);
    let emulator = Emulator::start(chip.path());
    let again = open(state.path(), emulator.tpm());
    assert_eq!(again.shares().unwrap().shares(), [one, two]);

    // With none, with one that is not there, with another one.
    let seal = |store: &ShareStore| match store.seal() {
        Some(Seal::Tpm { why, is_other }) => (why, is_other),
        other => panic!("{other:?}"),
    };
    let none = ShareStore::open(state.path(), CLUSTER, None).unwrap();
    assert!(seal(&none).0.contains("no TPM is configured"));
    assert!(matches!(none.shares(), Err(StoreError::Sealed)));
    let absent = open(state.path(), Tpm::at(&state.path().join("nothing")));
    assert!(seal(&absent).0.contains("there is no TPM at"));
    assert!(!absent.begin_anew().unwrap(), "it may come back");
    let stranger = Emulator::start(other.path());
    let locked = open(state.path(), stranger.tpm());
    let (why, is_other) = seal(&locked);
    assert!(is_other && why.contains("is another one"), "{why}");
    assert!(matches!(locked.add(share(6)), Err(StoreError::Sealed)));
    assert_eq!(fs::read(&path).unwrap(), whole, "refusals change nothing on disk");

    // A node that has the root from its peers is dealt a new share under its new TPM.
    assert!(locked.begin_anew().unwrap());
    let new = share(7);
    locked.add(new.clone()).unwrap();
    assert_eq!(open(state.path(), stranger.tpm()).shares().unwrap().shares(), [new]);
    assert!(seal(&open(state.path(), emulator.tpm())).1);
}

#[test]
fn a_tpm_that_comes_late_is_asked_again() {
    let (chip, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let emulator = Emulator::start(chip.path());
    let share = share(4);
    open(state.path(), emulator.tpm()).add(share.clone()).unwrap();
    drop(emulator);
    fs::remove_file(chip.path().join("sock")).unwrap();
    let store = open(state.path(), Tpm::at(&chip.path().join("sock")));
    assert!(store.seal().is_some());
    let _emulator = Emulator::start(chip.path());
    store.ask_tpm().unwrap();
    assert_eq!(store.shares().unwrap().shares(), [share]);
}
