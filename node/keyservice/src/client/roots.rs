//! Roots and their shares, and the cluster key that a root wraps.

use holdfast_keyring::HeldShare;
use holdfast_model::{NodeId, RootEpoch, SplitId, TenantId};

use super::{Client, odd};
use crate::protocol::{Hidden, Issued, KeyError, Reply, Request, Rolled, RootName};

impl Client {
    /// Makes the first root of a cluster; its only share is durable when this returns.
    ///
    /// # Errors
    /// `Store`, `Away`.
    pub fn found(&self) -> Result<(), KeyError> {
        self.change(Request::Found)
    }

    /// Puts roots together from this node's shares and these; with names, only those. Returns how many shares are
    /// there and how many are needed, of the splitting nearest to its end.
    ///
    /// # Errors
    /// `Away`.
    pub fn gather(&self, shares: Vec<HeldShare>, named: Vec<RootName>) -> Result<Option<(u8, u8)>, KeyError> {
        match self.ask(Request::Gather { shares, named })? {
            Reply::Gathered { progress, state } => {
                self.known.learn(*state);
                Ok(progress)
            }
            other => Err(odd(&other)),
        }
    }

    /// Opens the shares with a passphrase.
    ///
    /// # Errors
    /// `WrongPassphrase`, `Store`, `Away`.
    pub fn unseal(&self, passphrase: &[u8]) -> Result<(), KeyError> {
        self.change(Request::Unseal(Hidden::of(passphrase)))
    }

    /// Has the TPM open the shares.
    ///
    /// # Errors
    /// `Store`, `Away`.
    pub fn ask_tpm(&self) -> Result<(), KeyError> {
        self.change(Request::AskTpm)
    }

    /// Begins an empty set of shares where another TPM holds what was there; whether that was so.
    ///
    /// # Errors
    /// `Store`, `Away`.
    pub fn begin_anew(&self) -> Result<bool, KeyError> {
        match self.ask(Request::BeginAnew)? {
            Reply::Anew(begun, state) => {
                self.known.learn(*state);
                Ok(begun)
            }
            other => Err(odd(&other)),
        }
    }

    /// Puts a root together from operators' shares: one of those named.
    ///
    /// # Errors
    /// `Unfit`, `Away`.
    pub fn recover(&self, shares: &[impl AsRef<str>], named: Vec<RootName>) -> Result<(), KeyError> {
        let shares = shares.iter().map(|share| Hidden::of(share.as_ref().as_bytes())).collect();
        self.change(Request::Recover { shares, named })
    }

    /// Lets shares and roots go that were replaced. Roots newer than `current` stay.
    ///
    /// # Errors
    /// `Store`, `Away`.
    pub fn settle(
        &self,
        splits: Vec<SplitId>,
        epochs: Vec<RootEpoch>,
        current: RootEpoch,
    ) -> Result<(), KeyError> {
        self.change(Request::Settle { splits, epochs, current })
    }

    /// This node's shares, for a member.
    ///
    /// # Errors
    /// `Sealed`, `Away`.
    pub fn hand_out(&self, to: NodeId) -> Result<Vec<HeldShare>, KeyError> {
        self.shares_for(Request::HandOut { to })
    }

    /// Keeps a share; it is durable when this returns.
    ///
    /// # Errors
    /// `Unfit`, `Sealed`, `Store`, `Away`.
    pub fn take_share(&self, from: NodeId, share: HeldShare) -> Result<(), KeyError> {
        self.change(Request::TakeShare { from, share })
    }

    /// Makes a root that is to take the current one's place.
    ///
    /// # Errors
    /// `Away`.
    pub fn begin_root(&self, epoch: RootEpoch) -> Result<RootName, KeyError> {
        match self.ask(Request::BeginRoot(epoch))? {
            Reply::SealedBy(name, _) => Ok(name),
            other => Err(odd(&other)),
        }
    }

    /// Deals a root, one that is here or was begun, to members.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Away`.
    pub fn deal(
        &self,
        epoch: RootEpoch,
        split: SplitId,
        replaces: Option<SplitId>,
        threshold: u8,
        count: u8,
    ) -> Result<Vec<HeldShare>, KeyError> {
        self.shares_for(Request::Deal { epoch, split, replaces, threshold, count })
    }

    /// Wraps everything under the root that was begun.
    ///
    /// # Errors
    /// `Locked`, `NoClusterKey`, `Crypt`, `Refused`, `Away`.
    pub fn roll(&self, epoch: RootEpoch, tenants: Vec<(TenantId, Vec<u8>)>) -> Result<Rolled, KeyError> {
        match self.ask(Request::Roll { epoch, tenants })? {
            Reply::Rolled(rolled, state) => {
                self.known.learn(*state);
                Ok(rolled)
            }
            other => Err(odd(&other)),
        }
    }

    /// Makes a cluster key, wrapped under the current root.
    ///
    /// # Errors
    /// `Locked`, `Away`.
    pub fn make_cluster_key(&self) -> Result<(RootName, Vec<u8>), KeyError> {
        match self.ask(Request::MakeClusterKey)? {
            Reply::SealedBy(name, wrapped) => Ok((name, wrapped)),
            other => Err(odd(&other)),
        }
    }

    /// Tells the service what the control state says: the current epoch and the wrapped cluster key.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Away`.
    pub fn learn(&self, current: RootEpoch, wrapped: &[u8]) -> Result<(), KeyError> {
        self.change(Request::Learn { current, cluster_key: wrapped.to_vec() })
    }

    /// Splits the current root for operators.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Away`.
    pub fn issue_recovery(&self, threshold: u8, count: u8) -> Result<Issued, KeyError> {
        match self.ask(Request::IssueRecovery { threshold, count })? {
            Reply::Issued(issued) => Ok(issued),
            other => Err(odd(&other)),
        }
    }
}
