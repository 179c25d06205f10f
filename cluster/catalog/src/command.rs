//! Commands: what is replicated. Encoded as one version byte and the [postcard] form of [`Command`], then
//! sealed for their tenant (`sealed.rs`).
//!
//! Everything a command needs is in it: ids and the time are chosen by its proposer. Any change of the
//! encoding, a new variant included, is a new version, and is proposed only when every replica knows it:
//! a replica that meets an unknown version stops, because it cannot know what the others made of it. A command
//! is encoded in the oldest version that has its words, so that nodes of two releases share one log.
//!
//! A command may reach the log twice when its proposer retries after an unknown outcome. One that carries a
//! [`RequestId`] is done once and answered alike each time, within [`crate::REQUESTS_KEPT_MILLIS`]; later it is
//! refused. Background work carries none: each such command says what its repetition does.
//!
//! Version 1 existed before the catalog was sealed and is not read: no release wrote it.
//!
//! [postcard]: https://postcard.jamesmunns.com/wire-format

use bytes::Bytes;
use holdfast_model::{
    BucketId, DatabaseId, Generation, PartitionId, ShardIndex, StripeId, TenantId, UnixMillis, UploadId,
    VersionId, placement::Place,
};
use serde::{Deserialize, Serialize};

use crate::{
    body::{BodyRef, StripeRef},
    events::{Origin, Settle},
    protect::{DefaultRetention, ObjectExtras, Retention},
    response::GarbageId,
    sealed::Sealed,
    settings::{DocumentKind, Quota, Versioning},
};

/// Version of the encoding, the first byte of every encoded command. Version 3 added
/// [`Op::ReplaceStripes`] and its answers, [`Op::CreateBucketWith`] and [`Op::DropPartition`], behind what
/// version 2 had; version 4 what splits partitions: [`Op::SplitPartition`] and all up to [`Op::ShareQuota`]; version 5
/// events: [`Op::WithOrigin`], [`Op::SettleEvents`] and documents of [`DocumentKind::Notification`].
pub const COMMAND_VERSION: u8 = VERSION_OF_EVENTS;

/// The version of everything before [`VERSION_OF_SPLITS`].
pub(crate) const VERSION_OF_SEALING: u8 = 3;

/// The version that can split partitions.
pub(crate) const VERSION_OF_SPLITS: u8 = 4;

/// The version that can queue events.
pub(crate) const VERSION_OF_EVENTS: u8 = 5;

/// The oldest version whose bytes are still read.
const COMMAND_VERSION_MIN: u8 = 2;

/// Names one request of a client, so that a repeated proposal of it is known. Random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId([u8; 16]);

