//! Every pattern of losses that a level promises to survive, and every one that goes one further.

use std::collections::BTreeSet;

use holdfast_model::{ByteCount, DriveId, Level, NodeId, level::ParityLevel, placement::Place};
use holdfast_stripe::Layout;

use crate::cluster::{Cluster, Stored};

/// Stripes of each level.
const STRIPES: usize = 8;

/// One pattern in so many is read from the drives on the larger cluster; all of them are reckoned.
const READ_INTERVAL: usize = 7;

/// All sets of `size` out of `0..count`.
fn sets(count: usize, size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for last in size - 1..count {
        for mut set in sets(last, size - 1) {
            set.push(last);
            all.push(set);
        }
    }
    all
}

fn levels(nodes: usize) -> impl Iterator<Item = Level> {
    let mirrors = (2..=nodes as u8).map(|copies| Level::Mirror { copies });
    ParityLevel::every().map(Level::Parity).chain(mirrors)
}

type Pattern = BTreeSet<DriveId>;

struct Patterns<'a> {
    places: &'a [Place],
    nodes: usize,
}

impl Patterns<'_> {
    fn drives(&self, count: usize) -> Vec<Pattern> {
        let set = |set: Vec<usize>| set.into_iter().map(|at| self.places[at].drive).collect();
        sets(self.places.len(), count).into_iter().map(set).collect()
    }

    fn of_nodes(&self, nodes: &[usize]) -> Pattern {
        let lost = |place: &&Place| nodes.iter().any(|node| place.node == NodeId::new(*node as u64 + 1));
        self.places.iter().filter(lost).map(|place| place.drive).collect()
    }

    fn nodes(&self, count: usize) -> Vec<Pattern> {
        sets(self.nodes, count).iter().map(|nodes| self.of_nodes(nodes)).collect()
    }

    /// Everything that the level promises to survive.
    fn promised(&self, level: Level) -> Vec<Pattern> {
        let mut all = self.drives(usize::from(level.drives_survived()));
        all.extend(self.nodes(usize::from(level.nodes_survived())));
        if level == Level::Parity(ParityLevel::Plus3d1n1d) {
            for node in 0..self.nodes {
                let lost = self.of_nodes(&[node]);
                let others = self.places.iter().filter(|place| !lost.contains(&place.drive));
                all.extend(others.map(|place| {
                    let mut lost = lost.clone();
                    lost.insert(place.drive);
                    lost
                }));
            }
        }
        all
    }
}

fn lost_shards(stored: &Stored, lost: &Pattern) -> usize {
    stored.stripe.places.iter().filter(|place| lost.contains(&place.drive)).count()
}

/// Whether all of it can be read: enough shards are left, or those that hold content are.
fn is_readable(stored: &Stored, lost: &Pattern) -> bool {
    let stripe = &stored.stripe;
    let layout = Layout::new(stripe.data, stripe.parity, stripe.len).unwrap();
    let content = layout.plan(0..stripe.len);
    lost_shards(stored, lost) <= usize::from(stripe.parity)
        || content.iter().all(|span| !lost.contains(&stripe.places[span.shard].drive))
}

async fn try_all(nodes: usize, per_node: usize, read_interval: usize) {
    let cluster = Cluster::new(nodes, per_node, ByteCount::mib(64));
    let places: Vec<Place> = cluster.drives.iter().map(|(place, _, _)| *place).collect();
    let patterns = Patterns { places: &places, nodes };
    let whole = cluster.without(|_| false);
    let (mut reckoned, mut read, mut beyond) = (0, 0, 0);
    for (number, level) in levels(nodes).enumerate() {
        if level.geometry(&vec![per_node; nodes]).is_none() {
            continue;
        }
        let mut stored = Vec::new();
        for stripe in 0..STRIPES {
            let len = [1, 20_000, 70_000, 150_000][stripe % 4];
            stored.push(cluster.write(&whole, level, len, (number * STRIPES + stripe) as u32).await);
        }
        for (at, lost) in patterns.promised(level).iter().enumerate() {
            for stored in &stored {
                let shards = lost_shards(stored, lost);
                assert!(
                    shards <= usize::from(stored.stripe.parity),
                    "{level} on {nodes}x{per_node}: {lost:?} takes {shards} shards"
                );
            }
            reckoned += 1;
            if at % read_interval == 0 {
                let stored = &stored[read % STRIPES];
                let view = cluster.without(|place| lost.contains(&place.drive));
                let found = view.read(cluster.key.key(), stored).await;
                assert_eq!(found.as_ref(), Some(&stored.content), "{level} without {lost:?}");
                read += 1;
            }
        }
        // One further: what cannot be read is exactly what lost more shards than it has parity, content among them.
        let further = patterns.drives(usize::from(level.drives_survived()) + 1);
        for lost in further.iter().step_by(read_interval * 20) {
            let view = cluster.without(|place| lost.contains(&place.drive));
            for stored in &stored {
                let readable = is_readable(stored, lost);
                let found = view.read(cluster.key.key(), stored).await;
                assert_eq!(found, readable.then(|| stored.content.clone()), "{level} without {lost:?}");
            }
            beyond += 1;
        }
    }
    println!("{nodes}x{per_node}: {reckoned} patterns, {read} read back, {beyond} patterns one further");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_loss_that_a_level_promises_to_survive_is_survived_on_three_nodes_of_four() {
    try_all(3, 4, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_loss_that_a_level_promises_to_survive_is_survived_on_five_nodes_of_four() {
    try_all(5, 4, READ_INTERVAL).await;
}
