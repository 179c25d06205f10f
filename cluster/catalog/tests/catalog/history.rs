//! Random histories against the model, and the same history on replicas that batch, crash and restore
//! differently: all of them end in the same state.

use std::{collections::BTreeSet, fs, path::Path};

use bytes::Bytes;
use holdfast_catalog::{
    BodyRef, BucketChange, CatalogMachine, Condition, DefaultRetention, DeleteItem, DocumentKind, GarbageId,
    MoveShards, ObjectChange, Op, Orphan, Outcome, Quota, Response, Retention, RetentionMode,
    RetentionPeriod, SetObject, ShardMove, Versioning, decode_outcome,
};
use holdfast_consensus::{Applied, StateMachine};
use holdfast_model::{Generation, ShardIndex, UnixMillis, limits::PART_SIZE_MIN};
use proptest::{prelude::*, strategy::ValueTree};

use crate::{common::*, model::Model};

pub const KEYS: [&str; 4] = ["a", "a/b", "é/\u{0}", "zz"];
const BUCKETS: [&str; 2] = ["b", "c"];
const DRIVES: u8 = 12;

/// One step, in small numbers that shrink well; ids are given when it is carried out.
#[derive(Debug, Clone)]
pub enum Step {
    Put { bucket: u8, key: usize, stripes: u64, condition: u8 },
    Delete { bucket: u8, keys: Vec<usize>, conditional: bool },
    DeleteVersion { bucket: u8, key: usize, which: usize, bypass: bool },
    Set { bucket: u8, key: usize, which: usize, change: u8 },
    SetBucket { bucket: u8, change: u8 },
    Quota { bucket: Option<u8>, limit: u64 },
    CreateBucket { bucket: u8 },
    DeleteBucket { bucket: u8 },
    CreateUpload { key: usize },
    PutPart { upload: usize, number: u32, stripes: u64, large: bool },
    Complete { upload: usize, skip: usize, wrong: bool, condition: u8 },
    Abort { upload: usize },
    Move { stripe: usize, index: u8, to: u8, stale: bool, two: bool },
    Sweep { count: usize },
    Condemn { ahead: u64 },
    Replace { which: usize, stripes: u64, stale: bool },
    Repeat { back: usize },
}

pub fn step() -> impl Strategy<Value = Step> {
    let (bucket, key) = (0..3u8, 0..KEYS.len());
    prop_oneof![
        6 => (bucket.clone(), key.clone(), 0..4u64, 0..4u8)
            .prop_map(|(bucket, key, stripes, condition)| Step::Put { bucket, key, stripes, condition }),
        3 => (bucket.clone(), prop::collection::vec(key.clone(), 1..4), any::<bool>())
            .prop_map(|(bucket, keys, conditional)| Step::Delete { bucket, keys, conditional }),
        4 => (bucket.clone(), key.clone(), 0..4usize, any::<bool>())
            .prop_map(|(bucket, key, which, bypass)| Step::DeleteVersion { bucket, key, which, bypass }),
        3 => (bucket.clone(), key.clone(), 0..6usize, 0..7u8)
            .prop_map(|(bucket, key, which, change)| Step::Set { bucket, key, which, change }),
        3 => (bucket.clone(), 0..8u8).prop_map(|(bucket, change)| Step::SetBucket { bucket, change }),
        1 => (prop::option::of(bucket.clone()), 0..400u64).prop_map(|(bucket, limit)| Step::Quota { bucket, limit }),
        1 => bucket.clone().prop_map(|bucket| Step::CreateBucket { bucket }),
        1 => bucket.prop_map(|bucket| Step::DeleteBucket { bucket }),
        2 => key.prop_map(|key| Step::CreateUpload { key }),
        6 => (0..3usize, 1..4u32, 0..3u64, prop::bool::weighted(0.8))
            .prop_map(|(upload, number, stripes, large)| Step::PutPart { upload, number, stripes, large }),
        3 => (0..3usize, 0..4usize, prop::bool::weighted(0.1), 0..4u8)
            .prop_map(|(upload, skip, wrong, condition)| Step::Complete { upload, skip, wrong, condition }),
        1 => (0..3usize).prop_map(|upload| Step::Abort { upload }),
        4 => (any::<usize>(), 0..3u8, 0..DRIVES, prop::bool::weighted(0.1), any::<bool>())
            .prop_map(|(stripe, index, to, stale, two)| Step::Move { stripe, index, to, stale, two }),
        2 => (1..5usize).prop_map(|count| Step::Sweep { count }),
        1 => (0..6u64).prop_map(|ahead| Step::Condemn { ahead }),
        3 => (any::<usize>(), 1..4u64, prop::bool::weighted(0.1))
            .prop_map(|(which, stripes, stale)| Step::Replace { which, stripes, stale }),
        2 => (0..6usize).prop_map(|back| Step::Repeat { back }),
    ]
}

