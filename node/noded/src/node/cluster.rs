//! The cluster that this node is a member of: founded, or waited for until this replica holds it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use holdfast_keyring::ShareStore;
use holdfast_keyservice::Client;
use holdfast_model::{GroupId, NodeId};
use holdfast_peer::pki::{Ca, Certificate, PrivateKey};
use tokio_util::sync::CancellationToken;

use super::{STARTING_POLL, addresses::announce, base::Base, links::Links, replicas::Replicas};
use crate::{
    admission::Admission,
    control::Control,
    features,
    founding::{CA_KEY, FIRST_NODE, SESSION_KEY, found},
    orders::Orders,
    readmission, tenants,
};

/// How often a starting node says what it waits for.
const STARTING_WORD: Duration = Duration::from_secs(10);

/// What members share.
pub struct Cluster {
    /// Signs certificates.
    pub ca: Arc<Ca>,
    /// Signs sessions of operators.
    pub session_key: [u8; 32],
}

impl Cluster {
    /// Founds the cluster where this node is to, waits for its state, and tells it where this node is.
    ///
    /// # Errors
    /// When this program is too old for it, or this node is stopped while it waits.
    pub async fn enter(base: &mut Base, links: &Links, replicas: &Replicas) -> Result<Self> {
        let (own, control) = (base.own(), &replicas.control);
        let control_runs = replicas.consensus.status(GroupId::CONTROL).is_some();
        if own == FIRST_NODE && base.config.bootstrap.is_some() && control_runs {
            found(&base.config, &base.credentials.identity, &replicas.consensus, control, &base.holder)
                .await
                .context("founding the cluster")?;
        }
        let ca = wait_for_cluster(control, &base.keyring, &base.credentials.ca, &base.stop).await?;
        let ca = Arc::new(ca);
        let level = features::level(base.config.feature_level_max);
        features::check(&control.view().await?, level)?;
        let consensus = Arc::clone(&replicas.consensus);
        base.tasks.spawn(features::run(control.clone(), consensus, own, level, base.stop.clone()));
        let session_key = open_session_key(control, &base.keyring).await?;
        let admission = Arc::new(Admission::new(base.cluster(), control.clone(), Arc::clone(&ca)));
        links.orders.serve_admission(Arc::clone(&admission));
        links.server.set_join_authority(admission);
        let (orders, state_dir) = (Arc::clone(&links.orders), base.config.state_dir.clone());
        base.tasks.spawn(leave_when_told(orders, state_dir, own, base.stop.clone()));
        base.tasks.spawn(announce(control.clone(), base.config.clone(), own, base.stop.clone()));
        Ok(Self { ca, session_key })
    }
}

/// Stops this node for good once it is told that it has left the cluster.
async fn leave_when_told(orders: Arc<Orders>, state_dir: PathBuf, own: NodeId, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => return,
        () = orders.farewell.notified() => {}
    }
    match readmission::note_removed(&state_dir, own).and_then(|()| Ok(ShareStore::remove(&state_dir)?)) {
        Ok(()) => stop.cancel(),
        Err(error) => tracing::error!(error = format!("{error:#}"), "removed, and it could not be noted"),
    }
}

/// Waits until this replica holds the founded cluster and this node may sign; returns the CA.
async fn wait_for_cluster(
    control: &Control,
    keyring: &Client,
    certificate: &Certificate,
    stop: &CancellationToken,
) -> Result<Ca> {
    let mut word = tokio::time::interval(STARTING_WORD);
    word.tick().await;
    loop {
        let view = control.view().await?;
        tenants::learn(&view, keyring);
        if let Some(sealed) = view.secrets.get(CA_KEY)
            && view.secrets.contains_key(SESSION_KEY)
            && keyring.has_cluster_key()
        {
            let key = keyring.open_secret(CA_KEY, sealed).context("the CA's key")?;
            return Ca::from_der(certificate.clone(), PrivateKey::from_der(key)).context("the CA's key");
        }
        tokio::select! {
            () = stop.cancelled() => bail!("stopped while waiting for the cluster's state"),
            () = tokio::time::sleep(STARTING_POLL) => {}
            _ = word.tick() => tracing::info!("waiting for the cluster's state from its other nodes"),
        }
    }
}

async fn open_session_key(control: &Control, keyring: &Client) -> Result<[u8; 32]> {
    let view = control.view().await?;
    let sealed = view.secrets.get(SESSION_KEY).context("the session key")?;
    let key = keyring.open_secret(SESSION_KEY, sealed).context("the session key")?;
    key.try_into().map_err(|_| anyhow::anyhow!("the session key has another length"))
}
