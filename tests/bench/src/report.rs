//! The table, and the file that keeps it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use holdfast_blackbox::cluster_file::ClusterFile;
use serde::Serialize;

use crate::{
    bare::Bare,
    cost::Cost,
    load::{Operation, Row, Run},
};

const MB: f64 = 1e6;
const GB: f64 = 1e9;

/// A measured row. Megabytes and gigabytes are decimal.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Measured {
    pub name: String,
    pub clients: usize,
    pub object_bytes: u64,
    pub requests: u64,
    pub seconds: f64,
    pub requests_per_second: f64,
    pub megabytes_per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub server_cpu_seconds: f64,
    pub server_cpu_microseconds_per_request: f64,
    /// Absent where no content moves.
    pub server_cpu_seconds_per_gb: Option<f64>,
    /// CPU of the bare parts over CPU of the servers: 1 would be a server that does nothing else.
    pub bare_ratio: Option<f64>,
    pub log_flushes: f64,
    pub drive_flushes: f64,
    /// Of log and drives together; absent for reads.
    pub flushes_per_put: Option<f64>,
}

impl Measured {
    /// Puts what was done and what it cost together.
    pub fn new(row: Row, run: &Run, cost: Cost, bare: &Bare) -> Self {
        let requests = run.requests();
        let bare = match row.operation {
            Operation::Put => Some(bare.put()),
            Operation::Get => Some(bare.get()),
            Operation::Delete | Operation::List => None,
        };
        let bytes = if bare.is_some() { (requests * row.size.get()) as f64 } else { 0.0 };
        let per_gb = bare.map(|_| cost.cpu_seconds / (bytes / GB));
        let seconds = run.elapsed.as_secs_f64();
        Self {
            name: row.name(),
            clients: row.clients,
            object_bytes: row.size.get(),
            requests,
            seconds,
            requests_per_second: requests as f64 / seconds,
            megabytes_per_second: bytes / MB / seconds,
            p50_ms: run.percentile(50).as_secs_f64() * 1e3,
            p99_ms: run.percentile(99).as_secs_f64() * 1e3,
            server_cpu_seconds: cost.cpu_seconds,
            server_cpu_microseconds_per_request: cost.cpu_seconds * 1e6 / requests as f64,
            server_cpu_seconds_per_gb: per_gb,
            bare_ratio: bare.zip(per_gb).map(|(bare, spent)| bare / spent),
            log_flushes: cost.log_flushes,
            drive_flushes: cost.drive_flushes,
            flushes_per_put: (row.operation == Operation::Put)
                .then(|| (cost.log_flushes + cost.drive_flushes) / requests as f64),
        }
    }

    /// Its line of the table.
    pub fn line(&self) -> String {
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        let (flushes, per_gb) = (shown(self.flushes_per_put), shown(self.server_cpu_seconds_per_gb));
        let ratio = shown(self.bare_ratio);
        format!(
            "  {:<16} {:>8} {:>10.1} {:>9.1} {:>10.2} {:>10.2} {:>10.0} {per_gb:>9} {ratio:>6} {flushes:>11}",
            self.name,
            self.requests,
            self.requests_per_second,
            self.megabytes_per_second,
            self.p50_ms,
            self.p99_ms,
            self.server_cpu_microseconds_per_request,
        )
    }
}

/// The whole run.
#[derive(Debug, Serialize)]
#[allow(missing_docs)]
pub struct Report {
    pub unix_seconds: u64,
    pub nodes: usize,
    pub payload: String,
    pub host_cpus: usize,
    /// The bare parts, measured before the rows.
    pub bare: Bare,
    pub rows: Vec<Measured>,
}

impl Report {
    /// An empty report.
    pub fn new(cluster: &ClusterFile, payload: String, bare: Bare) -> Self {
        Self {
            unix_seconds: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()),
            nodes: cluster.nodes.len(),
            payload,
            host_cpus: std::thread::available_parallelism().map_or(0, usize::from),
            bare,
            rows: Vec::new(),
        }
    }

    /// The table's heading.
    pub fn heading() -> String {
        format!(
            "\n  {:<16} {:>8} {:>10} {:>9} {:>10} {:>10} {:>10} {:>9} {:>6} {:>11}",
            "row",
            "requests",
            "requests/s",
            "MB/s",
            "p50 ms",
            "p99 ms",
            "CPU us/op",
            "CPU s/GB",
            "ratio",
            "flushes/PUT"
        )
    }

    /// Writes it as JSON, named by its time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<PathBuf> {
        fs::create_dir_all(dir)?;
        let path = dir.join(format!("{}.json", self.unix_seconds));
        fs::write(&path, serde_json::to_string_pretty(self)?)?;
        Ok(path)
    }
}
