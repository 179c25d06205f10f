//! One drive's engine against `fio`: same file, same run, same block sizes and depths, round after round.
//!
//! In every round each row is measured with `fio` and with the engine, one right after the other, so that
//! whatever else the machine does hits both, in turns the one or the other first. What counts is the ratio
//! within a round; its median is shown. `fio` is one thread with `--ioengine=io_uring --direct=1`; the engine
//! is one thread as well, and its callers are another.
//!
//! The engine does more for each operation: checksums, a header, a flush before every answer.

#![forbid(unsafe_code)]

mod engine;
mod fio;
mod table;

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::PathBuf,
};

use anyhow::{Context, Result};
use clap::Parser;

use engine::Engine;
use table::{Row, Table};

const LARGE: usize = 1 << 20;
const SMALL: usize = 4 << 10;

/// The rows, by the size of what is written and then read. The engine flushes before every answer; fio never,
/// or once for as many writes as are in flight.
const ROWS: [Row; 5] = [
    Row { name: "write 1 MiB, 8 deep", write: true, size: LARGE, depth: 8, fio_flushes: false, wanted: 0.90 },
    Row {
        name: "same, fio flushes too",
        write: true,
        size: LARGE,
        depth: 8,
        fio_flushes: true,
        wanted: 0.90,
    },
    Row { name: "read 1 MiB, 8 deep", write: false, size: LARGE, depth: 8, fio_flushes: false, wanted: 0.90 },
    Row {
        name: "write 4 KiB, 128 deep",
        write: true,
        size: SMALL,
        depth: 128,
        fio_flushes: true,
        wanted: 0.70,
    },
    Row {
        name: "read 4 KiB, 128 deep",
        write: false,
        size: SMALL,
        depth: 128,
        fio_flushes: false,
        wanted: 0.70,
    },
];

/// Bytes that a row of large records moves, and operations of a row of small ones.
const LARGE_BYTES: u64 = 768 << 20;
const SMALL_OPERATIONS: u64 = 20_000;

#[derive(Debug, Parser)]
#[command(name = "holdfast-bench-drive", about = "A drive's engine against fio")]
struct Arguments {
    /// Where the file is made that is measured; on the file system whose device is meant
    #[arg(long)]
    dir: PathBuf,
    /// Size of the file
    #[arg(long, default_value_t = 2048)]
    mib: u64,
    /// Rounds; figures are medians
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Only rows whose name holds this
    #[arg(long, default_value = "")]
    only: String,
}

impl Row {
    fn operations(&self) -> u64 {
        if self.size >= 64 << 10 { LARGE_BYTES / self.size as u64 } else { SMALL_OPERATIONS }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    fs::create_dir_all(&arguments.dir)?;
    let file = tempfile::NamedTempFile::new_in(&arguments.dir)?;
    let path = file.path().to_owned();
    write_once(file.as_file(), arguments.mib).context("writing the file once, so that its extents exist")?;
    let mut table = Table::new(&ROWS);
    for round in 1..=arguments.rounds {
        println!("round {round} of {}", arguments.rounds);
        for size in [LARGE, SMALL] {
            for row in ROWS.iter().filter(|row| row.size == size && row.name.contains(&arguments.only)) {
                if round % 2 == 1 {
                    table.fio(row, fio::run(&path, row, row.operations())?);
                }
                // A drive of its own for each row of writes; what is read was written right before.
                blank(file.as_file(), arguments.mib)?;
                let engine = Engine::open(&path)?;
                if !row.write {
                    engine.run(&Row { write: true, ..*row }, row.operations()).await?;
                }
                table.engine(row, engine.run(row, row.operations()).await?);
                engine.close().await;
                if round % 2 == 0 {
                    table.fio(row, fio::run(&path, row, row.operations())?);
                }
            }
        }
    }
    println!("\n{table}");
    Ok(())
}

fn write_once(mut file: &File, mib: u64) -> Result<()> {
    let zeros = vec![0; 1 << 20];
    for _ in 0..mib {
        file.write_all(&zeros)?;
    }
    Ok(file.sync_all()?)
}

/// Both ends: where a drive has its labels, and what formatting wants to find empty.
fn blank(file: &File, mib: u64) -> Result<()> {
    let zeros = vec![0; 1 << 20];
    file.write_all_at(&zeros, 0)?;
    file.write_all_at(&zeros, (mib - 1) << 20)?;
    Ok(file.sync_all()?)
}
