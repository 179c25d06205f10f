//! Asks the key service, and keeps at hand what is no secret: which roots are there, how shares stand.
//!
//! Calls block: an answer takes some tens of microseconds, those of [`Core::takes_long`] longer.

mod known;
mod remote;
mod roots;
mod secrets;
mod tenants;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use holdfast_keyring::HeldShare;
use holdfast_model::{ClusterId, KeyId, RootEpoch, TenantId};
use parking_lot::Mutex;
use tokio::sync::watch;

pub(crate) use known::Known;
pub use remote::RemoteTenant;

use crate::{
    Core,
    protocol::{Confinement, KeyError, KeyState, Opening, Reply, Request, RootName},
    supervisor::{OpeningOf, Supervisor},
};

/// Where requests go.
enum Line {
    /// To a process.
    Process(Arc<Supervisor>),
    /// To a service in this process: tests and tools.
    Here(Box<Core>),
}

impl Line {
    fn ask(&self, request: Request) -> Result<Reply, KeyError> {
        match self {
            Self::Process(supervisor) => supervisor.ask(&request),
            Self::Here(core) => core.handle(request),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Self::Process(supervisor) = self {
            supervisor.stop();
        }
    }
}

/// The keys of a running node, by way of its key service.
pub struct Client {
    cluster: ClusterId,
    line: Arc<Line>,
    known: Arc<Known>,
    tenants: Mutex<HashMap<TenantId, Arc<RemoteTenant>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("epochs", &self.epochs()).finish_non_exhaustive()
    }
}

/// What another answer than was asked for is.
fn odd(reply: &Reply) -> KeyError {
    KeyError::Misused(format!("it answered {:?}", std::mem::discriminant(reply)))
}

impl Client {
    /// Starts the service as a process of its own. This program must know the subcommand: see
    /// [`crate::process::run`]. `opening` is asked each time it is started: a passphrase is not kept.
    ///
    /// # Errors
    /// What the service could not open; `Away` when it cannot be started.
    pub fn start(cluster: ClusterId, opening: OpeningOf) -> Result<Self, KeyError> {
        let known = Known::new();
        let supervisor = Supervisor::start(opening, Arc::clone(&known))?;
        Ok(Self { cluster, line: Arc::new(Line::Process(supervisor)), known, tenants: Mutex::default() })
    }

    /// The service in this process, for tests: no node runs so.
    ///
    /// # Errors
    /// As [`Core::open`].
    pub fn here(opening: &Opening, dir: &Path) -> Result<Self, KeyError> {
        let core = Core::open(opening, dir, Confinement::default())?;
        let known = Known::new();
        known.begin(core.state());
        let line = Arc::new(Line::Here(Box::new(core)));
        Ok(Self { cluster: opening.cluster, line, known, tenants: Mutex::default() })
    }

    /// The cluster whose keys these are.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What is known of the keys.
    #[must_use]
    pub fn state(&self) -> KeyState {
        self.known.state.read().clone()
    }

    /// Asks for what is known of the keys, uses counted to this moment.
    #[must_use]
    pub fn fresh_state(&self) -> KeyState {
        self.change(Request::State).map_or_else(|_| self.state(), |()| self.state())
    }

    /// Changes with every root that comes or goes, and every start and end of the service.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.known.changes.subscribe()
    }

    /// How often the service was started: what was put together while this changed may lack something.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.known.starts.load(Ordering::Acquire)
    }

    /// Epochs of the roots that are here.
    #[must_use]
    pub fn epochs(&self) -> Vec<RootEpoch> {
        self.known.state.read().roots.iter().map(|(epoch, _)| *epoch).collect()
    }

    /// Whether the root of an epoch is here, by its name.
    #[must_use]
    pub fn has(&self, epoch: RootEpoch, root: KeyId) -> bool {
        self.known.state.read().roots.contains(&(epoch, root))
    }

    /// Whether no root is here.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.known.state.read().roots.is_empty()
    }

    /// The root that wraps.
    ///
    /// # Errors
    /// `Locked`.
    pub fn current(&self) -> Result<RootName, KeyError> {
        self.known.state.read().current.ok_or(KeyError::Locked { epoch: RootEpoch::default() })
    }

    /// Whether the cluster key is here.
    #[must_use]
    pub fn has_cluster_key(&self) -> bool {
        self.known.state.read().cluster_key.is_some()
    }

    /// The public name of the cluster key; `None` until it is known.
    #[must_use]
    pub fn cluster_key_id(&self) -> Option<KeyId> {
        self.known.state.read().cluster_key.as_ref().map(|(id, _)| *id)
    }

    /// The public key that certificates are verified with.
    ///
    /// # Errors
    /// `NoClusterKey`.
    pub fn certificate_key(&self) -> Result<[u8; 32], KeyError> {
        let state = self.known.state.read();
        let key = state.cluster_key.as_ref().and_then(|(_, key)| key.as_slice().try_into().ok());
        key.ok_or(KeyError::NoClusterKey)
    }

    fn ask(&self, request: Request) -> Result<Reply, KeyError> {
        self.line.ask(request)
    }

    fn change(&self, request: Request) -> Result<(), KeyError> {
        match self.ask(request)? {
            Reply::State(state) => {
                self.known.learn(*state);
                Ok(())
            }
            other => Err(odd(&other)),
        }
    }

    fn sealed(&self, request: Request) -> Result<Vec<u8>, KeyError> {
        match self.ask(request)? {
            Reply::Sealed(bytes) => Ok(bytes),
            other => Err(odd(&other)),
        }
    }

    fn shares_for(&self, request: Request) -> Result<Vec<HeldShare>, KeyError> {
        match self.ask(request)? {
            Reply::Shares(shares) => Ok(shares),
            other => Err(odd(&other)),
        }
    }
}
