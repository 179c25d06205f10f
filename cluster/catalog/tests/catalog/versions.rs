//! Versions as clients of S3 know them, retentions and their clock, repeated requests, listings of versions.

use std::collections::BTreeMap;

use crate::common::*;
use holdfast_catalog::{
    BucketChange, Command, DefaultRetention, DeleteItem, Deleted, DocumentKind, ListQuery, ObjectChange, Op,
    Quota, REQUESTS_KEPT_MILLIS, ReadError, Refusal, RequestId, Response, Retention, RetentionMode,
    RetentionPeriod, SetObject, VersionMarker, VersionQuery, VersionRef, VersionSelector, Versioning,
};
use holdfast_model::{UnixMillis, VersionId};
use proptest::prelude::*;

fn delete_one(replica: &mut Replica, item: DeleteItem) -> Result<Deleted, Refusal> {
    let op = Op::DeleteObjects { bucket: bucket_id(1), items: vec![item] };
    let Response::ObjectsDeleted(mut answers) = replica.done(op) else { unreachable!() };
    answers.remove(0)
}

fn put_version(replica: &mut Replica, key: &str, n: u64) -> VersionRef {
    match replica.done(put(key, n, 1, inline("x"))) {
        Response::ObjectPut { version, .. } => version,
        other => panic!("{other:?}"),
    }
}

/// (version, null, marker, latest) of every version of the bucket.
fn all(replica: &Replica) -> Vec<(VersionId, bool, bool, bool)> {
    let page = replica.reader().list_versions("b", &VersionQuery { limit: 1000, ..VersionQuery::default() });
    page.unwrap().versions.iter().map(|v| (v.version.id, v.version.null, v.marker, v.latest)).collect()
}

#[test]
fn enabled_keeps_every_version_and_suspended_replaces_only_the_null_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let null_first = put_version(&mut replica, "k", 1);
    assert!(null_first.null);
    replica.done(versioning(Versioning::Enabled));
    let one = put_version(&mut replica, "k", 2);
    let two = put_version(&mut replica, "k", 3);
    assert_eq!(
        all(&replica),
        [(two.id, false, false, true), (one.id, false, false, false), (null_first.id, true, false, false)]
    );

    // Suspended: the null version is replaced wherever it stands, the others stay.
    replica.done(versioning(Versioning::Suspended));
    let null_second = put_version(&mut replica, "k", 4);
    assert_eq!(
        all(&replica),
        [(null_second.id, true, false, true), (two.id, false, false, false), (one.id, false, false, false)]
    );
    // A delete without version puts a null marker in the place of the null version.
    let Ok(Deleted::Marked { marker }) = delete_one(&mut replica, delete_item("k", 5, None)) else {
        panic!()
    };
    assert!(marker.null);
    assert!(matches!(
        replica.reader().head_object("b", "k", None),
        Err(ReadError::DeleteMarker { named: false, .. })
    ));
    assert_eq!(replica.reader().get_bucket("b").unwrap().usage.objects, 0);
    // Deleting the marker brings the newest version back; deleting that one brings the next.
    let null = Some(VersionSelector::Null);
    let gone = delete_one(&mut replica, delete_item("k", 0, null));
    assert_eq!(gone, Ok(Deleted::Removed { version: marker, marker: true }));
    assert_eq!(replica.reader().head_object("b", "k", None).unwrap().version, two);
    delete_one(&mut replica, delete_item("k", 0, Some(VersionSelector::Id(two.id)))).unwrap();
    assert_eq!(replica.reader().head_object("b", "k", None).unwrap().version, one);
    assert_eq!(delete_one(&mut replica, delete_item("k", 0, null)), Ok(Deleted::Nothing));
    assert!(matches!(replica.reader().head_object("b", "k", null), Err(ReadError::NoSuchVersion)));
    let off = replica.apply(versioning(Versioning::Off));
    assert!(matches!(off, Err(Refusal::BucketState(_))));
    assert_eq!(replica.apply(Op::DeleteBucket { name: "b".into() }), Err(Refusal::BucketNotEmpty));
}

