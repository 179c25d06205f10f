//! The control group's state machine: one SQLite file.
//!
//! Invariants:
//! - the applied index commits together with the mutations of its entry; an entry the file already
//!   holds is skipped when the log is replayed;
//! - a snapshot is installed whole or not at all (see [`StateDir`]).

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use holdfast_catalog::sqlite::{
    self, Durability, FileMark, ImageReader, ImageWriter, Migration, StateDir, io_error,
};
use holdfast_consensus::{Applied, StateMachine};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::{
    apply::apply,
    command::{Command, Outcome, Response, encode_outcome},
    reader::{ControlReader, read_view},
};

const FILE: &str = "control.sqlite";
const MIGRATIONS: &[Migration] =
    &[Migration { name: "0001_initial", up: include_str!("../migrations/0001_initial/up.sql") }];

/// Kind of a control image (see the image's header).
const IMAGE_KIND: u16 = 2;

/// The machine.
#[derive(Debug)]
pub struct ControlMachine {
    dir: StateDir,
    db: Connection,
    database_id: [u8; 16],
    applied: u64,
    path: Arc<Mutex<PathBuf>>,
    changed: watch::Sender<u64>,
}

impl ControlMachine {
    /// Opens the state under `root`, creating it when missing. `fresh_id` names the database if it is new.
    ///
    /// # Errors
    /// I/O, or `InvalidData` when what is there is damaged.
    pub fn open(root: &Path, fresh_id: [u8; 16]) -> io::Result<(Self, ControlReader)> {
        let dir = StateDir::open(root)?;
        let path = dir.path().join(FILE);
        let marks = dir.marks()?;
        if !marks.is_empty() && !path.exists() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is missing, the last checkpoint covered it", path.display()),
            ));
        }
        let (db, database_id, applied) = open_database(&path, fresh_id)?;
        for mark in &marks {
            dir.verify(mark, database_id, applied)?;
        }
        let (changed, changes) = watch::channel(applied);
        let path = Arc::new(Mutex::new(path));
        let reader = ControlReader::new(Arc::clone(&path), changes);
        Ok((Self { dir, db, database_id, applied, path, changed }, reader))
    }

    /// SHA-256 over the logical state: equal on replicas that applied the same entries.
    ///
    /// # Errors
    /// As rusqlite.
    pub fn digest(&self) -> rusqlite::Result<[u8; 32]> {
        let mut sha = Sha256::new();
        let view = read_view(&self.db)?;
        sha.update(format!("{view:?}").as_bytes());
        let mut tokens = self.db.prepare("SELECT hash, expires, used_by FROM join_tokens")?;
        let mut rows = tokens.query([])?;
        while let Some(row) = rows.next()? {
            sha.update(row.get::<_, [u8; 32]>(0)?);
            sha.update(row.get::<_, i64>(1)?.to_le_bytes());
            sha.update(row.get::<_, Option<i64>>(2)?.unwrap_or(-1).to_le_bytes());
        }
        Ok(sha.finalize().into())
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }

    fn apply_all(&mut self, entries: &[Applied<'_>]) -> rusqlite::Result<Vec<Vec<Bytes>>> {
        let transaction = self.db.transaction()?;
        let mut applied = self.applied;
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.index <= applied {
                answers.push(vec![encode_outcome(&Ok(Response::Replayed)); entry.commands.len()]);
                continue;
            }
            let mut outcomes = Vec::with_capacity(entry.commands.len());
            for bytes in entry.commands {
                let command = Command::decode(bytes).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
                let outcome: Outcome = apply(&transaction, &command)?;
                outcomes.push(encode_outcome(&outcome));
            }
            answers.push(outcomes);
            applied = entry.index;
        }
        transaction.execute("UPDATE meta SET applied = ?1", [applied.cast_signed()])?;
        transaction.commit()?;
        self.applied = applied;
        self.changed.send_replace(applied);
        Ok(answers)
    }
}

fn open_database(path: &Path, fresh_id: [u8; 16]) -> io::Result<(Connection, [u8; 16], u64)> {
    let db = sqlite::open_writer(path, MIGRATIONS, Durability::AtCheckpoint)?;
    let read = |db: &Connection| -> rusqlite::Result<([u8; 16], u64)> {
        let found = db
            .query_row("SELECT database_id, applied FROM meta", [], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })
            .optional()?;
        if let Some(found) = found {
            return Ok(found);
        }
        db.execute("INSERT INTO meta VALUES (1, ?1, 0)", params![fresh_id])?;
        Ok((fresh_id, 0))
    };
    let (id, applied) = read(&db).map_err(|e| io_error("reading", path, &e))?;
    Ok((db, id, applied))
}

impl StateMachine for ControlMachine {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let path = self.file();
        self.apply_all(entries).map_err(|e| io_error("applying to", &path, &e))
    }

    fn checkpoint(&mut self, position: &[u8]) -> io::Result<()> {
        sqlite::checkpoint(&self.db, &self.file())?;
        let mark =
            FileMark { name: FILE.to_owned(), database_id: self.database_id, applied: self.applied };
        self.dir.store(position, &[mark])
    }

    fn position(&self) -> Option<Vec<u8>> {
        // Read once when the group starts; an unreadable position was an error at `open` already.
        self.dir.position().ok().flatten()
    }

    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        let mut image = ImageWriter::create(path, IMAGE_KIND, 1)?;
        image.add_database(FILE, &self.db, &path.with_extension("scratch"))?;
        image.finish()
    }

    fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()> {
        let mut image = ImageReader::open(path, IMAGE_KIND)?;
        let staged = self.dir.stage()?;
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        match image.extract_next(staged.path())? {
            Some(name) if name == FILE => {}
            _ => return Err(invalid("the image is not of a control group")),
        }
        if image.extract_next(staged.path())?.is_some() {
            return Err(invalid("the image holds more than a control database"));
        }
        let (db, database_id, applied) = open_database(&staged.path().join(FILE), [0; 16])?;
        sqlite::checkpoint(&db, &staged.path().join(FILE))?;
        let mark = FileMark { name: FILE.to_owned(), database_id, applied };
        self.dir.switch(staged, position, &[mark])?;
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = self.file();
        self.db = db;
        self.database_id = database_id;
        self.applied = applied;
        self.changed.send_replace(applied);
        self.dir.remove_others()
    }
}
