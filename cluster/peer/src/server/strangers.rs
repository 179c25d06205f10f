//! Connections that have not yet proven who they are.
//!
//! They are bounded, and the newest wins: when all places are taken the oldest stranger is sent away.
//! A node or joiner needs milliseconds; who sits in the doorway cannot keep others out.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub(super) struct Strangers {
    max: usize,
    waiting: Mutex<VecDeque<CancellationToken>>,
}

/// A place in the doorway; given up when dropped.
pub(super) struct Stranger {
    doorway: Arc<Strangers>,
    sent_away: CancellationToken,
}

impl Strangers {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, waiting: Mutex::default() })
    }

    pub fn enter(self: &Arc<Self>) -> Stranger {
        let sent_away = CancellationToken::new();
        let mut waiting = self.waiting.lock();
        if waiting.len() >= self.max
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.cancel();
        }
        waiting.push_back(sent_away.clone());
        Stranger { doorway: Arc::clone(self), sent_away }
    }
}

impl Stranger {
    /// Returns when the place was given to another.
    pub async fn sent_away(&self) {
        self.sent_away.cancelled().await;
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // Cancelling marks the entry as its own: tokens cannot be compared.
        self.sent_away.cancel();
        self.doorway.waiting.lock().retain(|token| !token.is_cancelled());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_for_the_newest() {
        let doorway = Strangers::new(2);
        let first = doorway.enter();
        let second = doorway.enter();
        drop(second);
        let third = doorway.enter();
        assert!(!first.sent_away.is_cancelled(), "there was room");
        let fourth = doorway.enter();
        assert!(first.sent_away.is_cancelled());
        assert!(!third.sent_away.is_cancelled() && !fourth.sent_away.is_cancelled());
        drop((first, third, fourth));
        assert!(doorway.waiting.lock().is_empty());
    }
}
