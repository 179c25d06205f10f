//! An object layer for tests and for trying clients by hand: the real operations and the real catalog, with
//! one replica in a temporary directory, and bodies kept in memory.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures::StreamExt;
use holdfast_access::{
    iam::{Change, KeyChange, RowChange, Then},
    identity::{AccessKey, Account, AccountInfo, Kind, Row, Rows, Snapshot},
    policy::Policy,
    text::{AccountNumber, CanonicalId},
};
use holdfast_catalog::{
    BodyRef, CatalogMachine, CatalogReader, Command, Held, KeyVersion, MetadataKeys, MetadataSeal, Op,
    Outcome, PartContent, PartitionReader, StripeRef, decode_outcome,
};
use holdfast_consensus::{Applied, StateMachine};
use holdfast_crypt::MetadataKey;
use holdfast_gateway_s3::identities::{ChangeError, Identities, NotNow};
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
    pub identities: Arc<MemoryIdentities>,
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
        let identities = MemoryIdentities::default();
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
        for (number, (key, secret)) in keys.iter().enumerate() {
            let number = number as u8 + 1;
            let id = TenantId::from_bytes([number; 16]);
            let database_id = DatabaseId::from_bytes([number; 16]);
            memory
                .apply(partition(id), Op::CreatePartition { tenant: id, database_id })
                .expect("a partition");
            identities.add(id, number, key, secret);
            // A second account in the same tenant.
            identities.add(id, number + ALT, &format!("{key}-alt"), secret);
        }
        Arc::new(Self { identities: Arc::new(identities), memory: Arc::new(memory) })
    }

    /// Whether a key of the first tenant is there: tests ask whether anything was stored.
    pub fn holds(&self, bucket: &str, key: &str) -> bool {
        let reader = self.memory.reader.partition(PartitionId::new(1)).expect("the first tenant");
        reader.head_object(bucket, key, None).is_ok()
    }

    /// Events of the first tenant that wait for a target.
    pub fn events(&self, target: &str) -> Vec<holdfast_object::events::Event> {
        let reader = self.memory.reader.partition(PartitionId::new(1)).expect("the first tenant");
        let due = reader.events_due(target, UnixMillis::new(u64::MAX >> 1), 1000).expect("the queue");
        due.into_iter().map(|queued| queued.event).collect()
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

impl ObjectGateway for MemoryGateway {
    fn open(&self, tenant: TenantId) -> Arc<dyn VersionedObjects> {
        Arc::new(TenantHandle::new(self.memory.clone(), tenant))
    }
    fn region(&self) -> String {
        "us-east-1".to_owned()
    }

    fn leads(&self, _tenant: TenantId) -> bool {
        true
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
            Op::CreatePartition { .. } | Op::DropPartition { .. } => command.encode(),
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

    fn event_targets(&self, _: TenantId) -> Result<Option<BTreeSet<String>>, ObjectError> {
        Ok(Some(BTreeSet::from(["hook".to_owned()])))
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

/// Number of a tenant's second account, above its first's.
pub const ALT: u8 = 100;

/// Identities in memory. What the control group checks of a change is checked here too.
#[derive(Default)]
pub struct MemoryIdentities {
    now: Mutex<Snapshot>,
    counter: AtomicU64,
}

/// Canonical id of the account of this number.
pub fn canonical(number: u8) -> CanonicalId {
    CanonicalId::from_bytes([number; 32])
}

fn fresh(tenant: TenantId, account: AccountNumber, user: Option<String>, secret: String) -> AccessKey {
    AccessKey { tenant, account, user, active: true, created: 0, expires: None, bound: None, secret }
}

impl MemoryIdentities {
    /// Bounds a key there is.
    pub fn bound(&self, key: &str, expires: Option<u64>, policy: Option<Policy>) {
        let mut now = self.now.lock();
        let entry = now.keys.get_mut(key).expect("a key");
        (entry.expires, entry.bound) = (expires, policy.map(Arc::new));
    }

    fn add(&self, tenant: TenantId, number: u8, key: &str, secret: &str) {
        let mut now = self.now.lock();
        let account = AccountNumber::new(u64::from(number));
        let info = AccountInfo {
            number: account,
            canonical: canonical(number),
            name: format!("account-{number}"),
            email: format!("{number}@example.com"),
        };
        let entry = now.tenants.entry(tenant).or_default();
        entry.first.get_or_insert(account);
        let account_entry = Account {
            info: Arc::new(info),
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            roles: BTreeMap::new(),
            policies: BTreeMap::new(),
        };
        entry.accounts.insert(account, account_entry);
        let secret = secret.to_owned();
        let key_entry = fresh(tenant, account, None, secret);
        now.keys.insert(key.to_owned(), key_entry);
    }
}

fn write<T: serde::de::DeserializeOwned>(rows: &mut Rows<T>, row: RowChange) -> Result<(), ChangeError> {
    if rows.get(&row.name).map(|found| found.version) != row.expected {
        return Err(ChangeError::Conflict);
    }
    match row.then {
        Then::Keep => {}
        Then::Delete => drop(rows.remove(&row.name)),
        Then::Put(version, body) => {
            let value = serde_json::from_slice(&body).expect("what IAM wrote");
            rows.insert(row.name, Row { version, value });
        }
    }
    Ok(())
}

#[async_trait::async_trait]
impl Identities for MemoryIdentities {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::new(self.now.lock().clone())
    }

    async fn change(
        &self,
        tenant: TenantId,
        account: AccountNumber,
        change: Change,
    ) -> Result<(), ChangeError> {
        let mut now = self.now.lock();
        let entry = now.tenants.get_mut(&tenant).and_then(|tenant| tenant.accounts.get_mut(&account));
        let entry = entry.expect("an account");
        for row in change.rows {
            match row.kind {
                Kind::User => write(&mut entry.users, row)?,
                Kind::Group => write(&mut entry.groups, row)?,
                Kind::Role => write(&mut entry.roles, row)?,
                Kind::Policy => write(&mut entry.policies, row)?,
            }
        }
        for key in change.keys {
            match key {
                KeyChange::Create { access_key, user, secret } => {
                    now.keys.insert(access_key, fresh(tenant, account, user, secret));
                }
                KeyChange::SetActive { access_key, active } => {
                    now.keys.get_mut(&access_key).expect("a key").active = active;
                }
                KeyChange::Delete { access_key } => drop(now.keys.remove(&access_key)),
            }
        }
        Ok(())
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.counter.fetch_add(1, Ordering::Relaxed);
        Some(session.iter().map(|byte| byte ^ 0x5a).collect())
    }

    fn open(&self, sealed: &[u8]) -> Result<Option<Vec<u8>>, NotNow> {
        Ok(Some(sealed.iter().map(|byte| byte ^ 0x5a).collect()))
    }

    fn now_millis(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
    }
}
