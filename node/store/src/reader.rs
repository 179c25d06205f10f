//! Reads a range of a stripe's content: only the cells asked for, only the shards that hold them; what
//! is missing, damaged or does not open is rebuilt from any `data` other shards, column for column; so is
//! what is late, beside it.
//!
//! Invariant: plaintext leaves here only through a cell that opened under its key at its address.

use std::{
    ops::Range,
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::{Either, select},
    stream::FuturesUnordered,
};
use holdfast_crypt::BodyKey;
use holdfast_erasure::Code;
use holdfast_model::{Generation, ShardId, ShardIndex, StripeId, placement::Place};
use holdfast_ring::Buffer;
use holdfast_stripe::{Layout, ShardSpan, open_cells, rebuild_range};
use serde::{Deserialize, Serialize};

use crate::{
    Counters,
    findings::{BadShard, Fault, Findings},
    health::Health,
    memory::{ReadMemory, Reservation},
    shards::{ShardError, Shards},
};

/// A stripe as the catalog knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoredStripe {
    /// The stripe.
    pub id: StripeId,
    /// Generation of its shards.
    pub generation: Generation,
    /// Number of the stripe in its body; part of what its cells are sealed with.
    pub number: u32,
    /// Whether it ends the body.
    pub last: bool,
    /// Content in bytes.
    pub len: usize,
    /// Data shards.
    pub data: u8,
    /// Parity shards.
    pub parity: u8,
    /// Where each shard is, data first.
    pub places: Vec<Place>,
}

/// A range that cannot be given back.
#[derive(Debug, thiserror::Error)]
pub enum ReadFailed {
    /// Too few shards can be read now. What is down may come back.
    #[error("stripe {stripe}: {readable} shards readable, {needed} needed; {cause}")]
    TooFewShards {
        /// The stripe.
        stripe: StripeId,
        /// Shards that could be read.
        readable: usize,
        /// Shards needed.
        needed: usize,
        /// What the last unreadable one met.
        cause: String,
    },
    /// The catalog's description is not of a stripe this release can have written.
    #[error("stripe {stripe}: its description is not of a stripe: {what}")]
    Description {
        /// The stripe.
        stripe: StripeId,
        /// What is wrong.
        what: String,
    },
    /// Shards agree with their checksums but their cells do not open, even when rebuilt.
    #[error("stripe {stripe}: content does not open; it is not returned")]
    DoesNotOpen {
        /// The stripe.
        stripe: StripeId,
    },
}

/// Content on its way to a client, with the right to hold it.
struct Reserved {
    buffer: Buffer,
    _reservation: Arc<Reservation>,
}

impl AsRef<[u8]> for Reserved {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

/// Reads stripes.
#[derive(Debug, Clone)]
pub struct StripeReader {
    /// Where shards are.
    pub shards: Arc<Shards>,
    /// Who answers.
    pub health: Arc<Health>,
    /// Memory for what is read.
    pub memory: ReadMemory,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Where bad shards are told.
    pub findings: Findings,
}

impl StripeReader {
    /// The plaintext of `range` of the stripe's content, in order, in pieces.
    ///
    /// # Errors
    /// [`ReadFailed`]; nothing is returned then.
    pub async fn read(
        &self,
        stripe: &StoredStripe,
        key: &BodyKey,
        range: Range<usize>,
    ) -> Result<Vec<Bytes>, ReadFailed> {
        let reservation = self.reserve(stripe, range.clone()).await?;
        self.read_reserved(stripe, key, range, Arc::new(reservation)).await
    }

    /// Waits for memory for what a read of `range` of the stripe's content brings. Whoever takes several ranges one after
    /// the other reserves them in that order, or it waits for what a later one of them holds.
    ///
    /// # Errors
    /// [`ReadFailed`] when the stripe is not one.
    pub async fn reserve(
        &self,
        stripe: &StoredStripe,
        range: Range<usize>,
    ) -> Result<Reservation, ReadFailed> {
        Ok(self.memory.reserve_content(self.buffers_of(stripe, range)?.into_iter()).await)
    }