impl RequestId {
    /// Takes 16 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The binary form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// One command for one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The tenant partition it is for.
    pub partition: PartitionId,
    /// The proposer's clock. The partition's clock is the greatest of these that it has seen, and never
    /// goes back; it gives the times that clients see and decides when a retention ends.
    pub at: UnixMillis,
    /// Present when the command must be done once however often it is proposed.
    pub request: Option<RequestId>,
    /// What to do.
    pub op: Op,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Starts the partition on this group. Repeated: the same answer.
    CreatePartition {
        /// Whose partition.
        tenant: TenantId,
        /// Random; tells this database from any other that ever had the same partition number.
        database_id: DatabaseId,
    },
    /// Sets what the whole partition may hold.
    SetQuota {
        /// What its buckets may hold together.
        quota: Quota,
    },
    /// Repeated with the same id: the same answer.
    CreateBucket {
        /// Fresh id of the bucket.
        bucket: BucketId,
        /// Its name, already checked against the rules of S3.
        name: String,
        /// Objects in it may be locked. Versioning is enabled then, for good.
        object_lock: bool,
    },
    /// Changes a bucket's settings.
    SetBucket {
        /// The bucket.
        bucket: BucketId,
        /// What changes.
        change: BucketChange,
    },
    /// Refused while it holds objects or uploads.
    DeleteBucket {
        /// Its name.
        name: String,
    },
    /// See [`PutObject`].
    PutObject(PutObject),
    /// Changes what is kept beside an object's content.
    SetObject(SetObject),
    /// Deletes keys or single versions, with one answer each. What is not there is deleted already.
    DeleteObjects {
        /// The bucket.
        bucket: BucketId,
        /// In the order in which the answers come.
        items: Vec<DeleteItem>,
    },
    /// Starts a multipart upload. Repeated: the same answer.
    CreateUpload {
        /// The bucket.
        bucket: BucketId,
        /// Key of the object to be.
        key: String,
        /// Fresh id of the upload.
        upload: UploadId,
        /// Kept for the object, unless completing gives others.
        attributes: Bytes,
        /// Kept for the object.
        extras: ObjectExtras,
    },
    /// See [`PutPart`].
    PutPart(PutPart),
    /// See [`CompleteUpload`].
    CompleteUpload(CompleteUpload),
    /// Drops the upload and its parts.
    AbortUpload {
        /// The bucket.
        bucket: BucketId,
        /// The key it was created for.
        key: String,
        /// The upload.
        upload: UploadId,
    },
    /// The sweeper's word that these shards are deleted from their drives. Repeated: `false` for each.
    RemoveGarbage {
        /// Ids from [`crate::PartitionReader::garbage`].
        ids: Vec<GarbageId>,
    },
    /// See [`MoveShards`].
    MoveShards(MoveShards),
    /// Stripes found on drives that the catalog does not know: from here on they can never become part
    /// of an object, and the shards found become garbage. One answer each. Repeated, or by another node
    /// for its own shards of the same stripe: the same answers.
    Condemn {
        /// The stripes and what was found of them.
        stripes: Vec<Orphan>,
    },
    /// What lifecycle rules ask for, each step only if the version still is what the rules were judged on.
    /// Answered like [`Op::DeleteObjects`]; repeated: [`crate::Deleted::Nothing`].
    Lifecycle {
        /// The bucket.
        bucket: BucketId,
        /// In the order in which the answers come.
        items: Vec<LifecycleItem>,
    },
    /// See [`ReplaceStripes`].
    ReplaceStripes(ReplaceStripes),
    /// As [`Op::CreateBucket`], with documents that the bucket has from its first moment: who owns it, what
    /// is public. Repeated with the same id: the same answer.
    CreateBucketWith {
        /// Fresh id of the bucket.
        bucket: BucketId,
        /// Its name, already checked against the rules of S3.
        name: String,
        /// Objects in it may be locked. Versioning is enabled then, for good.
        object_lock: bool,
        /// Documents with an empty id.
        documents: Vec<(DocumentKind, Bytes)>,
    },
    /// Ends the partition: its tenant is destroyed. In the clear, because its key may be gone by then. Repeated:
    /// the same answer.
    DropPartition {
        /// Whose partition.
        tenant: TenantId,
        /// Which database.
        database_id: DatabaseId,
    },
    /// Gives the upper half of the partition's keys to a new partition of the same tenant in the same group.
    /// Repeated with the same ids: the same answer.
    SplitPartition {
        /// The new partition.
        into: PartitionId,
        /// Its database, random.
        database_id: DatabaseId,
    },
    /// Removes some of the rows that a split left behind: keys of the other half. To be repeated until the
    /// answer says that nothing is left.
    ClearPartition,
    /// Closes an empty bucket to everything new, in every partition of the tenant. A later close replaces the
    /// token of an earlier one. Refused when any partition holds something of the bucket.
    CloseBucket {
        /// The bucket.
        bucket: BucketId,
        /// Random, of whoever closes.
        token: [u8; 16],
    },
    /// Opens it again, in every partition, if it was closed with this token.
    ReopenBucket {
        /// The bucket.
        bucket: BucketId,
        /// The token.
        token: [u8; 16],
    },
    /// Deletes a bucket in every partition, if it is closed with this token.
    DeleteClosedBucket {
        /// The bucket.
        bucket: BucketId,
        /// The token.
        token: [u8; 16],
    },
    /// In every partition of the tenant: stripes that are unknown there can never become part of an object from
    /// here on. Answered like [`Op::Condemn`], which may follow for those that are unknown everywhere.
    Bar {
        /// The stripes.
        stripes: Vec<StripeId>,
    },
    /// Sets what each partition of the tenant may hold: their shares of one quota. Refused when they were shared
    /// anew since the proposer looked.
    ShareQuota {
        /// The sharing that the proposer has seen in force: [`crate::Layout::quota_shares`].
        before: u64,
        /// By partition; others keep theirs.
        shares: Vec<(PartitionId, Quota)>,
    },
    /// A change of objects with the request it comes from, which its events tell of. The change is done as without.
    WithOrigin {
        /// The request.
        origin: Origin,
        /// The change: see [`Op::may_have_origin`].
        op: Box<Op>,
    },
    /// The worker's word on what became of events. Repeated: events that are not there any more are passed over, and
    /// those to be tried again count one attempt more.
    SettleEvents {
        /// Numbers from [`crate::QueuedEvent`], [`crate::SETTLE_MAX`] at most.
        items: Vec<(u64, Settle)>,
    },
}

