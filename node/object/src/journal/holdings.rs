//! What the drives of one node hold of the second copy of a group's state, in a form that can be added up over nodes.
//!
//! Each node knows the names of the records on its own drives from their indexes. What a name does not say, which entries
//! a journal record begins with and of how many parts it is, is noted when the record is written, or read once.

use std::collections::BTreeMap;

use holdfast_format::CatalogRecordKind;
use holdfast_model::{GroupId, UnixMillis};
use holdfast_store::JournalSpan;
use serde::{Deserialize, Serialize};

use super::record::RecordName;

/// Runs of one answer at most, some ten bytes each.
const RUNS_MAX: usize = 1 << 19;

/// What a leader asks of a node.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Question {
    /// Of this group.
    pub group: GroupId,
    /// The drives should be searched anew soon.
    pub fresh: bool,
}

/// What a node answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Milliseconds since its drives were searched.
    pub age_ms: u64,
    /// What they held.
    pub holdings: Holdings,
}

/// What a node's drives hold of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holdings {
    /// Bases, whole or not.
    pub bases: Vec<BaseHeld>,
    /// Entries in journal records of one part.
    pub runs: Vec<Run>,
    /// Parts of journal records of several.
    pub parts: Vec<PartHeld>,
    /// There are more runs behind this entry than an answer may have.
    pub cut_after: Option<u64>,
}

/// Consecutive numbers, each with the same number of copies on different drives of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    /// The first number.
    pub first: u64,
    /// The last, inclusive.
    pub last: u64,
    /// Copies.
    pub copies: u32,
}

/// What is held of one base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BaseHeld {
    /// Which one.
    pub name: BaseName,
    /// Drives with its root, and of how many pieces that says the base is.
    pub root: Option<(u32, u32)>,
    /// Its pieces by number.
    pub pieces: Vec<Run>,
}

/// Tells bases of a group apart; the newest is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct BaseName {
    /// Entries up to here are in it.
    pub covers: u64,
    /// When its writing began.
    pub begun: UnixMillis,
    /// Low bits of who wrote it.
    pub node: u8,
}

/// One part of a journal record of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PartHeld {
    /// First entry of the record.
    pub first: u64,
    /// Its last.
    pub last: u64,
    /// When its writing began.
    pub begun: UnixMillis,
    /// Low bits of who wrote it.
    pub node: u8,
    /// Which part.
    pub part: u32,
    /// Of how many.
    pub parts: u32,
    /// Drives that hold it.
    pub copies: u32,
}

impl Holdings {
    /// Of the records of one group, each with the number of drives that hold it. A journal record of which `spans` does
    /// not know the beginning counts for nothing.
    pub(super) fn of<'a>(
        records: impl IntoIterator<Item = (&'a RecordName, &'a u32)>,
        spans: &BTreeMap<RecordName, JournalSpan>,
    ) -> Self {
        let (mut bases, mut entries): (BTreeMap<BaseName, BaseHeld>, _) = (BTreeMap::new(), Sum::default());
        let mut held = Self::default();
        for (name, &copies) in records {
            let base = BaseName { covers: name.last, begun: name.begun, node: name.node };
            let of_base = || BaseHeld { name: base, root: None, pieces: Vec::new() };
            match name.kind {
                CatalogRecordKind::BaseRoot => {
                    bases.entry(base).or_insert_with(of_base).root = Some((copies, name.part));
                }
                // Names are in order, parts last.
                CatalogRecordKind::BasePiece => {
                    let piece = u64::from(name.part);
                    push(&mut bases.entry(base).or_insert_with(of_base).pieces, piece, piece, copies);
                }
                CatalogRecordKind::Journal => match spans.get(name) {
                    Some(JournalSpan { first, parts: 1 }) => entries.add(*first, name.last, copies),
                    Some(JournalSpan { first, parts }) => held.parts.push(PartHeld {
                        first: *first,
                        last: name.last,
                        begun: name.begun,
                        node: name.node,
                        part: name.part,
                        parts: *parts,
                        copies,
                    }),
                    None => {}
                },
            }
        }
        held.bases = bases.into_values().collect();
        held.runs = entries.runs();
        if held.runs.len() > RUNS_MAX {
            held.runs.truncate(RUNS_MAX);
            held.cut_after = held.runs.last().map(|run| run.last);
        }
        held
    }
}

