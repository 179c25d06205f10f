//! Lets nodes in: judges a join request by its token, gives it a number and a certificate. The root it then
//! unlocks as every member does, from the members' shares.

use std::sync::Arc;

use anyhow::{Context, Result};
use holdfast_control::{Command, NodeState, RegisterNode, Response, ServiceAddresses};
use holdfast_model::{ClusterId, NodeId, UnixMillis};
use holdfast_peer::{
    Refusal,
    join::{JoinAuthority, JoinGrant, JoinRequest, JoinToken, code},
    pki::Ca,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::control::{Control, now};

/// Life of a token that a node takes its own place with: it is used at once.
const REPLACEMENT_TOKEN_MILLIS: u64 = 10 * 60 * 1000;

/// What a node is given beside its certificate. Travels inside the TLS session of its admission.
#[derive(Serialize, Deserialize)]
pub struct GrantExtras {
    /// Catalog groups of the cluster.
    pub catalog_groups: u32,
}

impl GrantExtras {
    /// Reads the opaque part of a grant.
    ///
    /// # Errors
    /// When the peer is of another release.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        postcard::from_bytes(bytes).context("the grant does not parse; is the peer of another release?")
    }
}

/// Admits nodes on behalf of the cluster.
#[derive(Debug)]
pub struct Admission {
    cluster: ClusterId,
    control: Control,
    ca: Arc<Ca>,
}

impl Admission {
    /// Signs with `ca` and asks the control group about tokens.
    #[must_use]
    pub fn new(cluster: ClusterId, control: Control, ca: Arc<Ca>) -> Self {
        Self { cluster, control, ca }
    }

    /// A join token for the node that takes the place of `node`, which lost its log.
    ///
    /// # Errors
    /// When the control group refuses or does not decide.
    pub async fn replacement_token(&self, node: NodeId) -> Result<String> {
        let token = JoinToken::generate(self.ca.fingerprint()).context("making a join token")?;
        let expires = UnixMillis::new(now().get().saturating_add(REPLACEMENT_TOKEN_MILLIS));
        let command = Command::CreateReplacementToken { hash: token.secret_hash(), expires, node };
        self.control.propose(&command).await?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        tracing::warn!(target: "audit", %node, "the node lost its log; it gets a token for a new identity");
        Ok(token.reveal())
    }

    async fn judge(&self, request: JoinRequest) -> Result<Result<JoinGrant, Refusal>> {
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(&request.certificate_request)[..16]);
        let register = RegisterNode {
            request: id,
            name: request.name.clone(),
            peer: request.advertise_peer,
            services: ServiceAddresses {
                s3: request.services.s3.to_string(),
                admin: request.services.admin.to_string(),
                metrics: request.services.metrics.to_string(),
            },
            token_hash: request.secret_hash(),
            at: now(),
        };
        let node = match self.control.propose(&Command::RegisterNode(register)).await? {
            Ok(Response::Registered(node)) => node,
            Ok(other) => anyhow::bail!("the control group answered {other:?}"),
            Err(refusal) => return Ok(Err(Refusal::new(code_of(&refusal), refusal.to_string()))),
        };
        let certificate = self
            .ca
            .issue_peer(&request.certificate_request, node, holdfast_clock::system_time())
            .context("signing its certificate")?;
        let view = self.control.view().await?;
        let catalog_groups = view.cluster.as_ref().map(|c| c.catalog_groups).context("no cluster yet")?;
        let extras = GrantExtras { catalog_groups };
        tracing::info!(target: "audit", %node, name = request.name, peer = %request.advertise_peer, "node admitted");
        Ok(Ok(JoinGrant {
            cluster: self.cluster,
            node,
            ca: self.ca.certificate().clone(),
            certificate,
            members: view
                .nodes
                .values()
                .filter(|member| member.state != NodeState::Removed)
                .map(|member| (member.node, member.peer))
                .collect(),
            extras: postcard::to_stdvec(&extras)?,
        }))
    }
}

fn code_of(refusal: &holdfast_control::Refusal) -> u16 {
    use holdfast_control::Refusal as Said;
    match refusal {
        Said::TokenUnknown | Said::TokenExpired | Said::TokenUsed(_) => code::TOKEN,
        Said::NameTaken { .. } => code::NAME_TAKEN,
        Said::NoCluster => code::NOT_READY,
        _ => code::BAD_REQUEST,
    }
}

#[async_trait::async_trait]
impl JoinAuthority for Admission {
    async fn admit(&self, request: JoinRequest) -> Result<JoinGrant, Refusal> {
        let name = request.name.clone();
        match self.judge(request).await {
            Ok(Ok(grant)) => Ok(grant),
            Ok(Err(refusal)) => {
                tracing::warn!(target: "audit", name, why = refusal.message, "node not admitted");
                Err(refusal)
            }
            Err(error) => {
                tracing::error!(
                    name,
                    error = format!("{error:#}"),
                    "admission failed; the node will ask again"
                );
                Err(Refusal::new(code::NOT_READY, format!("{error:#}")))
            }
        }
    }
}
