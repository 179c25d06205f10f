//! The log under power cuts, rot, failing flushes and full segments.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use holdfast_model::{GroupId, NodeId};
use openraft::{
    CommittedLeaderId, RaftLogReader,
    storage::{RaftLogStorage, RaftLogStorageExt},
};

use super::{Log, LogError, LogLimits, liar::LiarDisk, record::SEGMENT_HEADER_SIZE, store::GroupLog};
use crate::{
    host::Host,
    types::{Batch, Entry, EntryPayload, LogId, Vote},
};

const NODE: NodeId = NodeId::new(7);
pub(super) const A: GroupId = GroupId::new(1);
pub(super) const B: GroupId = GroupId::new(2);

fn limits(segment_bytes: u64) -> LogLimits {
    LogLimits { segment_bytes, segments_max: 4 }
}

pub(super) fn open(disk: &LiarDisk) -> Result<Log, LogError> {
    Log::open(Arc::new(disk.clone()), NODE, limits(4096), &Host::default(), None)
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

pub(super) fn entry(term: u64, index: u64, command: &str) -> Entry {
    let command = Bytes::copy_from_slice(command.as_bytes());
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(Batch::new(vec![command].into())) }
}

/// Everything a group's log says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Content {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) entries: Vec<Entry>,
}

pub(super) async fn content(mut log: GroupLog) -> Content {
    Content {
        vote: log.read_vote().await.unwrap(),
        purged: log.get_log_state().await.unwrap().last_purged_log_id,
        entries: log.try_get_log_entries(..).await.unwrap(),
    }
}

/// A small generator with a seed that a failure prints.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

