//! The groups of this node: started, watched, and begun anew when their part of the log is damaged.
//!
//! A group whose log does not read back is left out and reported; the others go on. The leader of the
//! control group takes this replica out of the group ([`crate::membership`]) and then says to begin anew:
//! the log forgets the group, and the replica is filled from the others, first without a vote.
//!
//! A group that stops while its log and files are whole starts again by itself, after a pause ([`crate::restarts`]). If a
//! flush of its files failed, these are written anew before ([`crate::suspects`]).
//!
//! Invariants:
//! - what a group's log promised (votes, entries) is forgotten only on the word that the group counts on
//!   this replica no more, and only for the very ailment that was reported;
//! - a machine's own state is kept: all of it was committed, and machines skip what they hold already. Only
//!   one that differs from what a majority agrees on ([`crate::comparison`]) is put aside.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use holdfast_consensus::{Consensus, ConsensusError, LogError, StateMachine};
use holdfast_crypt::random_array;
use holdfast_model::{GroupId, NodeId};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    kept::{Kept, remove_dir},
    restarts::Restarts,
    suspects::{self, Suspects},
};

/// How often the groups are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Directory for a copy of a group's state while its files are written anew, in the state directory.
const WRITTEN_ANEW: &str = "written-anew";

/// The log of all groups is not the one this node took part with: it must not go on under its identity.
#[derive(Debug, thiserror::Error)]
#[error("the Raft log of this node was lost; it must join again under a new identity")]
pub struct LostLog;

/// A group that does not run on this node, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ailment {
    /// The group.
    pub group: GroupId,
    /// Random: this occurrence and no other.
    pub id: u64,
    /// Whether taking the replica out and adding it again cures it.
    pub curable: bool,
    /// What was found.
    pub what: String,
}

/// The groups of this node.
pub struct Groups {
    consensus: Arc<Consensus>,
    machines: RwLock<BTreeMap<GroupId, Kept>>,
    ailing: Mutex<BTreeMap<GroupId, Ailment>>,
    /// Groups whose state on this node is not what the others have: to be put aside before they begin anew.
    diverged: Mutex<BTreeSet<GroupId>>,
    /// Groups that stopped although nothing is damaged.
    restarts: Mutex<Restarts>,
    /// Groups whose files are to be written anew.
    suspects: Arc<Suspects>,
    state_dir: PathBuf,
    /// One start, stop or new beginning at a time.
    changing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").field("ailing", &self.ailments()).finish_non_exhaustive()
    }
}

impl Groups {
    /// No groups yet, of the node that keeps its state in `state_dir`.
    #[must_use]
    pub fn new(consensus: Arc<Consensus>, state_dir: PathBuf) -> Self {
        if let Err(error) = remove_dir(&state_dir.join(WRITTEN_ANEW)) {
            tracing::warn!(%error, "a copy of a group's state cannot be removed");
        }
        Self {
            consensus,
            machines: RwLock::default(),
            ailing: Mutex::default(),
            diverged: Mutex::default(),
            restarts: Mutex::default(),
            suspects: Arc::new(Suspects::load(state_dir.join(suspects::FILE))),
            state_dir,
            changing: tokio::sync::Mutex::default(),
        }
    }

    /// Starts `group` on `machine`, or notes why it cannot be started here.
    ///
    /// # Errors
    /// [`LostLog`], and whatever concerns the whole node and not this group.
    pub async fn start(&self, group: GroupId, machine: impl StateMachine) -> Result<()> {
        let _changing = self.changing.lock().await;
        let kept = Kept::new(group, machine, Arc::clone(&self.suspects));
        self.machines.write().insert(group, kept.clone());
        match self.start_kept(group, kept).await {
            // Tried again, as if it had stopped. Without the control group there is no node.
            Err(error) if group != GroupId::CONTROL && self.suspects.contains(group) => {
                self.note_stopped(group, &format!("{error:#}"));
                Ok(())
            }
            other => other,
        }
    }

