//! Starts the group of a node, and starts it again whenever it has stopped, as a node's program does.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use holdfast_model::NodeId;
use tokio::time::sleep;

use super::{GROUP, machine::LedgerMachine, observe::Observer};
use crate::{Consensus, ConsensusError, log::LogError};

/// Between two looks at the group.
const LOOK: Duration = Duration::from_millis(40);

/// Before a group that stopped is started again.
const PAUSE: Duration = Duration::from_millis(160);

/// One run of one node.
pub(crate) struct Keeper {
    pub(crate) node: NodeId,
    pub(crate) consensus: Arc<Consensus>,
    pub(crate) machine: LedgerMachine,
    pub(crate) observer: Observer,
    /// The node is being shut down: what has stopped stays so.
    pub(crate) closing: Arc<AtomicBool>,
}

impl Keeper {
    /// Starts the group. True when it runs; false when its machine had no room for what that takes.
    pub(crate) async fn start(&self) -> Result<bool, ConsensusError> {
        self.start_on(self.machine.clone()).await
    }

    async fn start_on(&self, machine: LedgerMachine) -> Result<bool, ConsensusError> {
        let (room, refused) = (&self.machine.room, self.machine.room.refused());
        match self.consensus.start_group(GROUP, Box::new(machine)).await {
            Ok(()) => Ok(true),
            Err(ConsensusError::Machine { .. } | ConsensusError::Raft { .. }) if room.refused() > refused => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the group running until the node goes off.
    pub(crate) async fn run(self, mut running: bool) {
        loop {
            sleep(if running { LOOK } else { PAUSE }).await;
            if self.closing.load(Ordering::SeqCst) {
                return;
            }
            if running {
                let failure = self.consensus.status(GROUP).and_then(|status| status.failure);
                let Some(failure) = failure else { continue };
                self.observer.note(format_args!("{}: the group has stopped: {failure}", self.node));
                // What it says was said when the group failed.
                drop(self.consensus.stop_group(GROUP).await);
                running = false;
                continue;
            }
            match self.start_on(self.machine.kept()).await {
                Ok(runs) => {
                    self.observer.note(format_args!("{}: the group runs again: {runs}", self.node));
                    running = runs;
                }
                // The disk failed while the log was read back.
                Err(error @ ConsensusError::Log(LogError::Io { .. })) => {
                    self.observer.note(format_args!("{}: {error}", self.node));
                }
                Err(_) if self.closing.load(Ordering::SeqCst) => return,
                Err(error) => {
                    return self.observer.violation(format!("{} does not start again: {error}", self.node));
                }
            }
        }
    }
}
