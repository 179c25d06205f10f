//! Partitions that are split: together they answer as one that never was, at any moment, through crashes, and when
//! what the split left behind is cleared away nothing is lost and nothing left over.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_catalog::{
    CLEARING_MILLIS_MIN, CatalogMachine, DeleteItem, GarbageId, HashRange, ListPage, ListQuery, Op, Outcome,
    PartitionReader, Quota, ReadError, Refusal, Response, UploadPage, UploadQuery, VersionMarker,
    VersionPage, VersionQuery,
};
use holdfast_consensus::StateMachine;
use holdfast_model::{DatabaseId, PartitionId};
use proptest::{prelude::*, strategy::ValueTree};

use crate::{common::*, history};

const FIRST_TIME: u64 = 1;

fn database(partition: u64) -> DatabaseId {
    DatabaseId::from_bytes([u8::try_from(partition).unwrap(); 16])
}

fn split_into(partition: u64) -> Op {
    Op::SplitPartition { into: PartitionId::new(partition), database_id: database(partition) }
}

/// All partitions of the tenant, as the layers above see them.
struct Family {
    replica: Replica,
    /// What gives commands their time.
    time: u64,
    log: Vec<Vec<Bytes>>,
    outcomes: Vec<Vec<Outcome>>,
}

impl Family {
    fn new(dir: &std::path::Path) -> Self {
        Self { replica: Replica::open(dir), time: FIRST_TIME, log: Vec::new(), outcomes: Vec::new() }
    }

    fn entry(&mut self, commands: Vec<(u64, Op)>) -> Vec<Outcome> {
        self.replica.index += 1;
        let commands: Vec<Bytes> =
            commands.into_iter().map(|(partition, op)| for_partition(partition, self.time, op)).collect();
        let outcomes = apply(&mut self.replica.machine, self.replica.index, &commands);
        self.log.push(commands);
        self.outcomes.push(outcomes.clone());
        outcomes
    }

    fn to(&mut self, partition: u64, op: Op) -> Outcome {
        self.entry(vec![(partition, op)]).remove(0)
    }

    fn readers(&self) -> Vec<(u64, PartitionReader)> {
        let reader = self.replica.machine.reader();
        let open =
            |id: holdfast_catalog::Identity| (id.partition.get(), reader.partition(id.partition).unwrap());
        reader.partitions().into_iter().map(open).collect()
    }

    fn owner(&self, key: &str) -> u64 {
        let has = |(_, reader): &(u64, PartitionReader)| reader.layout().unwrap().range.has(key.as_bytes());
        let owners: Vec<_> = self.readers().into_iter().filter(has).collect();
        assert_eq!(owners.len(), 1, "each key has one owner");
        owners[0].0
    }

    /// Does what the layer above does with a command of a client.
    fn done(&mut self, op: &Op) -> Outcome {
        let home = PARTITION.get();
        let key = match op {
            Op::PutObject(put) => &put.key,
            Op::SetObject(set) => &set.key,
            Op::PutPart(put) => &put.key,
            Op::CompleteUpload(complete) => &complete.key,
            Op::CreateUpload { key, .. } | Op::AbortUpload { key, .. } => key,
            Op::DeleteObjects { bucket, items } => {
                let mut answers = Vec::new();
                for item in items {
                    let items: Vec<DeleteItem> = vec![item.clone()];
                    match self.to(self.owner(&item.key), Op::DeleteObjects { bucket: *bucket, items })? {
                        Response::ObjectsDeleted(one) => answers.extend(one),
                        other => panic!("{other:?}"),
                    }
                }
                return Ok(Response::ObjectsDeleted(answers));
            }
            Op::DeleteBucket { name } => return self.delete_bucket(name),
            Op::Condemn { stripes } => {
                let ids = stripes.iter().map(|orphan| orphan.stripe).collect();
                let Response::Condemned(barred) = self.to(home, Op::Bar { stripes: ids })? else { panic!() };
                let unknown = stripes.iter().zip(&barred).filter(|(_, barred)| **barred);
                let stripes = unknown.map(|(orphan, _)| orphan.clone()).collect();
                assert!(
                    matches!(self.to(home, Op::Condemn { stripes })?, Response::Condemned(all) if all.iter().all(|c| *c))
                );
                return Ok(Response::Condemned(barred));
            }
            _ => return self.to(home, op.clone()),
        };
        self.to(self.owner(key), op.clone())
    }

