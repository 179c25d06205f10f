//! The encoding of commands is a promise to logs already written: published bytes stay readable.

use bytes::Bytes;
use holdfast_catalog::{
    BucketChange, BucketStateRule, Command, Condition, DefaultRetention, Deleted, DocumentKind, GarbageId,
    LifecycleItem, LifecycleStep, MoveShards, ObjectChange, Op, Origin, Orphan, Outcome, Quota, Refusal,
    RequestId, Response, Retention, RetentionMode, RetentionPeriod, SetObject, Settle, ShardMove,
    VersionSelector, Versioning, WrittenBy, decode_outcome, encode_outcome,
};
use holdfast_model::{DatabaseId, Generation, PartitionId, ShardIndex, UnixMillis};

use crate::common::*;

/// One command of every kind, in the order of the kinds.
fn commands() -> Vec<Command> {
    let condition = Condition { if_absent: true, if_etag: Some("e".into()) };
    let mut complete_with = complete("k", 1, 2, &[(1, 7), (2, 8)]);
    let Op::CompleteUpload(c) = &mut complete_with else { unreachable!() };
    c.attributes = Some(Bytes::from_static(b"other"));
    let shard = ShardMove { index: ShardIndex::new(2), from: place(1), to: place(2) };
    let orphan = Orphan {
        stripe: stripe_id(9),
        generation: Generation::new(1),
        shards: vec![(ShardIndex::new(3), place(4))],
    };
    let default = DefaultRetention { mode: RetentionMode::Compliance, period: RetentionPeriod::Days(300) };
    let retention = Retention { mode: RetentionMode::Governance, until: UnixMillis::new(300) };
    let set_object = |change| {
        let version = Some(VersionSelector::Id(version(1)));
        Op::SetObject(SetObject { bucket: bucket_id(1), key: "k".into(), version, change })
    };
    let ops = vec![
        create_partition(PARTITION),
        create_bucket(1, "bucket"),
        Op::DeleteBucket { name: "bucket".into() },
        Op::SetQuota { quota: Quota { bytes: Some(300), objects: None } },
        versioning(Versioning::Suspended),
        set_bucket(1, BucketChange::EnableObjectLock),
        set_bucket(1, BucketChange::DefaultRetention(Some(default))),
        set_bucket(
            1,
            BucketChange::Document {
                kind: DocumentKind::Cors,
                id: "i".into(),
                body: Some(Bytes::from_static(b"cors")),
            },
        ),
        set_object(ObjectChange::Tags(Bytes::from_static(b"tags"))),
        set_object(ObjectChange::LegalHold(true)),
        set_object(ObjectChange::Retention { retention: Some(retention), bypass_governance: true }),
        put_into(bucket_id(1), "inline", 3, 5, inline("sealed"), condition),
        put("striped", 4, 20, stripes(1..3, 10)),
        delete("k"),
        create_upload("k", 1),
        put_part("k", 1, 2, 5, 10, stripes(3..4, 10)),
        complete("k", 1, 2, &[(1, 7)]),
        complete_with,
        abort("k", 1),
        Op::RemoveGarbage { ids: vec![GarbageId::Stripe(stripe_id(1)), GarbageId::Shards(300)] },
        Op::MoveShards(MoveShards {
            stripe: stripe_id(1),
            expected: Generation::new(300),
            moves: vec![shard],
        }),
        Op::Condemn { stripes: vec![orphan] },
        Op::Lifecycle {
            bucket: bucket_id(1),
            items: [
                LifecycleStep::ExpireCurrent { marker: [6; 10] },
                LifecycleStep::ExpireNoncurrent,
                LifecycleStep::ExpireMarker,
                LifecycleStep::Attributes(Bytes::from_static(b"attributes")),
            ]
            .map(|step| LifecycleItem { key: "k".into(), version: version(1), step })
            .to_vec(),
        },
        replace(7, 1, stripes(4..6, 10)),
        Op::CreateBucketWith {
            bucket: bucket_id(1),
            name: "bucket".into(),
            object_lock: true,
            documents: vec![(DocumentKind::Owner, Bytes::from_static(b"owner"))],
        },
        drop_partition(PARTITION),
    ];
    for_golden(ops)
}

/// One command of every kind that version 4 brought.
fn commands_of_splits() -> Vec<Command> {
    let (bucket, token) = (bucket_id(1), [7; 16]);
    let into = PartitionId::new(300);
    for_golden(vec![
        Op::SplitPartition { into, database_id: DatabaseId::from_bytes([6; 16]) },
        Op::ClearPartition,
        Op::CloseBucket { bucket, token },
        Op::ReopenBucket { bucket, token },
        Op::DeleteClosedBucket { bucket, token },
        Op::Bar { stripes: vec![stripe_id(1)] },
        Op::ShareQuota { before: 300, shares: vec![(into, Quota { bytes: None, objects: Some(1) })] },
    ])
}

/// What version 5 brought.
fn commands_of_events() -> Vec<Command> {
    let origin = Origin {
        by: WrittenBy::Copy,
        principal: "principal".into(),
        address: "192.0.2.1".into(),
        request: "request".into(),
    };
    let retry = Settle::Retry { due: UnixMillis::new(1_700_000_000_000) };
    let rules = |body| {
        let kind = DocumentKind::Notification;
        set_bucket(1, BucketChange::Document { kind, id: String::new(), body })
    };
    for_golden(vec![
        Op::WithOrigin { origin, op: Box::new(delete("k")) },
        Op::SettleEvents { items: vec![(1, Settle::Delivered), (300, Settle::Dropped), (2, retry)] },
        rules(Some(Bytes::from_static(b"rules"))),
        rules(None),
    ])
}

