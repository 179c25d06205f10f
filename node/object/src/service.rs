//! The object service: what a node's gateways are given.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use holdfast_catalog::{
    BucketChange, CatalogReader, Command, DocumentKind, Locked, MetadataSeal, Op, Outcome, PartContent,
    PartitionReader, Quota, ReadError, Refusal, RequestId, decode_outcome,
};
use holdfast_consensus::ProposeError;
use holdfast_crypt::{BodyContext, BodyUse, OuterKey};
use holdfast_model::{GroupId, Level, TenantId, VersionId};
use tokio::sync::Notify;

use crate::{
    api::{Body, ObjectError, ObjectGateway, PutOptions},
    audit::Audits,
    backing::{self, Backing, BodyName, Lookup, Route, WrittenBody},
    body_reader::{ContentOwner, open_body},
    body_writer::{BodyTarget, BodyWriter},
    decides::Decides,
    directory::{Directory, TenantEntry},
    draft::Draft,
    events::EventSender,
    family::Layouts,
    host::{chance, now},
    quota_shares::sum_of_quotas,
    sealing::KeyRefusal,
    stamps::Stamps,
    stripes::StripeIo,
    tenant::TenantHandle,
    versioned::VersionedObjects,
    workers::{Board, read_level},
};

/// How long a catalog read waits for this replica to catch up.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// A day of lifecycle rules.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How often a command whose outcome is unknown is proposed again. It carries a request id, so that it is
/// done once however often that is.
const UNKNOWN_RETRIES: usize = 1;

/// Objects of all tenants, as this node serves them.
#[derive(Debug)]
pub struct ObjectService {
    pub(crate) directory: Arc<Directory>,
    pub(crate) consensus: Arc<dyn Decides>,
    pub(crate) catalogs: HashMap<GroupId, CatalogReader>,
    pub(crate) stripes: StripeIo,
    pub(crate) stamps: Arc<Stamps>,
    pub(crate) workers: Board,
    pub(crate) scrub_asked: Notify,
    pub(crate) event_sender: Option<Arc<dyn EventSender>>,
    day: Duration,
    pub(crate) audits: Audits,
    layouts: Layouts,
}

impl ObjectService {
    /// Joins the parts.
    #[must_use]
    pub fn new(
        directory: Arc<Directory>,
        consensus: Arc<dyn Decides>,
        catalogs: HashMap<GroupId, CatalogReader>,
        stripes: StripeIo,
    ) -> Self {
        Self {
            workers: Board::new(Arc::clone(&directory)),
            directory,
            consensus,
            catalogs,
            stripes,
            stamps: Arc::default(),
            scrub_asked: Notify::new(),
            event_sender: None,
            day: DAY,
            audits: Audits::default(),
            layouts: Layouts::default(),
        }
    }

    /// With days of another length, for tests of what takes days. A day has a millisecond at least.
    #[must_use]
    pub fn with_day(mut self, day: Duration) -> Self {
        self.day = day.max(Duration::from_millis(1));
        self
    }

    /// With something that sends events; without, they wait.
    #[must_use]
    pub fn with_event_sender(mut self, sender: Arc<dyn EventSender>) -> Self {
        self.event_sender = Some(sender);
        self
    }

    pub(crate) fn day(&self) -> Duration {
        self.day
    }

