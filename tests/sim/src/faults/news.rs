//! What was decided about drives and members, and how nodes hear of it: late, and each at another time.

use std::{sync::Arc, time::Duration};

use holdfast_model::DriveId;
use holdfast_object::workers::Standing;
use tokio::time::sleep;

use super::Site;
use crate::world::{World, node_id};

/// How often news are tried to be got to a node that is cut off.
const NEWS_TRIED_EVERY: Duration = Duration::from_millis(500);

impl Site {
    /// Tells all nodes what was decided of drives and members.
    pub(super) fn tell(self: &Arc<Self>, world: &Arc<World>) {
        for node in 0..world.plan.nodes {
            self.tell_one(world, node);
        }
    }

    /// A node hears of it, at once or when news have come to it. One that is off does when it starts.
    pub(super) fn tell_one(self: &Arc<Self>, world: &Arc<World>, node: usize) {
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
    pub(super) fn hear(&self, world: &World, node: usize) {
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

    pub(super) fn stands(&self, drive: DriveId, standing: Standing) {
        for known in self.known.lock().iter_mut().filter(|known| known.drive == drive) {
            known.standing = standing;
        }
    }
}
