//! Whatever bytes they get, the parsers answer with a value or an error.

use holdfast_image_layout::{bzimage, glob, gpt::Disk, modinfo, module_index::ModuleIndex, names, pe};
use proptest::prelude::*;

/// A sound table with a few bytes changed.
fn nearly_gpt() -> impl Strategy<Value = Vec<u8>> {
    let request = holdfast_image_layout::gpt::Request {
        name: names::PARTITION_STATE,
        kind: names::TYPE_STATE,
        id: names::STATE_ID,
        size: 1 << 20,
    };
    let disk = Disk::plan(names::DISK_ID, &[request]).expect("one partition fits");
    let head = disk.encode().remove(0).bytes;
    prop::collection::vec((512..head.len(), any::<u8>()), 1..8).prop_map(move |changes| {
        let mut head = head.clone();
        for (at, value) in changes {
            head[at] = value;
        }
        head
    })
}

/// Bytes that begin like a file of a kind.
fn after(magic: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600).prop_map(move |rest| [magic, &rest].concat())
}

/// The plainest matcher there is, to compare with.
fn matches_plainly(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((b'*', pattern)), _) => (0..=text.len()).any(|at| matches_plainly(pattern, &text[at..])),
        (Some((b'?', pattern)), Some((_, text))) => matches_plainly(pattern, text),
        (Some((wanted, pattern)), Some((byte, text))) => wanted == byte && matches_plainly(pattern, text),
        (Some(_), None) => false,
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..2000), after(b"\x7fELF\x02\x01"), after(b"MZ"), nearly_gpt(),
    ]) {
        // Only that they return is of interest.
        drop(Disk::parse(&bytes));
        drop(modinfo::parse(&bytes));
        drop(bzimage::payload(&bytes));
        drop(pe::append_sections(&bytes, &[pe::Section { name: ".a", content: b"x" }]));
        prop_assert!(pe::section(&bytes, ".a").is_none_or(|section| section.len() <= bytes.len()));
        drop(ModuleIndex::parse(&String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn a_changed_index_is_refused_or_reads_back(text in "holdfast-modules 1\n((module|alias|early) [a-c] ?[a-c/]{0,3} ?[a-c,-]{0,3}\n){0,6}") {
        if let Ok(index) = ModuleIndex::parse(&text) {
            prop_assert_eq!(ModuleIndex::parse(&index.encode()), Ok(index));
        }
    }

    #[test]
    fn patterns_match_as_the_plainest_matcher_does(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
        prop_assert_eq!(glob::matches(&pattern, &text), matches_plainly(pattern.as_bytes(), text.as_bytes()));
    }
}
