//! Stripes of a body: where they go, how they are filled, and what happens when drives fail under them.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use holdfast_catalog::StripeRef;
use holdfast_crypt::{BodySealer, SealedBodyKey};
use holdfast_erasure::Code;
use holdfast_model::{
    ByteCount, DriveId, Generation, Geometry, StripeId,
    limits::{DATA_SHARDS_MAX, SECTOR_SIZE, SHARD_SIZE_MAX},
    placement::{Place, place},
};
use holdfast_ring::{Buffer, BufferPool};
use holdfast_store::{
    Counters, Findings, Health, ReadFailed, ReadMemory, Shards, StoredStripe, StripeDraft, StripeReader,
    WriteFailed, write_stripe,
};
use holdfast_stripe::{Layout, seal_and_encode};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    api::ObjectError,
    body_writer::{BodyTarget, next_stripe, seal_inline},
    draft::Attempts,
    host::{chance, now},
};

/// One stripe in this many has its parity computed a second time by an independent implementation
/// before it is written: a processor that computes wrongly is caught while the content is at hand.
const PARITY_CHECK_INTERVAL: u64 = 256;

/// Times a stripe is cut anew for the drives that are left before the write is refused.
const RECUTS_MAX: usize = 3;

/// What stripes are written to and read from.
#[derive(Debug, Clone)]
pub struct StripeIo {
    /// All drives.
    pub shards: Arc<Shards>,
    /// Who answers.
    pub health: Arc<Health>,
    /// Memory for stripes being filled.
    pub write_pool: BufferPool,
    /// Memory for what is read.
    pub read_memory: ReadMemory,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Where bad shards are told.
    pub findings: Findings,
    /// What is written may use the space that is set aside for rebuilding.
    pub uses_spare: bool,
}

impl StripeIo {
    pub(crate) fn reader(&self) -> StripeReader {
        StripeReader {
            shards: Arc::clone(&self.shards),
            health: Arc::clone(&self.health),
            memory: self.read_memory.clone(),
            counters: Arc::clone(&self.counters),
            findings: self.findings.clone(),
        }
    }
}

/// What every record of a stripe carries, sealed under the tenant's metadata key, so that the catalog
/// can be rebuilt from drives alone. Postcard.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RecordManifest {
    pub bucket: holdfast_model::BucketId,
    pub name: String,
    pub sealed_key: Vec<u8>,
    pub number: u32,
    pub last: bool,
    pub len: u32,
}

/// A stripe being filled with plaintext.
pub(crate) struct Filling {
    layout: Layout,
    geometry: Geometry,
    places: Vec<Place>,
    shards: Vec<Buffer>,
    filled: usize,
}

impl Filling {
    /// Copies as much of `bytes` as there is room for to its cells; returns how much.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_full() {
            let (shard, offset, room) = self.layout.slot(self.filled);
            let count = room.min(bytes.len() - taken);
            self.shards[shard][offset..offset + count].copy_from_slice(&bytes[taken..taken + count]);
            self.filled += count;
            taken += count;
        }
        taken
    }

    pub(crate) fn is_full(&self) -> bool {
        self.filled == self.layout.len()
    }

    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut position = 0;
        std::iter::from_fn(move || {
            if position == self.filled {
                return None;
            }
            let (shard, offset, room) = self.layout.slot(position);
            let count = room.min(self.filled - position);
            position += count;
            Some(&self.shards[shard][offset..offset + count])
        })
    }

    /// Zeros what lies behind the last cell in the data shards; buffers come as they were left.
    fn zero_tail(&mut self) {
        if holdfast_planted::is("TailIsLeft") {
            return;
        }
        let last = self.layout.cell(self.layout.cells() - 1);
        self.shards[last.shard][last.sealed.end..].fill(0);
        for shard in &mut self.shards[last.shard + 1..self.layout.data()] {
            shard.fill(0);
        }
    }
}

/// Takes filled stripes of one body.
pub(crate) struct StripeSink {
    io: StripeIo,
    target: BodyTarget,
    sealer: BodySealer,
    sealed_key: SealedBodyKey,
    begun_bytes: AtomicU64,
    attempts: Attempts,
}

impl StripeSink {
    pub(crate) fn new(
        io: StripeIo,
        target: BodyTarget,
        sealer: BodySealer,
        sealed_key: SealedBodyKey,
    ) -> Self {
        Self { io, target, sealer, sealed_key, begun_bytes: AtomicU64::new(0), attempts: Attempts::default() }
    }

    pub(crate) fn sealed_key(&self) -> &SealedBodyKey {
        &self.sealed_key
    }

    pub(crate) fn attempts(&self) -> Attempts {
        self.attempts.clone()
    }

