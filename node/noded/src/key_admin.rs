//! Answers the admin API about keys.

use std::sync::Arc;

use holdfast_admin_api::{
    AdminError, KeyAdmin, KeysStatus, LockStatus, RecoveryShares, RecoveryStatus, Secret, ShareHolder,
};
use holdfast_control::{Command, KeyCommand, NodeState, RecoveryRecord};
use holdfast_keyring::certificate::show_public_key;
use holdfast_keyservice::KeyError;
use holdfast_store::Health;

use crate::{
    admin::{RETRY_AFTER, internal, refused, unavailable},
    control::now,
    keys::{KeySteward, RollError, Unlocker, roll_root, rotate_tenant},
};

/// The admin API's view of the keys.
#[derive(Debug)]
pub struct Keys {
    /// Splits roots and deals shares.
    pub steward: Arc<KeySteward>,
    /// The way to the root.
    pub unlocker: Arc<Unlocker>,
    /// Who answers.
    pub health: Arc<Health>,
}

fn rolled(error: RollError) -> AdminError {
    match error {
        RollError::Unfinished { .. } => AdminError::Conflict { what: error.to_string() },
        RollError::NoTenant => AdminError::NotFound { what: "the tenant".to_owned() },
        RollError::Refused(refusal) => refused(&refusal),
        RollError::Undecided(error) => unavailable(&error),
    }
}

impl Keys {
    async fn decide(&self, command: KeyCommand) -> Result<(), AdminError> {
        let outcome = self.steward.control.propose(&Command::Keys(command)).await;
        outcome.map_err(|error| unavailable(&error))?.map(drop).map_err(|refusal| refused(&refusal))
    }
}

#[async_trait::async_trait]
impl KeyAdmin for Keys {
    fn lock(&self) -> LockStatus {
        self.unlocker.status()
    }

    async fn status(&self) -> Result<KeysStatus, AdminError> {
        let view = self
            .steward
            .control
            .view()
            .await
            .map_err(|error| internal("reading the control state", error))?;
        let Some(current) = view.keys.current() else {
            return Err(AdminError::Unavailable {
                what: "this node has not received the cluster's keys yet".to_owned(),
                retry_after: RETRY_AFTER,
            });
        };
        let nodes = view.nodes.values().filter(|node| node.state != NodeState::Removed).map(|node| {
            let word = self.steward.watch.of(node.node).filter(|_| self.health.is_up(node.node));
            ShareHolder {
                node: node.name.clone(),
                has_share: word.as_ref().and_then(|word| {
                    word.splits.as_ref().map(|held| held.contains(&current.splitting.split))
                }),
                protection: word.as_ref().map(|word| word.protection.clone()),
                locked: word.as_ref().map(|word| word.locked),
            }
        });
        let recovery = view.keys.recovery.last().map(|record| RecoveryStatus {
            issued_unix_ms: record.at,
            threshold: record.threshold,
            shares: record.count,
            valid: record.epoch == current.epoch,
        });
        Ok(KeysStatus {
            root_epoch: current.epoch.get(),
            root_id: current.root,
            since_unix_ms: current.since,
            retiring: view.keys.roots.iter().rev().skip(1).map(|root| root.epoch.get()).collect(),
            threshold: current.splitting.threshold,
            threshold_wanted: view.keys.threshold,
            nodes: nodes.collect(),
            certificate_key: show_public_key(
                &self
                    .unlocker
                    .holder
                    .keyring
                    .certificate_key()
                    .map_err(|error| internal("the certificate key", error.into()))?,
            ),
            recovery,
        })
    }

    async fn set_threshold(&self, threshold: Option<u8>) -> Result<(), AdminError> {
        let view = self
            .steward
            .control
            .view()
            .await
            .map_err(|error| internal("reading the control state", error))?;
        let members = view.nodes.values().filter(|node| node.state == NodeState::Active).count();
        if threshold.is_some_and(|threshold| usize::from(threshold) > members) {
            return Err(AdminError::Conflict {
                what: format!("The cluster has {members} nodes: more shares than that cannot be wanted."),
            });
        }
        self.decide(KeyCommand::SetThreshold(threshold)).await
    }

    async fn issue_recovery(&self, threshold: u8, shares: u8) -> Result<RecoveryShares, AdminError> {
        let issued = self.unlocker.holder.keyring.issue_recovery(threshold, shares);
        let issued = issued.map_err(|error| match error {
            KeyError::Crypt(what) => AdminError::Invalid { what },
            other => internal("splitting the root", other.into()),
        })?;
        let (epoch, root_id) = issued.root;
        let record = RecoveryRecord { at: now(), set: issued.set, epoch, threshold, count: shares };
        // On record before they are shown.
        self.decide(KeyCommand::NoteRecovery(record)).await?;
        tracing::warn!(target: "audit", threshold, shares, epoch = epoch.get(), "recovery shares given out");
        let text = |share: &holdfast_keyservice::protocol::Hidden| {
            String::from_utf8(share.expose().to_vec())
                .map_err(|error| internal("a recovery share", error.into()))
        };
        let shares: Result<Vec<String>, AdminError> = issued.shares.iter().map(text).collect();
        Ok(RecoveryShares {
            threshold,
            root_epoch: epoch.get(),
            root_id,
            shares: shares?.into_iter().map(Secret::new).collect(),
        })
    }

    async fn rotate_root(&self) -> Result<(), AdminError> {
        roll_root(&self.steward).await.map(drop).map_err(rolled)
    }

    async fn rotate_tenant(&self, tenant: &str) -> Result<(), AdminError> {
        let keyring = &self.unlocker.holder.keyring;
        rotate_tenant(&self.steward.control, keyring, tenant).await.map(drop).map_err(rolled)
    }
}