    /// As [`StripeReader::read`], with memory that was reserved for this range: what it returns holds `reservation`, and
    /// it waits for no content on its way to clients.
    ///
    /// # Errors
    /// [`ReadFailed`]; nothing is returned then.
    pub async fn read_reserved(
        &self,
        stripe: &StoredStripe,
        key: &BodyKey,
        range: Range<usize>,
        reservation: Arc<Reservation>,
    ) -> Result<Vec<Bytes>, ReadFailed> {
        let (layout, code) = self.describe(stripe)?;
        let plan = layout.plan(range.clone());
        self.read_planned(stripe, key, range, (&layout, &code, &plan), reservation).await
    }

    /// Lengths of the buffers that a read of `range` of the stripe's content holds, in bytes.
    ///
    /// # Errors
    /// [`ReadFailed`] when the stripe is not one.
    pub fn buffers_of(&self, stripe: &StoredStripe, range: Range<usize>) -> Result<Vec<usize>, ReadFailed> {
        let (layout, _) = self.describe(stripe)?;
        Ok(layout.plan(range).iter().map(|span| span.bytes.len()).collect())
    }

    /// All of a stripe's content, for a write that takes it back: in memory of its own, none of the pool's is held
    /// when it returns, and it waits for no content on its way to clients.
    ///
    /// # Errors
    /// [`ReadFailed`]; nothing is returned then.
    pub async fn read_back(&self, stripe: &StoredStripe, key: &BodyKey) -> Result<Vec<Bytes>, ReadFailed> {
        let (layout, code) = self.describe(stripe)?;
        let mut pieces = Vec::new();
        // Shard by shard: as many as there are in a wide stripe could be more than there is memory for.
        for span in layout.plan(0..stripe.len) {
            let length = std::iter::once(span.bytes.len());
            let reservation = Arc::new(self.memory.reserve_read_back(length).await);
            let plan = std::slice::from_ref(&span);
            let read = self.read_planned(stripe, key, 0..stripe.len, (&layout, &code, plan), reservation);
            pieces.extend(read.await?.iter().map(|piece| Bytes::copy_from_slice(piece)));
        }
        Ok(pieces)
    }

    async fn read_planned(
        &self,
        stripe: &StoredStripe,
        key: &BodyKey,
        range: Range<usize>,
        (layout, code, plan): (&Layout, &Code, &[ShardSpan]),
        reservation: Arc<Reservation>,
    ) -> Result<Vec<Bytes>, ReadFailed> {
        self.counters.ranges_read.fetch_add(1, Ordering::Relaxed);
        let reads = plan.iter().map(|span| self.read_span(stripe, layout, code, key, span));
        let buffers = futures::future::try_join_all(reads).await.inspect_err(|_| {
            self.counters.unreadable.fetch_add(1, Ordering::Relaxed);
        })?;

        let mut pieces = Vec::new();
        for (span, buffer) in plan.iter().zip(buffers) {
            let whole = Bytes::from_owner(Reserved { buffer, _reservation: Arc::clone(&reservation) });
            for cell in &span.cells {
                let at = cell.sealed.start - span.bytes.start;
                let from = range.start.max(cell.content.start) - cell.content.start;
                let to = range.end.min(cell.content.end) - cell.content.start;
                if from < to {
                    pieces.push(whole.slice(at + from..at + to));
                }
            }
        }
        Ok(pieces)
    }

    fn describe(&self, stripe: &StoredStripe) -> Result<(Layout, Arc<Code>), ReadFailed> {
        let wrong = |what: String| ReadFailed::Description { stripe: stripe.id, what };
        let layout = Layout::new(stripe.data, stripe.parity, stripe.len)
            .ok_or_else(|| wrong(format!("{} bytes on {} data shards", stripe.len, stripe.data)))?;
        let code = Code::of(stripe.data, stripe.parity).map_err(|e| wrong(e.to_string()))?;
        if stripe.places.len() != usize::from(stripe.data) + usize::from(stripe.parity) {
            return Err(wrong(format!("{} places", stripe.places.len())));
        }
        Ok((layout, code))
    }

