//! Gives shards of a stripe new places: copies what can still be read, rebuilds what cannot from any `data`
//! others, writes it, and reads it back before anybody may rely on it.
//!
//! Works on ciphertext alone: no key is needed, and none is here. What is read was verified against its
//! record's checksums; what was written is compared byte for byte with what is on the drive.
//!
//! Invariants:
//! - nothing is deleted or switched here: the caller tells the catalog, and only after this returns;
//! - memory for all shards that are read and made together is reserved before the first is read.

use std::sync::Arc;

use futures::{
    StreamExt,
    future::{join_all, try_join_all},
    stream::FuturesUnordered,
};
use holdfast_drive::ShardWrite;
use holdfast_erasure::Code;
use holdfast_model::{Generation, ShardId, ShardIndex, TenantId, placement::Place};
use holdfast_ring::Buffer;
use holdfast_stripe::Layout;
use serde::{Deserialize, Serialize};

use crate::{
    health::Health,
    memory::{MOVED_TOGETHER_MAX, ReadMemory},
    reader::StoredStripe,
    shards::{ShardError, Shards},
};

/// One shard that needs a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relocation {
    /// Which shard of the stripe.
    pub index: ShardIndex,
    /// Whether what is at its old place may be used: its drive is only being emptied.
    pub readable: bool,
    /// Where it is to be.
    pub to: Place,
}

/// Why shards have no new places. Travels between nodes.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
pub enum RebuildFailed {
    /// Too few shards can be read now. What is down may come back.
    #[error("{readable} shards readable, {needed} needed; {cause}")]
    TooFewShards {
        /// Shards that could be read.
        readable: usize,
        /// Shards needed.
        needed: usize,
        /// What the last unreadable one met.
        cause: String,
    },
    /// A new copy could not be written.
    #[error("writing shard {index}: {cause}")]
    Write {
        /// Which shard.
        index: ShardIndex,
        /// What was met.
        cause: ShardError,
    },
    /// A new copy could not be read back, or is not what was written.
    #[error("reading shard {index} back: {what}")]
    ReadBack {
        /// Which shard.
        index: ShardIndex,
        /// What was found.
        what: String,
    },
    /// The node that was to do it gave no clear answer.
    #[error("{0}")]
    Elsewhere(ShardError),
    /// The catalog's description is not of a stripe this release can have written.
    #[error("its description is not of a stripe: {0}")]
    Description(String),
}

/// What was moved to carry out a relocation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes of shards read to make the new ones.
    pub read_bytes: u64,
    /// Bytes of shards written.
    pub written_bytes: u64,
}

/// Rebuilds shards.
#[derive(Debug, Clone)]
pub struct StripeRebuilder {
    /// Where shards are.
    pub shards: Arc<Shards>,
    /// Who answers.
    pub health: Arc<Health>,
    /// Memory for what is read and made.
    pub memory: ReadMemory,
}

struct Gathered {
    shards: Vec<Option<Buffer>>,
    manifest: Vec<u8>,
    read_bytes: u64,
}

impl StripeRebuilder {
    /// Writes the shards named in `relocations` to their new places under `generation` and reads them back. The
    /// node that gets most of them does it: what it writes and reads back crosses no network.
    ///
    /// # Errors
    /// [`RebuildFailed`]; some new copies may be on drives then, which the catalog does not know.
    pub async fn relocate(
        &self,
        tenant: TenantId,
        stripe: &StoredStripe,
        relocations: &[Relocation],
        generation: Generation,
    ) -> Result<Moved, RebuildFailed> {
        if let Some(node) = self.elsewhere(relocations)
            && let Some(result) = self.ask(node, tenant, stripe, relocations, generation).await
        {
            return result;
        }
        self.relocate_here(tenant, stripe, relocations, generation).await
    }

    /// As [`StripeRebuilder::relocate`], by this node.
    pub(crate) async fn relocate_here(
        &self,
        tenant: TenantId,
        stripe: &StoredStripe,
        relocations: &[Relocation],
        generation: Generation,
    ) -> Result<Moved, RebuildFailed> {
        let layout = Layout::new(stripe.data, stripe.parity, stripe.len)
            .ok_or_else(|| RebuildFailed::Description(format!("{} bytes", stripe.len)))?;
        let code = Code::of(stripe.data, stripe.parity)
            .map_err(|error| RebuildFailed::Description(error.to_string()))?;
        let width = stripe.places.len();
        if width != usize::from(stripe.data) + usize::from(stripe.parity)
            || relocations.iter().any(|r| usize::from(r.index.get()) >= width)
        {
            return Err(RebuildFailed::Description(format!("{width} places")));
        }
        let mut moved = Moved { read_bytes: 0, written_bytes: 0 };
        for together in relocations.chunks(MOVED_TOGETHER_MAX) {
            // What is gathered and what is made of it; then what is made and what is read back.
            let held = usize::from(stripe.data).max(together.len()) + together.len();
            let _reserved = self.memory.reserve_rebuild(held, layout.shard_len()).await;
            let gathered = self.gather(stripe, together).await?;
            let made = self.make(&code, together, &layout, &gathered).await?;
            let Gathered { shards, manifest, read_bytes } = gathered;
            drop(shards);
            moved.read_bytes += read_bytes;
            let writes = together.iter().zip(made).map(|(relocation, payload)| {
                self.write(tenant, stripe, *relocation, generation, manifest.clone(), payload)
            });
            moved.written_bytes += try_join_all(writes).await?.into_iter().sum::<u64>();
        }
        Ok(moved)
    }