    fn delete_bucket(&mut self, name: &str) -> Outcome {
        let home = PARTITION.get();
        let Ok(bucket) = self.replica.reader().get_bucket(name) else { return Err(Refusal::NoSuchBucket) };
        let (bucket, token) = (bucket.id, [7; 16]);
        match self.to(home, Op::CloseBucket { bucket, token }) {
            Ok(_) => self.to(home, Op::DeleteClosedBucket { bucket, token }),
            Err(refusal) => {
                self.to(home, Op::ReopenBucket { bucket, token }).unwrap();
                Err(refusal)
            }
        }
    }

    fn clear(&mut self) {
        self.time += u64::try_from(CLEARING_MILLIS_MIN).unwrap();
        for (partition, _) in self.readers() {
            while self.to(partition, Op::ClearPartition) != Ok(Response::Cleared { done: true }) {}
        }
    }

    fn list(&self, bucket: &str, query: &ListQuery<'_>) -> ListPage {
        let pages = self.readers().iter().map(|(_, reader)| reader.list(bucket, query).unwrap()).collect();
        ListPage::merged(pages, query.limit).unwrap()
    }

    fn list_versions(&self, bucket: &str, query: &VersionQuery<'_>) -> VersionPage {
        let pages =
            self.readers().iter().map(|(_, reader)| reader.list_versions(bucket, query).unwrap()).collect();
        VersionPage::merged(pages, query.limit).unwrap()
    }

    fn list_uploads(&self, bucket: &str, query: &UploadQuery<'_>) -> UploadPage {
        let pages =
            self.readers().iter().map(|(_, reader)| reader.list_uploads(bucket, query).unwrap()).collect();
        UploadPage::merged(pages, query.limit).unwrap()
    }

    /// Compares all that readers see with what one that was never split shows.
    fn check_against(&self, whole: &PartitionReader) {
        let buckets = whole.list_buckets().unwrap();
        for (_, reader) in self.readers() {
            let names = |reader: &PartitionReader| -> Vec<_> {
                let all = reader.list_buckets().unwrap().into_iter();
                all.map(|b| (b.name, b.id, b.versioning, b.object_lock, b.retention)).collect()
            };
            assert_eq!(names(&reader), names(whole));
        }
        for bucket in &buckets {
            let parts =
                self.readers().into_iter().map(|(_, reader)| reader.get_bucket(&bucket.name).unwrap());
            let mut usage = holdfast_catalog::Usage::default();
            for part in parts {
                usage += part.usage;
            }
            assert_eq!(usage, bucket.usage);
            for key in history::KEYS {
                let reader = self.replica.machine.reader();
                let owner = reader.partition(PartitionId::new(self.owner(key))).unwrap();
                let seen = |reader: &PartitionReader| format!("{:?}", reader.get_object(&bucket.name, key));
                assert_eq!(seen(&owner), seen(whole), "{key:?}");
                for (other, reader) in self.readers() {
                    if other != self.owner(key) {
                        assert!(matches!(reader.get_object(&bucket.name, key), Err(ReadError::Moved)));
                    }
                }
            }
            self.check_listings(whole, &bucket.name);
        }
        // Garbage is the same; how single shards are numbered is each partition's own affair.
        let garbage = |readers: Vec<PartitionReader>| -> BTreeMap<_, BTreeSet<_>> {
            let mut all: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
            for row in readers.iter().flat_map(all_garbage) {
                let whole = matches!(row.id, GarbageId::Stripe(_));
                let shards = row.shards.iter().map(|(index, place)| (index.get(), place.drive));
                all.entry((row.stripe, whole, row.generation.get())).or_default().extend(shards);
            }
            all
        };
        let parts = self.readers().into_iter().map(|(_, reader)| reader).collect();
        assert_eq!(garbage(parts), garbage(vec![whole.clone()]));
    }

