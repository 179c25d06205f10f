//! What the catalog places on drives that are away or leaving: debt, and a plan of what to move.
//!
//! One scan of each drive's range in the catalog's index by drive. Debt is what the catalog says, never what
//! was meant to be repaired.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_catalog::{PartitionReader, ReadError, StripeRef};
use holdfast_model::{DriveId, StripeId};

use super::{
    absent::Verdict,
    status::{Debt, PartitionDebt},
};
use crate::directory::TenantEntry;

/// Stripes of one partition and exposure planned at once (16 bytes each); further ones are planned when these are done.
const PLAN_MAX: usize = 1 << 20;

/// Rows read from the catalog at once.
const PAGE: usize = 1024;

/// What is to be done about one partition.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub stripes: Debt,
    pub unreadable: u64,
    pub draining: u64,
    /// Stripes to move shards of, by exposure.
    pub plan: BTreeMap<u8, Vec<StripeId>>,
    /// Stripes that have shards to rebuild, planned or not.
    pub rebuilds: u64,
    /// Stripes of which shards only move, planned or not.
    pub moves: u64,
}

pub(super) fn debt_of(tenant: &TenantEntry, survey: &Survey) -> PartitionDebt {
    PartitionDebt {
        tenant: tenant.id,
        stripes: survey.stripes.clone(),
        unreadable: survey.unreadable,
        draining: survey.draining,
    }
}

/// Everything the catalog places on drives that are absent or leaving. One scan of each drive's range.
pub(super) fn survey(catalog: &PartitionReader, verdict: &Verdict) -> Result<Survey, ReadError> {
    let leaving = verdict.leaving();
    let concerned = verdict.concerned();
    let mut survey = Survey::default();
    for drive in &concerned {
        let mut after = None;
        loop {
            let page = catalog.stripes_on_drive(*drive, after, PAGE)?;
            let Some(end) = page.last() else { break };
            after = Some(end.known.stripe.id);
            for shard in page.into_iter().filter(|shard| shard.known.live) {
                let stripe = shard.known.stripe;
                let on = |drives: &BTreeSet<DriveId>| {
                    stripe.places.iter().filter(|place| drives.contains(&place.drive)).count()
                };
                // A stripe is met once for each of these drives, and counted at the first.
                let first =
                    stripe.places.iter().map(|place| place.drive).filter(|d| concerned.contains(d)).min();
                if first == Some(*drive) {
                    let (exposed, to_move) = (on(&verdict.absent), on(&leaving));
                    let lost = on(&verdict.lost);
                    survey.draining += on(&verdict.draining) as u64;
                    survey.note(&stripe, exposed, to_move, lost);
                }
            }
        }
    }
    Ok(survey)
}

impl Survey {
    fn note(&mut self, stripe: &StripeRef, exposed: usize, to_move: usize, lost: usize) {
        let level = u8::try_from(exposed).unwrap_or(u8::MAX);
        if exposed > 0 && !holdfast_planted::is("DebtIsNotCounted") {
            *self.stripes.entry(level).or_default() += 1;
            self.unreadable += u64::from(exposed > usize::from(stripe.parity));
        }
        if holdfast_planted::is("PlansOnlyTheWorst") && exposed < 2 {
            return;
        }
        if to_move > 0 && exposed <= usize::from(stripe.parity) {
            *(if lost > 0 { &mut self.rebuilds } else { &mut self.moves }) += 1;
            let planned = self.plan.entry(level).or_default();
            if planned.len() < PLAN_MAX {
                planned.push(stripe.id);
            }
        }
    }
}

impl PartitionDebt {
    /// Of a stripe that had `level` shards on drives that are absent, `rebuilt` are elsewhere now. The others are still owed:
    /// their drives are not given up yet. The recount at the end of the run has the last word.
    pub(super) fn settle(&mut self, level: u8, rebuilt: u8) {
        let Some(count) = self.stripes.get_mut(&level) else { return };
        *count = count.saturating_sub(1);
        let left =
            if holdfast_planted::is("RebuiltInPartCounts") { 0 } else { level.saturating_sub(rebuilt) };
        if left > 0 {
            *self.stripes.entry(left).or_default() += 1;
        }
        self.stripes.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::TenantId;

    use super::*;

    #[test]
    fn a_stripe_that_was_rebuilt_in_part_still_owes_the_rest() {
        let stripes = Debt::from([(1, 5), (3, 2)]);
        let mut debt =
            PartitionDebt { tenant: TenantId::from_bytes([1; 16]), stripes, unreadable: 0, draining: 0 };
        debt.settle(3, 2);
        assert_eq!(debt.stripes, Debt::from([(1, 6), (3, 1)]));
        debt.settle(3, 3);
        assert_eq!(debt.stripes, Debt::from([(1, 6)]));
        // What only left a drive that is emptied was no debt.
        debt.settle(1, 0);
        assert_eq!(debt.stripes, Debt::from([(1, 6)]));
        debt.settle(0, 0);
        assert_eq!(debt.stripes, Debt::from([(1, 6)]));
        for _ in 0..6 {
            debt.settle(1, 1);
        }
        assert_eq!(debt.total(), 0);
    }
}
