//! The catalog: who owns what, and where each shard is. Deterministic commands applied to SQLite.
//!
//! A group's replica hosts many tenant partitions, each a SQLite file of its own. [`Command`]s arrive
//! through the log and are applied by [`CatalogMachine`]; [`CatalogReader`] reads what has been applied.
//! Nothing here knows a drive, a socket or a clock: ids and times are in the commands.
//!
//! Invariants:
//! - the same commands give the same rows on every replica ([`PartitionReader::digest`] tells);
//! - an entry is applied to a file once, however often it is replayed;
//! - a stripe that a command brought in is known until the sweeper has removed it;
//! - counters are exact: they change in the transaction of what they count;
//! - what is a tenant's reaches a disk only sealed under its metadata key: commands, pages, images.

#![forbid(unsafe_code)]

mod apply;
mod body;
mod command;
pub mod digest;
mod events;
mod hash_range;
mod key_file;
mod keys;
mod lifecycle;
mod machine;
mod partition;
mod placements;
mod protect;
mod reader;
mod response;
mod rows;
mod sealed;
mod settings;
mod slots;
mod split;
pub mod sqlite;
mod state_digest;
mod used;

pub use apply::{CLEARING_MILLIS_MIN, CONDEMNED_KEPT_MILLIS, REQUESTS_KEPT_MILLIS, SWEEP_MAX};
pub use body::{BodyRef, INLINE_OVERHEAD_MAX, StripeRef};
pub use command::{
    BucketChange, COMMAND_VERSION, Command, CompleteUpload, Condition, DecodeError, DeleteItem,
    LifecycleItem, LifecycleStep, MoveShards, ObjectChange, Op, Orphan, PutObject, PutPart, ReplaceStripes,
    RequestId, SetObject, ShardMove, VersionSelector,
};
pub use events::{
    EVENTS_MAX, EVENTS_OF_BUCKET_MAX, Event, EventKind, NOTIFICATION_NAME_SIZE_MAX, NOTIFICATION_RULES_MAX,
    NotificationRule, Notifications, NotificationsError, Origin, SETTLE_MAX, Settle, TargetForm, WrittenBy,
};
pub use hash_range::{HASHES, HashRange};
pub use keys::{Held, KeyVersion, MetadataKeys, MetadataSeal};
pub use lifecycle::{
    Candidate, Expiration, FilterForm, Lifecycle, LifecycleError, LifecycleFilter, LifecycleRule,
    NoncurrentExpiration, NoncurrentTransition, RULE_ID_SIZE_MAX, RULES_MAX, TRANSITION_SIZE_MIN, Transition,
    TransitionTime,
};
pub use machine::{CatalogMachine, IMAGE_KIND, PARTITIONS_MAX};
pub use partition::Identity;
pub use protect::{
    ACL_SIZE_MAX, DefaultRetention, ObjectExtras, RETENTION_DAYS_MAX, Retention, RetentionMode,
    RetentionPeriod, TAGS_SIZE_MAX,
};
pub use reader::{
    Bucket, CatalogReader, ContentBody, ContentCursor, Digest, Document, EventQueue, EventQueues,
    GarbageCursor, GarbageRow, KnownStripe, LIST_UPLOADS_MAX, Layout, ListPage, ListQuery, ListedObject,
    ListedVersion, Locked, ObjectHead, ObjectPartRow, ObjectPartsPage, ObjectRow, PartContent, PartRow,
    PartitionReader, QueuedEvent, ReadError, ShardOnDrive, StripedContent, UploadPage, UploadQuery,
    UploadRow, Usage, VersionMarker, VersionPage, VersionQuery,
};
pub use response::{
    BucketStateRule, CompletedUpload, Deleted, GarbageId, Outcome, Refusal, Response, VersionRef,
    decode_outcome, encode_outcome,
};
pub use sealed::SEALED_VERSION;
pub use settings::{DOCUMENT_ID_SIZE_MAX, DocumentKind, Quota, Versioning};
pub use state_digest::{DIGEST_ENTRIES_MIN, StateDigest};

/// Longest bucket name in bytes (S3: 63).
pub const BUCKET_NAME_SIZE_MAX: usize = 63;
