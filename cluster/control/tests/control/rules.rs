//! What each command does, and when it is refused.

use holdfast_control::{Command, DriveState, JOIN_TOKENS_MAX, NodeState, Refusal, Response, TenantState};
use holdfast_model::{DriveId, GroupId, UnixMillis};

use crate::common::*;

fn removed(what: &str, name: &str) -> Refusal {
    Refusal::Removed { what: what.into(), name: name.into() }
}

fn not_found(what: &str, name: &str) -> Refusal {
    Refusal::NotFound { what: what.into(), name: name.into() }
}

#[test]
fn nothing_is_done_before_the_cluster_is_founded() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    assert_eq!(replica.run(&tenant(1, "demo")), Err(Refusal::NoCluster));
    let mut none = init();
    let Command::InitCluster { catalog_groups, .. } = &mut none else { unreachable!() };
    *catalog_groups = 0;
    assert!(matches!(replica.run(&none), Err(Refusal::Invalid(_))));
    assert_eq!(replica.run(&init()), Ok(Response::Registered(node(1))));
    assert_eq!(replica.run(&init()), Ok(Response::Registered(node(1))));
    let mut other = init();
    let Command::InitCluster { cluster, .. } = &mut other else { unreachable!() };
    *cluster = holdfast_model::ClusterId::from_bytes([2; 16]);
    assert!(matches!(replica.run(&other), Err(Refusal::ClusterExists(_))));
}

#[test]
fn a_token_admits_one_node_once_and_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(&init());
    assert_eq!(replica.run(&ask(2, "n2", 5)), Err(Refusal::TokenUnknown));
    replica.done(&token(5, NOW));
    assert_eq!(replica.run(&ask(2, "n2", 5)), Err(Refusal::TokenExpired));
    replica.done(&token(6, LATER));
    let taken = Refusal::NameTaken { what: "node".into(), name: "n1".into() };
    assert_eq!(replica.run(&ask(2, "n1", 6)), Err(taken));
    assert_eq!(replica.run(&ask(2, "n2", 6)), Ok(Response::Registered(node(2))));
    assert_eq!(replica.run(&ask(2, "n2", 6)), Ok(Response::Registered(node(2))), "asked again");
    assert_eq!(replica.run(&ask(3, "n3", 6)), Err(Refusal::TokenUsed(node(2))));
    let view = replica.reader.view().unwrap();
    assert_eq!(view.nodes[&node(2)].state, NodeState::Joining);
    assert_eq!(view.join_tokens.iter().map(|t| t.used_by).collect::<Vec<_>>(), [None, Some(node(2))]);
}

#[test]
fn a_revoked_token_admits_nobody_and_a_used_one_stays_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    replica.done(&token(5, LATER));
    replica.done(&Command::RevokeJoinToken { hash: [5; 32] });
    assert_eq!(replica.run(&ask(3, "n3", 5)), Err(Refusal::TokenUnknown));
    assert_eq!(replica.run(&Command::RevokeJoinToken { hash: [5; 32] }), Err(Refusal::TokenUnknown));
    assert_eq!(replica.run(&Command::RevokeJoinToken { hash: [9; 32] }), Err(Refusal::TokenUnknown));
    assert_eq!(replica.reader.view().unwrap().join_tokens.len(), 1);
}

#[test]
fn tokens_are_bounded_and_the_first_to_expire_go_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(&init());
    for n in 0..JOIN_TOKENS_MAX as u64 + 10 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        replica.done(&Command::CreateJoinToken { hash, expires: UnixMillis::new(5_000 + n) });
    }
    let tokens = replica.reader.view().unwrap().join_tokens;
    assert_eq!((tokens.len(), tokens[0].expires.get()), (JOIN_TOKENS_MAX, 5_010));
}

#[test]
fn a_removed_node_does_not_come_back_under_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    replica.done(&Command::RemoveNode(node(2)));
    replica.done(&Command::RemoveNode(node(2)));
    assert_eq!(replica.run(&Command::ActivateNode(node(2))), Err(removed("node", "n2")));
    assert_eq!(replica.run(&ask(2, "n2", 9)), Err(removed("node", "n2")));
    assert_eq!(replica.run(&drives(2, &[5])), Err(removed("node", "n2")));
    assert_eq!(replica.run(&voters(1, &[1, 2])), Err(removed("node", "n2")));
    // Its machine joins anew, under the same name and another number.
    replica.done(&token(8, LATER));
    assert_eq!(replica.run(&ask(3, "n2", 8)), Ok(Response::Registered(node(3))));
    let last = Refusal::Last { what: "active node".into(), name: "n1".into() };
    assert_eq!(replica.run(&Command::RemoveNode(node(1))), Err(last));
}