/// Carries steps out: gives ids, remembers what there is to refer to.
#[derive(Default)]
struct Driver {
    next: u64,
    next_stripe: u64,
    uploads: Vec<(usize, u64, std::collections::BTreeMap<u32, u64>)>,
    done: Vec<Op>,
}

impl Driver {
    fn body(&mut self, count: u64, size: u64) -> BodyRef {
        let first = self.next_stripe;
        self.next_stripe += count;
        if count == 0 { inline("body") } else { stripes(first..first + count, size / count) }
    }

    fn condition(condition: u8, n: u64) -> Condition {
        match condition {
            0 => Condition { if_absent: true, if_etag: None },
            1 => Condition { if_absent: false, if_etag: Some(format!("etag-{}", n.saturating_sub(1))) },
            _ => Condition::default(),
        }
    }

    fn op(&mut self, step: &Step, replica: &Replica, model: &Model) -> Option<Op> {
        self.next += 1;
        let n = self.next;
        let op = match step {
            Step::Put { bucket, key, stripes, condition } => {
                let size = if *stripes == 0 { 4 } else { 60 };
                let body = self.body(*stripes, size);
                let condition_of = Self::condition(*condition, n);
                let mut op = put_into(bucket_id(*bucket + 1), KEYS[*key], n, size, body, condition_of);
                let Op::PutObject(put) = &mut op else { unreachable!() };
                put.extras.legal_hold = *condition == 3 && *bucket == 1;
                op
            }
            Step::Delete { bucket, keys, conditional } => {
                let if_etag = conditional.then(|| format!("etag-{}", n.saturating_sub(1)));
                let item = |(at, key): (usize, &usize)| DeleteItem {
                    if_etag: if_etag.clone(),
                    ..delete_item(KEYS[*key], 10 * n + at as u64, None)
                };
                let items = keys.iter().enumerate().map(item).collect();
                Op::DeleteObjects { bucket: bucket_id(*bucket + 1), items }
            }
            Step::DeleteVersion { bucket, key, which, bypass } => {
                let version = Some(model.selector(bucket_id(*bucket + 1), KEYS[*key], *which));
                let item =
                    DeleteItem { bypass_governance: *bypass, ..delete_item(KEYS[*key], 10 * n, version) };
                Op::DeleteObjects { bucket: bucket_id(*bucket + 1), items: vec![item] }
            }
            Step::Set { bucket, key, which, change } => {
                let bucket = bucket_id(*bucket + 1);
                let version = (*which > 0).then(|| model.selector(bucket, KEYS[*key], *which - 1));
                let until = UnixMillis::new(time_of(replica.index) + u64::from(*change) * 3);
                let retention = |mode| ObjectChange::Retention {
                    retention: Some(Retention { mode, until }),
                    bypass_governance: which.is_multiple_of(2),
                };
                let change = match change {
                    0 => ObjectChange::Tags(Bytes::from(format!("tags-{n}"))),
                    1 => ObjectChange::Acl(Bytes::new()),
                    2 | 3 => ObjectChange::LegalHold(*change == 2),
                    4 => retention(RetentionMode::Governance),
                    5 => retention(RetentionMode::Compliance),
                    _ => ObjectChange::Retention {
                        retention: None,
                        bypass_governance: which.is_multiple_of(2),
                    },
                };
                Op::SetObject(SetObject { bucket, key: KEYS[*key].into(), version, change })
            }
            Step::SetBucket { bucket, change } => {
                let period = RetentionPeriod::Days(1);
                let default = DefaultRetention { mode: RetentionMode::Governance, period };
                let body = n.is_multiple_of(2).then(|| Bytes::from(format!("document-{n}")));
                let change = match change {
                    0 => BucketChange::Versioning(Versioning::Off),
                    1..=3 => BucketChange::Versioning(Versioning::Enabled),
                    4 => BucketChange::Versioning(Versioning::Suspended),
                    5 => BucketChange::EnableObjectLock,
                    6 => BucketChange::DefaultRetention(n.is_multiple_of(2).then_some(default)),
                    _ => BucketChange::Document { kind: DocumentKind::Policy, id: String::new(), body },
                };
                set_bucket(*bucket + 1, change)
            }
            Step::Quota { bucket, limit } => {
                let quota =
                    Quota { bytes: Some(*limit), objects: n.is_multiple_of(2).then_some(*limit / 40) };
                // Quotas come and go, so that most of a history is lived without.
                let quota = if n.is_multiple_of(3) { quota } else { Quota::default() };
                match bucket {
                    Some(bucket) => set_bucket(*bucket + 1, BucketChange::Quota(quota)),
                    None => Op::SetQuota { quota },
                }
            }
            Step::CreateBucket { bucket } => {
                let name = BUCKETS[usize::from(*bucket) % 2].into();
                let (bucket, object_lock) = (bucket_id(*bucket + 1), n.is_multiple_of(2));
                if n.is_multiple_of(3) {
                    let documents = vec![(DocumentKind::Owner, Bytes::from_static(b"owner"))];
                    Op::CreateBucketWith { bucket, name, object_lock, documents }
                } else {
                    Op::CreateBucket { bucket, name, object_lock }
                }
            }
            Step::DeleteBucket { bucket } => {
                Op::DeleteBucket { name: BUCKETS[usize::from(*bucket) % 2].into() }
            }
            Step::CreateUpload { key } => {
                self.uploads.push((*key, n, std::collections::BTreeMap::new()));
                create_upload(KEYS[*key], n)
            }
            Step::PutPart { upload, number, stripes, large } => {
                let size = if *stripes == 0 { 4 } else { 6 * if *large { PART_SIZE_MIN } else { 1 } };
                let body = self.body(*stripes, size);
                let (key, id, parts) = self.recent(*upload)?;
                parts.insert(*number, n);
                put_part(KEYS[*key], *id, *number, n, size, body)
            }
            Step::Complete { upload, skip, wrong, condition } => {
                let (key, id, parts) = self.recent(*upload)?;
                let mut named: Vec<(u32, u64)> = parts.iter().map(|(number, n)| (*number, *n)).collect();
                if *skip < named.len() {
                    named.remove(*skip);
                }
                if *wrong {
                    named.reverse();
                }
                let mut op = complete(KEYS[*key], *id, n, &named);
                let Op::CompleteUpload(c) = &mut op else { unreachable!() };
                c.condition = Self::condition(*condition, n);
                op
            }
            Step::Abort { upload } => {
                let (key, id, _) = self.recent(*upload)?;
                abort(KEYS[*key], *id)
            }
            Step::Move { stripe, index, to, stale, two } => {
                let live = model.live_stripes();
                let stripe = *live.get(stripe.checked_rem(live.len())?)?;
                let shard = |index: u8, to: u8| ShardMove {
                    index: ShardIndex::new(index),
                    from: stripe.places[usize::from(index)],
                    to: place(to),
                };
                let mut moves = vec![shard(*index, *to)];
                if *two {
                    moves.push(shard((*index + 1) % 3, (*to + 1) % DRIVES));
                }
                let expected = Generation::new(stripe.generation.get() + u32::from(*stale));
                Op::MoveShards(MoveShards { stripe: stripe.id, expected, moves })
            }
            Step::Sweep { count } => {
                let mut ids: Vec<GarbageId> =
                    all_garbage(&replica.reader()).iter().take(*count).map(|g| g.id).collect();
                ids.push(GarbageId::Stripe(stripe_id(self.next_stripe / 2)));
                Op::RemoveGarbage { ids }
            }
            Step::Condemn { ahead } => {
                let stripe = stripe_id((self.next_stripe + ahead).saturating_sub(2));
                let shards = vec![(ShardIndex::new(0), place(3))];
                Op::Condemn { stripes: vec![Orphan { stripe, generation: Generation::new(0), shards }] }
            }
            Step::Replace { which, stripes, stale } => {
                let (reader, mut contents) = (replica.reader(), Vec::new());
                reader.visit_stripes(None, 1000, |owned, _| contents.push(owned.content)).ok()?;
                let content = *contents.get(which.checked_rem(contents.len())?)?;
                let size = reader.content_body(content).ok()??.size;
                // Divisible by any count of stripes here: sizes are multiples of six.
                let body = self.body(*stripes, size);
                let expected = reader.first_stripe(content).ok()??;
                let expected = if *stale { stripe_id(1_000_000) } else { expected };
                let Op::ReplaceStripes(mut op) = replace(content, 0, body) else { unreachable!() };
                op.expected = expected;
                Op::ReplaceStripes(op)
            }
            Step::Repeat { back } => {
                let op = self.done.iter().rev().nth(*back)?.clone();
                // A bucket deleted twice is refused the second time, which the model says as well.
                return Some(op);
            }
        };
        self.done.push(op.clone());
        Some(op)
    }

