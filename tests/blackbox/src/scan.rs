//! Looks for planted strings in everything a cluster wrote.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use memchr::memmem::Finder;
use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

const WINDOW: usize = 4 << 20;

/// Where a planted string was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The file.
    pub file: PathBuf,
    /// Which needle, by its place in the list.
    pub needle: usize,
}

/// What was read, and what was found in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files read.
    pub files: usize,
    /// Bytes read.
    pub bytes: u64,
    /// Every needle at most once a file.
    pub hits: Vec<Hit>,
}

/// Searches every regular file below `roots` for `needles`.
///
/// # Errors
/// When a file cannot be read.
pub fn scan(roots: &[PathBuf], needles: &[Vec<u8>]) -> Result<Report> {
    let finders: Vec<_> = needles.iter().map(Finder::new).collect();
    let overlap = needles.iter().map(Vec::len).max().unwrap_or(1).saturating_sub(1);
    let mut report = Report::default();
    let mut pending = roots.to_vec();
    while let Some(path) = pending.pop() {
        let kind = fs::symlink_metadata(&path).with_context(|| format!("looking at {}", path.display()))?;
        if kind.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        } else if kind.is_file() {
            report.files += 1;
            report.bytes += scan_file(&path, &finders, overlap, &mut report.hits)
                .with_context(|| format!("reading {}", path.display()))?;
        }
    }
    Ok(report)
}

/// Reads a file's data and leaves out its holes, which read as zeros: drives are mostly empty.
fn scan_file(path: &Path, finders: &[Finder<'_>], overlap: usize, hits: &mut Vec<Hit>) -> Result<u64> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut window = vec![0; WINDOW + overlap];
    let mut found = vec![false; finders.len()];
    let mut total = 0;
    let mut end = 0;
    while let Some(start) = next_data(&file, end)? {
        end = lseek(&file, i64::try_from(start)?, Whence::SeekHole).map_or(length, |end| end.unsigned_abs());
        file.seek(SeekFrom::Start(start))?;
        let mut extent = (&mut file).take(end - start);
        let mut kept = 0;
        loop {
            let count = extent.read(&mut window[kept..])?;
            if count == 0 {
                break;
            }
            total += count as u64;
            let filled = kept + count;
            for (needle, finder) in finders.iter().enumerate() {
                if !found[needle] && finder.find(&window[..filled]).is_some() {
                    found[needle] = true;
                    hits.push(Hit { file: path.to_path_buf(), needle });
                }
            }
            // A needle may lie across two reads: keep the tail that could begin one.
            kept = overlap.min(filled);
            window.copy_within(filled - kept..filled, 0);
        }
    }
    Ok(total)
}

/// Where the next data at or after `offset` begins; `None` when only a hole is left.
fn next_data(file: &File, offset: u64) -> Result<Option<u64>> {
    match lseek(file, i64::try_from(offset)?, Whence::SeekData) {
        Ok(start) => Ok(Some(start.unsigned_abs())),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn needles_across_two_windows_and_behind_a_hole_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![b'.'; WINDOW - 3];
        bytes.extend_from_slice(b"needle in the hay");
        bytes.resize(2 * WINDOW + 5, b'.');
        let sparse = File::create(dir.path().join("sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        sparse.write_all_at(b"needle in the hole", (1 << 29) + 77).unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), &bytes).unwrap();
        let report = scan(&[dir.path().into()], &[b"absent".to_vec(), b"needle in".to_vec()]).unwrap();
        assert!(report.bytes < bytes.len() as u64 + (1 << 20), "the hole was read");
        let mut files: Vec<_> = report.hits.iter().map(|hit| (hit.file.clone(), hit.needle)).collect();
        files.sort();
        assert_eq!(files, [(dir.path().join("deep/file"), 1), (dir.path().join("sparse"), 1)]);
    }
}
