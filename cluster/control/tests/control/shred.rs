//! A tenant is destroyed step by step, each once however often it is repeated, and nothing of it stays but the
//! record.

use std::collections::BTreeMap;

use holdfast_control::{
    Command, FEATURE_LEVEL_EXTERNAL_KEYS, NewTenant, Refusal, ShredCommand, ShredOrder, TenantState,
};
use holdfast_model::{GroupId, KeyId, UnixMillis};

use crate::common::*;

fn begin(seed: u8, was: Vec<u8>) -> Command {
    Command::Shred(ShredCommand::Begin(ShredOrder {
        tenant: tenant_id(seed),
        was,
        keys: vec![(1, KeyId::from_bytes([7; 16]))],
        secrets: vec!["named key x".into()],
        by: "admin".into(),
        overridden: None,
        at: NOW,
    }))
}

fn destroy(seed: u8) -> Command {
    let through = BTreeMap::from([(GroupId::new(1), 40)]);
    Command::Shred(ShredCommand::Destroy { tenant: tenant_id(seed), through, at: NOW })
}

fn confirm(seed: u8, by: u64, at: u64) -> Command {
    Command::Shred(ShredCommand::Confirm { tenant: tenant_id(seed), node: node(by), at: UnixMillis::new(at) })
}

fn finish(seed: u8, certificate: &str) -> Command {
    let certificate = certificate.to_owned();
    Command::Shred(ShredCommand::Finish { tenant: tenant_id(seed), certificate, at: LATER })
}

fn tenant_wrapped(seed: u8, name: &str) -> Command {
    let Command::CreateTenant(new) = tenant(seed, name) else { unreachable!() };
    Command::CreateTenant(NewTenant { wrapped_key: wrapped(1, seed), ..new })
}

#[test]
fn a_tenant_is_destroyed_in_order_and_only_when_it_was_suspended() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(&init());
    replica.done(&found());
    replica.done(&tenant_wrapped(1, "demo"));
    replica.done(&tenant_wrapped(2, "other"));
    replica.done(&account(1, 7, "second"));
    replica.done(&Command::PutSecret { name: "named key x".into(), sealed: vec![1] });
    let state = |state| Command::SetTenantState { tenant: tenant_id(1), state };
    assert!(matches!(replica.run(&begin(1, wrapped(1, 1))), Err(Refusal::Invalid(_))), "it is active");
    assert!(matches!(replica.run(&state(TenantState::Shredding)), Err(Refusal::Invalid(_))));
    replica.done(&state(TenantState::Suspended));
    assert!(matches!(replica.run(&begin(1, wrapped(1, 9))), Err(Refusal::Stale { .. })), "another version");
    assert!(matches!(replica.run(&destroy(1)), Err(Refusal::NotFound { .. })), "not decided");
    for _ in 0..2 {
        replica.done(&begin(1, wrapped(1, 1)));
    }
    // No way back, and nothing new.
    assert!(replica.run(&state(TenantState::Active)).is_err());
    assert!(replica.run(&account(1, 8, "third")).is_err());
    let key = Command::CreateAccessKey {
        tenant: tenant_id(1),
        access_key: "NEW".into(),
        sealed_secret: vec![1],
        at: NOW,
    };
    assert!(replica.run(&key).is_err());
    let view = replica.reader.view().unwrap();
    assert_eq!(view.tenants[&tenant_id(1)].state, TenantState::Shredding);
    assert!(view.access_keys.values().all(|key| key.tenant == tenant_id(2)));
    assert!(view.accounts.is_empty() && view.secrets.is_empty());
    assert!(!view.is_destroyed(tenant_id(1)));
    assert!(replica.run(&confirm(1, 1, 5)).is_err() && replica.run(&finish(1, "x")).is_err());

    for _ in 0..2 {
        replica.done(&destroy(1));
    }
    let view = replica.reader.view().unwrap();
    assert!(view.is_destroyed(tenant_id(1)) && !view.tenants.contains_key(&tenant_id(1)));
    let destroyed = view.shreds[&tenant_id(1)].destroyed.clone().unwrap();
    assert_eq!((destroyed.epoch.get(), destroyed.root), (1, KeyId::from_bytes([1; 16])));
    assert_eq!(destroyed.through[&GroupId::new(1)], 40);
    assert_eq!(destroyed.through[&GroupId::CONTROL], replica.index - 1, "the entry that removed the key");
    // The root is rolled without it.
    replica.done(&roll(2, 5, &[(2, wrapped(1, 2), wrapped(2, 2))]));
    replica.done(&confirm(1, 1, 5));
    replica.done(&confirm(1, 1, 6));
    replica.done(&confirm(1, 2, 7));
    replica.done(&finish(1, "first"));
    replica.done(&finish(1, "second"));
    let view = replica.reader.view().unwrap();
    let record = &view.shreds[&tenant_id(1)];
    let confirmed: Vec<_> = record.confirmed.iter().map(|(node, at)| (node.get(), at.get())).collect();
    assert_eq!(confirmed, [(1, 5), (2, 7)]);
    assert_eq!(record.finished.as_ref().unwrap().certificate, "first");
    replica.done(&begin(1, wrapped(1, 1)));
    replica.done(&tenant_wrapped_in(3, "demo", 2));
    assert_eq!(replica.reader.view().unwrap().tenants.len(), 2, "its name is free");
}

fn tenant_wrapped_in(seed: u8, name: &str, epoch: u32) -> Command {
    let Command::CreateTenant(new) = tenant(seed, name) else { unreachable!() };
    Command::CreateTenant(NewTenant { wrapped_key: wrapped(epoch, seed), ..new })
}

#[test]
fn what_replaces_or_removes_a_wrapped_key_leaves_no_trace_of_it_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(&init());
    replica.done(&found());
    let Command::CreateTenant(new) = tenant(1, "demo") else { unreachable!() };
    let trace = b"a wrapped key that is not to be found".to_vec();
    let wrapped_key = [&[0, 0, 0, 1][..], &trace].concat();
    replica.done(&Command::CreateTenant(NewTenant { wrapped_key: wrapped_key.clone(), ..new }));
    replica.checkpoint();
    assert!(replica.files_hold(dir.path(), &trace), "the search finds it while it is there");
    replica.done(&Command::SetTenantState { tenant: tenant_id(1), state: TenantState::Suspended });
    replica.done(&begin(1, wrapped_key));
    replica.done(&destroy(1));
    replica.checkpoint();
    assert!(!replica.files_hold(dir.path(), &trace));
}

#[test]
fn the_record_names_the_external_key_once_every_node_can_read_that() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(&init());
    replica.done(&found());
    replica.done(&tenant_wrapped(1, "demo"));
    replica.done(&Command::SetTenantState { tenant: tenant_id(1), state: TenantState::Suspended });
    let Command::Shred(ShredCommand::Begin(order)) = begin(1, wrapped(1, 1)) else { unreachable!() };
    let external = "transit key transit/k at https://vault.example".to_owned();
    let begin = Command::Shred(ShredCommand::BeginExternal { order, external: external.clone() });
    let needs = Refusal::FeatureLevel { needs: FEATURE_LEVEL_EXTERNAL_KEYS, has: 1 };
    assert_eq!(replica.run(&begin), Err(needs));
    raise(&mut replica, FEATURE_LEVEL_EXTERNAL_KEYS);
    for _ in 0..2 {
        replica.done(&begin);
    }
    replica.done(&destroy(1));
    assert_eq!(replica.reader.view().unwrap().shreds[&tenant_id(1)].external, Some(external));
}
