//! What one thread keeps from run to run because making it anew would take longer than a run: memory, formatted
//! disks, and the replicas of the catalog with one partition, which every run finds empty.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use bytes::Bytes;
use holdfast_catalog::{CatalogMachine, Command, Held, KeyVersion, MetadataKeys, MetadataSeal, Op};
use holdfast_consensus::{Applied, StateMachine};
use holdfast_crypt::TenantKey;
use holdfast_drive::{FormatParams, META_POOL_SIZE, format_simulated};
use holdfast_fault::{FaultDisk, Manners};
use holdfast_model::{ByteCount, ClusterId, DatabaseId, DriveId, NodeId, PartitionId, TenantId, UnixMillis};
use holdfast_ring::BufferPool;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::plan::PART_SIZE_MIN;

/// Nodes of the largest cluster.
pub const NODES_MAX: usize = 5;

/// Size of a simulated drive.
const DRIVE_SIZE: ByteCount = ByteCount::mib(14);

/// Size of its segments.
const SEGMENT_SIZE: ByteCount = ByteCount::mib(1);

/// Memory for shards of one node.
const POOL_SIZE: ByteCount = ByteCount::mib(32);

/// Where replicas are kept when that is memory.
const MEMORY_DIR: &str = "/dev/shm";

/// The cluster's id.
pub const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

/// The tenant.
pub const TENANT: TenantId = TenantId::from_bytes([8; 16]);

/// The partition.
pub const PARTITION: PartitionId = PartitionId::new(1);

/// A second tenant, of some plans.
pub const GUEST: TenantId = TenantId::from_bytes([6; 16]);

/// Its partition.
pub const GUEST_PARTITION: PartitionId = PartitionId::new(2);

/// Its database.
const GUEST_DATABASE: DatabaseId = DatabaseId::from_bytes([6; 16]);

/// The first tenant's database.
const DATABASE: DatabaseId = DatabaseId::from_bytes([8; 16]);

/// See the module.
#[derive(Debug)]
pub struct Rig {
    dir: TempDir,
    /// A replica of the catalog for each node.
    pub machines: Vec<Arc<Mutex<CatalogMachine>>>,
    /// The tenant's key.
    pub key: Arc<TenantKey>,
    /// The second tenant's.
    pub guest_key: Arc<TenantKey>,
    /// The last entry of the log.
    pub index: u64,
    pools: BTreeMap<usize, BufferPool>,
    metas: BTreeMap<usize, BufferPool>,
    formatted: BTreeMap<(usize, DriveId), FaultDisk>,
}

/// The command that makes the partition. A replica that has it says so.
#[must_use]
pub fn founding(at: UnixMillis) -> Bytes {
    let op = Op::CreatePartition { tenant: TENANT, database_id: DATABASE };
    Command { partition: PARTITION, at, request: None, op }.encode()
}

struct Keys {
    key: Arc<TenantKey>,
    guest_key: Arc<TenantKey>,
}

impl MetadataKeys for Keys {
    fn current(&self, tenant: TenantId) -> Held {
        let key = if tenant == GUEST { &self.guest_key } else { &self.key };
        Held::Here(Arc::new(MetadataSeal::new(1, key.metadata_key())))
    }

    fn version(&self, tenant: TenantId, _: KeyVersion) -> Held {
        self.current(tenant)
    }

    fn is_closed(&self) -> bool {
        false
    }
}

impl Rig {
    /// Makes one.
    ///
    /// # Errors
    /// When there is no directory for the replicas.
    pub fn new() -> io::Result<Self> {
        let memory = Path::new(MEMORY_DIR);
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        let (key, guest_key) = (Arc::new(TenantKey::generate()), Arc::new(TenantKey::generate()));
        let mut machines = Vec::new();
        for node in 0..NODES_MAX {
            let keys = Arc::new(Keys { key: Arc::clone(&key), guest_key: Arc::clone(&guest_key) });
            let mut machine = CatalogMachine::open(&dir.path().join(node.to_string()), keys)?;
            let of_guest = Op::CreatePartition { tenant: GUEST, database_id: GUEST_DATABASE };
            let at = UnixMillis::new(0);
            let of_guest = Command { partition: GUEST_PARTITION, at, request: None, op: of_guest }.encode();
            machine.apply(&[Applied { index: 1, commands: &[founding(at), of_guest] }])?;
            machine.admit_small_parts_for_simulation(PART_SIZE_MIN as u64);
            machines.push(Arc::new(Mutex::new(machine)));
        }
        let (pools, metas, formatted) = Default::default();
        Ok(Self { dir, machines, key, guest_key, index: 1, pools, metas, formatted })
    }

    /// Where the replicas are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Empties the partition in the replicas of so many nodes, for a run whose log begins after the index that the rig has then.
    ///
    /// # Errors
    /// When that cannot be done: a planted bug may have ruined a replica.
    pub fn begin(&mut self, nodes: usize) -> io::Result<()> {
        self.index += 1;
        self.machines[..nodes].iter().try_for_each(|machine| machine.lock().empty_for_simulation(self.index))
    }

    /// Memory for the shards of a node: all of it free.
    ///
    /// # Errors
    /// When there is none.
    pub fn pool(&mut self, node: usize) -> io::Result<BufferPool> {
        fresh(&mut self.pools, node, POOL_SIZE)
    }

    /// Memory for the engine of a drive: all of it free.
    ///
    /// # Errors
    /// When there is none.
    pub fn meta(&mut self, drive: usize) -> io::Result<BufferPool> {
        fresh(&mut self.metas, drive, META_POOL_SIZE)
    }

    /// A formatted disk.
    ///
    /// # Errors
    /// When it cannot be formatted.
    pub fn disk(&mut self, node: usize, drive: DriveId) -> io::Result<FaultDisk> {
        if let Some(disk) = self.formatted.get(&(node, drive)) {
            return Ok(disk.copy());
        }
        let disk = FaultDisk::new(DRIVE_SIZE);
        let params = FormatParams { cluster: CLUSTER, drive, node: NodeId::new(node as u64 + 1) };
        format_simulated(&mut disk.connect(0, Manners::GOOD), &params, SEGMENT_SIZE)?;
        self.formatted.insert((node, drive), disk.copy());
        Ok(disk)
    }
}

/// What hung operations kept of a pool is lost with it.
fn fresh(pools: &mut BTreeMap<usize, BufferPool>, at: usize, size: ByteCount) -> io::Result<BufferPool> {
    if let Some(pool) = pools.get(&at).filter(|pool| pool.available() == pool.budget()) {
        return Ok(pool.clone());
    }
    let pool = BufferPool::new(size).map_err(io::Error::other)?;
    pools.insert(at, pool.clone());
    Ok(pool)
}
