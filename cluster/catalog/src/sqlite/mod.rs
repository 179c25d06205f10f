//! SQLite files as replicas use them: opening, migrations, pools of readers, state directories, images.
//!
//! Shared with the control group's machine. Invariants:
//! - one writing connection per file, in one process; another may copy the write-ahead file back beside it (needs a SQLite
//!   past the WAL-reset race of 3.51.2 and before, see <https://www.sqlite.org/wal.html>);
//! - no memory mapping: a read error is an error, not a signal;
//! - the page caches of all connections together stay below [`HEAP_SOFT_MAX`].

mod copy_back;
mod image;
mod migrate;
mod pool;
mod state_dir;

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_consensus::FlushFailed;
use holdfast_sealed_sqlite::{DAMAGED_PAGE, SealedFile};
use rusqlite::{Connection, OpenFlags, config::DbConfig, ffi};

pub use image::{ImageReader, ImageWriter, copy_database};
pub use migrate::{Migration, migrate};
pub use pool::{Pool, Pooled};
pub use state_dir::{FileMark, StateDir};

/// Page size of every file, in bytes (measured: 16 KiB gains for bulk loads, 8 KiB for mixed work).
const PAGE_SIZE: u32 = 8192;

/// A commit copies back what is left of a write-ahead file of this many pages (64 MiB), should no checkpoint come.
const WAL_PAGES_MAX: u32 = 8192;

/// A write-ahead file is cut to this many bytes when it starts anew.
const WAL_KEPT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Page cache of one writing connection, in KiB.
const WRITER_CACHE_KIB: u32 = 8192;

/// Page cache of one reading connection, in KiB.
const READER_CACHE_KIB: u32 = 2048;

/// Heap of SQLite in this process, in bytes, above which caches give back pages before they grow.
pub const HEAP_SOFT_MAX: u64 = 96 * 1024 * 1024;

/// How long a connection waits for a lock. Readers and the writer do not block each other in WAL mode;
/// this covers the moment in which a first reader maps the index of the write-ahead file.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Prepared statements kept by one connection.
const STATEMENTS_KEPT: usize = 96;

/// How hard a commit tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// A commit survives a crash of the process. [`checkpoint`] makes it survive power loss.
    AtCheckpoint,
    /// A commit survives power loss when it returns.
    AtCommit,
}

/// What a file's pages are on the disk.
#[derive(Debug, Clone)]
pub enum Form {
    /// In the clear.
    Plain,
    /// Sealed under a key of the file's own.
    Sealed(Arc<SealedFile>),
}

impl Form {
    fn open(&self, path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
        match self {
            Self::Plain => Connection::open_with_flags(path, flags),
            Self::Sealed(file) => file.open(path, flags),
        }
    }
}

/// Codes of a flush that failed: of a file, and of a directory.
const FLUSH_ERRORS: [i32; 2] = [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC];

/// Turns an error of SQLite into one of I/O: damage becomes `InvalidData`, a flush that failed [`FlushFailed`].
#[must_use]
pub fn io_error(doing: &str, path: &Path, error: &rusqlite::Error) -> io::Error {
    use rusqlite::ErrorCode::{DatabaseCorrupt, DiskFull, NotADatabase};
    let text = format!("{doing} {}: {error}", path.display());
    if error.sqlite_error().is_some_and(|error| FLUSH_ERRORS.contains(&error.extended_code)) {
        return io::Error::other(FlushFailed(text));
    }
    let damaged_page = error.sqlite_error().is_some_and(|error| error.extended_code == DAMAGED_PAGE);
    let kind = match error.sqlite_error_code() {
        _ if damaged_page => io::ErrorKind::InvalidData,
        Some(DatabaseCorrupt | NotADatabase) => io::ErrorKind::InvalidData,
        Some(DiskFull) => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, text)
}

/// Opens `path` for writing, creating it when missing, and brings its schema up to date.
///
/// # Errors
/// I/O, a damaged file, or a schema newer than `migrations` (an older release on newer state).
pub fn open_writer(
    path: &Path,
    form: &Form,
    migrations: &[Migration],
    durability: Durability,
) -> io::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = form.open(path, flags).map_err(|e| io_error("opening", path, &e))?;
    let synchronous = match durability {
        Durability::AtCheckpoint => "NORMAL",
        Durability::AtCommit => "FULL",
    };
    prepare(&connection, WRITER_CACHE_KIB)
        .and_then(|()| {
            connection.execute_batch(&format!(
                "PRAGMA page_size = {PAGE_SIZE};
                 PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = {synchronous};
                 PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX};
                 PRAGMA journal_size_limit = {WAL_KEPT_BYTES_MAX};"
            ))
        })
        .map_err(|e| io_error("preparing", path, &e))?;
    migrate(&mut connection, migrations, path)?;
    if durability == Durability::AtCheckpoint {
        copy_back::keep_copying(&mut connection, path, form).map_err(|e| io_error("preparing", path, &e))?;
    }
    Ok(connection)
}

