//! Events are queued with the changes they tell of, and settled once.

use std::collections::BTreeSet;

use holdfast_catalog::{
    BucketChange, DocumentKind, EVENTS_OF_BUCKET_MAX, EventKind, LifecycleItem, LifecycleStep,
    NotificationRule, Notifications, ObjectChange, Op, Origin, QueuedEvent, Refusal, Response, SetObject,
    Settle, TargetForm, Versioning, WrittenBy,
};
use holdfast_model::{DatabaseId, PartitionId, UnixMillis};

use crate::common::*;

const LATE: UnixMillis = UnixMillis::new(u64::MAX >> 1);

fn rule(id: &str, target: &str, events: &[&str], prefix: &str) -> NotificationRule {
    NotificationRule {
        id: id.into(),
        form: TargetForm::Queue,
        arn: format!("arn:{target}"),
        target: target.into(),
        events: events.iter().map(|name| (*name).into()).collect(),
        prefix: (!prefix.is_empty()).then(|| prefix.into()),
        suffix: None,
    }
}

fn notify(rules: Vec<NotificationRule>) -> Op {
    let body = Some(Notifications { owner: "owner".into(), rules }.encode());
    set_bucket(1, BucketChange::Document { kind: DocumentKind::Notification, id: String::new(), body })
}

fn all() -> Vec<NotificationRule> {
    let events = [
        "s3:ObjectCreated:*",
        "s3:ObjectRemoved:*",
        "s3:LifecycleExpiration:*",
        "s3:ObjectTagging:*",
        "s3:ObjectAcl:Put",
    ];
    vec![rule("r", "hook", &events, "")]
}

fn due(replica: &Replica, target: &str) -> Vec<QueuedEvent> {
    replica.reader().events_due(target, LATE, 1000).unwrap()
}

fn kinds(replica: &Replica) -> Vec<EventKind> {
    due(replica, "hook").into_iter().map(|queued| queued.event.kind).collect()
}

fn settle(replica: &mut Replica, items: Vec<(u64, Settle)>) {
    replica.expect(Op::SettleEvents { items }, Response::EventsSettled);
}

/// A replica whose bucket asks for everything and whose queue is empty.
fn told(dir: &std::path::Path) -> Replica {
    let mut replica = Replica::with_bucket(dir);
    replica.expect(notify(all()), Response::BucketSet);
    let test = due(&replica, "hook");
    assert_eq!((test.len(), test[0].event.kind), (1, EventKind::Test));
    settle(&mut replica, vec![(test[0].no, Settle::Delivered)]);
    replica
}

#[test]
fn each_change_is_told_as_what_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = told(dir.path());
    replica.done(versioning(Versioning::Enabled));
    replica.done(put("k", 1, 3, inline("abc")));
    let origin =
        Origin { by: WrittenBy::Copy, principal: "who".into(), address: "a".into(), request: "r".into() };
    let copy = Op::WithOrigin { origin: origin.clone(), op: Box::new(put("k", 2, 3, inline("abd"))) };
    let Response::ObjectPut { version, .. } = replica.done(copy) else { panic!() };
    let set =
        |change| Op::SetObject(SetObject { bucket: bucket_id(1), key: "k".into(), version: None, change });
    replica.done(set(ObjectChange::Tags(bytes::Bytes::from_static(b"tags"))));
    replica.done(set(ObjectChange::Tags(bytes::Bytes::new())));
    replica.done(set(ObjectChange::Acl(bytes::Bytes::from_static(b"acl"))));
    replica.done(delete("k"));
    let named = holdfast_catalog::VersionSelector::Id(version.id);
    let items = vec![delete_item("k", 9, Some(named))];
    replica.done(Op::DeleteObjects { bucket: bucket_id(1), items });
    replica.done(create_upload("m", 1));
    replica.done(put_part("m", 1, 1, 5, 4, inline("part")));
    replica.done(complete("m", 1, 7, &[(1, 5)]));
    assert_eq!(
        kinds(&replica),
        [
            EventKind::Put,
            EventKind::Copy,
            EventKind::TagsPut,
            EventKind::TagsDelete,
            EventKind::AclPut,
            EventKind::DeleteMarker,
            EventKind::Delete,
            EventKind::CompleteUpload,
        ]
    );
    let events = due(&replica, "hook");
    assert!(events.windows(2).all(|pair| pair[0].no < pair[1].no));
    let copied = &events[1].event;
    assert_eq!((copied.origin.clone(), copied.version), (origin, Some(version)));
    assert_eq!((copied.bucket.as_str(), copied.key.as_str(), copied.owner.as_str()), ("b", "k", "owner"));
    assert_eq!((copied.size, copied.etag.as_deref(), copied.rule.as_str()), (Some(3), Some("etag-2"), "r"));
    assert_eq!((events[6].event.version, events[6].event.size), (Some(version), None));
    assert_eq!(events[0].event.origin, Origin::default());
}

