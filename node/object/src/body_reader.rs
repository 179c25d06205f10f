//! A body on its way out: the cells of the asked range, stripe after stripe, a little ahead of the client.
//!
//! An object is a sequence of contents (one for a plain put, one per part of a multipart upload), each
//! sealed under its own key.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_catalog::{BodyRef, PartContent};
use holdfast_crypt::{BodyKey, BodyUse, Outer, OuterKey, SealedBodyKey, TenantCustody};
use holdfast_model::{BucketId, ClusterId, TenantId};
use holdfast_store::{Reservation, StoredStripe, StripeReader};

use crate::{
    ahead::begun,
    api::{Body, BodyError, ObjectError},
    backing::{Lookup, Taker},
    body_writer::{no_key, open_inline},
    stripes::{StripeIo, not_read, stored},
};

/// Stripes read ahead of the client.
const READ_AHEAD: usize = 3;

/// Whose content it is, and the key that opens it.
pub(crate) struct ContentOwner {
    pub cluster: ClusterId,
    pub tenant: TenantId,
    pub tenant_key: Arc<dyn TenantCustody>,
    /// Who reads.
    pub wanted: BodyUse,
    pub bucket: BucketId,
    /// The object key (name).
    pub name: String,
    /// A further key that the body's keys are wrapped under.
    pub outer: Option<(OuterKey, Vec<u8>)>,
}

/// One piece of a plan, and which bytes of the object it brings.
struct Step {
    at: Range<u64>,
    from: Source,
}

enum Source {
    Inline(Bytes),
    Stripe(StripeRange),
}

struct StripeRange {
    key: Arc<BodyKey>,
    stripe: StoredStripe,
    range: Range<usize>,
}

/// Streams `range` of the object made of `contents`. The first piece is read before this returns, so
/// that an object that cannot be read is an error and not a broken body.
///
/// # Errors
/// `Damaged` when a key does not open or content is beyond repair, `Unavailable` when too many drives
/// are away.
pub(crate) async fn open_body(
    io: &StripeIo,
    owner: Arc<ContentOwner>,
    contents: Vec<PartContent>,
    range: Range<u64>,
    lookup: Option<Lookup>,
    taker: Taker,
) -> Result<Body, ObjectError> {
    let steps = plan(&owner, contents, range)?;
    let reader = io.reader();
    let admitted = match taker {
        Taker::Client => None,
        Taker::Copy => Some(io.read_memory.admit_copy(held_at_once(&reader, &steps)?.into_iter()).await),
    };
    let mut pieces = stream::iter(steps)
        .map(move |step| {
            let (reader, owner, lookup) = (reader.clone(), Arc::clone(&owner), lookup.clone());
            async move {
                match step.from {
                    Source::Inline(bytes) => Ok(vec![bytes]),
                    Source::Stripe(source) => {
                        // In the order of the body, by whoever takes it; all else goes on without it.
                        let reserved = reader.reserve(&source.stripe, source.range.clone()).await;
                        let memory = Arc::new(reserved.map_err(not_read)?);
                        begun(read_somewhere(reader, owner, lookup, step.at, source, memory)).await
                    }
                }
            }
        })
        .buffered(READ_AHEAD);
    let Some(first) = pieces.next().await else {
        return Ok(Box::pin(stream::empty()));
    };
    let all = stream::iter([Ok(first?)])
        .chain(pieces)
        .map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok)))
        .map_err(|error: ObjectError| BodyError::Storage(error.to_string()))
        .try_flatten()
        .inspect(move |_| {
            // Until the body is dropped.
            let _ = &admitted;
        });
    Ok(Box::pin(all))
}

/// Lengths of the buffers that reading these steps holds at once at most: those of the largest, for each that is read ahead
/// and for the one that is being taken.
fn held_at_once(reader: &StripeReader, steps: &[Step]) -> Result<Vec<usize>, ObjectError> {
    let mut largest = Vec::new();
    for step in steps {
        if let Source::Stripe(StripeRange { stripe, range, .. }) = &step.from {
            let buffers = reader.buffers_of(stripe, range.clone()).map_err(not_read)?;
            if buffers.iter().sum::<usize>() > largest.iter().sum() {
                largest = buffers;
            }
        }
    }
    Ok(largest.repeat((READ_AHEAD + 1).min(steps.len())))
}