    /// One span, opened: from its own shard, or rebuilt when that is bad, its drive slow or its node away; when
    /// it is late, whichever comes first.
    async fn read_span(
        &self,
        stripe: &StoredStripe,
        layout: &Layout,
        code: &Code,
        key: &BodyKey,
        span: &ShardSpan,
    ) -> Result<Buffer, ReadFailed> {
        let place = stripe.places[span.shard];
        let degraded = || {
            self.counters.degraded_reads.fetch_add(1, Ordering::Relaxed);
            self.rebuild_span(stripe, layout, code, key, span, 0)
        };
        let hedges = &self.shards.hedges;
        let slow = self.health.is_slow(place.node, place.drive) && !hedges.is_probe();
        if slow || !self.health.is_up(place.node) {
            // Late is better than never, and a node may answer again that did not a moment ago.
            return match degraded().await {
                Err(failed) => self.direct_span(stripe, layout, key, span).await.ok_or(failed),
                rebuilt => rebuilt,
            };
        }
        let began = tokio::time::Instant::now();
        let mut direct = pin!(self.direct_span(stripe, layout, key, span));
        let patience = hedges.patience(self.health.is_slow(place.node, place.drive));
        let in_time = tokio::time::timeout(patience, &mut direct).await;
        hedges.took(began.elapsed());
        match in_time {
            Ok(Some(buffer)) => return Ok(buffer),
            Ok(None) => return degraded().await,
            Err(_) if !hedges.may_ask() => {
                return match direct.await {
                    Some(buffer) => Ok(buffer),
                    None => degraded().await,
                };
            }
            Err(_) => {}
        }
        self.counters.hedged_reads.fetch_add(1, Ordering::Relaxed);
        // The late shard keeps its buffer meanwhile.
        let rebuilt = pin!(self.rebuild_span(stripe, layout, code, key, span, 1));
        match select(direct, rebuilt).await {
            Either::Left((Some(buffer), _)) => Ok(buffer),
            Either::Left((None, rebuilt)) => rebuilt.await,
            Either::Right((Ok(buffer), _)) => {
                self.counters.hedges_won.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(stripe = %stripe.id, shard = span.shard, node = %place.node, drive = %place.drive, "shard was late");
                Ok(buffer)
            }
            Either::Right((Err(error), direct)) => direct.await.ok_or(error),
        }
    }

    /// One span from its own shard, opened; `None` when it cannot be read or does not open.
    async fn direct_span(
        &self,
        stripe: &StoredStripe,
        layout: &Layout,
        key: &BodyKey,
        span: &ShardSpan,
    ) -> Option<Buffer> {
        match self.fetch(stripe, span.shard, &span.bytes).await {
            Ok(mut buffer) => {
                if open_span(stripe, layout, key, span, &mut buffer) {
                    return Some(buffer);
                }
                self.note_bad(stripe, span.shard, Fault::DoesNotOpen, "its cells do not open");
            }
            Err(error) => self.note_unread(stripe, span.shard, &error),
        }
        None
    }

    /// One span rebuilt from other shards, opened. Reserves memory for `beside` more than it gathers.
    async fn rebuild_span(
        &self,
        stripe: &StoredStripe,
        layout: &Layout,
        code: &Code,
        key: &BodyKey,
        span: &ShardSpan,
        beside: usize,
    ) -> Result<Buffer, ReadFailed> {
        let needed = usize::from(stripe.data);
        let _gathering = self.memory.reserve_rebuild(needed + beside, span.bytes.len()).await;
        let mut buffer = self.rebuild(stripe, code, span).await?;
        if open_span(stripe, layout, key, span, &mut buffer) {
            Ok(buffer)
        } else {
            Err(ReadFailed::DoesNotOpen { stripe: stripe.id })
        }
    }

