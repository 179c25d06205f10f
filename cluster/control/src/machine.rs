//! The control group's state machine: one SQLite file.
//!
//! Invariants:
//! - the index of the next entry commits together with the mutations of the entry; one the file already
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
use tokio::sync::watch;

use crate::{
    apply::apply,
    command::{Command, Outcome, Response, encode_outcome},
    reader::ControlReader,
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
    /// Entries below are applied and committed.
    next_index: u64,
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
        let (db, database_id, next_index) = open_database(&path, fresh_id)?;
        for mark in &marks {
            dir.verify(mark, database_id, next_index)?;
        }
        let (changed, changes) = watch::channel(next_index);
        let path = Arc::new(Mutex::new(path));
        let reader = ControlReader::new(Arc::clone(&path), changes);
        Ok((Self { dir, db, database_id, next_index, path, changed }, reader))
    }

    /// SHA-256 over every row: equal on replicas that applied the same entries.
    ///
    /// # Errors
    /// As rusqlite.
    pub fn digest(&self) -> rusqlite::Result<[u8; 32]> {
        holdfast_catalog::digest::of_tables(
            &self.db,
            &[
                "cluster",
                "nodes",
                "groups",
                "drives",
                "tenants",
                "partitions",
                "access_keys",
                "operators",
                "join_tokens",
                "secrets",
            ],
        )
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }

    fn apply_all(&mut self, entries: &[Applied<'_>]) -> rusqlite::Result<Vec<Vec<Bytes>>> {
        let transaction = self.db.transaction()?;
        let mut next_index = self.next_index;
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.index < next_index {
                answers.push(vec![encode_outcome(&Ok(Response::Replayed)); entry.commands.len()]);
                continue;
            }
            let mut outcomes = Vec::with_capacity(entry.commands.len());
            for bytes in entry.commands {
                let command =
                    Command::decode(bytes).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
                let outcome: Outcome = apply(&transaction, &command)?;
                outcomes.push(encode_outcome(&outcome));
            }
            answers.push(outcomes);
            next_index = entry.index + 1;
        }
        transaction.execute("UPDATE meta SET next_index = ?1", [next_index.cast_signed()])?;
        transaction.commit()?;
        self.next_index = next_index;
        self.changed.send_replace(next_index);
        Ok(answers)
    }
}

