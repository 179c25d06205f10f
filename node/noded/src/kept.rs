//! A machine that outlives the group it is started in, notes flushes of its files that failed, and can have these written anew.

use std::{fs, io, path::Path, sync::Arc};

use bytes::Bytes;
use holdfast_consensus::{Applied, FlushFailed, StateMachine};
use holdfast_model::GroupId;
use parking_lot::Mutex;

use crate::suspects::Suspects;

/// Removes a directory, if it is there.
///
/// # Errors
/// I/O.
pub fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// See the module.
#[derive(Clone)]
pub struct Kept {
    group: GroupId,
    machine: Arc<Mutex<Box<dyn StateMachine>>>,
    suspects: Arc<Suspects>,
}

impl Kept {
    /// The machine of `group`.
    pub fn new(group: GroupId, machine: impl StateMachine, suspects: Arc<Suspects>) -> Self {
        Self { group, machine: Arc::new(Mutex::new(Box::new(machine))), suspects }
    }

    /// Has all files written and flushed once more, with what they read as: a copy of everything, made in `dir`, takes
    /// their place.
    ///
    /// # Errors
    /// As the machine's. What there was is still there.
    pub fn write_anew(&self, dir: &Path) -> io::Result<()> {
        let mut machine = self.machine.lock();
        let Some(position) = machine.position() else {
            // The log has all that it knows.
            return machine.discard();
        };
        remove_dir(dir)?;
        fs::create_dir(dir)?;
        let image = dir.join("image");
        machine.snapshot(&image)?;
        machine.install(&image, &position)?;
        remove_dir(dir)
    }

    /// Passes an outcome on, and notes a flush that failed.
    fn noting<T>(&self, outcome: io::Result<T>) -> io::Result<T> {
        outcome.inspect_err(|error| {
            if FlushFailed::is(error) {
                self.suspects.add(self.group);
            }
        })
    }
}

impl StateMachine for Kept {
    fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
        let applied = self.machine.lock().apply(entries);
        self.noting(applied)
    }

    fn checkpoint(&mut self, position: &[u8]) -> io::Result<()> {
        let flushed = self.machine.lock().checkpoint(position);
        self.noting(flushed)
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.machine.lock().position()
    }

    fn snapshot(&mut self, path: &Path) -> io::Result<()> {
        self.machine.lock().snapshot(path)
    }

    fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()> {
        let installed = self.machine.lock().install(path, position);
        self.noting(installed)
    }

    fn discard(&mut self) -> io::Result<()> {
        self.machine.lock().discard()
    }
}
