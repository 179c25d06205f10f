//! The states of replicas compared: every node says what its replicas' digests are ([`Word`]), and each looks
//! whether a majority agrees on another state than its own.
//!
//! Invariants:
//! - only digests after the same entry and of the same tables are compared, and only those of voters count;
//! - a replica is set aside when more than half of the voters agree on another state, never on one node's
//!   word; where no majority agrees that is said, and nothing is changed.
//!
//! [`Word`]: crate::links::Word

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use holdfast_catalog::{CatalogReader, StateDigest};
use holdfast_consensus::Consensus;
use holdfast_control::ControlReader;
use holdfast_model::{GroupId, NodeId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::groups::Groups;

/// How often digests are compared.
const INTERVAL: Duration = Duration::from_secs(1);

/// The state of one replica after one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDigest {
    /// The group.
    pub group: GroupId,
    /// Index of the entry.
    pub index: u64,
    /// Version of the tables.
    pub schema: u32,
    /// SHA-256 over the state.
    pub sha256: [u8; 32],
}

/// Where the digests of this node's groups are: the control group's and, once they run, the catalogs'.
#[derive(Debug, Clone)]
pub struct States {
    /// The control group.
    pub control: ControlReader,
    /// The catalog groups.
    pub catalogs: HashMap<GroupId, CatalogReader>,
}

impl States {
    /// The digests of the groups of this node.
    #[must_use]
    pub fn digests(&self) -> Vec<GroupDigest> {
        let of = |group: GroupId, digests: Vec<StateDigest>| {
            digests.into_iter().map(move |digest| GroupDigest {
                group,
                index: digest.index,
                schema: digest.schema,
                sha256: digest.sha256,
            })
        };
        let catalogs = self.catalogs.iter().flat_map(|(group, reader)| of(*group, reader.state_digests()));
        of(GroupId::CONTROL, self.control.state_digests()).chain(catalogs).collect()
    }
}

/// What every node last said of its states, and what came of comparing them.
#[derive(Debug, Default)]
pub struct Comparison {
    heard: Mutex<BTreeMap<NodeId, Vec<GroupDigest>>>,
    found: Mutex<BTreeMap<GroupId, Compared>>,
}

/// What is known of a group's state on this node beside the others'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Compared {
    /// The last entry after which it was that of more than half of the voters. 0: none yet.
    pub index: u64,
    /// States differ, and no majority agrees on one.
    pub differ: bool,
}

/// What a comparison says of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// Nobody contradicts, as far as can be told; more than half of the voters have the state of this node after this entry.
    Same { index: Option<u64> },
    /// These, more than half of the voters, have another state than this node.
    Outvoted { index: u64, by: BTreeSet<NodeId> },
    /// States differ, and no majority agrees on one.
    Split { index: u64 },
}

impl Comparison {
    /// Takes a node's word.
    pub fn heard(&self, node: NodeId, digests: Vec<GroupDigest>) {
        self.heard.lock().insert(node, digests);
    }

    /// What was found of a group.
    #[must_use]
    pub fn of(&self, group: GroupId) -> Compared {
        self.found.lock().get(&group).copied().unwrap_or_default()
    }

    /// Forgets a node that left.
    pub fn forget(&self, node: NodeId) {
        self.heard.lock().remove(&node);
    }

    /// Compares this node's states with those of others until cancelled.
    pub async fn run(
        self: Arc<Self>,
        own: NodeId,
        consensus: Arc<Consensus>,
        groups: Arc<Groups>,
        states: States,
        stop: CancellationToken,
    ) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: BTreeMap<GroupId, u64> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            self.heard(own, states.digests());
            for group in [GroupId::CONTROL].iter().chain(states.catalogs.keys()) {
                let Some(status) = consensus.status(*group) else { continue };
                let verdict = judge(own, *group, &status.voters, &self.heard.lock());
                self.note(*group, &verdict);
                match verdict {
                    Verdict::Same { .. } => {}
                    Verdict::Outvoted { index, by } => {
                        let nodes: Vec<String> = by.iter().map(ToString::to_string).collect();
                        let what = format!(
                            "the state after entry {index} is not that of nodes {}, which agree",
                            nodes.join(", ")
                        );
                        self.heard.lock().remove(&own);
                        groups.set_aside_diverged(*group, what).await;
                    }
                    Verdict::Split { index } => {
                        if told.insert(*group, index) != Some(index) {
                            tracing::error!(%group, index, "replicas have different states and no majority agrees on one");
                        }
                    }
                }
            }
        }
    }
}

impl Comparison {
    fn note(&self, group: GroupId, verdict: &Verdict) {
        let mut found = self.found.lock();
        let found = found.entry(group).or_default();
        match verdict {
            Verdict::Same { index } => {
                found.index = index.unwrap_or(found.index);
                found.differ = false;
            }
            // It is set aside, and comes anew from the others.
            Verdict::Outvoted { .. } => *found = Compared::default(),
            Verdict::Split { .. } => found.differ = true,
        }
    }
}