#[test]
fn what_changed_nothing_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = told(dir.path());
    replica.done(put("k", 1, 3, inline("abc")));
    // The same put once more, as after an unknown outcome.
    replica.done(put("k", 1, 3, inline("abc")));
    replica.done(delete("other"));
    let condition = holdfast_catalog::Condition { if_absent: true, if_etag: None };
    let refused = replica.apply(put_into(bucket_id(1), "k", 2, 3, inline("abd"), condition));
    assert_eq!(refused, Err(Refusal::PreconditionFailed));
    assert_eq!(kinds(&replica), [EventKind::Put]);
}

#[test]
fn lifecycle_is_told_apart_from_clients() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = told(dir.path());
    let Response::ObjectPut { version, .. } = replica.done(put("k", 1, 3, inline("abc"))) else { panic!() };
    let step = LifecycleStep::ExpireCurrent { marker: [7; 10] };
    let items = vec![LifecycleItem { key: "k".into(), version: version.id, step }];
    replica.done(Op::Lifecycle { bucket: bucket_id(1), items });
    assert_eq!(kinds(&replica), [EventKind::Put, EventKind::Expired]);
}

#[test]
fn rules_decide_who_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let rules = vec![
        rule("a", "one", &["s3:ObjectCreated:*"], "a/"),
        rule("b", "two", &["s3:ObjectCreated:Put"], "b/"),
    ];
    replica.expect(notify(rules), Response::BucketSet);
    for key in ["a/1", "b/1", "c/1", "a/2"] {
        replica.done(put(key, 1, 1, inline("x")));
    }
    let keys = |target| due(&replica, target).into_iter().map(|queued| queued.event.key).collect::<Vec<_>>();
    assert_eq!(keys("one"), ["", "a/1", "a/2"]);
    assert_eq!(keys("two"), ["", "b/1"]);
    let queues = replica.reader().event_queues().unwrap();
    let shown: Vec<_> = queues.queues.iter().map(|queue| (queue.target.as_str(), queue.queued)).collect();
    assert_eq!((shown, queues.dropped), (vec![("one", 3), ("two", 2)], 0));
    // From here on nobody asks.
    let none = BucketChange::Document { kind: DocumentKind::Notification, id: String::new(), body: None };
    replica.expect(set_bucket(1, none), Response::BucketSet);
    replica.done(put("a/3", 2, 1, inline("x")));
    assert_eq!(due(&replica, "one").len(), 3);
}

#[test]
fn unsound_rules_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = told(dir.path());
    let twice =
        vec![rule("a", "one", &["s3:ObjectCreated:*"], ""), rule("b", "two", &["s3:ObjectCreated:Put"], "x")];
    assert!(matches!(replica.apply(notify(twice)), Err(Refusal::Invalid(_))));
    replica.done(put("k", 1, 1, inline("x")));
    assert_eq!(kinds(&replica), [EventKind::Put]);
}

