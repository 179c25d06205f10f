//! The encoding of commands is a promise to logs already written: published bytes stay readable.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_control::{
    AccessKeyCommand, Command, DriveState, FeatureCommand, IdentityChange, IdentityWrite,
    JOURNAL_ADDRESS_SIZE, KeyBounds, KeyCommand, KeyWrite, Outcome, RecoveryRecord, Refusal, Response,
    Rewrapped, ServiceAddresses, ShredCommand, ShredOrder, TenantState, Then, decode_outcome, encode_outcome,
};
use holdfast_model::{ClusterId, GroupId, KeyId, PartitionId, RootEpoch, TenantLimits};

use crate::common::*;

/// One command of every kind, in the order of the kinds.
fn commands() -> Vec<Command> {
    vec![
        init(),
        ask(2, "n2", 9),
        Command::ActivateNode(node(2)),
        Command::UpdateNode {
            node: node(2),
            peer: "[fd00::2]:7443".parse().unwrap(),
            services: ServiceAddresses { s3: "a:1".into(), admin: "b:2".into(), metrics: "c:3".into() },
        },
        Command::RemoveNode(node(300)),
        drives(2, &[4, 5]),
        Command::SetDriveState { drive: drive_id(4), state: DriveState::Draining },
        voters(1, &[1, 2, 300]),
        tenant(1, "demo"),
        Command::SetTenantState { tenant: tenant_id(1), state: TenantState::Suspended },
        Command::SetLevel { tenant: Some(tenant_id(1)), level: Some("+4d:2n".parse().unwrap()) },
        Command::CreateAccessKey {
            tenant: tenant_id(1),
            access_key: "KEY".into(),
            sealed_secret: vec![1, 2],
            at: NOW,
        },
        Command::DeleteAccessKey { access_key: "KEY".into() },
        operator("admin", "operator"),
        token(9, LATER),
        Command::PutSecret { name: "ca key".into(), sealed: vec![1, 2, 3] },
        Command::RevokeJoinToken { hash: [9; 32] },
        Command::DeleteOperator { name: "admin".into() },
        Command::RetireNode(node(300)),
        Command::CreateReplacementToken { hash: [9; 32], expires: LATER, node: node(2) },
        Command::Keys(KeyCommand::Found {
            epoch: RootEpoch::new(1),
            root: KeyId::from_bytes([5; 16]),
            splitting: splitting(1, 1, &[1]),
            cluster_key: vec![0, 0, 0, 1, 9],
            at: NOW,
        }),
        Command::Keys(KeyCommand::Split {
            epoch: RootEpoch::new(1),
            replaces: split_id(1),
            splitting: splitting(2, 2, &[1, 2, 300]),
        }),
        Command::Keys(KeyCommand::SetThreshold(Some(2))),
        Command::Keys(KeyCommand::NoteRecovery(RecoveryRecord {
            at: NOW,
            set: [1, 2, 3, 4],
            epoch: RootEpoch::new(1),
            threshold: 3,
            count: 5,
        })),
        roll(2, 3, &[(1, vec![0, 0, 0, 1], vec![0, 0, 0, 2])]),
        Command::Keys(KeyCommand::Retire { epoch: RootEpoch::new(2) }),
        Command::Keys(KeyCommand::SetTenantKey {
            tenant: tenant_id(1),
            key: Rewrapped { was: vec![1], now: vec![2, 3] },
        }),
        account(1, 7, "second"),
        Command::ChangeIdentities(IdentityChange {
            tenant: tenant_id(1),
            account: 7,
            rows: vec![
                IdentityWrite {
                    kind: 0,
                    name: "ann".into(),
                    expected: None,
                    then: Then::Put { version: 300, body: vec![1] },
                },
                IdentityWrite { kind: 1, name: "group".into(), expected: Some(5), then: Then::Keep },
                IdentityWrite { kind: 2, name: "role".into(), expected: Some(6), then: Then::Delete },
            ],
            keys: vec![
                KeyWrite::Create { access_key: "K".into(), user: Some("ann".into()), sealed_secret: vec![2] },
                KeyWrite::SetActive { access_key: "L".into(), active: false },
                KeyWrite::Delete { access_key: "M".into() },
            ],
            at: NOW,
        }),
        Command::Shred(ShredCommand::Begin(ShredOrder {
            tenant: tenant_id(1),
            was: vec![1, 2],
            keys: vec![(1, KeyId::from_bytes([5; 16]))],
            secrets: vec!["named key x".into()],
            by: "admin".into(),
            overridden: Some("why".into()),
            at: NOW,
        })),
        Command::Shred(ShredCommand::Destroy {
            tenant: tenant_id(1),
            through: BTreeMap::from([(GroupId::new(2), 300)]),
            at: NOW,
        }),
        Command::Shred(ShredCommand::Confirm { tenant: tenant_id(1), node: node(300), at: NOW }),
        Command::Shred(ShredCommand::Finish {
            tenant: tenant_id(1),
            certificate: "HOLDFAST".into(),
            at: NOW,
        }),
        Command::SplitPartition { partition: PartitionId::new(300), of: 2 },
        Command::Features(FeatureCommand::Report { node: node(300), level: 2 }),
        Command::Features(FeatureCommand::Raise { level: 300 }),
        Command::NoteLabels(vec![(drive_id(4), 300)]),
        Command::SetTenantLimits {
            tenant: tenant_id(1),
            limits: TenantLimits {
                requests_per_second: Some(300),
                requests_at_once: None,
                in_bytes_per_second: Some(1 << 40),
                out_bytes_per_second: None,
            },
        },
        Command::RemoveSecret { name: "webhook".into() },
        Command::AccessKeys(AccessKeyCommand::Create {
            tenant: tenant_id(1),
            access_key: "KEY".into(),
            sealed_secret: vec![1, 2],
            bounds: KeyBounds { expires: Some(LATER), policy: None },
            at: NOW,
        }),
        Command::AccessKeys(AccessKeyCommand::SetBounds {
            tenant: tenant_id(1),
            access_key: "KEY".into(),
            bounds: KeyBounds { expires: None, policy: Some(vec![7; 3]) },
        }),
        Command::AccessKeys(AccessKeyCommand::ReserveJournal {
            tenant: tenant_id(1),
            address: "a2".repeat(JOURNAL_ADDRESS_SIZE / 2),
        }),
    ]
}

