//! The catalog's state machine: one per group, hosting the files of many tenant partitions.
//!
//! One `apply` opens at most one transaction per partition, however many commands it carries, and commits
//! them all before it answers. The files commit one after the other; a crash in between is harmless,
//! because each file knows which entries it holds and skips them when the log is replayed.
//!
//! Commands come sealed (`sealed.rs`). A command whose key is not here yet keeps the group waiting.

use std::{collections::BTreeSet, fmt, io, path::Path, sync::Arc};

use bytes::Bytes;
use holdfast_consensus::{Applied, StateMachine};
use holdfast_model::{PartitionId, TenantId};

use crate::{
    apply,
    command::{Command, DecodeError, Op},
    key_file,
    keys::{Held, MetadataKeys},
    partition::{Identity, Partition, file_name, partition_of},
    reader::CatalogReader,
    response::{Outcome, Refusal, Response, encode_outcome},
    sealed::Sealed,
    slots::{self, Slot, Slots, Trust, hosted},
    split,
    sqlite::{self, FileMark, ImageReader, ImageWriter, StateDir, io_error},
    state_digest::StateDigests,
};

/// Kind of a catalog group's image.
pub const IMAGE_KIND: u16 = 1;

/// Partitions of one group at most: each costs open files and caches.
pub const PARTITIONS_MAX: usize = 4096;

/// Files of one partition in an image: its key file and its database.
const FILES_OF_PARTITION: usize = 2;

/// The state machine of one catalog group.
pub struct CatalogMachine {
    dir: StateDir,
    position: Option<Vec<u8>>,
    partitions: Slots,
    reader: CatalogReader,
    keys: Arc<dyn MetadataKeys>,
    digests: StateDigests,
    /// Partitions dropped since the last checkpoint: their files are there until the next.
    dropped: Vec<Identity>,
}

