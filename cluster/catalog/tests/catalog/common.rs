//! A replica in a temporary directory, driven as the log drives it, and short ways to make commands.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use holdfast_catalog::{
    BodyRef, BucketChange, CatalogMachine, CatalogReader, Command, CompleteUpload, Condition, DeleteItem,
    Digest, GarbageCursor, GarbageRow, Held, KeyVersion, MetadataKeys, MetadataSeal, ObjectExtras, Op,
    Outcome, PartitionReader, PutObject, PutPart, ReplaceStripes, Response, StripeRef, VersionRef,
    VersionSelector, Versioning, decode_outcome,
};
use holdfast_consensus::{Applied, StateMachine};
use holdfast_crypt::MetadataKey;
use holdfast_model::{
    BucketId, DatabaseId, DriveId, Generation, NodeId, PartitionId, StripeId, TenantId, UnixMillis, UploadId,
    VersionId, placement::Place,
};

pub const PARTITION: PartitionId = PartitionId::new(1);

/// One replica and the log index it has reached.
pub struct Replica {
    pub machine: CatalogMachine,
    pub index: u64,
}

impl Replica {
    pub fn open(dir: &Path) -> Self {
        Self { machine: CatalogMachine::open(dir, keys()).unwrap(), index: 0 }
    }

    /// Opens a replica with one partition that has one bucket, `b`.
    pub fn with_bucket(dir: &Path) -> Self {
        let mut replica = Self::open(dir);
        replica.expect(create_partition(PARTITION), Response::PartitionCreated);
        replica.expect(create_bucket(1, "b"), Response::BucketCreated);
        replica
    }

    /// Applies one entry for [`PARTITION`].
    pub fn apply_all(&mut self, ops: Vec<Op>) -> Vec<Outcome> {
        self.index += 1;
        let commands: Vec<Bytes> = ops.into_iter().map(|op| command(self.index, op)).collect();
        apply(&mut self.machine, self.index, &commands)
    }

    pub fn apply(&mut self, op: Op) -> Outcome {
        self.apply_all(vec![op]).remove(0)
    }

    #[track_caller]
    pub fn expect(&mut self, op: Op, response: Response) {
        assert_eq!(self.apply(op), Ok(response));
    }

    /// Applies, expecting it to be done.
    #[track_caller]
    pub fn done(&mut self, op: Op) -> Response {
        self.apply(op).unwrap()
    }

    pub fn reader(&self) -> PartitionReader {
        self.machine.reader().partition(PARTITION).unwrap()
    }
}

/// The command as every replica gets it; its time is derived from the entry's index.
pub fn command(index: u64, op: Op) -> Bytes {
    sealed(&Command { partition: PARTITION, at: UnixMillis::new(time_of(index)), request: None, op })
}

/// The command as its proposer puts it into the log.
pub fn sealed(command: &Command) -> Bytes {
    match command.op {
        Op::CreatePartition { .. } | Op::DropPartition { .. } => command.encode(),
        _ => command.seal(&seal(1)),
    }
}

/// What seals under a version of the one tenant's key.
pub fn seal(version: KeyVersion) -> MetadataSeal {
    MetadataSeal::new(version, MetadataKey::from_bytes([u8::try_from(version).unwrap(); 32]))
}

/// Keys that come and go: versions from the lower to the higher bound are there, none while the lower is 0.
#[derive(Debug, Default)]
pub struct TestKeys {
    pub versions: Mutex<(KeyVersion, KeyVersion)>,
    pub destroyed: AtomicBool,
    pub closed: AtomicBool,
}

impl TestKeys {
    pub fn with(first: KeyVersion, last: KeyVersion) -> Arc<Self> {
        Arc::new(Self { versions: Mutex::new((first, last)), ..Self::default() })
    }

    pub fn set(&self, first: KeyVersion, last: KeyVersion) {
        *self.versions.lock().unwrap() = (first, last);
    }
}

impl MetadataKeys for TestKeys {
    fn current(&self, tenant: TenantId) -> Held {
        let last = self.versions.lock().unwrap().1;
        self.version(tenant, last)
    }

