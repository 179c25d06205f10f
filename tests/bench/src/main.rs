//! Load client: PUT, GET and DELETE of four sizes, and LIST, at three widths against a running cluster, beside
//! what the bare parts cost on this machine.
//!
//! Every row is bounded in bytes and in time. What a row cost the servers is read from their own metrics
//! before and after it: CPU seconds of all nodes, flushes of all drives and Raft logs.

#![forbid(unsafe_code)]

mod bare;
mod body;
mod cost;
mod listing;
mod load;
mod report;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use holdfast_blackbox::{cluster_file::ClusterFile, paths};
use holdfast_model::ByteCount;

use bare::Bare;
use cost::Meter;
use load::{Operation, Row, Target};
use report::{Measured, Report};

const BUCKET: &str = "bench";
const SIZES: [ByteCount; 4] = [ByteCount::kib(4), ByteCount::kib(64), ByteCount::mib(1), ByteCount::mib(64)];
const CLIENTS: [usize; 3] = [1, 16, 64];
/// What one row moves at most: what the writing rows leave behind fits the drives of a default cluster.
const ROW_BYTES_MAX: ByteCount = ByteCount::mib(1024);

/// How bodies are covered by the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PayloadMode {
    /// `UNSIGNED-PAYLOAD`: TLS protects the body, as most clients do it
    Unsigned,
    /// SHA-256 of the body in the signature
    Signed,
}

#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", about = "PUT, GET, DELETE and LIST against a running cluster")]
struct Arguments {
    /// Only rows whose name holds this word: put, get, delete, list, 4KiB, 64KiB, 1MiB, 64MiB
    name: Option<String>,
    /// Directory with cluster.json
    #[arg(long)]
    cluster: PathBuf,
    /// Longest time for one row
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Not the table: a bucket of so many keys, and what pages of its listings take
    #[arg(long)]
    listing: Option<u64>,
    /// How bodies are signed
    #[arg(long, value_enum, default_value = "unsigned")]
    payload: PayloadMode,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cluster = ClusterFile::load(&arguments.cluster)?;
    let target = Target::new(&cluster, BUCKET, arguments.payload == PayloadMode::Signed)?;
    target.prepare().await?;
    if let Some(keys) = arguments.listing {
        return listing::run(&target, keys).await;
    }
    let meter = Meter::new(&cluster)?;

    let wanted = |row: &Row| arguments.name.as_ref().is_none_or(|word| row.name().contains(word.as_str()));
    let bare = Bare::measure()?;
    println!("  bare parts, CPU s/GB: put {:.2}, get {:.2}; {bare:.2?}", bare.put(), bare.get());
    let mut report = Report::new(&cluster, format!("{:?}", arguments.payload).to_lowercase(), bare);
    println!("{}", Report::heading());
    let mut rows = Vec::new();
    for size in SIZES {
        for clients in CLIENTS {
            // GET reads and DELETE deletes what PUT of the same size and width wrote.
            let all = [Operation::Put, Operation::Get, Operation::Delete];
            let all = all.map(|operation| Row { operation, size, clients });
            if all.iter().any(wanted) {
                rows.extend(all);
            }
        }
    }
    let lists = CLIENTS.map(|clients| Row { operation: Operation::List, size: SIZES[0], clients });
    if lists.iter().any(wanted) {
        target.prepare_listing().await?;
        rows.extend(lists);
    }
    for row in rows {
        let before = meter.read().await?;
        let run = load::run(&target, row, Duration::from_secs(arguments.seconds), ROW_BYTES_MAX).await?;
        ensure!(run.requests() > 0, "{} finished no request", row.name());
        let measured = Measured::new(row, &run, meter.read().await?.since(&before), &bare);
        println!("{}", measured.line());
        report.rows.push(measured);
    }
    let saved = report.save(&paths::target().join("bench"))?;
    println!("\n  {}", saved.display());
    Ok(())
}