    pub(crate) fn day_millis(&self) -> u64 {
        u64::try_from(self.day.as_millis()).unwrap_or(u64::MAX)
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
    pub(crate) async fn propose(&self, (partition, group): Route, op: Op) -> Result<Outcome, ObjectError> {
        let owner = self.catalogs.get(&group).and_then(|catalog| catalog.identity(partition));
        let owner = owner.ok_or_else(|| {
            // Its creation has not come through to this replica yet.
            ObjectError::Unavailable(ReadError::NoSuchPartition(partition).to_string())
        })?;
        let seal = self.directory.seal(owner.tenant)?;
        let (consensus, at) = (self.consensus.as_ref(), self.stamps.next(partition));
        let mut command = Command { partition, at, request: fresh_request(), op };
        let (outcome, repeated) = propose(consensus, &seal, group, &command).await?;
        if repeated || !matches!(outcome, Err(Refusal::TooOld)) {
            return Ok(outcome);
        }
        // It was not done, and is no repetition: the partition's clock is ahead of this node's.
        let clock = self.read((partition, group), ("", ""), PartitionReader::clock).await?;
        self.stamps.learn(partition, clock);
        command.at = self.stamps.next(partition);
        Ok(propose(consensus, &seal, group, &command).await?.0)
    }

    /// Runs a read on this node's replica, once it has applied all that was committed before now.
    /// `what` names the bucket and key asked for, for errors.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        (partition, group): Route,
        what: (&str, &str),
        query: impl FnOnce(&PartitionReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        let reader = self.reader((partition, group)).await?;
        backing::query(reader, what, query).await
    }

    /// As [`Self::read`], of what this node's replica has applied, which others may be ahead of.
    pub(crate) async fn read_applied<T: Send + 'static>(
        &self,
        route: Route,
        query: impl FnOnce(&PartitionReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ObjectError> {
        backing::query(self.applied(route)?, ("", ""), query).await
    }

    /// This node's replica, once it has applied all that was committed before now.
    async fn reader(&self, route: Route) -> Result<PartitionReader, ObjectError> {
        if !holdfast_planted::is("ReadsWithoutBarrier") {
            self.barrier(route.1).await?;
        }
        self.applied(route)
    }

    fn applied(&self, (partition, group): Route) -> Result<PartitionReader, ObjectError> {
        self.catalogs
            .get(&group)
            .ok_or_else(|| ObjectError::Internal(format!("group {group} is not hosted here")))?
            .partition(partition)
            .map_err(|error| backing::missing(error, ("", "")))
    }

    /// Waits until this node's replica has applied all that was committed before now.
    pub(crate) async fn barrier(&self, group: GroupId) -> Result<(), ObjectError> {
        let barrier = tokio::time::timeout(READ_TIMEOUT, self.consensus.read_barrier(group));
        match barrier.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(ObjectError::Unavailable(format!("catalog group {group}: {error}"))),
            Err(_) => {
                Err(ObjectError::Unavailable(format!("catalog group {group} has no leader or lags behind")))
            }
        }
    }

    /// Versions of a tenant that legal holds and retentions in compliance mode keep now.
    ///
    /// # Errors
    /// When its catalog does not answer.
    pub async fn locked(&self, tenant: TenantId) -> Result<Locked, ObjectError> {
        let mut sum = Locked::default();
        for route in self.routes(tenant).await? {
            let locked = self.read(route, ("", ""), |catalog| catalog.locked(now())).await?;
            sum.holds += locked.holds;
            sum.compliance += locked.compliance;
        }
        Ok(sum)
    }

    /// What a tenant may hold.
    ///
    /// # Errors
    /// When its catalog does not answer.
    pub async fn quota(&self, tenant: TenantId) -> Result<Quota, ObjectError> {
        let mut layouts = Vec::new();
        for route in self.routes(tenant).await? {
            layouts.push(self.read(route, ("", ""), |catalog| catalog.layout()).await?);
        }
        Ok(sum_of_quotas(layouts.iter()))
    }

    /// Whether the partition is there, on this node's replica, and holds only its own keys.
    pub(crate) fn is_settled(&self, (partition, group): Route) -> bool {
        let reader = self.catalogs.get(&group).and_then(|catalog| catalog.partition(partition).ok());
        reader.and_then(|reader| reader.layout().ok()).is_some_and(|layout| !layout.clearing)
    }

    pub(crate) fn tenant(&self, tenant: TenantId) -> Result<Arc<TenantEntry>, ObjectError> {
        self.directory.tenant(tenant)
    }
}

/// For a command that is to be done once.
pub(crate) fn fresh_request() -> Option<RequestId> {
    Some(RequestId::from_bytes(chance()))
}

/// See [`ObjectService::propose`]. Also whether it was proposed more than once.
pub(crate) async fn propose(
    consensus: &dyn Decides,
    seal: &MetadataSeal,
    group: GroupId,
    command: &Command,
) -> Result<(Outcome, bool), ObjectError> {
    // Sealed once: a repetition is the same bytes.
    let command = command.seal(seal);
    let mut retries = UNKNOWN_RETRIES;
    let answer = loop {
        if holdfast_planted::is("UnknownIsDone") && retries < UNKNOWN_RETRIES {
            break holdfast_catalog::encode_outcome(&Ok(holdfast_catalog::Response::ObjectsDeleted(vec![
                Ok(holdfast_catalog::Deleted::Nothing),
            ])));
        }
        match consensus.propose(group, command.clone()).await {
            Err(ProposeError::Unknown { .. }) if retries > 0 => retries -= 1,
            other => break other.map_err(|error| propose_error(&error))?,
        }
    };
    let outcome = decode_outcome(&answer).map_err(|e| ObjectError::Internal(e.to_string()))?;
    Ok((outcome, retries < UNKNOWN_RETRIES))
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
        Refusal::DeleteMarker => ObjectError::NothingToChange(key.to_owned()),
        Refusal::Locked => ObjectError::Locked(key.to_owned()),
        Refusal::BucketState(rule) => ObjectError::BucketState(rule),
        Refusal::QuotaExceeded { tenant } => ObjectError::QuotaExceeded { tenant },
        Refusal::TooOld | Refusal::Moved | Refusal::Clearing | Refusal::BucketClosed { .. } => {
            ObjectError::Unavailable(refusal.to_string())
        }
        other => ObjectError::Internal(other.to_string()),
    }
}

