//! An object layer for tests and for trying clients by hand: the real operations and the real catalog, with
//! one replica in a temporary directory, and bodies kept in memory.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::StreamExt;
use holdfast_catalog::{
    BodyRef, CatalogMachine, CatalogReader, Command, Held, KeyVersion, MetadataKeys, MetadataSeal, Op,
    Outcome, PartContent, PartitionReader, StripeRef, decode_outcome,
};
use holdfast_consensus::{Applied, StateMachine};
use holdfast_crypt::MetadataKey;
use holdfast_model::{
    DatabaseId, DriveId, Generation, GroupId, NodeId, PartitionId, StripeId, TenantId, UnixMillis,
    limits::INLINE_BODY_MAX, placement::Place,
};
use holdfast_object::{
    TenantHandle,
    api::*,
    backing::{Backing, BodyName, Draft, Lookup, Route, WrittenBody},
    sealing::{CustomerKey, DEFAULT_NAMED_KEY, KeyRefusal},
    versioned::VersionedObjects,
};
use md5::{Digest, Md5};
use parking_lot::Mutex;

/// Tenants by access key, over one catalog.
pub struct MemoryGateway {
    pub tenants: BTreeMap<String, Credential>,
    memory: Arc<Memory>,
}

/// One metadata key for all tenants.
struct OneKey(Arc<MetadataSeal>);

impl OneKey {
    fn new() -> Self {
        Self(Arc::new(MetadataSeal::new(1, MetadataKey::from_bytes([1; 32]))))
    }
}

impl MetadataKeys for OneKey {
    fn current(&self, _tenant: TenantId) -> Held {
        Held::Here(Arc::clone(&self.0))
    }

    fn version(&self, tenant: TenantId, _version: KeyVersion) -> Held {
        self.current(tenant)
    }

    fn is_closed(&self) -> bool {
        false
    }
}

struct Replica {
    machine: CatalogMachine,
    index: u64,
}

/// What all tenants stand on.
struct Memory {
    replica: Mutex<Replica>,
    reader: CatalogReader,
    key: OneKey,
    /// Bodies too large for the catalog.
    stripes: Mutex<HashMap<StripeId, Bytes>>,
    counter: AtomicU64,
    bodies_begun: AtomicU64,
    /// Added to the clock.
    ahead_millis: AtomicU64,
    _directory: tempfile::TempDir,
}

fn partition(tenant: TenantId) -> PartitionId {
    PartitionId::new(u64::from(tenant.as_bytes()[0]))
}

impl MemoryGateway {
    /// Each key is a tenant: access key, secret.
    pub fn new(keys: &[(&str, &str)]) -> Arc<Self> {
        let directory = tempfile::tempdir().expect("a directory");
        let machine =
            CatalogMachine::open(directory.path(), Arc::new(OneKey::new())).expect("an empty catalog");
        let memory = Memory {
            reader: machine.reader(),
            key: OneKey::new(),
            replica: Mutex::new(Replica { machine, index: 0 }),
            stripes: Mutex::default(),
            counter: AtomicU64::new(1),
            bodies_begun: AtomicU64::new(0),
            ahead_millis: AtomicU64::new(0),
            _directory: directory,
        };
        let tenant = |(number, (key, secret)): (usize, &(&str, &str))| {
            let id = TenantId::from_bytes([number as u8 + 1; 16]);
            let database_id = DatabaseId::from_bytes([number as u8 + 1; 16]);
            memory
                .apply(partition(id), Op::CreatePartition { tenant: id, database_id })
                .expect("a partition");
            let credential =
                Credential { tenant: id, tenant_name: format!("tenant-{key}"), secret: (*secret).to_owned() };
            ((*key).to_owned(), credential)
        };
        let tenants = keys.iter().enumerate().map(tenant).collect();
        Arc::new(Self { tenants, memory: Arc::new(memory) })
    }

    /// Whether a key of the first tenant is there: tests ask whether anything was stored.
    pub fn holds(&self, bucket: &str, key: &str) -> bool {
        let reader = self.memory.reader.partition(PartitionId::new(1)).expect("the first tenant");
        reader.head_object(bucket, key, None).is_ok()
    }

    /// Bodies that have begun.
    pub fn bodies_begun(&self) -> u64 {
        self.memory.bodies_begun.load(Ordering::Relaxed)
    }

    /// Moves the clock of the catalog's proposer; backwards with a smaller number than before.
    pub fn set_clock_ahead(&self, millis: u64) {
        self.memory.ahead_millis.store(millis, Ordering::Relaxed);
    }
}

