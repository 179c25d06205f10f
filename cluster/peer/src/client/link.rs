//! One link: a connection that is made again, in the background, for as long as the peer is known.
//!
//! Callers see three states. `Connecting` (the first attempt, or the first after a connection that
//! worked): they wait for it. `Up`. `Down` (the last attempt failed; the next is on its way): they fail
//! at once with the reason, so that nobody queues behind a node that is gone.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_model::NodeId;
use holdfast_ring::BufferPool;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::connection::Connection;
use crate::{
    ConnectError,
    counters::Counters,
    pki::{PeerIdentity, dial_config},
};

/// First pause after a failed attempt; doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// Longest pause between attempts: a node that came back is found within this time.
pub const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A connection that lived this long counts as one that worked.
const WORKED_AFTER: Duration = Duration::from_secs(1);

/// A link as callers see it.
#[derive(Clone)]
pub(crate) enum LinkState {
    Connecting,
    Up(Arc<Connection>),
    Down(ConnectError),
}

/// Everything a link's task needs.
pub(crate) struct Link {
    pub node: NodeId,
    /// Which of the peer's links this is: its slot in the state.
    pub slot: usize,
    pub in_flight_max: usize,
    pub identity: Arc<RwLock<PeerIdentity>>,
    pub pool: BufferPool,
    pub counters: Arc<Counters>,
    pub state: Arc<watch::Sender<Vec<LinkState>>>,
    pub address: watch::Receiver<SocketAddr>,
}

impl Link {
    /// Keeps the link up until its sender of addresses is gone.
    pub async fn run(self) {
        let mut moves = self.address.clone();
        let mut backoff = Backoff::new();
        loop {
            let address = *moves.borrow_and_update();
            let moved = tokio::select! {
                () = self.once(address, &mut backoff) => false,
                moved = moves.changed() => match moved {
                    Ok(()) => true,
                    Err(_) => return,
                },
            };
            if moved {
                self.show(LinkState::Connecting);
                backoff = Backoff::new();
            }
        }
    }

    /// One connection from its beginning to its end, or one failed attempt and the pause after it.
    async fn once(&self, address: SocketAddr, backoff: &mut Backoff) {
        let (connection, driver) = match self.dial(address).await {
            Ok(up) => up,
            Err(error) => {
                tracing::debug!(peer = %self.node, link = self.slot, %error, "no connection");
                self.show(LinkState::Down(error));
                return tokio::time::sleep(backoff.next()).await;
            }
        };
        let _connected = self.counters.connected();
        let since = Instant::now();
        tracing::debug!(peer = %self.node, link = self.slot, %address, "link up");
        self.show(LinkState::Up(connection));
        let reason = driver.run().await;
        tracing::info!(peer = %self.node, link = self.slot, %address, %reason, "link lost");
        if since.elapsed() >= WORKED_AFTER {
            *backoff = Backoff::new();
            return self.show(LinkState::Connecting);
        }
        self.show(LinkState::Down(ConnectError::ShortLived { address, reason: reason.to_string() }));
        tokio::time::sleep(backoff.next()).await;
    }

    async fn dial(
        &self,
        address: SocketAddr,
    ) -> Result<(Arc<Connection>, super::connection::Driver<super::connection::Stream>), ConnectError> {
        let config = {
            let identity = self.identity.read();
            dial_config(&identity, self.node).map_err(|source| ConnectError::Identity { address, source })?
        };
        let traffic = Arc::clone(&self.counters.traffic);
        Connection::dial(address, config, self.pool.clone(), self.in_flight_max, traffic).await
    }

    fn show(&self, state: LinkState) {
        self.state.send_modify(|links| links[self.slot] = state);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.show(LinkState::Down(ConnectError::Closed));
    }
}

/// Pauses that double, with jitter, so that the nodes of a cluster do not knock in step.
struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(BACKOFF_MIN)
    }

    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        let mut random = [0];
        // Without randomness the pause is the plain one.
        let _plain = getrandom::fill(&mut random);
        pause.mul_f64(0.75 + f64::from(random[0]) / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_not_beyond() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(pauses[0] >= BACKOFF_MIN.mul_f64(0.75) && pauses[0] <= BACKOFF_MIN);
        assert!(pauses[10..].iter().all(|p| *p >= BACKOFF_MAX.mul_f64(0.75) && *p <= BACKOFF_MAX));
    }
}
