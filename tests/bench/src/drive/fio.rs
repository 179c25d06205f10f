//! Running `fio` and reading what it says.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::table::{Measured, Row};

/// Measures one row on the file at `path`.
///
/// # Errors
/// When fio is not installed, or fails.
pub fn run(path: &Path, row: &Row, operations: u64) -> Result<Measured> {
    let pattern = if row.write { "write" } else { "randread" };
    let mut command = Command::new("fio");
    command.arg(format!("--filename={}", path.display()));
    command.args(["--name=row", "--ioengine=io_uring", "--direct=1"]);
    command.args(["--output-format=json", &format!("--rw={pattern}"), &format!("--bs={}", row.size)]);
    command.arg(format!("--iodepth={}", row.depth)).arg(format!("--size={}", operations * row.size as u64));
    if row.fio_flushes {
        command.arg(format!("--fdatasync={}", row.depth));
    }
    let output = command.output().context("fio does not start: `cargo xtask setup` installs it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fio failed: {said}");
    // Warnings may stand before the document.
    let text = String::from_utf8_lossy(&output.stdout);
    let document = &text[text.find('{').context("fio printed no document")?..];
    let report: Value = serde_json::from_str(document).context("what fio printed")?;
    let job = &report["jobs"][0];
    let half = &job[if row.write { "write" } else { "read" }];
    let number = |value: &Value| value.as_f64().context("a figure that fio did not print");
    let done = number(&half["total_ios"])?;
    let took = Duration::from_secs_f64(number(&half["runtime"])? / 1000.0);
    let share = (number(&job["usr_cpu"])? + number(&job["sys_cpu"])?) / 100.0;
    let cpu = took.mul_f64(share);
    let flushes = job["sync"]["total_ios"].as_f64().unwrap_or(0.0) as u64;
    let micros = |value: &Value| value["lat_ns"]["mean"].as_f64().unwrap_or(0.0) / 1000.0;
    let (write_micros, flush_micros) = (micros(half), micros(&job["sync"]));
    Ok(Measured { operations: done as u64, took, cpu, flushes, write_micros, flush_micros })
}
