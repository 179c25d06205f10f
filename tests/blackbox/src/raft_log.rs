//! A node's Raft log on disk, as far as a test needs it: to damage a chosen record and to put it back.
//!
//! Knows the published layout of segments (`cluster/consensus/src/log/record.rs`) and none of its code.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

const SEGMENT_HEADER: usize = 64;
const RECORD_HEADER: usize = 40;
const MAGIC: &[u8] = b"HFLR";
const KIND_ENTRY: u8 = 1;

/// An entry's payload in a segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPlace {
    /// The segment file.
    pub segment: PathBuf,
    /// Where the payload starts.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u32,
    /// The Raft group.
    pub group: u32,
    /// The log index.
    pub index: u64,
}

impl EntryPlace {
    /// Flips one bit in the middle of the payload. Twice is as before.
    ///
    /// # Errors
    /// I/O.
    pub fn flip(&self) -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(&self.segment)?;
        let at = self.offset + u64::from(self.length / 2);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 0x10;
        file.write_all_at(&byte, at)?;
        file.sync_all().with_context(|| format!("damaging {}", self.segment.display()))
    }
}

/// All entries in the log below a node's state directory, in the order in which they were written.
///
/// # Errors
/// I/O.
pub fn entries(state_dir: &Path) -> Result<Vec<EntryPlace>> {
    let dir = state_dir.join("raft").join("log");
    let mut segments: Vec<PathBuf> = fs::read_dir(&dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    segments.sort();
    let mut found = Vec::new();
    for segment in segments {
        let bytes = fs::read(&segment)?;
        let mut at = SEGMENT_HEADER;
        while let Some(header) = bytes.get(at..at + RECORD_HEADER).filter(|header| header.starts_with(MAGIC))
        {
            let number =
                |from: usize| u32::from_le_bytes(header[from..from + 4].try_into().unwrap_or_default());
            let (group, length) = (number(8), number(12));
            if header[5] == KIND_ENTRY {
                let index = u64::from_le_bytes(header[24..32].try_into().unwrap_or_default());
                let offset = (at + RECORD_HEADER) as u64;
                found.push(EntryPlace { segment: segment.clone(), offset, length, group, index });
            }
            at += RECORD_HEADER + (length as usize).next_multiple_of(8);
        }
    }
    Ok(found)
}