#[test]
fn versions_sort_as_the_log_made_them_when_a_nodes_clock_is_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(versioning(Versioning::Enabled));
    let ids: Vec<_> = [50, 7, 60, 3].map(|n| put_version(&mut replica, "k", n).id).into();
    assert!(ids.is_sorted(), "{ids:?}");
    let listed: Vec<_> = all(&replica).iter().map(|v| v.0).collect();
    assert!(listed.iter().rev().eq(&ids), "{listed:?}");
}

#[test]
fn a_retention_ends_by_a_clock_that_cannot_be_turned_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(Op::CreateBucket { bucket: bucket_id(2), name: "locked".into(), object_lock: true });
    let default = DefaultRetention { mode: RetentionMode::Compliance, period: RetentionPeriod::Days(1) };
    replica.done(set_bucket(2, BucketChange::DefaultRetention(Some(default))));
    let stored = put_into(bucket_id(2), "k", 1, 1, inline("x"), holdfast_catalog::Condition::default());
    let Response::ObjectPut { version, modified } = replica.done(stored) else { panic!() };
    let until = UnixMillis::new(modified.get() + 86_400_000);
    let retention = Retention { mode: RetentionMode::Compliance, until };
    assert_eq!(replica.reader().head_object("locked", "k", None).unwrap().retention, Some(retention));

    let delete_at = |replica: &mut Replica, at: u64| {
        replica.index += 1;
        let item = DeleteItem {
            bypass_governance: true,
            ..delete_item("k", 0, Some(VersionSelector::Id(version.id)))
        };
        let op = Op::DeleteObjects { bucket: bucket_id(2), items: vec![item] };
        let command = Command { partition: PARTITION, at: UnixMillis::new(at), request: None, op };
        match apply(&mut replica.machine, replica.index, &[sealed(&command)]).remove(0) {
            Ok(Response::ObjectsDeleted(mut answers)) => answers.remove(0),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delete_at(&mut replica, until.get() - 1), Err(Refusal::Locked));
    // A node whose clock was turned back changes nothing: neither shortens nor lengthens.
    assert_eq!(delete_at(&mut replica, 1), Err(Refusal::Locked));
    assert_eq!(replica.reader().clock().unwrap().get(), until.get() - 1);
    let change = ObjectChange::Retention { retention: None, bypass_governance: true };
    let lift = Op::SetObject(SetObject { bucket: bucket_id(2), key: "k".into(), version: None, change });
    assert_eq!(replica.apply(lift), Err(Refusal::Locked));
    // A marker may stand before what is kept.
    let mark = Op::DeleteObjects { bucket: bucket_id(2), items: vec![delete_item("k", 9, None)] };
    assert!(
        matches!(replica.done(mark), Response::ObjectsDeleted(a) if matches!(a[0], Ok(Deleted::Marked { .. })))
    );
    assert!(delete_at(&mut replica, until.get()).is_ok());
    assert_eq!(delete_at(&mut replica, 1), Ok(Deleted::Nothing));
}

#[test]
fn a_request_proposed_twice_is_done_once_and_answered_alike() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let request = |index, n: u8, op| {
        let request = Some(RequestId::from_bytes([n; 16]));
        sealed(&Command { partition: PARTITION, at: UnixMillis::new(time_of(index)), request, op })
    };
    // An inline put whose outcome was not heard; meanwhile another client overwrites the object.
    let first = request(3, 1, put("k", 1, 1, inline("first")));
    let second = request(4, 2, put("k", 2, 1, inline("second")));
    let outcomes = apply(&mut replica.machine, 3, &[first.clone(), second, first.clone()]);
    assert_eq!(outcomes[0], outcomes[2]);
    assert_eq!(replica.reader().head_object("b", "k", None).unwrap().etag, "etag-2");
    // The same through a restored replica.
    let image = dir.path().join("image");
    holdfast_consensus::StateMachine::snapshot(&mut replica.machine, &image).unwrap();
    holdfast_consensus::StateMachine::install(&mut replica.machine, &image, b"p").unwrap();
    assert_eq!(apply(&mut replica.machine, 4, std::slice::from_ref(&first))[0], outcomes[0]);
    assert_eq!(replica.reader().head_object("b", "k", None).unwrap().etag, "etag-2");
    // So late that it is forgotten: refused, never done again.
    let later = Command {
        partition: PARTITION,
        at: UnixMillis::new(time_of(4) + REQUESTS_KEPT_MILLIS + 1),
        request: Some(RequestId::from_bytes([3; 16])),
        op: put("other", 3, 1, inline("x")),
    };
    apply(&mut replica.machine, 5, &[sealed(&later)])[0].as_ref().unwrap();
    assert_eq!(apply(&mut replica.machine, 6, &[first])[0], Err(Refusal::TooOld));
    assert_eq!(replica.reader().head_object("b", "k", None).unwrap().etag, "etag-2");
}

