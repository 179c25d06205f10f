//! The control group's state machine: one SQLite file.
//!
//! Invariants:
//! - the index of the next entry commits together with the mutations of the entry; one the file already
//!   holds is skipped when the log is replayed;
//! - a snapshot is installed whole or not at all (see [`StateDir`]).

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use holdfast_catalog::{
    StateDigest,
    sqlite::{self, Durability, FileMark, Form, ImageReader, ImageWriter, Migration, StateDir, io_error},
};
use holdfast_consensus::{Applied, StateMachine};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::watch;

use crate::{
    apply::apply,
    command::{Command, DecodeError, Outcome, Refusal, Response, encode_outcome},
    reader::{ControlReader, Source},
};

/// The file that is the control group's state.
pub const FILE: &str = "control.sqlite";
const MIGRATIONS: &[Migration] = &[
    Migration { name: "0001_initial", up: include_str!("../migrations/0001_initial/up.sql") },
    Migration { name: "0002_replacement", up: include_str!("../migrations/0002_replacement/up.sql") },
    Migration { name: "0003_keys", up: include_str!("../migrations/0003_keys/up.sql") },
    Migration { name: "0004_identities", up: include_str!("../migrations/0004_identities/up.sql") },
    Migration { name: "0005_shreds", up: include_str!("../migrations/0005_shreds/up.sql") },
    Migration { name: "0006_feature_levels", up: include_str!("../migrations/0006_feature_levels/up.sql") },
    Migration { name: "0007_drive_labels", up: include_str!("../migrations/0007_drive_labels/up.sql") },
    Migration { name: "0008_tenant_limits", up: include_str!("../migrations/0008_tenant_limits/up.sql") },
    Migration { name: "0009_access_keys", up: include_str!("../migrations/0009_access_keys/up.sql") },
];

/// Kind of a control image (see the image's header).
pub const IMAGE_KIND: u16 = 2;

/// The tables that replicas share, each with its order.
const TABLES: &[&str] = &[
    "cluster ORDER BY one",
    "nodes ORDER BY node",
    "groups ORDER BY group_no",
    "drives ORDER BY drive",
    "drive_labels ORDER BY drive",
    "tenants ORDER BY tenant",
    "partitions ORDER BY partition_no",
    "accounts ORDER BY account",
    "identities ORDER BY account, kind, name",
    "access_keys ORDER BY access_key",
    "operators ORDER BY name",
    "join_tokens ORDER BY hash",
    "secrets ORDER BY name",
    "roots ORDER BY epoch",
    "keys ORDER BY one",
    "recovery_sets ORDER BY at, set_tag",
    "shreds ORDER BY tenant",
    "tenant_limits ORDER BY tenant",
    "journal_addresses ORDER BY tenant",
];

/// The machine.
#[derive(Debug)]
pub struct ControlMachine {
    dir: StateDir,
    db: Connection,
    database_id: [u8; 16],
    /// Entries below are applied and committed.
    next_index: u64,
    position: Option<Vec<u8>>,
    source: Source,
    changed: watch::Sender<u64>,
    digests: Digests,
}

/// Entries between two digests of the state. All replicas take them after the same ones.
pub const CONTROL_DIGEST_ENTRIES: u64 = 32;

/// Digests that are remembered.
const DIGESTS_KEPT: usize = 8;

/// The latest digests, oldest first.
pub(crate) type Digests = Arc<Mutex<VecDeque<StateDigest>>>;

impl ControlMachine {
    /// Opens the state under `root`, creating it when missing. `fresh_id` names the database if it is new.
    ///
    /// # Errors
    /// I/O, or `InvalidData` when what is there is damaged.
    pub fn open(root: &Path, fresh_id: [u8; 16]) -> io::Result<(Self, ControlReader)> {
        let dir = StateDir::open(root)?;
        let path = dir.path().join(FILE);
        let position = dir.position()?;
        let marks = dir.marks()?;
        if !marks.is_empty() && !path.exists() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is missing, the last checkpoint covered it", path.display()),
            ));
        }
        let db = open_database(&path)?;
        let (database_id, next_index) = match identity(&db, &path)? {
            Some(found) => found,
            // Before the first checkpoint the log holds everything; after it an empty file is damage.
            None if marks.is_empty() => {
                found_database(&db, &path, fresh_id)?;
                (fresh_id, 0)
            }
            None => return Err(invalid(&format!("{} was checkpointed and is empty", path.display()))),
        };
        for mark in &marks {
            dir.verify(mark, database_id, next_index)?;
        }
        let (changed, changes) = watch::channel(next_index);
        let source = Source::new(&path);
        let digests = Digests::default();
        let reader = ControlReader::new(source.clone(), changes, Arc::clone(&digests));
        Ok((Self { dir, db, database_id, next_index, position, source, changed, digests }, reader))
    }

    /// SHA-256 over every row but the database's own id: equal on replicas that applied the same entries.
    ///
    /// # Errors
    /// As rusqlite.
    pub fn digest(&self) -> rusqlite::Result<[u8; 32]> {
        holdfast_catalog::digest::of_tables(&self.db, TABLES)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }

    fn apply_all(&mut self, entries: &[Applied<'_>]) -> rusqlite::Result<Vec<Vec<Bytes>>> {
        let transaction = self.db.transaction()?;
        let mut next_index = self.next_index;
        let mut answers = Vec::with_capacity(entries.len());
        let mut taken = Vec::new();
        for entry in entries {
            if entry.index < next_index {
                answers.push(vec![encode_outcome(&Ok(Response::Replayed)); entry.commands.len()]);
                continue;
            }
            let mut outcomes = Vec::with_capacity(entry.commands.len());
            for bytes in entry.commands {
                let outcome: Outcome = match Command::decode(bytes) {
                    Ok(command) => apply(&transaction, entry.index, &command)?,
                    // The same bytes are malformed on every replica of this version, and the version is known.
                    Err(error @ DecodeError::Malformed(_)) => Err(Refusal::Invalid(error.to_string())),
                    Err(error @ DecodeError::UnknownVersion(_)) => {
                        return Err(rusqlite::Error::ToSqlConversionFailure(error.into()));
                    }
                };
                outcomes.push(encode_outcome(&outcome));
            }
            answers.push(outcomes);
            next_index = entry.index + 1;
            if entry.index.is_multiple_of(CONTROL_DIGEST_ENTRIES) {
                let sha256 = holdfast_catalog::digest::of_tables(&transaction, TABLES)?;
                taken.push(StateDigest { index: entry.index, schema: MIGRATIONS.len() as u32, sha256 });
            }
        }
        transaction.execute("UPDATE meta SET next_index = ?1", [next_index.cast_signed()])?;
        transaction.commit()?;
        self.next_index = next_index;
        let mut digests = self.digests.lock();
        digests.extend(taken);
        let superfluous = digests.len().saturating_sub(DIGESTS_KEPT);
        digests.drain(..superfluous);
        drop(digests);
        self.changed.send_replace(next_index);
        Ok(answers)
    }
}

