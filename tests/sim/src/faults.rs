//! What goes wrong, done to the world when its time comes; and the hand that puts right what it can.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use holdfast_catalog::MetadataSeal;
use holdfast_drive::{Drive, ShardInfo, ShardWrite};
use holdfast_fault::{Cut, Fault as DiskFault, FaultDisk, Random};
use holdfast_model::{DriveId, Generation, ShardId, UnixMillis, limits::SECTOR_SIZE, placement::Place};
use holdfast_object::{
    DirectorySnapshot, TenantEntry,
    workers::{KnownDrive, Standing},
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    audit::{catalog, live},
    keys::{Gate, KeyState},
    log::GROUP,
    node::{self, Bay, drive_id, open_drive},
    plan::{Fault, Kept, Plan},
    rig::{GUEST, GUEST_PARTITION, PARTITION, Rig, TENANT},
    world::{World, node_id, stream},
};

/// How long a node is off while a drive is put back to an older image.
const SWAP: Duration = Duration::from_millis(500);

/// How often news are tried to be got to a node that is cut off.
const NEWS_TRIED_EVERY: Duration = Duration::from_millis(500);

/// A drive that is to leave is emptied for so long at least.
const EMPTIED_AT_LEAST: Duration = Duration::from_secs(20);

/// A key is destroyed so long after all nodes have heard that it is to be.
const DESTROYED_AFTER: Duration = Duration::from_secs(10);

/// How often it is asked whether it is empty.
const EMPTY_ASKED_EVERY: Duration = Duration::from_secs(5);

/// Shards of one drive that are looked for when it opens.
const SHARDS_MAX: usize = 1000;

/// How long a shard that is altered may take to be read.
const ALTER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is in one bay.
#[derive(Debug)]
struct Slot {
    /// The node that has the bay.
    node: usize,
    /// What was in it has left, and is not opened again.
    left: bool,
    disk: FaultDisk,
    round: usize,
    /// As it was at the start.
    first: FaultDisk,
    /// An operator has to replace it.
    broken: bool,
    /// Something was done to it that no drive may do: it may lose what it acknowledged.
    hurt: bool,
    /// It may have lost what it acknowledged.
    forgets: bool,
    /// It will when it is opened again; until then it knows what it acknowledged, whatever became of the bytes.
    will_forget: bool,
}

/// Drives and nodes of a run, and how they are started.
#[derive(Debug)]
pub struct Site {
    rig: Mutex<Rig>,
    slots: Mutex<Vec<Slot>>,
    /// What was decided about drives.
    known: Mutex<Vec<KnownDrive>>,
    /// As each node has heard of it.
    heard: Mutex<Vec<Vec<KnownDrive>>>,
    /// Nodes that are members.
    members: Mutex<Vec<usize>>,
    /// Drives and nodes that are to leave and have not yet.
    leaving: AtomicUsize,
    lost_nodes: Mutex<Vec<usize>>,
    random: Mutex<Random>,
}

impl Site {
    /// The site of a plan, with everything off.
    ///
    /// # Errors
    /// When disks cannot be formatted.
    pub fn new(plan: &Plan, mut rig: Rig) -> io::Result<Self> {
        let (mut slots, mut known) = (Vec::new(), Vec::new());
        for number in 0..plan.nodes * plan.drives {
            let node = number / plan.drives;
            let disk = rig.disk(node, drive_id(number, 0))?;
            slots.push(Slot {
                node,
                left: false,
                first: disk.copy(),
                disk,
                round: 0,
                broken: false,
                hurt: false,
                forgets: false,
                will_forget: false,
            });
            if node < plan.founders() {
                known.push(known_drive(number, 0, node));
            }
        }
        Ok(Self {
            rig: Mutex::new(rig),
            slots: Mutex::new(slots),
            heard: Mutex::new(vec![known.clone(); plan.nodes]),
            known: Mutex::new(known),
            members: Mutex::new((0..plan.founders()).collect()),
            leaving: AtomicUsize::new(0),
            lost_nodes: Mutex::default(),
            random: Mutex::new(Random::new(stream(plan.seed, "faults", 0))),
        })
    }

