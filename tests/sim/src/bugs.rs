//! Bugs that are planted in the code under test, and what is to find each.

/// A bug, what it is, and what finds it.
pub type Planted = (&'static str, &'static str, By);

/// What finds a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// One of the first seeds.
    Seeds,
    /// A plan that was written for it, or failed once ([`crate::plans`]): what it takes is too rare among seeds.
    Plan(&'static str),
    /// The simulation of one drive (`holdfast_drive::simulation`): the other shards of a stripe hide it from a cluster.
    Drive,
}

use By::{Drive, Plan, Seeds};

/// All of them. A full run must find each.
pub const BUGS: &[Planted] = &[
    ("AckBeforeFlush", "drive: records count as soon as they are written", Seeds),
    ("SkipFlush", "drive: no flush is ever sent", Seeds),
    ("IgnoreShortWrite", "drive: a short write counts as whole", Seeds),
    ("IgnoreChecksum", "drive: reads do not check the payload", Seeds),
    ("DataShardsSuffice", "store: a stripe counts as written when it can be read", Seeds),
    ("RebuildsAnother", "store: a rebuild makes another shard than the lost one", Seeds),
    ("CopiesNothing", "store: a copied shard is zeros", Seeds),
    ("RebuildsFromWrongPlaces", "store: a read rebuilds from shards in the wrong order", Seeds),
    ("FindingsAreLost", "store: bad shards that are found are not told", Seeds),
    ("DeletesOnlyHere", "store: shards on other nodes are not deleted", Seeds),
    ("OnlyThisGeneration", "store: shards that did not move with their stripe are not read", Seeds),
    ("FinishDoesNotWait", "object: a body ends before its stripes are durable", Seeds),
    ("TailIsLeft", "object: what lies behind the last cell is not cleared", Seeds),
    ("TwoShardsOnADrive", "object: two shards of a stripe are placed on one drive", Seeds),
    ("AllOnOneNode", "object: a node gets more shards than the level allows", Seeds),
    ("ReadBackLosesTheEnd", "object: a stripe that is cut anew loses its end", Seeds),
    ("FailedStripeCounts", "object: a stripe that was not written counts", Seeds),
    ("ReadsWithoutBarrier", "object: reads do not wait for what was decided before", Seeds),
    ("UnknownIsDone", "object: a delete whose outcome is unknown counts as done", Seeds),
    ("SwitchesWithoutCopy", "workers: the catalog is told of a move that was not made", Seeds),
    ("MovesIgnoreNodes", "workers: moved shards gather on one node", Seeds),
    ("SweepDeletesNothing", "workers: garbage counts as deleted and is not", Seeds),
    ("SweepDeletesAnother", "workers: the sweep deletes another shard of the stripe", Seeds),
    ("RepairLooksAway", "workers: damaged shards are not repaired", Seeds),
    ("RepairWantsToSee", "workers: missing shards are not repaired", Seeds),
    ("ScrubDoesNotCompare", "workers: a scrub does not ask for what a drive lost", Seeds),
    ("ScrubDoesNotTell", "workers: a scrub does not tell what is damaged", Seeds),
    ("NothingIsGivenUp", "workers: a drive that is gone is waited for for ever", Seeds),
    ("DebtIsNotCounted", "workers: debt is told to be zero", Seeds),
    (
        "DebtMissesLateWrites",
        "workers: what is placed on a drive that just went is not counted soon",
        Plan("a-put-beside-a-drive-that-goes"),
    ),
    (
        "RebuiltInPartCounts",
        "workers: a stripe counts as rebuilt when one of its drives is not given up yet",
        Plan("rebuilt-while-a-drive-fails"),
    ),
    (
        "DeadCopiesStay",
        "workers: a shard that was written anew when its stripe died is left over",
        Plan("repaired-while-it-is-deleted"),
    ),
    (
        "PlacesGoToAny",
        "workers: a node gets another's shard beside those that stay on it for want of places",
        Plan("two-leave-and-one-finds-a-place"),
    ),
    (
        "RepairGivesUp",
        "workers: of shards of a stripe that several nodes repair one is, and the others at the next scrubs",
        Plan("four-repair-one-stripe"),
    ),
    (
        "HomelessWait",
        "workers: stripes that are too wide for the drives that stay are cut anew an hour later",
        Plan("cut-wide-while-a-node-leaves"),
    ),
    ("PlansOnlyTheWorst", "workers: stripes that miss one shard are not rebuilt", Seeds),
    ("DrainsNothing", "workers: drives that are to be emptied are not", Seeds),
    ("ClosedTakesNew", "store: drives that have left take new shards", Seeds),
    ("RemovedIsWaitedFor", "workers: what is on a drive that has left is not rebuilt at once", Seeds),
    (
        "FullCountsAsEmpty",
        "workers: a drive may leave with shards on it",
        Plan("leaves-while-its-node-is-off"),
    ),
    ("RemainsStay", "workers: shards of a destroyed tenant are not deleted", Seeds),
    ("RemainsOfAll", "workers: shards of other tenants go with those of a destroyed one", Seeds),
    ("WritesWhileShutOut", "object: a suspended tenant's clients write", Seeds),
    ("ReadsWhileShutOut", "object: a suspended tenant's clients read", Seeds),
    (
        "GarbageKeepsGone",
        "workers: garbage on a drive that is gone keeps it, and others, from leaving",
        Seeds,
    ),
    ("OldContentLives", "catalog: content that was replaced is not garbage", Seeds),
    ("RequestsAreForgotten", "catalog: a repeated request is done twice", Seeds),
    ("OlderWins", "catalog: a write is dropped when a larger one is there", Seeds),
    ("DeletesAreLost", "catalog: a delete is acknowledged and not done", Seeds),
    ("AnythingIsAbsent", "catalog: `If-None-Match: *` is not looked at", Seeds),
    (
        "AnyTagMatches",
        "catalog: `If-Match` is content with any object",
        Plan("many-write-on-top-of-the-same"),
    ),
    ("PartsInReverse", "catalog: an object has its parts in the wrong order", Seeds),
    ("ReplacedPartsStay", "catalog: a part that was sent again is not garbage", Seeds),
    ("UnnamedPartsStay", "catalog: parts that an object is not made of are not garbage", Seeds),
    ("AbortKeepsParts", "catalog: parts of an upload that was aborted are not garbage", Seeds),
    ("VersionsAreReplaced", "catalog: a new version takes the place of the one before", Seeds),
    ("NullsGather", "catalog: a version without an id does not replace the one that there is", Seeds),
    ("NoneIsPromoted", "catalog: when the newest version is removed, none becomes current", Seeds),
    ("FlushCoversLater", "drive: a flush answers for what completed after it was sent", Drive),
    ("RetryFlush", "drive: a failed flush is tried again", Drive),
    ("ForgetFence", "drive: the fence is not written to the label", Drive),
    ("OvertakeWaiting", "drive: requests that wait for a shard are overtaken", Drive),
    ("DropTombstones", "drive: reclaiming drops tombstones that are still needed", Drive),
    ("FreeBeforeTombstones", "drive: a segment is freed before its tombstones are elsewhere", Drive),
    ("ForgetOldCopy", "drive: what replaces a record does not kill the old copy", Drive),
    ("StopAtBadSector", "drive: a scan ends at the first sector it does not know", Drive),
    ("ForgetLost", "drive: acknowledged records with unreadable headers are not counted", Drive),
    ("AcceptTorn", "drive: torn records count", Drive),
    ("RepeatLife", "drive: numbers of segment lives start over", Drive),
    ("IgnoreResume", "drive: resume blocks are not believed", Drive),
    ("IgnoreIdentity", "drive: reads do not check which record a header names", Drive),
    ("FooterBeforeDurable", "drive: a footer is written while records are on their way", Drive),
    ("MoveInHope", "drive: reclaiming takes the last room without knowing that it makes any", Drive),
    ("DamagePins", "drive: damaged records keep their segments however full it is", Drive),
    (
        "OneShardMayMiss",
        "store: a stripe counts as written when one shard is not",
        Plan("writes-fail-and-are-cleaned-up"),
    ),
    (
        "LeavingIsNotRead",
        "store: a shard that leaves is not read for the others of its stripe",
        Plan("what-leaves-is-read-for-the-rest"),
    ),
    ("SkipReadBack", "store: what a moved shard reads back as is not compared", Plan("garbled-on-the-way")),
    (
        "MoveIgnoresWrite",
        "store: a moved shard counts whether it was written or not",
        Plan("moved-onto-a-drive-that-fails"),
    ),
    ("UnopenedIsRead", "store: cells that do not open are given to clients", Plan("altered-by-hand")),
    ("StripesInReverse", "object: stripes of a body come in the wrong order", Plan("stripes-in-order")),
    (
        "DraftsAreForgotten",
        "object: what a failed write left is not condemned",
        Plan("writes-fail-and-are-cleaned-up"),
    ),
    (
        "FailedMoveCounts",
        "workers: a move that failed is told to the catalog",
        Plan("moved-onto-a-drive-that-fails"),
    ),
    (
        "StraysStay",
        "workers: what a move left of a live stripe is not looked for",
        Plan("moves-whose-end-nobody-learns"),
    ),
    (
        "StraysAreNotBarred",
        "workers: a copy is taken back that the catalog may yet place",
        Plan("moves-whose-end-nobody-learns"),
    ),
    (
        "TakesBackWhatIsPlaced",
        "workers: a copy is taken back that the catalog counts on",
        Plan("moves-whose-end-nobody-learns"),
    ),
    (
        "SweepForgetsAbsent",
        "workers: garbage on drives that are away counts as deleted",
        Plan("deleted-while-away"),
    ),
    (
        "SweepDeletesAnyGeneration",
        "workers: the sweep deletes what came after the garbage",
        Plan("a-delete-that-comes-late"),
    ),
    ("OrphansStay", "workers: what a crash left is not looked for", Plan("orphans-of-a-crash")),
    (
        "MovesIgnoreGeneration",
        "catalog: a move counts although the stripe has moved meanwhile",
        Plan("many-find-the-same"),
    ),
    ("MovesLeaveTheIndex", "catalog: a move is not entered into the index by drive", Seeds),
    ("MovesLeaveTheOld", "catalog: what a moved shard leaves behind is not garbage", Seeds),
    (
        "MovesGoToUnswept",
        "catalog: a shard moves to where garbage of its stripe is",
        Plan("moved-back-too-early"),
    ),
    (
        "CondemnsTheLiving",
        "catalog: a stripe of an object can be condemned",
        Plan("condemned-although-it-was-decided"),
    ),
    ("AppliesTwice", "catalog: an entry that is replayed is applied again", Seeds),
    (
        "OrphansADriveAtATime",
        "workers: shards left by a crash are given back a drive an hour",
        Plan("orphans-of-a-crash"),
    ),
];