    async fn start_kept(&self, group: GroupId, machine: Kept) -> Result<()> {
        if self.suspects.contains(group) {
            let (suspect, dir) = (machine.clone(), self.state_dir.join(WRITTEN_ANEW));
            tokio::task::spawn_blocking(move || suspect.write_anew(&dir))
                .await?
                .with_context(|| format!("writing the files of group {group} anew, after a flush failed"))?;
            self.suspects.remove(group);
            tracing::warn!(%group, "the files of the group are written anew: a flush of them had failed");
        }
        match self.consensus.start_group(group, Box::new(machine)).await {
            Ok(()) => {
                self.ailing.lock().remove(&group);
                Ok(())
            }
            Err(ConsensusError::LogLost { .. }) => Err(LostLog.into()),
            Err(
                error @ (ConsensusError::Log(LogError::GroupDamaged { .. })
                | ConsensusError::MachineTooOld { .. }),
            ) => {
                self.note(group, true, error.to_string());
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("starting group {group}")),
        }
    }

    fn note(&self, group: GroupId, curable: bool, what: String) {
        tracing::error!(%group, curable, what, "the group does not run on this node");
        let id = u64::from_le_bytes(random_array());
        self.ailing.lock().insert(group, Ailment { group, id, curable, what });
    }

    /// The groups that do not run here.
    #[must_use]
    pub fn ailments(&self) -> Vec<Ailment> {
        self.ailing.lock().values().cloned().collect()
    }

    /// Notices groups that stop while the node runs, and starts again what may be, until cancelled.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let all: Vec<GroupId> = self.machines.read().keys().copied().collect();
            // Also those that have not asked anything of the log since: it is read back when no group counts on what it
            // held in memory.
            let log_failure = self.consensus.log_failure().map(|failure| failure.to_string());
            for group in all {
                let Some(status) = self.consensus.status(group) else { continue };
                if let Some(failure) = status.failure.or_else(|| log_failure.clone()) {
                    self.set_aside(group, failure).await;
                }
            }
            let due = self.restarts.lock().due(Instant::now());
            for group in due {
                self.start_again(group).await;
            }
        }
    }

    /// Starts a group that stopped although nothing is damaged.
    async fn start_again(&self, group: GroupId) {
        let _changing = self.changing.lock().await;
        let Some(machine) = self.machines.read().get(&group).cloned() else { return };
        match self.start_kept(group, machine).await {
            Ok(()) => {
                self.restarts.lock().started(group, Instant::now());
                if !self.ailing.lock().contains_key(&group) {
                    tracing::warn!(%group, "the group runs again on this node");
                }
            }
            Err(error) => self.note_stopped(group, &format!("{error:#}")),
        }
    }

    /// Notes a group that stopped although nothing is damaged, and when it starts again.
    fn note_stopped(&self, group: GroupId, failure: &str) {
        let pause = self.restarts.lock().stopped(group, Instant::now());
        self.note(group, false, format!("{failure}; it starts again in {} s", pause.as_secs()));
    }

    /// A group has stopped: lets go of it, so that its state can be told and cured.
    async fn set_aside(&self, group: GroupId, failure: String) {
        let _changing = self.changing.lock().await;
        if let Err(error) = self.consensus.stop_group(group).await {
            tracing::warn!(%group, %error, "a group that failed could not be put away");
        }
        match self.consensus.damage(group) {
            Some(damage) => self.note(group, true, damage.to_string()),
            None => self.note_stopped(group, &failure),
        }
    }

    /// Stops `group` on this node because a majority has another state, and notes that it may be cured. Not the
    /// control group: everything on a node goes by its state, so the node is to join anew instead.
    pub async fn set_aside_diverged(&self, group: GroupId, what: String) {
        if group == GroupId::CONTROL {
            let what = format!("{what}; remove this node and have it join anew");
            return self.stop_for_good(group, what).await;
        }
        let _changing = self.changing.lock().await;
        if let Err(error) = self.consensus.stop_group(group).await {
            tracing::warn!(%group, %error, "a group whose state differs could not be put away");
        }
        self.diverged.lock().insert(group);
        self.restarts.lock().forget(group);
        self.note(group, true, what);
    }

    async fn stop_for_good(&self, group: GroupId, what: String) {
        let _changing = self.changing.lock().await;
        if let Err(error) = self.consensus.stop_group(group).await {
            tracing::warn!(%group, %error, "a group whose state differs could not be put away");
        }
        self.restarts.lock().forget(group);
        self.note(group, false, what);
    }

    /// Forgets what the log holds of `group` and starts it empty: the others count on this replica no
    /// more. Says whether `ailment` was there to be cured; if not, nothing is done.
    ///
    /// # Errors
    /// When the log cannot be written or the group not started.
    pub async fn begin_anew(&self, group: GroupId, ailment: u64) -> Result<bool> {
        let _changing = self.changing.lock().await;
        let known =
            self.ailing.lock().get(&group).is_some_and(|ailing| ailing.id == ailment && ailing.curable);
        let machine = self.machines.read().get(&group).cloned();
        let (true, Some(machine)) = (known, machine) else { return Ok(false) };
        self.consensus.forget_group(group).await.context("forgetting the group's log")?;
        if self.diverged.lock().contains(&group) {
            let mut diverged = machine.clone();
            tokio::task::spawn_blocking(move || diverged.discard())
                .await?
                .context("putting the differing state aside")?;
            self.diverged.lock().remove(&group);
        }
        tracing::info!(%group, "the group begins anew on this node");
        self.start_kept(group, machine).await?;
        Ok(true)
    }
}