#[test]
fn quotas_are_exact_and_never_hinder_a_delete() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let quota = Quota { bytes: Some(100), objects: Some(2) };
    replica.done(set_bucket(1, BucketChange::Quota(quota)));
    let big = |key: &str, n, size| put(key, n, size, inline("x"));
    replica.done(big("a", 1, 100));
    let bucket = Refusal::QuotaExceeded { tenant: false };
    assert_eq!(replica.apply(big("b", 2, 1)), Err(bucket.clone()));
    replica.done(big("a", 3, 40));
    replica.done(big("b", 4, 60));
    assert_eq!(replica.apply(big("c", 5, 0)), Err(bucket));
    replica.done(set_bucket(1, BucketChange::Quota(Quota { bytes: Some(1), objects: None })));
    replica.done(big("b", 6, 59));
    replica.done(delete("a"));
    replica.done(set_bucket(1, BucketChange::Quota(Quota::default())));
    replica.done(Op::SetQuota { quota: Quota { bytes: Some(60), objects: None } });
    assert_eq!(replica.apply(big("d", 7, 2)), Err(Refusal::QuotaExceeded { tenant: true }));
    replica.done(big("d", 8, 1));
}

#[test]
fn documents_are_kept_within_their_limits_and_checked_where_they_have_a_form() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let document = |kind: DocumentKind, body: &[u8]| {
        let body = Some(bytes::Bytes::copy_from_slice(body));
        set_bucket(1, BucketChange::Document { kind, id: String::new(), body })
    };
    // Rules of lifecycle and of notifications have a form; the owner is set with the bucket and stays.
    let formed = [DocumentKind::Lifecycle, DocumentKind::Notification];
    let free = |kind: &DocumentKind| *kind != DocumentKind::Owner && !formed.contains(kind);
    for kind in DocumentKind::ALL.into_iter().filter(free) {
        replica.done(document(kind, &vec![b'x'; kind.size_max()]));
        assert!(matches!(
            replica.apply(document(kind, &vec![b'x'; kind.size_max() + 1])),
            Err(Refusal::Invalid(_))
        ));
        assert_eq!(replica.reader().document("b", kind, "").unwrap().body.len(), kind.size_max());
    }
    assert!(matches!(replica.apply(document(DocumentKind::Owner, b"x")), Err(Refusal::Invalid(_))));
    for kind in formed {
        assert!(matches!(replica.apply(document(kind, b"x")), Err(Refusal::Invalid(_))));
        let missing = replica.reader().document("b", kind, "");
        assert!(matches!(missing, Err(ReadError::NoSuchDocument)));
    }
}

#[test]
fn a_listing_page_costs_the_same_however_many_versions_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(versioning(Versioning::Enabled));
    const VERSIONS: u64 = 20_000;
    for batch in 0..VERSIONS / 1000 {
        let ops = (0..1000).map(|n| put("many/k", batch * 1000 + n + 1, 1, inline("x"))).collect();
        replica.apply_all(ops).into_iter().for_each(|outcome| drop(outcome.unwrap()));
    }
    replica.done(put("one/k", 1, 1, inline("x")));
    let reader = replica.reader();
    let best = |list: &dyn Fn()| {
        let time = || {
            let start = std::time::Instant::now();
            list();
            start.elapsed()
        };
        (0..20).map(|_| time()).min().unwrap()
    };
    let objects = |prefix: &'static str| {
        let reader = &reader;
        move || {
            let query = ListQuery { prefix, limit: 1000, ..ListQuery::default() };
            assert_eq!(reader.list("b", &query).unwrap().objects.len(), 1);
        }
    };
    let rolled = |prefix: &'static str| {
        let reader = &reader;
        move || {
            let query = VersionQuery { prefix, delimiter: Some("/"), limit: 1000, ..VersionQuery::default() };
            assert_eq!(reader.list_versions("b", &query).unwrap().common_prefixes.len(), 1);
        }
    };
    for (one, many) in [(best(&objects("o")), best(&objects("m"))), (best(&rolled("o")), best(&rolled("m")))]
    {
        // Scanning would make it 20,000 times dearer.
        assert!(many < one * 50, "one version {one:?}, {VERSIONS} versions {many:?}");
    }
}

