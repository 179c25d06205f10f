//! What a node's consensus is configured with. Every limit has a name, a unit and a default.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use holdfast_model::{GroupId, NodeId};

pub use crate::{apply::CheckpointLimits, log::LogLimits};
use crate::{host::Host, transport::Transport};

/// Largest single command in bytes. With the framing around it, it must fit a message and a record.
pub const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;

const _: () = assert!(COMMAND_BYTES_MAX + 1024 * 1024 <= crate::wire::MESSAGE_BYTES_MAX);

/// Leader and election timing.
///
/// A follower stands for election once it has not heard from a leader for between `lease` and
/// `lease + spread`, or longer where leaders were slow of late and alive. The defaults bear guests that are emulated slowly and still replace a leader in
/// under two seconds.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// How long a leader waits for the answer to an append, the follower's flush included.
    pub append_timeout: Duration,
    /// How long after the last word from a leader no other candidate gets a vote.
    pub lease: Duration,
    /// Longest random wait after the lease.
    pub spread: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            append_timeout: Duration::from_millis(750),
            lease: Duration::from_millis(1200),
            spread: Duration::from_millis(500),
        }
    }
}

impl Timing {
    /// A message that is lost must not end the lease.
    fn check(&self) -> Result<(), String> {
        if self.heartbeat.is_zero() || self.heartbeat + self.append_timeout >= self.lease {
            return Err(format!(
                "the lease must be longer than heartbeat and append timeout together: {self:?}"
            ));
        }
        Ok(())
    }
}

/// How proposals share log entries.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Commands of one log entry.
    pub commands_per_entry: usize,
    /// Bytes of commands of one log entry; a single larger command has an entry of its own.
    pub bytes_per_entry: usize,
    /// Entries of one group proposed and not yet applied. Two keep the leader's flush and the followers'
    /// busy at the same time; more make the batches smaller.
    pub entries_in_flight: usize,
    /// Commands accepted and not yet answered, per group. Beyond it a proposal is refused as busy.
    pub commands_queued: usize,
    /// Bytes of commands accepted and not yet answered, per group.
    pub bytes_queued: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            commands_per_entry: 1024,
            bytes_per_entry: 1024 * 1024,
            entries_in_flight: 2,
            commands_queued: 8192,
            bytes_queued: 64 * 1024 * 1024,
        }
    }
}

/// What [`crate::Consensus::open`] needs.
#[derive(Clone)]
pub struct ConsensusOptions {
    /// This node.
    pub node: NodeId,
    /// Directory of the log (`log`) and of snapshots in transit (`snapshots`). Belongs to this node alone.
    pub dir: PathBuf,
    /// How messages reach other nodes.
    pub transport: Arc<dyn Transport>,
    /// Leader and election timing.
    pub timing: Timing,
    /// How proposals share log entries.
    pub batch: BatchLimits,
    /// When machines checkpoint.
    pub checkpoint: CheckpointLimits,
    /// Sizes of the log.
    pub log: LogLimits,
    /// What an answer waits for beside its commit; nothing when absent.
    pub second_copy: Option<Arc<dyn SecondCopy>>,
    /// Threads and randomness.
    pub(crate) host: Host,
}

/// A copy of what is applied, kept elsewhere than log and machine. No answer is given before the copy of
/// its entry is as durable as the keeper promises.
#[async_trait::async_trait]
pub trait SecondCopy: Send + Sync + 'static {
    /// Returns when everything `group` applied up to entry `index` on this node is in the copy. Called on
    /// the leader, after the entry was applied.
    async fn holds(&self, group: GroupId, index: u64);
}

impl ConsensusOptions {
    /// Options with all defaults.
    #[must_use]
    pub fn new(node: NodeId, dir: PathBuf, transport: Arc<dyn Transport>) -> Self {
        Self {
            node,
            dir,
            transport,
            timing: Timing::default(),
            batch: BatchLimits::default(),
            checkpoint: CheckpointLimits::default(),
            log: LogLimits::default(),
            second_copy: None,
            host: Host::default(),
        }
    }

    pub(crate) fn raft_config(&self) -> Result<openraft::Config, String> {
        self.timing.check()?;
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: "holdfast".to_owned(),
            // Heartbeats and elections are `elect`'s; to openraft this is the timeout of an append, the timeout of a
            // vote (as long as openraft allows: the voter's flush may be slow, and a late vote is a lost one), and
            // the lease.
            heartbeat_interval: millis(self.timing.append_timeout),
            election_timeout_min: millis(self.timing.lease) - 1,
            election_timeout_max: millis(self.timing.lease),
            enable_heartbeat: false,
            enable_elect: false,
            // Checkpoints and purges are driven by `maintain`: by bytes, and by what the log needs.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            max_payload_entries: 1024,
            replication_lag_threshold: LEARNER_LAG_ENTRIES,
            ..Default::default()
        }
        .validate()
        .map_err(|error| error.to_string())
    }
}

/// A learner has caught up when it is at most this many entries behind.
pub(crate) const LEARNER_LAG_ENTRIES: u64 = 16;

impl fmt::Debug for ConsensusOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsensusOptions")
            .field("node", &self.node)
            .field("dir", &self.dir)
            .field("timing", &self.timing)
            .field("batch", &self.batch)
            .field("checkpoint", &self.checkpoint)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}