#[async_trait::async_trait]
impl ObjectGateway for MemoryGateway {
    async fn credential(&self, access_key: &str) -> Result<Option<Credential>, ObjectError> {
        Ok(self.tenants.get(access_key).cloned())
    }
    fn open(&self, tenant: TenantId) -> Arc<dyn VersionedObjects> {
        Arc::new(TenantHandle::new(self.memory.clone(), tenant))
    }
    fn region(&self) -> String {
        "us-east-1".to_owned()
    }
}

impl Memory {
    fn now(&self) -> UnixMillis {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64;
        UnixMillis::new(now + self.ahead_millis.load(Ordering::Relaxed))
    }

    fn apply(&self, partition: PartitionId, op: Op) -> Outcome {
        let command = Command { partition, at: self.now(), request: None, op };
        let command = [match command.op {
            Op::CreatePartition { .. } => command.encode(),
            _ => command.seal(&self.key.0),
        }];
        let mut replica = self.replica.lock();
        replica.index += 1;
        let entry = Applied { index: replica.index, commands: &command };
        let answers = replica.machine.apply(&[entry]).expect("the catalog applies");
        decode_outcome(&answers[0][0]).expect("an answer")
    }

    /// Keeps a body that is too large for the catalog, as one stripe.
    fn keep(&self, content: Bytes) -> StripeRef {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        let id = StripeId::new(self.now(), random);
        let plain_len = u32::try_from(content.len()).expect("tests store less than 4 GiB");
        self.stripes.lock().insert(id, content);
        let place = |drive| Place { node: NodeId::new(1), drive: DriveId::from_bytes([drive; 16]) };
        StripeRef {
            id,
            number: 0,
            plain_len,
            data: 2,
            parity: 1,
            generation: Generation::new(0),
            places: (0..3).map(place).collect(),
        }
    }
}

#[async_trait::async_trait]
impl Backing for Memory {
    fn route(&self, tenant: TenantId) -> Result<Route, ObjectError> {
        Ok((partition(tenant), GroupId::new(1)))
    }

    async fn propose(&self, (partition, _): Route, op: Op) -> Result<Outcome, ObjectError> {
        Ok(self.apply(partition, op))
    }

    async fn reader(&self, (partition, _): Route) -> Result<PartitionReader, ObjectError> {
        self.reader.partition(partition).map_err(|error| ObjectError::Internal(error.to_string()))
    }

    fn named_key(&self, _: TenantId, id: &str) -> Result<CustomerKey, ObjectError> {
        match id {
            "demo-key" | DEFAULT_NAMED_KEY => Ok(CustomerKey::from_bytes([7; 32])),
            _ => Err(KeyRefusal::NoSuchKey(id.to_owned()).into()),
        }
    }

    async fn write_body(
        &self,
        _: BodyName<'_>,
        mut body: Body,
        options: &PutOptions,
    ) -> Result<WrittenBody, ObjectError> {
        self.bodies_begun.fetch_add(1, Ordering::Relaxed);
        let mut content = Vec::new();
        while let Some(bytes) = body.next().await {
            content.extend_from_slice(&bytes?);
        }
        let size = content.len() as u64;
        if let Some(declared) = options.length.filter(|declared| *declared != size) {
            return Err(BodyError::Length { declared, received: size }.into());
        }
        let md5: [u8; 16] = Md5::digest(&content).into();
        if options.content_md5.is_some_and(|expected| expected != md5) {
            return Err(BodyError::Mismatch("Content-MD5").into());
        }
        let body = if content.len() <= INLINE_BODY_MAX {
            BodyRef::Inline(content.into())
        } else {
            BodyRef::Stripes(vec![self.keep(content.into())])
        };
        Ok(WrittenBody { size, md5, wrapped_key: Bytes::new(), body, draft: Draft::none() })
    }

    async fn open_body(
        &self,
        _: BodyName<'_>,
        content: Vec<PartContent>,
        range: Range<u64>,
        _: Option<Lookup>,
    ) -> Result<Body, ObjectError> {
        let mut pieces: Vec<Result<Bytes, BodyError>> = Vec::new();
        for part in content {
            let bytes = match &part.body {
                BodyRef::Inline(bytes) => bytes.clone(),
                BodyRef::Stripes(stripes) => match stripes.first() {
                    Some(stripe) => self.stripes.lock()[&stripe.id].clone(),
                    None => continue,
                },
            };
            let from = range.start.saturating_sub(part.offset).min(part.size) as usize;
            let to = range.end.saturating_sub(part.offset).min(part.size) as usize;
            let bytes = bytes.slice(from..to);
            pieces.extend(bytes.chunks(65_536).map(|piece| Ok(bytes.slice_ref(piece))));
        }
        Ok(Box::pin(futures::stream::iter(pieces)))
    }
}
