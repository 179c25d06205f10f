//! The directory of one replica's state: which files are current, and up to where they are durable.
//!
//! ```text
//! root/current              the name of the current directory, replaced by rename
//! root/s0000000001/         one directory per installed state
//!     group.sqlite          position of the last checkpoint, and a mark for every file it covers
//!     *.sqlite              the machine's files
//! ```
//!
//! Invariants:
//! - installing a state writes a new directory beside the current one and then renames one pointer: a
//!   crash leaves the old state or the new one;
//! - a file that a checkpoint covered must be there when the directory is opened, be the same database
//!   and have applied at least as much. Anything else is damage (`InvalidData`), never a new beginning;
//! - nothing is removed that a pointer ever named, until its successor is durable.

use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{Durability, Form, Migration, checkpoint, io_error, open_writer, sync_dir};

const GROUP_FILE: &str = "group.sqlite";
const POINTER: &str = "current";

/// Ending of a directory whose state was put aside.
const DISCARDED: &str = ".discarded";
const GROUP_MIGRATIONS: &[Migration] =
    &[Migration { name: "0001_initial", up: include_str!("../../migrations/group/0001_initial/up.sql") }];

/// What a checkpoint knew of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMark {
    /// Name in the directory: `p1.sqlite`.
    pub name: String,
    /// Identity of the database in it.
    pub database_id: [u8; 16],
    /// Entries below this log index are applied to it.
    pub next_index: u64,
}

/// The state directory of one replica, open.
pub struct StateDir {
    root: PathBuf,
    number: u64,
    group: Connection,
    /// A state that is no longer current is still there, for readers that are at it.
    replaced: bool,
}

impl fmt::Debug for StateDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDir").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// A state being installed: a directory that nothing points to yet.
#[derive(Debug)]
pub struct Staged {
    number: u64,
    path: PathBuf,
}