    fn recent(&mut self, back: usize) -> Option<&mut (usize, u64, std::collections::BTreeMap<u32, u64>)> {
        self.uploads.iter_mut().rev().nth(back)
    }
}

/// A log: entries of commands with what each came to.
#[derive(Default)]
pub struct Log {
    pub entries: Vec<Vec<Bytes>>,
    pub outcomes: Vec<Vec<Outcome>>,
    pub ops: Vec<Vec<Op>>,
}

/// Runs a history on one replica and the model side by side.
pub fn run(dir: &Path, batches: &[Vec<Step>]) -> (Replica, Log) {
    let mut replica = Replica::open(dir);
    let (mut model, mut driver, mut log) = (Model::default(), Driver::default(), Log::default());
    let locked = Op::CreateBucket { bucket: bucket_id(2), name: "c".into(), object_lock: true };
    let first = vec![create_partition(PARTITION), create_bucket(1, "b"), locked];
    for batch in std::iter::once(None).chain(batches.iter().map(Some)) {
        let ops: Vec<Op> = match batch {
            None => first.clone(),
            Some(steps) => steps.iter().filter_map(|step| driver.op(step, &replica, &model)).collect(),
        };
        let commands: Vec<Bytes> = ops.iter().map(|op| command(replica.index + 1, op.clone())).collect();
        let outcomes = replica.apply_all(ops.clone());
        for (op, outcome) in ops.iter().zip(&outcomes) {
            assert_eq!(outcome, &model.apply(UnixMillis::new(time_of(replica.index)), op), "{op:?}");
        }
        model.check_against(&replica.reader(), (0..DRIVES).map(drive));
        log.entries.push(commands);
        log.ops.push(ops);
        log.outcomes.push(outcomes);
    }
    (replica, log)
}