#[async_trait::async_trait]
impl Backing for ObjectService {
    fn route(&self, tenant: TenantId) -> Result<Route, ObjectError> {
        self.tenant(tenant)?.partition()
    }

    async fn route_of(&self, tenant: TenantId, key: &str) -> Result<Route, ObjectError> {
        let entry = self.tenant(tenant)?;
        if let [only] = entry.partitions.as_slice() {
            return Ok(*only);
        }
        if let Some(route) = self.layouts.find(tenant, key) {
            return Ok(route);
        }
        self.look_again(tenant).await?;
        let found = self.layouts.find(tenant, key);
        found.map_or_else(|| entry.partition(), Ok)
    }

    /// Those that are there: one that is to be split off is known before it is.
    async fn routes(&self, tenant: TenantId) -> Result<Vec<Route>, ObjectError> {
        let entry = self.tenant(tenant)?;
        let (_, group) = entry.partition()?;
        self.barrier(group).await?;
        let there = |route: &Route| {
            self.catalogs.get(&route.1).is_some_and(|catalog| catalog.identity(route.0).is_some())
        };
        Ok(entry.partitions.iter().copied().filter(there).collect())
    }

    async fn look_again(&self, tenant: TenantId) -> Result<(), ObjectError> {
        let mut seen = Vec::new();
        for route in self.routes(tenant).await? {
            let catalog = self.catalogs.get(&route.1).and_then(|catalog| catalog.partition(route.0).ok());
            let Some(reader) = catalog else { continue };
            seen.push((backing::query(reader, ("", ""), |catalog| catalog.layout()).await?.range, route));
        }
        self.layouts.see(tenant, seen);
        Ok(())
    }

    async fn propose(&self, route: Route, op: Op) -> Result<Outcome, ObjectError> {
        ObjectService::propose(self, route, op).await
    }

    async fn reader(&self, route: Route) -> Result<PartitionReader, ObjectError> {
        ObjectService::reader(self, route).await
    }

    fn named_key(&self, tenant: TenantId, id: &str) -> Result<OuterKey, ObjectError> {
        // Writes need it to read as well: it is asked for before either begins.
        let found = self.tenant(tenant)?.named_key(BodyUse::Read, id)?;
        found.ok_or_else(|| KeyRefusal::NoSuchKey(id.to_owned()).into())
    }

    fn day_millis(&self) -> u64 {
        ObjectService::day_millis(self)
    }

    fn event_targets(&self, tenant: TenantId) -> Result<Option<BTreeSet<String>>, ObjectError> {
        let targets = || Ok(self.tenant(tenant)?.webhooks.keys().cloned().collect());
        self.directory.snapshot().can_tell_events.then(targets).transpose()
    }

