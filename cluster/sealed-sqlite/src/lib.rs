//! SQLite files whose pages are sealed on their way to the disk (`docs/decisions/0017-sealed-catalog.md`).
//!
//! A layer between SQLite and its file system interface (a VFS, <https://www.sqlite.org/vfs.html>): pages of
//! the database and of its write-ahead file are sealed as they are written and opened as they are read; all
//! else (locks, the shared index of the write-ahead file, flushes) goes to SQLite's own interface untouched.
//! Sizes and offsets stay as they are: what seals a page lies in bytes that SQLite reserves in each.
//!
//! In the clear on the disk: how many pages there are, which page a frame of the write-ahead file is of, and
//! in the `-shm` file page numbers and one running checksum.
//!
//! Invariants:
//! - a page that was damaged, or comes from elsewhere, is an error of reading, never content;
//! - the end of a write-ahead file that a crash cut off is told by SQLite as ever: a frame that does not open
//!   is one whose checksum does not match;
//! - no file with pages in the clear is ever written: rollback journals and temporary files are refused.

#![expect(unsafe_code, reason = "SQLite's file system interface is C; all of it is in `vfs`")]

mod pages;
mod vfs;

use std::{os::unix::ffi::OsStrExt, path::Path, sync::Arc};

use holdfast_crypt::FileKey;
use rusqlite::{Connection, OpenFlags};

/// Page size of every sealed file, in bytes.
pub const PAGE_SIZE: usize = 8192;

/// What an error of reading a page that does not open is called: SQLite's extended error code.
pub const DAMAGED_PAGE: i32 = rusqlite::ffi::SQLITE_IOERR_DATA;

/// Opens one file with its key. To be kept as long as a connection to the file is in use.
#[derive(Debug)]
pub struct SealedFile {
    number: u64,
}

impl SealedFile {
    /// For the file that `key` is of.
    #[must_use]
    pub fn new(key: Arc<FileKey>) -> Arc<Self> {
        Arc::new(Self { number: vfs::register(key) })
    }

    /// Opens a connection to the file at `path`. One that is new is prepared for sealed pages, and has no
    /// journal until its mode is set to write-ahead; other modes cannot be.
    ///
    /// # Errors
    /// As SQLite. [`DAMAGED_PAGE`] or "not a database" when the key is of another file.
    pub fn open(&self, path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let is_new = std::fs::metadata(path).map_or(true, |found| found.len() == 0);
        let uri = format!("file:{}?{}={}", escaped(path), vfs::KEY_PARAMETER, self.number);
        let connection =
            Connection::open_with_flags_and_vfs(uri, flags | OpenFlags::SQLITE_OPEN_URI, vfs::name())?;
        if is_new && flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
            vfs::reserve(&connection)?;
            // The first page is written before there is a write-ahead file; a crash until then leaves a file
            // that was never finished.
            connection
                .execute_batch(&format!("PRAGMA page_size = {PAGE_SIZE}; PRAGMA journal_mode = OFF;"))?;
        }
        Ok(connection)
    }
}

impl Drop for SealedFile {
    fn drop(&mut self) {
        vfs::forget(self.number);
    }
}

/// A path as it stands in a URI.
fn escaped(path: &Path) -> String {
    let mut out = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(*byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests;