fn judge(
    own: NodeId,
    group: GroupId,
    voters: &BTreeSet<NodeId>,
    heard: &BTreeMap<NodeId, Vec<GroupDigest>>,
) -> Verdict {
    let of = |node: &NodeId| heard.get(node).into_iter().flatten().filter(|digest| digest.group == group);
    let mut agreed = None;
    for mine in of(&own).collect::<Vec<_>>().into_iter().rev() {
        let mut states: BTreeMap<[u8; 32], BTreeSet<NodeId>> = BTreeMap::new();
        states.entry(mine.sha256).or_default();
        for voter in voters {
            let same = |digest: &&GroupDigest| (digest.index, digest.schema) == (mine.index, mine.schema);
            for digest in of(voter).filter(same) {
                states.entry(digest.sha256).or_default().insert(*voter);
            }
        }
        let reporting: usize = states.values().map(BTreeSet::len).sum();
        let majority = states.iter().find(|(_, nodes)| nodes.len() * 2 > voters.len());
        match majority {
            Some((state, by)) if *state != mine.sha256 => {
                return Verdict::Outvoted { index: mine.index, by: by.clone() };
            }
            // Those in the minority find it out themselves.
            Some(_) => agreed = agreed.or(Some(mine.index)),
            // What was the same later is the same.
            None if agreed.is_none() && states.len() > 1 && reporting >= voters.len() => {
                return Verdict::Split { index: mine.index };
            }
            // Somebody may still agree with one of them.
            None => {}
        }
    }
    Verdict::Same { index: agreed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId::new(3);

    /// What nodes 1, 2, ... say of each index: a letter is a state, `-` nothing.
    fn judged(own: u64, voters: u64, said: &[(u64, &str)]) -> Verdict {
        let mut heard: BTreeMap<NodeId, Vec<GroupDigest>> = BTreeMap::new();
        for (index, states) in said {
            for (node, state) in (1..).zip(states.bytes()).filter(|(_, state)| *state != b'-') {
                let digest = GroupDigest {
                    group: GROUP,
                    index: *index,
                    // Capital letters are states of another release.
                    schema: u32::from(state.is_ascii_uppercase()),
                    sha256: [state; 32],
                };
                heard.entry(NodeId::new(node)).or_default().push(digest);
            }
        }
        judge(NodeId::new(own), GROUP, &(1..=voters).map(NodeId::new).collect(), &heard)
    }

    #[test]
    fn only_a_majority_of_voters_at_the_same_entry_sets_a_replica_aside() {
        let outvoted = |index, by: &[u64]| Verdict::Outvoted {
            index,
            by: by.iter().copied().map(NodeId::new).collect(),
        };
        assert_eq!(judged(3, 3, &[(512, "aab")]), outvoted(512, &[1, 2]));
        let same = |index| Verdict::Same { index };
        assert_eq!(judged(1, 3, &[(512, "aab")]), same(Some(512)), "the majority goes on");
        assert_eq!(judged(3, 3, &[(512, "a-b")]), same(None), "one against one");
        assert_eq!(judged(3, 3, &[(512, "abc")]), Verdict::Split { index: 512 });
        assert_eq!(judged(2, 2, &[(512, "ab")]), Verdict::Split { index: 512 });
        assert_eq!(judged(3, 3, &[(512, "aa-"), (1024, "--b")]), same(None), "different entries");
        assert_eq!(judged(3, 5, &[(512, "aab--")]), same(None), "two of five");
        assert_eq!(judged(3, 5, &[(512, "aaba-")]), outvoted(512, &[1, 2, 4]));
        // A learner is compared, and does not count.
        assert_eq!(judged(4, 3, &[(512, "aaab")]), outvoted(512, &[1, 2, 3]));
        assert_eq!(judged(3, 3, &[(512, "a-bbb")]), same(None));
        assert_eq!(judged(3, 3, &[(512, "AAb")]), same(None), "another release's tables");
        // A majority has no need of the last word.
        assert_eq!(judged(1, 3, &[(512, "aaa"), (1024, "bb-")]), same(Some(1024)));
        assert_eq!(judged(1, 3, &[(512, "aaa"), (1024, "b--")]), same(Some(512)));
        assert_eq!(judged(1, 1, &[(512, "a")]), same(Some(512)), "nobody else is asked");
        // What no majority agreed on is over when one does.
        assert_eq!(judged(1, 3, &[(512, "abc"), (1024, "ddd")]), same(Some(1024)));
        // An older disagreement is found beside a newer silence.
        assert_eq!(judged(3, 3, &[(512, "aab"), (1024, "--b")]), outvoted(512, &[1, 2]));
    }

    #[test]
    fn what_was_found_stays_until_something_else_is() {
        let comparison = Comparison::default();
        let after = |verdict| {
            comparison.note(GROUP, &verdict);
            (comparison.of(GROUP).index, comparison.of(GROUP).differ)
        };
        assert_eq!(comparison.of(GROUP), Compared::default());
        assert_eq!(after(Verdict::Same { index: Some(512) }), (512, false));
        assert_eq!(after(Verdict::Same { index: None }), (512, false), "nobody has said anything since");
        assert_eq!(after(Verdict::Split { index: 1024 }), (512, true));
        assert_eq!(after(Verdict::Same { index: Some(1536) }), (1536, false));
        assert_eq!(
            after(Verdict::Outvoted { index: 2048, by: BTreeSet::new() }),
            (0, false),
            "it begins anew"
        );
    }
}