    /// Rebuilds a span from the same bytes of `data` other shards, asking for more as some fail.
    async fn rebuild(
        &self,
        stripe: &StoredStripe,
        code: &Code,
        span: &ShardSpan,
    ) -> Result<Buffer, ReadFailed> {
        let needed = usize::from(stripe.data);
        let mut waiting: Vec<usize> = (0..stripe.places.len()).filter(|i| *i != span.shard).collect();
        // Nodes that answer and drives that are not slow first (the vector is used from its end).
        waiting.sort_by_key(|i| {
            let place = stripe.places[*i];
            (self.health.is_up(place.node), !self.health.is_slow(place.node, place.drive), *i)
        });
        let mut fetched: Vec<Option<Buffer>> = (0..stripe.places.len()).map(|_| None).collect();
        let mut running = FuturesUnordered::new();
        let mut readable = 0;
        let mut cause = "none failed".to_owned();
        loop {
            while readable + running.len() < needed {
                let Some(index) = waiting.pop() else { break };
                running.push(async move { (index, self.fetch(stripe, index, &span.bytes).await) });
            }
            match running.next().await {
                None if readable < needed => {
                    return Err(ReadFailed::TooFewShards { stripe: stripe.id, readable, needed, cause });
                }
                None => break,
                Some((index, Ok(buffer))) => {
                    fetched[index] = Some(buffer);
                    readable += 1;
                }
                Some((index, Err(error))) => {
                    cause = error.to_string();
                    self.note_unread(stripe, index, &error);
                }
            }
        }
        let mut out = self.memory.pool().acquire(span.bytes.len()).await;
        if holdfast_planted::is("RebuildsFromWrongPlaces") {
            fetched.rotate_left(1);
        }
        let present: Vec<Option<&[u8]>> = fetched.iter().map(|buffer| buffer.as_deref()).collect();
        rebuild_range(code, &present, span.shard, &mut out)
            .map_err(|e| ReadFailed::Description { stripe: stripe.id, what: e.to_string() })?;
        Ok(out)
    }

    async fn fetch(
        &self,
        stripe: &StoredStripe,
        index: usize,
        bytes: &Range<usize>,
    ) -> Result<Buffer, ShardError> {
        let id = ShardId {
            stripe: stripe.id,
            index: ShardIndex::new(u8::try_from(index).expect("a stripe has at most 255 shards")),
        };
        let range = u32::try_from(bytes.start).expect("a shard is at most 512 KiB")
            ..u32::try_from(bytes.end).expect("a shard is at most 512 KiB");
        self.shards.get(stripe.places[index], id, stripe.generation, range).await
    }

    /// A drive or node that is away was reported when it went; a shard that is missing or damaged on a
    /// drive that works is news.
    fn note_unread(&self, stripe: &StoredStripe, index: usize, error: &ShardError) {
        match error {
            ShardError::NotFound { .. } | ShardError::Damaged { .. } => {
                self.note_bad(stripe, index, Fault::Unreadable, &error.to_string());
            }
            ShardError::Full(_) | ShardError::Drive { .. } | ShardError::Node { .. } => {
                tracing::debug!(stripe = %stripe.id, shard = index, %error, "shard not reachable");
            }
        }
    }

    fn note_bad(&self, stripe: &StoredStripe, index: usize, fault: Fault, why: &str) {
        self.counters.bad_shards.fetch_add(1, Ordering::Relaxed);
        let place = stripe.places[index];
        tracing::warn!(stripe = %stripe.id, shard = index, node = %place.node, drive = %place.drive, why, "shard not readable");
        let index = ShardIndex::new(u8::try_from(index).expect("a stripe has at most 255 shards"));
        self.findings.tell(BadShard { stripe: stripe.id, index, place, fault });
    }
}

/// Opens the cells of a span in place; `false` when one of them does not open.
fn open_span(
    stripe: &StoredStripe,
    layout: &Layout,
    key: &BodyKey,
    span: &ShardSpan,
    bytes: &mut [u8],
) -> bool {
    let opened = open_cells(layout, key, stripe.number, stripe.last, &span.cells, span.bytes.start, bytes);
    opened.is_ok() || holdfast_planted::is("UnopenedIsRead")
}