    /// Gives the rig back.
    #[must_use]
    pub fn into_rig(self) -> Rig {
        self.rig.into_inner()
    }

    /// All disks that are in their bays.
    #[must_use]
    pub fn disks(&self) -> Vec<FaultDisk> {
        self.slots.lock().iter().map(|slot| slot.disk.clone()).collect()
    }

    /// The drives that are in their bays.
    #[must_use]
    pub fn drives(&self) -> Vec<DriveId> {
        self.slots.lock().iter().enumerate().map(|(number, slot)| drive_id(number, slot.round)).collect()
    }

    /// All drives there ever were.
    #[must_use]
    pub fn known(&self) -> Vec<DriveId> {
        self.known.lock().iter().map(|known| known.drive).collect()
    }

    /// The drive of a place, when it is in its bay, open, and holds whatever it acknowledged.
    #[must_use]
    pub fn keeper(&self, world: &World, place: Place) -> Option<Drive> {
        let number = {
            let slots = self.slots.lock();
            let is_it = |number: &usize| drive_id(*number, slots[*number].round) == place.drive;
            (0..slots.len()).find(is_it).filter(|number| !slots[*number].forgets)
        }?;
        world.node(self.node_of(number))?.shards.local_drive(place.drive).ok()
    }

    /// Drives that have left.
    #[must_use]
    pub fn left(&self) -> Vec<DriveId> {
        let known = self.known.lock();
        known.iter().filter(|known| known.standing == Standing::Removed).map(|known| known.drive).collect()
    }

    fn node_of(&self, number: usize) -> usize {
        self.slots.lock()[number].node
    }

    /// The bays of a node, but for those whose drives have left.
    fn bays(&self, node: usize) -> Vec<usize> {
        let slots = self.slots.lock();
        (0..slots.len()).filter(|number| slots[*number].node == node && !slots[*number].left).collect()
    }

    /// What a node knows of tenants and drives.
    #[must_use]
    pub fn snapshot(&self, world: &World, node: usize) -> DirectorySnapshot {
        let plan = &world.plan;
        let key = Arc::clone(&self.rig.lock().key);
        let entry = TenantEntry {
            id: TENANT,
            name: "demo".to_owned(),
            level: plan.level(),
            key: Some(Arc::clone(&key) as _),
            waits_for: None,
            named_keys: Default::default(),
            webhooks: Default::default(),
            partitions: vec![(PARTITION, GROUP)],
        };
        let mut snapshot =
            DirectorySnapshot { drives: self.heard.lock()[node].clone(), ..Default::default() };
        snapshot.tenants.insert(TENANT, Arc::new(entry));
        snapshot.seals.insert(TENANT, Arc::new(MetadataSeal::new(1, key.metadata_key())));
        snapshot.metadata.insert(TENANT, Arc::new(key.metadata()));
        if !world.plan.guests.is_empty() {
            self.know_the_guest(&world.gates[node], plan, &mut snapshot);
        }
        snapshot
    }

    /// What a node knows of the second tenant, as `noded` puts it.
    fn know_the_guest(&self, gate: &Arc<Gate>, plan: &Plan, snapshot: &mut DirectorySnapshot) {
        let key = Arc::clone(&self.rig.lock().guest_key);
        let state = gate.state().0;
        if state == KeyState::Destroyed {
            snapshot.destroyed.insert(GUEST);
            return;
        }
        snapshot.seals.insert(GUEST, Arc::new(MetadataSeal::new(1, key.metadata_key())));
        snapshot.metadata.insert(GUEST, Arc::new(key.metadata()));
        if state == KeyState::Shredding {
            return;
        }
        let waits = state == KeyState::Waits;
        let entry = TenantEntry {
            id: GUEST,
            name: "guest".to_owned(),
            level: plan.level(),
            key: (!waits).then(|| Arc::clone(gate) as _),
            waits_for: waits.then(|| "its external key service does not answer".to_owned()),
            named_keys: Default::default(),
            webhooks: Default::default(),
            partitions: vec![(GUEST_PARTITION, GROUP)],
        };
        snapshot.tenants.insert(GUEST, Arc::new(entry));
    }

