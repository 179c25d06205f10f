//! Load client: PUT and GET of three sizes at two widths against a running cluster.
//!
//! Every row is bounded in bytes and in time. What a row cost the servers is read from their own metrics
//! before and after it: CPU seconds of all nodes, flushes of all drives and Raft logs.

#![forbid(unsafe_code)]

mod body;
mod cost;
mod load;
mod report;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use holdfast_blackbox::{cluster_file::ClusterFile, paths};
use holdfast_model::ByteCount;

use cost::Meter;
use load::{Operation, Row, Target};
use report::{Measured, Report};

const BUCKET: &str = "bench";
const SIZES: [ByteCount; 3] = [ByteCount::kib(4), ByteCount::mib(1), ByteCount::mib(64)];
const CLIENTS: [usize; 2] = [1, 16];
/// What one row moves at most; six writing rows fit the drives of a default cluster.
const ROW_BYTES_MAX: ByteCount = ByteCount::mib(1536);

/// How bodies are covered by the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PayloadMode {
    /// `UNSIGNED-PAYLOAD`: TLS protects the body, as most clients do it
    Unsigned,
    /// SHA-256 of the body in the signature
    Signed,
}

#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", about = "PUT and GET against a running cluster")]
struct Arguments {
    /// Only rows whose name holds this word: put, get, 4KiB, 1MiB, 64MiB
    name: Option<String>,
    /// Directory with cluster.json
    #[arg(long)]
    cluster: PathBuf,
    /// Longest time for one row
    #[arg(long, default_value_t = 5)]
    seconds: u64,
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
    let meter = Meter::new(&cluster)?;

    let wanted = |row: &Row| arguments.name.as_ref().is_none_or(|word| row.name().contains(word.as_str()));
    let mut report = Report::new(&cluster, format!("{:?}", arguments.payload).to_lowercase());
    println!("{}", Report::heading());
    for size in SIZES {
        for clients in CLIENTS {
            let row = |operation| Row { operation, size, clients };
            let (put, get) = (row(Operation::Put), row(Operation::Get));
            if !wanted(&put) && !wanted(&get) {
                continue;
            }
            // GET reads what PUT of the same row wrote.
            for row in [put, get] {
                let before = meter.read().await?;
                let run =
                    load::run(&target, row, Duration::from_secs(arguments.seconds), ROW_BYTES_MAX).await?;
                ensure!(run.requests() > 0, "{} finished no request", row.name());
                let measured = Measured::new(row, &run, meter.read().await?.since(&before));
                println!("{}", measured.line());
                report.rows.push(measured);
            }
        }
    }
    let saved = report.save(&paths::target().join("bench"))?;
    println!("\n  {}", saved.display());
    Ok(())
}
