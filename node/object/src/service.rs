//! The object service: what a node's gateways are given.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_catalog::{
    CatalogReader, Command, Op, Outcome, PartitionReader, ReadError, Refusal, RequestId, decode_outcome,
};
use holdfast_consensus::{Consensus, ProposeError};
use holdfast_crypt::random_array;
use holdfast_model::{GroupId, PartitionId, TenantId};
use tokio::sync::Notify;

use crate::{
    api::{Credential, ObjectError, ObjectGateway, TenantObjects},
    directory::{Directory, TenantEntry},
    stripes::{StripeIo, now},
    tenant::TenantHandle,
    versioned::VersionedObjects,
    workers::Board,
};

/// How long a catalog read waits for this replica to catch up.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a command whose outcome is unknown is proposed again. It carries a request id, so that it is
/// done once however often that is.
const UNKNOWN_RETRIES: usize = 1;

/// Objects of all tenants, as this node serves them.
#[derive(Debug)]
pub struct ObjectService {
    pub(crate) directory: Arc<Directory>,
    pub(crate) consensus: Arc<Consensus>,
    pub(crate) catalogs: HashMap<GroupId, CatalogReader>,
    pub(crate) stripes: StripeIo,
    pub(crate) workers: Board,
    pub(crate) scrub_asked: Notify,
}

impl ObjectService {
    /// Joins the parts.
    #[must_use]
    pub fn new(
        directory: Arc<Directory>,
        consensus: Arc<Consensus>,
        catalogs: HashMap<GroupId, CatalogReader>,
        stripes: StripeIo,
    ) -> Self {
        Self {
            directory,
            consensus,
            catalogs,
            stripes,
            workers: Board::default(),
            scrub_asked: Notify::new(),
        }
    }

    /// What the background workers of this node do and know.
    #[must_use]
    pub fn workers(&self) -> &Board {
        &self.workers
    }

    /// Has this node scrub its drives now instead of when it is due.
    pub fn scrub_now(&self) {
        self.scrub_asked.notify_one();
    }

    /// Has a command decided and applied by the group that hosts the partition. Done once, also when its
    /// outcome was unknown at first and it is proposed again.
    pub(crate) async fn propose(
        &self,
        (partition, group): (PartitionId, GroupId),
        op: Op,
    ) -> Result<Outcome, ObjectError> {
        let request = Some(RequestId::from_bytes(random_array()));
        let command = Command { partition, at: now(), request, op }.encode();
        let mut retries = UNKNOWN_RETRIES;
        let answer = loop {
            match self.consensus.propose(group, command.clone()).await {
                Err(ProposeError::Unknown { .. }) if retries > 0 => retries -= 1,
                other => break other.map_err(|error| propose_error(&error))?,
            }
        };
        decode_outcome(&answer).map_err(|e| ObjectError::Internal(e.to_string()))
    }

    /// Runs a read on this node's replica, once it has applied all that was committed before now.
    /// `what` names the bucket and key asked for, for errors.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        (partition, group): (PartitionId, GroupId),
        what: (&str, &str),
        query: impl FnOnce(&PartitionReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let barrier = tokio::time::timeout(READ_TIMEOUT, self.consensus.read_barrier(group));
        match barrier.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                return Err(ObjectError::Unavailable(format!("catalog group {group}: {error}")));
            }
            Err(_) => {
                return Err(ObjectError::Unavailable(format!(
                    "catalog group {group} has no leader or lags behind"
                )));
            }
        }
        let reader = self
            .catalogs
            .get(&group)
            .ok_or_else(|| ObjectError::Internal(format!("group {group} is not hosted here")))?
            .partition(partition)
            .map_err(|error| missing(error, what))?;
        tokio::task::spawn_blocking(move || query(&reader))
            .await
            .map_err(|e| ObjectError::Internal(format!("catalog read: {e}")))?
            .map_err(|error| missing(error, what))
    }

    pub(crate) fn tenant(&self, tenant: TenantId) -> Result<Arc<TenantEntry>, ObjectError> {
        self.directory.tenant(tenant)
    }
}

/// What a read did not find, in the words of the gateways.
fn missing(error: ReadError, (bucket, key): (&str, &str)) -> ObjectError {
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
        ReadError::NoSuchPartition(_) => ObjectError::Unavailable(error.to_string()),
        ReadError::Storage { ref source, .. } => ObjectError::Internal(format!("{error}: {source}")),
    }
}

fn propose_error(error: &ProposeError) -> ObjectError {
    ObjectError::Unavailable(format!("the catalog did not decide: {error}"))
}

/// A refusal of the state machine in the words of the gateways. `bucket` and `key` name what was asked for.
pub(crate) fn refused(refusal: Refusal, bucket: &str, key: &str) -> ObjectError {
    match refusal {
        Refusal::NoSuchBucket => ObjectError::NoSuchBucket(bucket.to_owned()),
        Refusal::BucketAlreadyExists { .. } => ObjectError::BucketAlreadyOwnedByYou(bucket.to_owned()),
        Refusal::BucketNotEmpty => ObjectError::BucketNotEmpty(bucket.to_owned()),
        Refusal::NoSuchKey => ObjectError::NoSuchKey(key.to_owned()),
        Refusal::PreconditionFailed => ObjectError::PreconditionFailed,
        Refusal::NoSuchUpload => ObjectError::NoSuchUpload(key.to_owned()),
        Refusal::InvalidPart(number) => ObjectError::InvalidPart(number),
        Refusal::InvalidPartOrder => ObjectError::InvalidPartOrder,
        Refusal::PartTooSmall { number, size, min } => ObjectError::PartTooSmall { number, size, min },
        Refusal::TooLarge { size } => ObjectError::TooLarge(size),
        Refusal::NoSuchVersion => ObjectError::NoSuchVersion(key.to_owned()),
        Refusal::DeleteMarker => ObjectError::InvalidArgument("a delete marker has nothing to change".into()),
        Refusal::Locked => ObjectError::Locked(key.to_owned()),
        Refusal::BucketState(rule) => ObjectError::BucketState(rule),
        Refusal::QuotaExceeded { tenant } => ObjectError::QuotaExceeded { tenant },
        Refusal::TooOld => ObjectError::Unavailable(refusal.to_string()),
        other => ObjectError::Internal(other.to_string()),
    }
}

#[async_trait::async_trait]
impl ObjectGateway for Arc<ObjectService> {
    async fn credential(&self, access_key: &str) -> Result<Option<Credential>, ObjectError> {
        Ok(self.directory.snapshot().access_keys.get(access_key).cloned())
    }

    fn open(&self, tenant: TenantId) -> Arc<dyn TenantObjects> {
        Arc::new(TenantHandle::new(Arc::clone(self), tenant))
    }

    fn region(&self) -> String {
        self.directory.region().to_owned()
    }
}

/// Everything of one tenant beyond what [`TenantObjects`] has.
#[must_use]
pub fn open_versioned(service: &Arc<ObjectService>, tenant: TenantId) -> Arc<dyn VersionedObjects> {
    Arc::new(TenantHandle::new(Arc::clone(service), tenant))
}

/// Opaque bytes of the catalog: postcard.
pub(crate) fn to_opaque<T: serde::Serialize>(value: &T) -> Result<Bytes, ObjectError> {
    postcard::to_stdvec(value).map(Bytes::from).map_err(|e| ObjectError::Internal(format!("attributes: {e}")))
}

/// What [`to_opaque`] made.
pub(crate) fn from_opaque<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ObjectError> {
    postcard::from_bytes(bytes).map_err(|e| ObjectError::Damaged(format!("attributes in the catalog: {e}")))
}