/// Opens `path`, which a writer of this process holds open, for reading.
///
/// # Errors
/// As rusqlite.
pub fn open_reader(path: &Path, form: &Form) -> rusqlite::Result<Connection> {
    let connection = form.open(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    prepare(&connection, READER_CACHE_KIB)?;
    connection.execute_batch("PRAGMA query_only = ON;")?;
    Ok(connection)
}

fn prepare(connection: &Connection, cache_kib: u32) -> rusqlite::Result<()> {
    connection.busy_timeout(LOCK_WAIT)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Plans do not depend on values: otherwise statements are compiled anew for each of them.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(&format!(
        "PRAGMA soft_heap_limit = {HEAP_SOFT_MAX};
         PRAGMA cache_size = -{cache_kib};
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;"
    ))
}

/// Makes every commit on `connection` survive power loss.
///
/// Copies the write-ahead file back and empties it. When a reader is in the way that is put off, and the
/// write-ahead file itself is flushed instead.
///
/// # Errors
/// I/O; [`FlushFailed`]: the file must then be taken as damaged, for what a failed flush left behind is unknown.
pub fn checkpoint(connection: &Connection, path: &Path) -> io::Result<()> {
    let wrap = |e: &rusqlite::Error| io_error("checkpointing", path, e);
    connection.busy_timeout(Duration::ZERO).map_err(|e| wrap(&e))?;
    let outcome = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    });
    connection.busy_timeout(LOCK_WAIT).map_err(|e| wrap(&e))?;
    let (busy, frames_left) = outcome.map_err(|e| wrap(&e))?;
    if busy != 0 || frames_left > 0 {
        // Opening and closing the write-ahead file drops no lock of SQLite: those are on the other two files.
        let ahead = beside(path, "-wal");
        flushed(&ahead, File::open(&ahead)?.sync_all())?;
    }
    Ok(())
}

/// What a flush of the file or directory at `path` said.
fn flushed(path: &Path, result: io::Result<()>) -> io::Result<()> {
    result.map_err(|error| io::Error::other(FlushFailed(format!("{}: {error}", path.display()))))
}

/// The path of a file that belongs to the database at `path`: `-wal`, `-shm`.
#[must_use]
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Flushes a directory, so that files created, renamed and removed in it stay so.
///
/// # Errors
/// I/O; [`FlushFailed`].
pub fn sync_dir(path: &Path) -> io::Result<()> {
    flushed(path, File::open(path)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &[Migration] =
        &[Migration { name: "0001_initial", up: "CREATE TABLE t (x INTEGER) STRICT;" }];

    #[test]
    fn the_bundled_sqlite_is_past_the_wal_reset_race() {
        assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
    }

    #[test]
    fn a_checkpoint_empties_the_write_ahead_file_or_flushes_it_under_a_reader() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sqlite");
        let writer = open_writer(&path, &Form::Plain, SCHEMA, Durability::AtCheckpoint).unwrap();
        writer.execute("INSERT INTO t VALUES (1)", []).unwrap();
        checkpoint(&writer, &path).unwrap();
        assert_eq!(std::fs::metadata(beside(&path, "-wal")).unwrap().len(), 0);

        let mut reader = open_reader(&path, &Form::Plain).unwrap();
        let view = reader.transaction().unwrap();
        assert_eq!(view.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0)).unwrap(), 1);
        writer.execute("INSERT INTO t VALUES (2)", []).unwrap();
        checkpoint(&writer, &path).unwrap();
        assert!(std::fs::metadata(beside(&path, "-wal")).unwrap().len() > 0);
        assert_eq!(view.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0)).unwrap(), 1);
        drop(view);
        assert_eq!(reader.query_row("SELECT count(*) FROM t", [], |r| r.get::<_, i64>(0)).unwrap(), 2);
        assert!(reader.execute("INSERT INTO t VALUES (3)", []).is_err());
    }

    #[test]
    fn a_flush_that_failed_is_told_from_other_errors() {
        let error = |code| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            io_error("committing to", Path::new("a.sqlite"), &error)
        };
        assert!(FlushFailed::is(&error(ffi::SQLITE_IOERR_FSYNC)));
        assert!(FlushFailed::is(&error(ffi::SQLITE_IOERR_DIR_FSYNC)));
        assert!(
            !FlushFailed::is(&error(ffi::SQLITE_IOERR_READ)) && !FlushFailed::is(&error(ffi::SQLITE_FULL))
        );
    }

    #[test]
    fn a_file_that_is_no_database_is_invalid_data() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sqlite");
        std::fs::write(&path, vec![0x5a; 16384]).unwrap();
        let error = open_writer(&path, &Form::Plain, SCHEMA, Durability::AtCheckpoint).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    }
}
