//! The catalog on this machine: sealed files against plain ones, a group's state machine with many objects, and
//! three replicas that agree on commands.
//!
//! All of it in one process and without a cluster; files are real, messages travel in memory.

#![forbid(unsafe_code)]

mod files;
mod machine;
mod replicas;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use holdfast_catalog::{
    BodyRef, Command, Condition, Held, KeyVersion, MetadataKeys, MetadataSeal, ObjectExtras, Op, PutObject,
};
use holdfast_crypt::MetadataKey;
use holdfast_model::{BucketId, DatabaseId, PartitionId, TenantId, UnixMillis, VersionId};

const PARTITION: PartitionId = PartitionId::new(1);
const BUCKET: BucketId = BucketId::from_bytes([1; 16]);
const BUCKET_NAME: &str = "bench";
/// Commands of one log entry when many callers wait.
const BATCH: u64 = 512;
/// Directories that keys are spread over.
const DIRECTORIES: u64 = 1000;

#[derive(Debug, Parser)]
#[command(name = "holdfast-bench-catalog", about = "The catalog: files, state machine, replicas")]
struct Arguments {
    /// Directory for files
    #[arg(long)]
    dir: PathBuf,
    /// Objects in the state machine
    #[arg(long, default_value_t = 1_000_000)]
    objects: u64,
    /// Rows of the comparison of sealed and plain files
    #[arg(long, default_value_t = 500_000)]
    rows: u64,
    /// Longest time for one width of the replicas, in seconds
    #[arg(long, default_value_t = 4)]
    seconds: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    std::fs::create_dir_all(&arguments.dir)?;
    let dir = tempfile::tempdir_in(&arguments.dir).context("making a directory")?;
    if arguments.rows > 0 {
        files::compare(dir.path(), arguments.rows)?;
    }
    if arguments.objects > 0 {
        machine::measure(&dir.path().join("machine"), arguments.objects)?;
    }
    if arguments.seconds > 0 {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(replicas::measure(dir.path(), Duration::from_secs(arguments.seconds)))?;
    }
    Ok(())
}

/// The keys of the one tenant.
#[derive(Debug)]
struct Keys(std::sync::Arc<MetadataSeal>);

impl Keys {
    fn new() -> Self {
        Self(std::sync::Arc::new(MetadataSeal::new(1, MetadataKey::from_bytes([1; 32]))))
    }
}

impl MetadataKeys for Keys {
    fn current(&self, _tenant: TenantId) -> Held {
        Held::Here(std::sync::Arc::clone(&self.0))
    }

    fn version(&self, tenant: TenantId, _version: KeyVersion) -> Held {
        self.current(tenant)
    }

    fn is_closed(&self) -> bool {
        false
    }
}

/// A command, sealed as its proposer seals it.
fn sealed(keys: &Keys, op: Op) -> bytes::Bytes {
    let command = Command { partition: PARTITION, at: UnixMillis::new(1_700_000_000_000), request: None, op };
    match command.op {
        Op::CreatePartition { .. } | Op::DropPartition { .. } => command.encode(),
        _ => command.seal(&keys.0),
    }
}

/// What makes the partition and its bucket.
fn beginning(keys: &Keys) -> Vec<bytes::Bytes> {
    let tenant = TenantId::from_bytes([2; 16]);
    let partition = Op::CreatePartition { tenant, database_id: DatabaseId::from_bytes([3; 16]) };
    let bucket = Op::CreateBucket { bucket: BUCKET, name: BUCKET_NAME.to_owned(), object_lock: false };
    vec![sealed(keys, partition), sealed(keys, bucket)]
}

/// Keys come in an order of their own, all over the tree.
fn key(number: u64) -> String {
    format!("directory-{:03}/object-{number:09}", number.wrapping_mul(7919) % DIRECTORIES)
}

/// A small object: its body is in the catalog.
fn put(number: u64) -> Op {
    Op::PutObject(PutObject {
        bucket: BUCKET,
        key: key(number),
        version: VersionId::new(UnixMillis::new(1_700_000_000_000 + number), [4; 10]),
        size: 48,
        etag: "0123456789abcdef0123456789abcdef".to_owned(),
        attributes: bytes::Bytes::from_static(&[5; 24]),
        extras: ObjectExtras::default(),
        wrapped_key: bytes::Bytes::from_static(&[6; 121]),
        body: BodyRef::Inline(bytes::Bytes::from_static(&[7; 64])),
        condition: Condition::default(),
    })
}

/// Milliseconds below which this share of `times` is.
fn millis_at(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let at = ((times.len().saturating_sub(1)) as f64 * share) as usize;
    times.get(at).copied().unwrap_or_default().as_secs_f64() * 1e3
}
