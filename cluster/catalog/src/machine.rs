//! The catalog's state machine: one per group, hosting the files of many tenant partitions.
//!
//! One `apply` opens at most one transaction per partition, however many commands it carries, and commits
//! them all before it answers. The files commit one after the other; a crash in between is harmless,
//! because each file knows which entries it holds and skips them when the log is replayed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use holdfast_consensus::{Applied, StateMachine};
use holdfast_model::PartitionId;

use crate::{
    apply,
    command::{Command, DecodeError, Op},
    partition::{Identity, Partition, file_name, partition_of},
    reader::{CatalogReader, Hosted},
    response::{Outcome, Refusal, Response, encode_outcome},
    sqlite::{self, FileMark, ImageReader, ImageWriter, StateDir, io_error},
};

/// Kind of a catalog group's image.
pub const IMAGE_KIND: u16 = 1;

/// Partitions of one group at most: each costs open files and caches.
pub const PARTITIONS_MAX: usize = 4096;

/// The state machine of one catalog group.
pub struct CatalogMachine {
    dir: StateDir,
    position: Option<Vec<u8>>,
    partitions: BTreeMap<PartitionId, Partition>,
    reader: CatalogReader,
}

impl fmt::Debug for CatalogMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogMachine").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl CatalogMachine {
    /// Opens the state of one group in `dir`, its own directory, creating it when missing.
    ///
    /// # Errors
    /// I/O; `InvalidData` when a file that a checkpoint covered is missing, damaged, older than that
    /// checkpoint, or another database. The replica then needs its state from another one.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let dir = StateDir::open(dir)?;
        let position = dir.position()?;
        let partitions = open_partitions(&dir, &dir.path(), &dir.marks()?)?;
        let reader = CatalogReader::new(hosted(&partitions));
        Ok(Self { dir, position, partitions, reader })
    }

    /// A handle for reading, which sees everything applied. Stays valid when a snapshot is installed.
    #[must_use]
    pub fn reader(&self) -> CatalogReader {
        self.reader.clone()
    }

    fn apply_one(&mut self, index: u64, encoded: &[u8]) -> io::Result<Outcome> {
        let command = match Command::decode(encoded) {
            Ok(command) => command,
            // The same bytes are malformed on every replica of this version, and the version is known.
            Err(error @ DecodeError::Malformed(_)) => return Ok(Err(Refusal::Invalid(error.to_string()))),
            Err(error @ DecodeError::UnknownVersion(_)) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, error));
            }
        };
        if let Op::CreatePartition { tenant, database_id } = command.op {
            return self.create(Identity { partition: command.partition, tenant, database_id }, index);
        }
        let Some(partition) = self.partitions.get_mut(&command.partition) else {
            return Ok(Err(Refusal::NoSuchPartition(command.partition)));
        };
        if index < partition.next_index() {
            return Ok(Ok(Response::Replayed));
        }
        let outcome =
            partition.writer(index, command.at).and_then(|mut writer| apply::apply(&mut writer, command));
        outcome.map_err(|e| io_error("applying to", partition.path(), &e))
    }

    fn create(&mut self, identity: Identity, index: u64) -> io::Result<Outcome> {
        if let Some(existing) = self.partitions.get(&identity.partition) {
            return Ok(if existing.identity() == identity {
                Ok(Response::PartitionCreated)
            } else {
                Err(Refusal::PartitionExists(identity.partition))
            });
        }
        if self.partitions.len() >= PARTITIONS_MAX {
            return Ok(Err(Refusal::Invalid(format!("a group hosts at most {PARTITIONS_MAX} partitions"))));
        }
        let partition = Partition::create(&self.dir.path(), identity, index)?;
        self.reader.host(&partition);
        self.partitions.insert(identity.partition, partition);
        Ok(Ok(Response::PartitionCreated))
    }

    fn apply_entries(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut of_entry = Vec::with_capacity(entry.commands.len());
            for command in entry.commands {
                of_entry.push(encode_outcome(&self.apply_one(entry.index, command)?));
            }
            answers.push(of_entry);
        }
        self.partitions.values_mut().try_for_each(Partition::commit)?;
        Ok(answers)
    }

    fn marks(&self) -> Vec<FileMark> {
        self.partitions.values().map(Partition::mark).collect()
    }
}

impl StateMachine for CatalogMachine {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let answers = self.apply_entries(entries);
        if answers.is_err() {
            self.partitions.values_mut().for_each(Partition::roll_back);
        }
        answers
    }

    fn checkpoint(&mut self, position: &[u8]) -> io::Result<()> {
        self.partitions.values_mut().try_for_each(Partition::checkpoint)?;
        let marks = self.marks();
        self.dir.store(position, &marks)?;
        self.position = Some(position.to_vec());
        Ok(())
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.position.clone()
    }

    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        let count =
            u32::try_from(self.partitions.len()).expect("a group hosts at most PARTITIONS_MAX partitions");
        let mut image = ImageWriter::create(path, IMAGE_KIND, count)?;
        let scratch = sqlite::beside(path, ".copy");
        for partition in self.partitions.values() {
            image.add_database(
                &file_name(partition.identity().partition),
                partition.connection(),
                &scratch,
            )?;
        }
        image.finish()
    }

    fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()> {
        let mut image = ImageReader::open(path, IMAGE_KIND)?;
        let staged = self.dir.stage()?;
        let mut names = BTreeSet::new();
        while let Some(name) = image.extract_next(staged.path())? {
            if partition_of(&name).is_none() || !names.insert(name.clone()) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("image holds an unexpected file {name}"),
                ));
            }
        }
        let mut partitions = open_partitions(&self.dir, staged.path(), &[])?;
        if partitions.len() != names.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "image holds a partition without identity",
            ));
        }
        partitions.values_mut().try_for_each(Partition::checkpoint)?;
        let marks: Vec<FileMark> = partitions.values().map(Partition::mark).collect();
        self.dir.switch(staged, position, &marks)?;
        self.partitions = partitions;
        self.position = Some(position.to_vec());
        self.reader.replace(hosted(&self.partitions));
        Ok(())
    }
}

fn hosted(partitions: &BTreeMap<PartitionId, Partition>) -> Hosted {
    partitions.values().map(|p| (p.identity().partition, CatalogReader::source(p))).collect()
}

/// Opens every partition in `path` and checks those that `marks` cover.
fn open_partitions(
    dir: &StateDir,
    path: &Path,
    marks: &[FileMark],
) -> io::Result<BTreeMap<PartitionId, Partition>> {
    let mut partitions = BTreeMap::new();
    for entry in std::fs::read_dir(path)? {
        let file: PathBuf = entry?.path();
        let Some(id) = file.file_name().and_then(|name| name.to_str()).and_then(partition_of) else {
            continue;
        };
        match Partition::open(&file)? {
            Some(partition) if partition.identity().partition == id => {
                partitions.insert(id, partition);
            }
            Some(partition) => {
                let holds = partition.identity().partition;
                let what = format!("{} holds partition {holds}", file.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            None if marks.iter().any(|mark| mark.name == file_name(id)) => {
                let what = format!("{} was checkpointed and is empty", file.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            None => {
                for suffix in ["", "-wal", "-shm"] {
                    match std::fs::remove_file(sqlite::beside(&file, suffix)) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
            }
        }
    }
    for mark in marks {
        let found = partition_of(&mark.name).and_then(|id| partitions.get(&id)).ok_or_else(|| {
            let what = format!("{} was checkpointed and is missing", path.join(&mark.name).display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        dir.verify(mark, *found.identity().database_id.as_bytes(), found.next_index())?;
    }
    Ok(partitions)
}