/// What a listing of versions shows in all, by definition.
type Shown = Vec<(String, Option<VersionId>)>;

fn expected(
    versions: &BTreeMap<String, Vec<VersionId>>,
    prefix: &str,
    delimiter: Option<&str>,
    after: Option<&(String, Option<VersionId>)>,
) -> Shown {
    let mut shown: Shown = Vec::new();
    for (key, stack) in versions.iter().filter(|(key, _)| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let rolled = delimiter.filter(|d| !d.is_empty()).and_then(|d| rest.find(d).map(|at| at + d.len()));
        match rolled {
            Some(end) => {
                let item = (key[..prefix.len() + end].to_owned(), None);
                if shown.last() != Some(&item) {
                    shown.push(item);
                }
            }
            None => shown.extend(stack.iter().map(|id| (key.clone(), Some(*id)))),
        }
    }
    let behind = |(key, version): &(String, Option<VersionId>)| {
        after.is_none_or(|(after, named)| {
            key > after || (key == after && named.is_some_and(|named| version.is_some_and(|v| v < named)))
        })
    };
    shown.into_iter().filter(behind).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn listings_of_versions_are_those_of_a_sorted_map(
        steps in prop::collection::vec((prop::sample::select(vec!["a", "a/", "a/b", "a/b/c", "a0", "b", "é/x"]), 0..5u8), 1..40),
        queries in prop::collection::vec(
            (
                prop::sample::select(vec!["", "a", "a/", "b"]),
                prop::option::of(prop::sample::select(vec!["/", "b"])),
                prop::option::of((prop::sample::select(vec!["", "a", "a/", "a/b", "a0", "zz"]), prop::option::of(0..50u64))),
                1..5usize,
            ),
            20,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut replica = Replica::with_bucket(dir.path());
        replica.done(versioning(Versioning::Enabled));
        let mut model: BTreeMap<String, Vec<VersionId>> = BTreeMap::new();
        for (n, (key, what)) in steps.iter().enumerate() {
            let id = match what {
                0 => match delete_one(&mut replica, delete_item(key, n as u64, None)).unwrap() {
                    Deleted::Marked { marker } => marker.id,
                    other => panic!("{other:?}"),
                },
                _ => put_version(&mut replica, key, n as u64 + 1).id,
            };
            model.entry((*key).to_owned()).or_default().insert(0, id);
        }
        let reader = replica.reader();
        for (prefix, delimiter, after, limit) in &queries {
            let mut next = after.map(|(key, n)| (key.to_owned(), n.map(version)));
            let want = expected(&model, prefix, *delimiter, next.as_ref());
            let mut shown: Shown = Vec::new();
            loop {
                let marker = next.as_ref().map(|(key, version)| VersionMarker { key, version: *version });
                let query = VersionQuery { prefix, delimiter: *delimiter, after: marker, limit: *limit };
                let page = reader.list_versions("b", &query).unwrap();
                for v in &page.versions {
                    prop_assert_eq!(v.latest, model[&v.key][0] == v.version.id, "{:?}", v);
                }
                let mut of_page: Shown =
                    page.versions.iter().map(|v| (v.key.clone(), Some(v.version.id))).collect();
                of_page.extend(page.common_prefixes.iter().map(|p| (p.clone(), None)));
                prop_assert!(of_page.len() <= *limit);
                // Stable: versions of one key keep their order.
                of_page.sort_by(|a, b| a.0.cmp(&b.0));
                shown.extend(of_page);
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
            prop_assert_eq!(shown, want);
        }
    }
}
