//! What the node program knows of its key service without asking: nothing of it is secret.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;
use tokio::sync::watch;

use crate::protocol::KeyState;

/// What is known of the service, and when that changed.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) state: RwLock<KeyState>,
    /// How often the service was started.
    pub(super) starts: AtomicU64,
    pub(super) changes: watch::Sender<u64>,
}

impl Known {
    pub(super) fn new() -> Arc<Self> {
        let (changes, _) = watch::channel(0);
        Arc::new(Self { state: RwLock::default(), starts: AtomicU64::new(0), changes })
    }

    /// A service was started, and says this of itself.
    pub(crate) fn begin(&self, state: KeyState) {
        *self.state.write() = state;
        self.starts.fetch_add(1, Ordering::AcqRel);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Takes what the service says of itself, unless it is older than what is known, or of one that has ended.
    pub(crate) fn learn(&self, state: KeyState) {
        let changed = {
            let mut known = self.state.write();
            if state.number < known.number || state.confinement.pid != known.confinement.pid {
                return;
            }
            let changed = known.roots != state.roots;
            *known = state;
            changed
        };
        if changed {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The service ended: nothing is open any more.
    pub(crate) fn forget(&self) {
        let mut state = self.state.write();
        let protection = std::mem::take(&mut state.protection);
        *state = KeyState { protection, ..KeyState::default() };
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
    }
}
