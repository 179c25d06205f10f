//! Copies a write-ahead file back into its database beside the writer, a little at a time.
//!
//! SQLite itself does it within the commit that makes the file too long: flush tens of megabytes, read them, write
//! their pages, flush again. Nothing is applied in the meantime, and since replicas commit the same pages, they all
//! stand still at the same moment. Here a connection of its own does it for every [`PASS_PAGES`], on a thread that yields to
//! others, and leaves to the writer what came meanwhile.
//!
//! A pass never starts the file anew (it is *passive*, <https://www.sqlite.org/c3ref/wal_checkpoint_v2.html>): that takes a
//! writer that stands still, and is left to the commit that reaches [`WAL_PAGES_MAX`] and to checkpoints.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OpenFlags, config::DbConfig, hooks::Wal};

use super::{Form, WAL_PAGES_MAX};

/// Pages of a write-ahead file after which they are copied back (4 MiB).
const PASS_PAGES: u32 = 512;

/// How often a pass goes on to what came during it.
const ROUNDS_MAX: usize = 3;

/// The passes of one database. Ends with its writer, which waits for the one that is under way: afterwards nobody
/// here has the file open.
struct CopyBack {
    shared: Arc<Shared>,
    /// Pages of the file when the last pass was begun.
    begun_at: u32,
}

struct Shared {
    path: PathBuf,
    form: Form,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: bool,
    failed: Option<rusqlite::Error>,
}

/// Has the write-ahead file of `writer`, the writing connection of the database at `path`, copied back from now on.
///
/// # Errors
/// As rusqlite.
pub(super) fn keep_copying(writer: &mut Connection, path: &Path, form: &Form) -> rusqlite::Result<()> {
    let shared =
        Shared { path: path.to_owned(), form: form.clone(), state: Mutex::default(), ended: Condvar::new() };
    let mut copying = CopyBack { shared: Arc::new(shared), begun_at: 0 };
    writer
        .wal_hook(Some(move |wal: &mut Wal, pages| copying.committed(wal, u32::try_from(pages).unwrap_or(0))))
}

impl CopyBack {
    /// After each commit; the write-ahead file has so many pages. An error is that of the commit's statement.
    fn committed(&mut self, wal: &mut Wal, pages: u32) -> rusqlite::Result<()> {
        if let Some(error) = self.shared.state.lock().failed.take() {
            return Err(error);
        }
        if pages >= WAL_PAGES_MAX {
            // In the way of a pass it waits for nothing: the next commit tries again.
            return wal.checkpoint().or_else(harmless);
        }
        if pages < self.begun_at {
            self.begun_at = 0;
        }
        if pages - self.begun_at >= PASS_PAGES && self.shared.begin() {
            self.begun_at = pages;
        }
        Ok(())
    }
}

impl Drop for CopyBack {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        self.shared.ended.wait_while(&mut state, |state| state.running);
    }
}

impl Shared {
    /// Begins a pass, unless one is under way.
    fn begin(self: &Arc<Self>) -> bool {
        if std::mem::replace(&mut self.state.lock().running, true) {
            return false;
        }
        let this = Arc::clone(self);
        let begun = holdfast_background::spawn("catalog-wal", move || {
            let mut ending = Ending(&this);
            ending.end(this.pass());
        });
        if let Err(error) = &begun {
            tracing::warn!(%error, "no thread to copy a write-ahead file back: its writer will");
            self.state.lock().running = false;
        }
        begun.is_ok()
    }

    fn pass(&self) -> rusqlite::Result<()> {
        let started = Instant::now();
        let (mut pages, mut copied) = (0, 0);
        let rounds = self.open().and_then(|connection| {
            for _ in 0..ROUNDS_MAX {
                (pages, copied) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                    Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
                })?;
                if pages == copied {
                    break;
                }
            }
            Ok(())
        });
        let path = self.path.display();
        match rounds.or_else(harmless) {
            Ok(()) => {
                tracing::debug!(%path, pages, copied, took = ?started.elapsed(), "write-ahead file copied back");
                Ok(())
            }
            Err(error) => {
                tracing::error!(%path, %error, "the write-ahead file cannot be copied back");
                Err(error)
            }
        }
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = self.form.open(&self.path, flags)?;
        connection.busy_timeout(Duration::ZERO)?;
        // What closes last would remove the write-ahead file.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA mmap_size = 0;")?;
        Ok(connection)
    }
}

/// Says that a pass has ended, also when it panics.
struct Ending<'a>(&'a Shared);

impl Ending<'_> {
    fn end(&mut self, result: rusqlite::Result<()>) {
        self.0.state.lock().failed = result.err();
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.state.lock().running = false;
        self.0.ended.notify_all();
    }
}

/// What leaves everything where it was, to be tried again: another checkpoint under way, a full disk.
fn harmless(error: rusqlite::Error) -> rusqlite::Result<()> {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
    match error.sqlite_error_code() {
        Some(DatabaseBusy | DatabaseLocked) => Ok(()),
        Some(DiskFull) => {
            tracing::warn!(
                "the system disk is full: a write-ahead file of the catalog is not copied back, and grows"
            );
            Ok(())
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{Durability, Migration, beside, checkpoint, open_writer};

    const SCHEMA: &[Migration] =
        &[Migration { name: "0001_initial", up: "CREATE TABLE t (x INTEGER PRIMARY KEY, b BLOB) STRICT;" }];

    /// Rows that take a page each.
    fn write(writer: &Connection, rows: std::ops::Range<u32>) {
        for x in rows {
            writer.execute("INSERT INTO t VALUES (?1, zeroblob(5000))", [x]).unwrap();
        }
    }

    #[test]
    fn what_is_long_is_copied_back_beside_the_writer_and_nobody_has_it_open_after_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sqlite");
        let writer = open_writer(&path, &Form::Plain, SCHEMA, Durability::AtCheckpoint).unwrap();
        let size = || std::fs::metadata(&path).unwrap().len();
        write(&writer, 0..PASS_PAGES / 4);
        let before = size();
        write(&writer, PASS_PAGES / 4..2 * PASS_PAGES);
        drop(writer);
        let copied = u64::from(PASS_PAGES / 4) * 8192;
        assert!(size() > before + copied, "{} bytes, {before} before", size());

        let writer = open_writer(&path, &Form::Plain, SCHEMA, Durability::AtCheckpoint).unwrap();
        let rows = writer.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, u32>(0)).unwrap();
        assert_eq!(rows, 2 * PASS_PAGES);
        checkpoint(&writer, &path).unwrap();
        assert_eq!(std::fs::metadata(beside(&path, "-wal")).unwrap().len(), 0);
    }

    #[test]
    fn a_pass_that_failed_is_an_error_of_the_next_commit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sqlite");
        let shared =
            Shared { path: path.clone(), form: Form::Plain, state: Mutex::default(), ended: Condvar::new() };
        let shared = Arc::new(shared);
        let mut writer = open_writer(&path, &Form::Plain, SCHEMA, Durability::AtCheckpoint).unwrap();
        let mut copying = CopyBack { shared: Arc::clone(&shared), begun_at: 0 };
        writer.wal_hook(Some(move |wal: &mut Wal, _| copying.committed(wal, PASS_PAGES))).unwrap();
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        write(&writer, 0..1);
        let mut state = shared.state.lock();
        shared.ended.wait_while(&mut state, |state| state.running);
        drop(state);
        assert!(writer.execute("INSERT INTO t VALUES (1, NULL)", []).is_err());
    }
}
