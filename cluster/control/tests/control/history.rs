//! Random histories: replicas that batch, crash and restore differently end in the same state, and what
//! must hold of every state holds.

use std::collections::BTreeSet;

use bytes::Bytes;
use holdfast_consensus::{Applied, StateMachine};
use holdfast_control::{
    AccessKeyCommand, CONTROL_DIGEST_ENTRIES, Command, ControlView, DriveState, FEATURE_LEVEL,
    FeatureCommand, JOURNAL_ADDRESS_SIZE, KeyBounds, NodeRecord, NodeState, Outcome, Response,
    ServiceAddresses, TenantState, decode_outcome,
};
use holdfast_model::{GroupId, UnixMillis};
use proptest::prelude::*;

use crate::common::*;

fn command() -> impl Strategy<Value = Command> {
    let node_no = || 1..6u64;
    let name = || prop::sample::select(vec!["n1", "n2", "n3", "demo", "acme", ""]);
    prop_oneof![
        1 => Just(init()),
        3 => (0..6u8, 500..3_000u64).prop_map(|(n, expires)| token(n, UnixMillis::new(expires))),
        4 => (0..6u8, name(), 0..6u8).prop_map(|(seed, name, token)| ask(seed, name, token)),
        2 => node_no().prop_map(|n| Command::ActivateNode(node(n))),
        1 => node_no().prop_map(|n| Command::RemoveNode(node(n))),
        2 => (node_no(), prop::collection::vec(0..6u8, 0..4)).prop_map(|(n, ids)| drives(n, &ids)),
        2 => (0..6u8, 0..3u8).prop_map(|(n, state)| Command::SetDriveState {
            drive: drive_id(n),
            state: [DriveState::Active, DriveState::Draining, DriveState::Removed][usize::from(state)],
        }),
        2 => (0..4u32, prop::collection::vec(1..6u64, 0..4)).prop_map(|(group, nodes)| voters(group, &nodes)),
        1 => node_no().prop_map(|n| Command::UpdateNode {
            node: node(n),
            peer: format!("10.1.1.{n}:1").parse().unwrap(),
            services: ServiceAddresses { s3: "s3".into(), ..ServiceAddresses::default() },
        }),
        3 => (0..5u8, name()).prop_map(|(seed, name)| tenant(seed, name)),
        1 => (0..5u8, any::<bool>()).prop_map(|(seed, on)| Command::SetTenantState {
            tenant: tenant_id(seed),
            state: if on { TenantState::Active } else { TenantState::Suspended },
        }),
        1 => (prop::option::of(0..5u8), prop::option::of(Just("3x"))).prop_map(|(seed, level)| Command::SetLevel {
            tenant: seed.map(tenant_id),
            level: level.map(|l| l.parse().unwrap()),
        }),
        1 => (0..5u8, 0..8u8).prop_map(|(seed, key)| Command::CreateAccessKey {
            tenant: tenant_id(seed),
            access_key: format!("KEY{key}"),
            sealed_secret: vec![key],
            at: NOW,
        }),
        1 => (0..5u8, 0..8u8, prop::option::of(0..9u64)).prop_map(|(seed, key, expires)| {
            Command::AccessKeys(AccessKeyCommand::SetBounds {
                tenant: tenant_id(seed),
                access_key: format!("KEY{key}"),
                bounds: KeyBounds { expires: expires.map(UnixMillis::new), policy: None },
            })
        }),
        1 => (0..5u8, 0..5u8).prop_map(|(seed, letter)| {
            Command::AccessKeys(AccessKeyCommand::ReserveJournal {
                tenant: tenant_id(seed),
                address: char::from(b'a' + letter).to_string().repeat(JOURNAL_ADDRESS_SIZE),
            })
        }),
        1 => (0..8u8).prop_map(|key| Command::DeleteAccessKey { access_key: format!("KEY{key}") }),
        1 => (name(), any::<bool>()).prop_map(|(name, on)| operator(name, if on { "operator" } else { "viewer" })),
        1 => name().prop_map(|name| Command::DeleteOperator { name: name.into() }),
        1 => (0..6u8).prop_map(|n| Command::RevokeJoinToken { hash: [n; 32] }),
        1 => name().prop_map(|name| Command::PutSecret { name: name.into(), sealed: vec![1] }),
    ]
}

