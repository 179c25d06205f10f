//! Whether what all nodes hold of a group's second copy is enough: the newest base with as many copies of its root and of
//! every piece as are asked for, and so many of every entry behind it.

use std::{collections::BTreeMap, fmt, ops::RangeInclusive};

use super::holdings::{BaseName, Holdings, PartHeld, Run, Sum};

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is no base, or none whose root is there: the leader writes one in any case.
    NoBase,
    /// Everything has its copies.
    Whole,
    /// Something has fewer.
    Short(Shortfall),
}

/// What has fewer copies than are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shortfall {
    /// Copies that were asked for.
    pub copies: u32,
    /// Copies of the base's root, if these are too few.
    pub root: Option<u32>,
    /// Pieces of the base that have too few.
    pub pieces: u64,
    /// Entries that have too few.
    pub entries: u64,
    /// Of these pieces and entries, how many have none.
    pub lost: u64,
    /// The first entries that have too few.
    pub first: Option<RangeInclusive<u64>>,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fewer than {} copies of", self.copies)?;
        if let Some(root) = self.root {
            write!(f, " the base's root ({root}),")?;
        }
        write!(f, " {} pieces of the base, {} entries", self.pieces, self.entries)?;
        if let Some(first) = &self.first {
            write!(f, " (the first {} to {})", first.start(), first.end())?;
        }
        write!(f, "; {} of them have none", self.lost)
    }
}

/// Judges what nodes hold of one group. `copies` are asked for; entries up to `through` must be in it.
pub(super) fn judge(held: &[Holdings], copies: u32, through: u64) -> Verdict {
    let roots = held.iter().flat_map(|held| &held.bases).filter_map(|base| Some((base.name, base.root?.1)));
    let Some((base, pieces)) = roots.max_by_key(|(name, _)| *name) else { return Verdict::NoBase };
    let mut short = Shortfall { copies, ..Shortfall::default() };
    judge_base(held, base, u64::from(pieces), &mut short);
    let complete = held.iter().filter_map(|held| held.cut_after).fold(through, u64::min);
    if complete > base.covers {
        judge_entries(held, base.covers + 1..=complete, &mut short);
    }
    if short.root.is_none() && short.pieces + short.entries == 0 {
        return Verdict::Whole;
    }
    Verdict::Short(short)
}

fn judge_base(held: &[Holdings], base: BaseName, pieces: u64, short: &mut Shortfall) {
    let (mut roots, mut sum) = (0, Sum::default());
    for part in held.iter().flat_map(|held| &held.bases).filter(|held| held.name == base) {
        roots += part.root.map_or(0, |(copies, _)| copies);
        part.pieces.iter().for_each(|run| sum.add(run.first, run.last, run.copies));
    }
    short.root = (roots < short.copies).then_some(roots);
    if let Some(last) = pieces.checked_sub(1) {
        let thin = too_thin(&sum.runs(), 0..=last, short.copies);
        short.pieces = thin.iter().map(length).sum();
        short.lost += thin.iter().filter(|run| run.copies == 0).map(length).sum::<u64>();
    }
}

fn judge_entries(held: &[Holdings], entries: RangeInclusive<u64>, short: &mut Shortfall) {
    let mut sum = Sum::default();
    held.iter().flat_map(|held| &held.runs).for_each(|run| sum.add(run.first, run.last, run.copies));
    // A record of several parts is there as often as the part that is there least.
    let mut records: BTreeMap<_, (PartHeld, BTreeMap<u32, u32>)> = BTreeMap::new();
    for part in held.iter().flat_map(|held| &held.parts) {
        let record = records.entry((part.last, part.begun, part.node)).or_insert((*part, BTreeMap::new()));
        *record.1.entry(part.part).or_default() += part.copies;
    }
    for (record, parts) in records.values() {
        let whole = parts.len() == record.parts as usize;
        let least = parts.values().copied().min().filter(|_| whole).unwrap_or(0);
        sum.add(record.first, record.last, least);
    }
    let thin = too_thin(&sum.runs(), entries, short.copies);
    short.entries = thin.iter().map(length).sum();
    short.lost += thin.iter().filter(|run| run.copies == 0).map(length).sum::<u64>();
    short.first = thin.first().map(|run| run.first..=run.last);
}

fn length(run: &Run) -> u64 {
    run.last - run.first + 1
}

