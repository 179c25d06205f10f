//! What was done, what the clients saw, what was judged: as Markdown.

use std::{cmp::Reverse, collections::BTreeMap, fmt, time::Duration};

use crate::{
    deck::Kind,
    workload::{Asked, Ends},
};

/// Reasons that are told of, the most frequent first.
const REASONS_MAX: usize = 20;

/// One run.
#[derive(Debug, Default)]
pub struct Report {
    /// The seed of the deck and the clients.
    pub seed: u64,
    /// Nodes and drives on each.
    pub shape: (usize, u16),
    /// How long faults were at work.
    pub lasted: Duration,
    /// How often each fault was carried out.
    pub injected: BTreeMap<Kind, u64>,
    /// Operations, by how they ended.
    pub ends: BTreeMap<Asked, Ends>,
    /// Why operations were refused or not answered, and how often.
    pub reasons: BTreeMap<String, u64>,
    /// Longest time without an accepted write.
    pub longest_without_writes: Duration,
    /// What was checked at the end, one line each.
    pub checked: Vec<String>,
    /// Broken promises.
    pub violations: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, drives) = self.shape;
        writeln!(
            f,
            "Seed {}, {nodes} nodes with {drives} drives each, {} s with faults.\n",
            self.seed,
            self.lasted.as_secs()
        )?;
        writeln!(f, "| injected | times |\n|---|---:|")?;
        for (kind, times) in &self.injected {
            writeln!(f, "| {kind} | {times} |")?;
        }
        writeln!(f, "\n| asked | done | refused or unanswered |\n|---|---:|---:|")?;
        for (asked, ends) in &self.ends {
            writeln!(f, "| {asked:?} | {} | {} |", ends.done, ends.open)?;
        }
        if !self.reasons.is_empty() {
            writeln!(f, "\n| why it was refused | times |\n|---|---:|")?;
            let mut reasons: Vec<_> = self.reasons.iter().collect();
            reasons.sort_by_key(|(why, times)| (Reverse(**times), why.as_str()));
            for (why, times) in reasons.into_iter().take(REASONS_MAX) {
                writeln!(f, "| {} | {times} |", why.replace('|', "/"))?;
            }
        }
        writeln!(
            f,
            "\nLongest time without an accepted write: {:.1} s.\n",
            self.longest_without_writes.as_secs_f64()
        )?;
        for line in &self.checked {
            writeln!(f, "- {line}")?;
        }
        writeln!(f, "\n{} violations.", self.violations.len())?;
        for violation in &self.violations {
            writeln!(f, "- {violation}")?;
        }
        Ok(())
    }
}
