//! What a tenant's operations stand on: the log that decides, the catalog that answers, and bodies.
//!
//! [`crate::ObjectService`] is the one of a node. Tests of gateways bring one that keeps bodies in memory
//! and applies commands to a real catalog, so that what they see of versions and locks is what clients see.

use std::{collections::BTreeSet, ops::Range, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use holdfast_catalog::{BodyRef, Op, Outcome, PartContent, PartitionReader, ReadError};
use holdfast_crypt::{Outer, OuterKey};
use holdfast_model::{BucketId, GroupId, Level, PartitionId, TenantId};

use crate::api::{Body, ObjectError, PutOptions};
pub use crate::draft::Draft;
#[cfg(doc)]
use crate::sealing::KeyRefusal;

pub(crate) const DAY_MILLIS: u64 = 24 * 3600 * 1000;

/// A tenant's slice of the catalog and the group that hosts it.
pub type Route = (PartitionId, GroupId);

/// A body whose every byte is durable.
#[derive(Debug)]
pub struct WrittenBody {
    /// Bytes of plaintext.
    pub size: u64,
    /// MD5 of the plaintext.
    pub md5: [u8; 16],
    /// The body's key, wrapped.
    pub wrapped_key: Bytes,
    /// Where it is.
    pub body: BodyRef,
    /// Cleans up after it, unless the catalog comes to refer to it.
    pub draft: Draft,
}

/// An object by name, for its body.
#[derive(Debug, Clone, Copy)]
pub struct BodyName<'a> {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its bucket.
    pub bucket: BucketId,
    /// Its key.
    pub key: &'a str,
    /// A further key that the body's key is wrapped under.
    pub outer: Option<Outer<'a>>,
    /// The bucket's own level, for what is written; the tenant's otherwise.
    pub level: Option<Level>,
    /// Who takes what is read.
    pub taker: Taker,
}

/// Who takes what is read of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taker {
    /// Somebody who waits for no memory of this node's: a client, a digest.
    Client,
    /// A write on this node. Such reads are admitted one after the other when there are many.
    Copy,
}

/// Asks the catalog anew where a range of the same version of an object is. Shards move, and contents are cut
/// anew, while a slow client still reads: what it began with is swept half a minute later.
pub type Lookup =
    Arc<dyn Fn(Range<u64>) -> BoxFuture<'static, Result<Vec<PartContent>, ObjectError>> + Send + Sync>;

/// See the module.
#[async_trait::async_trait]
pub trait Backing: Send + Sync + 'static {
    /// Where a tenant's buckets are: the first of its partitions.
    ///
    /// # Errors
    /// [`ObjectError::Unavailable`] when the tenant is not active.
    fn route(&self, tenant: TenantId) -> Result<Route, ObjectError>;

    /// Where a key is, as far as is known.
    ///
    /// # Errors
    /// As [`Backing::route`].
    async fn route_of(&self, tenant: TenantId, _key: &str) -> Result<Route, ObjectError> {
        self.route(tenant)
    }

    /// All partitions of a tenant.
    ///
    /// # Errors
    /// As [`Backing::route`].
    async fn routes(&self, tenant: TenantId) -> Result<Vec<Route>, ObjectError> {
        Ok(vec![self.route(tenant)?])
    }

    /// A partition said that what is known of them is out of date.
    ///
    /// # Errors
    /// As [`Backing::route`].
    async fn look_again(&self, _tenant: TenantId) -> Result<(), ObjectError> {
        Ok(())
    }

    /// Has a command decided and applied; once, however often it is proposed.
    ///
    /// # Errors
    /// [`ObjectError::Unavailable`] when it was not decided.
    async fn propose(&self, route: Route, op: Op) -> Result<Outcome, ObjectError>;

    /// A view of the catalog that holds all that was decided before now.
    ///
    /// # Errors
    /// [`ObjectError::Unavailable`].
    async fn reader(&self, route: Route) -> Result<PartitionReader, ObjectError>;

    /// A named key of a tenant.
    ///
    /// # Errors
    /// [`KeyRefusal::NoSuchKey`], [`ObjectError::Unavailable`].
    fn named_key(&self, tenant: TenantId, id: &str) -> Result<OuterKey, ObjectError>;

    /// Names of the targets that events of a tenant may be sent to; `None`: events cannot be told yet, because some
    /// node's program does not know of them.
    ///
    /// # Errors
    /// As [`Backing::route`].
    fn event_targets(&self, _tenant: TenantId) -> Result<Option<BTreeSet<String>>, ObjectError> {
        Ok(None)
    }

    /// Length of a day of lifecycle rules.
    fn day_millis(&self) -> u64 {
        DAY_MILLIS
    }

    /// Takes a body in; returns when it is durable.
    ///
    /// # Errors
    /// What the body ends with, a length or `Content-MD5` that does not fit, or storage's.
    async fn write_body(
        &self,
        name: BodyName<'_>,
        body: Body,
        options: &PutOptions,
    ) -> Result<WrittenBody, ObjectError>;

    /// Gives a range of an object back. `content` holds at least the parts and stripes of the range.
    ///
    /// # Errors
    /// [`ObjectError::Damaged`], [`ObjectError::Unavailable`].
    async fn open_body(
        &self,
        name: BodyName<'_>,
        content: Vec<PartContent>,
        range: Range<u64>,
        lookup: Option<Lookup>,
    ) -> Result<Body, ObjectError>;
}

/// Runs a read off the asynchronous threads. `what` names the bucket and key asked for, for errors.
pub(crate) async fn query<T: Send + 'static>(
    reader: PartitionReader,
    (bucket, key): (&str, &str),
    query: impl FnOnce(&PartitionReader) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ObjectError> {
    run(reader, query).await?.map_err(|error| missing(error, (bucket, key)))
}

/// Runs a read off the asynchronous threads; what it did not find is the inner error.
pub(crate) async fn run<T: Send + 'static>(
    reader: PartitionReader,
    query: impl FnOnce(&PartitionReader) -> Result<T, ReadError> + Send + 'static,
) -> Result<Result<T, ReadError>, ObjectError> {
    // A runtime of one thread has no other that could go on meanwhile.
    if tokio::runtime::Handle::current().runtime_flavor() == tokio::runtime::RuntimeFlavor::CurrentThread {
        return Ok(query(&reader));
    }
    tokio::task::spawn_blocking(move || query(&reader))
        .await
        .map_err(|e| ObjectError::Internal(format!("catalog read: {e}")))
}

/// What a read did not find, in the words of the gateways.
pub(crate) fn missing(error: ReadError, (bucket, key): (&str, &str)) -> ObjectError {
    match error {
        ReadError::NoSuchBucket => ObjectError::NoSuchBucket(bucket.to_owned()),
        ReadError::NoSuchKey => ObjectError::NoSuchKey(key.to_owned()),
        ReadError::NoSuchUpload => ObjectError::NoSuchUpload(key.to_owned()),
        ReadError::NoSuchVersion => ObjectError::NoSuchVersion(key.to_owned()),
        ReadError::DeleteMarker { version, modified, named } => {
            ObjectError::DeleteMarker { key: key.to_owned(), version, modified, named }
        }
        ReadError::NoSuchDocument => ObjectError::NoSuchDocument,
        // Its creation has not come through to this replica yet.
        ReadError::NoSuchPartition(_) | ReadError::Locked(_) | ReadError::Moved => {
            ObjectError::Unavailable(error.to_string())
        }
        ReadError::Storage { ref source, .. } => ObjectError::Internal(format!("{error}: {source}")),
    }
}
