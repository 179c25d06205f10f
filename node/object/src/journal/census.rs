//! Counts the copies that all nodes' drives hold of the second copy of each group this node leads, and asks for a new base
//! when some are missing.
//!
//! Drives are replaced, records rot and are deleted, nodes stop in the middle, and no process remembers all that. What
//! lies on the drives says it: every node lists the records it holds of a group, the leader adds them up and judges.
//!
//! Lists are of different moments, and records come and go. So entries are asked for only that were journaled before
//! the first of the lists was made; lists from before the last base, or before this node led, are not judged; and what
//! is missing must be missing twice, in lists made after it was first missed. While a node is down what it holds is
//! not known: then something must be missing for as long as a node may be down.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use holdfast_model::{GroupId, NodeId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    holdings::{Answer, Holdings, Question},
    keeper::{Journal, JournalParts, Standing},
    pending::Pending,
    verdict::{Verdict, judge},
};

/// How often it is looked whether copies of a group are to be counted.
const ROUND: Duration = Duration::from_secs(5);

/// How often the copies of a group are counted when nothing is missing.
const INTERVAL: Duration = Duration::from_secs(120);

/// How long a node may be down before what it holds is taken for lost.
const AWAY_MAX: Duration = Duration::from_secs(300);

/// Rounds that are remembered: lists may be as old as that.
const MARKS_MAX: usize = 128;

/// How far the journals of the groups were at some moment.
#[derive(Debug)]
struct Mark {
    at: Instant,
    journaled: BTreeMap<GroupId, u64>,
}

/// What all nodes that are up hold of a group.
#[derive(Debug)]
struct Lists {
    held: Vec<Holdings>,
    /// The oldest of the lists was made after this moment.
    made: Instant,
    /// There is one of every node.
    complete: bool,
}

/// Counts copies.
pub(super) struct Census {
    journal: Arc<Journal>,
    parts: JournalParts,
    marks: VecDeque<Mark>,
    /// Groups led, and since when.
    led: BTreeMap<GroupId, Instant>,
    /// When the copies of a group are to be counted next, if not in every round.
    due: BTreeMap<GroupId, Instant>,
    /// Since when copies of a group are missing.
    short: BTreeMap<GroupId, Instant>,
    /// Groups of which lists were too old to be judged.
    stale: BTreeSet<GroupId>,
}

