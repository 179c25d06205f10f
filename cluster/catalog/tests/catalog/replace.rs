//! Contents that are cut anew, and walks through all contents.

use crate::common::*;
use holdfast_catalog::{ContentCursor, GarbageId, Op, PartitionReader, Refusal, Response};
use holdfast_model::StripeId;

/// Content, key and stripe of everything, read in small pages.
fn walk(reader: &PartitionReader) -> Vec<(u64, String, StripeId)> {
    let (mut all, mut after): (Vec<_>, Option<ContentCursor>) = (Vec::new(), None);
    loop {
        let next = reader
            .visit_stripes(after, 2, |owned, stripe| all.push((owned.content, owned.key.clone(), stripe.id)))
            .unwrap();
        if next.is_none() {
            return all;
        }
        after = next;
    }
}

#[test]
fn a_content_is_replaced_whole_and_its_old_stripes_are_swept() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 20, stripes(1..3, 10)));
    let reader = replica.reader();
    let [(content, _, _), _] = walk(&reader)[..] else { panic!("two stripes") };

    replica.expect(replace(content, 1, stripes(3..7, 5)), Response::StripesReplaced);
    let object = reader.get_object("b", "k").unwrap();
    assert_eq!(object.content[0].body, stripes(3..7, 5));
    assert_eq!(object.content[0].wrapped_key, format!("key-of-{content}-anew").as_bytes());
    assert_eq!((object.head.size, object.head.etag.as_str()), (20, "etag-1"));
    let garbage: Vec<_> = all_garbage(&reader).iter().map(|row| row.id).collect();
    assert_eq!(garbage, [GarbageId::Stripe(stripe_id(1)), GarbageId::Stripe(stripe_id(2))]);

    // Repeated, and by somebody who read it before.
    replica.expect(replace(content, 1, stripes(3..7, 5)), Response::StripesReplaced);
    assert_eq!(replica.apply(replace(content, 1, stripes(8..9, 20))), Err(Refusal::ContentChanged));
    assert_eq!(reader.first_stripe(content).unwrap(), Some(stripe_id(3)));

    replica.expect(Op::RemoveGarbage { ids: garbage }, Response::GarbageRemoved(vec![true, true]));
    assert!(all_garbage(&reader).is_empty() && !reader.stripe_known(stripe_id(1)).unwrap());
    assert_eq!(reader.get_object("b", "k").unwrap().content[0].body, stripes(3..7, 5));
}

#[test]
fn only_the_same_bytes_of_a_living_content_replace_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 20, stripes(1..3, 10)));
    replica.done(put("inline", 2, 3, inline("abc")));
    let reader = replica.reader();
    let content = walk(&reader)[0].0;
    assert!(matches!(replica.apply(replace(content, 1, stripes(3..4, 10))), Err(Refusal::Invalid(_))));
    assert!(matches!(replica.apply(replace(content, 1, stripes(3..3, 10))), Err(Refusal::Invalid(_))));
    assert_eq!(
        replica.apply(replace(content, 1, stripes(2..4, 10))),
        Err(Refusal::StripeInUse(stripe_id(2)))
    );
    assert_eq!(replica.apply(replace(content, 2, stripes(3..5, 10))), Err(Refusal::ContentChanged));
    assert_eq!(replica.apply(replace(content + 1, 1, stripes(3..5, 10))), Err(Refusal::ContentChanged));
    assert_eq!(reader.get_object("b", "k").unwrap().content[0].body, stripes(1..3, 10));
    replica.done(delete("k"));
    assert_eq!(replica.apply(replace(content, 1, stripes(3..5, 10))), Err(Refusal::ContentChanged));
}

#[test]
fn a_walk_meets_every_content_of_objects_versions_and_uploads() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(versioning(holdfast_catalog::Versioning::Enabled));
    for n in 1..6 {
        replica.done(put(&format!("k{n}"), n, 20, stripes(n * 10..n * 10 + 2, 10)));
    }
    replica.done(put("k1", 6, 10, stripes(60..61, 10)));
    replica.done(put("k2", 7, 3, inline("abc")));
    replica.done(delete("k3"));
    replica.done(create_upload("u", 1));
    for part in 1..4 {
        replica.done(put_part("u", 1, part, 8, 10, stripes(70 + u64::from(part)..71 + u64::from(part), 10)));
    }
    replica.done(create_upload("m", 2));
    replica.done(put_part("m", 2, 1, 9, 10, stripes(80..81, 10)));
    replica.done(complete("m", 2, 10, &[(1, 9)]));

    let mut found: Vec<StripeId> = walk(&replica.reader()).into_iter().map(|(_, _, stripe)| stripe).collect();
    found.sort_unstable();
    let expected = [10, 11, 20, 21, 30, 31, 40, 41, 50, 51, 60, 71, 72, 73, 80].map(stripe_id);
    assert_eq!(found, expected);
}
