//! Sees everything that happens in a simulation, writes it down, and knows what must never happen.
//!
//! Checked at every step, over the whole run and all restarts:
//! - *log matching*: an entry's id (leader and index) stands for one content and one predecessor;
//! - *one history*: an index is committed with one id, and applied with one content, everywhere;
//! - *leader completeness*: whoever leads holds the last committed entry;
//! - *votes*: a vote is durable before it is answered, and a restarted node gives none below one it gave.
//!   The unit is openraft's leader id, term and node: in one term a higher node may follow a lower one;
//! - *clients*: see [`super::history`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    sync::Arc,
};

use holdfast_model::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    history::History,
    machine::{Ledger, digest},
    runtime::Owner,
};
use crate::{
    Applied,
    codec::{EntryV1, LogIdV1, VoteV1, encode},
    wire::{AnswerV1, CallV1},
};

/// Term and node.
pub(crate) type LeaderId = (u64, u64);

struct Seen {
    started: Instant,
    trace: String,
    violation: Option<String>,
    /// Of each entry, by index and leader: its predecessor and its content.
    entries: BTreeMap<(u64, LeaderId), (Option<(u64, LeaderId)>, u64)>,
    committed: BTreeMap<u64, LeaderId>,
    /// Of each index, the digest of everything applied up to it.
    applied: BTreeMap<u64, u64>,
    /// Highest vote each node answered, and in which run.
    votes: BTreeMap<NodeId, Vec<(Owner, LeaderId)>>,
    leaders: BTreeSet<LeaderId>,
    /// When each candidate asked for its first vote.
    candidatures: BTreeMap<LeaderId, Instant>,
    history: History,
}

/// Clones share what was seen.
#[derive(Clone)]
pub(crate) struct Observer(Arc<Mutex<Seen>>);

fn leader_of(vote: &VoteV1) -> LeaderId {
    (vote.term, vote.node)
}

fn id_of(id: &LogIdV1) -> (u64, LeaderId) {
    (id.index, (id.term, id.leader))
}