fn open_database(path: &Path, fresh_id: [u8; 16]) -> io::Result<(Connection, [u8; 16], u64)> {
    let db = sqlite::open_writer(path, MIGRATIONS, Durability::AtCheckpoint)?;
    let read = |db: &Connection| -> rusqlite::Result<([u8; 16], u64)> {
        let found = db
            .query_row("SELECT database_id, next_index FROM meta", [], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))
            })
            .optional()?;
        if let Some(found) = found {
            return Ok(found);
        }
        db.execute("INSERT INTO meta VALUES (1, ?1, 0)", params![fresh_id])?;
        Ok((fresh_id, 0))
    };
    let (id, next_index) = read(&db).map_err(|e| io_error("reading", path, &e))?;
    Ok((db, id, next_index))
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
        let (db, database_id, next_index) = open_database(&staged.path().join(FILE), [0; 16])?;
        sqlite::checkpoint(&db, &staged.path().join(FILE))?;
        let mark = FileMark { name: FILE.to_owned(), database_id, next_index };
        self.dir.switch(staged, position, &[mark])?;
        *self.path.lock().unwrap_or_else(PoisonError::into_inner) = self.file();
        self.db = db;
        self.database_id = database_id;
        self.next_index = next_index;
        self.changed.send_replace(next_index);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_model::{ByteCount, ClusterId, DatabaseId, DriveId, GroupId, NodeId, TenantId, UnixMillis};

    use super::*;
    use crate::{
        command::{DriveEntry, NewTenant, Refusal, RegisterNode, decode_outcome},
        view::{NodeState, ServiceAddresses},
    };

    const NOW: UnixMillis = UnixMillis::new(1_000);

    fn register(seed: u8, name: &str, token: u8) -> RegisterNode {
        RegisterNode {
            request: [seed; 16],
            name: name.to_owned(),
            peer: format!("10.0.0.{seed}:7443").parse().unwrap(),
            services: ServiceAddresses::default(),
            token_hash: [token; 32],
            at: NOW,
        }
    }

    fn init() -> Command {
        Command::InitCluster {
            cluster: ClusterId::from_bytes([1; 16]),
            name: "test".to_owned(),
            region: "us-east-1".to_owned(),
            level: "+2d:1n".parse().unwrap(),
            catalog_groups: 2,
            first: register(1, "n1", 0),
        }
    }

    fn tenant(seed: u8, name: &str) -> Command {
        Command::CreateTenant(NewTenant {
            tenant: TenantId::from_bytes([seed; 16]),
            name: name.to_owned(),
            database_id: DatabaseId::from_bytes([seed; 16]),
            wrapped_key: vec![seed; 8],
            level: None,
            access_key: format!("KEY{seed}"),
            sealed_secret: vec![seed],
            at: NOW,
        })
    }

    struct Replica {
        machine: ControlMachine,
        reader: ControlReader,
        index: u64,
    }

    impl Replica {
        fn open(dir: &Path) -> Self {
            let (machine, reader) = ControlMachine::open(dir, [7; 16]).unwrap();
            Self { machine, reader, index: 0 }
        }

        fn run(&mut self, command: &Command) -> Outcome {
            self.index += 1;
            let commands = [command.encode()];
            let answers = self.machine.apply(&[Applied { index: self.index, commands: &commands }]).unwrap();
            decode_outcome(&answers[0][0]).unwrap()
        }
    }

    fn script() -> Vec<Command> {
        vec![
            init(),
            Command::CreateJoinToken { hash: [9; 32], expires: UnixMillis::new(2_000) },
            Command::RegisterNode(register(2, "n2", 9)),
            Command::ActivateNode(NodeId::new(2)),
            Command::RegisterDrives {
                node: NodeId::new(2),
                drives: vec![DriveEntry {
                    drive: DriveId::from_bytes([4; 16]),
                    path: "/dev/vdb".to_owned(),
                    capacity: ByteCount::mib(100),
                }],
                at: NOW,
            },
            Command::SetGroupVoters { group: GroupId::CONTROL, voters: [1, 2].map(NodeId::new).into() },
            tenant(1, "demo"),
            tenant(2, "acme"),
            Command::SetOperator { name: "admin".into(), password_hash: "$".into(), role: "operator".into() },
            Command::PutSecret { name: "ca key".into(), sealed: vec![1, 2, 3] },
        ]
    }

    #[test]
    fn nothing_is_done_before_the_cluster_is_founded() {
        let dir = tempfile::tempdir().unwrap();
        let mut replica = Replica::open(dir.path());
        assert_eq!(replica.run(&tenant(1, "demo")), Err(Refusal::NoCluster));
        assert_eq!(replica.run(&init()), Ok(Response::Registered(NodeId::new(1))));
        assert_eq!(replica.run(&init()), Ok(Response::Registered(NodeId::new(1))));
    }

    #[test]
    fn a_token_admits_one_node_once_and_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut replica = Replica::open(dir.path());
        replica.run(&init()).unwrap();
        let ask = |seed, name: &str, token| Command::RegisterNode(register(seed, name, token));
        assert_eq!(replica.run(&ask(2, "n2", 5)), Err(Refusal::TokenUnknown));
        replica.run(&Command::CreateJoinToken { hash: [5; 32], expires: NOW }).unwrap();
        assert_eq!(replica.run(&ask(2, "n2", 5)), Err(Refusal::TokenExpired));
        replica.run(&Command::CreateJoinToken { hash: [6; 32], expires: UnixMillis::new(9_999) }).unwrap();
        let taken = Refusal::NameTaken { what: "node".into(), name: "n1".into() };
        assert_eq!(replica.run(&ask(2, "n1", 6)), Err(taken));
        assert_eq!(replica.run(&ask(2, "n2", 6)), Ok(Response::Registered(NodeId::new(2))));
        assert_eq!(replica.run(&ask(2, "n2", 6)), Ok(Response::Registered(NodeId::new(2))), "asked again");
        assert_eq!(replica.run(&ask(3, "n3", 6)), Err(Refusal::TokenUsed(NodeId::new(2))));
        let view = replica.reader.view().unwrap();
        assert_eq!(view.nodes[&NodeId::new(2)].state, NodeState::Joining);
    }

    #[test]
    fn node_numbers_are_never_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut replica = Replica::open(dir.path());
        for command in script() {
            replica.run(&command).unwrap();
        }
        replica.run(&Command::RemoveNode(NodeId::new(2))).unwrap();
        replica.run(&Command::CreateJoinToken { hash: [8; 32], expires: UnixMillis::new(9_999) }).unwrap();
        let again = replica.run(&Command::RegisterNode(register(3, "n2", 8)));
        assert_eq!(again, Ok(Response::Registered(NodeId::new(3))));
    }

    #[test]
    fn tenants_spread_over_the_groups() {
        let dir = tempfile::tempdir().unwrap();
        let mut replica = Replica::open(dir.path());
        replica.run(&init()).unwrap();
        for seed in 1..=4 {
            replica.run(&tenant(seed, &format!("t{seed}"))).unwrap();
        }
        let view = replica.reader.view().unwrap();
        let mut groups: Vec<u32> = view.tenants.values().map(|t| t.partitions[0].1.get()).collect();
        groups.sort_unstable();
        assert_eq!(groups, [1, 1, 2, 2]);
        let taken = Refusal::NameTaken { what: "tenant".into(), name: "t1".into() };
        assert_eq!(replica.run(&tenant(9, "t1")), Err(taken));
        assert!(!replica.reader.view().unwrap().access_keys.contains_key("KEY9"), "a refusal writes nothing");
    }

    #[test]
    fn replicas_agree_and_a_replay_changes_nothing() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut first = Replica::open(one.path());
        for command in script() {
            first.run(&command).unwrap();
        }
        let digest = first.machine.digest().unwrap();

        let mut second = Replica::open(two.path());
        for command in &script()[..4] {
            second.run(command).unwrap();
        }
        second.machine.checkpoint(b"four").unwrap();
        for command in &script()[4..7] {
            second.run(command).unwrap();
        }
        // The process dies without a checkpoint; the log is replayed from the one there is.
        drop(second);
        let mut second = Replica::open(two.path());
        assert_eq!(second.machine.position().as_deref(), Some(&b"four"[..]));
        second.index = 4;
        for command in &script()[4..] {
            second.run(command).unwrap();
        }
        assert_eq!(second.machine.digest().unwrap(), digest);
        assert_eq!(second.reader.view().unwrap(), first.reader.view().unwrap());
    }

    #[test]
    fn an_image_carries_the_whole_state_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut source = Replica::open(&dir.path().join("a"));
        for command in script() {
            source.run(&command).unwrap();
        }
        let image = dir.path().join("image");
        source.machine.snapshot(&image).unwrap();
        let mut target = Replica::open(&dir.path().join("b"));
        let damaged = dir.path().join("damaged");
        let mut bytes = std::fs::read(&image).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&damaged, bytes).unwrap();
        assert!(target.machine.install(&damaged, b"x").is_err());
        assert!(target.reader.view().unwrap().cluster.is_none());
        target.machine.install(&image, b"position").unwrap();
        assert_eq!(target.machine.digest().unwrap(), source.machine.digest().unwrap());
        assert_eq!(target.reader.view().unwrap(), source.reader.view().unwrap());
        let again = ControlMachine::open(&dir.path().join("b"), [0; 16]).unwrap().0;
        assert_eq!(again.position().as_deref(), Some(&b"position"[..]));
    }

    #[test]
    fn the_view_shows_voters_as_they_were_set() {
        let dir = tempfile::tempdir().unwrap();
        let mut replica = Replica::open(dir.path());
        for command in script() {
            replica.run(&command).unwrap();
        }
        let view = replica.reader.view().unwrap();
        let voters: BTreeSet<NodeId> = [1, 2].map(NodeId::new).into();
        assert_eq!(view.groups[&GroupId::CONTROL], voters);
        assert_eq!(view.groups.len(), 3);
        assert_eq!(view.drives.len(), 1);
    }
}
