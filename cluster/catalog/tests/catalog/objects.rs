//! Buckets and objects: rules, conditions, retries, refusals that change nothing.

use crate::common::*;
use holdfast_catalog::{Command, Condition, DeleteItem, Deleted, Op, ReadError, Refusal, Response, Usage};
use holdfast_consensus::{Applied, StateMachine};
use holdfast_model::{PartitionId, UnixMillis};

#[test]
fn an_object_reads_back_as_it_was_put() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("small", 1, 5, inline("sealed")));
    replica.done(put("large", 2, 30, stripes(1..4, 10)));
    let reader = replica.reader();

    let small = reader.get_object("b", "small").unwrap();
    assert_eq!((small.head.size, small.head.etag.as_str(), small.head.version), (5, "etag-1", null(1)));
    assert_eq!(&small.head.attributes[..], b"attributes-1");
    assert_eq!((small.content.len(), &small.content[0].wrapped_key[..]), (1, &b"key-1"[..]));
    assert_eq!(small.content[0].body, inline("sealed"));

    let large = reader.get_object("b", "large").unwrap();
    assert_eq!(large.content[0].body, stripes(1..4, 10));
    assert_eq!(large.head.modified.get(), time_of(replica.index));

    assert!(matches!(reader.get_object("b", "none"), Err(ReadError::NoSuchKey)));
    assert!(matches!(reader.get_object("none", "small"), Err(ReadError::NoSuchBucket)));
    let usage = Usage { objects: 2, bytes: 35, ..Usage::default() };
    assert_eq!(reader.usage().unwrap(), usage);
    assert_eq!(reader.get_bucket("b").unwrap().usage, usage);
}

#[test]
fn a_range_brings_only_the_stripes_that_hold_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 50, stripes(1..6, 10)));
    let reader = replica.reader();
    let ids = |range: std::ops::Range<u64>| {
        let row = reader.get_object_range("b", "k", None, |head| {
            assert_eq!(head.size, 50);
            range
        });
        let part = row.unwrap().content.remove(0);
        (part.skipped, part.body.stripes().iter().map(|s| s.number).collect::<Vec<_>>())
    };
    assert_eq!(ids(0..50), (0, vec![1, 2, 3, 4, 5]));
    assert_eq!(ids(10..20), (10, vec![2]));
    assert_eq!(ids(19..21), (10, vec![2, 3]));
    assert_eq!(ids(49..50), (40, vec![5]));
    assert_eq!(ids(0..1), (0, vec![1]));
}

#[test]
fn conditions_are_decided_when_the_command_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let absent = || Condition { if_absent: true, if_etag: None };
    let etag = |etag: &str| Condition { if_absent: false, if_etag: Some(etag.into()) };
    let put = |n, condition| put_into(bucket_id(1), "k", n, 1, inline("x"), condition);

    assert_eq!(replica.apply(put(1, etag("etag-0"))), Err(Refusal::NoSuchKey));
    // Two writers in one entry: the first wins.
    let outcomes = replica.apply_all(vec![put(2, absent()), put(3, absent())]);
    assert!(outcomes[0].is_ok());
    assert_eq!(outcomes[1], Err(Refusal::PreconditionFailed));
    assert_eq!(replica.apply(put(4, etag("etag-3"))), Err(Refusal::PreconditionFailed));
    assert!(replica.apply(put(5, etag("etag-2"))).is_ok());
    assert_eq!(replica.reader().head_object("b", "k", None).unwrap().version, null(5));

    let items =
        [("k", Some("etag-2")), ("none", Some("x")), ("none", None), ("k", Some("etag-5")), ("k", None)];
    let item = |(key, e): (&str, Option<&str>)| DeleteItem {
        if_etag: e.map(str::to_owned),
        ..delete_item(key, 0, None)
    };
    let items = items.map(item).to_vec();
    let expected = vec![
        Err(Refusal::PreconditionFailed),
        Err(Refusal::NoSuchKey),
        Ok(Deleted::Nothing),
        Ok(Deleted::Removed { version: null(5), marker: false }),
        Ok(Deleted::Nothing),
    ];
    replica.expect(Op::DeleteObjects { bucket: bucket_id(1), items }, Response::ObjectsDeleted(expected));
}

#[test]
fn a_repeated_put_answers_the_same_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let once = Condition { if_absent: true, if_etag: None };
    let op = put_into(bucket_id(1), "k", 1, 10, stripes(1..2, 10), once);
    let first = replica.done(op.clone());
    assert_eq!(replica.done(op.clone()), first);
    assert_eq!(replica.reader().usage().unwrap().objects, 1);
    assert!(all_garbage(&replica.reader()).is_empty());

    // Overwritten meanwhile: the late repetition is refused and does not bring the old object back.
    replica.done(put("k", 2, 1, inline("new")));
    assert_eq!(replica.apply(put("k", 1, 10, stripes(1..2, 10))), Err(Refusal::StripeInUse(stripe_id(1))));
    assert_eq!(replica.reader().head_object("b", "k", None).unwrap().version, null(2));
}