/// How another replica lives through the same log.
#[derive(Debug, Clone)]
pub enum Event {
    /// Applies this many entries in one call.
    Apply(usize),
    Checkpoint,
    /// The process is killed; after power loss only this fraction of each unflushed write-ahead file is left.
    Crash {
        kept: Option<f64>,
    },
    /// Its state is replaced by its own image, through a file.
    Restore,
}

pub fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1..6usize).prop_map(Event::Apply),
        2 => Just(Event::Checkpoint),
        2 => prop::option::of(0.0..1.0f64).prop_map(|kept| Event::Crash { kept }),
        1 => Just(Event::Restore),
    ]
}

pub fn live_through(log: &Log, events: &[Event], root: &Path) -> CatalogMachine {
    let mut life = 0;
    let mut machine = CatalogMachine::open(&root.join("0"), keys()).unwrap();
    let mut at = 0usize;
    let mut high_water = 0usize;
    for event in events.iter().chain([&Event::Apply(usize::MAX)]) {
        match event {
            Event::Apply(count) => {
                let end = at.saturating_add(*count).min(log.entries.len());
                let entries: Vec<Applied<'_>> =
                    (at..end).map(|i| Applied { index: i as u64 + 1, commands: &log.entries[i] }).collect();
                let answers = machine.apply(&entries).unwrap();
                for (i, answers) in (at..end).zip(answers) {
                    for (answer, expected) in answers.iter().zip(&log.outcomes[i]) {
                        let answer = decode_outcome(answer).unwrap();
                        let replayed = i < high_water && answer == Ok(Response::Replayed);
                        assert!(replayed || answer == *expected, "entry {i}: {answer:?}, not {expected:?}");
                    }
                }
                at = end;
                high_water = high_water.max(end);
            }
            Event::Checkpoint => machine.checkpoint(&at.to_le_bytes()).unwrap(),
            Event::Crash { kept } => {
                let next = root.join((life + 1).to_string());
                copy_dir(&root.join(life.to_string()), &next, &|_| *kept);
                life += 1;
                machine = CatalogMachine::open(&next, keys()).unwrap();
                at = machine.position().map_or(0, |p| usize::from_le_bytes(p.try_into().unwrap()));
            }
            Event::Restore => {
                let image = root.join("image");
                machine.snapshot(&image).unwrap();
                machine.install(&image, &at.to_le_bytes()).unwrap();
                fs::remove_file(image).unwrap();
            }
        }
    }
    machine
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_replica_ends_where_the_model_ends(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..8), 1..25),
        events in prop::collection::vec(event(), 0..16),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (replica, log) = run(dir.path(), &batches);
        let other_dir = tempfile::tempdir().unwrap();
        let other = live_through(&log, &events, other_dir.path());
        prop_assert_eq!(digests(&other.reader()), digests(&replica.machine.reader()));
    }
}

