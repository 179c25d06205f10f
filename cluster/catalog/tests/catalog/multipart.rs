//! Multipart uploads: the rules of S3, retries, and where parts that are not needed go.

use crate::common::*;
use holdfast_catalog::{
    CompletedUpload, Condition, GarbageId, Op, ReadError, Refusal, Response, UploadQuery, Usage,
};
use holdfast_model::{
    UnixMillis,
    limits::{PART_NUMBER_MAX, PART_SIZE_MIN},
};

/// An upload `1` of `k` with parts of 5 MiB, 5 MiB and 1 byte, in stripes 1, 2 and inline.
fn three_parts(replica: &mut Replica) {
    replica.expect(create_upload("k", 1), Response::UploadCreated);
    // Out of order, as parallel clients do.
    replica.expect(put_part("k", 1, 30, 3, 1, inline("z")), Response::PartPut);
    replica.expect(put_part("k", 1, 10, 1, PART_SIZE_MIN, stripes(1..2, PART_SIZE_MIN)), Response::PartPut);
    replica.expect(put_part("k", 1, 20, 2, PART_SIZE_MIN, stripes(2..3, PART_SIZE_MIN)), Response::PartPut);
}

const ALL: &[(u32, u64)] = &[(10, 1), (20, 2), (30, 3)];

#[test]
fn parts_become_one_object_in_the_order_of_their_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    three_parts(&mut replica);
    let reader = replica.reader();
    let in_progress = Usage { uploads: 1, upload_bytes: 2 * PART_SIZE_MIN + 1, ..Usage::default() };
    assert_eq!(reader.usage().unwrap(), in_progress);
    let (upload, parts) = reader.list_parts("b", "k", upload_id(1), 10, 1).unwrap();
    assert_eq!((&upload.attributes[..], parts.len(), parts[0].number), (&b"upload-1"[..], 1, 20));

    let done = CompletedUpload {
        version: null(9),
        size: 2 * PART_SIZE_MIN + 1,
        etag: "complete-1-3".into(),
        modified: UnixMillis::new(time_of(replica.index + 1)),
    };
    replica.expect(complete("k", 1, 9, ALL), Response::UploadCompleted(done.clone()));

    let row = reader.get_object("b", "k").unwrap();
    assert_eq!(&row.head.attributes[..], b"upload-1");
    let parts: Vec<_> =
        row.content.iter().map(|p| (p.number, p.offset, p.size, &p.wrapped_key[..])).collect();
    assert_eq!(
        parts,
        [
            (10, 0, PART_SIZE_MIN, &b"key-1"[..]),
            (20, PART_SIZE_MIN, PART_SIZE_MIN, b"key-2"),
            (30, 2 * PART_SIZE_MIN, 1, b"key-3")
        ]
    );
    assert_eq!(row.content[1].body, stripes(2..3, PART_SIZE_MIN));
    let usage = Usage { objects: 1, bytes: done.size, ..Usage::default() };
    assert_eq!(reader.usage().unwrap(), usage);
    assert!(all_garbage(&reader).is_empty());

    // Ranges find their parts.
    let numbers = |range| {
        let row = reader.get_object_range("b", "k", None, |_| range).unwrap();
        row.content.iter().map(|p| p.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0..1), [10]);
    assert_eq!(numbers(PART_SIZE_MIN - 1..PART_SIZE_MIN + 1), [10, 20]);
    assert_eq!(numbers(2 * PART_SIZE_MIN..2 * PART_SIZE_MIN + 1), [30]);

    // The client did not hear the answer and asks again; another version id must not change it.
    replica.expect(complete("k", 1, 77, ALL), Response::UploadCompleted(done));
    assert!(matches!(reader.get_upload("b", "k", upload_id(1)), Err(ReadError::NoSuchUpload)));
    // Not the same completion, or not current any more: the upload is gone.
    assert_eq!(replica.apply(complete("k", 1, 78, &ALL[..2])), Err(Refusal::NoSuchUpload));
    replica.done(put("k", 10, 1, inline("x")));
    assert_eq!(replica.apply(complete("k", 1, 79, ALL)), Err(Refusal::NoSuchUpload));
}

#[test]
fn ten_thousand_parts_become_one_object() {
    const PARTS: u32 = PART_NUMBER_MAX;
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.expect(create_upload("k", 1), Response::UploadCreated);
    for number in 1..=PARTS {
        let n = u64::from(number);
        let body = stripes(n..n + 1, PART_SIZE_MIN);
        replica.expect(put_part("k", 1, number, n, PART_SIZE_MIN, body), Response::PartPut);
    }
    let all: Vec<(u32, u64)> = (1..=PARTS).map(|number| (number, u64::from(number))).collect();
    replica.done(complete("k", 1, 9, &all));
    let reader = replica.reader();
    let size = u64::from(PARTS) * PART_SIZE_MIN;
    let row = reader.get_object_range("b", "k", None, |head| head.size - 1..head.size).unwrap();
    assert_eq!((row.head.size, row.content.len(), row.content[0].number), (size, 1, PARTS));
    assert_eq!(reader.usage().unwrap(), Usage { objects: 1, bytes: size, ..Usage::default() });
    assert!(all_garbage(&reader).is_empty());
}

