//! Links to peers. Peers find this node while it starts.

use std::sync::Arc;

use anyhow::{Context, Result};
use holdfast_peer::{PeerClient, PeerServer, pki::PeerIdentity};

use super::{base::Base, listen::when_free};
use crate::{links::NodeService, orders::Orders};

/// See the module.
pub struct Links {
    /// What peers may tell this node to do.
    pub orders: Arc<Orders>,
    /// What this node answers; its parts come up one after the other.
    pub service: Arc<NodeService>,
    /// Where peers come in.
    pub server: Arc<PeerServer>,
    /// Where this node asks them.
    pub peers: PeerClient,
}

impl Links {
    /// Listens for peers.
    ///
    /// # Errors
    /// When this node's certificate is no good, or the address cannot be had.
    pub async fn open(base: &Base) -> Result<Self> {
        let (own, listen) = (base.own(), base.config.listen.peer);
        let orders = Arc::new(Orders::new(Arc::clone(&base.holder)));
        let service =
            Arc::new(NodeService::new(own, base.name(), Arc::clone(&orders), Arc::clone(&base.holder)));
        let credentials = base.credentials.clone();
        let identity = PeerIdentity::new(credentials.ca, credentials.certificate, credentials.key)
            .context("this node's peer certificate")?;
        let server = when_free(|| {
            PeerServer::bind(listen, &identity, Arc::clone(&service) as _, base.pools.peer.clone())
        })
        .await
        .with_context(|| format!("listening for peers on {listen}"))?;
        let peers = PeerClient::new(identity, base.pools.drive.clone());
        for (node, address) in base.members.iter().filter(|(node, _)| *node != own) {
            peers.set_address(*node, *address);
        }
        Ok(Self { orders, service, server: Arc::new(server), peers })
    }
}
