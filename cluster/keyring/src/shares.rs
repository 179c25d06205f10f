//! The shares a node holds, and how shares become a root again.
//!
//! A splitting is dealt to every member before the control state names it, and the one it replaces is kept
//! until then. So whatever the moment, the splitting in force is in the hands of its holders.

use std::{collections::BTreeMap, fmt};

use holdfast_crypt::{CryptError, Root, Share};
use holdfast_model::{ClusterId, KeyId, RootEpoch, SplitId};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Splittings kept at most that are dealt and not in force: each failed attempt to split leaves one.
pub const PENDING_MAX: usize = 32;

/// One node's share of one splitting.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldShare {
    /// Version of the root.
    pub epoch: RootEpoch,
    /// Public name of the root.
    pub root: KeyId,
    /// The splitting.
    pub split: SplitId,
    /// The splitting in force when this one was dealt; none for the first.
    pub replaces: Option<SplitId>,
    /// How many shares give the root.
    pub threshold: u8,
    /// How many were dealt.
    pub count: u8,
    x: u8,
    #[serde(with = "zeroized")]
    pub(crate) y: Zeroizing<[u8; 32]>,
}

/// Secret bytes as they travel.
mod zeroized {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(bytes: &Zeroizing<[u8; 32]>, to: S) -> Result<S::Ok, S::Error> {
        (**bytes).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<[u8; 32]>, D::Error> {
        <[u8; 32]>::deserialize(from).map(Zeroizing::new)
    }
}

impl fmt::Debug for HeldShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldShare")
            .field("epoch", &self.epoch)
            .field("split", &self.split)
            .field("threshold", &self.threshold)
            .field("x", &self.x)
            .finish_non_exhaustive()
    }
}

/// Deals a root to `count` holders; any `threshold` of them have it.
///
/// # Errors
/// `Limit` unless 1 <= `threshold` <= `count`.
pub fn deal(
    root: &Root,
    split: SplitId,
    replaces: Option<SplitId>,
    threshold: u8,
    count: u8,
) -> Result<Vec<HeldShare>, CryptError> {
    let (epoch, id) = (root.epoch(), root.id());
    let shares = root.split(threshold, count)?;
    Ok(shares
        .into_iter()
        .map(|share| HeldShare {
            epoch,
            root: id,
            split,
            replaces,
            threshold,
            count,
            x: share.x(),
            y: Zeroizing::new(*share.expose()),
        })
        .collect())
}

impl HeldShare {
    /// Which share of its splitting.
    #[must_use]
    pub fn x(&self) -> u8 {
        self.x
    }

    fn share(&self) -> Option<Share> {
        Share::new(self.x, *self.y)
    }
}

/// All shares of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareSet(Vec<HeldShare>);

impl ShareSet {
    /// The shares, the newest last.
    #[must_use]
    pub fn shares(&self) -> &[HeldShare] {
        &self.0
    }

    /// Whether a share of `split` is here.
    #[must_use]
    pub fn has(&self, split: SplitId) -> bool {
        self.0.iter().any(|share| share.split == split)
    }

    /// Takes a share in; of too many that never came into force the oldest goes.
    pub fn add(&mut self, share: HeldShare) {
        self.0.retain(|known| known.split != share.split);
        self.0.push(share);
        if self.0.len() > PENDING_MAX + 2
            && let Some(oldest) = self.0.iter().position(|share| share.replaces.is_some())
        {
            self.0.remove(oldest);
        }
    }

    /// Lets go of what `in_force`, the splittings that the control state names, have replaced: every share
    /// of another splitting, unless it was dealt to replace one of these. As long as none of `in_force` is
    /// here, nothing is let go: this node missed a dealing, and what it has may still be wanted.
    ///
    /// Returns whether anything was let go.
    pub fn settle(&mut self, in_force: &[SplitId]) -> bool {
        if !in_force.iter().any(|split| self.has(*split)) {
            return false;
        }
        let before = self.0.len();
        self.0.retain(|share| {
            in_force.contains(&share.split)
                || share.replaces.is_some_and(|replaced| in_force.contains(&replaced))
        });
        self.0.len() < before
    }
}

/// Shares of many nodes, gathered until some splitting is complete.
#[derive(Debug, Default)]
pub struct Gathering(BTreeMap<SplitId, Vec<HeldShare>>);

