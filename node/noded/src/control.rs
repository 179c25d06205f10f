//! The control group as this node uses it: commands in, views out.

use std::sync::Arc;

use anyhow::{Context, Result};
use holdfast_consensus::Consensus;
use holdfast_control::{Command, ControlReader, ControlView, Outcome, decode_outcome};
use holdfast_model::{GroupId, UnixMillis};

/// Proposes to and reads from the control group.
#[derive(Debug, Clone)]
pub struct Control {
    consensus: Arc<Consensus>,
    reader: ControlReader,
}

impl Control {
    /// Over this node's replica.
    #[must_use]
    pub fn new(consensus: Arc<Consensus>, reader: ControlReader) -> Self {
        Self { consensus, reader }
    }

    /// This node's replica.
    #[must_use]
    pub fn reader(&self) -> &ControlReader {
        &self.reader
    }

    /// Has a command decided.
    ///
    /// # Errors
    /// When the group does not decide; what it decided is the outcome.
    pub async fn propose(&self, command: &Command) -> Result<Outcome> {
        let answer = self
            .consensus
            .propose(GroupId::CONTROL, command.encode())
            .await
            .context("the control group did not decide")?;
        Ok(decode_outcome(&answer)?)
    }

    /// Waits until this replica has applied all that was decided before now; the index of the next entry.
    ///
    /// # Errors
    /// When the group has no leader.
    pub async fn barrier(&self) -> Result<u64> {
        self.consensus.read_barrier(GroupId::CONTROL).await.context("the control group has no leader")?;
        Ok(*self.reader.changes().borrow())
    }

    /// The state as this replica has it: no quorum asked.
    ///
    /// # Errors
    /// When the replica cannot be read.
    pub async fn view(&self) -> Result<ControlView> {
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || reader.view()).await?.context("reading the control state")
    }
}

/// The time of day, as the cluster has it.
#[must_use]
pub fn now() -> UnixMillis {
    holdfast_clock::now()
}
