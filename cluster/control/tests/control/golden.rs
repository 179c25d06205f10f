//! The encoding of commands is a promise to logs already written: published bytes stay readable.

use bytes::Bytes;
use holdfast_control::{
    Command, DriveState, Outcome, Refusal, Response, ServiceAddresses, TenantState, decode_outcome,
    encode_outcome,
};
use holdfast_model::{ClusterId, GroupId, PartitionId};

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
    ]
}

/// Each on its own line, in hex. Set `HOLDFAST_WRITE_GOLDEN` to write a new version's file.
fn check(name: &str, lines: &[Bytes]) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let hex = |bytes: &Bytes| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    let text: String = lines.iter().map(hex).collect();
    if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text, golden, "the encoding changed: that is a new COMMAND_VERSION beside this one");
    golden
}

fn unhex(line: &str) -> Vec<u8> {
    (0..line.len()).step_by(2).map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn version_1_commands_stay_readable() {
    let commands = commands();
    let golden = check("commands_v1.hex", &commands.iter().map(Command::encode).collect::<Vec<_>>());
    for (line, command) in golden.lines().zip(&commands) {
        assert_eq!(&Command::decode(&unhex(line)).unwrap(), command);
    }
}

#[test]
fn version_1_outcomes_stay_readable() {
    let outcomes = outcomes();
    let golden = check("outcomes_v1.hex", &outcomes.iter().map(encode_outcome).collect::<Vec<_>>());
    for (line, outcome) in golden.lines().zip(&outcomes) {
        assert_eq!(&decode_outcome(&unhex(line)).unwrap(), outcome);
    }
}