#[test]
fn completions_against_the_rules_are_refused_and_the_upload_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    three_parts(&mut replica);
    let small = Refusal::PartTooSmall { number: 30, size: 1, min: PART_SIZE_MIN };
    replica.done(put_part("k", 1, 40, 4, 1, inline("z")));
    for (parts, refusal) in [
        (&[][..], Refusal::InvalidPartOrder),
        (&[(20, 2), (10, 1)], Refusal::InvalidPartOrder),
        (&[(10, 1), (10, 1)], Refusal::InvalidPartOrder),
        (&[(10, 1), (11, 1)], Refusal::InvalidPart(11)),
        (&[(10, 2)], Refusal::InvalidPart(10)),
        (&[(30, 3), (40, 4)], small),
    ] {
        assert_eq!(replica.apply(complete("k", 1, 9, parts)), Err(refusal), "{parts:?}");
    }
    let mut conditional = complete("k", 1, 9, ALL);
    let Op::CompleteUpload(c) = &mut conditional else { unreachable!() };
    c.condition = Condition { if_absent: true, if_etag: None };
    replica.done(put("k", 8, 1, inline("x")));
    assert_eq!(replica.apply(conditional), Err(Refusal::PreconditionFailed));
    assert_eq!(replica.reader().list_parts("b", "k", upload_id(1), 0, 100).unwrap().1.len(), 4);
    assert_eq!(replica.apply(complete("other", 1, 9, ALL)), Err(Refusal::NoSuchUpload));
    assert_eq!(replica.apply(put_part("other", 1, 1, 5, 1, inline("x"))), Err(Refusal::NoSuchUpload));
    assert_eq!(replica.apply(put_part("k", 2, 1, 5, 1, inline("x"))), Err(Refusal::NoSuchUpload));
    assert!(matches!(replica.apply(put_part("k", 1, 0, 5, 1, inline("x"))), Err(Refusal::Invalid(_))));
    assert!(matches!(replica.apply(put_part("k", 1, 10_001, 5, 1, inline("x"))), Err(Refusal::Invalid(_))));
    replica.done(complete("k", 1, 9, ALL));
}

#[test]
fn parts_that_are_not_needed_become_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    three_parts(&mut replica);
    // A part uploaded again replaces the first; the same part once more is the same answer.
    let again = put_part("k", 1, 20, 5, PART_SIZE_MIN, stripes(5..6, PART_SIZE_MIN));
    replica.done(again.clone());
    replica.done(again);
    let ids = |replica: &Replica| all_garbage(&replica.reader()).iter().map(|g| g.id).collect::<Vec<_>>();
    assert_eq!(ids(&replica), [GarbageId::Stripe(stripe_id(2))]);
    assert_eq!(replica.reader().usage().unwrap().upload_bytes, 2 * PART_SIZE_MIN + 1);
    // Completed without part 10.
    replica.done(complete("k", 1, 9, &[(20, 5), (30, 3)]));
    assert_eq!(ids(&replica), [GarbageId::Stripe(stripe_id(2)), GarbageId::Stripe(stripe_id(1))]);
    // Deleted: what it was made of follows.
    replica.done(delete("k"));
    let all = [2, 1, 5].map(|n| GarbageId::Stripe(stripe_id(n)));
    assert_eq!(ids(&replica), all);
    assert_eq!(replica.reader().usage().unwrap(), Usage::default());
}

#[test]
fn an_aborted_upload_is_gone_with_its_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    three_parts(&mut replica);
    replica.expect(abort("k", 1), Response::UploadAborted);
    assert_eq!(replica.apply(abort("k", 1)), Err(Refusal::NoSuchUpload));
    assert_eq!(replica.apply(complete("k", 1, 9, ALL)), Err(Refusal::NoSuchUpload));
    assert_eq!(all_garbage(&replica.reader()).len(), 2);
    assert_eq!(replica.reader().usage().unwrap(), Usage::default());
}

#[test]
fn uploads_are_listed_by_key_and_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    for (key, upload) in [("b", 1), ("a/x", 5), ("a/x", 2), ("a/y", 3), ("a0", 4)] {
        replica.done(create_upload(key, upload));
        replica.done(create_upload(key, upload));
    }
    let reader = replica.reader();
    let list = |prefix: &str, after: Option<(&str, u64)>, limit| {
        let after = after.map(|(key, upload)| (key, Some(upload_id(upload))));
        let page = reader.list_uploads("b", &UploadQuery { prefix, delimiter: None, after, limit }).unwrap();
        page.uploads.into_iter().map(|row| (row.key, row.upload)).collect::<Vec<_>>()
    };
    let row = |key: &str, upload| (key.to_owned(), upload_id(upload));
    let all = [row("a/x", 2), row("a/x", 5), row("a/y", 3), row("a0", 4), row("b", 1)];
    assert_eq!(list("", None, 100), all);
    assert_eq!(list("a/", None, 100), all[..3]);
    assert_eq!(list("", Some(("a/x", 2)), 2), all[1..3]);
    assert_eq!(list("a/", Some(("a/x", 5)), 9), all[2..3]);
    assert_eq!(list("b", Some(("a", 0)), 9), all[4..]);
    assert_eq!(reader.usage().unwrap().uploads, 5);

    // Rolled up, page by page, and from behind a key without naming an upload.
    let mut query = UploadQuery { delimiter: Some("/"), limit: 1, ..UploadQuery::default() };
    let first = reader.list_uploads("b", &query).unwrap();
    assert_eq!(
        (first.common_prefixes, first.next.clone()),
        (vec!["a/".to_owned()], Some(("a/".into(), None)))
    );
    query.after = Some(("a/", None));
    let second = reader.list_uploads("b", &query).unwrap();
    assert_eq!(
        (second.uploads[0].upload, second.next),
        (upload_id(4), Some(("a0".into(), Some(upload_id(4)))))
    );
    query = UploadQuery { after: Some(("a/x", None)), limit: 9, ..UploadQuery::default() };
    let behind: Vec<_> = reader.list_uploads("b", &query).unwrap().uploads.iter().map(|u| u.upload).collect();
    assert_eq!(behind, [3, 4, 1].map(upload_id));
}