    fn check_listings(&self, whole: &PartitionReader, bucket: &str) {
        for (prefix, delimiter, limit) in
            [("", None, 1000), ("", None, 1), ("", Some("/"), 1), ("", Some("/"), 2), ("a", Some("/"), 3)]
        {
            let (mut next, mut versions, mut uploads) = (None, None, None);
            for _ in 0..100 {
                let query = ListQuery { prefix, delimiter, after: next.as_deref(), limit };
                let page = self.list(bucket, &query);
                assert_eq!(page, whole.list(bucket, &query).unwrap());
                next = page.next;
                if next.is_none() {
                    break;
                }
            }
            for _ in 0..100 {
                let marker: Option<&(String, Option<_>)> = versions.as_ref();
                let after = marker.map(|(key, version)| VersionMarker { key, version: *version });
                let query = VersionQuery { prefix, delimiter, after, limit };
                let page = self.list_versions(bucket, &query);
                assert_eq!(page, whole.list_versions(bucket, &query).unwrap());
                versions = page.next;
                if versions.is_none() {
                    break;
                }
            }
            for _ in 0..100 {
                let marker: Option<&(String, Option<_>)> = uploads.as_ref();
                let after = marker.map(|(key, upload)| (key.as_str(), *upload));
                let query = UploadQuery { prefix, delimiter, after, limit };
                let page = self.list_uploads(bucket, &query);
                assert_eq!(page, whole.list_uploads(bucket, &query).unwrap());
                uploads = page.next;
                if uploads.is_none() {
                    break;
                }
            }
        }
    }

    /// What is on each drive, of all partitions.
    fn places(readers: &[PartitionReader]) -> BTreeMap<u8, Vec<String>> {
        let of_drive = |n: u8| {
            let mut held: Vec<String> = Vec::new();
            for reader in readers {
                let shards = reader.stripes_on_drive(drive(n), None, 10_000).unwrap();
                held.extend(shards.iter().map(|shard| format!("{shard:?}")));
            }
            held.sort();
            (n, held)
        };
        (0..12).map(of_drive).collect()
    }
}