    /// Starts a node, unless it is on, lost, or no member.
    pub fn start(self: &Arc<Self>, world: &Arc<World>, node: usize) {
        let is_member = self.members.lock().contains(&node);
        if world.node(node).is_some() || self.lost_nodes.lock().contains(&node) || !is_member {
            return;
        }
        world.trace.note(format_args!("n{} starts", node + 1));
        let numbers = self.bays(node);
        let (pool, catalog, bays) = {
            let mut rig = self.rig.lock();
            let mut slots = self.slots.lock();
            let mut bays: Vec<Bay> = Vec::new();
            for number in numbers {
                slots[number].forgets |= slots[number].will_forget;
                let Ok(meta) = rig.meta(number) else { continue };
                bays.push((number, slots[number].disk.clone(), meta, slots[number].hurt));
            }
            let Ok(pool) = rig.pool(node) else { return };
            (pool, rig.machines[node].lock().reader(), bays)
        };
        let running = node::start(world, node, pool, bays, catalog, self.snapshot(world, node));
        self.drain(node, &running);
        self.tell_one(world, node);
        self.look_at_drives(world, node, &running);
    }

    /// What the catalog places on a drive was acknowledged by it, and a sound drive has it after any power cut.
    fn look_at_drives(&self, world: &World, node: usize, running: &node::Running) {
        world.log.catch_up(world, node, world.log.len());
        let Ok(catalog) = world.log.reader(node).partition(PARTITION) else { return };
        let numbers = self.bays(node);
        let slots = self.slots.lock();
        for number in numbers {
            let slot = &slots[number];
            if slot.hurt {
                continue;
            }
            let Ok(drive) = running.shards.local_drive(drive_id(number, slot.round)) else {
                world.trace.violation("mount", format_args!("drive {number} is sound and does not open"));
                continue;
            };
            let placed = catalog.stripes_on_drive(drive.id(), None, SHARDS_MAX).unwrap_or_default();
            for shard in placed.iter().filter(|shard| shard.known.live) {
                let id = ShardId { stripe: shard.known.stripe.id, index: shard.index };
                if !drive.holds(id) {
                    world
                        .trace
                        .violation("durability", format_args!("drive {number} lost shard {}", shard.index));
                }
            }
        }
    }

    fn drain(&self, node: usize, running: &node::Running) {
        let known = self.heard.lock();
        for drive in running.shards.local() {
            let standing =
                known[node].iter().find(|known| known.drive == drive.id()).map(|known| known.standing);
            drive.set_draining(standing == Some(Standing::Draining));
        }
    }

    /// The power of a node goes.
    fn cut_power(&self, world: &World, node: usize, kept: Kept) {
        node::stop(world, node);
        let numbers = self.bays(node);
        let slots = self.slots.lock();
        for number in numbers {
            let seed = self.random.lock().number();
            slots[number].disk.cut_power(match kept {
                Kept::Nothing => Cut::None,
                Kept::All => Cut::All,
                Kept::Some => Cut::Random(seed),
                Kept::Torn => Cut::Torn(seed),
            });
        }
    }

    /// Tells all nodes what was decided of drives and members.
    fn tell(self: &Arc<Self>, world: &Arc<World>) {
        for node in 0..world.plan.nodes {
            self.tell_one(world, node);
        }
    }