/// What holds of every state, given the one before.
fn check(before: &ControlView, now: &ControlView) {
    let Some(cluster) = &now.cluster else { return };
    let members: Vec<_> = now.nodes.values().filter(|n| n.state != NodeState::Removed).collect();
    let names: BTreeSet<_> = members.iter().map(|n| &n.name).collect();
    assert_eq!(names.len(), members.len(), "two nodes of one name");
    assert!(members.iter().any(|n| n.state == NodeState::Active), "nobody is left");
    for (id, node) in &before.nodes {
        let after = &now.nodes[id];
        assert!(node.state != NodeState::Removed || after == node, "{id} came back");
        assert!(after.state != NodeState::Joining || node.state == NodeState::Joining);
    }
    for (id, drive) in &before.drives {
        assert!(drive.state != DriveState::Removed || now.drives[id] == *drive, "{id} came back");
    }
    assert_eq!(now.groups.len(), cluster.catalog_groups as usize + 1);
    assert!(now.groups.values().all(|voters| !voters.is_empty()));
    let partitions: Vec<_> = now.tenants.values().flat_map(|t| &t.partitions).collect();
    assert_eq!(partitions.iter().map(|(p, _)| p).collect::<BTreeSet<_>>().len(), partitions.len());
    assert!(partitions.iter().all(|(_, group)| *group != GroupId::CONTROL && now.groups.contains_key(group)));
    assert_eq!(now.tenants.values().map(|t| &t.name).collect::<BTreeSet<_>>().len(), now.tenants.len());
    assert!(now.access_keys.values().all(|key| now.tenants.contains_key(&key.tenant)));
    let addresses: Vec<_> = now.tenants.values().filter_map(|t| t.journal_address.as_ref()).collect();
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len());
    for (id, tenant) in &before.tenants {
        assert!(
            tenant.journal_address.is_none() || now.tenants[id].journal_address == tenant.journal_address
        );
    }
    // The epoch moves exactly when the membership does.
    if let Some(old) = &before.cluster {
        // What a node's program can is no part of it.
        let nodes = |view: &ControlView| {
            let alike = |node: &NodeRecord| NodeRecord { feature_level: 0, ..node.clone() };
            view.nodes.values().map(alike).collect::<Vec<_>>()
        };
        let moved = (nodes(before), &before.drives, &before.groups) != (nodes(now), &now.drives, &now.groups);
        assert_eq!(cluster.epoch > old.epoch, moved);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_replica_ends_in_the_same_state(
        mut commands in prop::collection::vec(command(), 1..80),
        cuts in prop::collection::vec(1..9usize, 1..20),
        crash_at in 0..80usize,
        checkpoint_at in 0..80usize,
    ) {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let level = FEATURE_LEVEL;
        let first = [
            init(),
            Command::Features(FeatureCommand::Report { node: node(1), level }),
            Command::Features(FeatureCommand::Raise { level }),
            operator("admin", "operator"),
        ];
        commands.splice(0..0, first);
        let mut first = Replica::open(one.path());
        let mut outcomes: Vec<Outcome> = Vec::new();
        let mut before = first.reader.view().unwrap();
        for command in &commands {
            let digest = first.machine.digest().unwrap();
            outcomes.push(first.run(command));
            let now = first.reader.view().unwrap();
            check(&before, &now);
            if outcomes.last().is_some_and(Result::is_err) {
                prop_assert_eq!(first.machine.digest().unwrap(), digest, "a refusal wrote: {:?}", command);
            }
            before = now;
        }

        // The same log in calls of several entries, with one checkpoint, one crash and one image.
        let encoded: Vec<[Bytes; 1]> = commands.iter().map(|c| [c.encode()]).collect();
        let mut second = Replica::open(two.path());
        let (mut at, mut cut, mut crashed, mut done) = (0, cuts.iter().cycle(), false, 0);
        while at < encoded.len() {
            let end = (at + cut.next().unwrap()).min(encoded.len());
            let entries: Vec<Applied<'_>> =
                (at..end).map(|i| Applied { index: i as u64 + 1, commands: &encoded[i] }).collect();
            for (i, answer) in (at..end).zip(second.machine.apply(&entries).unwrap()) {
                let answer = decode_outcome(&answer[0]).unwrap();
                prop_assert!(answer == outcomes[i] || (i < done && answer == Ok(Response::Replayed)));
            }
            if (at..end).contains(&checkpoint_at) {
                second.machine.checkpoint(&end.to_le_bytes()).unwrap();
            }
            at = end;
            done = done.max(end);
            if !crashed && at > crash_at {
                crashed = true;
                drop(second);
                second = Replica::open(two.path());
                at = second.machine.position().map_or(0, |p| usize::from_le_bytes(p.try_into().unwrap()));
            }
        }
        // Digests of the same entry agree, however entries came; and there are some.
        let (ours, theirs) = (first.reader.state_digests(), second.reader.state_digests());
        prop_assert!(commands.len() < CONTROL_DIGEST_ENTRIES as usize || !ours.is_empty());
        for digest in theirs {
            prop_assert!(ours.contains(&digest));
        }
        let image = two.path().join("image");
        second.machine.snapshot(&image).unwrap();
        second.machine.install(&image, b"end").unwrap();
        prop_assert_eq!(second.machine.digest().unwrap(), first.machine.digest().unwrap());
        prop_assert_eq!(second.reader.view().unwrap(), first.reader.view().unwrap());
    }
}
