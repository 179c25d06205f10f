//! One shard on one drive, wherever the drive is: this node's drives through their handles, other
//! nodes' through peer links.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use holdfast_drive::{DeleteError, Drive, DriveState, GetError, PutError, ShardWrite};
use holdfast_model::{DriveId, Generation, NodeId, ShardId, StripeId, placement::Place};
use holdfast_peer::{Answer, Method, PeerError};
use holdfast_ring::Buffer;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::{
    health::Health,
    hedges::Hedges,
    peers::Peers,
    records::{JournalSpan, RecordNotes},
    wire::{DeleteShard, GetShard, GetWholeShard, ListShards, Listed, PutShard},
};

/// How long a shard may take to become durable on another node.
const PUT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a shard may take to be read, here or elsewhere.
pub const GET_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a whole shard may take that is read beside everything else.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Shards of one list at most.
const LIST_MAX: usize = 8192;

/// How long a node may take to say what it holds of the catalog's second copy.
const HOLDINGS_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a delete may take on another node.
const DELETE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why a shard could not be written, read or deleted. Travels between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ShardError {
    /// The drive holds no such shard of this generation.
    #[error("drive {drive} holds no shard {id}")]
    NotFound {
        /// The drive.
        drive: DriveId,
        /// The shard.
        id: ShardId,
    },
    /// Its bytes do not match their checksums.
    #[error("shard on drive {drive} is damaged: {what}")]
    Damaged {
        /// The drive.
        drive: DriveId,
        /// What does not match.
        what: String,
    },
    /// The drive has no room.
    #[error("drive {0} is full")]
    Full(DriveId),
    /// The drive is fenced, gone, or not of the node it was looked for on.
    #[error("drive {drive} cannot be used: {what}")]
    Drive {
        /// The drive.
        drive: DriveId,
        /// What it said.
        what: String,
    },
    /// The node does not answer.
    #[error("{node} does not answer: {what}")]
    Node {
        /// The node.
        node: NodeId,
        /// What was met.
        what: String,
    },
}

/// All drives of the cluster, as this node reaches them.
#[derive(Debug)]
pub struct Shards {
    node: NodeId,
    local: RwLock<BTreeMap<DriveId, Drive>>,
    peers: Arc<dyn Peers>,
    health: Arc<Health>,
    /// How long shards take to be read.
    pub(crate) hedges: Hedges,
    /// Records of the catalog's second copy on this node's drives.
    records: RecordNotes,
}

impl Shards {
    /// Reaches this node's drives directly and all others through `peers`.
    #[must_use]
    pub fn new(node: NodeId, drives: Vec<Drive>, peers: impl Peers, health: Arc<Health>) -> Self {
        let local = RwLock::new(drives.into_iter().map(|drive| (drive.id(), drive)).collect());
        Self {
            node,
            local,
            peers: Arc::new(peers),
            health,
            hedges: Hedges::default(),
            records: RecordNotes::default(),
        }
    }

    /// Notes that a record of the catalog's second copy does not read back. What it held is elsewhere too.
    pub fn note_damaged_record(&self, drive: DriveId, id: ShardId) {
        self.records.damaged(drive, id);
    }

    /// Takes what was noted as damaged.
    #[must_use]
    pub fn take_damaged_records(&self) -> BTreeSet<(DriveId, ShardId)> {
        self.records.take_damaged()
    }

    /// Takes what journal records hold that were written to this node's drives since the last time. Not all: there is a
    /// limit, and what was written before this program started is not noted.
    #[must_use]
    pub fn take_written_records(&self) -> BTreeMap<StripeId, JournalSpan> {
        self.records.take_written()
    }

    /// Asks another node what its drives hold of the catalog's second copy.
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn ask_holdings(&self, node: NodeId, question: Bytes) -> Result<Bytes, PeerError> {
        let answer = self.peers.call(node, Method::CatalogHoldings, question, None, HOLDINGS_TIMEOUT).await?;
        Ok(answer.body)
    }

    /// This node's drives, in id order.
    #[must_use]
    pub fn local(&self) -> Vec<Drive> {
        self.local.read().values().cloned().collect()
    }

    /// A drive of this node has come. Returns the one that was there under its id, if it had not gone.
    pub fn add(&self, drive: Drive) -> Option<Drive> {
        self.local.write().insert(drive.id(), drive)
    }

    /// A drive of this node has gone: nothing is read from it or written to it any more.
    pub fn remove(&self, drive: DriveId) -> Option<Drive> {
        self.local.write().remove(&drive)
    }

    /// One of this node's drives.
    ///
    /// # Errors
    /// `Drive` when this node has none of that id.
    pub fn local_drive(&self, drive: DriveId) -> Result<Drive, ShardError> {
        self.local
            .read()
            .get(&drive)
            .cloned()
            .ok_or_else(|| ShardError::Drive { drive, what: format!("not a drive of {}", self.node) })
    }