    /// A node hears of it, at once or when news have come to it. One that is off does when it starts.
    fn tell_one(self: &Arc<Self>, world: &Arc<World>, node: usize) {
        if world.plan.news_late_max == 0 {
            return self.hear(world, node);
        }
        let late = Duration::from_millis(self.random.lock().below(world.plan.news_late_max));
        let (site, world, life) = (Arc::clone(self), Arc::clone(world), world.life(node));
        tokio::spawn(async move {
            sleep(late).await;
            while world.is_on(node, life) && !world.net.connects(node, world.log.leader()) {
                sleep(NEWS_TRIED_EVERY).await;
            }
            if world.is_on(node, life) {
                site.hear(&world, node);
            }
        });
    }

    /// A node knows what was decided until now.
    fn hear(&self, world: &World, node: usize) {
        self.heard.lock()[node].clone_from(&self.known.lock());
        world.gates[node].set(world.key_state());
        let members = self.members.lock().clone();
        world.hear_of_members(node, &members);
        if let Some(running) = world.node(node) {
            running.directory.update(self.snapshot(world, node));
            running.health.set_members(members.len());
            for other in (0..world.plan.nodes).filter(|other| !members.contains(other)) {
                running.health.forget(node_id(other));
            }
            self.drain(node, &running);
        }
    }

    fn stands(&self, drive: DriveId, standing: Standing) {
        for known in self.known.lock().iter_mut().filter(|known| known.drive == drive) {
            known.standing = standing;
        }
    }

    /// A blank drive takes the place of another.
    fn replace(self: &Arc<Self>, world: &Arc<World>, number: usize) {
        let node = self.node_of(number);
        let (old, bay) = {
            let mut rig = self.rig.lock();
            let mut slots = self.slots.lock();
            let slot = &mut slots[number];
            let old = drive_id(number, slot.round);
            slot.round += 1;
            (slot.broken, slot.hurt, slot.forgets, slot.will_forget) = (false, false, false, false);
            let fresh = drive_id(number, slot.round);
            let (Ok(disk), Ok(meta)) = (rig.disk(node, fresh), rig.meta(number)) else { return };
            slot.first = disk.copy();
            slot.disk = disk.clone();
            self.known.lock().push(known_drive(number, slot.round, node));
            (old, (number, disk, meta, false))
        };
        if let Some(running) = world.node(node) {
            drop(running.shards.remove(old));
            if let Some(drive) = open_drive(world, &running, bay, world.life(node)) {
                running.shards.add(drive);
            }
        }
        self.tell(world);
        if world.plan.changes_members() {
            // What is away and not needed leaves by itself: garbage on it keeps nothing else from leaving.
            self.leaves(world, move |known| known.drive == old, None);
        }
    }

    /// An operator says of drives that are in no bay any more that they have left for good.
    pub fn write_off(self: &Arc<Self>, world: &Arc<World>) {
        let there = self.drives();
        for known in self.known.lock().iter_mut().filter(|known| !there.contains(&known.drive)) {
            known.standing = Standing::Removed;
        }
        self.tell(world);
    }

    fn disk(&self, number: usize) -> FaultDisk {
        self.slots.lock()[number].disk.clone()
    }

    fn breaks(&self, number: usize, fault: DiskFault) {
        let mut slots = self.slots.lock();
        (slots[number].broken, slots[number].hurt) = (true, true);
        // Writes that fail take nothing away that was acknowledged.
        slots[number].forgets |= !matches!(fault, DiskFault::WriteFails(..) | DiskFault::FlushFails(_));
        slots[number].disk.arrange(fault);
    }

