//! The suite can fail: each planted bug is found by the test named beside it.

use super::{crashes, faults, random, rot};
use crate::planted::{Bug, with};

const BUGS: &[(Bug, fn())] = &[
    (Bug::AckBeforeFlush, faults::a_failed_flush_fences_for_good_and_the_label_says_so),
    (Bug::SkipFlush, random::short_runs),
    (Bug::FlushCoversLater, random::short_runs),
    (Bug::RetryFlush, faults::a_failed_flush_fences_for_good_and_the_label_says_so),
    (Bug::IgnoreShortWrite, faults::short_writes_are_finished_before_the_flush),
    (Bug::ForgetFence, faults::a_failed_flush_fences_for_good_and_the_label_says_so),
    (Bug::OvertakeWaiting, random::short_runs),
    (Bug::DropTombstones, faults::what_was_replaced_does_not_come_back),
    (Bug::FreeBeforeTombstones, crashes::every_crash_of_freeing_tombstones_keeps_what_was_deleted_deleted),
    (Bug::ForgetOldCopy, faults::what_was_replaced_does_not_come_back),
    (Bug::StopAtBadSector, faults::damage_to_an_acknowledged_record_is_reported_and_a_torn_tail_is_not),
    (Bug::ForgetLost, rot::some),
    (Bug::AcceptTorn, random::short_runs),
    (Bug::RepeatLife, random::short_runs),
    (Bug::IgnoreResume, faults::damage_to_an_acknowledged_record_is_reported_and_a_torn_tail_is_not),
    (Bug::IgnoreIdentity, faults::a_record_of_another_place_or_shard_is_refused),
    (Bug::IgnoreChecksum, faults::damage_to_an_acknowledged_record_is_reported_and_a_torn_tail_is_not),
    (Bug::FooterBeforeDurable, crashes::every_crash_of_sealing_and_reclaiming_keeps_what_was_acknowledged),
];

#[test]
fn every_planted_bug_is_found() {
    let finds = |bug: Bug, check: fn()| with(bug, || std::panic::catch_unwind(check)).is_err();
    let missed: Vec<Bug> =
        BUGS.iter().filter(|(bug, check)| !finds(*bug, *check)).map(|(bug, _)| *bug).collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
    println!("{} planted bugs found", BUGS.len());
}