    /// A drive of this process, whatever node it is said to belong to; `None` when peers have to be asked.
    fn here(&self, place: Place) -> Option<Result<Drive, ShardError>> {
        let drive = self.local_drive(place.drive);
        (drive.is_ok() || place.node == self.node).then_some(drive)
    }

    /// Whether what is placed there is kept by this process.
    pub(crate) fn is_here(&self, place: Place) -> bool {
        place.node == self.node || self.local.read().contains_key(&place.drive)
    }

    /// Links to the other nodes.
    pub(crate) fn peers(&self) -> &dyn Peers {
        self.peers.as_ref()
    }

    /// Writes a shard; returns when it is durable.
    ///
    /// # Errors
    /// [`ShardError`].
    pub async fn put(&self, place: Place, write: ShardWrite) -> Result<(), ShardError> {
        if let Some(drive) = self.here(place) {
            return self.put_here(&drive?, write).await;
        }
        let ShardWrite { id, generation, tenant, data, parity, manifest, payload } = write;
        let body = PutShard { drive: place.drive, id, generation, tenant, data, parity, manifest };
        self.call(place.node, Method::ShardPut, &body, Some(payload), PUT_TIMEOUT).await.map(drop)
    }

    /// Writes a shard to one of this node's drives; returns when it is durable.
    pub(crate) async fn put_here(&self, drive: &Drive, write: ShardWrite) -> Result<(), ShardError> {
        self.records.writing(&write);
        put_local(drive, write).await
    }

    /// Reads a range of a shard.
    ///
    /// # Errors
    /// [`ShardError`].
    pub async fn get(
        &self,
        place: Place,
        id: ShardId,
        generation: Generation,
        range: Range<u32>,
    ) -> Result<Buffer, ShardError> {
        if let Some(drive) = self.here(place) {
            return get_local(&drive?, id, generation, range).await;
        }
        let length = range.len();
        let body = GetShard { drive: place.drive, id, generation, start: range.start, end: range.end };
        match self.call(place.node, Method::ShardGet, &body, None, GET_TIMEOUT).await? {
            Some(buffer) if buffer.len() == length => Ok(buffer),
            other => Err(ShardError::Damaged {
                drive: place.drive,
                what: format!("{} bytes came, {length} were asked for", other.map_or(0, |b| b.len())),
            }),
        }
    }

    /// Reads a whole shard with the sealed manifest of its record, in the background.
    ///
    /// # Errors
    /// [`ShardError`].
    pub async fn get_whole(
        &self,
        place: Place,
        id: ShardId,
        generation: Generation,
    ) -> Result<(Buffer, Vec<u8>), ShardError> {
        if let Some(drive) = self.here(place) {
            return get_whole_local(&drive?, id, generation).await;
        }
        let body = GetWholeShard { drive: place.drive, id, generation };
        let reply = self.exchange(place.node, Method::ShardGetWhole, &body, None, WHOLE_TIMEOUT).await?;
        match reply.payload {
            Some(buffer) => Ok((buffer, reply.body.to_vec())),
            None => Err(ShardError::Damaged { drive: place.drive, what: "no bytes came".to_owned() }),
        }
    }

    /// Up to `limit` shards of a drive with the generations of their records, in order, after the given one.
    /// Fewer than `limit`: those were the last.
    ///
    /// # Errors
    /// [`ShardError`].
    pub async fn list(
        &self,
        place: Place,
        after: Option<ShardId>,
        limit: usize,
    ) -> Result<Vec<Listed>, ShardError> {
        let limit = limit.min(LIST_MAX);
        if let Some(drive) = self.here(place) {
            return list_local(&drive?, after, limit);
        }
        let limit = u32::try_from(limit).expect("LIST_MAX fits");
        let body = ListShards { drive: place.drive, after, limit };
        let reply = self.exchange(place.node, Method::ShardList, &body, None, WHOLE_TIMEOUT).await?;
        postcard::from_bytes(&reply.body).map_err(|error| ShardError::Node {
            node: place.node,
            what: format!("its list does not parse: {error}"),
        })
    }

    /// Whether a drive holds a shard now; `false` also when it cannot be asked.
    pub async fn holds(&self, place: Place, id: ShardId) -> bool {
        if let Some(drive) = self.here(place) {
            return drive.is_ok_and(|drive| drive.holds(id));
        }
        // One byte of it: answered from the drive, not from what anybody remembers.
        self.get(place, id, Generation::new(0), 0..1).await.is_ok()
    }

