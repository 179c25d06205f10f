//! Trees of files: made for a test, hashed, compared byte for byte.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

/// Bytes that look random and are the same for the same seed (xorshift64*, not for secrets).
#[must_use]
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes a file of [`noise`] without holding it in memory.
///
/// # Errors
/// When it cannot be written.
pub fn write_noise(path: &Path, seed: u64, length: u64) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let mut out = BufWriter::new(File::create(path).with_context(|| format!("creating {}", path.display()))?);
    let mut left = length;
    let mut piece = seed;
    while left > 0 {
        let take = left.min(PIECE);
        out.write_all(&noise(piece, usize::try_from(take)?))?;
        piece = piece.wrapping_add(0x1_0000_0001);
        left -= take;
    }
    out.flush()?;
    Ok(())
}

/// A real tree for clients: documents of this machine, topped up with made files to `files_min`, at most
/// `files_max`, and large files of the given sizes.
///
/// # Errors
/// When it cannot be written.
pub fn make_real(to: &Path, files_min: usize, files_max: usize, large: &[u64]) -> Result<()> {
    const DOCUMENTS: &str = "/usr/share/doc";
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    let copied = if Path::new(DOCUMENTS).is_dir() {
        copy_files(Path::new(DOCUMENTS), &to.join("doc"), files_max)?
    } else {
        0
    };
    for number in copied..files_min {
        let dir = to.join("made").join((number % 50).to_string());
        fs::create_dir_all(&dir)?;
        // Sizes from nothing to 64 KiB: on both sides of what is kept within the catalog.
        write_noise(
            &dir.join(format!("file {number}.bin")),
            number as u64,
            (number as u64 * 977) % (64 << 10),
        )?;
    }
    for (number, &size) in large.iter().enumerate() {
        write_noise(&to.join(format!("large-{number}.bin")), number as u64 + 1, size)?;
    }
    Ok(())
}

/// Copies the regular files of a tree, at most `files_max` of them in path order; links are left out
/// because S3 has none.
///
/// # Errors
/// When a file cannot be copied.
pub fn copy_files(from: &Path, to: &Path, files_max: usize) -> Result<usize> {
    let files = list(from)?;
    let count = files.len().min(files_max);
    for relative in files.into_iter().take(files_max) {
        let target = to.join(&relative);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from.join(&relative), &target).with_context(|| format!("copying {}", relative.display()))?;
    }
    Ok(count)
}

/// Paths of the regular files below `root`, relative to it, sorted.
///
/// # Errors
/// When a directory cannot be read.
pub fn list(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path().strip_prefix(root)?.to_path_buf());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Compares two trees: the same files with the same bytes. Returns how many files and bytes were compared.
///
/// # Errors
/// On the first difference, naming it.
pub fn assert_same(left: &Path, right: &Path) -> Result<(usize, u64)> {
    let (files, other) = (list(left)?, list(right)?);
    let missing: Vec<_> = files.iter().filter(|file| other.binary_search(file).is_err()).collect();
    let extra: Vec<_> = other.iter().filter(|file| files.binary_search(file).is_err()).collect();
    ensure!(
        missing.is_empty() && extra.is_empty(),
        "{} files are missing (first {:?}), {} were not there before (first {:?})",
        missing.len(),
        missing.first(),
        extra.len(),
        extra.first()
    );
    let mut bytes = 0;
    for file in &files {
        let (a, b) = (fs::read(left.join(file))?, fs::read(right.join(file))?);
        ensure!(a == b, "{} differs: {} and {} bytes", file.display(), a.len(), b.len());
        bytes += a.len() as u64;
    }
    Ok((files.len(), bytes))
}

/// Size of every file, by path with `/`.
///
/// # Errors
/// When a directory cannot be read.
pub fn sizes(root: &Path) -> Result<BTreeMap<String, u64>> {
    list(root)?
        .into_iter()
        .map(|file| Ok((file.to_string_lossy().into_owned(), fs::metadata(root.join(&file))?.len())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_and_one_missing_file_are_found() {
        let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(left.path().join("d")).unwrap();
        write_noise(&left.path().join("d/a"), 1, 3_000_000).unwrap();
        write_noise(&left.path().join("b"), 2, 0).unwrap();
        assert_eq!(copy_files(left.path(), right.path(), usize::MAX).unwrap(), 2);
        assert_eq!(assert_same(left.path(), right.path()).unwrap(), (2, 3_000_000));

        let mut bytes = fs::read(right.path().join("d/a")).unwrap();
        bytes[2_999_999] ^= 1;
        fs::write(right.path().join("d/a"), bytes).unwrap();
        assert!(assert_same(left.path(), right.path()).unwrap_err().to_string().contains("d/a differs"));
        fs::remove_file(right.path().join("d/a")).unwrap();
        assert!(
            assert_same(left.path(), right.path()).unwrap_err().to_string().contains("1 files are missing")
        );
    }
}
