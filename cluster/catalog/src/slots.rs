//! The partitions of a group on this node: open, or locked while the tenant's key is not here.
//!
//! Invariants:
//! - a locked partition is neither damaged nor passed over: whoever must apply to it waits for its key;
//! - a dropped partition's files go after the checkpoint that does not cover them any more, which names them
//!   so that a crash in between leaves nothing behind;
//! - what no checkpoint covers and does not open was never finished: the log makes it anew. What one covers
//!   must be there, open and be as new as it was.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_model::{PartitionId, TenantId};

use crate::{
    key_file::{self, KeyFile},
    keys::{Held, KEY_POLL, KeyVersion, MetadataKeys, MetadataSeal},
    partition::{Identity, Partition, file_name, partition_of},
    reader::{CatalogReader, Hosted},
    sqlite::{FileMark, StateDir, beside},
};

/// How often whoever waits for a key says so.
const WORD: Duration = Duration::from_secs(10);

/// End of the name of a mark of a partition that was dropped.
const DROPPED: &str = ".dropped";

/// A partition of the group.
pub(crate) enum Slot {
    Open(Box<Partition>),
    Locked(Locked),
}

/// A partition whose key is not here.
pub(crate) struct Locked {
    path: PathBuf,
    key_file: KeyFile,
    /// What the last checkpoint knew of it.
    mark: Option<FileMark>,
}

pub(crate) type Slots = BTreeMap<PartitionId, Slot>;

impl Slot {
    pub(crate) fn identity(&self) -> Identity {
        match self {
            Self::Open(partition) => partition.identity(),
            Self::Locked(locked) => locked.key_file.identity,
        }
    }

    pub(crate) fn mark(&self) -> FileMark {
        match self {
            Self::Open(partition) => partition.mark(),
            // Nothing was applied to it since.
            Self::Locked(locked) => locked.mark.clone().unwrap_or_else(|| FileMark {
                name: file_name(locked.key_file.identity.partition),
                database_id: *locked.key_file.identity.database_id.as_bytes(),
                next_index: 0,
            }),
        }
    }

    pub(crate) fn open(&self) -> Option<&Partition> {
        match self {
            Self::Open(partition) => Some(partition),
            Self::Locked(_) => None,
        }
    }

    pub(crate) fn open_mut(&mut self) -> Option<&mut Partition> {
        match self {
            Self::Open(partition) => Some(partition),
            Self::Locked(_) => None,
        }
    }
}

/// Waits for a key. `None` when it was destroyed.
pub(crate) fn wait_for(
    keys: &dyn MetadataKeys,
    tenant: TenantId,
    version: Option<KeyVersion>,
) -> io::Result<Option<Arc<MetadataSeal>>> {
    let mut waited = Duration::ZERO;
    loop {
        let held = version.map_or_else(|| keys.current(tenant), |version| keys.version(tenant, version));
        match held {
            Held::Here(seal) => return Ok(Some(seal)),
            Held::Destroyed => return Ok(None),
            Held::NotYet if keys.is_closed() => {
                let text = format!("the key of tenant {tenant} is not on this node, which stops");
                return Err(io::Error::new(io::ErrorKind::Interrupted, text));
            }
            Held::NotYet => std::thread::sleep(KEY_POLL),
        }
        waited += KEY_POLL;
        if waited >= WORD {
            waited = Duration::ZERO;
            tracing::warn!(%tenant, version, "waiting for a tenant's key: its catalog is locked on this node");
        }
    }
}

/// Opens a locked partition with its key.
pub(crate) fn unlock(dir: &StateDir, locked: &Locked, seal: &MetadataSeal) -> io::Result<Option<Partition>> {
    let opened = open_one(&locked.path, locked.key_file.clone(), seal, locked.mark.is_some())?;
    if let (Some(partition), Some(mark)) = (&opened, &locked.mark) {
        dir.verify(mark, *partition.identity().database_id.as_bytes(), partition.next_index())?;
    }
    Ok(opened)
}

impl Locked {
    pub(crate) fn key_version(&self) -> KeyVersion {
        self.key_file.key
    }

    pub(crate) fn is_destroyed(&self, keys: &dyn MetadataKeys) -> bool {
        matches!(keys.version(self.key_file.identity.tenant, self.key_file.key), Held::Destroyed)
    }
}

