//! Following the nodes' logs until Ctrl-C.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use holdfast_blackbox::{cluster_file::ClusterFile, paths};
use tokio::{signal, time::sleep};

const POLL: Duration = Duration::from_millis(200);
/// What is shown of one node at once.
const PIECE_MAX: u64 = 256 * 1024;

/// Prints what the nodes write from now on, each line with its node's name, until Ctrl-C.
///
/// # Errors
/// When Ctrl-C cannot be caught or the terminal is gone.
pub async fn until_interrupted(cluster: &ClusterFile) -> Result<()> {
    let mut logs: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| {
            let path = paths::workspace().join(&node.log);
            let offset = path.metadata().map_or(0, |meta| meta.len());
            Log { name: node.name.clone(), path, offset, rest: Vec::new() }
        })
        .collect();
    println!("  following the logs; Ctrl-C stops the cluster");
    let interrupted = signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            caught = &mut interrupted => return caught.context("waiting for Ctrl-C"),
            () = sleep(POLL) => {
                for log in &mut logs {
                    log.print_new(&mut io::stdout().lock()).with_context(|| format!("log of {}", log.name))?;
                }
            }
        }
    }
}

struct Log {
    name: String,
    path: PathBuf,
    offset: u64,
    /// The beginning of a line whose end was not yet written.
    rest: Vec<u8>,
}

impl Log {
    fn print_new(&mut self, out: &mut impl Write) -> Result<()> {
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        if file.metadata()?.len() < self.offset {
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        self.offset += file.take(PIECE_MAX).read_to_end(&mut self.rest)? as u64;
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            writeln!(out, "{} | {}", self.name, String::from_utf8_lossy(&line).trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_line_is_printed_once_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Log { name: "n1".into(), path: path.clone(), offset: 0, rest: Vec::new() };
        let mut out = Vec::new();
        fs::write(&path, "one\ntw").unwrap();
        log.print_new(&mut out).unwrap();
        fs::write(&path, "one\ntwo\n").unwrap();
        log.print_new(&mut out).unwrap();
        log.print_new(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "n1 | one\nn1 | two\n");
    }
}
