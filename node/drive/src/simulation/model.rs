//! The reference model: which states each shard may be in.

use std::collections::BTreeMap;

use holdfast_model::{ShardId, ShardIndex, StripeId};
use tokio::sync::oneshot;

use super::Rig;
use crate::{
    commit::Durable,
    errors::{DeleteError, PutError},
    index::Indexed,
    types::MountReport,
};

/// What a shard may be: absent, or this generation with bytes of that seed and length.
pub(super) type Content = Option<(u32, u64, usize)>;

pub(super) fn shard(number: u8) -> ShardId {
    ShardId { stripe: StripeId::from_bytes([number; 16]), index: ShardIndex::new(number % 7) }
}

/// The bytes of a seed.
pub(super) fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut random = holdfast_fault::Random::new(seed);
    let words = std::iter::repeat_with(|| random.number().to_le_bytes());
    words.flatten().take(length).collect()
}

enum Answer {
    Put(oneshot::Receiver<Result<Durable, PutError>>),
    Delete(oneshot::Receiver<Result<bool, DeleteError>>),
}

struct Asked {
    number: u8,
    /// The state it leads to; for a delete the newest generation it hits.
    put: Content,
    delete: Option<u32>,
    answer: Answer,
}

/// Every shard's possible states, and what was asked and not answered.
#[derive(Default)]
pub(super) struct Model {
    shards: BTreeMap<u8, Vec<Content>>,
    asked: Vec<Asked>,
    next_generation: u32,
    next_seed: u64,
    pub(super) acknowledged: u64,
}

impl Model {
    pub(super) fn possible(&self, number: u8) -> Vec<Content> {
        self.shards.get(&number).cloned().unwrap_or_else(|| vec![None])
    }

    /// Puts a new generation of a shard.
    pub(super) fn put(&mut self, rig: &Rig, number: u8, length: usize) {
        self.next_generation += 1;
        self.next_seed += 1;
        let (generation, seed) = (self.next_generation, self.next_seed);
        let answer = rig.put(shard(number), generation, &bytes(seed, length));
        let put = Some((generation, seed, length));
        self.asked.push(Asked { number, put, delete: None, answer: Answer::Put(answer) });
    }

    /// Deletes whatever is there of a shard.
    pub(super) fn delete(&mut self, rig: &Rig, number: u8) {
        let generation = self.next_generation;
        let answer = rig.delete(shard(number), generation);
        self.asked.push(Asked {
            number,
            put: None,
            delete: Some(generation),
            answer: Answer::Delete(answer),
        });
    }

    /// The states a shard may be in after `op`, from those before.
    fn apply(before: &[Content], asked: &Asked) -> Vec<Content> {
        let after = |state: &Content| match (state, asked.put, asked.delete) {
            // A higher generation wins; puts of the model always have a higher one than those asked before.
            (_, Some(put), _) => Some(put),
            (Some((generation, ..)), None, Some(upto)) if *generation <= upto => None,
            (state, ..) => *state,
        };
        let mut states: Vec<Content> = before.iter().map(after).collect();
        states.dedup();
        states
    }

    /// Takes in the answers that have come. `Err` when one is wrong.
    pub(super) fn collect(&mut self) -> Result<(), String> {
        let mut waiting = Vec::new();
        for mut asked in std::mem::take(&mut self.asked) {
            let before = self.possible(asked.number);
            let done = match &mut asked.answer {
                Answer::Put(answer) => match answer.try_recv() {
                    Ok(Ok(proof)) => {
                        let (generation, ..) = asked.put.expect("a put");
                        if (proof.id(), proof.generation().get()) != (shard(asked.number), generation) {
                            return Err(format!("the proof is for {proof:?}"));
                        }
                        Some(true)
                    }
                    Ok(Err(PutError::Full { .. })) => Some(false),
                    Ok(Err(PutError::Fenced { .. } | PutError::Gone { .. } | PutError::Closed { .. })) => {
                        None
                    }
                    Ok(Err(other)) => return Err(format!("put of {:?}: {other}", asked.put)),
                    Err(oneshot::error::TryRecvError::Empty) => {
                        waiting.push(asked);
                        continue;
                    }
                    Err(oneshot::error::TryRecvError::Closed) => None,
                },
                Answer::Delete(answer) => match answer.try_recv() {
                    Ok(Ok(_)) => Some(true),
                    Ok(Err(DeleteError::Full { .. })) => Some(false),
                    Ok(Err(_)) | Err(oneshot::error::TryRecvError::Closed) => None,
                    Err(oneshot::error::TryRecvError::Empty) => {
                        waiting.push(asked);
                        continue;
                    }
                },
            };
            let after = Self::apply(&before, &asked);
            let states = match done {
                Some(true) => {
                    self.acknowledged += 1;
                    after
                }
                Some(false) => before,
                // Refused without saying which: both.
                None => [before, after].concat(),
            };
            self.shards.insert(asked.number, states);
        }
        self.asked = waiting;
        Ok(())
    }

    /// The possible states, if the power went now: each open request may have happened, in order.
    pub(super) fn possible_with_open(&self, number: u8) -> Vec<Content> {
        let mut states = self.possible(number);
        for asked in self.asked.iter().filter(|asked| asked.number == number) {
            let after = Self::apply(&states, asked);
            states.extend(after);
        }
        states
    }

    pub(super) fn waiting(&self) -> usize {
        self.asked.len()
    }

    /// After a crash nobody will answer: each of the open requests may have happened, in order.
    pub(super) fn crash(&mut self) {
        for asked in std::mem::take(&mut self.asked) {
            let before = self.possible(asked.number);
            let after = Self::apply(&before, &asked);
            self.shards.insert(asked.number, [before, after].concat());
        }
    }

    /// Compares what a mount found with what may be, and remembers what it is.
    pub(super) fn check(
        &mut self,
        report: &MountReport,
        index: &[Indexed],
        read: impl Fn(&Indexed) -> Result<Vec<u8>, String>,
    ) -> Result<(), String> {
        if !report.is_clean() {
            return Err(format!("a crash is not damage: {report:?}"));
        }
        let found: BTreeMap<ShardId, &Indexed> = index.iter().map(|entry| (entry.shard, entry)).collect();
        for number in 0..=u8::MAX {
            let possible = self.possible(number);
            let state = match found.get(&shard(number)) {
                None if possible.contains(&None) => None,
                None => return Err(format!("shard {number} is gone; it may be {possible:?}")),
                Some(entry) => {
                    let state = possible
                        .iter()
                        .flatten()
                        .find(|(g, _, l)| (*g, *l) == (entry.generation.get(), entry.payload_len as usize));
                    let Some(&(generation, seed, length)) = state else {
                        return Err(format!("shard {number} is {entry:?}; it may be {possible:?}"));
                    };
                    let content =
                        read(entry).map_err(|what| format!("shard {number} gen {generation}: {what}"))?;
                    if content != bytes(seed, length) {
                        return Err(format!("shard {number} gen {generation} has wrong bytes"));
                    }
                    Some((generation, seed, length))
                }
            };
            if self.shards.contains_key(&number) {
                self.shards.insert(number, vec![state]);
            }
        }
        match found.keys().find(|id| (0..=u8::MAX).all(|n| shard(n) != **id)) {
            Some(id) => Err(format!("shard {id} was never written")),
            None => Ok(()),
        }
    }
}
