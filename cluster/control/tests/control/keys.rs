//! Roots, splittings and wrapped keys: nothing may be left wrapped by a root that goes.

use holdfast_control::{
    Command, KeyCommand, NewTenant, Outcome, RECOVERY_SETS_MAX, RecoveryRecord, Refusal, Rewrapped,
};
use holdfast_model::{RootEpoch, UnixMillis};

use crate::common::*;

fn resplit(epoch: u32, replaces: u8, n: u8) -> Command {
    Command::Keys(KeyCommand::Split {
        epoch: RootEpoch::new(epoch),
        replaces: split_id(replaces),
        splitting: splitting(n, 2, &[1, 2, 3]),
    })
}

fn tenant_under(seed: u8, name: &str, epoch: u32) -> Command {
    let Command::CreateTenant(new) = tenant(seed, name) else { unreachable!() };
    Command::CreateTenant(NewTenant { wrapped_key: wrapped(epoch, seed), ..new })
}

fn stale(what: &str) -> Outcome {
    Err(Refusal::Stale { what: what.into() })
}

fn with_keys(dir: &std::path::Path) -> Replica {
    let mut replica = Replica::open(dir);
    replica.done(&init());
    replica.done(&found());
    replica
}

#[test]
fn the_first_root_stays_and_is_split_anew_only_from_what_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = with_keys(dir.path());
    let mut other = found();
    let Command::Keys(KeyCommand::Found { cluster_key, .. }) = &mut other else { unreachable!() };
    *cluster_key = wrapped(1, 9);
    replica.done(&other);
    assert_eq!(replica.reader.view().unwrap().keys.cluster_key, wrapped(1, 1), "founded once");
    replica.done(&resplit(1, 1, 2));
    replica.done(&resplit(1, 1, 2));
    assert_eq!(replica.run(&resplit(1, 1, 3)), stale("splitting"), "another leader was first");
    assert_eq!(replica.run(&resplit(2, 2, 3)), stale("splitting"), "no such root");
    let keys = replica.reader.view().unwrap().keys;
    let current = keys.current().unwrap();
    assert_eq!((current.splitting.split, current.splitting.threshold), (split_id(2), 2));
    assert_eq!(current.splitting.holders.keys().copied().collect::<Vec<_>>(), [node(1), node(2), node(3)]);
    let bad = Command::Keys(KeyCommand::Split {
        epoch: RootEpoch::new(1),
        replaces: split_id(2),
        splitting: splitting(4, 4, &[1, 2, 3]),
    });
    assert!(matches!(replica.run(&bad), Err(Refusal::Invalid(_))));
}

#[test]
fn a_new_root_takes_over_every_tenant_as_it_is_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = with_keys(dir.path());
    replica.done(&tenant_under(1, "demo", 1));
    replica.done(&tenant_under(2, "acme", 1));
    let (one, two) = ((1, wrapped(1, 1), wrapped(2, 1)), (2, wrapped(1, 2), wrapped(2, 2)));
    assert_eq!(
        replica.run(&roll(2, 5, std::slice::from_ref(&one))),
        stale("set of tenants"),
        "one was left out"
    );
    let changed = (2, wrapped(1, 7), wrapped(2, 2));
    assert_eq!(replica.run(&roll(2, 5, &[one.clone(), changed])), stale("set of tenants"));
    assert_eq!(replica.run(&roll(3, 5, &[one.clone(), two.clone()])), stale("root"), "an epoch was left out");
    let before = replica.reader.view().unwrap();
    assert_eq!(before.keys.roots.len(), 1, "a refusal writes nothing");
    replica.done(&roll(2, 5, &[one.clone(), two.clone()]));
    replica.done(&roll(2, 5, &[one.clone(), two.clone()]));
    assert_eq!(replica.run(&roll(2, 6, &[one, two])), stale("root"));
    let view = replica.reader.view().unwrap();
    assert_eq!(view.keys.splits(), [split_id(1), split_id(5)], "both in force");
    assert_eq!(view.tenants[&tenant_id(2)].wrapped_key, wrapped(2, 2));
    assert_eq!(view.keys.cluster_key, wrapped(2, 5));
    assert_eq!(replica.run(&tenant_under(3, "late", 1)), stale("root"), "wrapped by the old root");
    replica.done(&tenant_under(3, "late", 2));
    let retire = |epoch| Command::Keys(KeyCommand::Retire { epoch: RootEpoch::new(epoch) });
    assert_eq!(replica.run(&retire(1)), stale("root"));
    replica.done(&retire(2));
    replica.done(&retire(2));
    assert_eq!(replica.reader.view().unwrap().keys.splits(), [split_id(5)]);
}

#[test]
fn a_tenant_key_is_replaced_only_as_it_was_and_under_the_current_root() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = with_keys(dir.path());
    replica.done(&tenant_under(1, "demo", 1));
    let set = |seed: u8, was: Vec<u8>, now: Vec<u8>| {
        Command::Keys(KeyCommand::SetTenantKey { tenant: tenant_id(seed), key: Rewrapped { was, now } })
    };
    replica.done(&set(1, wrapped(1, 1), wrapped(1, 8)));
    replica.done(&set(1, wrapped(1, 1), wrapped(1, 8)));
    assert_eq!(replica.run(&set(1, wrapped(1, 1), wrapped(1, 9))), stale("tenant key"));
    assert_eq!(replica.run(&set(1, wrapped(1, 8), wrapped(2, 9))), stale("root"));
    assert!(matches!(replica.run(&set(7, vec![], wrapped(1, 9))), Err(Refusal::NotFound { .. })));
    assert_eq!(replica.reader.view().unwrap().tenants[&tenant_id(1)].wrapped_key, wrapped(1, 8));
}

#[test]
fn recovery_sets_are_remembered_in_their_order_up_to_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = with_keys(dir.path());
    for n in 0..RECOVERY_SETS_MAX as u64 + 3 {
        replica.done(&Command::Keys(KeyCommand::NoteRecovery(RecoveryRecord {
            at: UnixMillis::new(100 + n),
            set: [1; 4],
            epoch: RootEpoch::new(1),
            threshold: 3,
            count: 5,
        })));
    }
    let recovery = replica.reader.view().unwrap().keys.recovery;
    assert_eq!((recovery.len(), recovery[0].at.get()), (RECOVERY_SETS_MAX, 103));
    replica.done(&Command::Keys(KeyCommand::SetThreshold(Some(2))));
    assert_eq!(replica.reader.view().unwrap().keys.threshold, Some(2));
    assert!(replica.run(&Command::Keys(KeyCommand::SetThreshold(Some(0)))).is_err());
}
