//! Serves this node's shards to its peers.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_drive::ShardWrite;
use holdfast_peer::{Method, Refusal, Reply};
use holdfast_ring::Buffer;
use serde::de::DeserializeOwned;

use crate::{
    elsewhere::encode_failure,
    rebuilder::StripeRebuilder,
    shards::{ShardError, Shards, delete_local, encode_refusal, get_local, get_whole_local, list_local},
    wire::{DeleteShard, GetShard, GetWholeShard, ListShards, PutShard, RelocateShards},
};

/// Code of a refusal that carries a [`ShardError`].
const SHARD_ERROR: u16 = 1;
/// Code of a refusal of a request that makes no sense.
const BAD_REQUEST: u16 = 2;
/// Code of a refusal that carries a [`RebuildFailed`](crate::RebuildFailed).
pub(crate) const REBUILD_FAILED: u16 = 3;

/// Answers `ShardPut`, `ShardGet`, `ShardGetWhole`, `ShardRelocate`, `ShardList` and `ShardDelete`.
#[derive(Debug, Clone)]
pub struct ShardService {
    shards: Arc<Shards>,
    rebuilder: StripeRebuilder,
}

impl ShardService {
    /// Serves the local drives that `rebuilder` reaches, and rebuilds onto them.
    #[must_use]
    pub fn new(rebuilder: StripeRebuilder) -> Self {
        Self { shards: Arc::clone(&rebuilder.shards), rebuilder }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// A [`Refusal`] that carries the [`ShardError`], or says what was wrong with the request.
    pub async fn call(&self, method: Method, body: Bytes, payload: Option<Buffer>) -> Result<Reply, Refusal> {
        match method {
            Method::ShardPut => {
                let put: PutShard = decode(&body)?;
                let payload = payload.ok_or_else(|| bad_request("ShardPut without a shard"))?;
                let drive = self.shards.local_drive(put.drive).map_err(refusal)?;
                let PutShard { id, generation, tenant, data, parity, manifest, .. } = put;
                let write = ShardWrite { id, generation, tenant, data, parity, manifest, payload };
                self.shards.put_here(&drive, write).await.map_err(refusal)?;
                Ok(Reply::empty())
            }
            Method::ShardGet => {
                let get: GetShard = decode(&body)?;
                if get.start >= get.end {
                    return Err(bad_request("ShardGet of nothing"));
                }
                let drive = self.shards.local_drive(get.drive).map_err(refusal)?;
                let buffer =
                    get_local(&drive, get.id, get.generation, get.start..get.end).await.map_err(refusal)?;
                Ok(Reply::with_payload(buffer))
            }
            Method::ShardGetWhole => {
                let get: GetWholeShard = decode(&body)?;
                let drive = self.shards.local_drive(get.drive).map_err(refusal)?;
                let (buffer, manifest) =
                    get_whole_local(&drive, get.id, get.generation).await.map_err(refusal)?;
                Ok(Reply { body: Bytes::from(manifest), ..Reply::with_payload(buffer) })
            }
            Method::ShardRelocate => {
                let RelocateShards { tenant, stripe, relocations, generation } = decode(&body)?;
                let moved = self.rebuilder.relocate_here(tenant, &stripe, &relocations, generation).await;
                let moved = moved.map_err(|failed| Refusal::new(REBUILD_FAILED, encode_failure(&failed)))?;
                let moved = postcard::to_stdvec(&moved)
                    .map_err(|e| bad_request(&format!("what was moved does not encode: {e}")))?;
                Ok(Reply::with_body(Bytes::from(moved)))
            }
            Method::ShardList => {
                let list: ListShards = decode(&body)?;
                let drive = self.shards.local_drive(list.drive).map_err(refusal)?;
                let listed = list_local(&drive, list.after, list.limit as usize).map_err(refusal)?;
                let listed = postcard::to_stdvec(&listed)
                    .map_err(|e| bad_request(&format!("the list does not encode: {e}")))?;
                Ok(Reply::with_body(Bytes::from(listed)))
            }
            Method::ShardDelete => {
                let delete: DeleteShard = decode(&body)?;
                let drive = self.shards.local_drive(delete.drive).map_err(refusal)?;
                delete_local(&drive, delete.id, delete.generation).await.map_err(refusal)?;
                Ok(Reply::empty())
            }
            other => Err(bad_request(&format!("{other:?} is not about shards"))),
        }
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    postcard::from_bytes(body).map_err(|e| bad_request(&format!("body does not parse: {e}")))
}

fn refusal(error: ShardError) -> Refusal {
    Refusal { code: SHARD_ERROR, message: encode_refusal(&error) }
}

fn bad_request(what: &str) -> Refusal {
    Refusal { code: BAD_REQUEST, message: what.to_owned() }
}
