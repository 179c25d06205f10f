//! What nodes ask of each other about membership and keys, beside consensus itself.
//!
//! The leader of the control group tells a node to begin a group anew or that it has left the cluster; a
//! node that lost its log asks any member for a token with which it takes its own place. A node that unlocks
//! asks for shares of the root, and whoever splits it anew deals them.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use holdfast_keyring::HeldShare;
use holdfast_model::{GroupId, NodeId};
use holdfast_peer::{Method, PeerClient, Refusal};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::{admission::Admission, drives::Keeper, groups::Groups, keys::Holder};

/// Version of the encoding, its first byte. Any change of it is a new version. Version 2 added orders about
/// shares behind what version 1 had, version 3 orders about drives.
const VERSION: u8 = 3;

/// The oldest version whose bytes are still read.
const VERSION_MIN: u8 = 1;

/// How long an order may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Code of a refusal: not now, or not understood.
const REFUSED: u16 = 12;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The group counts on the receiver no more: forget its log there and start it empty.
    BeginAnew {
        /// The group.
        group: GroupId,
        /// The [`crate::groups::Ailment`] that was reported.
        ailment: u64,
    },
    /// The receiver has left the cluster.
    Farewell,
    /// The sender lost its log: a token to take its own place with.
    ReplaceMe,
    /// The sender unlocks: the receiver's shares of the root.
    ShareWanted,
    /// A share of a new splitting, to be kept durably.
    TakeShare(HeldShare),
    /// An operator wants a device of the receiver made a drive.
    AdoptDevice {
        /// Its serial number or path.
        device: String,
        /// The serial number again, when what is on it is to be erased.
        erase: Option<String>,
    },
    /// An operator looks for a device of the receiver.
    Locate {
        /// Its serial number, path, or drive.
        device: String,
        /// How long its light blinks; 0: no longer.
        minutes: u32,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// Nothing to do: the ailment is not there (any more).
    Nothing,
    /// A join token. Secret: travels inside TLS only.
    Token(String),
    /// Shares of the root. Secret: travel inside TLS only.
    Shares(Vec<HeldShare>),
}

/// Gives an order and waits for the answer.
///
/// # Errors
/// When the node cannot be reached, refuses, or is of another release.
pub async fn give(peers: &PeerClient, to: NodeId, order: &Order) -> Result<Answer> {
    let body = postcard::to_extend(order, vec![VERSION])?;
    let reply = peers.call(to, Method::Control, Bytes::from(body), None, TIMEOUT).await?;
    decode(&reply.body)
}

fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((VERSION_MIN..=VERSION, rest)) => postcard::from_bytes(rest).context("an order does not parse"),
        Some((version, _)) => bail!("an order of version {version}, this release knows {VERSION}"),
        None => bail!("an empty order"),
    }
}

/// Carries orders out. Parts are put in as they come up.
#[derive(Debug)]
pub struct Orders {
    holder: Arc<Holder>,
    groups: RwLock<Option<Arc<Groups>>>,
    admission: RwLock<Option<Arc<Admission>>>,
    drives: RwLock<Option<Arc<Keeper>>>,
    /// Told when this node has left the cluster.
    pub farewell: Notify,
}

impl Orders {
    /// Orders about shares can be carried out from the start.
    #[must_use]
    pub fn new(holder: Arc<Holder>) -> Self {
        Self {
            holder,
            groups: RwLock::default(),
            admission: RwLock::default(),
            drives: RwLock::default(),
            farewell: Notify::new(),
        }
    }

    /// The groups are up.
    pub fn serve_groups(&self, groups: Arc<Groups>) {
        *self.groups.write() = Some(groups);
    }

    /// Admissions can be made.
    pub fn serve_admission(&self, admission: Arc<Admission>) {
        *self.admission.write() = Some(admission);
    }

    /// Drives are looked after.
    pub fn serve_drives(&self, keeper: Arc<Keeper>) {
        *self.drives.write() = Some(keeper);
    }

    /// Answers `from`.
    ///
    /// # Errors
    /// A refusal that says why.
    pub async fn carry_out(&self, from: NodeId, body: &[u8]) -> Result<Bytes, Refusal> {
        let refused = |error: anyhow::Error| Refusal { code: REFUSED, message: format!("{error:#}") };
        let order: Order = decode(body).map_err(refused)?;
        let answer = self.obey(from, order).await.map_err(refused)?;
        let bytes = postcard::to_extend(&answer, vec![VERSION]).map_err(|error| refused(error.into()))?;
        Ok(Bytes::from(bytes))
    }

    async fn obey(&self, from: NodeId, order: Order) -> Result<Answer> {
        match order {
            Order::BeginAnew { group, ailment } => {
                let groups = self.groups.read().clone().context("the groups are not up yet")?;
                // On a task of its own: a caller that stops waiting must not cut it in half.
                let done = tokio::spawn(async move { groups.begin_anew(group, ailment).await }).await??;
                Ok(if done { Answer::Done } else { Answer::Nothing })
            }
            Order::Farewell => {
                tracing::warn!(%from, "this node has left the cluster");
                self.farewell.notify_one();
                Ok(Answer::Done)
            }
            Order::ReplaceMe => {
                let admission = self.admission.read().clone().context("admissions cannot be made yet")?;
                Ok(Answer::Token(admission.replacement_token(from).await?))
            }
            Order::ShareWanted => Ok(Answer::Shares(self.holder.hand_out(from)?)),
            Order::TakeShare(share) => {
                let holder = Arc::clone(&self.holder);
                // It is flushed before it is answered.
                tokio::task::spawn_blocking(move || holder.take(from, share)).await??;
                Ok(Answer::Done)
            }
            Order::AdoptDevice { device, erase } => {
                let keeper = self.drives.read().clone().context("the drives are not up yet")?;
                keeper.adopt(&device, erase.as_deref())?;
                Ok(Answer::Done)
            }
            Order::Locate { device, minutes } => {
                let keeper = self.drives.read().clone().context("the drives are not up yet")?;
                keeper.locate(&device, minutes)?;
                Ok(Answer::Done)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_keep_their_encoding_and_foreign_ones_are_refused() {
        let order = Order::BeginAnew { group: GroupId::new(3), ailment: 300 };
        let bytes = postcard::to_extend(&order, vec![VERSION]).unwrap();
        assert_eq!(bytes, [3, 0, 3, 0xac, 2]);
        assert_eq!(decode::<Order>(&bytes).unwrap(), order);
        assert_eq!(decode::<Order>(&[1, 0, 3, 0xac, 2]).unwrap(), order);
        assert_eq!(decode::<Order>(&[1, 2]).unwrap(), Order::ReplaceMe);
        assert_eq!(decode::<Order>(&[2, 3]).unwrap(), Order::ShareWanted);
        let locate = Order::Locate { device: "d1".into(), minutes: 5 };
        assert_eq!(decode::<Order>(&[3, 6, 2, b'd', b'1', 5]).unwrap(), locate);
        assert!(decode::<Order>(&[4, 2]).is_err() && decode::<Order>(&[]).is_err());
    }
}