impl Op {
    /// The version of the encoding that brought it.
    const fn since(&self) -> u8 {
        match self {
            Self::SplitPartition { .. }
            | Self::ClearPartition
            | Self::CloseBucket { .. }
            | Self::ReopenBucket { .. }
            | Self::DeleteClosedBucket { .. }
            | Self::Bar { .. }
            | Self::ShareQuota { .. } => VERSION_OF_SPLITS,
            Self::WithOrigin { .. } | Self::SettleEvents { .. } => VERSION_OF_EVENTS,
            // A release that does not queue events must not take what asks for them.
            Self::SetBucket {
                change: BucketChange::Document { kind: DocumentKind::Notification, .. },
                ..
            } => VERSION_OF_EVENTS,
            _ => VERSION_OF_SEALING,
        }
    }

    /// Whether it may come in [`Op::WithOrigin`]: it makes events.
    #[must_use]
    pub const fn may_have_origin(&self) -> bool {
        matches!(
            self,
            Self::PutObject(_) | Self::SetObject(_) | Self::DeleteObjects { .. } | Self::CompleteUpload(_)
        )
    }

    /// Whether every partition of the tenant in the group applies it, each to itself. It is addressed to the first
    /// of them. Each decides by its own rows alone: on replay some of them are ahead of others.
    pub(crate) const fn is_for_all_partitions(&self) -> bool {
        matches!(
            self,
            Self::CreateBucket { .. }
                | Self::CreateBucketWith { .. }
                | Self::SetBucket { .. }
                | Self::CloseBucket { .. }
                | Self::ReopenBucket { .. }
                | Self::DeleteClosedBucket { .. }
                | Self::Bar { .. }
                | Self::ShareQuota { .. }
        )
    }
}

/// One step of a lifecycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleItem {
    /// The key.
    pub key: String,
    /// The version by its own id, a null version included.
    pub version: VersionId,
    /// What to do.
    pub step: LifecycleStep,
}

/// See [`Op::Lifecycle`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LifecycleStep {
    /// Deletes the current version as a client does that names none.
    ExpireCurrent {
        /// Random part of the id of a delete marker, should one be made.
        marker: [u8; 10],
    },
    /// Removes a noncurrent version for good. Locks hold.
    ExpireNoncurrent,
    /// Removes a delete marker that is its key's only version.
    ExpireMarker,
    /// Replaces the attributes: its storage class is another.
    Attributes(Bytes),
}