impl Observer {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Seen {
            started: Instant::now(),
            trace: String::new(),
            violation: None,
            entries: BTreeMap::new(),
            committed: BTreeMap::new(),
            applied: BTreeMap::new(),
            votes: BTreeMap::new(),
            leaders: BTreeSet::new(),
            candidatures: BTreeMap::new(),
            history: History::default(),
        })))
    }

    /// Writes a line.
    pub(crate) fn note(&self, line: std::fmt::Arguments<'_>) {
        self.0.lock().note(line);
    }

    /// Something happened that must not. The first counts.
    pub(crate) fn violation(&self, what: String) {
        self.0.lock().violation(what);
    }

    pub(crate) fn violated(&self) -> Option<String> {
        self.0.lock().violation.clone()
    }

    pub(crate) fn trace(&self) -> String {
        self.0.lock().trace.clone()
    }

    /// Has clients' history look at `what`.
    pub(crate) fn clients<T>(&self, look: impl FnOnce(&mut History) -> Result<T, String>) -> Option<T> {
        let mut seen = self.0.lock();
        match look(&mut seen.history) {
            Ok(result) => Some(result),
            Err(what) => {
                seen.violation(what);
                None
            }
        }
    }

    /// A request leaves `from`. Returns the leader when it is a new one, which nobody followed.
    pub(crate) fn request(&self, from: NodeId, to: NodeId, call: &CallV1, bytes: &[u8]) -> Option<LeaderId> {
        let mut seen = self.0.lock();
        let hash = digest(0, bytes);
        let kind = match call {
            CallV1::Append { entries, .. } if entries.is_empty() => "heartbeat",
            CallV1::Append { .. } => "append",
            CallV1::Vote { .. } => "vote",
            CallV1::PreVote { .. } => "pre-vote",
            CallV1::Snapshot(_) => "snapshot",
            CallV1::Propose { .. } => "propose",
            CallV1::ReadIndex { .. } => "read-index",
            CallV1::Campaign { .. } => "campaign",
            CallV1::Beats { .. } => "beats",
            CallV1::AddLearner { .. }
            | CallV1::RemoveLearner { .. }
            | CallV1::ChangeVoters { .. }
            | CallV1::DemoteOthers { .. } => "change",
        };
        seen.note(format_args!("{from}>{to} {kind} {hash:016x}"));
        if let CallV1::Vote { vote, .. } = call {
            seen.candidatures.entry(leader_of(vote)).or_insert_with(Instant::now);
        }
        let CallV1::Append { vote, previous, committed, entries } = call else { return None };
        let mut before = previous.as_ref().map(id_of);
        for entry in entries {
            before = Some(seen.entry(entry, before));
        }
        if let Some(committed) = committed {
            seen.commit(committed);
        }
        // One that was deposed before it spoke need not know what its successors did.
        let newest = seen.leaders.last() < Some(&leader_of(vote));
        seen.leaders.insert(leader_of(vote));
        newest.then(|| leader_of(vote))
    }

    /// Who has led, by term.
    pub(crate) fn leaders(&self) -> BTreeSet<LeaderId> {
        self.0.lock().leaders.clone()
    }

    /// Who stood for election, by term, and when it asked for its first vote.
    pub(crate) fn candidatures(&self) -> BTreeMap<LeaderId, Instant> {
        self.0.lock().candidatures.clone()
    }

    /// `by` answered, in its run `run`. Returns the vote that must be durable now.
    pub(crate) fn answer(
        &self,
        by: NodeId,
        run: Owner,
        call: &CallV1,
        answer: &AnswerV1,
        bytes: &[u8],
    ) -> Option<LeaderId> {
        let mut seen = self.0.lock();
        let hash = digest(0, bytes);
        seen.note(format_args!("{by} answers {hash:016x}"));
        let promised = match (call, answer) {
            (CallV1::Vote { vote, .. }, AnswerV1::Vote { granted: true, .. })
            | (CallV1::Append { vote, .. }, AnswerV1::Appended | AnswerV1::AppendedPartly(_)) => {
                leader_of(vote)
            }
            _ => return None,
        };
        let votes = seen.votes.entry(by).or_default();
        // In one run the order of answers is not the order of votes.
        let earlier = votes.iter().filter(|(earlier, _)| *earlier != run).map(|(_, vote)| *vote).max();
        match votes.iter_mut().find(|(of, _)| *of == run) {
            Some((_, highest)) => *highest = promised.max(*highest),
            None => votes.push((run, promised)),
        }
        if earlier > Some(promised) {
            seen.violation(format!(
                "{by} agreed to leader {promised:?}; before it was restarted it had agreed to {earlier:?}"
            ));
        }
        Some(promised)
    }

    /// The last committed entry that is known, and the last index applied anywhere.
    pub(crate) fn committed(&self) -> (Option<(u64, LeaderId)>, Option<u64>) {
        let seen = self.0.lock();
        let committed = seen.committed.last_key_value().map(|(index, leader)| (*index, *leader));
        (committed, seen.applied.last_key_value().map(|(index, _)| *index))
    }

    /// Id of the committed entry `index`, as far as it is known.
    pub(crate) fn committed_at(&self, index: u64) -> Option<LeaderId> {
        self.0.lock().committed.get(&index).copied()
    }

    /// A machine applied `entry` and holds `ledger` now.
    pub(crate) fn applied(&self, node: NodeId, entry: &Applied<'_>, ledger: &Ledger) {
        let mut seen = self.0.lock();
        let known = *seen.applied.entry(entry.index).or_insert(ledger.digest);
        seen.note(format_args!("{node} applies {} {:016x}", entry.index, ledger.digest));
        if known != ledger.digest {
            let index = entry.index;
            seen.violation(format!("{node} holds another state after entry {index} than others did"));
        }
        let from = ledger.ids.len() - entry.commands.len();
        if let Err(what) = seen.history.applied(from, &ledger.ids[from..]) {
            seen.violation(format!("{node}: {what}"));
        }
    }

    /// A machine took over the state `ledger`.
    pub(crate) fn installed(&self, node: NodeId, ledger: &Ledger) {
        let mut seen = self.0.lock();
        seen.note(format_args!("{node} installs {:?} {:016x}", ledger.index, ledger.digest));
        let known = ledger.index.and_then(|index| seen.applied.get(&index).copied());
        if known.is_some_and(|known| known != ledger.digest) {
            seen.violation(format!("{node} installed a state that nobody had at {:?}", ledger.index));
        }
    }
}

impl Seen {
    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        let millis = self.started.elapsed().as_millis();
        // Writing to a string cannot fail.
        let _ = writeln!(self.trace, "{millis:6} {line}");
    }

    fn violation(&mut self, what: String) {
        self.note(format_args!("VIOLATION {what}"));
        self.violation.get_or_insert(what);
    }

    fn entry(&mut self, entry: &EntryV1, before: Option<(u64, LeaderId)>) -> (u64, LeaderId) {
        let (id, content) = (id_of(&entry.log_id), digest(0, &encode(entry)));
        let known = *self.entries.entry(id).or_insert((before, content));
        if known != (before, content) {
            self.violation(format!(
                "entry {id:?} is not what it was, or follows another: {known:?}, {before:?}"
            ));
        }
        id
    }

    fn commit(&mut self, committed: &LogIdV1) {
        // All before it are committed too; their ids are those of its predecessors.
        let mut at = Some(id_of(committed));
        while let Some((index, leader)) = at {
            match self.committed.insert(index, leader) {
                Some(known) if known == leader => return,
                Some(known) => {
                    return self
                        .violation(format!("entry {index} was committed by {known:?} and by {leader:?}"));
                }
                None => at = self.entries.get(&(index, leader)).and_then(|(before, _)| *before),
            }
        }
    }
}