    async fn write_body(
        &self,
        name: BodyName<'_>,
        mut body: Body,
        options: &PutOptions,
    ) -> Result<WrittenBody, ObjectError> {
        let entry = self.tenant(name.tenant)?;
        let target = BodyTarget {
            context: BodyContext {
                cluster: self.directory.cluster(),
                tenant: name.tenant,
                bucket: name.bucket,
                content: VersionId::new(now(), chance()),
            },
            tenant_key: Arc::clone(entry.key()?),
            wanted: match holdfast_planted::is("WritesWhileShutOut") {
                true => BodyUse::Background,
                false => BodyUse::Write,
            },
            name: name.key.to_owned(),
            level: name.level.unwrap_or(entry.level),
        };
        let mut writer = BodyWriter::begin(&self.stripes, target, options.length, name.outer)?;
        let draft = Draft::new(
            (Arc::clone(&self.consensus), self.directory.seal(name.tenant)?, Arc::clone(&self.stamps)),
            entry.partition()?,
            writer.attempts(),
        );
        while let Some(chunk) = body.next().await {
            writer.push(chunk?).await?;
        }
        Ok(WrittenBody { draft, ..writer.finish(options.content_md5).await? })
    }

    async fn open_body(
        &self,
        name: BodyName<'_>,
        content: Vec<PartContent>,
        range: Range<u64>,
        lookup: Option<Lookup>,
    ) -> Result<Body, ObjectError> {
        let owner = ContentOwner {
            cluster: self.directory.cluster(),
            tenant: name.tenant,
            tenant_key: Arc::clone(self.tenant(name.tenant)?.key()?),
            wanted: match holdfast_planted::is("ReadsWhileShutOut") {
                true => BodyUse::Background,
                false => BodyUse::Read,
            },
            bucket: name.bucket,
            name: name.key.to_owned(),
            outer: name.outer.map(|outer| (outer.key.clone(), outer.context.to_vec())),
        };
        open_body(&self.stripes, Arc::new(owner), content, range, lookup, name.taker).await
    }
}

impl ObjectGateway for Arc<ObjectService> {
    fn open(&self, tenant: TenantId) -> Arc<dyn VersionedObjects> {
        Arc::new(TenantHandle::new(Arc::clone(self) as _, tenant))
    }

    fn region(&self) -> String {
        self.directory.region().to_owned()
    }

    fn leads(&self, tenant: TenantId) -> bool {
        let first = self.tenant(tenant).and_then(|entry| entry.partition());
        first.is_ok_and(|(_, group)| self.consensus.leads(group))
    }
}

/// Opaque bytes of the catalog: postcard.
pub(crate) fn to_opaque<T: serde::Serialize>(value: &T) -> Result<Bytes, ObjectError> {
    postcard::to_stdvec(value).map(Bytes::from).map_err(|e| ObjectError::Internal(format!("attributes: {e}")))
}

/// What [`to_opaque`] made.
pub(crate) fn from_opaque<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ObjectError> {
    postcard::from_bytes(bytes).map_err(|e| ObjectError::Damaged(format!("attributes in the catalog: {e}")))
}

impl ObjectService {
    /// The buckets of a tenant by name, each with its own level if it has one.
    ///
    /// # Errors
    /// When the tenant is not active, or its catalog cannot be read now.
    pub async fn bucket_levels(&self, tenant: TenantId) -> Result<Vec<(String, Option<Level>)>, ObjectError> {
        let route = self.tenant(tenant)?.partition()?;
        self.read(route, ("", ""), |catalog| {
            let mut levels = Vec::new();
            for bucket in catalog.list_buckets()? {
                let own = catalog.documents(&bucket.name, DocumentKind::Level)?;
                let own = own.first().and_then(|document| read_level(&document.body));
                levels.push((bucket.name, own));
            }
            Ok(levels)
        })
        .await
    }

    /// Asks for a level for a bucket, or with `None` for that of its tenant. What is written from now on has
    /// it; what is there is cut anew in the background.
    ///
    /// # Errors
    /// `NoSuchBucket`; when the tenant is not active or its catalog does not decide.
    pub async fn set_bucket_level(
        &self,
        tenant: TenantId,
        bucket: &str,
        level: Option<Level>,
    ) -> Result<(), ObjectError> {
        let route = self.tenant(tenant)?.partition()?;
        let asked = bucket.to_owned();
        let id = self.read(route, (bucket, ""), move |catalog| catalog.get_bucket(&asked)).await?.id;
        let change = BucketChange::Document {
            kind: DocumentKind::Level,
            id: String::new(),
            body: level.map(|level| Bytes::from(level.to_string())),
        };
        let op = Op::SetBucket { bucket: id, change };
        self.propose(route, op).await?.map(drop).map_err(|refusal| refused(refusal, bucket, ""))
    }
}