    /// Does one fault. What ends by itself ends later.
    pub async fn strike(self: &Arc<Self>, world: &Arc<World>, fault: &Fault) {
        world.trace.note(format_args!("{fault:?}"));
        let millis = Duration::from_millis;
        match *fault {
            Fault::PowerCut { node, kept, millis: time } => {
                self.cut_power(world, node, kept);
                self.later(world, millis(time), vec![node]);
            }
            Fault::Blackout { kept, millis: time } => {
                for node in 0..world.plan.nodes {
                    self.cut_power(world, node, kept);
                }
                self.later(world, millis(time), (0..world.plan.nodes).collect());
            }
            Fault::Isolate { node, millis: time } => {
                for other in (0..world.plan.nodes).filter(|other| *other != node) {
                    world.net.cut(node, other, millis(time));
                    world.net.cut(other, node, millis(time));
                }
            }
            Fault::Cut { from, to, millis: time } => world.net.cut(from, to, millis(time)),
            Fault::Delay { from, to, by, millis: time } => {
                world.net.delay(from, to, millis(by), millis(time));
            }
            Fault::Stall { drive, millis: time } => {
                let running = world.node(self.node_of(drive));
                if let Some(gate) = running.and_then(|running| running.gates.lock().get(&drive).cloned()) {
                    gate.stall(millis(time));
                }
            }
            Fault::Handover => world.log.hand_over(world),
            Fault::Unknown { millis: time, percent } => world.log.confuse(millis(time), percent),
            Fault::Garble { node, count } => world.net.garble(node, count),
            Fault::Scrub { node } => {
                if let Some(running) = world.node(node) {
                    running.objects.scrub_now();
                }
            }
            Fault::Rot { drive, sectors } => self.rot(drive, sectors),
            Fault::WritesFail { drive } => self.breaks(drive, DiskFault::WriteFails(0, libc::EIO)),
            Fault::FlushFails { drive } => self.breaks(drive, DiskFault::FlushFails(0)),
            Fault::ReadsFail { drive } => self.breaks(drive, DiskFault::ReadFails(0, libc::EIO)),
            Fault::Alter { drive } => self.alter(world, drive).await,
            Fault::Vanish { drive } => self.breaks(drive, DiskFault::Vanishes(0)),
            Fault::Hang { drive } => self.breaks(drive, DiskFault::Hangs(0)),
            Fault::LoseWrite { drive, after } => {
                self.hurt(drive);
                self.disk(drive).arrange(DiskFault::WriteLost(after));
            }
            Fault::MisdirectWrite { drive, after, by } => {
                self.hurt(drive);
                self.disk(drive).arrange(DiskFault::WriteMisdirected(after, by));
            }
            Fault::Stale { drive } => {
                let node = self.node_of(drive);
                self.cut_power(world, node, Kept::All);
                let mut slots = self.slots.lock();
                slots[drive].disk = slots[drive].first.copy();
                (slots[drive].hurt, slots[drive].forgets) = (true, true);
                drop(slots);
                self.later(world, SWAP, vec![node]);
            }
            Fault::Blank { drive } => self.replace(world, drive),
            Fault::LoseNode { node } => {
                self.cut_power(world, node, Kept::Nothing);
                self.lost_nodes.lock().push(node);
            }
            Fault::Drain { drive } => {
                self.stands(self.drive_in(drive), Standing::Draining);
                self.tell(world);
            }
            Fault::Retire { drive } => {
                let id = self.drive_in(drive);
                self.leaves(world, move |known| known.drive == id, None);
            }
            Fault::WriteOff { drive } => {
                let id = self.drive_in(drive);
                self.hurt(drive);
                self.stands(id, Standing::Removed);
                self.has_left(world, id, true);
                self.tell(world);
            }
            Fault::Key(state) => self.key_becomes(world, state),
            Fault::Add { node } => self.add(world, node),
            Fault::Join { node } => self.join(world, node),
            // Those that stay must be enough for the level.
            Fault::Leave { node } if self.members.lock().len() > world.plan.founders() => {
                self.leaves(world, move |known| known.node == node_id(node), Some(node));
            }
            Fault::Leave { .. } => {}
        }
    }

