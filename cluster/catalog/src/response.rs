//! Answers to commands. A refusal is an answer like any other: it is the same on every replica.

use bytes::Bytes;
use holdfast_model::{BucketId, Generation, PartitionId, StripeId, UnixMillis, VersionId};
use serde::{Deserialize, Serialize};

use crate::command::{
    DecodeError, VERSION_OF_EVENTS, VERSION_OF_SEALING, VERSION_OF_SPLITS, decode, encode_as,
};

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
        /// The version it became.
        version: VersionRef,
        /// When the object was last modified: the partition's clock when it was stored.
        modified: UnixMillis,
    },
    /// What is kept beside the object is changed.
    ObjectSet {
        /// The version that was changed.
        version: VersionRef,
    },
    /// The bucket's settings are changed.
    BucketSet,
    /// The partition's quota is set.
    QuotaSet,
    /// One answer per key.
    ObjectsDeleted(Vec<Result<Deleted, Refusal>>),
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
    /// The content is in other stripes.
    StripesReplaced,
    /// The partition is not there (any more).
    PartitionDropped,
    /// The upper half of the keys is in the other partition.
    PartitionSplit,
    /// Rows of the other half were removed.
    Cleared {
        /// Nothing is left to clear.
        done: bool,
    },
    /// Nothing comes into the bucket any more.
    BucketClosed,
    /// The bucket takes what comes again.
    BucketReopened,
    /// The partition's share is set.
    QuotaShared,
    /// What became of the events is noted.
    EventsSettled,
}

/// A version as clients are told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRef {
    /// Its id.
    pub id: VersionId,
    /// Clients call it `null`: it was written while versioning was off or suspended.
    pub null: bool,
}

/// What deleting one key came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deleted {
    /// There was nothing.
    Nothing,
    /// A version is gone for good.
    Removed {
        /// The version.
        version: VersionRef,
        /// It was a delete marker.
        marker: bool,
    },
    /// A delete marker was put in front of the versions that are there.
    Marked {
        /// The marker.
        marker: VersionRef,
    },
}

/// The object that an upload became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompletedUpload {
    /// Its version.
    pub version: VersionRef,
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
    /// No version of that id.
    #[error("no such version")]
    NoSuchVersion,
    /// What was named is a delete marker, which has nothing to change.
    #[error("the version is a delete marker")]
    DeleteMarker,
    /// A legal hold or a retention keeps the version.
    #[error("the version is locked")]
    Locked,
    /// A bucket's settings do not allow it: object lock without versioning, say.
    #[error("the bucket's settings do not allow it: {0}")]
    BucketState(BucketStateRule),
    /// It would exceed a quota.
    #[error("over the quota of the {}", if *tenant { "tenant" } else { "bucket" })]
    QuotaExceeded {
        /// The tenant's quota; otherwise the bucket's.
        tenant: bool,
    },
    /// The command was proposed so long ago that a repetition could not be told any more: see
    /// [`crate::REQUESTS_KEPT_MILLIS`]. Also what a node meets whose clock is that far behind.
    #[error("the command is too old; check this node's clock")]
    TooOld,
    /// The command contradicts itself: a mistake of the program that proposed it.
    #[error("invalid command: {0}")]
    Invalid(String),
    /// The content is gone, or in other stripes than the proposer read.
    #[error("the content is gone or in other stripes")]
    ContentChanged,
    /// Another partition of the tenant holds the key, or must be asked as well.
    #[error("another partition holds the key")]
    Moved,
    /// The partition still holds rows of keys that a split gave to another: its shards stay where they are.
    #[error("the partition is being cleared after a split")]
    Clearing,
    /// The bucket is being deleted.
    #[error("the bucket is being deleted")]
    BucketClosed {
        /// By whom.
        token: [u8; 16],
    },
}

/// A rule that ties a bucket's settings together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum BucketStateRule {
    /// Versioning of a bucket with object lock stays enabled.
    #[error("versioning stays enabled where objects can be locked")]
    LockNeedsVersioning,
    /// Object lock is off.
    #[error("object lock is not enabled")]
    NoObjectLock,
    /// Versioning cannot be switched off again, only suspended.
    #[error("versioning can be suspended, not switched off")]
    VersioningStays,
}

/// One thing to sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum GarbageId {
    /// A whole stripe of a deleted object or part.
    Stripe(StripeId),
    /// Shards left behind by a move, or of a condemned stripe.
    Shards(u64),
}

/// The encoded form of an outcome, in the oldest version that has its words.
#[must_use]
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    let since = match outcome {
        Ok(Response::EventsSettled) => VERSION_OF_EVENTS,
        Ok(
            Response::PartitionSplit
            | Response::Cleared { .. }
            | Response::BucketClosed
            | Response::BucketReopened
            | Response::QuotaShared,
        )
        | Err(Refusal::Moved | Refusal::Clearing | Refusal::BucketClosed { .. }) => VERSION_OF_SPLITS,
        Ok(Response::ObjectsDeleted(answers)) if answers.iter().any(is_of_splits) => VERSION_OF_SPLITS,
        _ => VERSION_OF_SEALING,
    };
    encode_as(since, outcome)
}

fn is_of_splits(answer: &Result<Deleted, Refusal>) -> bool {
    matches!(answer, Err(Refusal::Moved | Refusal::Clearing | Refusal::BucketClosed { .. }))
}

/// Reads an encoded outcome.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, DecodeError> {
    decode(bytes)
}