fn for_golden(ops: Vec<Op>) -> Vec<Command> {
    ops.into_iter()
        .map(|op| Command {
            partition: PARTITION,
            at: UnixMillis::new(1_700_000_000_000),
            request: Some(RequestId::from_bytes([5; 16])),
            op,
        })
        .collect()
}

fn outcomes_of_splits() -> Vec<Outcome> {
    vec![
        Ok(Response::PartitionSplit),
        Ok(Response::Cleared { done: true }),
        Ok(Response::BucketClosed),
        Ok(Response::BucketReopened),
        Ok(Response::QuotaShared),
        Err(Refusal::Moved),
        Err(Refusal::Clearing),
        Err(Refusal::BucketClosed { token: [7; 16] }),
        Ok(Response::ObjectsDeleted(vec![Ok(Deleted::Nothing), Err(Refusal::Moved)])),
    ]
}

fn outcomes() -> Vec<Outcome> {
    vec![
        Ok(Response::ObjectPut { version: null(1), modified: UnixMillis::new(1_700_000_000_000) }),
        Ok(Response::ObjectsDeleted(vec![
            Ok(Deleted::Nothing),
            Ok(Deleted::Removed { version: null(1), marker: false }),
            Ok(Deleted::Marked { marker: null(2) }),
            Err(Refusal::PreconditionFailed),
        ])),
        Err(Refusal::BucketState(BucketStateRule::NoObjectLock)),
        Err(Refusal::TooOld),
        Ok(Response::Condemned(vec![true, false])),
        Ok(Response::Replayed),
        Err(Refusal::PartTooSmall { number: 1, size: 2, min: 3 }),
        Err(Refusal::Invalid("why".into())),
        Ok(Response::StripesReplaced),
        Err(Refusal::ContentChanged),
        Ok(Response::PartitionDropped),
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

/// Reads a published file.
fn published(name: &str) -> Vec<Vec<u8>> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    std::fs::read_to_string(path).unwrap().lines().map(unhex).collect()
}

/// Version 2 had the first 23 kinds of commands and the first 8 of these outcomes.
#[test]
fn version_2_stays_readable() {
    let (commands, outcomes) = (commands(), outcomes());
    let golden = include_str!("../golden/commands_v2.hex");
    assert_eq!(golden.lines().count(), 23);
    for (line, command) in golden.lines().zip(&commands) {
        assert_eq!(&Command::decode(&unhex(line)).unwrap(), command);
    }
    let golden = include_str!("../golden/outcomes_v2.hex");
    assert_eq!(golden.lines().count(), 8);
    for (line, outcome) in golden.lines().zip(&outcomes) {
        assert_eq!(&decode_outcome(&unhex(line)).unwrap(), outcome);
    }
}

#[test]
fn version_3_commands_stay_readable() {
    let commands = commands();
    check("commands_v3.hex", &commands.iter().map(Command::encode).collect::<Vec<_>>());
    for (line, command) in published("commands_v3.hex").iter().zip(&commands) {
        assert_eq!(&Command::decode(line).unwrap(), command);
        assert_eq!(Command::partition_of(line), Some(PARTITION));
    }
}

#[test]
fn version_3_outcomes_stay_readable() {
    let outcomes = outcomes();
    check("outcomes_v3.hex", &outcomes.iter().map(encode_outcome).collect::<Vec<_>>());
    for (line, outcome) in published("outcomes_v3.hex").iter().zip(&outcomes) {
        assert_eq!(&decode_outcome(line).unwrap(), outcome);
    }
}

#[test]
fn version_4_stays_readable_and_is_used_for_nothing_older() {
    let (commands, outcomes) = (commands_of_splits(), outcomes_of_splits());
    check("commands_v4.hex", &commands.iter().map(Command::encode).collect::<Vec<_>>());
    check("outcomes_v4.hex", &outcomes.iter().map(encode_outcome).collect::<Vec<_>>());
    for (line, command) in published("commands_v4.hex").iter().zip(&commands) {
        assert_eq!((&Command::decode(line).unwrap(), line[0]), (command, 4));
    }
    for (line, outcome) in published("outcomes_v4.hex").iter().zip(&outcomes) {
        assert_eq!((&decode_outcome(line).unwrap(), line[0]), (outcome, 4));
    }
}

#[test]
fn version_5_stays_readable_and_is_used_for_nothing_older() {
    let (commands, outcomes) = (commands_of_events(), vec![Ok(Response::EventsSettled)]);
    check("commands_v5.hex", &commands.iter().map(Command::encode).collect::<Vec<_>>());
    check("outcomes_v5.hex", &outcomes.iter().map(encode_outcome).collect::<Vec<_>>());
    for (line, command) in published("commands_v5.hex").iter().zip(&commands) {
        assert_eq!((&Command::decode(line).unwrap(), line[0]), (command, 5));
    }
    for (line, outcome) in published("outcomes_v5.hex").iter().zip(&outcomes) {
        assert_eq!((&decode_outcome(line).unwrap(), line[0]), (outcome, 5));
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(
        which in 0..commands().len(),
        flips in proptest::collection::vec((0..400usize, 0..=255u8), 0..4),
        noise in proptest::collection::vec(0..=255u8, 0..64),
    ) {
        let mut bytes = commands()[which].encode().to_vec();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        // What decodes encodes to something that decodes to the same.
        for bytes in [bytes, noise] {
            if let Ok(command) = Command::decode(&bytes) {
                assert_eq!(Command::decode(&command.encode()), Ok(command));
            }
            let _ = decode_outcome(&bytes);
        }
    }
}
