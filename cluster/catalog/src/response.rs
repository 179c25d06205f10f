//! Answers to commands. A refusal is an answer like any other: it is the same on every replica.

use bytes::Bytes;
use holdfast_model::{BucketId, Generation, PartitionId, StripeId, UnixMillis, VersionId};
use serde::{Deserialize, Serialize};

use crate::command::{DecodeError, decode, encode};

/// What a command came to.
pub type Outcome = Result<Response, Refusal>;

/// A command was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The partition is there.
    PartitionCreated,
    /// The bucket is there.
    BucketCreated,
    /// The bucket is gone.
    BucketDeleted,
    /// The object is there.
    ObjectPut {
        /// When the object was last modified: the time of the command that stored it.
        modified: UnixMillis,
    },
    /// One answer per key: the version that was deleted, if there was one.
    ObjectsDeleted(Vec<Result<Option<VersionId>, Refusal>>),
    /// The upload is there.
    UploadCreated,
    /// The part is there.
    PartPut,
    /// The object is there, and the upload gone.
    UploadCompleted(CompletedUpload),
    /// The upload is gone.
    UploadAborted,
    /// One answer per id: whether it was garbage until now.
    GarbageRemoved(Vec<bool>),
    /// The stripe's places are switched.
    ShardsMoved {
        /// The stripe's generation now.
        generation: Generation,
    },
    /// One answer per stripe: `true` when it may be deleted, `false` when the catalog knows it after all.
    Condemned(Vec<bool>),
    /// The entry was applied before a restart, and nobody waits for its answer any more.
    Replayed,
}

/// The object that an upload became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedUpload {
    /// Its version.
    pub version: VersionId,
    /// Its size in bytes.
    pub size: u64,
    /// Its ETag, without quotes.
    pub etag: String,
    /// When it was last modified.
    pub modified: UnixMillis,
}

/// A command was not done, and changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Refusal {
    /// This group does not host the partition.
    #[error("partition {0} is not in this group")]
    NoSuchPartition(PartitionId),
    /// The partition belongs to another tenant or database.
    #[error("partition {0} exists as another database")]
    PartitionExists(PartitionId),
    /// No bucket of that name or id.
    #[error("no such bucket")]
    NoSuchBucket,
    /// A bucket of that name is there.
    #[error("bucket exists already")]
    BucketAlreadyExists {
        /// Its id.
        bucket: BucketId,
    },
    /// It holds objects or uploads.
    #[error("bucket is not empty")]
    BucketNotEmpty,
    /// A write on condition of an ETag found no object.
    #[error("no such key")]
    NoSuchKey,
    /// The condition does not hold.
    #[error("the condition does not hold")]
    PreconditionFailed,
    /// Unknown, completed or aborted, or of another key.
    #[error("no such upload")]
    NoSuchUpload,
    /// Not uploaded, or its ETag differs.
    #[error("part {0} was not uploaded or has another ETag")]
    InvalidPart(u32),
    /// The parts are not in ascending order, or there are none.
    #[error("parts are not in ascending order")]
    InvalidPartOrder,
    /// A part that is not the last is too small.
    #[error("part {number} is {size} bytes, less than {min}")]
    PartTooSmall {
        /// The part.
        number: u32,
        /// Its size in bytes.
        size: u64,
        /// The least size in bytes.
        min: u64,
    },
    /// The object would be larger than objects may be.
    #[error("object would be {size} bytes")]
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// The stripe belongs to something else already, or was condemned. Nothing refers to it from here.
    #[error("stripe {0} is in use or was condemned")]
    StripeInUse(StripeId),
    /// Unknown, or garbage.
    #[error("no such stripe")]
    NoSuchStripe,
    /// The stripe's generation or places are not those the mover started from.
    #[error("stripe is at generation {0} and has other places")]
    StripeChanged(Generation),
    /// A drive that shards are to move to holds another shard of the stripe, or one not yet swept.
    #[error("a target drive holds a shard of this stripe")]
    PlaceOccupied,
    /// The command contradicts itself: a mistake of the program that proposed it.
    #[error("invalid command: {0}")]
    Invalid(String),
}

/// One thing to sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GarbageId {
    /// A whole stripe of a deleted object or part.
    Stripe(StripeId),
    /// Shards left behind by a move, or of a condemned stripe.
    Shards(u64),
}

/// The encoded form of an outcome.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    encode(outcome)
}

/// Reads an encoded outcome.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, DecodeError> {
    decode(bytes)
}
