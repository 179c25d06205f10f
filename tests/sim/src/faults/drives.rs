//! Drives: hurt, altered, replaced, written off.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_drive::{ShardInfo, ShardWrite};
use holdfast_fault::{Fault as DiskFault, FaultDisk};
use holdfast_model::{DriveId, Generation, ShardId, limits::SECTOR_SIZE};
use holdfast_object::workers::Standing;

use super::{Site, Slot, known_drive};
use crate::{
    audit::{catalog, live},
    node::{self, drive_id, open_drive},
    rig::PARTITION,
    world::World,
};

/// Shards of one drive that are looked for when it opens.
const SHARDS_MAX: usize = 1000;

/// How long a shard that is altered may take to be read.
const ALTER_TIMEOUT: Duration = Duration::from_secs(10);

impl Site {
    /// A blank drive takes the place of another.
    pub(super) fn replace(self: &Arc<Self>, world: &Arc<World>, number: usize) {
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

    pub(super) fn disk(&self, number: usize) -> FaultDisk {
        self.slots.lock()[number].disk.clone()
    }

    pub(super) fn breaks(&self, number: usize, fault: DiskFault) {
        let mut slots = self.slots.lock();
        (slots[number].broken, slots[number].hurt) = (true, true);
        // Writes that fail take nothing away that was acknowledged.
        slots[number].forgets |= !matches!(fault, DiskFault::WriteFails(..) | DiskFault::FlushFails(_));
        slots[number].disk.arrange(fault);
    }

    pub(super) fn drive_in(&self, number: usize) -> DriveId {
        drive_id(number, self.slots.lock()[number].round)
    }

    pub(super) fn hurt(&self, number: usize) {
        let mut slots = self.slots.lock();
        (slots[number].hurt, slots[number].will_forget) = (true, true);
    }

    pub(super) fn rot(&self, drive: usize, sectors: u64) {
        self.hurt(drive);
        let disk = self.disk(drive);
        let used = disk.used();
        let mut random = self.random.lock();
        for _ in 0..sectors.min(used.len() as u64) {
            let sector = used[random.below(used.len() as u64) as usize];
            disk.rot(sector + random.below(SECTOR_SIZE as u64), 1 << random.below(8));
        }
    }

    pub(super) async fn alter(&self, world: &World, number: usize) {
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
    pub(super) fn data_shards(&self, world: &World) -> BTreeMap<ShardId, (u8, u8)> {
        let mut shards = BTreeMap::new();
        for (_, stripe) in catalog(world).iter().flat_map(live).map(|(_, kept)| kept) {
            for (index, _) in stripe.shards().take(usize::from(stripe.data)) {
                shards.insert(ShardId { stripe: stripe.id, index }, (stripe.data, stripe.parity));
            }
        }
        shards
    }

    /// What the catalog places on a drive was acknowledged by it, and a sound drive has it after any power cut.
    pub(super) fn look_at_drives(&self, world: &World, node: usize, running: &node::Running) {
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

    /// An operator sees which drives do not open: those of which every label has rotted, say.
    pub(super) fn replace_what_does_not_open(self: &Arc<Self>, world: &Arc<World>) {
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
