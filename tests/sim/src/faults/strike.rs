//! Each fault, done when its time comes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use holdfast_fault::{Cut, Fault as DiskFault};
use holdfast_object::workers::Standing;
use tokio::time::{Instant, sleep, sleep_until};

use super::{EMPTY_ASKED_EVERY, Site};
use crate::{
    keys::KeyState,
    node::{self},
    plan::{Fault, Kept},
    world::{World, node_id},
};

/// How long a node is off while a drive is put back to an older image.
const SWAP: Duration = Duration::from_millis(500);

/// A key is destroyed so long after all nodes have heard that it is to be.
const DESTROYED_AFTER: Duration = Duration::from_secs(10);

impl Site {
    /// The power of a node goes.
    pub(super) fn cut_power(&self, world: &World, node: usize, kept: Kept) {
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

    /// The second tenant's key stands otherwise. One that is to be destroyed is, some time after all nodes have heard of it.
    pub(super) fn key_becomes(self: &Arc<Self>, world: &Arc<World>, state: KeyState) {
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

    pub(super) fn later(self: &Arc<Self>, world: &Arc<World>, time: Duration, nodes: Vec<usize>) {
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
}
