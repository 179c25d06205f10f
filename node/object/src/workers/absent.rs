//! Which drives are not there, and which of those are given up.
//!
//! Pure: takes what the catalog of drives says, what nodes report, and the time.
//!
//! A drive that is **absent** counts as debt at once. It is **lost**, and what it held is rebuilt elsewhere,
//! only after a grace: a node that restarts comes back with all it had, and nothing should have been moved.
//! A drive that failed on a node that works will not come back by itself, so its grace is short.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use holdfast_model::{DriveId, NodeId, UnixMillis};

/// How long a drive may be unusable on a node that answers before it is rebuilt elsewhere.
pub const DRIVE_GRACE: Duration = Duration::from_secs(30);

/// How long a node may be silent before its drives are rebuilt elsewhere.
pub const NODE_GRACE: Duration = Duration::from_secs(15 * 60);

/// A drive of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownDrive {
    /// The drive.
    pub drive: DriveId,
    /// The node it belongs to.
    pub node: NodeId,
    /// What the operator wants of it.
    pub standing: Standing,
    /// Since when it is a member.
    pub since: UnixMillis,
}

/// What the operator wants of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It takes shards.
    Active,
    /// It is to be emptied.
    Draining,
    /// It left for good.
    Removed,
}

/// What nodes report at one moment.
#[derive(Debug, Clone, Default)]
pub struct Reported {
    /// Nodes that answer.
    pub nodes: BTreeSet<NodeId>,
    /// Drives that can be read.
    pub drives: BTreeSet<DriveId>,
}

/// What is to be done about drives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Not readable now: what they hold is debt.
    pub absent: BTreeSet<DriveId>,
    /// Given up: what they hold is rebuilt elsewhere. A part of `absent`.
    pub lost: BTreeSet<DriveId>,
    /// Readable, and to be emptied.
    pub draining: BTreeSet<DriveId>,
    /// When the next absent drive is given up.
    pub next: Option<Instant>,
}

impl Verdict {
    /// Drives from which shards are moved away.
    #[must_use]
    pub fn leaving(&self) -> BTreeSet<DriveId> {
        self.lost.union(&self.draining).copied().collect()
    }

    /// Drives of which it is counted what they hold.
    #[must_use]
    pub fn concerned(&self) -> BTreeSet<DriveId> {
        self.absent.union(&self.draining).copied().collect()
    }
}

/// Since when drives have been absent.
#[derive(Debug, Default)]
pub struct Absences(BTreeMap<DriveId, Instant>);

impl Absences {
    /// Takes what is known at `now`.
    pub fn judge(&mut self, known: &[KnownDrive], reported: &Reported, now: Instant) -> Verdict {
        let mut verdict = Verdict::default();
        for drive in known {
            if reported.drives.contains(&drive.drive) && drive.standing != Standing::Removed {
                self.0.remove(&drive.drive);
                if drive.standing == Standing::Draining {
                    verdict.draining.insert(drive.drive);
                }
                continue;
            }
            let since = *self.0.entry(drive.drive).or_insert(now);
            let grace = match drive.standing {
                Standing::Removed if holdfast_planted::is("RemovedIsWaitedFor") => NODE_GRACE,
                Standing::Removed => Duration::ZERO,
                Standing::Active | Standing::Draining if reported.nodes.contains(&drive.node) => DRIVE_GRACE,
                Standing::Active | Standing::Draining => NODE_GRACE,
            };
            verdict.absent.insert(drive.drive);
            let due = since + grace;
            if now >= due && !holdfast_planted::is("NothingIsGivenUp") {
                verdict.lost.insert(drive.drive);
            } else {
                verdict.next = Some(verdict.next.map_or(due, |next| next.min(due)));
            }
        }
        let present: BTreeSet<DriveId> = known.iter().map(|drive| drive.drive).collect();
        self.0.retain(|drive, _| present.contains(drive));
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(id: u8, node: u64, standing: Standing) -> KnownDrive {
        KnownDrive {
            drive: DriveId::from_bytes([id; 16]),
            node: NodeId::new(node),
            standing,
            since: UnixMillis::new(0),
        }
    }

    fn reported(nodes: &[u64], drives: &[u8]) -> Reported {
        Reported {
            nodes: nodes.iter().copied().map(NodeId::new).collect(),
            drives: drives.iter().map(|id| DriveId::from_bytes([*id; 16])).collect(),
        }
    }

    fn ids(drives: &BTreeSet<DriveId>) -> Vec<u8> {
        drives.iter().map(|drive| drive.as_bytes()[0]).collect()
    }

    #[test]
    fn a_failed_drive_is_given_up_soon_and_a_silent_node_much_later() {
        let known =
            [drive(1, 1, Standing::Active), drive(2, 1, Standing::Active), drive(3, 2, Standing::Active)];
        let mut absences = Absences::default();
        let start = Instant::now();
        let seen = reported(&[1], &[1]);
        let verdict = absences.judge(&known, &seen, start);
        assert_eq!((ids(&verdict.absent), ids(&verdict.lost)), (vec![2, 3], vec![]));
        assert_eq!(verdict.next, Some(start + DRIVE_GRACE));
        let verdict = absences.judge(&known, &seen, start + DRIVE_GRACE);
        assert_eq!((ids(&verdict.absent), ids(&verdict.lost)), (vec![2, 3], vec![2]));
        let verdict = absences.judge(&known, &seen, start + NODE_GRACE);
        assert_eq!(ids(&verdict.lost), vec![2, 3]);
        assert_eq!(verdict.next, None);
    }

    #[test]
    fn a_drive_that_comes_back_starts_a_new_grace_when_it_goes_again() {
        let known = [drive(1, 1, Standing::Active)];
        let mut absences = Absences::default();
        let start = Instant::now();
        absences.judge(&known, &reported(&[1], &[]), start);
        let verdict = absences.judge(&known, &reported(&[1], &[1]), start + DRIVE_GRACE / 2);
        assert_eq!(verdict, Verdict::default());
        let verdict = absences.judge(&known, &reported(&[1], &[]), start + DRIVE_GRACE);
        assert_eq!((ids(&verdict.absent), ids(&verdict.lost)), (vec![1], vec![]));
    }

    #[test]
    fn a_draining_drive_is_read_from_and_one_that_was_removed_is_not_waited_for() {
        let known = [drive(1, 1, Standing::Draining), drive(2, 1, Standing::Removed)];
        let verdict = Absences::default().judge(&known, &reported(&[1], &[1, 2]), Instant::now());
        assert_eq!((ids(&verdict.draining), ids(&verdict.lost)), (vec![1], vec![2]));
        assert_eq!(ids(&verdict.leaving()), vec![1, 2]);
    }
}