/// A change of one of a bucket's settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BucketChange {
    /// Versioning on or suspended. It never goes back to off, and a bucket with object lock stays enabled.
    Versioning(Versioning),
    /// Lets objects be locked from now on. Needs versioning to be enabled.
    EnableObjectLock,
    /// What new objects are retained by when they do not say.
    DefaultRetention(Option<DefaultRetention>),
    /// What the bucket may hold.
    Quota(Quota),
    /// Stores or removes a named document.
    Document {
        /// Which.
        kind: DocumentKind,
        /// Tells several of a kind apart; mostly empty.
        id: String,
        /// `None` removes it.
        body: Option<Bytes>,
    },
}

/// Which version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionSelector {
    /// The one without a version id of its own, written while versioning was off or suspended.
    Null,
    /// The one of this id.
    Id(VersionId),
}

/// Changes what is kept beside the content of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetObject {
    /// The bucket.
    pub bucket: BucketId,
    /// The key.
    pub key: String,
    /// Which version; the current one when `None`.
    pub version: Option<VersionSelector>,
    /// What changes.
    pub change: ObjectChange,
}

/// A change of what is kept beside an object's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObjectChange {
    /// Replaces the tags. Opaque here; empty is none.
    Tags(Bytes),
    /// Replaces the access control list. Opaque here; empty is none.
    Acl(Bytes),
    /// Sets or lifts the legal hold. Needs object lock on the bucket.
    LegalHold(bool),
    /// Sets, extends or lifts the retention. Needs object lock on the bucket.
    Retention {
        /// The new one.
        retention: Option<Retention>,
        /// The caller may shorten or lift a governance retention. Compliance yields to nobody.
        bypass_governance: bool,
    },
}

/// Stores an object under a key. Where versioning is enabled the one there stays as a noncurrent version;
/// where it is not, the null version is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutObject {
    /// The bucket, by id: a bucket deleted and created again meanwhile does not get the object.
    pub bucket: BucketId,
    /// The key.
    pub key: String,
    /// Fresh id of this version. Should it not sort after the key's newest one (a clock that is behind), the
    /// version gets that one's time plus a millisecond: ids sort in the order of the log.
    pub version: VersionId,
    /// Bytes of plaintext.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// Opaque here.
    pub attributes: Bytes,
    /// Tags, access control list, retention, legal hold.
    pub extras: ObjectExtras,
    /// The object's key, wrapped. Opaque here.
    pub wrapped_key: Bytes,
    /// The content.
    pub body: BodyRef,
    /// Decided when applied.
    pub condition: Condition,
}

/// What must hold of the object at the key for a write to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Only when no object is there.
    pub if_absent: bool,
    /// Only when the object there has this ETag; `*` is any.
    pub if_etag: Option<String>,
}

/// One key to delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteItem {
    /// The key.
    pub key: String,
    /// This version, for good. `None`: the current one, which versioning keeps behind a delete marker.
    pub version: Option<VersionSelector>,
    /// Only when the object there has this ETag; `*` is any.
    pub if_etag: Option<String>,
    /// Random part of the id of a delete marker, should one be made.
    pub marker: [u8; 10],
    /// The caller may delete what a governance retention keeps.
    pub bypass_governance: bool,
}

/// Stores one part of an upload, replacing the part of that number.
///
/// Repeated with stripes: [`crate::Refusal::StripeInUse`] unless it is that part still. Inline: done again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutPart {
    /// The bucket.
    pub bucket: BucketId,
    /// The key the upload was created for.
    pub key: String,
    /// The upload.
    pub upload: UploadId,
    /// 1 to 10,000.
    pub number: u32,
    /// Bytes of plaintext.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    /// Opaque here.
    pub checksums: Bytes,
    /// The part's key, wrapped. Opaque here.
    pub wrapped_key: Bytes,
    /// The content.
    pub body: BodyRef,
}

