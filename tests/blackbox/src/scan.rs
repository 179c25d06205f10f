//! Looks for planted strings in everything a cluster wrote.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use memchr::memmem::Finder;

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

fn scan_file(path: &Path, finders: &[Finder<'_>], overlap: usize, hits: &mut Vec<Hit>) -> Result<u64> {
    let mut file = File::open(path)?;
    let mut window = vec![0; WINDOW + overlap];
    let mut kept = 0;
    let mut total = 0;
    let mut found = vec![false; finders.len()];
    loop {
        let count = file.read(&mut window[kept..])?;
        if count == 0 {
            return Ok(total);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_needle_across_two_windows_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = vec![b'.'; WINDOW - 3];
        bytes.extend_from_slice(b"needle in the hay");
        bytes.resize(2 * WINDOW + 5, b'.');
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), &bytes).unwrap();
        let report = scan(&[dir.path().into()], &[b"absent".to_vec(), b"needle in".to_vec()]).unwrap();
        assert_eq!(report.bytes, bytes.len() as u64);
        assert_eq!(report.hits, [Hit { file: dir.path().join("deep/file"), needle: 1 }]);
    }
}
