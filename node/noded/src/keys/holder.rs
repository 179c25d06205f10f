//! Shares of this node as its peers see them: handed to members that unlock, taken from who deals.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use holdfast_keyring::{HeldShare, Keyring, ShareStore};
use holdfast_model::NodeId;

use super::KeyWord;

/// Holds this node's shares and the keys unlocked with them.
#[derive(Debug)]
pub struct Holder {
    /// Shares on disk.
    pub store: Arc<ShareStore>,
    /// Keys in memory.
    pub keyring: Arc<Keyring>,
}

impl Holder {
    /// Hands this node's shares to a member. What a member is, its certificate has proven: who was removed
    /// is turned away before it comes here.
    ///
    /// # Errors
    /// When they are sealed under a passphrase that has not been entered.
    pub fn hand_out(&self, to: NodeId) -> Result<Vec<HeldShare>> {
        let shares = self.store.shares().context("no share to give")?;
        tracing::info!(target: "audit", %to, shares = shares.shares().len(), "shares of the root handed to a member");
        Ok(shares.shares().to_vec())
    }

    /// Takes a share of a new splitting; it is durable when this returns.
    ///
    /// # Errors
    /// When it makes no sense, or cannot be kept.
    pub fn take(&self, from: NodeId, share: HeldShare) -> Result<()> {
        ensure!(
            share.threshold > 0 && share.threshold <= share.count && share.x() > 0,
            "a share of a splitting that is none"
        );
        let (split, epoch) = (share.split, share.epoch);
        self.store.add(share).context("keeping a share")?;
        tracing::info!(target: "audit", %from, %split, epoch = epoch.get(), "share of the root taken");
        Ok(())
    }

    /// What this node says of its shares.
    #[must_use]
    pub fn word(&self) -> KeyWord {
        let splits = self.store.shares().ok();
        KeyWord {
            locked: self.keyring.is_locked(),
            protection: self.store.protection().name().to_owned(),
            splits: splits.map(|set| set.shares().iter().map(|share| share.split).collect()),
            epochs: self.keyring.epochs(),
        }
    }
}
