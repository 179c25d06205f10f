//! Stripes after they were written: what a drive held, moves, garbage, orphans.

use crate::common::*;
use holdfast_catalog::{GarbageId, MoveShards, Op, Orphan, PartitionReader, Refusal, Response, ShardMove};
use holdfast_consensus::StateMachine;
use holdfast_model::{Generation, ShardIndex, StripeId};

fn on_drive(reader: &PartitionReader, n: u8) -> Vec<(StripeId, u8, bool)> {
    let mut found = Vec::new();
    loop {
        let page = reader.stripes_on_drive(drive(n), found.last().map(|(id, _, _)| *id), 2).unwrap();
        if page.is_empty() {
            return found;
        }
        found.extend(page.iter().map(|s| (s.known.stripe.id, s.index.get(), s.known.live)));
    }
}

fn moved(stripe: u64, expected: u32, moves: &[(u8, u8, u8)]) -> Op {
    Op::MoveShards(MoveShards {
        stripe: stripe_id(stripe),
        expected: Generation::new(expected),
        moves: moves
            .iter()
            .map(|(index, from, to)| ShardMove {
                index: ShardIndex::new(*index),
                from: place(*from),
                to: place(*to),
            })
            .collect(),
    })
}

fn now_at(generation: u32) -> Response {
    Response::ShardsMoved { generation: Generation::new(generation) }
}

#[test]
fn a_drive_knows_what_it_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    // Stripe n is on drives n % 5 .. n % 5 + 3.
    replica.done(put("k", 1, 60, stripes(1..7, 10)));
    let reader = replica.reader();
    let expected: Vec<_> = [(1, 2), (2, 1), (3, 0), (6, 2)].map(|(n, i)| (stripe_id(n), i, true)).into();
    assert_eq!(on_drive(&reader, 3), expected);
    assert!(on_drive(&reader, 200).is_empty());
    assert!(reader.stripe_known(stripe_id(3)).unwrap() && !reader.stripe_known(stripe_id(9)).unwrap());

    // Deleted, the shards are still there until the sweeper has been.
    replica.done(delete("k"));
    assert_eq!(on_drive(&reader, 3).iter().filter(|(_, _, live)| *live).count(), 0);
    assert_eq!(on_drive(&reader, 3).len(), 4);
    assert!(reader.stripe_known(stripe_id(3)).unwrap());
    replica.done(Op::RemoveGarbage { ids: (1..7).map(|n| GarbageId::Stripe(stripe_id(n))).collect() });
    assert!(on_drive(&reader, 3).is_empty() && !reader.stripe_known(stripe_id(3)).unwrap());
}

#[test]
fn whoever_counts_what_drives_hold_is_told_of_what_is_placed_on_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let reader = replica.machine.reader();
    let placed = |drives: &[u8]| reader.placements_on(&drives.iter().map(|n| drive(*n)).collect());
    // Stripe 1 is on drives 1, 2 and 3.
    replica.done(put("k", 1, 10, stripes(1..2, 10)));
    let before = [&[1_u8][..], &[7], &[1, 7], &[200]].map(placed);
    assert_eq!(before, [1, 0, 1, 0]);

    // What is deleted, moved in place or refused is placed nowhere new.
    replica.done(put("gone", 2, 10, stripes(2..3, 10)));
    let before = [1, 2, 3, 4, 7].map(|n| placed(&[n]));
    replica.done(delete("gone"));
    replica.expect(moved(1, 0, &[(0, 1, 1)]), now_at(1));
    assert_eq!(replica.apply(moved(1, 0, &[(0, 1, 7)])), Err(Refusal::StripeChanged(Generation::new(1))));
    assert_eq!([1, 2, 3, 4, 7].map(|n| placed(&[n])), before);

    replica.expect(moved(1, 1, &[(0, 1, 7)]), now_at(2));
    assert_eq!([1, 2, 3, 4].map(|n| placed(&[n])), before[..4]);
    assert_eq!(placed(&[7]), before[4] + 1);

    // A state that comes from elsewhere may place anything anywhere.
    let image = dir.path().join("image");
    replica.machine.snapshot(&image).unwrap();
    let before = [3, 200].map(|n| placed(&[n]));
    replica.machine.install(&image, b"there").unwrap();
    assert!(placed(&[3]) > before[0] && placed(&[200]) > before[1]);
}

