//! Drives and nodes that come and go.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use holdfast_model::DriveId;
use holdfast_object::workers::{KnownDrive, Standing};
use tokio::time::{Instant, sleep};

use super::{EMPTY_ASKED_EVERY, Site, Slot, known_drive};
use crate::{
    audit::live,
    node::{self, drive_id, open_drive},
    rig::PARTITION,
    world::World,
};

/// A drive that is to leave is emptied for so long at least.
const EMPTIED_AT_LEAST: Duration = Duration::from_secs(20);

impl Site {
    /// A drive is not opened again; with `pulled` it is taken out of its bay.
    pub(super) fn has_left(&self, world: &World, drive: DriveId, pulled: bool) {
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

    /// A drive in a bay that was empty.
    pub(super) fn add(self: &Arc<Self>, world: &Arc<World>, node: usize) {
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
    pub(super) fn join(self: &Arc<Self>, world: &Arc<World>, node: usize) {
        let numbers = self.bays(node);
        self.known.lock().extend(numbers.into_iter().map(|number| known_drive(number, 0, node)));
        self.members.lock().push(node);
        // It learns of its cluster by joining it.
        self.hear(world, node);
        self.start(world, node);
        self.tell(world);
    }

    /// Drives are emptied and leave when nothing is placed on them, and a node after its drives: as `noded` does.
    pub(super) fn leaves(
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

    pub(super) async fn leaves_when_empty(self: &Arc<Self>, world: &Arc<World>, drive: DriveId) {
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

    pub(super) async fn node_leaves(self: &Arc<Self>, world: &Arc<World>, node: usize) {
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

    pub(super) fn drain(&self, node: usize, running: &node::Running) {
        let known = self.heard.lock();
        for drive in running.shards.local() {
            let standing =
                known[node].iter().find(|known| known.drive == drive.id()).map(|known| known.standing);
            drive.set_draining(standing == Some(Standing::Draining));
        }
    }
}