impl fmt::Debug for CatalogMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogMachine").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl CatalogMachine {
    /// Opens the state of one group in `dir`, its own directory, creating it when missing. A partition whose
    /// key is not here yet stays locked until something is to be applied to it and its key has come.
    ///
    /// # Errors
    /// I/O; `InvalidData` when a file that a checkpoint covered is missing, damaged, older than that
    /// checkpoint, or another database. The replica then needs its state from another one.
    pub fn open(dir: &Path, keys: Arc<dyn MetadataKeys>) -> io::Result<Self> {
        let dir = StateDir::open(dir)?;
        let position = dir.position()?;
        let partitions = slots::open_all(&dir, &dir.path(), Trust::Marked(&dir.marks()?), keys.as_ref())?;
        let digests = StateDigests::default();
        let reader = CatalogReader::new(hosted(&partitions), digests.clone());
        Ok(Self { dir, position, partitions, reader, keys, digests, dropped: Vec::new() })
    }

    /// A handle for reading, which sees everything applied. Stays valid when a snapshot is installed.
    #[must_use]
    pub fn reader(&self) -> CatalogReader {
        self.reader.clone()
    }

    /// Empties every partition that is open, as if entry `index` had just made it. For simulations: making a partition anew
    /// takes longer than all else of a run. Nothing that serves objects calls it.
    ///
    /// # Errors
    /// I/O. The state is then neither the old one nor empty.
    #[doc(hidden)]
    pub fn empty_for_simulation(&mut self, index: u64) -> io::Result<()> {
        self.digests.clear();
        self.open_partitions().try_for_each(|partition| partition.empty_for_simulation(index))
    }

    /// Lets parts of uploads be smaller than S3 has them, in partitions that are open. For simulations, whose drives are
    /// small; nothing that serves objects calls it.
    #[doc(hidden)]
    pub fn admit_small_parts_for_simulation(&mut self, part_size_min: u64) {
        self.open_partitions().for_each(|open| open.admit_small_parts_for_simulation(part_size_min));
    }

    fn apply_one(&mut self, index: u64, encoded: &[u8]) -> io::Result<Outcome> {
        let command = match Sealed::parse(encoded) {
            Some(Ok(sealed)) => {
                let Some(slot) = self.partitions.get(&sealed.partition) else {
                    return Ok(Err(Refusal::NoSuchPartition(sealed.partition)));
                };
                let tenant = slot.identity().tenant;
                // What one partition has applied may be for all of its tenant's.
                let applied = self.of_tenant(tenant).into_iter().all(|id| self.has_applied(id, index));
                if applied && !holdfast_planted::is("AppliesTwice") {
                    return Ok(Ok(Response::Replayed));
                }
                match slots::wait_for(self.keys.as_ref(), tenant, Some(sealed.key))? {
                    Some(seal) => sealed.open(&seal),
                    None => return Ok(Err(Refusal::NoSuchPartition(sealed.partition))),
                }
            }
            Some(Err(error)) => Err(error),
            None => Command::decode(encoded).and_then(|command| match command.op {
                Op::CreatePartition { .. } | Op::DropPartition { .. } => Ok(command),
                _ => Err(DecodeError::Malformed("a tenant's command in the clear".to_owned())),
            }),
        };
        let command = match command {
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
        if let Op::DropPartition { tenant, database_id } = command.op {
            let identity = Identity { partition: command.partition, tenant, database_id };
            return Ok(self.drop_partition(identity));
        }
        if let Op::SplitPartition { into, database_id } = command.op {
            let tenant = self.partitions.get(&command.partition).map(|slot| slot.identity().tenant);
            let there = self.partitions.get(&into).map(Slot::identity);
            if there.is_some_and(|id| Some(id.tenant) != tenant || id.database_id != database_id) {
                return Ok(Err(Refusal::PartitionExists(into)));
            }
        }
        if !command.op.is_for_all_partitions() {
            return self.apply_to(command.partition, index, command);
        }
        let Some(addressed) = self.partitions.get(&command.partition) else {
            return Ok(Err(Refusal::NoSuchPartition(command.partition)));
        };
        let all = self.of_tenant(addressed.identity().tenant);
        if all.first() != Some(&command.partition) {
            return Ok(Err(Refusal::Moved));
        }
        let mut outcomes = Vec::new();
        for id in all {
            outcomes.push(self.apply_to(id, index, command.clone())?);
        }
        Ok(together(outcomes))
    }

    /// Applies a command to one partition.
    fn apply_to(&mut self, id: PartitionId, index: u64, command: Command) -> io::Result<Outcome> {
        self.unlock(id)?;
        let Some(Slot::Open(partition)) = self.partitions.get_mut(&id) else {
            return Ok(Err(Refusal::NoSuchPartition(id)));
        };
        if index < partition.next_index() && !holdfast_planted::is("AppliesTwice") {
            return Ok(Ok(Response::Replayed));
        }
        let outcome =
            partition.writer(index, command.at).and_then(|mut writer| apply::apply(&mut writer, command));
        outcome.map_err(|e| io_error("applying to", partition.path(), &e))
    }

    /// The partitions of a tenant in this group, in order.
    fn of_tenant(&self, tenant: TenantId) -> Vec<PartitionId> {
        let of_tenant = |(id, slot): (&PartitionId, &Slot)| (slot.identity().tenant == tenant).then_some(*id);
        self.partitions.iter().filter_map(of_tenant).collect()
    }

    /// Carries out the splits that were decided: makes the upper halves, then leaves the lower ones theirs. A crash
    /// in between leaves the decision, which is taken up before anything else is applied.
    fn finish_splits(&mut self) -> io::Result<()> {
        let due: Vec<PartitionId> = self
            .partitions
            .iter()
            .filter_map(|(id, slot)| slot.open().filter(|open| open.is_splitting()).map(|_| *id))
            .collect();
        due.into_iter().try_for_each(|id| self.finish_split(id))
    }

    fn finish_split(&mut self, id: PartitionId) -> io::Result<()> {
        let Some(source) = self.opened(id) else { return Ok(()) };
        source.commit()?;
        let Some(source) = self.partitions.get(&id).and_then(Slot::open) else { return Ok(()) };
        let Some(decided) = source.decided_split()? else { return Ok(()) };
        let tenant = source.identity().tenant;
        let identity = Identity { partition: decided.into, tenant, database_id: decided.database_id };
        let plan = split::plan(source)?;
        match self.partitions.get(&decided.into).map(Slot::identity) {
            Some(there) if there == identity => {}
            Some(_) => {
                let text = format!("{id} is to be split into {}, which is another database", decided.into);
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            None => {
                let Some(seal) = slots::wait_for(self.keys.as_ref(), tenant, None)? else { return Ok(()) };
                let upper = split::make(&self.dir.path(), source, &plan, identity, &seal)?;
                self.reader.host(&upper);
                self.partitions.insert(decided.into, Slot::Open(Box::new(upper)));
            }
        }
        self.opened(id).map_or(Ok(()), |source| split::keep_lower(source, &plan))
    }

    fn opened(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.partitions.get_mut(&id).and_then(Slot::open_mut)
    }

    fn has_applied(&self, partition: PartitionId, index: u64) -> bool {
        matches!(self.partitions.get(&partition), Some(Slot::Open(open)) if index < open.next_index())
    }

    /// Opens a locked partition, once its key is here. Leaves it when the key was destroyed.
    fn unlock(&mut self, id: PartitionId) -> io::Result<()> {
        let Some(Slot::Locked(locked)) = self.partitions.get(&id) else { return Ok(()) };
        let tenant = self.partitions[&id].identity().tenant;
        let Some(seal) = slots::wait_for(self.keys.as_ref(), tenant, Some(locked.key_version()))? else {
            return Ok(());
        };
        match slots::unlock(&self.dir, locked, &seal)? {
            Some(partition) => {
                self.reader.host(&partition);
                self.partitions.insert(id, Slot::Open(Box::new(partition)));
                self.finish_split(id)?;
            }
            // Never finished: the command that makes it is still to come.
            None => drop(self.partitions.remove(&id)),
        }
        Ok(())
    }

    fn create(&mut self, identity: Identity, index: u64) -> io::Result<Outcome> {
        self.unlock(identity.partition)?;
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
        let Some(seal) = slots::wait_for(self.keys.as_ref(), identity.tenant, None)? else {
            return Ok(Err(Refusal::NoSuchPartition(identity.partition)));
        };
        // What an attempt left that failed half-way is of another key, and would not open.
        if !self.dropped.iter().any(|dropped| dropped.partition == identity.partition) {
            slots::remove(&self.dir.path().join(file_name(identity.partition)))?;
        }
        let partition = Partition::create(&self.dir.path(), identity, index, &seal)?;
        self.reader.host(&partition);
        self.partitions.insert(identity.partition, Slot::Open(Box::new(partition)));
        Ok(Ok(Response::PartitionCreated))
    }

    /// Lets go of a partition; its files go with the next checkpoint.
    fn drop_partition(&mut self, identity: Identity) -> Outcome {
        match self.partitions.get(&identity.partition).map(Slot::identity) {
            Some(found) if found != identity => return Err(Refusal::PartitionExists(identity.partition)),
            Some(_) => {
                self.reader.drop_partition(identity.partition);
                self.partitions.remove(&identity.partition);
                self.dropped.push(identity);
            }
            None => {}
        }
        Ok(Response::PartitionDropped)
    }

    fn apply_entries(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let mut answers = Vec::with_capacity(entries.len());
        self.finish_splits()?;
        for entry in entries {
            let mut of_entry = Vec::with_capacity(entry.commands.len());
            for command in entry.commands {
                of_entry.push(encode_outcome(&self.apply_one(entry.index, command)?));
            }
            answers.push(of_entry);
            self.finish_splits()?;
            if StateDigests::may_be_due(entry.index) {
                self.take_digest(entry.index)?;
            }
        }
        self.open_partitions().try_for_each(Partition::commit)?;
        Ok(answers)
    }

    /// A state that is locked in part has no digest; nor has one of whose keys one was destroyed: what is applied
    /// to it from then on depends on when this node heard of that.
    fn take_digest(&mut self, index: u64) -> io::Result<()> {
        self.open_partitions().try_for_each(Partition::commit)?;
        let is_destroyed = |slot: &Slot| matches!(self.keys.current(slot.identity().tenant), Held::Destroyed);
        let all_open =
            self.partitions.values().all(|slot| matches!(slot, Slot::Open(_)) && !is_destroyed(slot));
        if !all_open {
            return Ok(());
        }
        self.digests.take(index, self.partitions.values().filter_map(Slot::open))
    }

    /// Only after the commit: who counts anew because of it must see what was placed.
    fn tell_placed(&mut self) {
        let reader = self.reader.clone();
        for placed in self.open_partitions().map(Partition::take_placed).filter(|placed| !placed.is_empty()) {
            reader.placed(placed);
        }
    }

    fn marks(&self) -> Vec<FileMark> {
        self.partitions.values().map(Slot::mark).collect()
    }

    fn open_partitions(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.partitions.values_mut().filter_map(Slot::open_mut)
    }

    /// Wraps the keys of files under their tenants' newest keys.
    fn rewrap(&mut self) -> io::Result<()> {
        let keys = Arc::clone(&self.keys);
        for partition in self.open_partitions() {
            if let Held::Here(seal) = keys.current(partition.identity().tenant)
                && seal.version > partition.key_version()
            {
                partition.rewrap(&seal)?;
            }
        }
        Ok(())
    }
}

impl StateMachine for CatalogMachine {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let answers = self.apply_entries(entries);
        if answers.is_err() {
            self.open_partitions().for_each(Partition::roll_back);
        }
        self.tell_placed();
        answers
    }

    fn checkpoint(&mut self, position: &[u8]) -> io::Result<()> {
        self.rewrap()?;
        self.open_partitions().try_for_each(Partition::checkpoint)?;
        let mut marks = self.marks();
        marks.extend(self.dropped.iter().map(|identity| slots::dropped_mark(*identity)));
        self.dir.store(position, &marks)?;
        self.position = Some(position.to_vec());
        for identity in self.dropped.drain(..) {
            slots::remove(&self.dir.path().join(file_name(identity.partition)))?;
        }
        Ok(())
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.position.clone()
    }

    /// A partition whose key was destroyed is gone for good, and not in it.
    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        let mut partitions = Vec::with_capacity(self.partitions.len());
        for (id, slot) in &self.partitions {
            match slot {
                Slot::Open(partition) => partitions.push(partition),
                Slot::Locked(locked) if locked.is_destroyed(self.keys.as_ref()) => {}
                Slot::Locked(_) => {
                    let text = format!("partition {id} is locked: the tenant's key is not on this node");
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
                }
            }
        }
        let files = partitions.len() * FILES_OF_PARTITION;
        let count = u32::try_from(files).expect("a group hosts at most PARTITIONS_MAX partitions");
        let mut image = ImageWriter::create(path, IMAGE_KIND, count)?;
        let scratch = sqlite::beside(path, ".copy");
        for partition in partitions {
            let id = partition.identity().partition;
            image.add_file(&key_file::file_name(id), &partition.key_path())?;
            image.add_database(&file_name(id), partition.connection(), &scratch, partition.form())?;
        }
        image.finish()
    }

    fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()> {
        let mut image = ImageReader::open(path, IMAGE_KIND)?;
        let staged = self.dir.stage()?;
        let mut names = BTreeSet::new();
        while let Some(name) = image.extract_next(staged.path())? {
            let known = partition_of(&name).is_some() || key_file::partition_of(&name).is_some();
            if !known || !names.insert(name.clone()) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("image holds an unexpected file {name}"),
                ));
            }
        }
        let mut partitions = slots::open_all(&self.dir, staged.path(), Trust::All, self.keys.as_ref())?;
        if partitions.len() * FILES_OF_PARTITION != names.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "image holds a partition without identity",
            ));
        }
        partitions.values_mut().filter_map(Slot::open_mut).try_for_each(Partition::checkpoint)?;
        let marks: Vec<FileMark> = partitions.values().map(Slot::mark).collect();
        self.dir.switch(staged, position, &marks)?;
        self.partitions = partitions;
        self.position = Some(position.to_vec());
        self.dropped.clear();
        self.reader.replace(hosted(&self.partitions));
        self.digests.clear();
        Ok(())
    }

    fn discard(&mut self) -> io::Result<()> {
        self.partitions.clear();
        self.dropped.clear();
        self.reader.replace(hosted(&self.partitions));
        self.digests.clear();
        self.dir.discard()?;
        self.position = None;
        Ok(())
    }
}

/// One answer from those of all partitions: a refusal if there is one, and of stripes what is so everywhere. Partitions
/// that are ahead of the log answer nothing; nobody waits for the answer then.
fn together(outcomes: Vec<Outcome>) -> Outcome {
    let mut answer = Response::Replayed;
    for outcome in outcomes {
        answer = match (answer, outcome?) {
            (Response::Condemned(ours), Response::Condemned(theirs)) => {
                Response::Condemned(ours.into_iter().zip(theirs).map(|(a, b)| a && b).collect())
            }
            (Response::Replayed, one) | (one, _) => one,
        };
    }
    Ok(answer)
}
