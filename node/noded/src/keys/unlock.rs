//! Puts roots together from shares: this node's own, its peers', or an operator's word.
//!
//! Runs for as long as the node does. A locked node asks all members again and again; one that is unlocked
//! asks when the control state names a root it does not have. Afterwards it lets go of shares and roots that
//! the control state has replaced.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use futures::future::join_all;
use holdfast_admin_api::{LockState, LockStatus, UnlockError, UnlockRequest};
use holdfast_control::{ControlReader, ControlView, NodeState};
use holdfast_keyservice::{
    KeyError,
    protocol::{Closed, RootName},
};
use holdfast_model::{NodeId, config::Unlock};
use holdfast_peer::PeerClient;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::Holder;
use crate::orders::{self, Answer, Order};

/// Pause after the first round of asking; it doubles with each, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(200);

/// Longest pause between two rounds of asking.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often a locked node says in its log what it waits for.
const WORD: Duration = Duration::from_secs(10);

/// Longest passphrase file, in bytes.
const PASSPHRASE_SIZE_MAX: u64 = 4096;

/// The passphrase that the configuration leads to, if it is there now.
///
/// # Errors
/// When its file is there and cannot be used.
pub fn passphrase_of(unlock: &Unlock) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Unlock::Passphrase { file: Some(file) } = unlock else { return Ok(None) };
    read_passphrase(file).with_context(|| format!("passphrase file {}", file.display()))
}

fn read_passphrase(file: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let found = match std::fs::metadata(file) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if found.len() > PASSPHRASE_SIZE_MAX {
        bail!("longer than {PASSPHRASE_SIZE_MAX} bytes");
    }
    let mut text = Zeroizing::new(std::fs::read(file)?);
    while text.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        text.pop();
    }
    if text.is_empty() {
        bail!("empty");
    }
    Ok(Some(text))
}

/// Unlocks this node.
#[derive(Debug)]
pub struct Unlocker {
    /// Shares and keys.
    pub holder: Arc<Holder>,
    /// Links to the others.
    pub peers: PeerClient,
    /// Who they are.
    pub control: ControlReader,
    /// Members a joiner was told of, before it has the control state.
    pub members: Vec<NodeId>,
    /// This node.
    pub own: NodeId,
    /// This node's name.
    pub name: String,
    /// What is known of the way to the root.
    pub state: Mutex<Waiting>,
    /// Told to try at once.
    pub wake: Notify,
}

/// What a locked node has and what it waits for.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    have: u8,
    need: Option<u8>,
    silent: Vec<String>,
}

