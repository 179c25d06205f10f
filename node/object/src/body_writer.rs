//! A body on its way in: streamed into stripes, or kept for the catalog command when it is small.
//!
//! ```text
//! chunks ─> head (16 KiB) ── ends ─────────────> one sealed cell in the catalog command
//!             └─ goes on ─> filling stripe ─> sealed, encoded, written ─> StripeRef
//!                            (one)              (up to STRIPES_IN_FLIGHT at once)
//! ```
//!
//! Memory of one body is bounded: the stripe being filled, one that waits to learn whether it is the
//! last, and [`STRIPES_IN_FLIGHT`] being written. Bytes are copied once, from the network's chunk to
//! their place in a shard buffer.
//!
//! Invariants:
//! - a (body key, stripe number) pair seals one plaintext: the [`BodySealer`] deals each number out once,
//!   and a stripe that is cut anew takes new ones;
//! - nothing refers to a body before [`BodyWriter::finish`] returned; what an abandoned one wrote is
//!   garbage for the sweeper.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_catalog::{BodyRef, StripeRef};
use holdfast_crypt::{
    BodyContext, BodyKey, BodySealer, BodyUse, CellAddress, CustodyError, Outer, StripeSealer, TenantCustody,
};
use holdfast_model::{
    Level, TenantId,
    limits::{CELL_TAG_SIZE, INLINE_BODY_MAX},
};
use md5::{Digest, Md5};
use tokio::{task::JoinHandle, time::Instant};

use crate::{
    api::{BodyError, ObjectError},
    backing::WrittenBody,
    draft::{Attempts, Draft},
    stripes::{Filling, StripeSink},
};

/// Stripes of one body that may be on their way to the drives at once.
const STRIPES_IN_FLIGHT: usize = 3;

/// A body that takes longer than this is refused: the sweeper takes shards that no catalog entry
/// names after twice this time (see `workers::sweep`).
pub(crate) const BODY_AGE_MAX: Duration = Duration::from_secs(12 * 3600);

/// Where the one cell of a small body is.
const INLINE: CellAddress = CellAddress { stripe: 0, cell: 0, last: true };

/// Streams one body.
pub(crate) struct BodyWriter {
    sink: Arc<StripeSink>,
    declared: Option<u64>,
    begun: Instant,
    head: Vec<u8>,
    filling: Option<Filling>,
    /// Full, but whether more follows is not known yet.
    full: Option<Filling>,
    running: VecDeque<JoinHandle<Result<Vec<StripeRef>, ObjectError>>>,
    done: Vec<StripeRef>,
    size: u64,
    md5: Md5,
}

/// What a body is written for.
pub(crate) struct BodyTarget {
    pub context: BodyContext,
    pub tenant_key: Arc<dyn TenantCustody>,
    /// Who writes.
    pub wanted: BodyUse,
    /// The object key (name) the body key is bound to.
    pub name: String,
    pub level: Level,
}

impl BodyTarget {
    pub(crate) fn tenant(&self) -> TenantId {
        self.context.tenant
    }
}

/// What a client hears of a key that was not to be had.
pub(crate) fn no_key(error: CustodyError) -> ObjectError {
    match error {
        CustodyError::Crypt(error) => ObjectError::Damaged(error.to_string()),
        CustodyError::Unavailable(why) => ObjectError::Unavailable(why),
    }
}

impl BodyWriter {
    /// Begins a body under a fresh key. `declared` is its length when the client said it.
    ///
    /// # Errors
    /// `Unavailable` when whoever holds the tenant's key does not wrap the body's now.
    pub(crate) fn begin(
        stripes: &crate::stripes::StripeIo,
        target: BodyTarget,
        declared: Option<u64>,
        outer: Option<Outer<'_>>,
    ) -> Result<Self, ObjectError> {
        let sealer = BodySealer::begin(target.context);
        let sealed_key =
            sealer.wrap_by(&*target.tenant_key, target.wanted, &target.name, outer).map_err(no_key)?;
        let sink = StripeSink::new(stripes.clone(), target, sealer, sealed_key);
        Ok(Self {
            sink: Arc::new(sink),
            declared,
            begun: Instant::now(),
            head: Vec::new(),
            filling: None,
            full: None,
            running: VecDeque::new(),
            done: Vec::new(),
            size: 0,
            md5: Md5::new(),
        })
    }

    /// Every stripe begun, for whoever has to clean up.
    pub(crate) fn attempts(&self) -> Attempts {
        self.sink.attempts()
    }