impl Census {
    pub(super) fn new(journal: Arc<Journal>, parts: JournalParts) -> Self {
        let (marks, led) = (VecDeque::new(), BTreeMap::new());
        let (due, short) = (BTreeMap::new(), BTreeMap::new());
        Self { journal, parts, marks, led, due, short, stale: BTreeSet::new() }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = round.tick() => {}
            }
            self.mark();
            let groups: Vec<Arc<Pending>> = self.journal.groups.values().cloned().collect();
            for pending in groups {
                let counted = tokio::select! {
                    () = stop.cancelled() => return,
                    counted = self.count(&pending) => counted,
                };
                if let Err(why) = counted {
                    tracing::debug!(group = %pending.group, why, "copies of the catalog's second copy not counted");
                }
            }
        }
    }

    /// Notes how far the journals are, and which groups this node leads.
    fn mark(&mut self) {
        let at = Instant::now();
        let mut journaled = BTreeMap::new();
        for (group, pending) in &self.journal.groups {
            let status = self.parts.consensus.status(*group);
            let leads = status.as_ref().is_some_and(|status| status.leader == Some(self.journal.node));
            if let (true, Some(applied)) = (leads, status.and_then(|status| status.applied)) {
                self.led.entry(*group).or_insert(at);
                journaled.insert(*group, pending.journaled(applied));
            } else {
                self.led.remove(group);
                self.due.remove(group);
                self.short.remove(group);
            }
        }
        self.journal.standings.lock().retain(|group, _| self.led.contains_key(group));
        self.marks.push_back(Mark { at, journaled });
        if self.marks.len() > MARKS_MAX {
            self.marks.pop_front();
        }
    }

    /// Counts the copies of one group, if they are due and can be judged.
    ///
    /// # Errors
    /// Why they cannot be judged in this round.
    async fn count(&mut self, pending: &Pending) -> Result<(), &'static str> {
        let group = pending.group;
        let Some(&leading) = self.led.get(&group) else { return Ok(()) };
        if self.due.get(&group).is_some_and(|due| *due > Instant::now()) {
            return Ok(());
        }
        if pending.since_base().is_broken() {
            self.journal.standings.lock().entry(group).and_modify(|standing| standing.whole = false);
            return Err("a new base is asked for already");
        }
        let fresh = self.short.contains_key(&group) || self.stale.remove(&group);
        let lists = self.gather(group, fresh).await?;
        if lists.made < pending.based_at().map_or(leading, |based| based.max(leading)) {
            self.stale.insert(group);
            return Err("lists are older than the last base");
        }
        let mark = self.marks.iter().rev().filter(|mark| mark.at <= lists.made);
        let through = mark.filter_map(|mark| mark.journaled.get(&group)).next();
        let through = *through.ok_or("lists are older than what is remembered")?;
        // Where there are fewer drives than copies are asked for, each has one.
        let drives = self.parts.health.candidates().len();
        let copies = u32::try_from((self.parts.copies)().min(drives).max(1)).unwrap_or(u32::MAX);
        let verdict = judge(&lists.held, copies, through);
        if verdict != Verdict::NoBase {
            let standing = Standing { whole: verdict == Verdict::Whole, searched: lists.made };
            self.journal.standings.lock().insert(group, standing);
        }
        match verdict {
            Verdict::NoBase => return Err("there is no base yet"),
            Verdict::Whole => {
                self.short.remove(&group);
                self.due.insert(group, Instant::now() + INTERVAL);
            }
            Verdict::Short(short) => {
                let since = *self.short.entry(group).or_insert_with(Instant::now);
                let sure = if lists.complete { lists.made > since } else { since.elapsed() >= AWAY_MAX };
                if sure {
                    tracing::warn!(%group, %short, "the catalog's second copy is not whole; a new base makes it so");
                    self.short.remove(&group);
                    pending.set_broken();
                }
            }
        }
        Ok(())
    }

    /// What every node that is up holds of a group.
    ///
    /// # Errors
    /// When one of them does not say.
    async fn gather(&self, group: GroupId, fresh: bool) -> Result<Lists, &'static str> {
        let nodes: Vec<NodeId> = self
            .parts
            .health
            .snapshot()
            .into_iter()
            .filter(|(_, up)| *up)
            .map(|(health, _)| health.report.node)
            .collect();
        let complete = self.parts.health.members().is_some_and(|members| nodes.len() >= members);
        let question = Question { group, fresh };
        let asked = Instant::now();
        let answers = futures::future::join_all(nodes.iter().map(|node| self.ask(*node, question))).await;
        let (mut made, mut held) = (asked, Vec::with_capacity(nodes.len()));
        for answer in answers {
            let Answer { age_ms, holdings } = answer?;
            // The list may be as old as it said when the question was sent, and is younger in truth.
            let age = Duration::from_millis(age_ms);
            made = made.min(asked.checked_sub(age).ok_or("lists are older than this process")?);
            held.push(holdings);
        }
        Ok(Lists { held, made, complete })
    }

    async fn ask(&self, node: NodeId, question: Question) -> Result<Answer, &'static str> {
        if node == self.journal.node {
            return self.journal.holdings(question).ok_or("this node's drives are not searched yet");
        }
        let body = postcard::to_stdvec(&question).map_err(|_| "the question does not encode")?;
        let answer = self.parts.shards.ask_holdings(node, Bytes::from(body)).await;
        let answer = answer.map_err(|error| {
            tracing::debug!(%node, %error, "does not say what it holds of the catalog's second copy");
            "a node does not say what it holds"
        })?;
        postcard::from_bytes(&answer).map_err(|_| "an answer does not parse")
    }
}
