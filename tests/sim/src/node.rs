//! A node: its drives, their engines, the object service and its workers, as they ship; and what a node's program does
//! around them: it tells the others how its drives are, and hears how theirs are.

use std::{
    collections::HashMap,
    future::Future,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use holdfast_drive::{Drive, DriveOptions, DriveState};
use holdfast_fault::{FaultDisk, Manners};
use holdfast_model::{ByteCount, DriveId, TenantId};
use holdfast_object::{Directory, ObjectService, StripeIo, workers};
use holdfast_ring::BufferPool;
use holdfast_store::{
    DriveReport, DriveReportState, Findings, Health, NodeReport, ReadMemory, ShardService, Shards,
    StripeRebuilder,
};
use parking_lot::Mutex;
use tokio::{sync::oneshot, task::AbortHandle, time::Instant, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    drive::{Gate, SimDevice, drive},
    log::{GROUP, Seat},
    net::SimPeers,
    rig::CLUSTER,
    world::{World, node_id, stream},
};

/// How often nodes tell each other how they are.
const REPORT_INTERVAL: Duration = Duration::from_secs(2);

/// The region.
const REGION: &str = "sim-1";

/// A node that is on.
#[derive(Debug)]
pub struct Running {
    /// Its objects.
    pub objects: Arc<ObjectService>,
    /// Answers other nodes.
    pub service: ShardService,
    /// Memory for shards.
    pub pool: BufferPool,
    /// All drives as it reaches them.
    pub shards: Arc<Shards>,
    /// Whom it hears.
    pub health: Arc<Health>,
    /// What it knows of tenants and drives.
    pub directory: Arc<Directory>,
    /// Its drives by number.
    pub gates: Mutex<HashMap<usize, Arc<Gate>>>,
    /// Cancelled when the node goes off.
    pub off: CancellationToken,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// A drive to be opened: its number, its disk, memory for its engine, and whether it was hurt.
pub type Bay = (usize, FaultDisk, BufferPool, bool);

impl Running {
    /// Runs a task that ends with the node; what it gives comes over the channel.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let handle = tokio::spawn(async move {
            // Whoever asked may have gone.
            drop(sender.send(task.await));
        });
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.push(handle.abort_handle());
        receiver
    }

    /// How the node is.
    #[must_use]
    pub fn report(&self, node: usize) -> NodeReport {
        let drives = self.shards.local().iter().map(drive_report).collect();
        NodeReport {
            node: node_id(node),
            name: format!("n{}", node + 1),
            version: String::new(),
            uptime_seconds: 0,
            drives_open: true,
            drives,
            devices: Vec::new(),
            workers: Vec::new(),
            debts: Vec::new(),
            levels: Vec::new(),
        }
    }

    /// The node goes off: nothing of it happens any more.
    pub fn stop(&self) {
        self.off.cancel();
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

fn drive_report(drive: &Drive) -> DriveReport {
    let status = drive.status();
    DriveReport {
        id: status.id,
        path: String::new(),
        state: match status.state {
            DriveState::Live => DriveReportState::Live,
            DriveState::Slow => DriveReportState::Slow,
            DriveState::Failing => DriveReportState::Failing,
            DriveState::Draining => DriveReportState::Draining,
            DriveState::Gone => DriveReportState::Gone,
            DriveState::Fenced | DriveState::Closed => DriveReportState::Fenced,
        },
        capacity_bytes: status.capacity.get(),
        used_bytes: status.used.get(),
        live_bytes: status.live.get(),
        free_bytes: status.free.get(),
        shards: status.shards,
        errors: status.counters.errors(),
        serial: String::new(),
        reason: status.reason,
        locate_until: None,
    }
}

/// Opens a drive and has its engine stepped. `None` when it does not open.
pub fn open_drive(world: &World, node: &Running, bay: Bay, life: u64) -> Option<Drive> {
    let (number, disk, meta, hurt) = bay;
    let seed = stream(world.plan.seed, "drive", (number as u64) << 16 | life);
    let gate = Gate::new(seed);
    let mut options = DriveOptions::new(node.pool.clone());
    options.background_rate = ByteCount::mib(1024);
    // A mount does one thing after the other; what is late or short comes later.
    let device = SimDevice::new(
        disk.connect(seed, Manners { late: 20, short: 5, again: 2, single: false }),
        Arc::clone(&gate),
    );
    match Drive::open_stepped(Path::new("simulated"), CLUSTER, options, device, meta) {
        Ok((opened, report, steps)) => {
            gate.mounted();
            world.trace.note(format_args!(
                "drive {number} opens: {} shards, {} torn, {} damaged, {} lost",
                report.shards,
                report.torn.len(),
                report.damaged.len(),
                report.lost
            ));
            if !hurt && !report.is_clean() {
                world.trace.violation("mount", format_args!("drive {number} is sound and finds damage"));
            }
            drop(node.spawn(drive(steps, Arc::clone(&gate))));
            node.gates.lock().insert(number, gate);
            Some(opened)
        }
        Err(error) => {
            world.trace.note(format_args!("drive {number} does not open: {error}"));
            None
        }
    }
}

/// Starts a node on its drives.
pub fn start(
    world: &Arc<World>,
    node: usize,
    pool: BufferPool,
    bays: Vec<Bay>,
    catalog: holdfast_catalog::CatalogReader,
    snapshot: holdfast_object::DirectorySnapshot,
) -> Arc<Running> {
    world.next_life(node);
    let life = world.life(node);
    world.log.replay(world, node);
    let weak: Weak<World> = Arc::downgrade(world);
    let health = Arc::new(Health::default());
    health.set_members(world.members_known_to(node).len());
    // No space is set aside: drives are tiny.
    health.set_spare(Some(0));
    let peers = SimPeers { world: weak.clone(), from: node, life, pool: pool.clone() };
    let shards = Arc::new(Shards::new(node_id(node), Vec::new(), peers, Arc::clone(&health)));
    let directory = Arc::new(Directory::new(CLUSTER, REGION.to_owned()));
    directory.update(snapshot);
    let (findings, found) = Findings::channel();
    let memory = ReadMemory::new(pool.clone());
    let stripes = StripeIo {
        shards: Arc::clone(&shards),
        health: Arc::clone(&health),
        write_pool: pool.clone(),
        read_memory: memory.clone(),
        counters: Arc::default(),
        findings,
        uses_spare: true,
    };
    let seat = Arc::new(Seat { world: weak, node, life });
    let catalogs = HashMap::from([(GROUP, catalog)]);
    let objects = Arc::new(ObjectService::new(Arc::clone(&directory), seat, catalogs, stripes));
    let rebuilder = StripeRebuilder { shards: Arc::clone(&shards), health: Arc::clone(&health), memory };
    let running = Arc::new(Running {
        objects: Arc::clone(&objects),
        service: ShardService::new(rebuilder),
        pool,
        shards: Arc::clone(&shards),
        health,
        directory,
        gates: Mutex::default(),
        off: CancellationToken::new(),
        tasks: Mutex::default(),
    });
    for bay in bays {
        if let Some(drive) = open_drive(world, &running, bay, life) {
            shards.add(drive);
        }
    }
    world.nodes.lock()[node] = Some(Arc::clone(&running));
    drop(running.spawn(workers::run(objects, node_id(node), found, running.off.clone())));
    drop(running.spawn(hear(Arc::clone(world), node, life)));
    running
}

/// A node hears how the others are, and itself.
async fn hear(world: Arc<World>, node: usize, life: u64) {
    loop {
        for other in world.members_known_to(node) {
            let (Some(own), Some(there)) = (world.node(node), world.node(other)) else { continue };
            if world.is_on(node, life) && world.net.connects(node, other) {
                own.health.heard(there.report(other), Instant::now().into_std());
            }
        }
        sleep(REPORT_INTERVAL).await;
    }
}

/// A node goes off.
pub fn stop(world: &World, node: usize) {
    let running = world.nodes.lock()[node].take();
    world.next_life(node);
    if let Some(running) = running {
        running.stop();
    }
}

/// The id of the drive of a number; `round` tells those apart that were put into the same bay.
#[must_use]
pub fn drive_id(number: usize, round: usize) -> DriveId {
    let mut id = [9; 16];
    (id[0], id[1]) = (u8::try_from(number).expect("few drives"), u8::try_from(round).expect("few rounds"));
    DriveId::from_bytes(id)
}

/// The tenant's partitions are found under this id.
pub const TENANT: TenantId = crate::rig::TENANT;