/// Steps that mean the same to a split tenant: moves and sweeps are a single partition's affair.
fn is_client_like(op: &Op) -> bool {
    !matches!(
        op,
        Op::MoveShards(_)
            | Op::RemoveGarbage { .. }
            | Op::ReplaceStripes(_)
            | Op::SetQuota { .. }
            | Op::SetBucket { change: holdfast_catalog::BucketChange::Quota(_), .. }
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    /// A split tenant answers every client as one that is not, before, while and after rows are cleared away.
    #[test]
    fn together_they_are_one(
        batches in prop::collection::vec(prop::collection::vec(history::step(), 1..8), 4..20),
        splits in prop::collection::vec((0..20usize, 0..4usize), 1..4),
        clears in prop::collection::vec(0..20usize, 0..3),
    ) {
        // The steps become commands by a first run; what only concerns single partitions is left out.
        let scratch = tempfile::tempdir().unwrap();
        let (_, log) = history::run(scratch.path(), &batches);
        let (whole_dir, split_dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut whole = Replica::open(whole_dir.path());
        let mut family = Family::new(split_dir.path());
        let mut next = 2;
        for (at, ops) in log.ops.iter().enumerate() {
            for op in ops.iter().filter(|op| is_client_like(op)) {
                whole.index += 1;
                family.time += 1;
                let commands = [for_partition(PARTITION.get(), family.time, op.clone())];
                let expected = apply(&mut whole.machine, whole.index, &commands).remove(0);
                prop_assert_eq!(family.done(op), expected, "{:?}", op);
            }
            for (_, which) in splits.iter().filter(|(when, _)| *when == at) {
                let partitions = family.readers();
                let (source, _) = partitions[which % partitions.len()];
                match family.to(source, split_into(next)) {
                    Ok(Response::PartitionSplit) => next += 1,
                    refused => prop_assert_eq!(refused, Err(Refusal::Clearing)),
                }
            }
            if clears.contains(&at) {
                family.clear();
                whole.index += 1;
            }
            family.check_against(&whole.reader());
        }
        family.clear();
        family.check_against(&whole.reader());
        let readers: Vec<_> = family.readers().into_iter().map(|(_, reader)| reader).collect();
        prop_assert_eq!(Family::places(&readers), Family::places(&[whole.reader()]));
        let ranges = readers.iter().map(|reader| reader.layout().unwrap().range);
        prop_assert!(HashRange::tile(ranges));
    }

    /// Replicas that batch, crash and restore differently hold the same rows.
    #[test]
    fn every_replica_ends_in_the_same_halves(
        batches in prop::collection::vec(prop::collection::vec(history::step(), 1..8), 4..12),
        splits in prop::collection::vec(0..12usize, 1..3),
        events in prop::collection::vec(history::event(), 0..16),
    ) {
        let (log, expected) = log_with_splits(&batches, &splits);
        let dir = tempfile::tempdir().unwrap();
        let other = history::live_through(&log, &events, dir.path());
        prop_assert_eq!(digests(&other.reader()), expected);
    }
}

/// A log whose entries have splits in their middle, with what came before and after it in the same entry.
fn log_with_splits(
    batches: &[Vec<history::Step>],
    splits: &[usize],
) -> (history::Log, Vec<holdfast_catalog::Digest>) {
    let (scratch, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_, log) = history::run(scratch.path(), batches);
    let mut family = Family::new(dir.path());
    let mut next = 2;
    for (at, ops) in log.ops.iter().enumerate() {
        family.time += 1;
        let mut commands: Vec<(u64, Op)> = Vec::new();
        let there = next;
        for (which, op) in ops.iter().enumerate() {
            if which == ops.len() / 2 && splits.contains(&at) {
                commands.push((PARTITION.get(), split_into(next)));
                next += 1;
            }
            // To every partition: all but one refuse what is about a key, or about all partitions.
            commands.extend((1..there).map(|partition| (partition, op.clone())));
            commands.push((PARTITION.get() + at as u64 % (there - 1), Op::ClearPartition));
        }
        family.entry(commands);
    }
    let mut log = history::Log::default();
    log.entries = std::mem::take(&mut family.log);
    log.outcomes = std::mem::take(&mut family.outcomes);
    (log, digests(&family.replica.machine.reader()))
}

/// Every crash at every entry around a split, with nothing, part or all of the write-ahead files kept.
#[test]
fn a_split_that_is_cut_off_is_done_again() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let batches = prop::collection::vec(prop::collection::vec(history::step(), 6..8), 6)
        .new_tree(&mut runner)
        .unwrap()
        .current();
    let (log, expected) = log_with_splits(&batches, &[3]);
    for applied in 1..=log.entries.len() {
        for kept in [None, Some(0.0), Some(0.5), Some(0.9)] {
            for checkpoint in [0, 2] {
                let dir = tempfile::tempdir().unwrap();
                let mut events = vec![history::Event::Apply(checkpoint), history::Event::Checkpoint];
                events.push(history::Event::Apply(applied.saturating_sub(checkpoint)));
                events.push(history::Event::Crash { kept });
                let machine = history::live_through(&log, &events, dir.path());
                assert_eq!(digests(&machine.reader()), expected, "cut off after entry {applied}");
            }
        }
    }
}

/// The moment in which both files are there and the lower half does not know it yet.
#[test]
fn the_upper_half_may_be_there_before_the_lower_half_is_one() {
    let (dir, before, after) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut replica = Replica::with_bucket(dir.path());
    for n in 0..40 {
        replica.done(put(&format!("k{n}"), n + 1, 4, inline("body")));
    }
    replica.machine.checkpoint(b"here").unwrap();
    copy_dir(dir.path(), &before.path().join("state"), &|_| None);
    let split = [for_partition(PARTITION.get(), 100, split_into(2))];
    replica.index += 1;
    apply(&mut replica.machine, replica.index, &split);
    let expected = digests(&replica.machine.reader());
    // The upper half's files from after the split, everything else from before it.
    let target = after.path().join("state");
    copy_dir(&before.path().join("state"), &target, &|_| None);
    let name = std::fs::read_to_string(dir.path().join("current")).unwrap();
    for file in ["p2.sqlite", "p2.key"] {
        std::fs::copy(dir.path().join(name.trim()).join(file), target.join(name.trim()).join(file)).unwrap();
    }
    let mut machine = CatalogMachine::open(&target, keys()).unwrap();
    assert_eq!(machine.reader().partitions().len(), 2);
    apply(&mut machine, replica.index, &split);
    assert_eq!(digests(&machine.reader()), expected);
}

#[test]
fn a_quota_is_shared_and_shares_add_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    for n in 0..30 {
        replica.done(put(&format!("k{n}"), n + 1, 4, inline("body")));
    }
    replica.done(Op::SetQuota { quota: Quota { bytes: Some(301), objects: Some(100) } });
    replica.done(split_into(2));
    let layouts = |replica: &Replica| {
        [1, 2].map(|n| replica.machine.reader().partition(PartitionId::new(n)).unwrap().layout().unwrap())
    };
    let [lower, upper] = layouts(&replica);
    assert_eq!((lower.versions + upper.versions, lower.bytes + upper.bytes), (30, 120));
    assert_eq!(lower.quota.bytes.unwrap() + upper.quota.bytes.unwrap(), 301);
    assert_eq!(lower.quota.objects.unwrap() + upper.quota.objects.unwrap(), 100);
    assert_eq!(replica.apply(Op::SetQuota { quota: Quota::default() }), Err(Refusal::Moved));
    // Shared anew, once for each sharing that was seen.
    let quota = |bytes| Quota { bytes: Some(bytes), objects: None };
    let shares = vec![(PartitionId::new(1), quota(200)), (PartitionId::new(2), quota(101))];
    let share = Op::ShareQuota { before: lower.quota_shares, shares };
    replica.expect(share.clone(), Response::QuotaShared);
    assert_eq!(replica.apply(share), Err(Refusal::Moved));
    assert_eq!(layouts(&replica).map(|layout| layout.quota), [quota(200), quota(101)]);
}

