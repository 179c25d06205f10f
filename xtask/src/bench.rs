//! `cargo xtask bench`: builds the benchmark client and points it at a cluster of processes; or measures one
//! drive against fio.

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::Result;
use clap::Args;
use holdfast_blackbox::{
    dev::{DevCluster, DevSpec},
    paths,
};
use holdfast_model::{
    ByteCount,
    config::{S3Settings, Unlock},
};

use crate::{
    binaries,
    run::{cargo, run, say},
};

/// The benchmarks that need no cluster.
const DRIVE: &str = "drive";
const CATALOG: &str = "catalog";
const PROTECTION: &str = "protection";
const REBUILD: &str = "rebuild";
const SEAL: &str = "seal";
const LISTING: &str = "listing";

/// Of the cluster for the S3 benchmark: all its rows write is there at once, because what they delete takes up room
/// until its grace has passed. 36 GiB of the machine's disk.
const DRIVE_SIZE: ByteCount = ByteCount::mib(6144);

/// All rows of the S3 benchmark.
const S3: &str = "s3";

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Only rows whose name holds this word: put, get, delete, list, 4KiB, 64KiB, 1MiB, 64MiB; `s3`: all of them;
    /// `drive`: one drive against fio; `catalog`: sealed files against plain ones, a million objects, three replicas;
    /// `protection`: codes, degraded reads, rebuild; `rebuild`: the loss of a drive of a filled cluster;
    /// `seal`: sealing against the bare cipher; `listing`: pages of a bucket of `--keys` keys
    name: Option<String>,
    /// Nodes of the cluster that is started
    #[arg(long, default_value_t = 1)]
    nodes: u16,
    /// Drives on each
    #[arg(long, default_value_t = 6)]
    drives: u16,
    /// Measure the cluster that runs already (`up` or `dev`), not a fresh one
    #[arg(long)]
    running: bool,
    /// Whether signatures cover bodies: unsigned (as most clients do over TLS), signed
    #[arg(long, default_value = "unsigned")]
    payload: String,
    /// Objects that the cluster of `rebuild` is filled with, in units of 10^9 bytes
    #[arg(long, default_value_t = 20)]
    gigabytes: u32,
    /// Keys of the bucket of `listing`
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Longest time for one row, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u32,
}

/// A command that runs `program` with a priority above whatever else the machine does, where that is allowed:
/// what is compared are two ways to a device, not two shares of a busy processor.
fn ahead_of_others(program: &OsStr) -> Command {
    let chrt = |command: &OsStr| {
        let mut chrt = Command::new("chrt");
        chrt.args(["--rr", "10"]).arg(command);
        chrt
    };
    let allowed = chrt("true".as_ref()).stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if allowed { chrt(program) } else { Command::new(program) }
}

impl Bench {
    /// Starts a cluster of its own unless told otherwise, measures, stops it.
    ///
    /// # Errors
    /// When a build fails, the cluster does not form, or a request fails.
    pub async fn run(self) -> Result<()> {
        if self.name.as_deref() == Some(DRIVE) {
            let program = binaries::bench_drive()?;
            let mut bench = ahead_of_others(program.get_program());
            return run(bench.arg("--dir").arg(paths::target().join("bench")));
        }
        if self.name.as_deref() == Some(CATALOG) {
            return run(binaries::bench_catalog()?.arg("--dir").arg(paths::target().join("bench")));
        }
        if self.name.as_deref() == Some(PROTECTION) {
            return run(binaries::bench_protection()?.arg("--dir").arg(paths::target().join("bench")));
        }
        if self.name.as_deref() == Some(REBUILD) {
            binaries::noded()?;
            let mut bench = binaries::bench_rebuild()?;
            bench.arg("--gigabytes").arg(self.gigabytes.to_string());
            return run(bench.arg("--dir").arg(paths::target().join("bench").join("rebuild")));
        }
        if self.name.as_deref() == Some(SEAL) {
            let arguments =
                ["bench", "--quiet", "--package", "holdfast-crypt", "--profile", "dev", "--bench", "seal"];
            return run(cargo().args(arguments).current_dir(paths::workspace()));
        }
        let mut client = binaries::bench()?;
        client.arg("--seconds").arg(self.seconds.to_string()).arg("--payload").arg(&self.payload);
        match self.name.as_deref() {
            None | Some(S3) => {}
            Some(LISTING) => {
                client.arg("--listing").arg(self.keys.to_string());
            }
            Some(name) => {
                client.arg(name);
            }
        }
        if self.running {
            return run(client.arg("--cluster").arg(paths::cluster_dir()));
        }
        let dir: PathBuf = paths::target().join("bench").join("cluster");
        let spec = DevSpec {
            dir: dir.clone(),
            noded: binaries::noded()?,
            nodes: self.nodes,
            drives: self.drives,
            drive_size: DRIVE_SIZE,
            reserved: true,
            watched: false,
            buffer_memory: ByteCount::mib(512),
            level: None,
            cluster_name: "bench".into(),
            advertise: Vec::new(),
            s3: S3Settings::default(),
            unlock: Unlock::default(),
            feature_level_max: None,
            known_ports: false,
        };
        let mut cluster = DevCluster::create(&spec, &say).await?;
        run(client.arg("--cluster").arg(&dir))?;
        cluster.stop()?;
        drop(cluster);
        // The drives are large and of no use afterwards.
        std::fs::remove_dir_all(&dir)?;
        Ok(())
    }
}
