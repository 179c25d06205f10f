//! Shares of this node as its peers see them: handed to members that unlock, taken from who deals.

use std::sync::Arc;

use anyhow::{Context, Result};
use holdfast_keyring::HeldShare;
use holdfast_keyservice::Client;
use holdfast_model::NodeId;

use super::KeyWord;

/// The way to this node's shares and the keys unlocked with them: its key service.
#[derive(Debug)]
pub struct Holder {
    /// The key service.
    pub keyring: Arc<Client>,
}

impl Holder {
    /// Hands this node's shares to a member. What a member is, its certificate has proven: who was removed
    /// is turned away before it comes here.
    ///
    /// # Errors
    /// When they are sealed under a passphrase that has not been entered.
    pub fn hand_out(&self, to: NodeId) -> Result<Vec<HeldShare>> {
        self.keyring.hand_out(to).context("no share to give")
    }

    /// Takes a share of a new splitting; it is durable when this returns.
    ///
    /// # Errors
    /// When it makes no sense, or cannot be kept.
    pub fn take(&self, from: NodeId, share: HeldShare) -> Result<()> {
        self.keyring.take_share(from, share).context("keeping a share")
    }

    /// What this node says of its shares.
    #[must_use]
    pub fn word(&self) -> KeyWord {
        let state = self.keyring.state();
        KeyWord {
            locked: state.roots.is_empty(),
            protection: state.protection,
            splits: state.shares.map(|shares| shares.into_iter().map(|(split, _)| split).collect()),
            epochs: state.roots.into_iter().map(|(epoch, _)| epoch).collect(),
        }
    }
}
