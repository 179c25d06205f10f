//! What clients did and learnt, and whether one order of their commands explains it.
//!
//! A command's answer is its place in the list of all commands, so the order is known, and the history is
//! linearizable exactly when a command's place, or the length that a read saw, is above every place and
//! length that was known to anyone when it began (and no place is given twice).

use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(crate) struct History {
    next_id: u64,
    /// Highest place or length that somebody was told.
    told: u64,
    acknowledged: BTreeMap<u64, u64>,
    /// Commands of which a caller was told that they were not and will not be applied.
    refused: BTreeSet<u64>,
    /// Where each command was applied.
    places: BTreeMap<u64, u64>,
    pub(crate) unknown: u64,
    pub(crate) reads: u64,
}

impl History {
    /// A command, or a read, begins: its number, and what is known to somebody by now.
    pub(crate) fn begin(&mut self) -> (u64, u64) {
        self.next_id += 1;
        (self.next_id, self.told)
    }

    /// Command `id`, begun when `told` was known, was answered.
    pub(crate) fn acknowledged(&mut self, id: u64, told: u64, place: u64) -> Result<(), String> {
        self.acknowledged.insert(id, place);
        self.told = self.told.max(place);
        if place <= told {
            return Err(format!(
                "command {id} took effect at {place}, before it was given: {told} was known"
            ));
        }
        match self.places.get(&id) {
            Some(known) if *known == place => Ok(()),
            known => Err(format!("command {id} was answered with place {place}, and applied at {known:?}")),
        }
    }

    /// A caller was told that command `id` will never be applied.
    pub(crate) fn refused(&mut self, id: u64) -> Result<(), String> {
        self.refused.insert(id);
        match self.places.get(&id) {
            None => Ok(()),
            Some(place) => Err(format!("command {id} was refused, and is applied at {place}")),
        }
    }

    /// A read, begun when `told` was known, saw `length` commands.
    pub(crate) fn read(&mut self, told: u64, length: u64) -> Result<(), String> {
        self.told = self.told.max(length);
        self.reads += 1;
        if length < told {
            return Err(format!("a stale read: it saw {length} commands, {told} were known before it began"));
        }
        Ok(())
    }

    /// Commands `ids` were applied, the first of them behind `before` others.
    pub(crate) fn applied(&mut self, before: usize, ids: &[u64]) -> Result<(), String> {
        for (place, id) in (before as u64 + 1..).zip(ids) {
            let known = *self.places.entry(*id).or_insert(place);
            if known != place {
                return Err(format!("command {id} is applied at {known} and at {place}"));
            }
            if self.refused.contains(id) {
                return Err(format!("command {id} was refused, and is applied at {place}"));
            }
        }
        Ok(())
    }

    /// At the end, the list that all replicas hold explains all answers.
    pub(crate) fn finish(&self, ids: &[u64]) -> Result<(), String> {
        for (id, place) in &self.acknowledged {
            let found = usize::try_from(*place).ok().and_then(|place| ids.get(place.checked_sub(1)?));
            if found != Some(id) {
                return Err(format!("command {id} was acknowledged at {place}, where {found:?} is now"));
            }
        }
        let distinct: BTreeSet<&u64> = ids.iter().collect();
        if distinct.len() != ids.len() {
            return Err("a command is applied twice".to_owned());
        }
        Ok(())
    }

    pub(crate) fn acknowledged_count(&self) -> u64 {
        self.acknowledged.len() as u64
    }
}