    /// Deletes a shard durably. A shard that is not there is deleted.
    ///
    /// # Errors
    /// [`ShardError`].
    pub async fn delete(&self, place: Place, id: ShardId, generation: Generation) -> Result<(), ShardError> {
        if let Some(drive) = self.here(place) {
            return delete_local(&drive?, id, generation).await;
        }
        if holdfast_planted::is("DeletesOnlyHere") {
            return Ok(());
        }
        let body = DeleteShard { drive: place.drive, id, generation };
        self.call(place.node, Method::ShardDelete, &body, None, DELETE_TIMEOUT).await.map(drop)
    }

    async fn call<T: Serialize>(
        &self,
        node: NodeId,
        method: Method,
        body: &T,
        payload: Option<Buffer>,
        timeout: Duration,
    ) -> Result<Option<Buffer>, ShardError> {
        self.exchange(node, method, body, payload, timeout).await.map(|reply| reply.payload)
    }

    async fn exchange<T: Serialize>(
        &self,
        node: NodeId,
        method: Method,
        body: &T,
        payload: Option<Buffer>,
        timeout: Duration,
    ) -> Result<Answer, ShardError> {
        let body = postcard::to_stdvec(body)
            .map_err(|e| ShardError::Node { node, what: format!("request does not encode: {e}") })?;
        match self.peers.call(node, method, Bytes::from(body), payload.map(Into::into), timeout).await {
            Ok(reply) => Ok(reply),
            Err(PeerError::Refused { message, .. }) => Err(decode_refusal(node, &message)),
            Err(error) => {
                self.health.suspect(node);
                Err(ShardError::Node { node, what: error.to_string() })
            }
        }
    }
}

/// A refusal's message is a [`ShardError`] as JSON, so that its meaning survives the wire.
pub(crate) fn encode_refusal(error: &ShardError) -> String {
    serde_json::to_string(error).unwrap_or_else(|_| error.to_string())
}

fn decode_refusal(node: NodeId, message: &str) -> ShardError {
    serde_json::from_str(message).unwrap_or_else(|_| ShardError::Node { node, what: message.to_owned() })
}

async fn put_local(drive: &Drive, write: ShardWrite) -> Result<(), ShardError> {
    let id = drive.id();
    drive.put(write).await.map(drop).map_err(|error| match error {
        PutError::Full { .. } => ShardError::Full(id),
        other => ShardError::Drive { drive: id, what: other.to_string() },
    })
}

/// What a stripe's shard holds never changes, whatever place and generation it was written for: a shard that
/// was not moved keeps the generation of its record when others of its stripe move on, and one written anew
/// is ahead of the catalog until that has switched. So the generation that is there is read.
pub(crate) async fn get_local(
    drive: &Drive,
    id: ShardId,
    generation: Generation,
    range: Range<u32>,
) -> Result<Buffer, ShardError> {
    let got = match drive.get(id, generation, range.clone(), GET_TIMEOUT).await {
        Err(GetError::OtherGeneration { stored, .. }) if !holdfast_planted::is("OnlyThisGeneration") => {
            drive.get(id, stored, range, GET_TIMEOUT).await
        }
        got => got,
    };
    got.map_err(|error| unread(drive.id(), id, &error))
}

/// What the drive's index holds. A drive that is gone or closed holds nothing that anybody could read.
pub(crate) fn list_local(
    drive: &Drive,
    after: Option<ShardId>,
    limit: usize,
) -> Result<Vec<Listed>, ShardError> {
    let status = drive.status();
    if matches!(status.state, DriveState::Gone | DriveState::Closed) {
        return Err(ShardError::Drive { drive: drive.id(), what: status.reason });
    }
    Ok(drive.list(after, limit).into_iter().map(|shard| (shard.id, shard.generation)).collect())
}

pub(crate) async fn get_whole_local(
    drive: &Drive,
    id: ShardId,
    generation: Generation,
) -> Result<(Buffer, Vec<u8>), ShardError> {
    let got = match drive.get_whole(id, generation, WHOLE_TIMEOUT).await {
        Err(GetError::OtherGeneration { stored, .. }) if !holdfast_planted::is("OnlyThisGeneration") => {
            drive.get_whole(id, stored, WHOLE_TIMEOUT).await
        }
        got => got,
    };
    got.map_err(|error| unread(drive.id(), id, &error))
}

fn unread(drive: DriveId, id: ShardId, error: &GetError) -> ShardError {
    match error {
        GetError::NotFound { .. } => ShardError::NotFound { drive, id },
        // A sector that cannot be read is lost like one that rotted; the drive is judged elsewhere.
        GetError::Damaged { .. } | GetError::Device { .. } => {
            ShardError::Damaged { drive, what: error.to_string() }
        }
        other => ShardError::Drive { drive, what: other.to_string() },
    }
}

pub(crate) async fn delete_local(
    drive: &Drive,
    id: ShardId,
    generation: Generation,
) -> Result<(), ShardError> {
    drive
        .delete(id, generation)
        .await
        .map(drop)
        .map_err(|error: DeleteError| ShardError::Drive { drive: drive.id(), what: error.to_string() })
}