/// What is deleted or replaced is overwritten in the file: wrapped keys are among it.
fn open_database(path: &Path) -> io::Result<Connection> {
    let db = sqlite::open_writer(path, &Form::Plain, MIGRATIONS, Durability::AtCheckpoint)?;
    // Answers with the setting.
    db.query_row("PRAGMA secure_delete = ON", [], |_| Ok(())).map_err(|e| io_error("preparing", path, &e))?;
    Ok(db)
}

/// Makes a new file the database `id` that holds nothing yet.
fn found_database(db: &Connection, path: &Path, id: [u8; 16]) -> io::Result<()> {
    db.execute("INSERT INTO meta VALUES (1, ?1, 0)", params![id])
        .map(drop)
        .map_err(|e| io_error("creating", path, &e))
}

/// Which database this is and the first entry that is not applied to it; `None` in a new file.
fn identity(db: &Connection, path: &Path) -> io::Result<Option<([u8; 16], u64)>> {
    db.query_row("SELECT database_id, next_index FROM meta", [], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
    })
    .optional()
    .map_err(|e| io_error("reading", path, &e))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl StateMachine for ControlMachine {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let path = self.file();
        self.apply_all(entries).map_err(|e| io_error("applying to", &path, &e))
    }

    fn checkpoint(&mut self, position: &[u8]) -> io::Result<()> {
        sqlite::checkpoint(&self.db, &self.file())?;
        let mark =
            FileMark { name: FILE.to_owned(), database_id: self.database_id, next_index: self.next_index };
        self.dir.store(position, &[mark])?;
        self.position = Some(position.to_vec());
        Ok(())
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.position.clone()
    }

    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        let mut image = ImageWriter::create(path, IMAGE_KIND, 1)?;
        image.add_database(FILE, &self.db, &path.with_extension("scratch"), &Form::Plain)?;
        image.finish()
    }

    fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()> {
        let mut image = ImageReader::open(path, IMAGE_KIND)?;
        let staged = self.dir.stage()?;
        match image.extract_next(staged.path())? {
            Some(name) if name == FILE => {}
            _ => return Err(invalid("the image is not of a control group")),
        }
        if image.extract_next(staged.path())?.is_some() {
            return Err(invalid("the image holds more than a control database"));
        }
        let path = staged.path().join(FILE);
        let db = open_database(&path)?;
        let (database_id, next_index) =
            identity(&db, &path)?.ok_or_else(|| invalid("the image holds a database without identity"))?;
        sqlite::checkpoint(&db, &path)?;
        let mark = FileMark { name: FILE.to_owned(), database_id, next_index };
        self.dir.switch(staged, position, &[mark])?;
        self.source.replace(&path);
        self.db = db;
        self.database_id = database_id;
        self.next_index = next_index;
        self.position = Some(position.to_vec());
        self.digests.lock().clear();
        self.changed.send_replace(next_index);
        Ok(())
    }

    /// For a state that the log can give again; nothing is kept of it. A node whose state is not what others have joins
    /// anew instead.
    fn discard(&mut self) -> io::Result<()> {
        // Every connection to the files is closed first.
        self.db = Connection::open_in_memory().map_err(|e| io_error("closing", &self.file(), &e))?;
        self.dir.discard()?;
        self.dir.remove_discarded()?;
        let path = self.file();
        self.db = open_database(&path)?;
        found_database(&self.db, &path, self.database_id)?;
        self.source.replace(&path);
        (self.next_index, self.position) = (0, None);
        self.digests.lock().clear();
        self.changed.send_replace(0);
        Ok(())
    }
}
