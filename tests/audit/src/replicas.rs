//! The catalogs of every node of a stopped cluster, and whether those of one partition are the same.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result};
use holdfast_catalog::{CatalogMachine, Digest, PartitionReader};
use holdfast_model::PartitionId;

use crate::keys::TenantKeys;

/// One replica of one partition.
#[derive(Debug)]
pub struct Replica {
    /// Position of its node's state directory in what [`Replicas::open`] was given.
    pub node: usize,
    /// Reads it.
    pub reader: PartitionReader,
    /// Its rows.
    pub digest: Digest,
}

/// All replicas of all partitions.
pub struct Replicas {
    /// They stay open as long as they are read.
    _machines: Vec<CatalogMachine>,
    partitions: BTreeMap<PartitionId, Vec<Replica>>,
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicas").field("partitions", &self.partitions).finish_non_exhaustive()
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Compared {
    /// Replicas.
    pub replicas: usize,
    /// Of those, after the same entry as another of the same partition, and with the same rows.
    pub same: usize,
    /// Pairs with different rows after the same entry, in words.
    pub differ: Vec<String>,
}

impl Compared {
    /// Adds the replicas of one partition, each with the number of its node.
    fn add(&mut self, replicas: impl Iterator<Item = (usize, Digest)>) {
        let mut after: BTreeMap<u64, Vec<(usize, Digest)>> = BTreeMap::new();
        for replica in replicas {
            self.replicas += 1;
            after.entry(replica.1.next_index).or_default().push(replica);
        }
        for (index, replicas) in after.iter().filter(|(_, replicas)| replicas.len() > 1) {
            let (one, first) = replicas[0];
            let others: Vec<_> = replicas.iter().filter(|(_, other)| other.sha256 != first.sha256).collect();
            if others.is_empty() {
                self.same += replicas.len();
            }
            self.differ.extend(others.into_iter().map(|(other, _)| {
                let (partition, one, other) = (first.partition, one + 1, other + 1);
                format!("{partition} before entry {index}: nodes {one} and {other} have different rows")
            }));
        }
    }
}

impl Replicas {
    /// Opens the catalogs below these state directories, one of each node. No node may be running.
    ///
    /// # Errors
    /// When a catalog cannot be opened or read.
    pub fn open(states: &[PathBuf], keys: &Arc<TenantKeys>) -> Result<Self> {
        let mut machines = Vec::new();
        let mut partitions: BTreeMap<PartitionId, Vec<Replica>> = BTreeMap::new();
        for (node, state) in states.iter().enumerate() {
            for dir in groups_in(&state.join("catalog"))? {
                let opening = || format!("opening {}", dir.display());
                let machine = CatalogMachine::open(&dir, Arc::clone(keys) as _).with_context(opening)?;
                let catalog = machine.reader();
                for identity in catalog.partitions() {
                    let reader = catalog.partition(identity.partition).with_context(opening)?;
                    let digest = reader.digest().with_context(opening)?;
                    let replica = Replica { node, reader, digest };
                    partitions.entry(identity.partition).or_default().push(replica);
                }
                machines.push(machine);
            }
        }
        Ok(Self { _machines: machines, partitions })
    }

    /// Compares the rows of replicas that are after the same entry.
    #[must_use]
    pub fn compare(&self) -> Compared {
        let mut compared = Compared::default();
        for replicas in self.partitions.values() {
            compared.add(replicas.iter().map(|replica| (replica.node, replica.digest)));
        }
        compared
    }

    /// Of each partition the replica that has applied most.
    pub fn newest(&self) -> impl Iterator<Item = &Replica> {
        let newest =
            |replicas: &'_ Vec<Replica>| (0..replicas.len()).max_by_key(|at| replicas[*at].digest.next_index);
        self.partitions.values().filter_map(move |replicas| replicas.get(newest(replicas)?))
    }
}

/// Directories of groups.
fn groups_in(catalog: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(catalog).with_context(|| format!("reading {}", catalog.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    // Beside them may be what was put aside, and what is being received.
    paths.retain(|path| path.is_dir() && path.extension().is_none());
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use holdfast_model::{DatabaseId, TenantId};

    use super::*;

    #[test]
    fn only_replicas_after_the_same_entry_are_compared() {
        let digest = |next_index, rows| Digest {
            partition: PartitionId::new(1),
            tenant: TenantId::from_bytes([1; TenantId::SIZE]),
            database_id: DatabaseId::from_bytes([2; DatabaseId::SIZE]),
            next_index,
            sha256: [rows; 32],
        };
        let mut compared = Compared::default();
        compared.add([digest(7, 1), digest(7, 1), digest(8, 2)].into_iter().enumerate());
        assert_eq!((compared.replicas, compared.same, compared.differ.len()), (3, 2, 0));
        compared.add([digest(9, 1), digest(9, 1), digest(9, 3)].into_iter().enumerate());
        assert_eq!((compared.replicas, compared.same), (6, 2));
        assert_eq!(compared.differ, ["p1 before entry 9: nodes 1 and 3 have different rows"]);
    }
}
