//! What links have done, for metrics: plain counters, read without a lock on the data path.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use crate::stream::Traffic;

/// Counters of one peer, at one moment, since the program started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Connections open now.
    pub connections: usize,
    /// Connections opened so far.
    pub connects: u64,
    /// Requests sent to the peer (client) or received from it (server).
    pub requests: u64,
    /// Of those: refused, failed or past their deadline.
    pub errors: u64,
    /// Bytes of frames sent.
    pub sent_bytes: u64,
    /// Bytes of frames received.
    pub received_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub connections: AtomicUsize,
    pub connects: AtomicU64,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    pub traffic: Arc<Traffic>,
}

impl Counters {
    /// Counts a connection for as long as the guard lives.
    pub fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.connects.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }

    pub fn read(&self) -> PeerCounters {
        PeerCounters {
            connections: self.connections.load(Ordering::Relaxed),
            connects: self.connects.load(Ordering::Relaxed),
            requests: self.requests.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            sent_bytes: self.traffic.sent.load(Ordering::Relaxed),
            received_bytes: self.traffic.received.load(Ordering::Relaxed),
        }
    }
}

pub(crate) struct Connected(Arc<Counters>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
