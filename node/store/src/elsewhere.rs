//! Shards get new places by the work of the node that they go to: it reads the others, writes and reads back on its own
//! drives, and all nodes that get something work at once, whoever leads the group that asks.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use holdfast_model::{Generation, NodeId, TenantId};
use holdfast_peer::{Method, PeerError};

use crate::{
    ShardError,
    reader::StoredStripe,
    rebuilder::{Moved, RebuildFailed, Relocation, StripeRebuilder},
    service::REBUILD_FAILED,
    wire::RelocateShards,
};

/// How long another node may take. It waits for reads, for its drives and for memory, each with limits of its own.
const RELOCATE_TIMEOUT: Duration = Duration::from_secs(90);

impl StripeRebuilder {
    /// The node that gets most of the shards, unless this one gets as many.
    pub(crate) fn elsewhere(&self, relocations: &[Relocation]) -> Option<NodeId> {
        let mut here = 0;
        let mut others = BTreeMap::<NodeId, usize>::new();
        for relocation in relocations {
            match self.shards.is_here(relocation.to) {
                true => here += 1,
                false => *others.entry(relocation.to.node).or_default() += 1,
            }
        }
        let most = others.into_iter().max_by_key(|(_, count)| *count);
        most.filter(|(_, count)| *count > here).map(|(node, _)| node)
    }

    /// Has `node` do it. `None`: its program does not know how.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        tenant: TenantId,
        stripe: &StoredStripe,
        relocations: &[Relocation],
        generation: Generation,
    ) -> Option<Result<Moved, RebuildFailed>> {
        let relocations = relocations.to_vec();
        let request = RelocateShards { tenant, stripe: stripe.clone(), relocations, generation };
        let unclear = |what: String| RebuildFailed::Elsewhere(ShardError::Node { node, what });
        let body = match postcard::to_stdvec(&request) {
            Ok(body) => Bytes::from(body),
            Err(error) => return Some(Err(unclear(format!("the request does not encode: {error}")))),
        };
        match self.shards.peers().call(node, Method::ShardRelocate, body, None, RELOCATE_TIMEOUT).await {
            Ok(answer) => Some(
                postcard::from_bytes(&answer.body)
                    .map_err(|error| unclear(format!("its answer does not parse: {error}"))),
            ),
            Err(PeerError::NotPermitted { .. }) => None,
            Err(PeerError::Refused { code: REBUILD_FAILED, message, .. }) => {
                Some(Err(serde_json::from_str(&message).unwrap_or_else(|_| unclear(message))))
            }
            Err(error @ PeerError::Refused { .. }) => Some(Err(unclear(error.to_string()))),
            Err(error) => {
                self.health.suspect(node);
                Some(Err(unclear(error.to_string())))
            }
        }
    }
}

pub(crate) fn encode_failure(failed: &RebuildFailed) -> String {
    serde_json::to_string(failed).unwrap_or_else(|_| failed.to_string())
}