#[test]
fn a_replacement_takes_the_name_and_the_place_of_the_node_it_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    let old = replica.reader.view().unwrap().nodes[&node(2)].name.clone();
    let replacing = |hash: u8, who: u64| Command::CreateReplacementToken {
        hash: [hash; 32],
        expires: LATER,
        node: node(who),
    };
    assert_eq!(replica.run(&replacing(20, 77)), Err(not_found("node", "n77")));
    replica.done(&replacing(20, 2));
    let taken = Refusal::NameTaken { what: "node".into(), name: "n1".into() };
    assert_eq!(replica.run(&ask(40, "n1", 20)), Err(taken), "only its own name is free");
    let Response::Registered(fresh) = replica.done(&ask(40, &old, 20)) else { panic!() };
    let view = replica.reader.view().unwrap();
    assert_eq!(view.nodes[&node(2)].state, NodeState::Removed);
    assert_eq!((view.nodes[&fresh].state, &view.nodes[&fresh].name), (NodeState::Joining, &old));
    assert_eq!(replica.run(&replacing(21, 2)), Err(removed("node", "n2")), "replaced once");
    assert_eq!(replica.done(&ask(40, &old, 20)), Response::Registered(fresh), "asked again");
}

#[test]
fn a_leaving_node_stays_until_it_is_removed_and_the_last_one_cannot_leave() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(&init());
    let last = Refusal::Last { what: "active node".into(), name: "n1".into() };
    assert_eq!(replica.run(&Command::RetireNode(node(1))), Err(last));
    replica.done(&token(6, LATER));
    replica.done(&ask(2, "n2", 6));
    replica.done(&Command::ActivateNode(node(2)));
    replica.done(&Command::RetireNode(node(2)));
    replica.done(&Command::ActivateNode(node(2)));
    assert_eq!(replica.reader.view().unwrap().nodes[&node(2)].state, NodeState::Leaving);
    replica.done(&Command::RemoveNode(node(2)));
    assert_eq!(replica.run(&Command::RetireNode(node(2))), Err(removed("node", "n2")));
}

#[test]
fn a_removed_drive_stays_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    let set = |n: u8, state| Command::SetDriveState { drive: drive_id(n), state };
    let state = |replica: &Replica| replica.reader.view().unwrap().drives[&drive_id(4)].state;
    replica.done(&set(4, DriveState::Draining));
    replica.done(&set(4, DriveState::Active));
    replica.done(&set(4, DriveState::Removed));
    replica.done(&set(4, DriveState::Removed));
    let name = drive_id(4).to_string();
    assert_eq!(replica.run(&set(4, DriveState::Active)), Err(removed("drive", &name)));
    // Its node reports it again, with another one: only that one is taken up.
    replica.done(&drives(1, &[4, 5]));
    assert_eq!(state(&replica), DriveState::Removed);
    let view = replica.reader.view().unwrap();
    assert_eq!((view.drives[&drive_id(4)].node, view.drives[&drive_id(5)].node), (node(2), node(1)));
    let unknown = DriveId::from_bytes([99; 16]);
    let command = Command::SetDriveState { drive: unknown, state: DriveState::Active };
    assert_eq!(replica.run(&command), Err(not_found("drive", &unknown.to_string())));
}

#[test]
fn the_epoch_counts_changes_of_the_membership_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    let mut epoch = replica.epoch();
    let services = holdfast_control::ServiceAddresses::default();
    let moved = Command::UpdateNode { node: node(2), peer: "10.9.9.9:1".parse().unwrap(), services };
    for (command, changes) in [
        (drives(2, &[4]), 0),
        (drives(2, &[4, 5, 6]), 1),
        (moved.clone(), 1),
        (moved, 0),
        (Command::ActivateNode(node(2)), 0),
        (voters(1, &[1, 2]), 1),
        (voters(1, &[1, 2]), 0),
        (Command::SetDriveState { drive: drive_id(4), state: DriveState::Draining }, 1),
        (tenant(3, "third"), 0),
        (token(1, LATER), 0),
        (Command::RemoveNode(node(2)), 1),
    ] {
        replica.done(&command);
        epoch += changes;
        assert_eq!(replica.epoch(), epoch, "{command:?}");
    }
    for command in [Command::ActivateNode(node(9)), drives(9, &[1]), voters(9, &[1]), voters(1, &[])] {
        assert!(replica.run(&command).is_err());
        assert_eq!(replica.epoch(), epoch, "{command:?}");
    }
}

#[test]
fn tenants_spread_over_the_groups() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    replica.done(&init());
    for seed in 1..=4 {
        let created = replica.done(&tenant(seed, &format!("t{seed}")));
        assert_eq!(replica.done(&tenant(seed, &format!("t{seed}"))), created, "asked again");
    }
    let view = replica.reader.view().unwrap();
    let mut groups: Vec<u32> = view.tenants.values().map(|t| t.partitions[0].1.get()).collect();
    groups.sort_unstable();
    assert_eq!(groups, [1, 1, 2, 2]);
    let taken = Refusal::NameTaken { what: "tenant".into(), name: "t1".into() };
    assert_eq!(replica.run(&tenant(9, "t1")), Err(taken));
    assert!(!replica.reader.view().unwrap().access_keys.contains_key("KEY9"), "a refusal writes nothing");
}

