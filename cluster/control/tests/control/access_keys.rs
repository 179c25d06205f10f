//! Bounds of access keys, and addresses of journals.

use std::path::Path;

use holdfast_control::{
    AccessKeyCommand, Command, FEATURE_LEVEL_ACCESS_KEYS, JOURNAL_ADDRESS_SIZE, KeyBounds, Refusal,
    SEALED_POLICY_SIZE_MAX,
};

use crate::common::*;

fn create(seed: u8, access_key: &str, bounds: KeyBounds) -> Command {
    Command::AccessKeys(AccessKeyCommand::Create {
        tenant: tenant_id(seed),
        access_key: access_key.into(),
        sealed_secret: vec![seed],
        bounds,
        at: NOW,
    })
}

fn set(seed: u8, access_key: &str, bounds: KeyBounds) -> Command {
    Command::AccessKeys(AccessKeyCommand::SetBounds {
        tenant: tenant_id(seed),
        access_key: access_key.into(),
        bounds,
    })
}

fn reserve(seed: u8, letter: &str) -> Command {
    Command::AccessKeys(AccessKeyCommand::ReserveJournal {
        tenant: tenant_id(seed),
        address: letter.repeat(JOURNAL_ADDRESS_SIZE),
    })
}

fn bounds() -> KeyBounds {
    KeyBounds { expires: Some(LATER), policy: Some(b"sealed".to_vec()) }
}

/// A cluster with the tenants 1 and 2.
fn raised(dir: &Path) -> Replica {
    let mut replica = Replica::open(dir);
    replica.done(&init());
    raise(&mut replica, FEATURE_LEVEL_ACCESS_KEYS);
    replica.done(&tenant(1, "demo"));
    replica.done(&tenant(2, "other"));
    replica
}

#[test]
fn nothing_of_it_is_written_before_every_node_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(&init());
    replica.done(&tenant(1, "demo"));
    let needs = Refusal::FeatureLevel { needs: FEATURE_LEVEL_ACCESS_KEYS, has: 1 };
    for command in [create(1, "NEW", bounds()), set(1, "KEY1", bounds()), reserve(1, "a")] {
        assert_eq!(replica.run(&command), Err(needs.clone()));
    }
}

#[test]
fn a_key_is_bounded_from_the_beginning_or_later_and_freed_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = raised(dir.path());
    for _ in 0..2 {
        replica.done(&create(1, "NEW", bounds()));
    }
    replica.done(&set(1, "KEY1", bounds()));
    let keys = replica.reader.view().unwrap().access_keys;
    assert_eq!((&keys["NEW"].bounds, &keys["KEY1"].bounds), (&bounds(), &bounds()));
    assert_eq!(keys["KEY2"].bounds, KeyBounds::default());
    // Making it again is no way to free it.
    assert!(matches!(replica.run(&create(2, "NEW", KeyBounds::default())), Err(Refusal::NameTaken { .. })));
    replica.done(&create(1, "NEW", KeyBounds::default()));
    assert_eq!(replica.reader.view().unwrap().access_keys["NEW"].bounds, bounds());
    replica.done(&set(1, "NEW", KeyBounds::default()));
    assert_eq!(replica.reader.view().unwrap().access_keys["NEW"].bounds, KeyBounds::default());
    replica.done(&Command::DeleteAccessKey { access_key: "KEY1".into() });
    assert!(matches!(replica.run(&set(1, "KEY1", bounds())), Err(Refusal::NotFound { .. })));
}

#[test]
fn keys_of_another_tenant_and_policies_that_are_too_large_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = raised(dir.path());
    assert!(matches!(replica.run(&set(2, "KEY1", bounds())), Err(Refusal::NotFound { .. })));
    assert!(matches!(replica.run(&create(9, "NEW", bounds())), Err(Refusal::NotFound { .. })));
    let large = KeyBounds { expires: None, policy: Some(vec![0; SEALED_POLICY_SIZE_MAX + 1]) };
    let limit = Err(Refusal::TooLarge { limit: SEALED_POLICY_SIZE_MAX as u64 });
    assert_eq!(replica.run(&set(1, "KEY1", large.clone())), limit);
    assert_eq!(replica.run(&create(1, "NEW", large)), limit);
    assert!(!replica.reader.view().unwrap().access_keys.contains_key("NEW"));
}

#[test]
fn a_journal_address_is_one_tenant_s_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = raised(dir.path());
    let address = |replica: &Replica, seed| {
        replica.reader.view().unwrap().tenants[&tenant_id(seed)].journal_address.clone()
    };
    assert_eq!(address(&replica, 1), None);
    replica.done(&reserve(1, "a"));
    replica.done(&reserve(1, "b"));
    assert_eq!(address(&replica, 1), Some("a".repeat(JOURNAL_ADDRESS_SIZE)));
    assert!(matches!(replica.run(&reserve(2, "a")), Err(Refusal::NameTaken { .. })));
    assert!(matches!(replica.run(&reserve(2, "A")), Err(Refusal::Invalid(_))));
    assert!(matches!(replica.run(&reserve(2, "ab")), Err(Refusal::Invalid(_))));
    assert!(matches!(replica.run(&reserve(9, "c")), Err(Refusal::NotFound { .. })));
    replica.done(&reserve(2, "7"));
    assert_eq!(address(&replica, 2), Some("7".repeat(JOURNAL_ADDRESS_SIZE)));
}