#[test]
fn settled_events_are_gone_and_others_wait_until_they_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = told(dir.path());
    for n in 1..=4 {
        replica.done(put("k", n, 1, inline("x")));
    }
    let numbers: Vec<u64> = due(&replica, "hook").into_iter().map(|queued| queued.no).collect();
    let later = UnixMillis::new(time_of(1_000_000));
    let items = vec![
        (numbers[0], Settle::Delivered),
        (numbers[1], Settle::Dropped),
        (numbers[2], Settle::Retry { due: later }),
    ];
    settle(&mut replica, items.clone());
    let soon = UnixMillis::new(time_of(1000));
    let waiting = replica.reader().events_due("hook", soon, 10).unwrap();
    assert_eq!(waiting.iter().map(|queued| queued.no).collect::<Vec<_>>(), [numbers[3]]);
    let retried = &due(&replica, "hook")[0];
    assert_eq!((retried.no, retried.attempts), (numbers[2], 1));
    // Once more, by a worker that did not hear the answer: nothing is counted twice.
    settle(&mut replica, items[..2].to_vec());
    let queues = replica.reader().event_queues().unwrap();
    assert_eq!((queues.queues[0].queued, queues.dropped), (2, 1));
}

#[test]
fn a_full_queue_costs_events_and_no_write() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = told(dir.path());
    let max = u64::try_from(EVENTS_OF_BUCKET_MAX).unwrap();
    let mut n = 0;
    while n < max + 5 {
        let puts = (n..n + 1000).map(|n| put("k", n + 1, 1, inline("x"))).collect();
        assert!(replica.apply_all(puts).iter().all(Result::is_ok));
        n += 1000;
    }
    let queues = replica.reader().event_queues().unwrap();
    assert_eq!((queues.queues[0].queued, queues.dropped), (max, n - max));
    let first = due(&replica, "hook")[0].no;
    settle(&mut replica, vec![(first, Settle::Delivered)]);
    replica.done(put("k", n + 1, 1, inline("x")));
    assert_eq!(replica.reader().event_queues().unwrap().dropped, n - max);
}

#[test]
fn a_split_tells_each_event_once_and_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = told(dir.path());
    let keys: Vec<String> = (0..20).map(|n| format!("k{n}")).collect();
    for key in &keys {
        replica.done(put(key, 1, 1, inline("x")));
    }
    let before = due(&replica, "hook");
    let into = PartitionId::new(7);
    replica.expect(
        Op::SplitPartition { into, database_id: DatabaseId::from_bytes([5; 16]) },
        Response::PartitionSplit,
    );
    let upper = replica.machine.reader().partition(into).unwrap();
    assert_eq!(due(&replica, "hook"), before);
    assert!(upper.events_due("hook", LATE, 1000).unwrap().is_empty());
    replica.index += 1;
    let puts: Vec<_> =
        keys.iter().map(|key| for_partition(7, replica.index, put(key, 2, 1, inline("y")))).collect();
    let outcomes = apply(&mut replica.machine, replica.index, &puts);
    let moved = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let after = upper.events_due("hook", LATE, 1000).unwrap();
    assert!(moved > 0 && after.len() == moved);
    let last = before.last().unwrap().no;
    assert!(after.iter().all(|queued| queued.no > last));
    // New rules are tested once, not by each partition.
    let mut test = all();
    test[0].id = "anew".into();
    replica.expect(notify(test), Response::BucketSet);
    let tests = |events: Vec<QueuedEvent>| events.iter().filter(|q| q.event.kind == EventKind::Test).count();
    assert_eq!((tests(due(&replica, "hook")), tests(upper.events_due("hook", LATE, 1000).unwrap())), (1, 0));
    let told: BTreeSet<String> = after.into_iter().map(|queued| queued.event.key).collect();
    assert_eq!(told.len(), moved);
}

#[test]
fn only_changes_of_objects_have_an_origin() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = told(dir.path());
    let wrap = |op| Op::WithOrigin { origin: Origin::default(), op: Box::new(op) };
    for op in [create_bucket(2, "c"), wrap(delete("k")), Op::ClearPartition, create_partition(PARTITION)] {
        assert!(matches!(replica.apply(wrap(op)), Err(Refusal::Invalid(_))));
    }
    let long = Origin { principal: "x".repeat(1000), ..Origin::default() };
    let op = Op::WithOrigin { origin: long, op: Box::new(delete("k")) };
    assert!(matches!(replica.apply(op), Err(Refusal::Invalid(_))));
}