impl Staged {
    /// Where the new state's files go.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl StateDir {
    /// Opens the directory at `root`, creating it when missing.
    ///
    /// # Errors
    /// I/O; `InvalidData` when the pointer is damaged, or missing beside a state that had been in use.
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let states = states_in(root)?;
        let number = match fs::read_to_string(root.join(POINTER)) {
            Ok(text) => {
                number_of(text.trim_end()).ok_or_else(|| damaged(root, "the pointer names no state"))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for number in &states {
                    if position_in(&root.join(name_of(*number)))?.is_some() {
                        return Err(damaged(root, "the pointer is missing beside a state that was in use"));
                    }
                }
                0
            }
            Err(error) => return Err(error),
        };
        if number > 0 && !states.contains(&number) {
            return Err(damaged(root, "the current state is missing"));
        }
        for other in states.iter().filter(|n| **n != number) {
            fs::remove_dir_all(root.join(name_of(*other)))?;
        }
        if number > 0 {
            let group = open_group(&root.join(name_of(number)))?;
            return Ok(Self { root: root.to_owned(), number, group, replaced: false });
        }
        let staged = Staged { number: 1, path: root.join(name_of(1)) };
        fs::create_dir(&staged.path)?;
        let group = open_group(&staged.path)?;
        let path = staged.path.join(GROUP_FILE);
        checkpoint(&group, &path)?;
        sync_dir(&staged.path)?;
        point_to(root, 1)?;
        Ok(Self { root: root.to_owned(), number: 1, group, replaced: false })
    }

    /// Where the current files are.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.root.join(name_of(self.number))
    }

    /// The position of the last checkpoint or installation.
    ///
    /// # Errors
    /// I/O or damage.
    pub fn position(&self) -> io::Result<Option<Vec<u8>>> {
        read_position(&self.group).map_err(|e| io_error("reading the position in", &self.path(), &e))
    }

    /// The files that the last checkpoint or installation covered.
    ///
    /// # Errors
    /// I/O or damage.
    pub fn marks(&self) -> io::Result<Vec<FileMark>> {
        read_marks(&self.group).map_err(|e| io_error("reading the marks in", &self.path(), &e))
    }

    /// Checks an open file against its mark, given what the file says of itself.
    ///
    /// # Errors
    /// `InvalidData` when it is another database or an older copy.
    pub fn verify(&self, mark: &FileMark, database_id: [u8; 16], next_index: u64) -> io::Result<()> {
        let what = if mark.database_id != database_id {
            format!("{} is another database than the one checkpointed", mark.name)
        } else if next_index < mark.next_index {
            format!(
                "{} has applied entries below {next_index}, the last checkpoint those below {}",
                mark.name, mark.next_index
            )
        } else {
            return Ok(());
        };
        Err(damaged(&self.path(), &what))
    }

    /// Stores the position durably. Every file must have been made durable before. Removes a state that
    /// [`StateDir::switch`] replaced.
    ///
    /// # Errors
    /// I/O.
    pub fn store(&mut self, position: &[u8], marks: &[FileMark]) -> io::Result<()> {
        let path = self.path();
        sync_dir(&path)?;
        store(&mut self.group, position, marks)
            .map_err(|e| io_error("storing the position in", &path, &e))?;
        if self.replaced {
            for number in states_in(&self.root)?.into_iter().filter(|n| *n != self.number) {
                fs::remove_dir_all(self.root.join(name_of(number)))?;
            }
            self.replaced = false;
        }
        Ok(())
    }

    /// Starts an installation. What an earlier one left behind is removed.
    ///
    /// # Errors
    /// I/O.
    pub fn stage(&self) -> io::Result<Staged> {
        let number = self.number + 1;
        let path = self.root.join(name_of(number));
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(Staged { number, path })
    }

    /// Puts the whole state aside, beside its directory with the ending `.discarded`, in the place of an
    /// earlier one, and begins with none. Every connection to its files must be closed.
    ///
    /// # Errors
    /// I/O. After a crash in between the state is new.
    pub fn discard(&mut self) -> io::Result<()> {
        let aside = super::beside(&self.root, DISCARDED);
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        fs::rename(&self.root, &aside)?;
        *self = Self::open(&self.root)?;
        Ok(())
    }

    /// Removes what [`StateDir::discard`] put aside.
    ///
    /// # Errors
    /// I/O.
    pub fn remove_discarded(&self) -> io::Result<()> {
        fs::remove_dir_all(super::beside(&self.root, DISCARDED))
    }

    /// Makes `staged` current: its files, already durable, with `position`. The old state stays on disk
    /// until the next [`StateDir::store`], so that a read begun on it can end.
    ///
    /// # Errors
    /// I/O. Which state is current is then decided when the directory is next opened.
    pub fn switch(&mut self, staged: Staged, position: &[u8], marks: &[FileMark]) -> io::Result<()> {
        let mut group = open_group(&staged.path)?;
        let path = staged.path.join(GROUP_FILE);
        store(&mut group, position, marks).map_err(|e| io_error("storing the position in", &path, &e))?;
        checkpoint(&group, &path)?;
        sync_dir(&staged.path)?;
        point_to(&self.root, staged.number)?;
        self.number = staged.number;
        self.group = group;
        self.replaced = true;
        Ok(())
    }
}

fn name_of(number: u64) -> String {
    format!("s{number:010}")
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix('s')?.parse().ok().filter(|n| *n > 0 && name_of(*n) == name)
}

