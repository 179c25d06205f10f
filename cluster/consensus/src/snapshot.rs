//! Snapshot files: made from a machine when a follower needs one, and received from a leader.
//!
//! A machine's state is durable in its own files, so what openraft calls "building a snapshot" is a
//! checkpoint here and makes no copy. The copy is made when one is sent: [`SnapshotSource::Machine`]
//! stands for "the machine's state, whenever you ask", [`SnapshotSource::File`] for one on disk.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use holdfast_model::GroupId;

use crate::{apply::Applier, types::SnapshotMeta};

/// Where snapshot files live until they are sent or installed.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotDirectory {
    path: PathBuf,
    counter: Arc<AtomicU64>,
}

impl SnapshotDirectory {
    /// Opens `path`, creating it when missing. Files of an earlier run are of no use and are removed.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        for entry in fs::read_dir(&path)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(Self { path, counter: Arc::default() })
    }

    /// A path that no file has.
    pub(crate) fn fresh(&self, group: GroupId) -> SnapshotFile {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        SnapshotFile { path: self.path.join(format!("{group}-{number}.snapshot")) }
    }
}

/// A snapshot file; removed when dropped.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
}

impl SnapshotFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a snapshot file");
        }
    }
}

/// What openraft hands around as the data of a snapshot.
#[derive(Clone)]
pub(crate) enum SnapshotSource {
    /// The state of a machine of this node, taken when it is needed.
    Machine(Applier),
    /// A file received from the leader.
    File(Arc<SnapshotFile>),
    /// Nothing yet. openraft's own chunk transport would fill it; ours does not use it.
    Empty,
}

impl SnapshotSource {
    /// The file to send or install, and what it covers when that is newer than `meta`.
    pub(crate) async fn materialize(
        self,
        meta: &SnapshotMeta,
    ) -> io::Result<(SnapshotMeta, Arc<SnapshotFile>)> {
        match self {
            Self::Machine(applier) => applier.snapshot().await,
            Self::File(file) => Ok((meta.clone(), file)),
            Self::Empty => Err(io::Error::new(io::ErrorKind::InvalidInput, "a snapshot without content")),
        }
    }
}

impl fmt::Debug for SnapshotSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(_) => f.write_str("SnapshotSource::Machine"),
            Self::File(file) => write!(f, "SnapshotSource::File({})", file.path.display()),
            Self::Empty => f.write_str("SnapshotSource::Empty"),
        }
    }
}
