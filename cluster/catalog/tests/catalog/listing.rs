//! Listings against a model: a sorted map, rolled up by hand.

use std::collections::BTreeSet;

use crate::common::*;
use holdfast_catalog::{Condition, ListQuery, PartitionReader};
use proptest::prelude::*;

/// One listed thing: a key or a common prefix.
type Item = (Vec<u8>, bool);

/// What a listing shows in all, by definition.
fn model(keys: &BTreeSet<String>, prefix: &str, delimiter: Option<&str>, after: Option<&str>) -> Vec<Item> {
    let mut items = BTreeSet::new();
    for key in keys.iter().filter(|key| key.starts_with(prefix)) {
        let rest = &key[prefix.len()..];
        let rolled = delimiter.filter(|d| !d.is_empty()).and_then(|d| rest.find(d).map(|at| at + d.len()));
        items.insert(match rolled {
            Some(end) => (key.as_bytes()[..prefix.len() + end].to_vec(), true),
            None => (key.as_bytes().to_vec(), false),
        });
    }
    items
        .into_iter()
        .filter(|(item, _)| after.is_none_or(|after| item.as_slice() > after.as_bytes()))
        .collect()
}

/// What the pages show, put together; checks each page on the way.
fn pages(reader: &PartitionReader, query: &ListQuery<'_>) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut after = query.after.map(str::to_owned);
    loop {
        let page = reader.list("b", &ListQuery { after: after.as_deref(), ..query.clone() }).unwrap();
        let count = page.objects.len() + page.common_prefixes.len();
        assert!(count <= query.limit);
        let mut of_page: Vec<Item> =
            page.objects.iter().map(|o| (o.key.as_bytes().to_vec(), false)).collect();
        of_page.extend(page.common_prefixes.iter().map(|p| (p.as_bytes().to_vec(), true)));
        assert!(page.objects.is_sorted_by(|a, b| a.key.as_bytes() < b.key.as_bytes()));
        assert!(page.common_prefixes.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
        of_page.sort();
        items.extend(of_page);
        match page.next {
            Some(next) => {
                assert_eq!(count, query.limit, "only a full page has a next one");
                assert_eq!(Some(next.as_bytes()), items.last().map(|(item, _)| item.as_slice()));
                after = Some(next);
            }
            None => return items,
        }
    }
}

fn with_keys<'a>(replica: &mut Replica, keys: impl IntoIterator<Item = &'a String>) {
    let ops = keys.into_iter().enumerate().map(|(n, key)| put(key, n as u64, 1, inline("x"))).collect();
    for outcome in replica.apply_all(ops) {
        outcome.unwrap();
    }
}

/// Pieces that make awkward keys: what sorts beside the delimiter, above and below ASCII, empty levels.
fn piece() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "/",
        "//",
        "a",
        "b",
        "a/",
        "0",
        ".",
        "\u{0}",
        "\u{1}",
        " ",
        "\u{7f}",
        "é",
        "日本",
        "\u{ffff}",
        "\u{10ffff}",
        "%2F",
    ])
}

fn text(pieces: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), pieces).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn listings_are_those_of_a_sorted_map(
        keys in prop::collection::btree_set(text(1..6), 0..60),
        queries in prop::collection::vec(
            (text(0..3), prop::option::of(prop_oneof![Just("/".to_owned()), text(0..3)]), prop::option::of(text(0..4)), 1..7usize),
            30,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut replica = Replica::with_bucket(dir.path());
        with_keys(&mut replica, &keys);
        // A second bucket beside it must never show.
        replica.done(create_bucket(2, "c"));
        for key in &keys {
            replica.done(put_into(bucket_id(2), &format!("{key}~"), 9, 1, inline("x"), Condition::default()));
        }
        let reader = replica.reader();
        for (prefix, delimiter, after, limit) in &queries {
            let query = ListQuery { prefix, delimiter: delimiter.as_deref(), after: after.as_deref(), limit: *limit };
            prop_assert_eq!(pages(&reader, &query), model(&keys, prefix, delimiter.as_deref(), after.as_deref()));
        }
    }
}

#[test]
fn a_page_of_no_keys_is_empty_and_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 1, inline("x")));
    let page = replica.reader().list("b", &ListQuery { limit: 0, ..ListQuery::default() }).unwrap();
    assert!(page.objects.is_empty() && page.next.is_none());
}

#[test]
fn a_common_prefix_costs_the_same_for_one_key_and_for_many() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    const MANY: u64 = 60_000;
    for batch in 0..MANY / 1000 {
        let keys: Vec<String> = (0..1000).map(|n| format!("many/{:08}", batch * 1000 + n)).collect();
        with_keys(&mut replica, &keys);
    }
    with_keys(&mut replica, &["one/key".to_owned()]);
    let reader = replica.reader();
    let best = |prefix: &str| {
        let query = ListQuery { prefix, delimiter: Some("/"), after: None, limit: 1000 };
        (0..20)
            .map(|_| {
                let start = std::time::Instant::now();
                assert_eq!(reader.list("b", &query).unwrap().common_prefixes.len(), 1);
                start.elapsed()
            })
            .min()
            .unwrap()
    };
    let (one, many) = (best("o"), best("m"));
    // Scanning would make it MANY times dearer; the bound leaves three orders of magnitude for noise.
    assert!(many < one * 50, "one key {one:?}, {MANY} keys {many:?}");
}
