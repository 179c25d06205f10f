//! Sees that a client has stopped reading.
//!
//! An answer's body is asked for more only when the connection has room, on HTTP/1 and HTTP/2 alike. So
//! the time between handing out bytes and being asked for the next is the client's; the time between being
//! asked and handing out is the storage's and does not count. A client is allowed
//! [`BODY_IDLE_TIMEOUT`] plus the time its last bytes take at [`BODY_RATE_MIN`].

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::{BODY_IDLE_TIMEOUT, BODY_RATE_MIN};

/// How one answer is being taken. Times are milliseconds since `origin`; 0 means that no clock runs.
#[derive(Debug)]
pub(crate) struct Progress {
    origin: Instant,
    deadline: AtomicU64,
}

impl Progress {
    fn new(origin: Instant) -> Self {
        Self { origin, deadline: AtomicU64::new(0) }
    }

    /// The connection asks for more.
    pub(crate) fn asked(&self) {
        self.deadline.store(0, Ordering::Relaxed);
    }

    /// `size` bytes were handed to the connection.
    pub(crate) fn given(&self, size: u64) {
        let allowed = BODY_IDLE_TIMEOUT + Duration::from_millis(size * 1000 / BODY_RATE_MIN);
        let deadline = self.origin.elapsed() + allowed;
        self.deadline.store(deadline.as_millis() as u64, Ordering::Relaxed);
    }

    /// The answer is complete.
    pub(crate) fn done(&self) {
        self.deadline.store(0, Ordering::Relaxed);
    }

    fn is_overdue(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        deadline != 0 && deadline < self.origin.elapsed().as_millis() as u64
    }
}

/// The answers in progress on one connection, and when it was last used.
#[derive(Debug)]
pub(crate) struct Watch {
    origin: Instant,
    answers: Mutex<Vec<Weak<Progress>>>,
    busy: AtomicU64,
    idle_since: AtomicU64,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            answers: Mutex::new(Vec::new()),
            busy: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
        }
    }

    /// A request begins; it ends when the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> (Busy, Arc<Progress>) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let progress = Arc::new(Progress::new(self.origin));
        let mut answers = self.answers.lock();
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Arc::downgrade(&progress));
        (Busy(Arc::clone(self)), progress)
    }

    /// Whether an answer is overdue.
    pub(crate) fn is_not_reading(&self) -> bool {
        self.answers.lock().iter().filter_map(Weak::upgrade).any(|answer| answer.is_overdue())
    }

    /// Whether nothing has been in progress for `limit`.
    pub(crate) fn is_idle_for(&self, limit: Duration) -> bool {
        let idle = self.origin.elapsed().as_millis() as u64;
        self.busy.load(Ordering::Relaxed) == 0
            && idle.saturating_sub(self.idle_since.load(Ordering::Relaxed)) > limit.as_millis() as u64
    }
}

/// A request in progress.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Watch>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.origin.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_is_seen_and_a_slow_store_is_not_blamed_on_it() {
        let watch = Arc::new(Watch::new());
        let (_busy, answer) = watch.begin();
        answer.asked();
        tokio::time::advance(BODY_IDLE_TIMEOUT * 10).await;
        assert!(!watch.is_not_reading(), "the store is slow, not the client");
        answer.given(BODY_RATE_MIN * 10);
        tokio::time::advance(BODY_IDLE_TIMEOUT + Duration::from_secs(9)).await;
        assert!(!watch.is_not_reading());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(watch.is_not_reading());
        answer.done();
        assert!(!watch.is_not_reading());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_when_nothing_is_in_progress() {
        let watch = Arc::new(Watch::new());
        let limit = Duration::from_secs(60);
        let (busy, _answer) = watch.begin();
        tokio::time::advance(limit * 2).await;
        assert!(!watch.is_idle_for(limit));
        drop(busy);
        assert!(!watch.is_idle_for(limit));
        tokio::time::advance(limit * 2).await;
        assert!(watch.is_idle_for(limit));
    }
}