/// The mark by which a checkpoint says that a partition was dropped.
pub(crate) fn dropped_mark(identity: Identity) -> FileMark {
    FileMark {
        name: format!("{}{DROPPED}", identity.partition),
        database_id: *identity.database_id.as_bytes(),
        next_index: 0,
    }
}

/// The partition that a mark says was dropped.
fn dropped_of(mark: &FileMark) -> Option<PartitionId> {
    let number = mark.name.strip_prefix('p')?.strip_suffix(DROPPED)?;
    number.parse().ok().map(PartitionId::new)
}

/// What readers are to see of `slots`.
pub(crate) fn hosted(slots: &Slots) -> Hosted {
    let source = |slot: &Slot| match slot {
        Slot::Open(partition) => CatalogReader::source(partition),
        Slot::Locked(locked) => CatalogReader::locked(locked.key_file.identity),
    };
    slots.iter().map(|(id, slot)| (*id, source(slot))).collect()
}

/// What the files in a directory may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trust<'a> {
    /// Those of a state in use: only what these marks cover must be there and whole.
    Marked(&'a [FileMark]),
    /// Those of an image: all of it.
    All,
}

/// Opens every partition in `path`; those whose key is not here stay locked.
pub(crate) fn open_all(
    dir: &StateDir,
    path: &Path,
    trust: Trust<'_>,
    keys: &dyn MetadataKeys,
) -> io::Result<Slots> {
    let marks = match trust {
        Trust::Marked(marks) => marks,
        Trust::All => &[],
    };
    for id in marks.iter().filter_map(dropped_of) {
        remove(&path.join(file_name(id)))?;
    }
    let marks: Vec<FileMark> = marks.iter().filter(|mark| dropped_of(mark).is_none()).cloned().collect();
    let mut slots = Slots::new();
    for id in partitions_in(path)? {
        let file = path.join(file_name(id));
        let key_path = path.join(key_file::file_name(id));
        let mark = marks.iter().find(|mark| mark.name == file_name(id)).cloned();
        let needed = mark.is_some() || matches!(trust, Trust::All);
        for (part, what) in [(&file, "is missing"), (&key_path, "is missing, which holds a partition's key")]
        {
            if needed && !part.exists() {
                return Err(invalid(&format!("{} {what}", part.display())));
            }
        }
        if !file.exists() || !key_path.exists() {
            remove(&file)?;
            continue;
        }
        let key_file = KeyFile::load(&key_path)?;
        if key_file.identity.partition != id {
            let holds = key_file.identity.partition;
            return Err(invalid(&format!("{} is of partition {holds}", key_path.display())));
        }
        let Held::Here(seal) = keys.version(key_file.identity.tenant, key_file.key) else {
            slots.insert(id, Slot::Locked(Locked { path: file, key_file, mark }));
            continue;
        };
        if let Some(partition) = open_one(&file, key_file, &seal, needed)? {
            slots.insert(id, Slot::Open(Box::new(partition)));
        }
    }
    for mark in &marks {
        let found = partition_of(&mark.name).and_then(|id| slots.get(&id)).ok_or_else(|| {
            invalid(&format!("{} was checkpointed and is missing", path.join(&mark.name).display()))
        })?;
        if let Slot::Open(partition) = found {
            dir.verify(mark, *partition.identity().database_id.as_bytes(), partition.next_index())?;
        }
    }
    Ok(slots)
}

/// Opens one; removes it when it was never finished, unless it is `needed`.
fn open_one(
    file: &Path,
    key_file: KeyFile,
    seal: &MetadataSeal,
    needed: bool,
) -> io::Result<Option<Partition>> {
    match Partition::open(file, key_file, seal) {
        Ok(None) if needed => Err(invalid(&format!("{} was checkpointed and is empty", file.display()))),
        Ok(None) => remove(file).map(|()| None),
        Err(error) if !needed && error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(%error, "a partition that no checkpoint covers does not open: the log makes it anew");
            remove(file).map(|()| None)
        }
        other => other,
    }
}

/// Every partition of which a file is there.
fn partitions_in(path: &Path) -> io::Result<Vec<PartitionId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| partition_of(name).or_else(|| key_file::partition_of(name)));
        ids.extend(id);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Removes a partition's files, its key file last.
pub(crate) fn remove(file: &Path) -> io::Result<()> {
    let parts = ["", "-wal", "-shm"].map(|suffix| beside(file, suffix));
    for part in parts.into_iter().chain([file.with_extension("key")]) {
        match fs::remove_file(part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
