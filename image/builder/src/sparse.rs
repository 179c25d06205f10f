//! Sparse files: reading, copying and hashing them at the cost of what they hold, not of their length.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

/// Blocks of zeros of this size stay holes in copies.
const BLOCK: usize = 4096;
const CHUNK: usize = 1 << 20;

/// A part of a file; parts follow each other without gaps.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// Stored bytes.
    Data {
        /// Bytes from the start of the file.
        offset: u64,
        /// Content.
        bytes: &'a [u8],
    },
    /// Zeros that take no room.
    Hole {
        /// How many.
        length: u64,
    },
}

/// Visits the parts of a file in order.
///
/// # Errors
/// Those of reading, and those of `visit`.
pub fn for_each_part(file: &File, mut visit: impl FnMut(Part<'_>) -> io::Result<()>) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < length {
        let data = seek(file, at, Whence::SeekData)?.unwrap_or(length).min(length);
        if data > at {
            visit(Part::Hole { length: data - at })?;
        }
        let end = seek(file, data, Whence::SeekHole)?.unwrap_or(length).min(length);
        at = data;
        while at < end {
            let wanted = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
            file.read_exact_at(&mut buffer[..wanted], at)?;
            visit(Part::Data { offset: at, bytes: &buffer[..wanted] })?;
            at += wanted as u64;
        }
    }
    Ok(())
}

/// `None` when there is nothing of the kind behind `offset`.
fn seek(file: &File, offset: u64, whence: Whence) -> io::Result<Option<u64>> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    match lseek(file, offset, whence) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes the data of `from` to `to`, `base` bytes further on. What `to` has there must be zero.
///
/// # Errors
/// Those of reading and writing.
pub fn copy_into(from: &File, to: &File, base: u64) -> io::Result<()> {
    for_each_part(from, |part| {
        let Part::Data { offset, bytes } = part else { return Ok(()) };
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            if block.iter().any(|&byte| byte != 0) {
                to.write_all_at(block, base + offset + (index * BLOCK) as u64)?;
            }
        }
        Ok(())
    })
}

/// Copies a file; the copy has the same content and no more blocks. Replaces `to`.
///
/// # Errors
/// Those of reading and writing.
pub fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = fs::OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
    target.set_len(source.metadata()?.len())?;
    copy_into(&source, &target, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_copy_has_the_same_content_and_the_same_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(&[7; 10_000], (20 << 20) + 17).unwrap();
        file.write_all_at(b"end", (64 << 20) - 3).unwrap();
        copy_file(&from, &to).unwrap();
        assert_eq!(fs::read(&from).unwrap(), fs::read(&to).unwrap());
        assert!(fs::metadata(&to).unwrap().blocks() * 512 < 1 << 20);
    }

    #[test]
    fn parts_cover_the_file_without_gaps() {
        let dir = tempfile::tempdir().unwrap();
        let file =
            File::options().read(true).write(true).create_new(true).open(dir.path().join("f")).unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_all_at(&[1; 3 << 20], 4 << 20).unwrap();
        let mut at = 0;
        for_each_part(&file, |part| {
            match part {
                Part::Data { offset, bytes } => {
                    assert_eq!(offset, at);
                    at += bytes.len() as u64;
                }
                Part::Hole { length } => at += length,
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(at, 10 << 20);
    }
}
