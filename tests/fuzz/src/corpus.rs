//! The committed inputs: what fuzzing starts from, and what must never crash again.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Longest input in bytes: the sectors of a drive that its target looks at, and room for more.
pub const INPUT_SIZE_MAX: usize = 256 << 10;

/// Where the inputs of a target are.
#[must_use]
pub fn directory(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// The inputs of a target, in the order of their names.
///
/// # Errors
/// When the directory or a file of it cannot be read.
pub fn load(target: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory(target))?.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>()?;
    paths.sort();
    paths.into_iter().map(|path| fs::read(&path).map(|bytes| (path, bytes))).collect()
}

/// Keeps an input that crashed; returns where.
///
/// # Errors
/// When it cannot be written.
pub fn keep(target: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    keep_as("crash", target, bytes)
}

/// Keeps an input that led to something new; returns where.
///
/// # Errors
/// When it cannot be written.
pub fn keep_new(target: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    keep_as("new", target, bytes)
}

fn keep_as(why: &str, target: &str, bytes: &[u8]) -> io::Result<PathBuf> {
    let directory = directory(target);
    fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{why}-{:08x}.bin", crc32c::crc32c(bytes)));
    fs::write(&path, bytes)?;
    Ok(path)
}
