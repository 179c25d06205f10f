//! The ledger of a long run: a line of JSON for each block of seeds that was run, so that a run can be ended at any time, and
//! gone on with.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Seeds of one line.
pub const BLOCK: u64 = 1000;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What was run.
    pub commit: String,
    /// The first seed.
    pub first: u64,
    /// So many were run, one after the other.
    pub seeds: u64,
    /// So many of them twice.
    pub twice: u64,
    /// Seeds that broke a promise, and which.
    pub violations: Vec<(u64, String)>,
    /// Processor time of all threads.
    pub core_seconds: f64,
    /// How long it took.
    pub seconds: f64,
    /// Time that went by in the simulation.
    pub simulated_hours: u64,
    /// Events in the traces.
    pub events: u64,
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Reads that were checked.
    pub read: u64,
    /// Requests that were refused, as may be while something is broken.
    pub refused: u64,
}

impl Entry {
    /// Adds the line to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, path: &Path) -> io::Result<()> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        OpenOptions::new().create(true).append(true).open(path)?.write_all(line.as_bytes())
    }
}

/// The seed after the last one that a file says was run of a commit; 0 when it knows of none.
///
/// # Errors
/// When the file cannot be read or is no ledger.
pub fn next(path: &Path, commit: &str) -> io::Result<u64> {
    let of_commit = entries(path)?.into_iter().filter(|entry| entry.commit == commit);
    Ok(of_commit.map(|entry| entry.first + entry.seeds).max().unwrap_or(0))
}

/// The last line of a file.
///
/// # Errors
/// As [`next`].
pub fn last(path: &Path) -> io::Result<Option<Entry>> {
    Ok(entries(path)?.pop())
}

fn entries(path: &Path) -> io::Result<Vec<Entry>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Processor time of this process so far.
///
/// # Errors
/// When the kernel does not say.
pub fn processor_time() -> io::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_after_the_last_seed_of_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        assert_eq!((next(&path, "a").unwrap(), last(&path).unwrap()), (0, None));
        for (commit, first) in [("a", 1), ("a", 1001), ("b", 5001)] {
            let entry = Entry {
                commit: commit.to_owned(),
                first,
                seeds: 1000,
                twice: 10,
                violations: Vec::new(),
                core_seconds: 1.5,
                seconds: 1.0,
                simulated_hours: 2,
                events: 3,
                acknowledged: 4,
                read: 5,
                refused: 6,
            };
            entry.append(&path).unwrap();
        }
        assert_eq!((next(&path, "a").unwrap(), next(&path, "b").unwrap()), (2001, 6001));
        assert_eq!(next(&path, "c").unwrap(), 0);
        assert_eq!(
            last(&path).unwrap().map(|entry| (entry.commit, entry.first)),
            Some(("b".to_owned(), 5001))
        );
    }
}
