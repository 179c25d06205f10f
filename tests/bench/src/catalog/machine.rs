//! A group's state machine with many objects: applying, listing, reading, and what it takes on the disk.

use std::{path::Path, sync::Arc, time::Instant};

use anyhow::{Result, ensure};
use holdfast_catalog::{CatalogMachine, ListQuery, decode_outcome};
use holdfast_consensus::{Applied, StateMachine};

use crate::{BATCH, BUCKET_NAME, DIRECTORIES, Keys, PARTITION, beginning, key, millis_at, put, sealed};

/// Entries between two checkpoints, as a running group makes them.
const CHECKPOINT_ENTRIES: u64 = 4096;
const SAMPLES: u64 = 1001;

/// Puts `objects` and prints what that and reading them takes.
///
/// # Errors
/// I/O.
pub fn measure(dir: &Path, objects: u64) -> Result<()> {
    let keys = Arc::new(Keys::new());
    let mut machine = CatalogMachine::open(dir, Arc::clone(&keys) as _)?;
    machine.apply(&[Applied { index: 1, commands: &beginning(&keys) }])?;
    let (mut applying, mut slowest) = (0.0_f64, 0.0_f64);
    let begun = Instant::now();
    for (index, batch) in (2..).zip(0..objects.div_ceil(BATCH)) {
        let numbers = batch * BATCH..((batch + 1) * BATCH).min(objects);
        let commands: Vec<bytes::Bytes> = numbers.map(|number| sealed(&keys, put(number))).collect();
        let started = Instant::now();
        let answers = machine.apply(&[Applied { index, commands: &commands }])?;
        let took = started.elapsed().as_secs_f64();
        applying += took;
        slowest = slowest.max(took);
        ensure!(decode_outcome(&answers[0][0])?.is_ok(), "a put was refused");
        if index % CHECKPOINT_ENTRIES == 0 {
            machine.checkpoint(b"bench")?;
        }
    }
    let all = begun.elapsed().as_secs_f64();
    machine.checkpoint(b"bench")?;
    let partition = machine.reader().partition(PARTITION)?;
    let bytes = std::fs::metadata(partition.path())?.len();

    let mut pages = Vec::new();
    for number in 0..SAMPLES.min(objects) {
        let from = format!("directory-{:03}/", number * 37 % (DIRECTORIES - 10));
        let started = Instant::now();
        let page = partition
            .list(BUCKET_NAME, &ListQuery { prefix: "", delimiter: None, after: Some(&from), limit: 1000 })?;
        pages.push(started.elapsed());
        ensure!(!page.objects.is_empty(), "an empty page after {from}");
    }
    let mut gets = Vec::new();
    for number in 0..SAMPLES {
        let wanted = key(number.wrapping_mul(99_991) % objects);
        let started = Instant::now();
        partition.get_object(BUCKET_NAME, &wanted)?;
        gets.push(started.elapsed());
    }
    println!("## one partition of {objects} objects, sealed, {BATCH} commands an entry");
    println!(
        "| puts/s | slowest entry ms | with sealing by the proposer, puts/s | 1,000 keys ms, p50 | p99 | one row ms, p50 | bytes/object |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    println!(
        "| {:.0} | {:.0} | {:.0} | {:.2} | {:.2} | {:.3} | {:.0} |\n",
        objects as f64 / applying,
        slowest * 1e3,
        objects as f64 / all,
        millis_at(&mut pages, 0.5),
        millis_at(&mut pages, 0.99),
        millis_at(&mut gets, 0.5),
        bytes as f64 / objects as f64,
    );
    Ok(())
}