    /// Takes the next bytes. Waits while memory or drives are behind.
    pub(crate) async fn push(&mut self, chunk: Bytes) -> Result<(), ObjectError> {
        self.size += chunk.len() as u64;
        if let Some(declared) = self.declared
            && self.size > declared
        {
            return Err(BodyError::Length { declared, received: self.size }.into());
        }
        self.md5.update(&chunk);
        if self.in_head() {
            let fits = self.head.len() + chunk.len() <= INLINE_BODY_MAX
                && self.declared.is_none_or(|declared| declared <= INLINE_BODY_MAX as u64);
            if fits {
                self.head.extend_from_slice(&chunk);
                return Ok(());
            }
            let head = std::mem::take(&mut self.head);
            self.fill(&head).await?;
        }
        self.fill(&chunk).await
    }

    fn in_head(&self) -> bool {
        self.filling.is_none() && self.full.is_none() && self.done.is_empty() && self.running.is_empty()
    }

    async fn fill(&mut self, mut bytes: &[u8]) -> Result<(), ObjectError> {
        while !bytes.is_empty() {
            if let Some(full) = self.full.take() {
                self.send(full, false).await?;
            }
            let mut filling = match self.filling.take() {
                Some(filling) => filling,
                None => {
                    let left = self.declared.map(|declared| declared - self.sent_or_filled());
                    self.sink.begin_stripe(left).await?
                }
            };
            let taken = filling.take(bytes);
            bytes = &bytes[taken..];
            if filling.is_full() { self.full = Some(filling) } else { self.filling = Some(filling) }
        }
        Ok(())
    }

    /// Bytes that stripes begun so far hold. Called only between stripes.
    fn sent_or_filled(&self) -> u64 {
        self.sink.begun_bytes()
    }

    async fn send(&mut self, filling: Filling, last: bool) -> Result<(), ObjectError> {
        while self.running.len() >= STRIPES_IN_FLIGHT {
            self.reap().await?;
        }
        let sink = Arc::clone(&self.sink);
        self.sink.count_begun(filling.filled() as u64);
        self.running.push_back(tokio::spawn(async move { sink.write(filling, last).await }));
        Ok(())
    }

    async fn reap(&mut self) -> Result<(), ObjectError> {
        if let Some(task) = self.running.pop_front() {
            let refs = task.await.map_err(|e| ObjectError::Internal(format!("stripe task: {e}")))??;
            match holdfast_planted::is("StripesInReverse") {
                true => self.done.splice(0..0, refs).for_each(drop),
                false => self.done.extend(refs),
            }
        }
        Ok(())
    }

    /// Ends the body: returns when every shard of it is durable.
    pub(crate) async fn finish(mut self, content_md5: Option<[u8; 16]>) -> Result<WrittenBody, ObjectError> {
        if let Some(declared) = self.declared
            && declared != self.size
        {
            return Err(BodyError::Length { declared, received: self.size }.into());
        }
        let md5: [u8; 16] = self.md5.finalize_reset().into();
        if content_md5.is_some_and(|expected| expected != md5) {
            return Err(BodyError::Mismatch("Content-MD5").into());
        }
        let body = if self.in_head() {
            BodyRef::Inline(self.sink.seal_inline(std::mem::take(&mut self.head))?.into())
        } else {
            if let Some(rest) = self.full.take().or(self.filling.take()) {
                self.send(rest, true).await?;
            }
            while !self.running.is_empty() && !holdfast_planted::is("FinishDoesNotWait") {
                self.reap().await?;
            }
            BodyRef::Stripes(std::mem::take(&mut self.done))
        };
        if self.begun.elapsed() > BODY_AGE_MAX {
            return Err(BodyError::Broken("it took more than 12 hours".to_owned()).into());
        }
        let wrapped_key = Bytes::copy_from_slice(self.sink.sealed_key().as_bytes());
        Ok(WrittenBody { size: self.size, md5, wrapped_key, body, draft: Draft::none() })
    }
}

/// Seals a small body as one cell of its first stripe.
pub(crate) fn seal_inline(sealer: &BodySealer, mut plain: Vec<u8>) -> Result<Vec<u8>, ObjectError> {
    plain.resize(plain.len() + CELL_TAG_SIZE, 0);
    let at = next_stripe(sealer)?.seal_next(true, &mut plain);
    if at != INLINE {
        return Err(ObjectError::Internal(format!("a small body was sealed at {at:?}")));
    }
    Ok(plain)
}

/// Opens what [`seal_inline`] made.
pub(crate) fn open_inline(key: &BodyKey, mut sealed: Vec<u8>) -> Result<Bytes, ObjectError> {
    let len = key.open_cell(INLINE, &mut sealed).map_err(|e| ObjectError::Damaged(e.to_string()))?.len();
    sealed.truncate(len);
    Ok(Bytes::from(sealed))
}

/// Draws the next stripe.
pub(crate) fn next_stripe(sealer: &BodySealer) -> Result<StripeSealer<'_>, ObjectError> {
    sealer.stripe().map_err(|_| ObjectError::TooLarge(u64::MAX))
}