/// The numbers of `range` of which `runs`, in order, have fewer than `copies`.
fn too_thin(runs: &[Run], range: RangeInclusive<u64>, copies: u32) -> Vec<Run> {
    let (mut next, end) = (*range.start(), *range.end());
    let mut thin = Vec::new();
    for run in runs.iter().filter(|run| run.last >= *range.start() && run.first <= end) {
        if run.first > next {
            thin.push(Run { first: next, last: run.first - 1, copies: 0 });
        }
        let (first, last) = (run.first.max(next), run.last.min(end));
        if run.copies < copies {
            thin.push(Run { first, last, copies: run.copies });
        }
        next = last + 1;
    }
    if next <= end {
        thin.push(Run { first: next, last: end, copies: 0 });
    }
    thin
}

#[cfg(test)]
mod tests {
    use holdfast_model::UnixMillis;

    use super::{super::holdings::BaseHeld, *};

    const BASE: BaseName = BaseName { covers: 10, begun: UnixMillis::new(7), node: 1 };

    fn run(first: u64, last: u64, copies: u32) -> Run {
        Run { first, last, copies }
    }

    fn part(part: u32, copies: u32) -> PartHeld {
        PartHeld { first: 21, last: 25, begun: UnixMillis::new(9), node: 1, part, parts: 2, copies }
    }

    /// Two copies of a base of three pieces, of entries 11 to 20 and of a record of two parts, on two nodes.
    fn two_nodes() -> [Holdings; 2] {
        let base = |pieces: Vec<Run>| BaseHeld { name: BASE, root: Some((1, 3)), pieces };
        [
            Holdings {
                bases: vec![base(vec![run(0, 1, 1)])],
                runs: vec![run(5, 15, 1), run(16, 17, 2)],
                parts: vec![part(0, 2)],
                cut_after: None,
            },
            Holdings {
                bases: vec![base(vec![run(0, 1, 1), run(2, 2, 2)])],
                runs: vec![run(11, 15, 1), run(18, 20, 2)],
                parts: vec![part(1, 2)],
                cut_after: None,
            },
        ]
    }

    fn shortfall(held: &[Holdings], copies: u32, through: u64) -> Shortfall {
        match judge(held, copies, through) {
            Verdict::Short(short) => short,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn copies_on_several_nodes_add_up() {
        let held = two_nodes();
        assert_eq!(judge(&held, 2, 25), Verdict::Whole);
        assert_eq!(judge(&held, 2, 20), Verdict::Whole);
        assert_eq!(judge(&[], 2, 25), Verdict::NoBase);
        let short = shortfall(&held, 3, 25);
        assert_eq!((short.root, short.pieces, short.entries, short.lost), (Some(2), 3, 15, 0));
    }

    #[test]
    fn what_has_no_copy_is_counted_and_named() {
        let mut held = two_nodes();
        held[1].runs.pop();
        let short = shortfall(&held, 2, 25);
        assert_eq!((short.root, short.pieces, short.entries, short.lost), (None, 0, 3, 3));
        assert_eq!(short.first, Some(18..=20));
        let text = "fewer than 2 copies of 0 pieces of the base, 3 entries (the first 18 to 20); 3 of them have none";
        assert_eq!(short.to_string(), text);
        // What came after the records were listed is not asked for.
        assert_eq!(judge(&held, 2, 17), Verdict::Whole);
        assert_eq!(shortfall(&two_nodes(), 2, 27).first, Some(26..=27));
    }

    #[test]
    fn a_record_lacks_what_its_scarcest_part_lacks() {
        let mut held = two_nodes();
        held[1].parts[0].copies = 1;
        let short = shortfall(&held, 2, 25);
        assert_eq!((short.entries, short.lost), (5, 0));
        held[1].parts.clear();
        let short = shortfall(&held, 2, 25);
        assert_eq!((short.entries, short.lost), (5, 5));
    }

    #[test]
    fn the_newest_base_is_the_one_that_must_be_whole() {
        let mut held = two_nodes();
        held[1].bases[0].pieces.pop();
        let short = shortfall(&held, 2, 25);
        assert_eq!((short.pieces, short.lost, short.entries), (1, 1, 0));
        let newer = BaseName { covers: 25, ..BASE };
        held[0].bases.push(BaseHeld { name: newer, root: Some((2, 1)), pieces: vec![run(0, 0, 2)] });
        assert_eq!(judge(&held, 2, 25), Verdict::Whole);
        // One whose root is not there yet is none.
        let unfinished = BaseName { covers: 30, ..BASE };
        held[0].bases.push(BaseHeld { name: unfinished, root: None, pieces: vec![run(0, 0, 2)] });
        assert_eq!(judge(&held, 2, 25), Verdict::Whole);
    }

    #[test]
    fn of_an_answer_that_was_cut_only_what_is_in_it_is_judged() {
        let mut held = two_nodes();
        held[1].runs.pop();
        held[1].cut_after = Some(15);
        assert_eq!(judge(&held, 2, 25), Verdict::Whole);
    }
}