    fn drive_in(&self, number: usize) -> DriveId {
        drive_id(number, self.slots.lock()[number].round)
    }

    /// A drive is not opened again; with `pulled` it is taken out of its bay.
    fn has_left(&self, world: &World, drive: DriveId, pulled: bool) {
        world.drive_left(drive);
        let node = {
            let mut slots = self.slots.lock();
            let is_it = |number: &usize| drive_id(*number, slots[*number].round) == drive;
            let Some(number) = (0..slots.len()).find(is_it) else { return };
            (slots[number].left, slots[number].broken) = (true, false);
            slots[number].node
        };
        if let Some(running) = world.node(node).filter(|_| pulled) {
            drop(running.shards.remove(drive));
        }
    }

    /// The second tenant's key stands otherwise. One that is to be destroyed is, some time after all nodes have heard of it.
    fn key_becomes(self: &Arc<Self>, world: &Arc<World>, state: KeyState) {
        world.decide_key_state(state);
        self.tell(world);
        if state != KeyState::Shredding {
            return;
        }
        self.leaving.fetch_add(1, Ordering::Relaxed);
        let (site, world) = (Arc::clone(self), Arc::clone(world));
        tokio::spawn(async move {
            let all_know = |state| {
                let nodes = 0..world.plan.nodes;
                nodes
                    .into_iter()
                    .all(|node| world.node(node).is_some() && world.gates[node].state().0 == state)
            };
            while !all_know(KeyState::Shredding) {
                sleep(EMPTY_ASKED_EVERY).await;
            }
            sleep(DESTROYED_AFTER).await;
            world.decide_key_state(KeyState::Destroyed);
            site.tell(&world);
            while !all_know(KeyState::Destroyed) {
                sleep(EMPTY_ASKED_EVERY).await;
            }
            world.trace.note(format_args!("the second tenant's key is destroyed"));
            site.leaving.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// A drive in a bay that was empty.
    fn add(self: &Arc<Self>, world: &Arc<World>, node: usize) {
        let bay = {
            let (mut rig, mut slots) = (self.rig.lock(), self.slots.lock());
            let number = slots.len();
            let (Ok(disk), Ok(meta)) = (rig.disk(node, drive_id(number, 0)), rig.meta(number)) else {
                return;
            };
            let first = disk.copy();
            let (round, broken, hurt, forgets, will_forget) = (0, false, false, false, false);
            let disk_of_slot = disk.clone();
            slots.push(Slot {
                node,
                left: false,
                disk: disk_of_slot,
                round,
                first,
                broken,
                hurt,
                forgets,
                will_forget,
            });
            self.known.lock().push(known_drive(number, 0, node));
            (number, disk, meta, false)
        };
        if let Some(running) = world.node(node)
            && let Some(drive) = open_drive(world, &running, bay, world.life(node))
        {
            running.shards.add(drive);
        }
        self.tell(world);
    }

    /// A node becomes a member. It does not vote.
    fn join(self: &Arc<Self>, world: &Arc<World>, node: usize) {
        let numbers = self.bays(node);
        self.known.lock().extend(numbers.into_iter().map(|number| known_drive(number, 0, node)));
        self.members.lock().push(node);
        // It learns of its cluster by joining it.
        self.hear(world, node);
        self.start(world, node);
        self.tell(world);
    }

    /// Drives are emptied and leave when nothing is placed on them, and a node after its drives: as `noded` does.
    fn leaves(
        self: &Arc<Self>,
        world: &Arc<World>,
        which: impl Fn(&KnownDrive) -> bool + Send + 'static,
        node: Option<usize>,
    ) {
        self.leaving.fetch_add(1, Ordering::Relaxed);
        let (site, world) = (Arc::clone(self), Arc::clone(world));
        tokio::spawn(async move {
            loop {
                let staying: Vec<DriveId> = {
                    let known = site.known.lock();
                    let stays = |known: &&KnownDrive| which(known) && known.standing != Standing::Removed;
                    known.iter().filter(stays).map(|known| known.drive).collect()
                };
                if staying.is_empty() {
                    break;
                }
                staying.iter().for_each(|drive| site.stands(*drive, Standing::Draining));
                site.tell(&world);
                sleep(EMPTIED_AT_LEAST).await;
                for drive in staying {
                    site.leaves_when_empty(&world, drive).await;
                }
            }
            if let Some(node) = node {
                site.node_leaves(&world, node).await;
            }
            site.leaving.fetch_sub(1, Ordering::Relaxed);
        });
    }

    async fn leaves_when_empty(self: &Arc<Self>, world: &Arc<World>, drive: DriveId) {
        loop {
            if let Some(leader) = world.node(world.log.leader())
                && let Ok(true) = leader.objects.drive_is_empty(drive).await
            {
                break;
            }
            sleep(EMPTY_ASKED_EVERY).await;
        }
        let placed = world.log.complete().and_then(|log| log.partition(PARTITION).ok());
        let on_it = |(key, stripe): (String, holdfast_catalog::StripeRef)| {
            stripe.places.iter().any(|place| place.drive == drive).then_some(key)
        };
        if let Some(key) = placed.and_then(|catalog| live(&catalog).into_values().find_map(on_it)) {
            world.trace.violation("left", format_args!("a drive leaves with a shard of {key}"));
        }
        self.stands(drive, Standing::Removed);
        world.trace.note(format_args!("drive {} has left", drive.as_bytes()[0]));
        // One is pulled, another stays where it is.
        self.has_left(world, drive, drive.as_bytes()[0].is_multiple_of(2));
        self.tell(world);
    }

    async fn node_leaves(self: &Arc<Self>, world: &Arc<World>, node: usize) {
        self.members.lock().retain(|member| *member != node);
        let mut voters = world.log.voters();
        voters.retain(|voter| *voter != node);
        let come = self.members.lock().iter().copied().find(|member| !voters.contains(member));
        voters.extend(come);
        world.log.set_voters(voters);
        if world.log.leader() == node {
            world.log.hand_over(world);
        }
        self.tell(world);
        sleep(EMPTIED_AT_LEAST).await;
        world.trace.note(format_args!("n{} has left", node + 1));
        node::stop(world, node);
    }

    /// Waits until what is to leave has left. It must have, `patience` after faults have ended.
    pub async fn finish_leaving(&self, world: &World, patience: Duration) {
        let begun = Instant::now();
        while self.leaving.load(Ordering::Relaxed) > 0 {
            if begun.elapsed() > patience {
                let what = format_args!("a drive, a node or a key has not left after {patience:?}");
                return world.trace.violation("left", what);
            }
            sleep(EMPTY_ASKED_EVERY).await;
        }
    }

    fn hurt(&self, number: usize) {
        let mut slots = self.slots.lock();
        (slots[number].hurt, slots[number].will_forget) = (true, true);
    }

    fn rot(&self, drive: usize, sectors: u64) {
        self.hurt(drive);
        let disk = self.disk(drive);
        let used = disk.used();
        let mut random = self.random.lock();
        for _ in 0..sectors.min(used.len() as u64) {
            let sector = used[random.below(used.len() as u64) as usize];
            disk.rot(sector + random.below(SECTOR_SIZE as u64), 1 << random.below(8));
        }
    }

    async fn alter(&self, world: &World, number: usize) {
        self.hurt(number);
        let id = drive_id(number, self.slots.lock()[number].round);
        let Some(node) = world.node(self.node_of(number)) else { return };
        let Ok(drive) = node.shards.local_drive(id) else { return };
        let data = self.data_shards(world);
        for ShardInfo { id, generation, tenant, .. } in drive.list(None, SHARDS_MAX) {
            // A parity shard is met when it is needed, or never.
            let Some((data, parity)) = data.get(&id).copied() else { continue };
            let Ok((read, manifest)) = drive.get_whole(id, generation, ALTER_TIMEOUT).await else { continue };
            let mut payload = node.pool.acquire(read.len()).await;
            payload.copy_from_slice(&read);
            payload[0] ^= 1;
            // Of the same generation it would be taken for a repetition.
            let generation = Generation::new(generation.get() + 1);
            let write = ShardWrite { id, generation, tenant, data, parity, manifest, payload };
            if let Err(error) = drive.put(write).await {
                world.trace.note(format_args!("not altered: {error}"));
            }
        }
    }

    /// The data shards of all live stripes, with the width of each.
    fn data_shards(&self, world: &World) -> BTreeMap<ShardId, (u8, u8)> {
        let mut shards = BTreeMap::new();
        for (_, stripe) in catalog(world).iter().flat_map(live).map(|(_, kept)| kept) {
            for (index, _) in stripe.shards().take(usize::from(stripe.data)) {
                shards.insert(ShardId { stripe: stripe.id, index }, (stripe.data, stripe.parity));
            }
        }
        shards
    }

    fn later(self: &Arc<Self>, world: &Arc<World>, time: Duration, nodes: Vec<usize>) {
        let (site, world) = (Arc::clone(self), Arc::clone(world));
        tokio::spawn(async move {
            sleep(time).await;
            for node in nodes {
                site.start(&world, node);
            }
        });
    }

    /// Does the faults of a plan when their time comes.
    pub async fn break_things(self: Arc<Self>, world: Arc<World>) {
        let begun = Instant::now();
        for (at, fault) in world.plan.faults.clone() {
            sleep_until(begun + Duration::from_millis(at)).await;
            self.strike(&world, &fault).await;
        }
    }

    /// All faults end: links pass, nodes are on, and an operator replaces what is broken for good.
    pub fn put_right(self: &Arc<Self>, world: &Arc<World>) {
        world.trace.note(format_args!("faults end"));
        world.net.heal();
        world.log.heal();
        if world.key_state() != KeyState::Active {
            // Does nothing when it is to be destroyed.
            world.decide_key_state(KeyState::Active);
            self.tell(world);
        }
        let lost = std::mem::take(&mut *self.lost_nodes.lock());
        let broken: Vec<usize> = {
            let slots = self.slots.lock();
            let is_broken = |number: &usize| {
                let slot: &Slot = &slots[*number];
                !slot.left && (slot.broken || lost.contains(&slot.node))
            };
            (0..slots.len()).filter(is_broken).collect()
        };
        for slot in self.slots.lock().iter().filter(|slot| !slot.broken) {
            slot.disk.heal();
        }
        if !world.plan.beyond {
            for number in broken {
                self.replace(world, number);
            }
        }
        for node in 0..world.plan.nodes {
            self.start(world, node);
        }
        if !world.plan.beyond {
            self.replace_what_does_not_open(world);
        }
    }

    /// An operator sees which drives do not open: those of which every label has rotted, say.
    fn replace_what_does_not_open(self: &Arc<Self>, world: &Arc<World>) {
        let hurt: Vec<(usize, DriveId)> = {
            let slots = self.slots.lock();
            let of = |(number, slot): (usize, &Slot)| {
                (slot.hurt && !slot.left).then(|| (number, drive_id(number, slot.round)))
            };
            slots.iter().enumerate().filter_map(of).collect()
        };
        for (number, drive) in hurt {
            let node = world.node(self.node_of(number));
            if node.is_some_and(|node| node.shards.local_drive(drive).is_err()) {
                self.replace(world, number);
            }
        }
    }
}

fn known_drive(number: usize, round: usize, node: usize) -> KnownDrive {
    KnownDrive {
        drive: drive_id(number, round),
        node: node_id(node),
        standing: Standing::Active,
        since: UnixMillis::new(0),
    }
}