    fn version(&self, _tenant: TenantId, version: KeyVersion) -> Held {
        let (first, last) = *self.versions.lock().unwrap();
        if self.destroyed.load(Ordering::SeqCst) {
            Held::Destroyed
        } else if first > 0 && (first..=last).contains(&version) {
            Held::Here(Arc::new(seal(version)))
        } else {
            Held::NotYet
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// The keys of a node that is unlocked.
pub fn keys() -> Arc<TestKeys> {
    TestKeys::with(1, 1)
}

pub fn time_of(index: u64) -> u64 {
    1_700_000_000_000 + index
}

pub fn apply(machine: &mut CatalogMachine, index: u64, commands: &[Bytes]) -> Vec<Outcome> {
    let answers = machine.apply(&[Applied { index, commands }]).unwrap();
    answers[0].iter().map(|answer| decode_outcome(answer).unwrap()).collect()
}

pub fn digests(reader: &CatalogReader) -> Vec<Digest> {
    reader.partitions().iter().map(|id| reader.partition(id.partition).unwrap().digest().unwrap()).collect()
}

/// All garbage, read in small pages.
pub fn all_garbage(reader: &PartitionReader) -> Vec<GarbageRow> {
    let (mut all, mut after): (Vec<GarbageRow>, Option<GarbageCursor>) = (Vec::new(), None);
    loop {
        let (page, next) = reader.garbage(after, 3).unwrap();
        all.extend(page);
        if next.is_none() {
            return all;
        }
        after = next;
    }
}

pub fn bucket_id(n: u8) -> BucketId {
    BucketId::from_bytes([n; 16])
}

pub fn version(n: u64) -> VersionId {
    VersionId::new(UnixMillis::new(n), [1; 10])
}

pub fn upload_id(n: u64) -> UploadId {
    UploadId::new(UnixMillis::new(n), [2; 10])
}

pub fn stripe_id(n: u64) -> StripeId {
    StripeId::new(UnixMillis::new(n), [3; 10])
}

pub fn drive(n: u8) -> DriveId {
    DriveId::from_bytes([n; 16])
}

pub fn place(n: u8) -> Place {
    Place { node: NodeId::new(u64::from(n % 3) + 1), drive: drive(n) }
}

/// A 2+1 stripe on drives chosen by its number.
pub fn stripe(n: u64, plain_len: u64) -> StripeRef {
    let first = u8::try_from(n % 5).unwrap();
    StripeRef {
        id: stripe_id(n),
        number: u32::try_from(n).unwrap(),
        plain_len: u32::try_from(plain_len).unwrap(),
        data: 2,
        parity: 1,
        generation: Generation::new(0),
        places: (first..first + 3).map(place).collect(),
    }
}

pub fn stripes(ids: std::ops::Range<u64>, plain_len: u64) -> BodyRef {
    BodyRef::Stripes(ids.map(|n| stripe(n, plain_len)).collect())
}

/// Puts other stripes in the place of a content whose first one is `expected`.
pub fn replace(content: u64, expected: u64, body: BodyRef) -> Op {
    let wrapped_key = Bytes::from(format!("key-of-{content}-anew"));
    let stripes = body.stripes().to_vec();
    Op::ReplaceStripes(ReplaceStripes { content, expected: stripe_id(expected), wrapped_key, stripes })
}

pub fn inline(text: &str) -> BodyRef {
    BodyRef::Inline(Bytes::copy_from_slice(text.as_bytes()))
}

pub fn create_partition(partition: PartitionId) -> Op {
    assert_eq!(partition, PARTITION);
    Op::CreatePartition {
        tenant: TenantId::from_bytes([9; 16]),
        database_id: DatabaseId::from_bytes([8; 16]),
    }
}

pub fn drop_partition(partition: PartitionId) -> Op {
    assert_eq!(partition, PARTITION);
    Op::DropPartition { tenant: TenantId::from_bytes([9; 16]), database_id: DatabaseId::from_bytes([8; 16]) }
}

pub fn create_bucket(n: u8, name: &str) -> Op {
    Op::CreateBucket { bucket: bucket_id(n), name: name.into(), object_lock: false }
}

pub fn put_into(bucket: BucketId, key: &str, n: u64, size: u64, body: BodyRef, condition: Condition) -> Op {
    Op::PutObject(PutObject {
        bucket,
        key: key.into(),
        version: version(n),
        size,
        etag: format!("etag-{n}"),
        attributes: Bytes::from(format!("attributes-{n}")),
        extras: ObjectExtras::default(),
        wrapped_key: Bytes::from(format!("key-{n}")),
        body,
        condition,
    })
}

/// Puts into bucket 1 without condition.
pub fn put(key: &str, n: u64, size: u64, body: BodyRef) -> Op {
    put_into(bucket_id(1), key, n, size, body, Condition::default())
}

pub fn delete(key: &str) -> Op {
    Op::DeleteObjects { bucket: bucket_id(1), items: vec![delete_item(key, 0, None)] }
}

/// Deletes a key, or one of its versions. `n` gives the delete marker its id, should there be one.
pub fn delete_item(key: &str, n: u64, version: Option<VersionSelector>) -> DeleteItem {
    let mut marker = [4; 10];
    marker[2..].copy_from_slice(&n.to_be_bytes());
    DeleteItem { key: key.into(), version, if_etag: None, marker, bypass_governance: false }
}

pub fn set_bucket(n: u8, change: BucketChange) -> Op {
    Op::SetBucket { bucket: bucket_id(n), change }
}

pub fn versioning(versioning: Versioning) -> Op {
    set_bucket(1, BucketChange::Versioning(versioning))
}

/// A version of a bucket whose versioning is off.
pub fn null(n: u64) -> VersionRef {
    VersionRef { id: version(n), null: true }
}

pub fn create_upload(key: &str, upload: u64) -> Op {
    let attributes = Bytes::from(format!("upload-{upload}"));
    let extras = ObjectExtras::default();
    Op::CreateUpload { bucket: bucket_id(1), key: key.into(), upload: upload_id(upload), attributes, extras }
}

pub fn put_part(key: &str, upload: u64, number: u32, n: u64, size: u64, body: BodyRef) -> Op {
    Op::PutPart(PutPart {
        bucket: bucket_id(1),
        key: key.into(),
        upload: upload_id(upload),
        number,
        size,
        etag: format!("etag-{n}"),
        checksums: Bytes::from(format!("checksums-{n}")),
        wrapped_key: Bytes::from(format!("key-{n}")),
        body,
    })
}

pub fn complete(key: &str, upload: u64, n: u64, parts: &[(u32, u64)]) -> Op {
    Op::CompleteUpload(CompleteUpload {
        bucket: bucket_id(1),
        key: key.into(),
        upload: upload_id(upload),
        parts: parts.iter().map(|(number, n)| (*number, format!("etag-{n}"))).collect(),
        version: version(n),
        etag: format!("complete-{upload}-{}", parts.len()),
        attributes: None,
        condition: Condition::default(),
    })
}

pub fn abort(key: &str, upload: u64) -> Op {
    Op::AbortUpload { bucket: bucket_id(1), key: key.into(), upload: upload_id(upload) }
}

/// Copies the files of a running replica as a kill would leave them. With `kept`, as a power cut would:
/// what was written to a write-ahead file since the last checkpoint may be there, in part, or not at all.
pub fn copy_dir(from: &Path, to: &Path, kept: &dyn Fn(&str) -> Option<f64>) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name().into_string().unwrap();
        if path.is_dir() {
            copy_dir(&path, &target, kept);
        } else if !name.ends_with("-shm") {
            fs::copy(&path, &target).unwrap();
            // The group's own file is flushed with every commit.
            let of_partition = name.strip_suffix(".sqlite-wal").filter(|name| *name != "group");
            if let Some(kept) = of_partition.and_then(kept) {
                let length = fs::metadata(&path).unwrap().len();
                let file = fs::OpenOptions::new().write(true).open(&target).unwrap();
                file.set_len((length as f64 * kept) as u64).unwrap();
            }
        }
    }
}

/// The same operation, sent to another partition.
pub fn for_partition(partition: u64, index: u64, op: Op) -> Bytes {
    let partition = PartitionId::new(partition);
    sealed(&Command { partition, at: UnixMillis::new(time_of(index)), request: None, op })
}