/// One range: from where the catalog had it when the body was opened, or where it is now.
async fn read_somewhere(
    reader: StripeReader,
    owner: Arc<ContentOwner>,
    lookup: Option<Lookup>,
    at: Range<u64>,
    source: StripeRange,
    memory: Arc<Reservation>,
) -> Result<Vec<Bytes>, ObjectError> {
    match (read_stripe(&reader, source, &memory).await, lookup) {
        (Err(ObjectError::Unavailable(why)), Some(lookup)) => {
            read_anew(&reader, &owner, &lookup, at, &memory).await.map_err(|again| {
                tracing::debug!(%again, "not found where the catalog has it now either");
                ObjectError::Unavailable(why)
            })
        }
        (outcome, _) => outcome,
    }
}

async fn read_stripe(
    reader: &StripeReader,
    StripeRange { key, stripe, range }: StripeRange,
    memory: &Arc<Reservation>,
) -> Result<Vec<Bytes>, ObjectError> {
    reader.read_reserved(&stripe, &key, range, Arc::clone(memory)).await.map_err(not_read)
}

/// The same bytes from where the catalog says they are now. In the memory that was reserved for them: what waited for more
/// would wait behind others, while later pieces of its body hold some.
async fn read_anew(
    reader: &StripeReader,
    owner: &ContentOwner,
    lookup: &Lookup,
    at: Range<u64>,
    memory: &Arc<Reservation>,
) -> Result<Vec<Bytes>, ObjectError> {
    let mut pieces = Vec::new();
    for step in plan(owner, lookup(at.clone()).await?, at)? {
        match step.from {
            Source::Inline(bytes) => pieces.push(bytes),
            Source::Stripe(source) => pieces.extend(read_stripe(reader, source, memory).await?),
        }
    }
    Ok(pieces)
}

fn plan(
    owner: &ContentOwner,
    contents: Vec<PartContent>,
    range: Range<u64>,
) -> Result<Vec<Step>, ObjectError> {
    let mut steps = Vec::new();
    for content in contents {
        let here = overlap(content.offset, content.size, &range);
        if here.is_empty() {
            continue;
        }
        let key = BodyKey::unwrap_by(
            &SealedBodyKey::from_bytes(content.wrapped_key.to_vec()),
            (&*owner.tenant_key, owner.wanted),
            (owner.cluster, owner.tenant, owner.bucket),
            &owner.name,
            owner.outer.as_ref().map(|(key, context)| Outer { key, context }),
        )
        .map_err(no_key)?;
        match content.body {
            BodyRef::Inline(sealed) => {
                let bytes = open_inline(&key, sealed.to_vec())?;
                if bytes.len() as u64 != content.size {
                    return Err(ObjectError::Damaged(format!(
                        "{} bytes open, the catalog says {}",
                        bytes.len(),
                        content.size
                    )));
                }
                let at = content.offset + here.start..content.offset + here.end;
                steps.push(Step { at, from: Source::Inline(bytes.slice(to_usize(here))) });
            }
            BodyRef::Stripes(stripes) => {
                let key = Arc::new(key);
                let mut at = content.skipped;
                for stripe in &stripes {
                    let len = u64::from(stripe.plain_len);
                    let within = overlap(at, len, &here);
                    let first = content.offset + at;
                    at += len;
                    if !within.is_empty() {
                        steps.push(Step {
                            at: first + within.start..first + within.end,
                            from: Source::Stripe(StripeRange {
                                key: Arc::clone(&key),
                                stripe: stored(stripe, at == content.size),
                                range: to_usize(within),
                            }),
                        });
                    }
                }
                if at < here.end || content.skipped > here.start {
                    return Err(ObjectError::Damaged(format!(
                        "stripes hold bytes {} to {at}, {} to {} are asked for",
                        content.skipped, here.start, here.end
                    )));
                }
            }
        }
    }
    Ok(steps)
}

/// The part of `range` that falls on `len` bytes from `start` on, relative to `start`.
fn overlap(start: u64, len: u64, range: &Range<u64>) -> Range<u64> {
    let from = range.start.clamp(start, start + len) - start;
    let to = range.end.clamp(start, start + len) - start;
    from..to.max(from)
}

fn to_usize(range: Range<u64>) -> Range<usize> {
    let cut = |v: u64| usize::try_from(v).expect("a stripe and an inline body are far below 4 GiB");
    cut(range.start)..cut(range.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_fall_on_the_right_contents() {
        assert_eq!(overlap(0, 10, &(3..25)), 3..10);
        assert_eq!(overlap(10, 10, &(3..25)), 0..10);
        assert_eq!(overlap(20, 10, &(3..25)), 0..5);
        assert!(overlap(30, 10, &(3..25)).is_empty());
    }
}
