//! The least that a rebuild of lost shards has to do: read as many others as it takes past the page cache, decode,
//! write durably. No network, no catalog, no checksums, no reading back.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use holdfast_erasure::Code;
use holdfast_model::limits::SECTOR_SIZE;
use nix::fcntl::OFlag;

const DATA: u8 = 4;
const PARITY: u8 = 2;
const SHARD: usize = 512 << 10;

/// Shards rebuilt at once: more than the machine has cores, so that reading, decoding and writing overlap.
const PARALLEL: u64 = 4;

/// Shards written between two flushes.
const FLUSH_INTERVAL: u64 = 16;

/// Shards measured at most: the rate does not change any more.
const SHARDS_MAX: u64 = 2000;

/// Rebuilds `shards` of 512 KiB from what lies in the drive files of `dir`, into a file beside them; MB/s.
pub fn measure(dir: &Path, shards: u64) -> Result<f64> {
    let mut drives: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    drives.sort();
    ensure!(drives.len() >= usize::from(DATA), "{} drive files in {}", drives.len(), dir.display());
    let target = dir.with_file_name("bare");
    let shards = shards.min(SHARDS_MAX);
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    thread::scope(|scope| {
        let work = || rebuild(&drives, &target, &next, shards);
        let workers: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let took = begun.elapsed();
    fs::remove_file(&target)?;
    Ok((shards * SHARD as u64) as f64 / took.as_secs_f64() / 1e6)
}

fn rebuild(drives: &[PathBuf], target: &Path, next: &AtomicU64, shards: u64) -> Result<()> {
    let code = Code::of(DATA, PARITY)?;
    let direct = |path: &Path, write: bool| {
        let mut options = OpenOptions::new();
        options.read(true).write(write).create(write).truncate(false).custom_flags(OFlag::O_DIRECT.bits());
        options.open(path).with_context(|| format!("opening {}", path.display()))
    };
    let sources: Vec<File> = drives.iter().map(|path| direct(path, false)).collect::<Result<_>>()?;
    // The first half of each drive has been written; what has not been is read without a device.
    let length = sources[0].metadata()?.len() / 2 - SHARD as u64;
    let output = direct(target, true)?;
    let mut memory = vec![0; SHARD * (usize::from(DATA) + 1) + SECTOR_SIZE];
    let start = memory.as_ptr().align_offset(SECTOR_SIZE);
    let (read, rest) = memory[start..].split_at_mut(SHARD * usize::from(DATA));
    let rebuilt = &mut rest[..SHARD];
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= shards {
            output.sync_data()?;
            return Ok(());
        }
        for (at, shard) in read.chunks_exact_mut(SHARD).enumerate() {
            let from = (number * SHARD as u64 * 3) % length / SECTOR_SIZE as u64 * SECTOR_SIZE as u64;
            sources[at % sources.len()].read_exact_at(shard, from)?;
        }
        // The first shard is the lost one: three data shards and a parity shard are there.
        let mut present: Vec<Option<&[u8]>> = vec![None; usize::from(DATA + PARITY)];
        for (at, shard) in read.chunks_exact(SHARD).enumerate() {
            present[at + 1] = Some(shard);
        }
        code.rebuild(&present, &[0], &mut [&mut *rebuilt])?;
        output.write_all_at(rebuilt, number * SHARD as u64)?;
        if number.is_multiple_of(FLUSH_INTERVAL) {
            output.sync_data()?;
        }
    }
}
