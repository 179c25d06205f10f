//! What gateways see of the object layer: one handle per tenant, typed operations, typed refusals.
//!
//! A handle is opened for one tenant and every call on it stays inside that tenant: there is no
//! parameter by which a call could name another one.

use std::{collections::BTreeMap, ops::Range, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures::Stream;
use holdfast_catalog::{BucketStateRule, VersionRef};
use holdfast_model::{TenantId, UnixMillis, UploadId, VersionId};
use serde::{Deserialize, Serialize};

use crate::{
    sealing::{KeyRefusal, Sealed},
    versioned::VersionedObjects,
};

/// A body on its way in or out. An error ends it; a put whose body errs stores nothing.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// Why a body ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BodyError {
    /// The client sent fewer or more bytes than it declared.
    #[error("body is {received} bytes, {declared} were declared")]
    Length {
        /// Bytes declared.
        declared: u64,
        /// Bytes received.
        received: u64,
    },
    /// A checksum or chunk signature that came with the body does not match it.
    #[error("body does not match its {0}")]
    Mismatch(&'static str),
    /// The connection broke or the client was too slow.
    #[error("body stopped: {0}")]
    Broken(String),
    /// Storage failed while the body was being sent.
    #[error("content could not be read: {0}")]
    Storage(String),
}

/// A refused or failed operation. Each variant is something a gateway answers differently.
#[derive(Debug, Clone, thiserror::Error)]
#[allow(missing_docs)]
pub enum ObjectError {
    #[error("bucket {0:?} does not exist")]
    NoSuchBucket(String),
    #[error("bucket {0:?} exists and is yours")]
    BucketAlreadyOwnedByYou(String),
    #[error("bucket {0:?} is not empty")]
    BucketNotEmpty(String),
    #[error("key {0:?} does not exist")]
    NoSuchKey(String),
    #[error("key {0:?} has no such version")]
    NoSuchVersion(String),
    /// A delete marker is there. `named`: it was asked for by its id (S3 answers 405, otherwise 404).
    #[error("key {key:?} has a delete marker there")]
    DeleteMarker { key: String, version: VersionRef, modified: UnixMillis, named: bool },
    /// A change of what is kept beside an object named a delete marker.
    #[error("the version of key {0:?} is a delete marker, which has nothing to change")]
    NothingToChange(String),
    /// A legal hold or a retention keeps the version.
    #[error("key {0:?} is locked")]
    Locked(String),
    /// Object lock without versioning, and the like.
    #[error("{0}")]
    BucketState(BucketStateRule),
    #[error("the bucket has no such document")]
    NoSuchDocument,
    /// `tenant`: the tenant's quota; otherwise the bucket's.
    #[error("the quota is used up")]
    QuotaExceeded { tenant: bool },
    #[error("upload {0:?} does not exist, was completed or aborted")]
    NoSuchUpload(String),
    #[error("part {0} was not uploaded, or its ETag differs")]
    InvalidPart(u32),
    #[error("parts are not in ascending order")]
    InvalidPartOrder,
    #[error("part {number} is {size} bytes; every part but the last has at least {min}")]
    PartTooSmall { number: u32, size: u64, min: u64 },
    #[error("object would be {0} bytes, more than allowed")]
    TooLarge(u64),
    #[error("the condition does not hold")]
    PreconditionFailed,
    #[error("the range starts past the end of the {size} byte object")]
    RangeNotSatisfiable { size: u64 },
    #[error("{0}")]
    InvalidArgument(String),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error(transparent)]
    Key(#[from] KeyRefusal),
    /// Too few drives are up to keep the promise or to read the content: nothing was stored. Try again later.
    #[error("cannot be done safely now: {0}")]
    Unavailable(String),
    /// The cluster is full.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// Bytes are missing or damaged beyond what the level survives.
    #[error("content is damaged: {0}")]
    Damaged(String),
    #[error("internal error: {0}")]
    Internal(String),
}

/// What a client may say about an object; kept and given back as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// `Content-Type` and the other standard headers that S3 keeps (`cache-control`,
    /// `content-disposition`, `content-encoding`, `content-language`, `expires`), lower-case names.
    pub headers: BTreeMap<String, String>,
    /// `x-amz-meta-*` without the prefix.
    pub user: BTreeMap<String, String>,
    /// Checksums kept with the object: algorithm (`CRC32`, `SHA256`, ...) to base64 value.
    pub checksums: BTreeMap<String, String>,
}

/// The name under which an object's storage class is kept among [`Attributes::headers`]; absent is `STANDARD`.
const STORAGE_CLASS: &str = "x-amz-storage-class";

/// What objects have that ask for no other class.
pub const STANDARD: &str = "STANDARD";

impl Attributes {
    /// The storage class.
    #[must_use]
    pub fn storage_class(&self) -> &str {
        self.headers.get(STORAGE_CLASS).map_or(STANDARD, String::as_str)
    }

    /// Gives another storage class.
    pub fn set_storage_class(&mut self, class: &str) {
        if class == STANDARD {
            self.headers.remove(STORAGE_CLASS);
        } else {
            self.headers.insert(STORAGE_CLASS.to_owned(), class.to_owned());
        }
    }
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BucketInfo {
    pub name: String,
    pub created: UnixMillis,
}

/// An object, without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ObjectInfo {
    pub key: String,
    pub version: VersionId,
    pub size: u64,
    /// Without quotes: 32 hex digits, or `hex-parts` for a multipart object.
    pub etag: String,
    pub modified: UnixMillis,
    pub attributes: Attributes,
}