/// What every node last said about groups that do not run on it.
#[derive(Debug, Default)]
pub struct Ward(RwLock<BTreeMap<NodeId, Vec<Ailment>>>);

impl Ward {
    /// Takes a node's word.
    pub fn heard(&self, node: NodeId, ailments: Vec<Ailment>) {
        self.0.write().insert(node, ailments);
    }

    /// Forgets a node that left.
    pub fn forget(&self, node: NodeId) {
        self.0.write().remove(&node);
    }

    /// Nodes on which `group` does not run, and why.
    #[must_use]
    pub fn of(&self, group: GroupId) -> Vec<(NodeId, Ailment)> {
        let nodes = self.0.read();
        let of = |ailments: &Vec<Ailment>| ailments.iter().find(|ailment| ailment.group == group).cloned();
        nodes.iter().filter_map(|(node, ailments)| Some((*node, of(ailments)?))).collect()
    }

    /// Nodes on which some group does not run.
    #[must_use]
    pub fn ailing(&self) -> BTreeSet<NodeId> {
        self.0.read().iter().filter(|(_, ailments)| !ailments.is_empty()).map(|(node, _)| *node).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, path::Path};

    use bytes::Bytes;
    use holdfast_consensus::{Applied, ConsensusOptions, FlushFailed, Transport, TransportError};
    use tokio::time::sleep;

    use super::*;

    const GROUP: GroupId = GroupId::new(1);

    /// Longer than a group that stopped is left alone.
    const PATIENCE: Duration = Duration::from_secs(60);

    struct Nobody;

    #[async_trait::async_trait]
    impl Transport for Nobody {
        async fn send(&self, to: NodeId, _: Bytes, _: Duration) -> Result<Bytes, TransportError> {
            Err(TransportError::NotSent(to, "there is one node".to_owned()))
        }
    }

    /// Writes down what it is asked for; a flush of its files can fail.
    #[derive(Clone, Default)]
    struct Asked(Arc<Mutex<AskedFor>>);

