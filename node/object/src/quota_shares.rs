//! A tenant's quota, once its catalog has several partitions: each has a share, and the shares add up to it. What one
//! partition takes is refused by its own share alone; when that runs out while others have room, the quota is shared
//! anew.

use holdfast_catalog::{Layout, Op, Quota, Refusal, Response};
use holdfast_model::PartitionId;

use crate::{
    api::ObjectError,
    family::Wait,
    service::refused,
    tenant::{TenantHandle, unexpected},
};

/// What was tried to make room in a partition's share of the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sharing {
    NotYet,
    Evenly,
    AllToOne,
}

impl Sharing {
    /// Who gets all that is free by the next try.
    pub(crate) fn next(self, partition: PartitionId) -> Option<PartitionId> {
        (self == Self::Evenly).then_some(partition)
    }
}

impl TenantHandle {
    /// Shares the tenant's quota among its partitions by what they hold, or first sets it. What is free is shared
    /// evenly, or goes `all_to` one. `false` when there is one partition, or no quota to share.
    ///
    /// First no share grows and some shrink; what partitions hold then cannot grow beyond that, so shares that cover
    /// it add up to the quota and are never exceeded together.
    pub(crate) async fn share_quota(
        &self,
        wanted: Option<Quota>,
        all_to: Option<PartitionId>,
    ) -> Result<bool, ObjectError> {
        let wait = Wait::new();
        loop {
            let before = self.layouts().await?;
            if before.len() == 1 {
                return Ok(false);
            }
            let quota = wanted.unwrap_or_else(|| sum_of_quotas(before.iter().map(|(_, layout)| layout)));
            if wanted.is_none() && quota == Quota::default() {
                return Ok(false);
            }
            let aim = shares(quota, &before, all_to);
            let kept: Vec<(PartitionId, Quota)> = before
                .iter()
                .zip(&aim)
                .map(|((id, layout), (_, aim))| (*id, least(layout.quota, *aim)))
                .collect();
            if self.share(before[0].1.quota_shares, kept).await? {
                let held = self.layouts().await?;
                let aim = shares(quota, &held, all_to);
                if held.len() == before.len() && self.share(held[0].1.quota_shares, aim).await? {
                    return Ok(true);
                }
            }
            wait.pause("the tenant's quota is being shared among its partitions").await?;
        }
    }

    /// `false` when it was shared anew meanwhile.
    async fn share(&self, before: u64, shares: Vec<(PartitionId, Quota)>) -> Result<bool, ObjectError> {
        match self.backing.propose(self.route()?, Op::ShareQuota { before, shares }).await? {
            Ok(Response::QuotaShared) => Ok(true),
            Ok(other) => Err(unexpected(&other)),
            Err(Refusal::Moved) => Ok(false),
            Err(refusal) => Err(refused(refusal, "", "")),
        }
    }

    /// Where each partition stands.
    pub(crate) async fn layouts(&self) -> Result<Vec<(PartitionId, Layout)>, ObjectError> {
        self.read_all("", |catalog| Ok((catalog.identity().partition, catalog.layout()?))).await
    }
}

/// What these partitions may hold together.
pub(crate) fn sum_of_quotas<'a>(layouts: impl Iterator<Item = &'a Layout> + Clone) -> Quota {
    let sum = |limit: &dyn Fn(&Layout) -> Option<u64>| {
        layouts.clone().try_fold(0u64, |sum, layout| Some(sum.saturating_add(limit(layout)?)))
    };
    Quota { bytes: sum(&|layout| layout.quota.bytes), objects: sum(&|layout| layout.quota.objects) }
}

/// The lesser of two limits, of which `None` is the greatest.
fn least(a: Quota, b: Quota) -> Quota {
    let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    };
    Quota { bytes: least(a.bytes, b.bytes), objects: least(a.objects, b.objects) }
}

/// Shares of a quota: what each partition holds, and a part of what is free. They add up to the quota.
fn shares(
    quota: Quota,
    layouts: &[(PartitionId, Layout)],
    all_to: Option<PartitionId>,
) -> Vec<(PartitionId, Quota)> {
    let part = |limit: Option<u64>, held: &dyn Fn(&Layout) -> u64| -> Vec<Option<u64>> {
        let Some(limit) = limit else { return vec![None; layouts.len()] };
        let free = limit.saturating_sub(layouts.iter().map(|(_, layout)| held(layout)).sum());
        let each = if all_to.is_some() { 0 } else { free / layouts.len() as u64 };
        let mut left = limit;
        let mut shares: Vec<u64> = Vec::with_capacity(layouts.len());
        for (_, layout) in layouts {
            let share = held(layout).saturating_add(each).min(left);
            left -= share;
            shares.push(share);
        }
        let favoured = layouts.iter().position(|(id, _)| Some(*id) == all_to).unwrap_or(0);
        if let Some(share) = shares.get_mut(favoured) {
            *share += left;
        }
        shares.into_iter().map(Some).collect()
    };
    let bytes = part(quota.bytes, &|layout| layout.bytes);
    let objects = part(quota.objects, &|layout| layout.versions);
    layouts
        .iter()
        .zip(bytes.into_iter().zip(objects))
        .map(|((id, _), (bytes, objects))| (*id, Quota { bytes, objects }))
        .collect()
}

#[cfg(test)]
mod tests {
    use holdfast_catalog::HashRange;

    use super::*;

    fn layout(n: u64, bytes: u64, quota: Option<u64>) -> (PartitionId, Layout) {
        let layout = Layout {
            range: HashRange::ALL,
            clearing: false,
            versions: bytes,
            bytes,
            quota: Quota { bytes: quota, objects: None },
            quota_shares: 0,
        };
        (PartitionId::new(n), layout)
    }

    #[test]
    fn shares_cover_what_is_held_and_add_up_to_the_quota() {
        for quota in [0, 1, 99, 100, 101, 1000] {
            for held in [[0, 0, 0], [100, 0, 0], [0, 50, 50], [30, 30, 40]] {
                let layouts: Vec<_> = (1..).zip(held).map(|(n, held)| layout(n, held, None)).collect();
                for all_to in [None, Some(PartitionId::new(2))] {
                    let shares = shares(Quota { bytes: Some(quota), objects: None }, &layouts, all_to);
                    assert_eq!(shares.iter().map(|(_, share)| share.bytes.unwrap()).sum::<u64>(), quota);
                    let all: u64 = held.iter().sum();
                    if quota >= all {
                        assert!(shares.iter().zip(held).all(|((_, share), held)| share.bytes >= Some(held)));
                        let second = held[1] + quota - all;
                        assert!(all_to.is_none() || shares[1].1.bytes == Some(second));
                    }
                }
            }
        }
    }

    #[test]
    fn a_sum_without_a_limit_is_none() {
        let layouts = [layout(1, 0, Some(3)).1, layout(2, 0, Some(4)).1];
        assert_eq!(sum_of_quotas(layouts.iter()), Quota { bytes: Some(7), objects: None });
        let layouts = [layout(1, 0, Some(3)).1, layout(2, 0, None).1];
        assert_eq!(sum_of_quotas(layouts.iter()), Quota::default());
    }
}