/// Adds copies up over ranges of numbers that may overlap.
#[derive(Debug, Default)]
pub(super) struct Sum {
    /// By how much the number of copies changes at a number.
    changes: BTreeMap<u64, i64>,
}

impl Sum {
    /// Each number of `first..=last` has so many copies more.
    pub(super) fn add(&mut self, first: u64, last: u64, copies: u32) {
        *self.changes.entry(first).or_default() += i64::from(copies);
        *self.changes.entry(last.saturating_add(1)).or_default() -= i64::from(copies);
    }

    /// Numbers that have copies.
    pub(super) fn runs(&self) -> Vec<Run> {
        let (mut runs, mut copies) = (Vec::new(), 0);
        let ends = self.changes.keys().skip(1);
        for ((&first, change), &end) in self.changes.iter().zip(ends) {
            copies += change;
            if copies > 0 {
                push(&mut runs, first, end - 1, u32::try_from(copies).unwrap_or(u32::MAX));
            }
        }
        runs
    }
}

/// Appends a range, to the last run when it continues that.
fn push(runs: &mut Vec<Run>, first: u64, last: u64, copies: u32) {
    match runs.last_mut() {
        Some(run) if run.last + 1 == first && run.copies == copies => run.last = last,
        _ => runs.push(Run { first, last, copies }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(kind: CatalogRecordKind, last: u64, part: u32) -> RecordName {
        RecordName { kind, group: GroupId::new(1), last, begun: UnixMillis::new(5), node: 2, part }
    }

    #[test]
    fn overlapping_ranges_add_up_and_neighbours_join() {
        let mut sum = Sum::default();
        sum.add(1, 4, 1);
        sum.add(3, 6, 2);
        sum.add(7, 9, 2);
        sum.add(12, 12, 1);
        let run = |first, last, copies| Run { first, last, copies };
        assert_eq!(sum.runs(), [run(1, 2, 1), run(3, 4, 3), run(5, 9, 2), run(12, 12, 1)]);
        assert_eq!(Sum::default().runs(), []);
    }

    #[test]
    fn records_become_holdings() {
        let records = BTreeMap::from([
            (name(CatalogRecordKind::Journal, 12, 0), 2),
            (name(CatalogRecordKind::Journal, 14, 0), 2),
            (name(CatalogRecordKind::Journal, 20, 0), 1),
            (name(CatalogRecordKind::Journal, 20, 1), 1),
            (name(CatalogRecordKind::Journal, 30, 0), 1),
            (name(CatalogRecordKind::BasePiece, 10, 0), 1),
            (name(CatalogRecordKind::BasePiece, 10, 1), 1),
            (name(CatalogRecordKind::BasePiece, 10, 3), 2),
            (name(CatalogRecordKind::BaseRoot, 10, 4), 1),
        ]);
        let span = |first, parts| JournalSpan { first, parts };
        let spans = BTreeMap::from([
            (name(CatalogRecordKind::Journal, 12, 0), span(11, 1)),
            (name(CatalogRecordKind::Journal, 14, 0), span(13, 1)),
            (name(CatalogRecordKind::Journal, 20, 0), span(15, 2)),
            (name(CatalogRecordKind::Journal, 20, 1), span(15, 2)),
        ]);
        let held = Holdings::of(&records, &spans);
        assert_eq!(held.runs, [Run { first: 11, last: 14, copies: 2 }]);
        let parts: Vec<_> = held.parts.iter().map(|part| (part.first, part.last, part.part)).collect();
        assert_eq!(parts, [(15, 20, 0), (15, 20, 1)]);
        let [base] = held.bases.as_slice() else { panic!("{held:?}") };
        assert_eq!((base.name.covers, base.root), (10, Some((1, 4))));
        assert_eq!(base.pieces.len(), 2);
        assert_eq!(held.cut_after, None);
    }
}
