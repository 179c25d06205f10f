//! The power goes off at every moment of a log's life: before and after each write, flush, new segment and
//! removed segment, with everything or anything of what was not flushed lost.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use openraft::{
    RaftLogReader,
    storage::{RaftLogStorage, RaftLogStorageExt},
};

use super::{
    liar::LiarDisk,
    tests::{A, B, Content, Random, content, entry, open},
};
use crate::types::{Entry, Vote};

/// What one group's log must hold: as answered last, or as that with the operation under way.
#[derive(Clone)]
struct Expected {
    answered: Content,
    under_way: Vec<Content>,
}

impl Expected {
    fn begin(&mut self, states: Vec<Content>) {
        self.under_way = states;
    }

    fn answered(&mut self) {
        self.answered = self.under_way.pop().unwrap();
        self.under_way.clear();
    }
}

/// Works on the log until the power goes off, or to the end.
async fn work(disk: &LiarDisk, a: &mut Expected, b: &mut Expected) -> Option<()> {
    let log = open(disk).ok()?;
    let (mut part, mut other) = (log.group(A).ok()?, log.group(B).ok()?);
    for step in 0..10 {
        // A vote of one group.
        let vote = Vote::new(step + 1, step % 3);
        b.begin(vec![Content { vote: Some(vote), ..b.answered.clone() }]);
        other.save_vote(&vote).await.ok()?;
        b.answered();
        // Entries of the other.
        let next = a.answered.purged.map_or(0, |id| id.index + 1) + a.answered.entries.len() as u64;
        let fresh: Vec<Entry> = (next..next + 3).map(|at| entry(step + 1, at, &"x".repeat(150))).collect();
        let mut with = a.answered.clone();
        with.entries.extend(fresh.clone());
        a.begin(vec![with.clone()]);
        part.blocking_append(fresh).await.ok()?;
        a.answered();
        // The last entry gives way to another.
        let mut without = with.clone();
        let last = without.entries.pop().unwrap();
        let instead = entry(step + 2, last.log_id.index, "instead");
        let mut replaced = without.clone();
        replaced.entries.push(instead.clone());
        a.begin(vec![without, replaced]);
        part.truncate(last.log_id).await.ok()?;
        part.blocking_append([instead]).await.ok()?;
        a.answered();
        // And old ones go: nobody waits for that, it is written with what comes next.
        if step % 2 == 1 {
            let upto = a.answered.entries[3].log_id;
            let mut purged = a.answered.clone();
            purged.entries.drain(..4);
            purged.purged = Some(upto);
            a.begin(vec![purged]);
            part.cover(upto).ok()?;
            part.purge(upto).await.ok()?;
            b.begin(vec![b.answered.clone()]);
            other.save_vote(&vote).await.ok()?;
            b.answered();
            a.answered();
        }
    }
    assert_eq!(part.try_get_log_entries(..).await.unwrap(), a.answered.entries);
    log.close().await.ok()
}

#[tokio::test]
async fn whenever_the_power_goes_off_nothing_that_was_answered_is_lost() {
    let (mut moments, mut states) = (0, 0);
    loop {
        let disk = LiarDisk::default();
        let off = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&off);
        disk.cut_power_in(moments, move || told.store(true, Ordering::SeqCst));
        let nothing = Expected { answered: Content::default(), under_way: Vec::new() };
        let (mut a, mut b) = (nothing.clone(), nothing);
        let finished = work(&disk, &mut a, &mut b).await;
        let off = off.load(Ordering::SeqCst);
        assert_eq!(finished.is_none(), off, "after {moments} moments");
        for pattern in 0..8 {
            let (mut sector, mut random) = (0, Random(moments * 8 + pattern + 1));
            let left = disk.after_power_cut(|| {
                sector += 1;
                match pattern {
                    0 => false,
                    1 => true,
                    2..=4 => sector < pattern,
                    _ => random.below(2) == 0,
                }
            });
            let log = open(&left).unwrap();
            for (group, expected) in [(A, &a), (B, &b)] {
                let found = content(log.group(group).unwrap()).await;
                let fits = found == expected.answered || expected.under_way.contains(&found);
                assert!(fits, "moment {moments}, pattern {pattern}, {group}: {found:?}");
                states += 1;
            }
        }
        if !off {
            break;
        }
        moments += 1;
    }
    println!("{moments} moments, {states} states");
    assert!(moments > 100);
}