/// Makes an object of parts of an upload; the parts not named are dropped. Repeated while that object is
/// current: the same answer, with the version that the first completion gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteUpload {
    /// The bucket.
    pub bucket: BucketId,
    /// The key the upload was created for.
    pub key: String,
    /// The upload.
    pub upload: UploadId,
    /// Number and ETag of each part, ascending.
    pub parts: Vec<(u32, String)>,
    /// Fresh id of the object's version.
    pub version: VersionId,
    /// ETag of the object.
    pub etag: String,
    /// In place of the attributes the upload was created with.
    pub attributes: Option<Bytes>,
    /// Decided when applied.
    pub condition: Condition,
}

/// Switches places of shards, once their new copies have been written and read back. What is left at the
/// old places becomes garbage. Repeated: the same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveShards {
    /// The stripe.
    pub stripe: StripeId,
    /// The generation the mover started from; the stripe has the next one afterwards.
    pub expected: Generation,
    /// The shards that move.
    pub moves: Vec<ShardMove>,
}

/// One shard's move. With `from` and `to` on one drive: the shard was written anew in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMove {
    /// Which shard.
    pub index: ShardIndex,
    /// Where it was.
    pub from: Place,
    /// Where it is.
    pub to: Place,
}

/// Puts other stripes in the place of those that hold a content: the same bytes, cut anew and sealed under
/// another key. Who refers to the content goes on doing so; the old stripes become garbage. Repeated: the
/// same answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceStripes {
    /// Number of the content: [`crate::StripedContent::content`].
    pub content: u64,
    /// Its first stripe as the proposer read it. A content is replaced as a whole, so this names all of them.
    pub expected: StripeId,
    /// The new key, wrapped. Opaque here.
    pub wrapped_key: Bytes,
    /// The new stripes in the order of the content.
    pub stripes: Vec<StripeRef>,
}

/// A stripe that drives hold and the catalog does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphan {
    /// The stripe.
    pub stripe: StripeId,
    /// Highest generation found.
    pub generation: Generation,
    /// The shards found.
    pub shards: Vec<(ShardIndex, Place)>,
}

/// The bytes are not a command of this release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by a newer release.
    #[error(
        "catalog command or answer of version {0}, this release knows version {COMMAND_VERSION}; update this node"
    )]
    UnknownVersion(u8),
    /// Not a well-formed command or answer.
    #[error("malformed catalog command or answer: {0}")]
    Malformed(String),
}

impl Command {
    /// The encoded form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode_as(self.op.since(), self)
    }

    /// The partition a command is for, as proposed: sealed, or in the clear. `None` when it is malformed or of
    /// a version this release does not know.
    #[must_use]
    pub fn partition_of(encoded: &[u8]) -> Option<PartitionId> {
        if let Some(sealed) = Sealed::parse(encoded) {
            return sealed.ok().map(|sealed| sealed.partition);
        }
        let (version, rest) = encoded.split_first()?;
        if !(COMMAND_VERSION_MIN..=COMMAND_VERSION).contains(version) {
            return None;
        }
        postcard::take_from_bytes(rest).ok().map(|(partition, _)| partition)
    }

    /// Reads the encoded form.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode(bytes)
    }
}

/// What is kept in rows.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    encode_as(VERSION_OF_SEALING, value)
}

pub(crate) fn encode_as<T: Serialize>(version: u8, value: &T) -> Bytes {
    postcard::to_extend(value, vec![version])
        .expect("writing to a vector fails only on types that postcard cannot express, and these it can")
        .into()
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    match bytes.split_first() {
        Some(((COMMAND_VERSION_MIN..=COMMAND_VERSION), rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(DecodeError::Malformed(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(DecodeError::Malformed(error.to_string())),
        },
        Some((version, _)) => Err(DecodeError::UnknownVersion(*version)),
        None => Err(DecodeError::Malformed("no bytes".into())),
    }
}