#[test]
fn buckets_are_created_once_and_deleted_when_empty() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.expect(create_bucket(1, "b"), Response::BucketCreated);
    let exists = Refusal::BucketAlreadyExists { bucket: bucket_id(1) };
    assert_eq!(replica.apply(create_bucket(2, "b")), Err(exists));
    assert!(matches!(replica.apply(create_bucket(1, "other")), Err(Refusal::Invalid(_))));

    let delete_bucket = || Op::DeleteBucket { name: "b".into() };
    replica.done(put("k", 1, 1, inline("x")));
    assert_eq!(replica.apply(delete_bucket()), Err(Refusal::BucketNotEmpty));
    replica.done(delete("k"));
    replica.done(create_upload("k", 1));
    assert_eq!(replica.apply(delete_bucket()), Err(Refusal::BucketNotEmpty));
    replica.done(abort("k", 1));
    replica.expect(delete_bucket(), Response::BucketDeleted);
    assert_eq!(replica.apply(delete_bucket()), Err(Refusal::NoSuchBucket));

    // A bucket of the same name is another bucket: writes meant for the old one are refused.
    let outcomes = replica.apply_all(vec![create_bucket(2, "b"), put("k", 2, 1, inline("x"))]);
    assert_eq!(outcomes, [Ok(Response::BucketCreated), Err(Refusal::NoSuchBucket)]);
    assert_eq!(replica.reader().get_bucket("b").unwrap().id, bucket_id(2));
}

#[test]
fn buckets_are_listed_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.apply_all(vec![create_bucket(2, "zoo"), create_bucket(3, "a-1"), create_bucket(4, "a.1")]);
    let names: Vec<_> = replica.reader().list_buckets().unwrap().into_iter().map(|b| b.name).collect();
    assert_eq!(names, ["a-1", "a.1", "b", "zoo"]);
}

#[test]
fn bodies_that_contradict_themselves_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let before = replica.reader().digest().unwrap().sha256;
    let mut short = stripe(1, 10);
    short.places.pop();
    let mut doubled = stripe(1, 10);
    doubled.places[1] = doubled.places[0];
    let body = |stripe| holdfast_catalog::BodyRef::Stripes(vec![stripe]);
    let bad = [
        put("k", 1, 11, stripes(1..2, 10)),
        put("k", 1, 0, holdfast_catalog::BodyRef::Stripes(Vec::new())),
        put("k", 1, 10, body(short)),
        put("k", 1, 10, body(doubled)),
        put("k", 1, 20, holdfast_catalog::BodyRef::Stripes(vec![stripe(1, 10), stripe(1, 10)])),
        put("k", 1, 1024 * 1024, inline("x")),
        put("", 1, 1, inline("x")),
        put(&"k".repeat(1025), 1, 1, inline("x")),
    ];
    for op in bad {
        let outcome = replica.apply(op);
        assert!(matches!(outcome, Err(Refusal::Invalid(_))), "{outcome:?}");
    }
    // All but the applied index is as before.
    let fresh = tempfile::tempdir().unwrap();
    let mut other = Replica::with_bucket(fresh.path());
    assert_eq!(other.reader().digest().unwrap().sha256, before);
    other.index = replica.index - 1;
    other.apply(put("", 1, 1, inline("x"))).unwrap_err();
    assert_eq!(other.reader().digest().unwrap(), replica.reader().digest().unwrap());
}

#[test]
fn commands_for_other_partitions_and_other_databases_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let elsewhere = Command {
        partition: PartitionId::new(7),
        at: UnixMillis::new(1),
        request: None,
        op: create_bucket(1, "b"),
    };
    let outcomes = apply(&mut replica.machine, 10, &[sealed(&elsewhere)]);
    assert_eq!(outcomes, [Err(Refusal::NoSuchPartition(PartitionId::new(7)))]);
    replica.index = 10;
    replica.expect(create_partition(PARTITION), Response::PartitionCreated);
    let mut other = create_partition(PARTITION);
    let Op::CreatePartition { database_id, .. } = &mut other else { unreachable!() };
    *database_id = holdfast_model::DatabaseId::from_bytes([0; 16]);
    assert_eq!(replica.apply(other), Err(Refusal::PartitionExists(PARTITION)));
}

#[test]
fn malformed_commands_are_refused_and_unknown_versions_stop_the_replica() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let good = command(3, put("k", 1, 1, inline("x")));
    let cut = good.slice(..good.len() - 1);
    assert!(matches!(apply(&mut replica.machine, 3, &[cut])[0], Err(Refusal::Invalid(_))));
    let longer = bytes::Bytes::from([&good[..], b"x"].concat());
    assert!(matches!(apply(&mut replica.machine, 4, &[longer])[0], Err(Refusal::Invalid(_))));

    // A command of a version to come, in one entry with one that is fine: nothing of the entry is kept.
    let newer = bytes::Bytes::from([&[good[0] + 1], &good[1..]].concat());
    let entry = [good, newer];
    assert!(replica.machine.apply(&[Applied { index: 5, commands: &entry }]).is_err());
    assert!(matches!(replica.reader().head_object("b", "k", None), Err(ReadError::NoSuchKey)));
    // The node is updated and the entry comes again.
    assert!(apply(&mut replica.machine, 5, &entry[..1])[0].is_ok());
}
