//! Steps of lifecycle rules are taken only on versions that stand where the worker saw them.

use holdfast_catalog::{
    BucketChange, DefaultRetention, Deleted, LifecycleItem, LifecycleStep, Op, Refusal, Response,
    RetentionMode, RetentionPeriod, VersionQuery, VersionRef, Versioning,
};
use holdfast_model::VersionId;

use crate::common::*;

fn put_version(replica: &mut Replica, key: &str, n: u64) -> VersionRef {
    match replica.done(put(key, n, 1, inline("x"))) {
        Response::ObjectPut { version, .. } => version,
        other => panic!("{other:?}"),
    }
}

fn step(
    replica: &mut Replica,
    key: &str,
    version: VersionId,
    step: LifecycleStep,
) -> Result<Deleted, Refusal> {
    let items = vec![LifecycleItem { key: key.into(), version, step }];
    match replica.done(Op::Lifecycle { bucket: bucket_id(1), items }) {
        Response::ObjectsDeleted(mut answers) => answers.remove(0),
        other => panic!("{other:?}"),
    }
}

fn expire(replica: &mut Replica, version: VersionId) -> Result<Deleted, Refusal> {
    step(replica, "k", version, LifecycleStep::ExpireCurrent { marker: [7; 10] })
}

fn count(replica: &Replica) -> usize {
    let query = VersionQuery { limit: 1000, ..VersionQuery::default() };
    replica.reader().list_versions("b", &query).unwrap().versions.len()
}

#[test]
fn an_object_written_after_it_was_judged_does_not_expire() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let judged = put_version(&mut replica, "k", 1);
    // The same content and ETag: only the version tells it apart.
    let written = put_version(&mut replica, "k", 2);
    assert_eq!(expire(&mut replica, judged.id), Ok(Deleted::Nothing));
    assert_eq!(expire(&mut replica, written.id), Ok(Deleted::Removed { version: written, marker: false }));
    assert_eq!(count(&replica), 0);
}

#[test]
fn current_versions_get_a_marker_and_noncurrent_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(versioning(Versioning::Enabled));
    let old = put_version(&mut replica, "k", 1);
    let new = put_version(&mut replica, "k", 2);
    let noncurrent = |replica: &mut Replica, version: VersionId| {
        step(replica, "k", version, LifecycleStep::ExpireNoncurrent)
    };
    assert_eq!(noncurrent(&mut replica, new.id), Ok(Deleted::Nothing), "it is the current one");
    assert_eq!(expire(&mut replica, old.id), Ok(Deleted::Nothing), "it is not the current one");
    let Ok(Deleted::Marked { marker }) = expire(&mut replica, new.id) else { panic!() };
    let lone = |replica: &mut Replica| step(replica, "k", marker.id, LifecycleStep::ExpireMarker);
    assert_eq!(lone(&mut replica), Ok(Deleted::Nothing), "versions stand behind it");
    for version in [old, new] {
        let gone = Ok(Deleted::Removed { version, marker: false });
        assert_eq!(noncurrent(&mut replica, version.id), gone);
    }
    assert_eq!(lone(&mut replica), Ok(Deleted::Removed { version: marker, marker: true }));
    assert_eq!(count(&replica), 0);
}

#[test]
fn locks_hold_against_rules() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(versioning(Versioning::Enabled));
    replica.done(set_bucket(1, BucketChange::EnableObjectLock));
    let default = DefaultRetention { mode: RetentionMode::Governance, period: RetentionPeriod::Days(1) };
    replica.done(set_bucket(1, BucketChange::DefaultRetention(Some(default))));
    let old = put_version(&mut replica, "k", 1);
    put_version(&mut replica, "k", 2);
    let refused = step(&mut replica, "k", old.id, LifecycleStep::ExpireNoncurrent);
    assert_eq!(refused, Err(Refusal::Locked));
    assert_eq!(count(&replica), 2);
}

#[test]
fn a_change_of_class_replaces_attributes_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let version = put_version(&mut replica, "k", 1);
    let before = replica.reader().head_object("b", "k", None).unwrap();
    let change = LifecycleStep::Attributes(bytes::Bytes::from_static(b"other"));
    assert_eq!(step(&mut replica, "k", version.id, change), Ok(Deleted::Nothing));
    let after = replica.reader().head_object("b", "k", None).unwrap();
    assert_eq!(after.attributes.as_ref(), b"other");
    assert_eq!((after.version, after.modified, after.etag), (before.version, before.modified, before.etag));
}