    pub(crate) fn begun_bytes(&self) -> u64 {
        self.begun_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn count_begun(&self, bytes: u64) {
        self.begun_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn seal_inline(&self, plain: Vec<u8>) -> Result<Vec<u8>, ObjectError> {
        seal_inline(&self.sealer, plain)
    }

    /// A place for the next stripe on the drives that can be written now, and memory for it. `left` is
    /// how much content is still to come, when that is known.
    pub(crate) async fn begin_stripe(&self, left: Option<u64>) -> Result<Filling, ObjectError> {
        self.begin_stripe_beside(left, &[]).await
    }

    /// As [`Self::begin_stripe`], on other drives than those in `avoid`: they have just refused a shard, and
    /// their nodes may not have said why yet.
    async fn begin_stripe_beside(
        &self,
        left: Option<u64>,
        avoid: &[DriveId],
    ) -> Result<Filling, ObjectError> {
        let mut candidates = self.io.health.candidates();
        candidates.retain(|candidate| !avoid.contains(&candidate.drive));
        let Some(members) = self.io.health.members() else {
            return Err(ObjectError::Unavailable("this node does not know its cluster yet".to_owned()));
        };
        let record = (SHARD_SIZE_MAX + SECTOR_SIZE) as u64;
        let seed = u64::from_le_bytes(chance());
        let placed = place(self.target.level, &candidates, members, record, seed);
        // A slow drive is spared while that costs neither the level nor the width of the stripe.
        let prompt = self.io.health.prompt(&candidates);
        let spared = place(self.target.level, &prompt, members, record, seed);
        let placed = match (placed, spared) {
            (Ok((geometry, _)), Ok(spared)) if spared.0 == geometry => Ok(spared),
            (placed, _) => placed,
        };
        let (geometry, places) =
            placed.map_err(|refused| match place(self.target.level, &candidates, members, 0, seed) {
                Ok(_) => ObjectError::NoSpace(format!("{refused} with room for a shard")),
                Err(refused) => ObjectError::Unavailable(refused.to_string()),
            })?;
        let spare = self.io.health.spare();
        if !self.io.uses_spare && !spare.allows(geometry.shards() as u64 * record) {
            return Err(ObjectError::NoSpace(format!(
                "the space of {} drives, {}, is set aside for rebuilding, and {} are free",
                spare.drives,
                ByteCount::new(spare.reserved_bytes),
                ByteCount::new(spare.free_bytes)
            )));
        }
        let mut places = places;
        if holdfast_planted::is("TwoShardsOnADrive") {
            places[1] = places[0];
        }
        if holdfast_planted::is("AllOnOneNode")
            && let Some(other) = candidates.iter().find(|candidate| {
                candidate.node == places[0].node && places.iter().all(|place| place.drive != candidate.drive)
            })
            && let Some(place) = places.iter_mut().rev().find(|place| place.node != other.node)
        {
            *place = Place { node: other.node, drive: other.drive };
        }
        for place in &places {
            self.io.health.placed(place.node, record);
        }
        debug_assert!(usize::from(geometry.data) <= DATA_SHARDS_MAX);
        let capacity = Layout::capacity(geometry.data);
        let len = left.map_or(capacity, |left| usize::try_from(left).unwrap_or(capacity).min(capacity));
        self.filling(geometry, places, len).await
    }

    async fn filling(
        &self,
        geometry: Geometry,
        places: Vec<Place>,
        len: usize,
    ) -> Result<Filling, ObjectError> {
        let layout = Layout::new(geometry.data, geometry.parity, len)
            .ok_or_else(|| ObjectError::Internal(format!("no layout for {len} bytes on {geometry:?}")))?;
        let shards = self.io.write_pool.acquire_many(geometry.shards(), layout.shard_len()).await;
        Ok(Filling { layout, geometry, places, shards, filled: 0 })
    }

    /// Seals, encodes and writes a stripe. When drives fail under it, reads back what is durable and
    /// cuts it anew for the drives that are left.
    ///
    /// Holds memory for one stripe at a time, so that bodies never wait for each other in a circle.
    pub(crate) async fn write(&self, filling: Filling, last: bool) -> Result<Vec<StripeRef>, ObjectError> {
        let mut done = Vec::new();
        let mut rest: VecDeque<Bytes> = VecDeque::new();
        let mut recuts = 0;
        let mut avoid = Vec::new();
        let mut next = filling;
        loop {
            let ends = last && rest.is_empty();
            match self.write_once(next, ends).await? {
                Ok(stripe) => done.push(stripe),
                Err((stripe, failed)) => {
                    recuts += 1;
                    if recuts > RECUTS_MAX {
                        return Err(ObjectError::Unavailable(failed.to_string()));
                    }
                    let refused = stripe.places.iter().zip(&failed.durable).filter(|(_, durable)| !**durable);
                    avoid.extend(refused.map(|(place, _)| place.drive));
                    let mut back = self.read_back(&stripe, ends, &failed).await?;
                    if holdfast_planted::is("ReadBackLosesTheEnd") && back.len() > 1 {
                        back.pop();
                    }
                    for piece in back.into_iter().rev() {
                        rest.push_front(piece);
                    }
                }
            }
            if rest.is_empty() {
                return Ok(done);
            }
            let left = rest.iter().map(|piece| piece.len() as u64).sum();
            next = self.begin_stripe_beside(Some(left), &avoid).await?;
            while let Some(mut piece) = rest.pop_front() {
                let taken = next.take(&piece);
                if taken < piece.len() {
                    rest.push_front(piece.split_off(taken));
                    break;
                }
            }
        }
    }

    async fn write_once(
        &self,
        filling: Filling,
        last: bool,
    ) -> Result<Result<StripeRef, (StripeRef, WriteFailed)>, ObjectError> {
        let Filling { layout, geometry, places, shards, filled } = self.fitted(filling).await?.sealed_tail();
        let sealer = next_stripe(&self.sealer)?;
        let number = sealer.number();
        let id = StripeId::new(now(), chance());
        let generation = Generation::new(1);
        let code =
            Code::of(geometry.data, geometry.parity).map_err(|e| ObjectError::Internal(e.to_string()))?;
        let mut shards = shards;
        let mut slices: Vec<&mut [u8]> = shards.iter_mut().map(|shard| &mut shard[..]).collect();
        seal_and_encode(&layout, &code, sealer, last, &mut slices)
            .map_err(|e| ObjectError::Internal(e.to_string()))?;
        self.check_parity(&code, &layout, &shards)?;
        let len = u32::try_from(filled).expect("a stripe is at most 8 MiB");
        let manifest = RecordManifest {
            bucket: self.target.context.bucket,
            name: self.target.name.clone(),
            sealed_key: self.sealed_key.as_bytes().to_vec(),
            number,
            last,
            len,
        };
        let manifest =
            postcard::to_stdvec(&manifest).map_err(|e| ObjectError::Internal(format!("manifest: {e}")))?;
        let stripe = StripeRef {
            id,
            number,
            plain_len: len,
            data: geometry.data,
            parity: geometry.parity,
            generation,
            places: places.clone(),
        };
        self.attempts.note(stripe.clone());
        let draft = StripeDraft {
            id,
            tenant: self.target.tenant(),
            generation,
            geometry,
            manifest: self.target.tenant_key.metadata().seal_manifest(&id, &manifest),
            places,
            shards,
        };
        Ok(match write_stripe(&self.io.shards, &self.io.counters, draft).await {
            Ok(_) => Ok(stripe),
            Err(_) if holdfast_planted::is("FailedStripeCounts") => Ok(stripe),
            Err(failed) => Err((stripe, failed)),
        })
    }

    /// A stripe whose body ended before it was full is cut to its true length.
    async fn fitted(&self, filling: Filling) -> Result<Filling, ObjectError> {
        if filling.is_full() {
            return Ok(filling);
        }
        let mut plain = Zeroizing::new(Vec::with_capacity(filling.filled));
        for piece in filling.pieces() {
            plain.extend_from_slice(piece);
        }
        // Its memory goes back before more is asked for: no body waits while holding.
        let Filling { geometry, places, filled, shards, .. } = filling;
        drop(shards);
        let mut fitted = self.filling(geometry, places, filled).await?;
        fitted.take(&plain);
        Ok(fitted)
    }

    fn check_parity(&self, code: &Code, layout: &Layout, shards: &[Buffer]) -> Result<(), ObjectError> {
        if !self.io.counters.stripes_written.load(Ordering::Relaxed).is_multiple_of(PARITY_CHECK_INTERVAL) {
            return Ok(());
        }
        let slices: Vec<&[u8]> = shards.iter().map(|shard| &shard[..]).collect();
        let (data, parity) = slices.split_at(layout.data());
        match code.parity_agrees(data, parity) {
            Ok(true) => Ok(()),
            Ok(false) => {
                tracing::error!(
                    "two erasure code implementations disagree: this machine computes wrongly; take it out of service"
                );
                Err(ObjectError::Internal("parity check failed".to_owned()))
            }
            Err(e) => Err(ObjectError::Internal(e.to_string())),
        }
    }

    async fn read_back(
        &self,
        stripe: &StripeRef,
        last: bool,
        failed: &WriteFailed,
    ) -> Result<Vec<Bytes>, ObjectError> {
        let durable = failed.durable.iter().filter(|durable| **durable).count();
        if durable < usize::from(stripe.data) {
            return Err(ObjectError::Unavailable(failed.to_string()));
        }
        self.io
            .reader()
            .read_back(&stored(stripe, last), self.sealer.key())
            .await
            .map_err(|e| ObjectError::Unavailable(format!("{failed}; reading it back: {e}")))
    }
}

impl Filling {
    fn sealed_tail(mut self) -> Self {
        self.zero_tail();
        self
    }
}

/// The catalog's stripe as the store reads it.
pub(crate) fn stored(stripe: &StripeRef, last: bool) -> StoredStripe {
    StoredStripe {
        id: stripe.id,
        generation: stripe.generation,
        number: stripe.number,
        last,
        len: stripe.plain_len as usize,
        data: stripe.data,
        parity: stripe.parity,
        places: stripe.places.clone(),
    }
}

/// What a client is told of a range that cannot be read.
pub(crate) fn not_read(error: ReadFailed) -> ObjectError {
    match error {
        ReadFailed::TooFewShards { .. } => ObjectError::Unavailable(error.to_string()),
        other => ObjectError::Damaged(other.to_string()),
    }
}