#[test]
fn a_move_switches_places_and_leaves_the_old_shard_to_the_sweeper() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 10, stripes(1..2, 10)));
    replica.expect(moved(1, 0, &[(0, 1, 7)]), now_at(1));
    let reader = replica.reader();
    let stripe = reader.stripe(stripe_id(1)).unwrap().unwrap();
    assert!(stripe.live);
    assert_eq!(stripe.stripe.places, [place(7), place(2), place(3)]);
    assert_eq!(on_drive(&reader, 7), [(stripe_id(1), 0, true)]);
    assert!(on_drive(&reader, 1).is_empty());
    let garbage = all_garbage(&reader);
    assert_eq!(garbage.len(), 1);
    assert_eq!(garbage[0].shards, [(ShardIndex::new(0), place(1))]);
    assert_eq!(reader.unswept(stripe_id(1)).unwrap(), garbage[0].shards);
    assert!(reader.unswept(stripe_id(2)).unwrap().is_empty());
    assert_eq!((garbage[0].stripe, garbage[0].generation), (stripe_id(1), Generation::new(0)));

    // Repeated; then from a view that is out of date.
    replica.expect(moved(1, 0, &[(0, 1, 7)]), now_at(1));
    assert_eq!(all_garbage(&reader).len(), 1);
    assert_eq!(replica.apply(moved(1, 0, &[(1, 2, 8)])), Err(Refusal::StripeChanged(Generation::new(1))));
    assert_eq!(replica.apply(moved(1, 1, &[(1, 5, 8)])), Err(Refusal::StripeChanged(Generation::new(1))));
    // Onto a drive that has a shard of it, or one that is not swept yet, or that another shard leaves now.
    assert_eq!(replica.apply(moved(1, 1, &[(1, 2, 3)])), Err(Refusal::PlaceOccupied));
    assert_eq!(replica.apply(moved(1, 1, &[(1, 2, 1)])), Err(Refusal::PlaceOccupied));
    assert_eq!(replica.apply(moved(1, 1, &[(1, 2, 3), (2, 3, 9)])), Err(Refusal::PlaceOccupied));
    assert_eq!(replica.apply(moved(9, 0, &[(1, 2, 3)])), Err(Refusal::NoSuchStripe));
    assert!(matches!(replica.apply(moved(1, 1, &[(3, 2, 9)])), Err(Refusal::Invalid(_))));
    assert!(matches!(replica.apply(moved(1, 1, &[])), Err(Refusal::Invalid(_))));
    replica.expect(Op::RemoveGarbage { ids: vec![garbage[0].id] }, Response::GarbageRemoved(vec![true]));
    assert!(reader.unswept(stripe_id(1)).unwrap().is_empty());
    replica.expect(moved(1, 1, &[(1, 2, 1)]), now_at(2));
    // Written anew in place: nothing is left behind.
    replica.expect(moved(1, 2, &[(2, 3, 3)]), now_at(3));
    assert_eq!(all_garbage(&reader).len(), 1);
    assert_eq!(
        reader.get_object("b", "k").unwrap().content[0].body.stripes()[0].generation,
        Generation::new(3)
    );
}

#[test]
fn a_dead_stripe_does_not_move() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 10, stripes(1..2, 10)));
    replica.done(delete("k"));
    assert_eq!(replica.apply(moved(1, 0, &[(0, 1, 7)])), Err(Refusal::NoSuchStripe));
}

#[test]
fn only_garbage_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 10, stripes(1..2, 10)));
    replica.done(put("old", 2, 20, stripes(2..4, 10)));
    replica.done(delete("old"));
    let remove = |ids: &[u64]| Op::RemoveGarbage {
        ids: ids.iter().map(|n| GarbageId::Stripe(stripe_id(*n))).collect(),
    };
    replica.expect(remove(&[1, 2, 9]), Response::GarbageRemoved(vec![false, true, false]));
    replica.expect(remove(&[2, 3]), Response::GarbageRemoved(vec![false, true]));
    replica
        .expect(Op::RemoveGarbage { ids: vec![GarbageId::Shards(1)] }, Response::GarbageRemoved(vec![false]));
    assert!(all_garbage(&replica.reader()).is_empty());
    assert_eq!(replica.reader().get_object("b", "k").unwrap().content[0].body, stripes(1..2, 10));
}

#[test]
fn a_condemned_stripe_never_becomes_part_of_an_object() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    replica.done(put("k", 1, 10, stripes(1..2, 10)));
    let orphan = |n: u64| Orphan {
        stripe: stripe_id(n),
        generation: Generation::new(0),
        shards: vec![(ShardIndex::new(1), place(4))],
    };
    let condemn = || Op::Condemn { stripes: vec![orphan(1), orphan(2)] };
    // The catalog knows stripe 1: it must not be deleted.
    replica.expect(condemn(), Response::Condemned(vec![false, true]));
    replica.expect(condemn(), Response::Condemned(vec![false, true]));
    let garbage = all_garbage(&replica.reader());
    assert_eq!(garbage.len(), 1);
    assert_eq!(
        (garbage[0].stripe, &garbage[0].shards[..]),
        (stripe_id(2), &[(ShardIndex::new(1), place(4))][..])
    );

    // Another node reports what its drives hold of it, among it what is known to wait already.
    let more =
        Orphan { shards: vec![(ShardIndex::new(1), place(4)), (ShardIndex::new(2), place(5))], ..orphan(2) };
    replica.expect(Op::Condemn { stripes: vec![more] }, Response::Condemned(vec![true]));
    let second = all_garbage(&replica.reader()).remove(1);
    assert_eq!((second.stripe, &second.shards[..]), (stripe_id(2), &[(ShardIndex::new(2), place(5))][..]));
    replica.expect(Op::RemoveGarbage { ids: vec![second.id] }, Response::GarbageRemoved(vec![true]));

    // The write that it belonged to was only slow. It must fail, before the sweep and after it.
    let late = || put("late", 2, 10, stripes(2..3, 10));
    assert_eq!(replica.apply(late()), Err(Refusal::StripeInUse(stripe_id(2))));
    replica.expect(Op::RemoveGarbage { ids: vec![garbage[0].id] }, Response::GarbageRemoved(vec![true]));
    assert_eq!(replica.apply(late()), Err(Refusal::StripeInUse(stripe_id(2))));
}
