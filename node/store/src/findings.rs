//! Shards that were found missing or damaged on drives that work, on their way to the worker that repairs
//! them. Bounded: what does not fit is found again by the next read or scrub.

use holdfast_model::{ShardIndex, StripeId, placement::Place};
use tokio::sync::mpsc;

/// Findings that may wait.
const WAITING_MAX: usize = 4096;

/// A shard that is not what the catalog says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BadShard {
    /// Its stripe.
    pub stripe: StripeId,
    /// Which of its shards.
    pub index: ShardIndex,
    /// Where it should be.
    pub place: Place,
    /// What was found.
    pub fault: Fault,
}

/// What is wrong with a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Missing, or its bytes do not match their checksums.
    Unreadable,
    /// Its bytes match their checksums, and are not what was sealed.
    DoesNotOpen,
}

/// Where findings are told. Cloned freely.
#[derive(Debug, Clone)]
pub struct Findings(mpsc::Sender<BadShard>);

/// The findings told.
pub type Found = mpsc::Receiver<BadShard>;

impl Findings {
    /// A fresh channel of findings.
    #[must_use]
    pub fn channel() -> (Self, Found) {
        let (sender, found) = mpsc::channel(WAITING_MAX);
        (Self(sender), found)
    }

    /// Tells one. Never waits.
    pub fn tell(&self, bad: BadShard) {
        if holdfast_planted::is("FindingsAreLost") {
            return;
        }
        if self.0.try_send(bad).is_err() {
            tracing::debug!(stripe = %bad.stripe, shard = %bad.index, "too many findings wait; this one is for the next scrub");
        }
    }
}