/// How far a splitting is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Shares that are there.
    pub have: u8,
    /// Shares that are needed.
    pub need: u8,
}

impl Gathering {
    /// Takes a share in.
    pub fn add(&mut self, share: HeldShare) {
        let known = self.0.entry(share.split).or_default();
        if known.iter().all(|other| other.x != share.x) {
            known.push(share);
        }
    }

    /// How far the splitting is that is nearest to its end.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let far = |shares: &Vec<HeldShare>| {
            let need = shares.first()?.threshold;
            let have = u8::try_from(shares.len()).unwrap_or(u8::MAX);
            Some(Progress { have, need })
        };
        self.0.values().filter_map(far).min_by_key(|progress| progress.need.saturating_sub(progress.have))
    }

    /// The roots that can be put together now.
    ///
    /// Shares come from other nodes: those of one splitting that name another root, threshold or epoch than
    /// most are not used, and what they give is compared with the root's name.
    #[must_use]
    pub fn roots(&self, cluster: ClusterId) -> Vec<Root> {
        let mut roots: BTreeMap<(RootEpoch, KeyId), Root> = BTreeMap::new();
        for shares in self.0.values() {
            for like in shares {
                let alike = shares.iter().filter(|share| {
                    (share.epoch, share.root, share.threshold) == (like.epoch, like.root, like.threshold)
                });
                let drawn: Vec<Share> =
                    alike.filter_map(HeldShare::share).take(usize::from(like.threshold)).collect();
                if drawn.len() < usize::from(like.threshold).max(1)
                    || roots.contains_key(&(like.epoch, like.root))
                {
                    continue;
                }
                if let Ok(root) = Root::combine(cluster, like.epoch, like.root, &drawn) {
                    roots.insert((like.epoch, like.root), root);
                }
            }
        }
        roots.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    fn split(n: u8) -> SplitId {
        SplitId::from_bytes([n; 16])
    }

    #[test]
    fn a_root_is_there_as_soon_as_one_splitting_is_complete() {
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let one = deal(&root, split(1), None, 2, 3).unwrap();
        let two = deal(&root, split(2), Some(split(1)), 3, 4).unwrap();
        let mut gathering = Gathering::default();
        assert_eq!(gathering.progress(), None);
        gathering.add(one[0].clone());
        gathering.add(one[0].clone());
        gathering.add(two[1].clone());
        gathering.add(two[2].clone());
        assert!(gathering.roots(CLUSTER).is_empty(), "shares of two splittings do not mix");
        assert_eq!(gathering.progress().map(|p| p.need - p.have), Some(1));
        gathering.add(one[2].clone());
        let roots = gathering.roots(CLUSTER);
        assert_eq!((roots.len(), roots[0].id()), (1, root.id()));
    }

    #[test]
    fn a_forged_share_gives_no_other_root() {
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let shares = deal(&root, split(1), None, 2, 3).unwrap();
        let mut gathering = Gathering::default();
        let mut forged = shares[0].clone();
        forged.y[0] ^= 1;
        gathering.add(forged);
        gathering.add(shares[1].clone());
        assert!(gathering.roots(CLUSTER).is_empty());
        let mut lower = shares[0].clone();
        lower.threshold = 1;
        let mut gathering = Gathering::default();
        gathering.add(lower);
        assert!(gathering.roots(CLUSTER).is_empty());
    }

    #[test]
    fn what_was_replaced_goes_and_what_may_come_into_force_stays() {
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let dealt =
            |n: u8, replaces: Option<u8>| deal(&root, split(n), replaces.map(split), 2, 3).unwrap().remove(0);
        let mut set = ShareSet::default();
        set.add(dealt(1, None));
        set.add(dealt(2, Some(1)));
        set.add(dealt(3, Some(1)));
        assert!(!set.settle(&[split(1)]), "both may still come into force");
        assert!(!set.settle(&[split(9)]), "a dealing that was missed lets nothing go");
        assert!(set.settle(&[split(3)]));
        assert!(set.has(split(3)) && !set.has(split(1)) && !set.has(split(2)));
        for attempt in 10..10 + 2 * PENDING_MAX as u8 {
            set.add(dealt(attempt, Some(3)));
        }
        assert!(set.shares().len() <= PENDING_MAX + 2 && set.has(split(10 + 2 * PENDING_MAX as u8 - 1)));
    }
}
