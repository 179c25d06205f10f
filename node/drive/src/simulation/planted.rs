//! The suite can fail: each planted bug is found by the test named beside it.

use super::{crashes, faults, random, rot};
use crate::planted::Bug;

/// A check that finds a planted bug.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    bug: Bug,
    /// The bug's name.
    pub name: &'static str,
    /// The test's name.
    pub test: &'static str,
    /// The test: panics when a promise is broken. Takes a second or so.
    pub run: fn(),
}

/// Pairs of a bug and the test that finds it.
macro_rules! planted {
    ($(($bug:ident, $module:ident::$test:ident)),* $(,)?) => {
        &[$(Check {
            bug: Bug::$bug,
            name: stringify!($bug),
            test: concat!(stringify!($module), "::", stringify!($test)),
            run: $module::$test,
        }),*]
    };
}

/// All planted bugs of a drive, each with the test that finds it.
pub const CHECKS: &[Check] = planted![
    (AckBeforeFlush, faults::a_failed_flush_fences_for_good_and_the_label_says_so),
    (SkipFlush, random::short_runs),
    (FlushCoversLater, random::short_runs),
    (RetryFlush, faults::a_failed_flush_fences_for_good_and_the_label_says_so),
    (IgnoreShortWrite, faults::short_writes_are_finished_before_the_flush),
    (ForgetFence, faults::a_failed_flush_fences_for_good_and_the_label_says_so),
    (OvertakeWaiting, random::short_runs),
    (DropTombstones, faults::what_was_replaced_does_not_come_back),
    (FreeBeforeTombstones, crashes::every_crash_of_freeing_tombstones_keeps_what_was_deleted_deleted),
    (ForgetOldCopy, faults::what_was_replaced_does_not_come_back),
    (StopAtBadSector, faults::damage_to_an_acknowledged_record_is_reported_and_a_torn_tail_is_not),
    (ForgetLost, rot::some),
    (AcceptTorn, random::short_runs),
    (RepeatLife, random::short_runs),
    (IgnoreResume, faults::damage_to_an_acknowledged_record_is_reported_and_a_torn_tail_is_not),
    (IgnoreIdentity, faults::a_record_of_another_place_or_shard_is_refused),
    (IgnoreChecksum, faults::damage_to_an_acknowledged_record_is_reported_and_a_torn_tail_is_not),
    (FooterBeforeDurable, crashes::every_crash_of_sealing_and_reclaiming_keeps_what_was_acknowledged),
    (MoveInHope, rot::a_full_drive_with_unreadable_records_in_every_segment_can_be_emptied_and_filled_again),
    (DamagePins, rot::damage_in_every_segment_keeps_no_room),
];

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::planted::with;

    /// Bytes shown of what a test said.
    const SHOWN: usize = 90;

    #[test]
    fn every_planted_bug_is_found() {
        let mut missed = Vec::new();
        let mut table = String::new();
        for Check { bug, name, test, run } in CHECKS {
            let said = match with(*bug, || catch_unwind(AssertUnwindSafe(run))) {
                Ok(()) => {
                    missed.push(*bug);
                    "NOT FOUND".to_owned()
                }
                Err(panic) => {
                    let text = panic.downcast_ref::<String>().cloned();
                    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                    text.unwrap_or_default().lines().map(str::trim).collect::<Vec<_>>().join(" ")
                }
            };
            let said: String = said.chars().take(SHOWN).collect();
            table += &format!("{name:<22} {test}\n{:<22}   {said}\n", "");
        }
        println!("planted bug            found by, and what it said\n{table}");
        println!("{} of {} planted bugs found", CHECKS.len() - missed.len(), CHECKS.len());
        assert!(missed.is_empty(), "not found: {missed:?}");
    }
}
