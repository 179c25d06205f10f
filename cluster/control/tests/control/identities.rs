//! Accounts and identities: what is refused, and that a refusal writes nothing.

use holdfast_control::{Command, IdentityChange, IdentityWrite, KeyWrite, Refusal, Then};

use crate::common::*;

const USER: u8 = 0;

fn change(account: u64, rows: Vec<IdentityWrite>, keys: Vec<KeyWrite>) -> Command {
    Command::ChangeIdentities(IdentityChange { tenant: tenant_id(1), account, rows, keys, at: NOW })
}

fn put(name: &str, expected: Option<u64>, version: u64) -> IdentityWrite {
    let then = Then::Put { version, body: vec![u8::try_from(version).unwrap()] };
    IdentityWrite { kind: USER, name: name.into(), expected, then }
}

fn key(access_key: &str, user: &str) -> KeyWrite {
    KeyWrite::Create { access_key: access_key.into(), user: Some(user.into()), sealed_secret: vec![1] }
}

#[test]
fn accounts_have_names_addresses_and_numbers_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    replica.done(&account(1, 7, "second"));
    replica.done(&account(1, 7, "second"));
    assert!(matches!(replica.run(&account(1, 8, "second")), Err(Refusal::NameTaken { .. })));
    assert!(matches!(replica.run(&account(2, 7, "other")), Err(Refusal::NameTaken { .. })));
    assert!(matches!(replica.run(&account(9, 8, "x")), Err(Refusal::NotFound { .. })));
    replica.done(&account(2, 8, "second"));
    let view = replica.reader.view().unwrap();
    assert_eq!(view.accounts.len(), 2, "names are a tenant's own");
    assert_eq!(view.access_keys["KEY-7"].account, Some(7), "the key of the refused account is not there");
}

#[test]
fn a_change_decided_on_an_old_version_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    replica.done(&account(1, 7, "second"));
    let first = change(7, vec![put("ann", None, 11)], vec![key("A1", "ann")]);
    replica.done(&first);
    replica.done(&first);
    let late = change(7, vec![put("bob", None, 12), put("ann", None, 13)], vec![key("A2", "bob")]);
    assert_eq!(replica.run(&late), Err(Refusal::Changed("ann".into())));
    let relied = IdentityWrite { kind: USER, name: "ann".into(), expected: Some(99), then: Then::Keep };
    assert_eq!(
        replica.run(&change(7, vec![relied, put("bob", None, 12)], Vec::new())),
        Err(Refusal::Changed("ann".into()))
    );
    let view = replica.reader.view().unwrap();
    assert_eq!(view.identities.len(), 1);
    assert!(!view.access_keys.contains_key("A2"));
    replica.done(&change(7, vec![put("ann", Some(11), 14)], Vec::new()));
    let deleted = IdentityWrite { kind: USER, name: "ann".into(), expected: Some(14), then: Then::Delete };
    let gone = change(7, vec![deleted], vec![KeyWrite::Delete { access_key: "A1".into() }]);
    replica.done(&gone);
    replica.done(&gone);
    assert!(replica.reader.view().unwrap().identities.is_empty());
}

#[test]
fn keys_of_another_account_cannot_be_touched() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    replica.done(&account(1, 7, "second"));
    replica.done(&account(2, 8, "third"));
    for keys in [
        vec![KeyWrite::Delete { access_key: "KEY-8".into() }],
        vec![KeyWrite::SetActive { access_key: "KEY2".into(), active: false }],
        vec![KeyWrite::SetActive { access_key: "KEY1".into(), active: false }],
    ] {
        assert!(matches!(replica.run(&change(7, Vec::new(), keys)), Err(Refusal::NotFound { .. })));
    }
    assert!(matches!(replica.run(&change(8, Vec::new(), Vec::new())), Err(Refusal::NotFound { .. })));
    assert!(matches!(
        replica.run(&change(7, vec![put("ann", None, 1)], vec![key("KEY2", "ann")])),
        Err(Refusal::NameTaken { .. })
    ));
    replica.done(&change(
        7,
        Vec::new(),
        vec![KeyWrite::SetActive { access_key: "KEY-7".into(), active: false }],
    ));
    assert!(!replica.reader.view().unwrap().access_keys["KEY-7"].active);
}
