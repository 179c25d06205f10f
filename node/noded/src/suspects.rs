//! Groups whose files are not what they seem: a flush of them failed since this machine was started.
//!
//! After a flush that failed Linux takes pages for written that are not (Rebello et al., ATC 2020): they read back as
//! long as they stay in memory, and no later flush writes them. A group goes on with such files only after all of them
//! were written anew. Which ones these are is kept beside them, for a node whose program starts anew on the same boot;
//! once the machine has restarted, what reads back is what the disk holds, and that is what a crash would have left.

use std::{collections::BTreeSet, fs, io, path::PathBuf};

use holdfast_model::GroupId;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Names the boot: another one after the machine has restarted (proc_sys_kernel(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file in the state directory.
pub const FILE: &str = "suspects.json";

#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    /// The boot on which the flushes failed.
    boot: String,
    groups: BTreeSet<GroupId>,
}

/// See the module.
#[derive(Debug)]
pub struct Suspects {
    path: PathBuf,
    known: Mutex<Known>,
}

impl Suspects {
    /// Those of this boot that are noted in the file at `path`.
    #[must_use]
    pub fn load(path: PathBuf) -> Self {
        Self::of_boot(path, fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned())
    }

    fn of_boot(path: PathBuf, boot: String) -> Self {
        let read =
            fs::read(&path).and_then(|bytes| serde_json::from_slice::<Known>(&bytes).map_err(Into::into));
        let groups = match read {
            Ok(known) if known.boot == boot => known.groups,
            Ok(_) => BTreeSet::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "which files a failed flush left cannot be read");
                BTreeSet::new()
            }
        };
        Self { path, known: Mutex::new(Known { boot, groups }) }
    }

    /// Whether the files of `group` are to be written anew.
    #[must_use]
    pub fn contains(&self, group: GroupId) -> bool {
        self.known.lock().groups.contains(&group)
    }

    /// A flush of files of `group` failed.
    pub fn add(&self, group: GroupId) {
        let mut known = self.known.lock();
        if known.groups.insert(group) {
            self.store(&known);
        }
    }

    /// The files of `group` are written anew.
    pub fn remove(&self, group: GroupId) {
        let mut known = self.known.lock();
        if known.groups.remove(&group) {
            self.store(&known);
        }
    }

    /// Without a flush: it is needed only while the machine runs.
    fn store(&self, known: &Known) {
        let unfinished = self.path.with_extension("new");
        let stored = serde_json::to_vec(known)
            .map_err(io::Error::from)
            .and_then(|bytes| fs::write(&unfinished, bytes))
            .and_then(|()| fs::rename(&unfinished, &self.path));
        if let Err(error) = stored {
            let path = self.path.display();
            tracing::warn!(%path, %error, "which files a failed flush left cannot be noted: restart the machine");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_known_to_the_next_program_and_not_to_the_next_boot() {
        let dir = tempfile::tempdir().unwrap();
        let on = |boot: &str| Suspects::of_boot(dir.path().join(FILE), boot.to_owned());
        let (one, other) = (GroupId::new(1), GroupId::new(2));
        let suspects = on("a");
        suspects.add(one);
        suspects.add(other);
        suspects.remove(other);
        assert!(on("a").contains(one) && !on("a").contains(other));
        assert!(!on("b").contains(one));
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(!on("a").contains(one));
    }
}