/// A test that never gets past the first refusal proves little: the histories above must reach them all.
#[test]
fn random_histories_reach_every_answer() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let batches = prop::collection::vec(prop::collection::vec(step(), 1..8), 20..40);
    let mut seen = BTreeSet::new();
    for _ in 0..24 {
        let history = batches.new_tree(&mut runner).unwrap().current();
        let dir = tempfile::tempdir().unwrap();
        let (_, log) = run(dir.path(), &history);
        for outcome in log.outcomes.concat() {
            seen.insert(match outcome {
                Ok(Response::ObjectsDeleted(answers)) => match &answers[0] {
                    Ok(deleted) => format!("deleted {}", name_of(deleted)),
                    Err(refusal) => format!("deleted {}", name_of(refusal)),
                },
                Ok(Response::GarbageRemoved(answers)) => format!("removed {}", answers[0]),
                Ok(Response::Condemned(answers)) => format!("condemned {}", answers[0]),
                Ok(response) => name_of(&response),
                Err(refusal) => name_of(&refusal),
            });
        }
    }
    let expected = [
        "BucketAlreadyExists",
        "BucketCreated",
        "BucketDeleted",
        "BucketNotEmpty",
        "BucketSet",
        "BucketState",
        "ContentChanged",
        "DeleteMarker",
        "InvalidPart",
        "InvalidPartOrder",
        "NoSuchBucket",
        "NoSuchKey",
        "NoSuchStripe",
        "NoSuchUpload",
        "NoSuchVersion",
        "ObjectPut",
        "ObjectSet",
        "PartPut",
        "PartTooSmall",
        "PartitionCreated",
        "PlaceOccupied",
        "PreconditionFailed",
        "QuotaExceeded",
        "QuotaSet",
        "ShardsMoved",
        "StripeChanged",
        "StripeInUse",
        "StripesReplaced",
        "UploadAborted",
        "UploadCompleted",
        "UploadCreated",
        "condemned false",
        "condemned true",
        "deleted Locked",
        "deleted Marked",
        "deleted Nothing",
        "deleted PreconditionFailed",
        "deleted Removed",
        "removed false",
        "removed true",
    ];
    let missing: Vec<_> = expected.iter().filter(|name| !seen.contains(**name)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}

/// The variant's name.
fn name_of(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}
