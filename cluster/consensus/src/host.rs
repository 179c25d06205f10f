//! What consensus takes from the machine below it, beside a disk and a network: threads, tasks, randomness.
//!
//! A simulation puts itself in their place, so that one seed decides everything that happens
//! (docs/decisions/0023-consensus-simulated.md). What the threads do is the same code in both.

use std::{fmt, io, thread};

use tokio::sync::mpsc;

#[cfg(test)]
use crate::simulation::host::SimulatedHost;

#[cfg(test)]
pub(crate) use crate::simulation::runtime::{Runtime, Task, spawn};
/// Tasks: tokio's, or in tests those of a simulation where the spawning task belongs to one.
#[cfg(not(test))]
pub(crate) use {openraft::TokioRuntime as Runtime, tokio::spawn, tokio::task::JoinHandle as Task};

/// Where threads and randomness come from.
#[derive(Clone, Default)]
pub(crate) enum Host {
    /// The machine this process runs on.
    #[default]
    Machine,
    /// A simulated node: no thread, and randomness from its seed.
    #[cfg(test)]
    Simulated(SimulatedHost),
}

impl Host {
    /// Fills `bytes` with randomness.
    pub(crate) fn fill(&self, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Machine => getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string())),
            #[cfg(test)]
            Self::Simulated(host) => {
                host.fill(bytes);
                Ok(())
            }
        }
    }

    /// Runs `work`, which may block, where it holds up no task.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        match self {
            Self::Machine => tokio::task::spawn_blocking(work).await,
            #[cfg(test)]
            Self::Simulated(host) => {
                host.work_takes_time().await;
                Ok(work())
            }
        }
    }

    /// Has a thread of its own take `jobs` one by one until `serve` says that was the last.
    pub(crate) fn serve<J: Send + 'static>(
        &self,
        name: String,
        mut jobs: mpsc::UnboundedReceiver<J>,
        mut serve: impl FnMut(J) -> bool + Send + 'static,
    ) -> io::Result<()> {
        match self {
            Self::Machine => {
                let work = move || while jobs.blocking_recv().is_some_and(&mut serve) {};
                thread::Builder::new().name(name).spawn(work).map(drop)
            }
            #[cfg(test)]
            Self::Simulated(host) => {
                host.serve(jobs, serve);
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Machine => "Host::Machine",
            #[cfg(test)]
            Self::Simulated(_) => "Host::Simulated",
        })
    }
}
