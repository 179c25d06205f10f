//! Keeps this node's drives in step with the devices that are there and with what the cluster knows of them.
//!
//! Looks every two seconds. What came is probed and judged; what is a drive of the cluster is opened and
//! registered; what is blank waits for an operator, but for the first start of a node, which takes what it
//! finds. What went is closed, and its shards are debt from the next report on.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use holdfast_control::{Command, ControlView, DriveEntry, DriveState as StandingOfDrive, NodeState};
use holdfast_drive::{Drive, DriveIdentity, DriveOptions, DriveState, Probe};
use holdfast_model::{ClusterId, DriveId, NodeId, config::DriveSelection};
use holdfast_store::{DeviceStanding, Health, Shards};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    judge::{Known, Refused, Verdict, judge, stale},
    locate::Locator,
    open::{self, FREE_WITHIN, is_busy, when_free},
    source::{Device, devices},
};
use crate::{
    control::{Control, now},
    identity::write_durably,
};

/// How often devices are looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// How old what was found on a device that is not used may be.
const PROBE_AGE_MAX: Duration = Duration::from_secs(60);

/// Written once a node has drives: blank devices wait for approval from then on.
const SETTLED: &str = "drives.settled";

/// What the keeper works with.
#[derive(Debug)]
pub struct KeeperParts {
    /// Which devices.
    pub selection: DriveSelection,
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub own: NodeId,
    /// How drives are run.
    pub options: DriveOptions,
    /// Where it is noted that this node has had drives.
    pub state_dir: PathBuf,
    /// What the cluster knows of drives.
    pub control: Control,
    /// What other nodes have open.
    pub health: Arc<Health>,
    /// Where open drives go.
    pub shards: Arc<Shards>,
}

/// Looks after this node's drives.
#[derive(Debug)]
pub struct Keeper {
    parts: KeeperParts,
    pub(super) seen: Mutex<BTreeMap<PathBuf, Seen>>,
    pub(super) locator: Arc<Locator>,
    /// Labels of drives that are closed, not yet noted.
    labels: Mutex<BTreeMap<DriveId, u64>>,
    pub(super) stop: CancellationToken,
}

/// A device, and what became of it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) device: Device,
    pub(super) standing: Standing,
    probed: Option<(Probe, Instant)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not looked at yet, or someone had it open.
    New,
    Open(DriveId),
    Waiting,
    Adopting,
    Refused(Refused),
}

impl Keeper {
    /// Knows of no device yet. Closes nothing when `stop` is cancelled, but blinks no longer.
    #[must_use]
    pub fn new(parts: KeeperParts, stop: CancellationToken) -> Self {
        let (seen, labels) = (Mutex::default(), Mutex::default());
        Self { parts, seen, locator: Arc::default(), labels, stop }
    }

    /// Opens what there is when the node starts, and takes what is blank when it never had drives, or when the
    /// configuration names it. Waits for devices that the kernel has not let go of yet.
    ///
    /// # Errors
    /// When it cannot be noted that the node has drives.
    pub async fn begin(&self) -> Result<()> {
        let settled = self.parts.state_dir.join(SETTLED);
        let named = matches!(self.parts.selection, DriveSelection::Paths(_));
        let view = self.parts.control.view().await?;
        self.look(&view, FREE_WITHIN, named || !settled.exists()).await;
        let count = self.parts.shards.local().len();
        if count > 0 && !settled.exists() {
            write_durably(&settled, b"blank devices wait for approval from here on\n", 0o644)?;
        }
        tracing::info!(count, "drives open");
        Ok(())
    }