/// Conditions on a write, decided in the catalog's state machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteCondition {
    /// `If-None-Match: *`: only when no object is there.
    pub if_absent: bool,
    /// `If-Match`: only when the object there has this ETag (without quotes).
    pub if_etag: Option<String>,
}

/// What a put needs beside its body.
#[derive(Debug, Clone, Default)]
pub struct PutOptions {
    /// Body length, when the client declared it.
    pub length: Option<u64>,
    /// `Content-MD5`, checked before anything is committed ([`BodyError::Mismatch`]).
    pub content_md5: Option<[u8; 16]>,
    /// Kept with the object.
    pub attributes: Attributes,
    /// Conditions.
    pub condition: WriteCondition,
}

/// Checksums known only once the body has been read (trailers): asked after the body ended well.
pub type LateChecksums = Arc<dyn Fn() -> BTreeMap<String, String> + Send + Sync>;

/// A part of a multipart upload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PartInfo {
    pub number: u32,
    pub size: u64,
    pub etag: String,
    pub modified: UnixMillis,
    pub checksums: BTreeMap<String, String>,
    /// How its upload is sealed.
    pub sealed: Sealed,
}

/// A multipart upload in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct UploadInfo {
    pub key: String,
    pub upload: UploadId,
    pub initiated: UnixMillis,
    pub attributes: Attributes,
    /// The list the object will have, opaque here.
    pub acl: Bytes,
}

/// One page of a listing, in byte order of the keys (S3 order).
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only keys that begin so.
    pub prefix: String,
    /// Keys that share what stands before the next delimiter are rolled up.
    pub delimiter: Option<String>,
    /// Only keys and common prefixes after this one, exclusive.
    pub after: Option<String>,
    /// Keys plus common prefixes at most.
    pub limit: usize,
}

/// The answer to a [`ListQuery`].
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// Objects in order.
    pub objects: Vec<ObjectInfo>,
    /// Rolled-up prefixes in order, delimiter included.
    pub common_prefixes: Vec<String>,
    /// Where the next page starts (`after`), when there is more.
    pub next: Option<String>,
}

/// What a tenant's operations have that does not depend on versions; the rest is in [`VersionedObjects`].
#[async_trait::async_trait]
#[allow(missing_docs)]
#[allow(
    clippy::too_many_arguments,
    reason = "each is a field of the request; a struct would only rename them"
)]
pub trait TenantObjects: Send + Sync + 'static {
    fn tenant(&self) -> TenantId;

    /// Refused with [`ObjectError::BucketNotEmpty`] while it holds objects or versions. Uploads in progress are
    /// aborted, as S3 does.
    async fn delete_bucket(&self, bucket: &str) -> Result<(), ObjectError>;
    async fn head_bucket(&self, bucket: &str) -> Result<BucketInfo, ObjectError>;
    /// In name order.
    async fn list_buckets(&self) -> Result<Vec<BucketInfo>, ObjectError>;
    /// Current objects.
    async fn list(&self, bucket: &str, query: ListQuery) -> Result<ListPage, ObjectError>;

    /// Streams `body` into stripes; returns when the part is durable and committed.
    /// `late` is asked for checksums after the body ended well.
    async fn put_part(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        number: u32,
        body: Body,
        options: PutOptions,
        late: Option<LateChecksums>,
    ) -> Result<PartInfo, ObjectError>;
    async fn abort_upload(&self, bucket: &str, key: &str, upload: UploadId) -> Result<(), ObjectError>;
    /// Parts with a number above `after`, in order, `limit` at most; and the upload itself.
    async fn list_parts(
        &self,
        bucket: &str,
        key: &str,
        upload: UploadId,
        after: u32,
        limit: usize,
    ) -> Result<(UploadInfo, Vec<PartInfo>), ObjectError>;
}

/// Which bytes a get returns, as a client writes it (RFC 9110, section 14.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeChoice {
    /// The whole object.
    All,
    /// `bytes=first-`
    From(u64),
    /// `bytes=first-last`, last inclusive.
    FromTo(u64, u64),
    /// `bytes=-count`
    Last(u64),
}

impl RangeChoice {
    /// The bytes of an object of `size`, end exclusive.
    ///
    /// # Errors
    /// [`ObjectError::RangeNotSatisfiable`] when it starts past the end.
    pub fn resolve(self, size: u64) -> Result<Range<u64>, ObjectError> {
        let range = match self {
            Self::All => return Ok(0..size),
            Self::From(first) => first..size,
            Self::FromTo(first, last) => first..last.saturating_add(1).min(size),
            Self::Last(count) => size.saturating_sub(count)..size,
        };
        if range.is_empty() { Err(ObjectError::RangeNotSatisfiable { size }) } else { Ok(range) }
    }
}

/// What a gateway is given: a handle for each tenant.
pub trait ObjectGateway: Send + Sync + 'static {
    /// The handle of one tenant.
    fn open(&self, tenant: TenantId) -> Arc<dyn VersionedObjects>;
    /// Region name that signatures must name.
    fn region(&self) -> String;
    /// Whether this node leads the group of the tenant's first partition: what is done once for a tenant is done there.
    fn leads(&self, tenant: TenantId) -> bool;
}
