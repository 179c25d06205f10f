//! What goes wrong, done to the world when its time comes; and the hand that puts right what it can.

mod drives;
mod members;
mod news;
mod strike;

use std::{
    io,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use holdfast_catalog::MetadataSeal;
use holdfast_drive::Drive;
use holdfast_fault::{FaultDisk, Random};
use holdfast_model::{DriveId, UnixMillis, placement::Place};
use holdfast_object::{
    DirectorySnapshot, TenantEntry,
    workers::{KnownDrive, Standing},
};
use parking_lot::Mutex;

use crate::{
    keys::{Gate, KeyState},
    log::GROUP,
    node::{self, Bay, drive_id},
    plan::Plan,
    rig::{GUEST, GUEST_PARTITION, PARTITION, Rig, TENANT},
    world::{World, node_id, stream},
};

/// How often it is asked whether it is empty.
const EMPTY_ASKED_EVERY: Duration = Duration::from_secs(5);

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
}

fn known_drive(number: usize, round: usize, node: usize) -> KnownDrive {
    KnownDrive {
        drive: drive_id(number, round),
        node: node_id(node),
        standing: Standing::Active,
        since: UnixMillis::new(0),
    }
}