    /// Keeps looking until cancelled.
    pub async fn run(self: Arc<Self>) {
        let mut tick = tokio::time::interval(INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut untold = true;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let round = async {
                let view = self.parts.control.view().await?;
                self.look(&view, Duration::ZERO, false).await;
                self.announce(&view).await
            };
            let outcome = tokio::select! {
                () = self.stop.cancelled() => return,
                outcome = round => outcome,
            };
            match outcome {
                Ok(()) => untold = true,
                Err(error) if untold => {
                    untold = false;
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "drives not announced yet; will be tried again"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// One look at all devices.
    async fn look(&self, view: &ControlView, patience: Duration, take_blank: bool) {
        let selection = self.parts.selection.clone();
        let Ok(found) = tokio::task::spawn_blocking(move || devices(&selection)).await else { return };
        self.let_go(view, &found).await;
        let unopened = self.take_in(found);
        let mut drives: Vec<(Device, DriveIdentity)> = Vec::new();
        for device in unopened {
            let Some(probe) = self.probe(&device, patience).await else { continue };
            match judge(&probe, self.parts.cluster, |drive| self.know(view, drive)) {
                Verdict::Open(identity) => drives.push((device, identity)),
                Verdict::Blank if take_blank => self.adopt_now(&device, false).await,
                Verdict::Blank => self.stand(&device.path, Standing::Waiting),
                Verdict::Refuse(refused) => self.stand(&device.path, Standing::Refused(refused)),
            }
        }
        // Of two copies the one that is further is the drive.
        drives.sort_by_key(|(_, identity)| Reverse(identity.label_counter));
        for (device, identity) in drives {
            // Again: a copy may have been opened just now.
            match judge(&Probe::Ours(identity), self.parts.cluster, |drive| self.know(view, drive)) {
                Verdict::Open(_) => self.open(&device, patience).await,
                Verdict::Refuse(refused) => self.stand(&device.path, Standing::Refused(refused)),
                Verdict::Blank => {}
            }
        }
    }

    /// Closes drives whose devices went, that have left the cluster, or that turn out to be old images.
    async fn let_go(&self, view: &ControlView, found: &[Device]) {
        for drive in self.parts.shards.local() {
            let (id, status) = (drive.id(), drive.status());
            let there = {
                let seen = self.seen.lock();
                let known = seen.get(&status.path).map(|seen| seen.device.token);
                found.iter().any(|device| device.path == status.path && Some(device.token) == known)
            };
            let record = view.drives.get(&id);
            let further =
                record.map(|record| record.label_counter).filter(|known| *known > status.label_counter);
            let why = if !there {
                "its device is gone"
            } else if record.is_some_and(|record| record.state == StandingOfDrive::Removed) {
                "it has left the cluster"
            } else if let Some(known) = further {
                tracing::error!(drive = %id, "{}", stale(drive.identity(), known));
                "it is an old image"
            } else {
                continue;
            };
            tracing::warn!(drive = %id, path = %status.path.display(), why, "drive closed");
            self.parts.shards.remove(id);
            self.stand(&status.path, Standing::New);
            drive.close().await;
            let last = drive.status();
            if further.is_none() && last.state == DriveState::Closed {
                self.labels.lock().insert(id, last.label_counter);
            }
        }
    }

    /// Takes note of what is there; devices that are not open.
    fn take_in(&self, found: Vec<Device>) -> Vec<Device> {
        let mut seen = self.seen.lock();
        seen.retain(|path, before| {
            let there = found.iter().any(|device| device.path == *path);
            if !there && !matches!(before.standing, Standing::Open(_)) {
                tracing::info!(path = %path.display(), serial = before.device.serial, "device is gone");
            }
            there
        });
        let mut unopened = Vec::new();
        for device in found {
            let fresh = || Seen { device: device.clone(), standing: Standing::New, probed: None };
            let known = seen.entry(device.path.clone()).or_insert_with(fresh);
            if known.device.token != device.token {
                *known = fresh();
            }
            if !matches!(known.standing, Standing::Open(_) | Standing::Adopting) {
                unopened.push(device);
            }
        }
        unopened
    }

    /// What is on a device: read now, or a moment ago.
    async fn probe(&self, device: &Device, patience: Duration) -> Option<Probe> {
        let before = self.seen.lock().get(&device.path).and_then(|seen| seen.probed.clone());
        if let Some((probe, at)) = before
            && at.elapsed() < PROBE_AGE_MAX
        {
            return Some(probe);
        }
        let path = device.path.clone();
        let looked = move || when_free(patience, || open::look(&path));
        match tokio::task::spawn_blocking(looked).await.unwrap_or_else(|error| Err(error.into())) {
            Ok(probe) => {
                if let Some(seen) = self.seen.lock().get_mut(&device.path) {
                    seen.probed = Some((probe.clone(), Instant::now()));
                }
                Some(probe)
            }
            Err(error) => {
                self.unreadable(device, &error);
                None
            }
        }
    }

    /// One that is merely busy is tried again at the next look.
    fn unreadable(&self, device: &Device, error: &anyhow::Error) {
        let reason = if is_busy(error) {
            format!("someone has it open: {error:#}; it is tried again")
        } else {
            format!("it cannot be used: {error:#}; it is tried again")
        };
        let refused = Refused { standing: DeviceStanding::Unreadable, reason, drive: None };
        self.stand(&device.path, Standing::Refused(refused));
    }

    fn know(&self, view: &ControlView, drive: DriveId) -> Known {
        let own = self.parts.own;
        let here = self.parts.shards.local_drive(drive).is_ok().then_some(own);
        // What this node last told of itself may be older than what it has now.
        let elsewhere = self.parts.health.holder(drive).filter(|node| *node != own);
        let record = view.drives.get(&drive);
        let member = |node: &NodeId| {
            let state = view.nodes.get(node).map(|node| node.state);
            matches!(state, Some(NodeState::Active | NodeState::Joining))
        };
        let silent = record
            .map(|record| record.node)
            .filter(|node| *node != own && member(node) && !self.parts.health.is_up(*node));
        Known {
            silent,
            state: record.map(|record| record.state),
            label_counter: record
                .map_or(0, |record| record.label_counter)
                .max(self.labels.lock().get(&drive).copied().unwrap_or(0)),
            open_on: here.or(elsewhere),
        }
    }

    pub(super) fn stand(&self, path: &Path, standing: Standing) {
        let mut seen = self.seen.lock();
        let Some(seen) = seen.get_mut(path) else { return };
        if seen.standing == standing {
            return;
        }
        let (path, serial) = (path.display(), &seen.device.serial);
        match &standing {
            Standing::Waiting => {
                tracing::info!(%path, serial, size = %seen.device.size, "blank device waits for approval")
            }
            Standing::Refused(refused) => {
                tracing::warn!(%path, serial, standing = ?refused.standing, reason = refused.reason, "device not used");
            }
            Standing::New => seen.probed = None,
            Standing::Open(_) | Standing::Adopting => {}
        }
        seen.standing = standing;
    }

    async fn open(&self, device: &Device, patience: Duration) {
        let (path, cluster, options) = (device.path.clone(), self.parts.cluster, self.parts.options.clone());
        let opening = move || when_free(patience, || open::open(&path, cluster, &options));
        self.opened(
            device,
            tokio::task::spawn_blocking(opening).await.unwrap_or_else(|error| Err(error.into())),
        );
    }

    pub(super) async fn adopt_now(&self, device: &Device, erased: bool) {
        let (path, cluster, own) = (device.path.clone(), self.parts.cluster, self.parts.own);
        let options = self.parts.options.clone();
        let adopting = move || when_free(FREE_WITHIN, || open::adopt(&path, cluster, own, erased, &options));
        self.opened(
            device,
            tokio::task::spawn_blocking(adopting).await.unwrap_or_else(|error| Err(error.into())),
        );
    }

    fn opened(&self, device: &Device, outcome: Result<Drive>) {
        match outcome {
            Ok(drive) => {
                self.stand(&device.path, Standing::Open(drive.id()));
                self.parts.shards.add(drive);
            }
            Err(error) => {
                if let Some(seen) = self.seen.lock().get_mut(&device.path) {
                    seen.probed = None;
                }
                self.unreadable(device, &error);
            }
        }
    }

    /// Tells the control group which drives are here and how far their labels have come.
    async fn announce(&self, view: &ControlView) -> Result<()> {
        let mut entries = Vec::new();
        let mut labels = self.labels.lock().clone();
        for drive in self.parts.shards.local() {
            let status = drive.status();
            let entry = DriveEntry {
                drive: status.id,
                path: status.path.display().to_string(),
                capacity: status.capacity,
            };
            let record = view.drives.get(&status.id);
            let unknown = record.is_none_or(|known| {
                known.node != self.parts.own || known.path != entry.path || known.capacity != entry.capacity
            });
            if unknown && record.is_none_or(|known| known.state != StandingOfDrive::Removed) {
                entries.push(entry);
            }
            labels.insert(status.id, status.label_counter);
        }
        labels.retain(|drive, counter| {
            view.drives.get(drive).is_none_or(|record| record.label_counter < *counter)
        });
        if !entries.is_empty() {
            self.decide(&Command::RegisterDrives { node: self.parts.own, drives: entries, at: now() })
                .await?;
        }
        if !labels.is_empty() {
            self.decide(&Command::NoteLabels(labels.into_iter().collect())).await?;
        }
        // What this replica has learned need not be remembered here.
        self.labels.lock().retain(|drive, counter| {
            view.drives.get(drive).is_some_and(|record| record.label_counter < *counter)
        });
        Ok(())
    }

    async fn decide(&self, command: &Command) -> Result<()> {
        self.parts.control.propose(command).await?.map(drop).map_err(|refusal| anyhow!("{refusal}"))
    }
}