fn outcomes() -> Vec<Outcome> {
    vec![
        Ok(Response::Done),
        Ok(Response::Registered(node(3))),
        Ok(Response::TenantCreated(PartitionId::new(1), GroupId::new(2))),
        Ok(Response::Replayed),
        Err(Refusal::ClusterExists(ClusterId::from_bytes([1; 16]))),
        Err(Refusal::NoCluster),
        Err(Refusal::TokenUnknown),
        Err(Refusal::TokenExpired),
        Err(Refusal::TokenUsed(node(2))),
        Err(Refusal::NameTaken { what: "node".into(), name: "n1".into() }),
        Err(Refusal::NotFound { what: "node".into(), name: "n9".into() }),
        Err(Refusal::TooManyNodes),
        Err(Refusal::Removed { what: "node".into(), name: "n2".into() }),
        Err(Refusal::Last { what: "operator".into(), name: "admin".into() }),
        Err(Refusal::Invalid("why".into())),
        Err(Refusal::Stale { what: "root".into() }),
        Err(Refusal::Changed("ann".into())),
        Err(Refusal::TooLarge { limit: 300 }),
        Ok(Response::PartitionAdded(PartitionId::new(300), GroupId::new(2))),
        Err(Refusal::FeatureLevel { needs: 2, has: 1 }),
    ]
}

/// Each on its own line, in hex. Set `HOLDFAST_WRITE_GOLDEN` to write a new version's file.
fn check(name: &str, lines: &[Bytes]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let hex = |bytes: &Bytes| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    let text: String = lines.iter().map(hex).collect();
    if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "the encoding changed: that is a new COMMAND_VERSION beside this one");
}

fn unhex(line: &str) -> Vec<u8> {
    (0..line.len()).step_by(2).map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap()).collect()
}

/// Reads a file that an earlier release wrote.
fn published(name: &str) -> Vec<Vec<u8>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read_to_string(path).unwrap().lines().map(unhex).collect()
}

#[test]
fn commands_and_outcomes_of_every_version_stay_readable() {
    let (commands, outcomes) = (commands(), outcomes());
    check("commands_v3.hex", &commands.iter().map(Command::encode).collect::<Vec<_>>());
    check("outcomes_v3.hex", &outcomes.iter().map(encode_outcome).collect::<Vec<_>>());
    for (version, known) in [("v1", 18), ("v2", 20), ("v3", commands.len())] {
        let lines = published(&format!("commands_{version}.hex"));
        assert_eq!(lines.len(), known, "{version}");
        for (line, command) in lines.iter().zip(&commands) {
            assert_eq!(&Command::decode(line).unwrap(), command, "{version}");
        }
        for (line, outcome) in published(&format!("outcomes_{version}.hex")).iter().zip(&outcomes) {
            assert_eq!(&decode_outcome(line).unwrap(), outcome, "{version}");
        }
    }
}
