//! A few read-only connections to one file, shared by blocking threads.
//!
//! Bounded: at most [`READERS_MAX`] connections; a caller that finds all of them busy waits for one.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;

use super::{Form, open_reader};

/// Connections to one file at most.
pub const READERS_MAX: usize = 4;

/// Connections to one file.
pub struct Pool {
    path: PathBuf,
    form: Form,
    slots: Mutex<Slots>,
    returned: Condvar,
}

#[derive(Default)]
struct Slots {
    idle: Vec<Connection>,
    lent: usize,
}

impl Pool {
    /// A pool for the file at `path`, which stays open for writing as long as the pool is used.
    #[must_use]
    pub fn new(path: &Path, form: Form) -> Self {
        Self { path: path.to_owned(), form, slots: Mutex::default(), returned: Condvar::new() }
    }

    /// What its pages are on the disk.
    #[must_use]
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a connection, opening one or waiting for one.
    ///
    /// # Errors
    /// As rusqlite, when a connection cannot be opened.
    pub fn get(&self) -> rusqlite::Result<Pooled<'_>> {
        let mut slots = self.slots.lock();
        loop {
            if let Some(connection) = slots.idle.pop() {
                slots.lent += 1;
                return Ok(Pooled { pool: self, connection: Some(connection) });
            }
            if slots.lent < READERS_MAX {
                slots.lent += 1;
                break;
            }
            self.returned.wait(&mut slots);
        }
        drop(slots);
        // From here the place in `lent` is given back by the guard, also when opening fails.
        let mut pooled = Pooled { pool: self, connection: None };
        pooled.connection = Some(open_reader(&self.path, &self.form)?);
        Ok(pooled)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A connection on loan.
pub struct Pooled<'a> {
    pool: &'a Pool,
    connection: Option<Connection>,
}

impl fmt::Debug for Pooled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pooled").field("path", &self.pool.path).finish_non_exhaustive()
    }
}

impl Deref for Pooled<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("a pooled connection is given back only when dropped")
    }
}

impl DerefMut for Pooled<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("a pooled connection is given back only when dropped")
    }
}

impl Drop for Pooled<'_> {
    fn drop(&mut self) {
        let mut slots = self.pool.slots.lock();
        slots.lent -= 1;
        // A connection with a transaction still open (a panic in its user) is not lent again.
        slots.idle.extend(self.connection.take().filter(Connection::is_autocommit));
        drop(slots);
        self.pool.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sqlite::{Durability, open_writer};

    #[test]
    fn no_more_connections_are_open_than_allowed_and_all_callers_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sqlite");
        let _writer = open_writer(&path, &Form::Plain, &[], Durability::AtCheckpoint).unwrap();
        let pool = Pool::new(&path, Form::Plain);
        let (open, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..READERS_MAX * 4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let connection = pool.get().unwrap();
                        most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        connection.query_row("SELECT 1", [], |_| Ok(())).unwrap();
                        open.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.into_inner() <= READERS_MAX);
        assert!(pool.slots.lock().lent == 0);
    }
}