    /// Whole shards: those that only move, and where one of them cannot be had, any others up to `data` in all.
    async fn gather(
        &self,
        stripe: &StoredStripe,
        relocations: &[Relocation],
    ) -> Result<Gathered, RebuildFailed> {
        let mut gathered = Gathered {
            shards: (0..stripe.places.len()).map(|_| None).collect(),
            manifest: Vec::new(),
            read_bytes: 0,
        };
        let wanted: Vec<usize> = relocations.iter().map(|r| usize::from(r.index.get())).collect();
        let read = |index: usize| async move { (index, self.fetch(stripe, index).await) };
        let mut cause = "none failed".to_owned();
        // What can be read where it is needs only to be copied, and helps to make what cannot.
        let copies = relocations.iter().filter(|relocation| relocation.readable);
        for (index, copy) in join_all(copies.map(|r| read(usize::from(r.index.get())))).await {
            match copy {
                Ok((buffer, manifest)) => gathered.take(index, buffer, manifest),
                Err(error) => cause = error.to_string(),
            }
        }
        if wanted.iter().all(|index| gathered.shards[*index].is_some()) {
            return Ok(gathered);
        }
        if holdfast_planted::is("LeavingIsNotRead") {
            gathered.shards.iter_mut().for_each(|shard| *shard = None);
        }
        let needed = usize::from(stripe.data);
        let mut waiting: Vec<usize> = (0..stripe.places.len()).filter(|i| !wanted.contains(i)).collect();
        // Nodes that answer first, then what crosses no network (the vector is used from its end).
        waiting.sort_by_key(|i| {
            let place = stripe.places[*i];
            (self.health.is_up(place.node), self.shards.is_here(place), std::cmp::Reverse(*i))
        });
        let mut readable = gathered.shards.iter().flatten().count();
        let mut running = FuturesUnordered::new();
        loop {
            while readable + running.len() < needed {
                let Some(index) = waiting.pop() else { break };
                running.push(read(index));
            }
            match running.next().await {
                Some((index, Ok((buffer, manifest)))) => {
                    gathered.take(index, buffer, manifest);
                    readable += 1;
                }
                Some((_, Err(error))) => cause = error.to_string(),
                None if readable < needed => {
                    return Err(RebuildFailed::TooFewShards { readable, needed, cause });
                }
                None => return Ok(gathered),
            }
        }
    }

    async fn fetch(&self, stripe: &StoredStripe, index: usize) -> Result<(Buffer, Vec<u8>), ShardError> {
        self.shards.get_whole(stripe.places[index], shard_id(stripe, index), stripe.generation).await
    }

    /// The shards to write, in the order of `relocations`.
    async fn make(
        &self,
        code: &Code,
        relocations: &[Relocation],
        layout: &Layout,
        gathered: &Gathered,
    ) -> Result<Vec<Buffer>, RebuildFailed> {
        let length = layout.shard_len();
        if let Some(other) = gathered.shards.iter().flatten().find(|shard| shard.len() != length) {
            return Err(RebuildFailed::Description(format!(
                "a shard of {} bytes where {length} were expected",
                other.len()
            )));
        }
        let mut made = Vec::with_capacity(relocations.len());
        for relocation in relocations {
            let index = usize::from(relocation.index.get());
            let mut out = self.memory.pool().acquire(length).await;
            match &gathered.shards[index] {
                Some(_) if holdfast_planted::is("CopiesNothing") => out.fill(0),
                Some(copy) => out.copy_from_slice(copy),
                None => {
                    let present: Vec<Option<&[u8]>> =
                        gathered.shards.iter().map(|shard| shard.as_deref()).collect();
                    let index = if holdfast_planted::is("RebuildsAnother") {
                        (index + 1) % present.len()
                    } else {
                        index
                    };
                    code.rebuild(&present, &[index], &mut [&mut out[..]])
                        .map_err(|error| RebuildFailed::Description(error.to_string()))?;
                }
            }
            made.push(out);
        }
        Ok(made)
    }

    /// Writes one shard and compares what the drive then holds; returns its bytes.
    async fn write(
        &self,
        tenant: TenantId,
        stripe: &StoredStripe,
        relocation: Relocation,
        generation: Generation,
        manifest: Vec<u8>,
        payload: Buffer,
    ) -> Result<u64, RebuildFailed> {
        let Relocation { index, to, .. } = relocation;
        let id = shard_id(stripe, usize::from(index.get()));
        let expected = payload.to_vec();
        let (data, parity) = (stripe.data, stripe.parity);
        let write = ShardWrite { id, generation, tenant, data, parity, manifest, payload };
        let put = self.shards.put(to, write).await;
        if holdfast_planted::is("MoveIgnoresWrite") {
            return Ok(expected.len() as u64);
        }
        put.map_err(|cause| RebuildFailed::Write { index, cause })?;
        let (found, _) = self
            .shards
            .get_whole(to, id, generation)
            .await
            .map_err(|error| RebuildFailed::ReadBack { index, what: error.to_string() })?;
        if found[..] != expected[..] && !holdfast_planted::is("SkipReadBack") {
            return Err(RebuildFailed::ReadBack { index, what: "other bytes than were written".to_owned() });
        }
        Ok(expected.len() as u64)
    }
}

impl Gathered {
    fn take(&mut self, index: usize, buffer: Buffer, manifest: Vec<u8>) {
        self.read_bytes += buffer.len() as u64;
        self.shards[index] = Some(buffer);
        self.manifest = manifest;
    }
}

fn shard_id(stripe: &StoredStripe, index: usize) -> ShardId {
    let index = ShardIndex::new(u8::try_from(index).expect("a stripe has at most 255 shards"));
    ShardId { stripe: stripe.id, index }
}