#[test]
fn access_keys_belong_to_one_tenant() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    let key = |tenant: u8, key: &str| Command::CreateAccessKey {
        tenant: tenant_id(tenant),
        access_key: key.into(),
        sealed_secret: vec![1],
        at: NOW,
    };
    replica.done(&key(1, "SECOND"));
    replica.done(&key(1, "SECOND"));
    let taken = Refusal::NameTaken { what: "access key".into(), name: "SECOND".into() };
    assert_eq!(replica.run(&key(2, "SECOND")), Err(taken));
    assert_eq!(replica.run(&key(7, "OTHER")), Err(not_found("tenant", &tenant_id(7).to_string())));
    replica.done(&Command::DeleteAccessKey { access_key: "SECOND".into() });
    replica.done(&key(2, "SECOND"));
    assert_eq!(replica.reader.view().unwrap().access_keys["SECOND"].tenant, tenant_id(2));
}

#[test]
fn states_and_levels_of_tenants_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    let level = |text: &str| Some(text.parse().unwrap());
    replica.done(&Command::SetTenantState { tenant: tenant_id(1), state: TenantState::Suspended });
    replica.done(&Command::SetLevel { tenant: Some(tenant_id(1)), level: level("3x") });
    replica.done(&Command::SetLevel { tenant: None, level: level("+4d:2n") });
    let view = replica.reader.view().unwrap();
    let changed = &view.tenants[&tenant_id(1)];
    assert_eq!((changed.state, changed.level), (TenantState::Suspended, level("3x")));
    assert_eq!(Some(view.cluster.unwrap().level), level("+4d:2n"));
    replica.done(&Command::SetLevel { tenant: Some(tenant_id(1)), level: None });
    assert_eq!(replica.reader.view().unwrap().tenants[&tenant_id(1)].level, None);
    assert!(matches!(
        replica.run(&Command::SetLevel { tenant: None, level: None }),
        Err(Refusal::Invalid(_))
    ));
    let unknown = Command::SetTenantState { tenant: tenant_id(9), state: TenantState::Active };
    assert!(matches!(replica.run(&unknown), Err(Refusal::NotFound { .. })));
}

#[test]
fn there_is_always_an_operator_who_may_change_things() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    let last = || Err(Refusal::Last { what: "operator".into(), name: "admin".into() });
    let delete = |name: &str| Command::DeleteOperator { name: name.into() };
    replica.done(&operator("watcher", "viewer"));
    assert_eq!(replica.run(&delete("admin")), last());
    assert_eq!(replica.run(&operator("admin", "viewer")), last());
    replica.done(&operator("second", "operator"));
    replica.done(&delete("admin"));
    assert_eq!(replica.run(&delete("admin")), Err(not_found("operator", "admin")));
    let names: Vec<_> = replica.reader.view().unwrap().operators.into_keys().collect();
    assert_eq!(names, ["second", "watcher"]);
}

#[test]
fn the_view_shows_voters_as_they_were_set() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::scripted(dir.path());
    let view = replica.reader.view().unwrap();
    assert_eq!(view.groups[&GroupId::CONTROL], [1, 2].map(node).into());
    assert_eq!((view.groups.len(), view.drives.len()), (3, 1));
}

#[test]
fn printed_records_hold_no_password_hash() {
    let dir = tempfile::tempdir().unwrap();
    let view = Replica::scripted(dir.path()).reader.view().unwrap();
    assert!(view.operators["admin"].password_hash.contains("argon2id"));
    assert!(!format!("{view:?}").contains("argon2id"));
}

#[test]
fn word_of_a_change_reaches_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::open(dir.path());
    let mut changes = replica.reader.changes();
    assert!(!changes.has_changed().unwrap());
    replica.done(&init());
    assert!(changes.has_changed().unwrap());
    assert_eq!(*changes.borrow_and_update(), replica.index + 1);
    assert_eq!(replica.reader.view().unwrap().next_index, replica.index + 1);
}

#[test]
fn labels_only_go_forward_and_are_no_matter_of_membership() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::scripted(dir.path());
    let counter = |replica: &Replica| replica.reader.view().unwrap().drives[&drive_id(4)].label_counter;
    let epoch = replica.epoch();
    assert_eq!(counter(&replica), 0);
    replica.done(&Command::NoteLabels(vec![(drive_id(4), 7), (drive_id(99), 3)]));
    assert_eq!(counter(&replica), 7);
    replica.done(&Command::NoteLabels(vec![(drive_id(4), 5)]));
    assert_eq!(counter(&replica), 7, "an old label changes nothing");
    replica.done(&Command::NoteLabels(vec![(drive_id(4), 8)]));
    assert_eq!((counter(&replica), replica.epoch()), (8, epoch));
    assert!(!replica.reader.view().unwrap().drives.contains_key(&drive_id(99)), "who is unknown stays so");
}