impl Unlocker {
    /// Asks and lets go until cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut changes = self.control.changes();
        changes.mark_changed();
        // A key service that was started again is locked.
        let mut roots = self.holder.keyring.changes();
        let mut word = tokio::time::interval(WORD);
        word.tick().await;
        let mut pause = PAUSE;
        loop {
            let complete = match self.round().await {
                Ok(complete) => complete,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "unlocking; will be tried again");
                    false
                }
            };
            if complete {
                pause = PAUSE;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                changed = changes.changed() => if changed.is_err() { return },
                changed = roots.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause), if !complete => pause = PAUSE_MAX.min(pause * 2),
                _ = word.tick(), if !complete => {
                    tracing::warn!(waits_for = self.status().detail, "this node is locked");
                }
            }
        }
    }

    /// Waits until a root is here.
    ///
    /// # Errors
    /// When stopped.
    pub async fn unlocked(&self, stop: &CancellationToken) -> Result<()> {
        let mut changes = self.holder.keyring.changes();
        loop {
            if !self.holder.keyring.is_locked() {
                return Ok(());
            }
            tokio::select! {
                () = stop.cancelled() => bail!("stopped while locked"),
                changed = changes.changed() => changed.context("the keyring is gone")?,
            }
        }
    }

    /// One round: whether nothing is missing now.
    async fn round(&self) -> Result<bool> {
        let reader = self.control.clone();
        let view =
            tokio::task::spawn_blocking(move || reader.view()).await?.context("reading the control state")?;
        let keyring = &self.holder.keyring;
        self.open_own().await?;
        let missing = |view: &ControlView| {
            keyring.is_locked() || view.keys.roots.iter().any(|root| !keyring.has(root.epoch, root.root))
        };
        if missing(&view) {
            let was_locked = keyring.is_locked();
            self.gather(&view).await?;
            if was_locked && !keyring.is_locked() {
                tracing::info!(target: "audit", epochs = ?keyring.epochs(), "unlocked");
                self.open_own().await?;
            }
        }
        self.let_go(&view)?;
        Ok(!missing(&view))
    }

    /// Has the TPM open this node's shares, when it is a TPM that keeps them closed. When it is another TPM than
    /// theirs and the root is here all the same, they are of no use any more: an empty set is begun, and the
    /// steward deals this node a new share.
    async fn open_own(&self) -> Result<()> {
        let Some(Closed::Tpm { is_other, .. }) = self.holder.keyring.state().closed else { return Ok(()) };
        let begins = is_other && !self.holder.keyring.is_locked();
        if is_other && !begins {
            return Ok(());
        }
        let keyring = Arc::clone(&self.holder.keyring);
        // A chip takes up to a second.
        let anew = tokio::task::spawn_blocking(move || {
            if begins { keyring.begin_anew() } else { keyring.ask_tpm().map(|()| false) }
        });
        if anew.await?.context("this node's shares and its TPM")? {
            tracing::warn!(
                target: "audit",
                "the shares of this node are sealed to another TPM; it will take a new share under this one"
            );
        }
        Ok(())
    }

    async fn gather(&self, view: &ControlView) -> Result<()> {
        let keyring = &self.holder.keyring;
        let named = named_roots(view);
        // This node's own may be enough.
        let mut progress = keyring.gather(Vec::new(), named.clone())?;
        let wanted = |view: &ControlView| {
            keyring.is_locked() || view.keys.roots.iter().any(|root| !keyring.has(root.epoch, root.root))
        };
        let mut silent = Vec::new();
        if wanted(view) {
            let others = view.nodes.values().filter(|node| node.state != NodeState::Removed);
            let others: BTreeSet<NodeId> =
                others.map(|node| node.node).chain(self.members.iter().copied()).collect();
            let asked = others.into_iter().filter(|node| *node != self.own).map(|node| async move {
                (node, orders::give(&self.peers, node, &Order::ShareWanted).await)
            });
            let mut gathered = Vec::new();
            for (node, answer) in join_all(asked).await {
                match answer {
                    Ok(Answer::Shares(shares)) => gathered.extend(shares),
                    other => {
                        tracing::debug!(%node, ?other, "no share");
                        let name = view.nodes.get(&node).map(|record| record.name.clone());
                        silent.push(name.unwrap_or_else(|| node.to_string()));
                    }
                }
            }
            progress = keyring.gather(gathered, named)?;
        }
        let (have, need) = progress.map_or((0, None), |(have, need)| (have, Some(need)));
        *self.state.lock() = Waiting { have, need, silent };
        Ok(())
    }

    fn let_go(&self, view: &ControlView) -> Result<()> {
        let_go(&self.holder, view)
    }

    /// What this node has and what it waits for.
    #[must_use]
    pub fn status(&self) -> LockStatus {
        let waiting = self.state.lock().clone();
        let seal = self.holder.keyring.state().closed;
        let locked = self.holder.keyring.is_locked();
        LockStatus {
            node: self.name.clone(),
            state: if locked { LockState::Locked } else { LockState::Unlocked },
            passphrase_wanted: locked && seal == Some(Closed::Passphrase),
            shares: waiting.have,
            shares_needed: waiting.need,
            detail: if locked { detail(&waiting, seal.as_ref()) } else { "Unlocked.".to_owned() },
        }
    }

    /// Unlocks with what an operator knows.
    ///
    /// # Errors
    /// When it does not unlock.
    pub async fn unlock_with(self: Arc<Self>, request: UnlockRequest) -> Result<LockStatus, UnlockError> {
        let this = Arc::clone(&self);
        // argon2id takes its time.
        let tried = tokio::task::spawn_blocking(move || this.try_with(&request)).await;
        let refused = tried.map_err(|error| UnlockError::Failed(error.to_string()))?;
        if let Err(error) = &refused {
            tracing::warn!(target: "audit", %error, "unlocking by an operator was refused");
        }
        refused?;
        tracing::info!(target: "audit", "an operator's passphrase or recovery shares were accepted");
        self.wake.notify_one();
        Ok(self.status())
    }

    fn try_with(&self, request: &UnlockRequest) -> Result<(), UnlockError> {
        let keyring = &self.holder.keyring;
        let outcome = match request {
            UnlockRequest::Passphrase(passphrase) => keyring.unseal(passphrase.as_bytes()),
            UnlockRequest::RecoveryShares(shares) => {
                let view = self.control.view().map_err(|error| UnlockError::Failed(error.to_string()))?;
                keyring.recover(shares, named_roots(&view))
            }
        };
        outcome.map_err(|error| match error {
            KeyError::WrongPassphrase | KeyError::Unfit(_) => UnlockError::Refused(error.to_string()),
            other => UnlockError::Failed(other.to_string()),
        })
    }
}

/// What a locked node has, and what it waits for, for people.
fn detail(waiting: &Waiting, seal: Option<&Closed>) -> String {
    let silent = if waiting.silent.is_empty() {
        String::new()
    } else {
        format!(" No share from {}.", waiting.silent.join(", "))
    };
    match seal {
        Some(Closed::Passphrase) => {
            "Waits for this node's passphrase, for enough other nodes, or for operators' recovery shares."
                .to_owned()
        }
        Some(Closed::Tpm { why, .. }) => format!(
            "This node's own share stays closed: {why}. Waits for enough other nodes, or for operators' \
             recovery shares.{silent}"
        ),
        None => {
            let need = waiting.need.map_or_else(|| "enough".to_owned(), |need| need.to_string());
            format!(
                "Has {} of {need} shares of the root key; waits for other nodes to start, or for operators' \
                 recovery shares.{silent}",
                waiting.have
            )
        }
    }
}

/// The roots that the control state names; none before it is there, and then any will do.
pub(super) fn named_roots(view: &ControlView) -> Vec<RootName> {
    view.keys.roots.iter().map(|root| (root.epoch, root.root)).collect()
}

/// Lets go of what the control state has replaced. A root newer than any it names is on its way.
pub(super) fn let_go(holder: &Holder, view: &ControlView) -> Result<()> {
    let Some(current) = view.keys.current() else { return Ok(()) };
    if !holder.keyring.has(current.epoch, current.root) {
        return Ok(());
    }
    let epochs = view.keys.roots.iter().map(|root| root.epoch).collect();
    holder.keyring.settle(view.keys.splits(), epochs, current.epoch).context("letting old shares go")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_file_is_read_without_its_line_end_and_may_be_absent() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("passphrase");
        let unlock = Unlock::Passphrase { file: Some(file.clone()) };
        assert!(passphrase_of(&unlock).unwrap().is_none());
        assert!(passphrase_of(&Unlock::File).unwrap().is_none());
        std::fs::write(&file, "correct horse\r\n").unwrap();
        assert_eq!(passphrase_of(&unlock).unwrap().unwrap().as_slice(), b"correct horse");
        std::fs::write(&file, "\n").unwrap();
        assert!(passphrase_of(&unlock).is_err());
    }
}
