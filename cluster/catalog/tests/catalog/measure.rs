//! Figures, printed with `--nocapture`. The bounds asserted are an order of magnitude below what was seen.

use std::time::Instant;

use bytes::Bytes;
use holdfast_catalog::{ListQuery, Op};
use holdfast_consensus::StateMachine;
use holdfast_model::{DatabaseId, PartitionId};

use crate::common::*;

const OBJECTS: u64 = 100_000;
/// Another count of objects, a million say.
const OBJECTS_WANTED: &str = "HOLDFAST_MEASURE_OBJECTS";
const BATCH: u64 = 512;
/// Directories that the objects lie in.
const DIRECTORIES: u64 = 200;
/// What a page of a listing may take (the bound); asserted with room for a busy machine.
const PAGE_MILLIS_MAX: u128 = 20;
const BUSY: u128 = 10;

#[test]
fn small_puts_in_batches_and_a_page_of_a_thousand_keys() {
    let objects: u64 = std::env::var(OBJECTS_WANTED).map_or(OBJECTS, |count| count.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    let body = inline(&"s".repeat(64));
    let start = Instant::now();
    let (mut in_apply, mut slowest) = (std::time::Duration::ZERO, std::time::Duration::ZERO);
    for batch in 0..objects.div_ceil(BATCH) {
        let index = replica.index + 1;
        let commands: Vec<Bytes> = (batch * BATCH..((batch + 1) * BATCH).min(objects))
            .map(|n| {
                command(index, put(&format!("dir{:03}/{n:08}", n % DIRECTORIES), n + 1, 64, body.clone()))
            })
            .collect();
        let begin = Instant::now();
        let outcomes = apply(&mut replica.machine, index, &commands);
        in_apply += begin.elapsed();
        slowest = slowest.max(begin.elapsed());
        assert!(outcomes.iter().all(Result::is_ok));
        replica.index = index;
    }
    let rate = objects as f64 / in_apply.as_secs_f64();
    eprintln!(
        "apply: {rate:.0} puts/s in batches of {BATCH}, slowest batch {slowest:?}, {:?} in all",
        start.elapsed()
    );

    let begin = Instant::now();
    replica.machine.checkpoint(b"p").unwrap();
    eprintln!("checkpoint of {objects} objects: {:?}", begin.elapsed());
    let size = std::fs::metadata(replica.reader().path()).unwrap().len();
    eprintln!("size: {} bytes per object", size / objects);

    let reader = replica.reader();
    for (what, prefix, delimiter, keys) in [
        ("flat page", "", None, 1000),
        ("one directory", "dir100/", Some("/"), (objects / DIRECTORIES).min(1000) as usize),
        ("directories", "", Some("/"), DIRECTORIES as usize),
    ] {
        let query = ListQuery { prefix, delimiter, after: None, limit: 1000 };
        let mut times: Vec<_> = (0..21)
            .map(|_| {
                let begin = Instant::now();
                let page = reader.list("b", &query).unwrap();
                assert_eq!(page.objects.len() + page.common_prefixes.len(), keys);
                begin.elapsed()
            })
            .collect();
        times.sort();
        eprintln!("list, {what}, {keys} items of {objects}: {:?} median", times[10]);
        assert!(times[10].as_millis() < PAGE_MILLIS_MAX * BUSY, "{what}: {:?}", times[10]);
    }
    let mut times: Vec<_> = (0..1001u64)
        .map(|n| {
            let key = n * 97;
            let begin = Instant::now();
            reader.get_object("b", &format!("dir{:03}/{key:08}", key % DIRECTORIES)).unwrap();
            begin.elapsed()
        })
        .collect();
    times.sort();
    eprintln!("get: {:?} median", times[500]);

    let begin = Instant::now();
    let image = dir.path().join("image");
    replica.machine.snapshot(&image).unwrap();
    eprintln!("snapshot: {:?}", begin.elapsed());
    let begin = Instant::now();
    reader.digest().unwrap();
    eprintln!("digest: {:?}", begin.elapsed());

    let into = PartitionId::new(2);
    let database_id = DatabaseId::from_bytes([2; 16]);
    let begin = Instant::now();
    replica.done(Op::SplitPartition { into, database_id });
    eprintln!("split of {objects} objects: {:?}, while the group waits", begin.elapsed());
    let (mut commands, mut slowest) = (0u32, std::time::Duration::ZERO);
    let start = Instant::now();
    // Rows are looked at in order, and none is left to look at behind the last.
    while commands < u32::try_from(objects / 1024).unwrap() {
        let begin = Instant::now();
        replica.done(Op::ClearPartition);
        slowest = slowest.max(begin.elapsed());
        commands += 1;
    }
    eprintln!("clearing one half: {:?}, {commands} commands, slowest {slowest:?}", start.elapsed());
    let of_both: u64 = [PARTITION, into]
        .map(|id| replica.machine.reader().partition(id).unwrap().layout().unwrap().versions)
        .iter()
        .sum();
    assert_eq!(of_both, objects);
    assert!(rate > 2_000.0, "{rate}");
}

#[test]
fn a_large_object_is_deleted_as_fast_as_a_small_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut replica = Replica::with_bucket(dir.path());
    const STRIPES: u64 = 20_000;
    let size = STRIPES * 100_000;
    let begin = Instant::now();
    replica.done(put("large", 1, size, stripes(1..STRIPES + 1, 100_000)));
    let put_time = begin.elapsed();
    replica.done(put("small", 2, 10, stripes(STRIPES + 1..STRIPES + 2, 10)));
    let begin = Instant::now();
    replica.done(delete("large"));
    let delete_time = begin.elapsed();
    eprintln!("{STRIPES} stripes: put {put_time:?}, delete {delete_time:?}");
    assert!(delete_time * 20 < put_time, "put {put_time:?}, delete {delete_time:?}");
}
