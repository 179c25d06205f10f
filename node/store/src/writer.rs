//! Writes one sealed and encoded stripe: all shards at once, each durable on its drive or the stripe
//! is not written.
//!
//! A stripe that misses shards is given up as a whole; the caller may read it back from what was
//! written and cut it anew for the drives that are left (promise 2), and the sweeper removes what stays.

use std::sync::{Arc, atomic::Ordering};

use futures::future::join_all;
use holdfast_drive::ShardWrite;
use holdfast_model::{Generation, Geometry, ShardId, ShardIndex, StripeId, TenantId, placement::Place};
use holdfast_ring::Buffer;

use crate::{
    Counters,
    shards::{ShardError, Shards},
};

/// A stripe ready to be written: data shards, then parity, one buffer and one place each.
#[derive(Debug)]
pub struct StripeDraft {
    /// The stripe.
    pub id: StripeId,
    /// Its tenant.
    pub tenant: TenantId,
    /// Generation of all its shards.
    pub generation: Generation,
    /// Its shape.
    pub geometry: Geometry,
    /// Sealed manifest, the same in every record.
    pub manifest: Vec<u8>,
    /// Where each shard goes.
    pub places: Vec<Place>,
    /// The shards.
    pub shards: Vec<Buffer>,
}

/// A stripe of which every shard is durable.
#[derive(Debug)]
pub struct Written {
    /// Where each shard is.
    pub places: Vec<Place>,
}

/// A stripe that did not reach its level.
#[derive(Debug, thiserror::Error)]
#[error("stripe {stripe}: {} of {} shards written; first failure: {cause}", durable.iter().filter(|d| **d).count(), durable.len())]
pub struct WriteFailed {
    /// The stripe.
    pub stripe: StripeId,
    /// Which shards are durable all the same.
    pub durable: Vec<bool>,
    /// What the first failing shard met.
    pub cause: ShardError,
}

/// Writes `draft`. Returns when every shard has passed its drive's flush.
///
/// # Errors
/// [`WriteFailed`]; nodes that could not be reached are suspected from then on.
pub async fn write_stripe(
    shards: &Arc<Shards>,
    counters: &Counters,
    draft: StripeDraft,
) -> Result<Written, WriteFailed> {
    let StripeDraft { id, tenant, generation, geometry, manifest, places, shards: buffers } = draft;
    assert!(
        places.len() == buffers.len() && places.len() == geometry.shards(),
        "stripe {id}: a place and a buffer for each of {} shards",
        geometry.shards()
    );
    let writes = places.iter().zip(buffers).enumerate().map(|(index, (place, payload))| {
        let index = ShardIndex::new(u8::try_from(index).expect("a stripe has at most 255 shards"));
        let write = ShardWrite {
            id: ShardId { stripe: id, index },
            generation,
            tenant,
            data: geometry.data,
            parity: geometry.parity,
            manifest: manifest.clone(),
            payload,
        };
        shards.put(*place, write)
    });
    let results = join_all(writes).await;
    let durable: Vec<bool> = results.iter().map(Result::is_ok).collect();
    let failed = durable.iter().filter(|durable| !**durable).count();
    if holdfast_planted::is("OneShardMayMiss") && failed == 1
        || holdfast_planted::is("DataShardsSuffice") && failed <= usize::from(geometry.parity)
    {
        return Ok(Written { places });
    }
    match results.into_iter().find_map(Result::err) {
        None => {
            counters.stripes_written.fetch_add(1, Ordering::Relaxed);
            Ok(Written { places })
        }
        Some(cause) => {
            counters.stripes_failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(stripe = %id, %cause, ?durable, "stripe did not reach its level");
            Err(WriteFailed { stripe: id, durable, cause })
        }
    }
}
