//! Moves of shards whose drives are to be emptied, while others of the stripe cannot be read.

use holdfast_model::{
    ByteCount, Generation, Level, ShardIndex,
    limits::SECTOR_SIZE,
    placement::{Place, replace},
};
use holdfast_store::{Relocation, StripeRebuilder};

use crate::cluster::{Cluster, TENANT};

/// Two shards leave. One of them cannot be read, and neither can one that stays: with the other that leaves there are
/// just enough.
#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_is_read_for_what_cannot_be() {
    let cluster = Cluster::new(3, 4, ByteCount::mib(64));
    let whole = cluster.without(|_| false);
    let mut stored = cluster.write(&whole, Level::PLUS_2D_1N, 100_000, 1).await;
    let stripe = &mut stored.stripe;
    assert_eq!((stripe.data, stripe.parity), (4, 2));
    let gone = [stripe.places[1].drive, stripe.places[2].drive];
    let view = cluster.without(|place| gone.contains(&place.drive));
    let avoid: Vec<_> = stripe.places.iter().map(|place| place.drive).collect();
    let kept: Vec<Place> = stripe.places[2..].to_vec();
    let to = replace(&kept, 2, Some(2), &cluster.candidates(), &avoid, SECTOR_SIZE as u64, 1);
    let relocations: Vec<Relocation> = (0..2)
        .map(|index| Relocation { index: ShardIndex::new(index), readable: true, to: to[usize::from(index)] })
        .collect();
    let rebuilder = StripeRebuilder {
        shards: view.shards.clone(),
        health: view.health.clone(),
        memory: view.reader.memory.clone(),
    };
    let generation = Generation::new(2);
    rebuilder.relocate(TENANT, stripe, &relocations, generation).await.unwrap();
    stripe.generation = generation;
    stripe.places[..2].copy_from_slice(&to);
    assert_eq!(view.read(cluster.key.key(), &stored).await.as_ref(), Some(&stored.content));
}
