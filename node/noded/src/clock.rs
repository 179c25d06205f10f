//! Asks nodes what their clocks show, so that a wrong one is noticed and not gone by; and on an appliance, whose machine has
//! nobody else to do so, sets it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_control::{ControlView, NodeState};
use holdfast_model::{NodeId, UnixMillis};
use holdfast_peer::{Method, PeerClient};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_settime},
};
use tokio::time::sleep;

/// How long a node that starts waits for what others' clocks show before it goes by its own.
const SETTLE_MAX: Duration = Duration::from_secs(5);

/// How often it looks meanwhile.
const SETTLE_POLL: Duration = Duration::from_millis(100);

/// So often in a row this node's clock has to be found wrong before it is set.
const WRONG_BEFORE_SET: u32 = 5;

/// So many other nodes have to be heard before a clock is set by them.
const HEARD_BEFORE_SET: usize = 2;

/// Looks at the clocks every second, and after this node's.
#[derive(Debug)]
pub struct ClockKeeper {
    /// Whether this program may set the machine's clock: it is an appliance's.
    sets: bool,
    wrong: u32,
}

impl ClockKeeper {
    /// A keeper that has not looked yet.
    #[must_use]
    pub fn new(sets: bool) -> Self {
        Self { sets, wrong: 0 }
    }

    /// Looks at the clocks, and sets the machine's when most of the others have another time for a while.
    pub fn look(&mut self) {
        let found = holdfast_clock::judge();
        let wrong = found.agreed && found.own_wrong().is_some() && found.ahead.len() >= HEARD_BEFORE_SET;
        self.wrong = if wrong { self.wrong + 1 } else { 0 };
        if !self.sets || self.wrong < WRONG_BEFORE_SET {
            return;
        }
        self.wrong = 0;
        let time = TimeSpec::from_duration(Duration::from_millis(holdfast_clock::now().get()));
        match clock_settime(ClockId::CLOCK_REALTIME, time) {
            Ok(()) => tracing::warn!(
                target: "audit",
                was_ahead_millis = found.own_ahead,
                "this machine's clock is set to what most nodes' clocks show"
            ),
            Err(error) => tracing::error!(%error, "this machine's clock is wrong and cannot be set"),
        }
    }
}

/// Asks `node`. One that does not tell has no say: it may be of a release that does not know the question.
pub async fn ask(peers: &PeerClient, node: NodeId, limit: Duration) {
    let asked = Instant::now();
    match peers.call(node, Method::Clock, Bytes::new(), None, limit).await {
        Ok(reply) => match postcard::from_bytes::<UnixMillis>(&reply.body) {
            Ok(shown) => holdfast_clock::heard(node, shown, asked),
            Err(error) => tracing::warn!(%node, %error, "told a time that is none"),
        },
        Err(error) => tracing::debug!(%node, error = %error, "did not tell the time"),
    }
}

/// Waits until most members, this node among them, have said what their clocks show: before that a node whose
/// clock is wrong cannot know.
pub async fn settle(view: &ControlView) {
    let members = view.nodes.values().filter(|node| node.state == NodeState::Active).count();
    let begun = Instant::now();
    loop {
        let found = holdfast_clock::judge();
        if (found.ahead.len() + 1) * 2 > members {
            return;
        }
        if begun.elapsed() > SETTLE_MAX {
            let heard = found.ahead.len();
            tracing::warn!(members, heard, "too few nodes tell the time; this one goes by what it knows");
            return;
        }
        sleep(SETTLE_POLL).await;
    }
}