#[tokio::test]
async fn what_was_answered_survives_every_power_cut() {
    for seed in 1..=60_u64 {
        let mut random = Random(seed * 0x9e37_79b9);
        let disk = LiarDisk::default();
        let log = open(&disk).unwrap();
        let groups = [A, B, GroupId::new(9)];
        let mut expected: BTreeMap<GroupId, Content> =
            groups.iter().map(|group| (*group, Content::default())).collect();
        for step in 0..60 {
            let group = groups[random.below(3) as usize];
            let mut part = log.group(group).unwrap();
            let model = expected.get_mut(&group).unwrap();
            let next = model
                .entries
                .last()
                .map(|e| e.log_id.index)
                .or(model.purged.map(|p| p.index))
                .map_or(0, |i| i + 1);
            match random.below(6) {
                0 => {
                    let vote = Vote::new(step + 1, random.below(3));
                    part.save_vote(&vote).await.unwrap();
                    model.vote = Some(vote);
                }
                1 if model.entries.len() > 2 => {
                    let since = model.entries[model.entries.len() - 2].log_id;
                    part.truncate(since).await.unwrap();
                    model.entries.truncate(model.entries.len() - 2);
                }
                2 if model.entries.len() > 3 => {
                    let upto = model.entries[2].log_id;
                    part.cover(upto).unwrap();
                    part.purge(upto).await.unwrap();
                    model.entries.drain(..3);
                    model.purged = Some(upto);
                }
                _ => {
                    let count = 1 + random.below(4);
                    let fresh: Vec<Entry> = (0..count)
                        .map(|at| entry(step + 1, next + at, &"x".repeat(random.below(300) as usize)))
                        .collect();
                    part.blocking_append(fresh.clone()).await.unwrap();
                    model.entries.extend(fresh);
                }
            }
            // Truncations and purges ride with the next write; a vote makes them due.
            let vote = model.vote.unwrap_or_default();
            part.save_vote(&vote).await.unwrap();
            model.vote = Some(vote);
            let everything_lost = disk.after_power_cut(|| false);
            let recovered = open(&everything_lost).unwrap();
            for (group, model) in &expected {
                assert_eq!(
                    &content(recovered.group(*group).unwrap()).await,
                    model,
                    "seed {seed} step {step} {group}"
                );
            }
        }
        log.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_write_torn_at_any_sector_leaves_what_was_answered_before_it() {
    for seed in 1..=100_u64 {
        let mut random = Random(seed * 0x9e37_79b9);
        let disk = LiarDisk::default();
        let log = open(&disk).unwrap();
        let mut part = log.group(A).unwrap();
        let first: Vec<Entry> = (0..3).map(|at| entry(1, at, &"x".repeat(200))).collect();
        part.blocking_append(first.clone()).await.unwrap();
        let before = disk.image();
        let second: Vec<Entry> = (3..9).map(|at| entry(1, at, &"y".repeat(300))).collect();
        part.blocking_append(second.clone()).await.unwrap();
        // The second write, with a random part of its sectors on the disk.
        let mut torn = before.clone();
        for (number, content) in &mut torn {
            let after = &disk.image()[number];
            for (kept, new) in content.chunks_mut(512).zip(after.chunks(512)) {
                if random.below(2) == 0 {
                    kept.copy_from_slice(new);
                }
            }
        }
        let whole = torn == disk.image();
        let recovered = open(&LiarDisk::from_image(torn)).unwrap();
        let found = content(recovered.group(A).unwrap()).await.entries;
        let both = [first.clone(), second].concat();
        assert!(found == first || whole && found == both, "seed {seed}: {} entries", found.len());
    }
}

/// Three batches in the last segment, one older segment; returns the disk and what the groups hold
/// after each batch.
async fn sample() -> (LiarDisk, Vec<BTreeMap<GroupId, Content>>) {
    let disk = LiarDisk::default();
    let log = open(&disk).unwrap();
    let (mut a, mut b) = (log.group(A).unwrap(), log.group(B).unwrap());
    a.blocking_append([entry(1, 0, "old"), entry(1, 1, "old too")]).await.unwrap();
    b.save_vote(&Vote::new(1, 1)).await.unwrap();
    log.close().await.unwrap();
    let log = open(&disk).unwrap();
    let (mut a, mut b) = (log.group(A).unwrap(), log.group(B).unwrap());
    let mut states = Vec::new();
    a.blocking_append([entry(2, 2, "first"), entry(2, 3, "second")]).await.unwrap();
    states.push(all(&log).await);
    b.blocking_append([entry(2, 0, "of b")]).await.unwrap();
    states.push(all(&log).await);
    a.save_vote(&Vote::new(3, 2)).await.unwrap();
    states.push(all(&log).await);
    log.close().await.unwrap();
    (disk, states)
}

async fn all(log: &Log) -> BTreeMap<GroupId, Content> {
    BTreeMap::from([(A, content(log.group(A).unwrap()).await), (B, content(log.group(B).unwrap()).await)])
}

#[tokio::test]
async fn a_flipped_byte_anywhere_is_reported_or_in_the_last_write() {
    let (disk, states) = sample().await;
    let image = disk.image();
    let newest = *image.keys().next_back().unwrap();
    let (last, before_last) = (states[2].clone(), states[1].clone());
    let (mut reported, mut of_one_group, mut dropped, mut harmless) = (0, 0, 0, 0);
    for (&number, content_of) in &image {
        for at in 0..content_of.len() {
            let mut rotten = image.clone();
            rotten.get_mut(&number).unwrap()[at] ^= 0x10;
            let Ok(log) = open(&LiarDisk::from_image(rotten)) else {
                reported += 1;
                continue;
            };
            match (log.group(A), log.group(B)) {
                (Ok(_), Ok(_)) => {
                    let found = all(&log).await;
                    if found == last {
                        // Bytes of no meaning behind the end, or a vote that a newer record repeats.
                        harmless += 1;
                    } else {
                        assert_eq!((found, number), (before_last.clone(), newest), "byte {at}");
                        dropped += 1;
                    }
                }
                (Err(LogError::GroupDamaged { .. }), Ok(sound)) => {
                    assert_eq!(content(sound).await, last[&B], "segment {number} byte {at}");
                    of_one_group += 1;
                }
                (Ok(sound), Err(LogError::GroupDamaged { .. })) => {
                    assert_eq!(content(sound).await, last[&A], "segment {number} byte {at}");
                    of_one_group += 1;
                }
                other => panic!("segment {number} byte {at}: {:?}", (other.0.err(), other.1.err())),
            }
        }
    }
    println!(
        "reported {reported}, of one group {of_one_group}, last write dropped {dropped}, harmless {harmless}"
    );
    assert!(reported > 0 && of_one_group > 0 && dropped > 0 && harmless > 0);
}

#[tokio::test]
async fn a_log_cut_at_any_byte_holds_whole_writes_only() {
    let (disk, states) = sample().await;
    let image = disk.image();
    let (&newest, content_of) = image.iter().next_back().unwrap();
    let written = content_of.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut counts = BTreeMap::new();
    for at in SEGMENT_HEADER_SIZE..written {
        for filled in [false, true] {
            let mut torn = image.clone();
            let segment = torn.get_mut(&newest).unwrap();
            segment.truncate(at);
            if filled {
                segment.resize(content_of.len(), 0);
            }
            let log = open(&LiarDisk::from_image(torn)).unwrap();
            let found = all(&log).await;
            let whole = states.iter().rposition(|state| *state == found);
            *counts.entry(whole).or_insert(0) += 1;
            if whole.is_none() {
                // Before the first batch of the segment: what the older segment says.
                assert_eq!(found[&A].entries.len(), 2, "cut at {at}");
            }
        }
    }
    assert_eq!(counts.len(), 3 + usize::from(counts.contains_key(&Some(2))), "{counts:?}");
}

#[tokio::test]
async fn after_a_failed_flush_nothing_is_accepted_any_more() {
    for fault in [LiarDisk::fail_one_flush, LiarDisk::fail_one_write] {
        let disk = LiarDisk::default();
        let log = open(&disk).unwrap();
        let (mut a, mut b) = (log.group(A).unwrap(), log.group(B).unwrap());
        a.blocking_append([entry(1, 0, "safe")]).await.unwrap();
        fault(&disk);
        a.blocking_append([entry(1, 1, "lost")]).await.unwrap_err();
        // The disk is well again; the log must not be.
        let writes = disk.writes();
        b.save_vote(&Vote::new(1, 1)).await.unwrap_err();
        a.blocking_append([entry(1, 1, "again")]).await.unwrap_err();
        log.close().await.unwrap_err();
        assert_eq!(disk.writes(), writes);
        let recovered = open(&disk.after_power_cut(|| true)).unwrap();
        assert_eq!(content(recovered.group(A).unwrap()).await.entries, [entry(1, 0, "safe")]);
        assert_eq!(content(recovered.group(B).unwrap()).await, Content::default());
    }
}

#[tokio::test]
async fn what_a_failed_flush_left_in_memory_is_on_the_disk_once_it_was_read_back() {
    let disk = LiarDisk::default();
    let log = open(&disk).unwrap();
    let mut a = log.group(A).unwrap();
    a.blocking_append([entry(1, 0, "safe")]).await.unwrap();
    disk.fail_one_flush_unseen();
    a.blocking_append([entry(1, 1, "seen and not written")]).await.unwrap_err();
    log.close().await.unwrap_err();
    // The program starts anew, the machine does not: the page is still in memory, and clean.
    let log = open(&disk).unwrap();
    let found = content(log.group(A).unwrap()).await;
    assert_eq!(found.entries.len(), 2, "it reads back");
    // Whoever heard that from this node counts on it.
    let recovered = open(&disk.after_power_cut(|| false)).unwrap();
    assert_eq!(content(recovered.group(A).unwrap()).await, found);
}

#[tokio::test]
async fn a_full_disk_stops_the_log_and_loses_nothing() {
    let disk = LiarDisk::default();
    let log = open(&disk).unwrap();
    let mut a = log.group(A).unwrap();
    let mut kept = Vec::new();
    disk.fail_one_create();
    for index in 0.. {
        let fresh = entry(1, index, &"x".repeat(500));
        if a.blocking_append([fresh.clone()]).await.is_err() {
            break;
        }
        kept.push(fresh);
    }
    assert!(kept.len() > 3);
    let recovered = open(&disk.after_power_cut(|| true)).unwrap();
    assert_eq!(content(recovered.group(A).unwrap()).await.entries, kept);
}

#[tokio::test]
async fn segments_go_when_all_groups_have_purged_and_state_is_carried_along() {
    let disk = LiarDisk::default();
    let log = open(&disk).unwrap();
    let (mut a, mut b) = (log.group(A).unwrap(), log.group(B).unwrap());
    b.save_vote(&Vote::new(5, 3)).await.unwrap();
    b.blocking_append([entry(5, 0, "holds the first segment")]).await.unwrap();
    let mut holding = log.holding();
    for index in 0..100 {
        a.blocking_append([entry(1, index, &"x".repeat(500))]).await.unwrap();
        if index % 10 == 9 {
            a.cover(id(1, index)).unwrap();
            a.purge(id(1, index)).await.unwrap();
        }
    }
    // B has one old entry: everything is kept for its sake, and it is named.
    assert!(disk.image().len() > 10);
    assert_eq!(holding.borrow_and_update().get(&B), Some(&0));
    b.cover(id(5, 0)).unwrap();
    b.purge(id(5, 0)).await.unwrap();
    b.save_vote(&Vote::new(6, 3)).await.unwrap();
    assert!(disk.image().len() <= 3, "{} segments left", disk.image().len());
    assert!(holding.borrow_and_update().is_empty());
    let recovered = open(&disk.after_power_cut(|| false)).unwrap();
    let expected = Content { vote: Some(Vote::new(6, 3)), purged: Some(id(5, 0)), entries: vec![] };
    assert_eq!(content(recovered.group(B).unwrap()).await, expected);
    assert_eq!(content(recovered.group(A).unwrap()).await.purged, Some(id(1, 99)));
}

#[tokio::test]
async fn a_purge_waits_until_the_machine_covers_it() {
    let disk = LiarDisk::default();
    let log = open(&disk).unwrap();
    let mut a = log.group(A).unwrap();
    let entries: Vec<Entry> = (0..5).map(|at| entry(1, at, "x")).collect();
    a.blocking_append(entries.clone()).await.unwrap();
    // As while a snapshot up to entry 20 is being installed.
    a.purge(id(2, 20)).await.unwrap();
    assert_eq!(content(a.clone()).await.entries, []);
    a.save_vote(&Vote::new(2, 2)).await.unwrap();
    let too_early = open(&disk.after_power_cut(|| false)).unwrap();
    assert_eq!(content(too_early.group(A).unwrap()).await.entries, entries);
    a.cover(id(2, 20)).unwrap();
    a.blocking_append([entry(2, 21, "after")]).await.unwrap();
    let recovered = open(&disk.after_power_cut(|| false)).unwrap();
    let found = content(recovered.group(A).unwrap()).await;
    assert_eq!((found.purged, found.entries), (Some(id(2, 20)), vec![entry(2, 21, "after")]));
}

#[tokio::test]
async fn entries_behind_a_purge_are_not_sent_as_if_they_were_the_next() {
    let disk = LiarDisk::default();
    let log = open(&disk).unwrap();
    let mut a = log.group(A).unwrap();
    let entries: Vec<Entry> = (0..9).map(|at| entry(1, at, "x")).collect();
    a.blocking_append(entries.clone()).await.unwrap();
    a.cover(id(1, 5)).unwrap();
    a.purge(id(1, 5)).await.unwrap();
    assert_eq!(a.limited_get_log_entries(3, 9).await.unwrap(), []);
    assert_eq!(a.limited_get_log_entries(6, 9).await.unwrap(), entries[6..]);
}

#[tokio::test]
async fn what_is_sent_is_compared_with_the_log_as_it_is_now() {
    let disk = LiarDisk::default();
    let log = open(&disk).unwrap();
    let mut a = log.group(A).unwrap();
    let holds =
        |log: &GroupLog, previous, ids: &[LogId]| log.inspect(|index| index.holds(previous, ids.to_vec()));
    a.blocking_append((0..6).map(|at| entry(2, at, "x"))).await.unwrap();
    assert!(holds(&a, None, &[id(2, 0), id(2, 1)]));
    assert!(holds(&a, Some(id(2, 3)), &[id(2, 4), id(2, 5)]));
    assert!(!holds(&a, Some(id(2, 3)), &[id(2, 5)]), "a hole");
    // The next leader's entries replace two; one of its predecessors had been before this node's term.
    a.truncate(id(2, 4)).await.unwrap();
    a.blocking_append([entry(1, 4, "y"), entry(3, 5, "y")]).await.unwrap();
    assert!(!holds(&a, Some(id(2, 4)), &[id(3, 5)]), "behind an entry that is gone");
    assert!(!holds(&a, Some(id(2, 3)), &[id(2, 4)]));
    assert!(holds(&a, Some(id(2, 3)), &[id(1, 4), id(3, 5)]));
    a.cover(id(1, 4)).unwrap();
    a.purge(id(1, 4)).await.unwrap();
    assert!(holds(&a, Some(id(1, 4)), &[id(3, 5)]));
    assert!(!holds(&a, Some(id(2, 4)), &[id(3, 5)]), "behind what cannot be compared");
    assert!(!holds(&a, None, &[id(3, 5)]));
}

#[tokio::test]
async fn entries_beyond_the_cache_are_read_back_and_verified() {
    let disk = LiarDisk::default();
    let log = Log::open(Arc::new(disk.clone()), NODE, limits(1 << 20), &Host::default(), None).unwrap();
    let mut a = log.group(A).unwrap();
    let entries: Vec<Entry> = (0..40).map(|at| entry(1, at, &"x".repeat(1 << 20))).collect();
    for fresh in &entries {
        a.blocking_append([fresh.clone()]).await.unwrap();
    }
    assert_eq!(a.try_get_log_entries(..).await.unwrap(), entries);
    assert_eq!(a.limited_get_log_entries(3, 20).await.unwrap(), entries[3..4]);
    // Rot under a running log is noticed on reading.
    let (&oldest, _) = disk.image().iter().next().unwrap();
    let rotten = disk.image()[&oldest][5000] ^ 1;
    super::disk::Disk::open(&disk, oldest).unwrap().write_at(5000, &[rotten]).unwrap();
    a.try_get_log_entries(0..1).await.unwrap_err();
    assert_eq!(a.try_get_log_entries(1..3).await.unwrap(), entries[1..3]);
}

#[tokio::test]
async fn a_forgotten_group_starts_from_nothing_even_when_it_was_damaged() {
    let (disk, _) = sample().await;
    let mut image = disk.image();
    let oldest = *image.keys().next().unwrap();
    // Behind the header of the first record, in its payload.
    image.get_mut(&oldest).unwrap()[SEGMENT_HEADER_SIZE + 42] ^= 1;
    let disk = LiarDisk::from_image(image);
    let log = open(&disk).unwrap();
    assert!(matches!(log.group(A), Err(LogError::GroupDamaged { group, .. }) if group == A));
    log.forget(A).await.unwrap();
    assert_eq!(content(log.group(A).unwrap()).await, Content::default());
    log.group(A).unwrap().blocking_append([entry(9, 0, "anew")]).await.unwrap();
    let recovered = open(&disk.after_power_cut(|| false)).unwrap();
    assert_eq!(content(recovered.group(A).unwrap()).await.entries, [entry(9, 0, "anew")]);
}

#[tokio::test]
async fn the_log_of_another_node_or_with_a_segment_missing_is_refused() {
    let (disk, _) = sample().await;
    let other = Log::open(Arc::new(disk.clone()), NodeId::new(8), limits(4096), &Host::default(), None);
    assert!(matches!(other.err(), Some(LogError::OtherNode { found, .. }) if found == NODE));
    let log = open(&disk).unwrap();
    log.close().await.unwrap();
    let mut image = disk.image();
    let middle = *image.keys().nth(1).unwrap();
    image.remove(&middle);
    assert!(matches!(open(&LiarDisk::from_image(image)).err(), Some(LogError::Damaged { .. })));
}