    #[derive(Default)]
    struct AskedFor {
        calls: Vec<&'static str>,
        position: Option<Vec<u8>>,
        fails_next: bool,
        /// Calls when a flush failed.
        failed_after: Option<usize>,
    }

    impl Asked {
        fn note(&self, call: &'static str) {
            self.0.lock().calls.push(call);
        }

        fn calls(&self) -> Vec<&'static str> {
            self.0.lock().calls.clone()
        }
    }

    impl StateMachine for Asked {
        fn apply(&mut self, entries: &[Applied<'_>]) -> io::Result<Vec<Vec<Bytes>>> {
            self.note("apply");
            Ok(entries.iter().map(|entry| vec![Bytes::new(); entry.commands.len()]).collect())
        }

        fn checkpoint(&mut self, position: &[u8]) -> io::Result<()> {
            self.note("checkpoint");
            let mut asked = self.0.lock();
            if std::mem::take(&mut asked.fails_next) {
                asked.failed_after = Some(asked.calls.len());
                return Err(io::Error::other(FlushFailed("on purpose".to_owned())));
            }
            asked.position = Some(position.to_vec());
            Ok(())
        }

        fn position(&self) -> Option<Vec<u8>> {
            self.0.lock().position.clone()
        }

        fn snapshot(&mut self, path: &Path) -> io::Result<()> {
            self.note("snapshot");
            fs::write(path, "image")
        }

        fn install(&mut self, path: &Path, position: &[u8]) -> io::Result<()> {
            self.note("install");
            assert_eq!((fs::read(path)?, Some(position)), (b"image".to_vec(), self.position().as_deref()));
            Ok(())
        }
    }

    /// Has commands decided until `done`; those that come while the group does not run are refused.
    async fn propose_until(consensus: &Consensus, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < PATIENCE, "{:?}", consensus.status(GROUP));
            let within = Duration::from_secs(1);
            drop(consensus.propose_within(GROUP, Bytes::from_static(b"x"), within).await);
            sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn files_are_written_anew_before_a_group_goes_on_after_a_failed_flush() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = ConsensusOptions::new(NodeId::new(1), dir.path().join("raft"), Arc::new(Nobody));
        options.checkpoint.entries = 3;
        let consensus = Consensus::open(options).await.unwrap();
        let open = || Arc::new(Groups::new(Arc::clone(&consensus), dir.path().to_owned()));
        let (groups, machine) = (open(), Asked::default());
        groups.start(GROUP, machine.clone()).await.unwrap();
        consensus.initialize(GROUP, BTreeSet::from([NodeId::new(1)])).await.unwrap();
        let stop = CancellationToken::new();
        let watch = tokio::spawn(Arc::clone(&groups).watch(stop.clone()));
        propose_until(&consensus, || machine.position().is_some()).await;

        machine.0.lock().fails_next = true;
        propose_until(&consensus, || !groups.ailments().is_empty()).await;
        let ailments = groups.ailments();
        assert!(ailments[0].what.contains("a flush failed"), "{ailments:?}");
        let before = machine.0.lock().failed_after.unwrap();
        propose_until(&consensus, || machine.calls()[before..].contains(&"apply")).await;
        assert_eq!(machine.calls()[before..before + 3], ["snapshot", "install", "apply"]);
        assert!(!groups.suspects.contains(GROUP));
        // It applies a moment before it is told that it runs.
        propose_until(&consensus, || groups.ailments().is_empty()).await;

        // The program ended before that, and starts anew on the same boot.
        stop.cancel();
        watch.await.unwrap();
        groups.suspects.add(GROUP);
        consensus.stop_group(GROUP).await.unwrap();
        let (groups, before) = (open(), machine.calls().len());
        groups.start(GROUP, machine.clone()).await.unwrap();
        assert_eq!(machine.calls()[before..before + 2], ["snapshot", "install"]);
        assert!(!open().suspects.contains(GROUP), "once is enough");
        consensus.shutdown().await.unwrap();
    }
}