fn states_in(root: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(root)? {
        numbers.extend(entry?.file_name().to_str().and_then(number_of));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn damaged(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
}

fn point_to(root: &Path, number: u64) -> io::Result<()> {
    let written = root.join("current.new");
    let mut file = fs::File::create(&written)?;
    writeln!(file, "{}", name_of(number))?;
    file.sync_all()?;
    fs::rename(&written, root.join(POINTER))?;
    sync_dir(root)
}

fn open_group(dir: &Path) -> io::Result<Connection> {
    open_writer(&dir.join(GROUP_FILE), &Form::Plain, GROUP_MIGRATIONS, Durability::AtCommit)
}

/// The position in a state that may be half-made.
fn position_in(dir: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = dir.join(GROUP_FILE);
    if !path.exists() {
        return Ok(None);
    }
    read_position(&open_group(dir)?).map_err(|e| io_error("reading the position in", &path, &e))
}

fn read_position(group: &Connection) -> rusqlite::Result<Option<Vec<u8>>> {
    group.query_row("SELECT position FROM position", [], |row| row.get(0)).optional()
}

fn read_marks(group: &Connection) -> rusqlite::Result<Vec<FileMark>> {
    group
        .prepare("SELECT name, database_id, next_index FROM files ORDER BY name")?
        .query_map([], |row| {
            Ok(FileMark {
                name: row.get(0)?,
                database_id: row.get(1)?,
                next_index: row.get::<_, i64>(2)?.cast_unsigned(),
            })
        })?
        .collect()
}

fn store(group: &mut Connection, position: &[u8], marks: &[FileMark]) -> rusqlite::Result<()> {
    let transaction = group.transaction()?;
    transaction.execute(
        "INSERT INTO position (one, position) VALUES (1, ?1) ON CONFLICT (one) DO UPDATE SET position = ?1",
        params![position],
    )?;
    transaction.execute("DELETE FROM files", [])?;
    for mark in marks {
        transaction
            .prepare_cached("INSERT INTO files (name, database_id, next_index) VALUES (?1, ?2, ?3)")?
            .execute(params![mark.name, mark.database_id, mark.next_index.cast_signed()])?;
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(next_index: u64) -> FileMark {
        FileMark { name: "p1.sqlite".into(), database_id: [1; 16], next_index }
    }

    #[test]
    fn a_new_directory_has_no_position_and_keeps_the_one_it_is_given() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = StateDir::open(root.path()).unwrap();
        assert_eq!(dir.position().unwrap(), None);
        dir.store(b"seven", &[mark(7)]).unwrap();
        dir.store(b"eight", &[mark(8)]).unwrap();
        drop(dir);
        let dir = StateDir::open(root.path()).unwrap();
        assert_eq!(dir.position().unwrap().unwrap(), b"eight");
        assert_eq!(dir.marks().unwrap(), [mark(8)]);
    }

    #[test]
    fn a_switch_is_all_or_nothing() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = StateDir::open(root.path()).unwrap();
        dir.store(b"old", &[]).unwrap();
        fs::write(dir.path().join("a"), b"old").unwrap();

        // Staged and abandoned: the old state is current, the leftovers are gone.
        let staged = dir.stage().unwrap();
        fs::write(staged.path().join("a"), b"new").unwrap();
        drop(dir);
        let mut dir = StateDir::open(root.path()).unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"old");
        assert!(!staged.path().exists());

        let staged = dir.stage().unwrap();
        fs::write(staged.path().join("a"), b"new").unwrap();
        dir.switch(staged, b"new", &[]).unwrap();
        assert_eq!(states_in(root.path()).unwrap(), [1, 2]);
        drop(dir);
        let dir = StateDir::open(root.path()).unwrap();
        assert_eq!(dir.position().unwrap().unwrap(), b"new");
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"new");
        assert_eq!(states_in(root.path()).unwrap(), [2]);
    }

    #[test]
    fn a_replaced_state_is_removed_with_the_next_checkpoint() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = StateDir::open(root.path()).unwrap();
        let staged = dir.stage().unwrap();
        dir.switch(staged, b"new", &[]).unwrap();
        dir.store(b"newer", &[]).unwrap();
        assert_eq!(states_in(root.path()).unwrap(), [2]);
    }

    #[test]
    fn a_discarded_state_is_kept_aside_and_nothing_of_it_is_in_the_new_one() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = StateDir::open(&root.path().join("g")).unwrap();
        for round in [1, 2] {
            dir.store(b"seven", &[mark(round)]).unwrap();
            dir.discard().unwrap();
            assert_eq!((dir.position().unwrap(), dir.marks().unwrap()), (None, Vec::new()));
            let aside = StateDir::open(&root.path().join("g.discarded")).unwrap();
            assert_eq!(aside.marks().unwrap(), [mark(round)]);
        }
    }

    #[test]
    fn a_lost_pointer_is_damage_and_not_a_new_beginning() {
        let root = tempfile::tempdir().unwrap();
        let mut dir = StateDir::open(root.path()).unwrap();
        dir.store(b"seven", &[]).unwrap();
        drop(dir);
        fs::remove_file(root.path().join(POINTER)).unwrap();
        assert_eq!(StateDir::open(root.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
        fs::write(root.path().join(POINTER), "s0000000009\n").unwrap();
        assert_eq!(StateDir::open(root.path()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_older_copy_and_another_database_are_told_from_the_file_that_was_checkpointed() {
        let root = tempfile::tempdir().unwrap();
        let dir = StateDir::open(root.path()).unwrap();
        assert!(dir.verify(&mark(7), [1; 16], 7).is_ok() && dir.verify(&mark(7), [1; 16], 9).is_ok());
        assert!(dir.verify(&mark(7), [1; 16], 6).is_err() && dir.verify(&mark(7), [2; 16], 7).is_err());
    }
}