#[test]
fn a_bucket_is_deleted_everywhere_or_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut family = Family::new(dir.path());
    family.to(1, create_partition(PARTITION)).unwrap();
    family.to(1, create_bucket(1, "b")).unwrap();
    family.to(1, split_into(2)).unwrap();
    let (bucket, token, other) = (bucket_id(1), [1; 16], [2; 16]);
    let delete_bucket = Op::DeleteBucket { name: "b".into() };
    assert_eq!(family.to(1, delete_bucket), Err(Refusal::Moved));
    // "a" is in the upper half.
    assert_eq!(family.owner("a"), 2);
    family.to(2, put("a", 1, 4, inline("body"))).unwrap();
    assert_eq!(family.to(1, Op::CloseBucket { bucket, token }), Err(Refusal::BucketNotEmpty));
    // Closed in the lower half alone: opened again by whoever closed it.
    let put_lower = put("zz", 2, 4, inline("body"));
    let lower = family.owner("zz");
    assert_eq!(family.to(lower, put_lower.clone()), Err(Refusal::BucketClosed { token }));
    family.to(1, Op::ReopenBucket { bucket, token: other }).unwrap();
    assert_eq!(family.to(lower, put_lower.clone()), Err(Refusal::BucketClosed { token }));
    family.to(1, Op::ReopenBucket { bucket, token }).unwrap();
    family.to(lower, put_lower.clone()).unwrap();
    // Empty everywhere, and closed by one after the other: only the later may delete.
    family.done(&delete("a")).unwrap();
    family.done(&delete("zz")).unwrap();
    family.to(1, Op::CloseBucket { bucket, token }).unwrap();
    family.to(1, Op::CloseBucket { bucket, token: other }).unwrap();
    assert_eq!(
        family.to(1, Op::DeleteClosedBucket { bucket, token }),
        Err(Refusal::BucketClosed { token: other })
    );
    assert_eq!(family.to(1, Op::DeleteClosedBucket { bucket, token: other }), Ok(Response::BucketDeleted));
    for (_, reader) in family.readers() {
        assert!(matches!(reader.get_bucket("b"), Err(ReadError::NoSuchBucket)));
    }
}

#[test]
fn shards_stay_until_what_was_left_behind_is_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let mut family = Family::new(dir.path());
    family.to(1, create_partition(PARTITION)).unwrap();
    family.to(1, create_bucket(1, "b")).unwrap();
    family.to(1, put("a", 1, 30, stripes(1..4, 10))).unwrap();
    family.to(1, split_into(2)).unwrap();
    let shard = holdfast_catalog::ShardMove {
        index: holdfast_model::ShardIndex::new(0),
        from: stripe(1, 10).places[0],
        to: place(9),
    };
    let moves = Op::MoveShards(holdfast_catalog::MoveShards {
        stripe: stripe_id(1),
        expected: holdfast_model::Generation::new(0),
        moves: vec![shard],
    });
    assert_eq!(family.to(1, moves.clone()), Err(Refusal::Clearing));
    assert_eq!(family.to(2, moves.clone()), Err(Refusal::Clearing));
    assert_eq!(family.to(1, split_into(3)), Err(Refusal::Clearing));
    // Not before its time, however often it is asked for.
    for _ in 0..8 {
        assert_eq!(family.to(1, Op::ClearPartition), Ok(Response::Cleared { done: false }));
    }
    family.clear();
    assert_eq!(family.to(1, moves.clone()), Err(Refusal::NoSuchStripe));
    assert!(family.to(2, moves).is_ok());
    assert_eq!(family.to(1, split_into(3)), Ok(Response::PartitionSplit));
    // Proposed again, it is the same split, however many came since.
    let ranges = |family: &Family| -> Vec<HashRange> {
        family.readers().iter().map(|(_, reader)| reader.layout().unwrap().range).collect()
    };
    let before = ranges(&family);
    assert_eq!(family.to(1, split_into(2)), Ok(Response::PartitionSplit));
    assert_eq!((ranges(&family), before.len()), (before, 3));
}
