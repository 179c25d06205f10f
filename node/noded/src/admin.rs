//! Answers the admin API from the control state, the nodes' reports and consensus.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use holdfast_admin_api::{
    AccountStatus, AdminBackend, AdminError, AilingReplica, Capacity, ClusterStatus, CreatedAccount,
    CreatedTenant, DriveStatus, GroupStatus, JoinTokenInfo, KeyAdmin, LevelStatus, NodeState, NodeStatus,
    OperatorRecord, Readiness, Role, Secret, ServiceUrls, StripeShape, TenantStanding, TenantStatus,
    WorkStatus,
};
use holdfast_consensus::Consensus;
use holdfast_control::{Command, ControlView, DriveState as StandingOfDrive, Refusal, TenantState};
use holdfast_gateway_s3::identities::Identities as _;
use holdfast_keyservice::Client;
use holdfast_model::{ByteCount, DriveId, GroupId, Level, NodeId, UnixMillis};
use holdfast_object::ObjectService;
use holdfast_peer::{PeerClient, join::JoinToken, pki::Ca};
use holdfast_store::Health;

use crate::{
    comparison::Comparison,
    control::{Control, now},
    drive_admin::{device_status, drive_status},
    drives::Keeper,
    external_keys::ExternalKeys,
    groups::Ward,
    identities::NodeIdentities,
    key_admin::Keys,
    tenants, work,
};

/// What an operator is told to wait when there is no quorum.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The admin API's view of this node.
#[derive(Debug)]
pub struct Admin {
    /// This node's name.
    pub name: String,
    /// The control group.
    pub control: Control,
    /// All groups.
    pub consensus: Arc<Consensus>,
    /// Who answers.
    pub health: Arc<Health>,
    /// Which groups do not run where.
    pub ward: Arc<Ward>,
    /// Whether states of groups are those of other nodes.
    pub comparison: Arc<Comparison>,
    /// Keys.
    pub keyring: Arc<Client>,
    /// The cluster's CA, for the fingerprint in join tokens.
    pub ca: Arc<Ca>,
    /// Signs sessions; the same on all nodes.
    pub session_key: [u8; 32],
    /// Objects, for their workers.
    pub objects: Arc<ObjectService>,
    /// Keys of the cluster.
    pub keys: Keys,
    /// Services of tenants' external keys.
    pub external_keys: Arc<ExternalKeys>,
    /// Identities, as gateways see them.
    pub identities: Arc<NodeIdentities>,
    /// Links to the other nodes.
    pub peers: PeerClient,
    /// This node's drives.
    pub keeper: Arc<Keeper>,
    /// This node.
    pub own: NodeId,
}

pub(crate) fn internal(doing: &str, error: anyhow::Error) -> AdminError {
    AdminError::Internal { doing: doing.to_owned(), source: error.into() }
}

pub(crate) fn unavailable(error: &anyhow::Error) -> AdminError {
    AdminError::Unavailable { what: format!("{error:#}"), retry_after: RETRY_AFTER }
}

pub(crate) fn refused(refusal: &Refusal) -> AdminError {
    match refusal {
        Refusal::NameTaken { .. } => AdminError::Conflict { what: refusal.to_string() },
        Refusal::NotFound { what, name } => AdminError::NotFound { what: format!("{what} {name:?}") },
        other => AdminError::Conflict { what: other.to_string() },
    }
}

/// A tenant's name: what can stand in a host name and on a command line.
fn check_tenant_name(name: &str) -> Result<(), AdminError> {
    let fits = (2..=63).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        return Ok(());
    }
    Err(AdminError::Invalid {
        what: format!(
            "tenant name {name:?}: use 2 to 63 lower-case letters, digits and hyphens, no hyphen at the ends"
        ),
    })
}

/// A node may only leave when its drives hold no shards, those that were emptied and have left aside: what is
/// on them is dead, and the catalog's copies there have been replaced. One that does not answer cannot be asked.
fn check_holds_nothing(
    name: &str,
    health: &Health,
    node: NodeId,
    left: &BTreeSet<DriveId>,
) -> Result<(), AdminError> {
    let known = health.snapshot().into_iter().find(|(health, up)| *up && health.report.node == node);
    let Some((known, _)) = known else {
        return Err(AdminError::Conflict {
            what: format!(
                "{name} does not answer, so it is not known what its drives hold; force it if it is lost"
            ),
        });
    };
    let members = known.report.drives.iter().filter(|drive| !left.contains(&drive.id));
    let shards: u64 = members.map(|drive| drive.shards).sum();
    if shards > 0 {
        return Err(AdminError::Conflict {
            what: format!(
                "the drives of {name} hold {shards} shards, which would be missing from their stripes; \
                 have them emptied first (POST /api/v1/nodes/{name}/drain), or force it if the protection level \
                 allows for the loss"
            ),
        });
    }
    Ok(())
}

impl Admin {
    pub(crate) async fn view(&self) -> Result<ControlView, AdminError> {
        self.control.view().await.map_err(|error| internal("reading the control state", error))
    }
}

pub(crate) fn level_status(requested: Level, health: &Health, nodes: usize) -> LevelStatus {
    let candidates = health.candidates();
    let mut by_node: Vec<(NodeId, usize)> = Vec::new();
    for candidate in &candidates {
        match by_node.iter_mut().find(|(node, _)| *node == candidate.node) {
            Some((_, drives)) => *drives += 1,
            None => by_node.push((candidate.node, 1)),
        }
    }
    let drives: Vec<usize> = by_node.iter().map(|(_, drives)| *drives).collect();
    // As placement sees it: one node of several cannot keep a promise about nodes.
    let alone = drives.len() < 2 && nodes > 1;
    let geometry = if alone { None } else { requested.geometry(&drives) };
    LevelStatus {
        requested,
        actual: geometry.map(|_| requested),
        suggested: Level::suggested(nodes),
        stripe: geometry.map(|geometry| StripeShape { data: geometry.data, parity: geometry.parity }),
    }
}

fn urls(services: &holdfast_control::ServiceAddresses) -> Option<ServiceUrls> {
    let url = |address: &str| address.parse::<SocketAddr>().map(|a| format!("https://{a}")).ok();
    Some(ServiceUrls {
        s3: url(&services.s3)?,
        admin: url(&services.admin)?,
        metrics: format!("{}/metrics", url(&services.metrics)?),
    })
}

#[async_trait::async_trait]
impl AdminBackend for Admin {
    async fn cluster(&self) -> Result<ClusterStatus, AdminError> {
        let view = self.view().await?;
        let Some(cluster) = &view.cluster else {
            return Err(AdminError::Unavailable {
                what: "this node has not received the cluster's state yet".to_owned(),
                retry_after: RETRY_AFTER,
            });
        };
        let reports = self.health.snapshot();
        let spare = self.health.spare();
        let clocks = holdfast_clock::judgement();
        let mut capacity = (0, 0, 0);
        let nodes: Vec<NodeStatus> = view
            .nodes
            .values()
            .filter(|node| node.state != holdfast_control::NodeState::Removed)
            .map(|node| {
                let heard = reports.iter().find(|(health, _)| health.report.node == node.node);
                let up = heard.is_some_and(|(_, up)| *up);
                let report = heard.map(|(health, _)| &health.report);
                let drives: Vec<DriveStatus> = view
                    .drives
                    .values()
                    .filter(|drive| {
                        drive.node == node.node && drive.state != holdfast_control::DriveState::Removed
                    })
                    .map(|drive| {
                        let told = report.and_then(|r| r.drives.iter().find(|d| d.id == drive.drive));
                        capacity.0 += drive.capacity.get();
                        if let Some(told) = told {
                            capacity.1 += told.used_bytes;
                            capacity.2 += if up && told.state.writable() { told.free_bytes } else { 0 };
                        }
                        drive_status(drive, told, up)
                    })
                    .collect();
                let state = match (node.state, up) {
                    (holdfast_control::NodeState::Joining, _) => NodeState::Joining,
                    (holdfast_control::NodeState::Leaving, _) => NodeState::Leaving,
                    (_, true) => NodeState::Up,
                    (_, false) => NodeState::Down {
                        last_heard_unix_ms: heard.map(|(health, _)| {
                            let ago = u64::try_from(health.heard.elapsed().as_millis()).unwrap_or(u64::MAX);
                            UnixMillis::new(now().get().saturating_sub(ago))
                        }),
                    },
                };
                NodeStatus {
                    id: node.node,
                    name: node.name.clone(),
                    state,
                    peer_address: node.peer.to_string(),
                    services: urls(&node.services),
                    version: report.filter(|_| up).map(|report| report.version.clone()),
                    uptime_seconds: report.filter(|_| up).map(|report| report.uptime_seconds),
                    clock_ahead_ms: clocks.as_ref().and_then(|clocks| match node.node == self.own {
                        true => clocks.own_wrong(),
                        false => clocks.wrong(node.node),
                    }),
                    drives,
                    devices: report
                        .filter(|_| up)
                        .map(|report| report.devices.iter().map(device_status).collect())
                        .unwrap_or_default(),
                }
            })
            .collect();
        let groups = view
            .groups
            .iter()
            .map(|(group, recorded)| {
                let here = self.consensus.status(*group);
                let ailing = self.ward.of(*group).into_iter();
                let compared = self.comparison.of(*group);
                GroupStatus {
                    id: *group,
                    leader: here.as_ref().and_then(|status| status.leader),
                    term: here.as_ref().map_or(0, |status| status.term),
                    voters: here.as_ref().map_or(recorded, |status| &status.voters).iter().copied().collect(),
                    applied_index: here.as_ref().and_then(|status| status.applied).unwrap_or(0),
                    compared_index: compared.index,
                    states_differ: compared.differ,
                    ailing: ailing
                        .map(|(node, ailment)| AilingReplica {
                            node,
                            what: ailment.what,
                            heals: ailment.curable && here.as_ref().is_some_and(|s| s.leader.is_some()),
                        })
                        .collect(),
                }
            })
            .collect();
        Ok(ClusterStatus {
            id: cluster.id,
            name: cluster.name.clone(),
            epoch: cluster.epoch,
            level: level_status(cluster.level, &self.health, nodes.len()),
            capacity: Capacity {
                raw_bytes: ByteCount::new(capacity.0),
                used_bytes: ByteCount::new(capacity.1),
                free_bytes: ByteCount::new(capacity.2),
                reserved_bytes: ByteCount::new(spare.reserved_bytes),
                spare_drives: spare.drives,
            },
            nodes,
            groups,
            tenants: view.tenants.len() as u64,
        })
    }

    async fn operator(&self, user: &str) -> Result<Option<OperatorRecord>, AdminError> {
        let view = self.view().await?;
        Ok(view.operators.get(user).map(|operator| OperatorRecord {
            user: operator.name.clone(),
            password_hash: operator.password_hash.clone(),
            role: if operator.role == "operator" { Role::Operator } else { Role::Viewer },
        }))
    }

    async fn create_join_token(&self, valid_for: Duration) -> Result<JoinTokenInfo, AdminError> {
        let token = JoinToken::generate(self.ca.fingerprint())
            .map_err(|error| internal("making a join token", error.into()))?;
        let valid_ms = u64::try_from(valid_for.as_millis()).unwrap_or(u64::MAX);
        let expires = UnixMillis::new(now().get().saturating_add(valid_ms));
        let command = Command::CreateJoinToken { hash: token.secret_hash(), expires };
        self.control
            .propose(&command)
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|refusal| refused(&refusal))?;
        Ok(JoinTokenInfo { token: Secret::new(token.reveal()), expires_unix_ms: expires })
    }

    async fn remove_node(&self, name: &str, force: bool) -> Result<(), AdminError> {
        let view = self.view().await?;
        let node = view
            .nodes
            .values()
            .find(|node| node.name == name && node.state != holdfast_control::NodeState::Removed)
            .ok_or_else(|| AdminError::NotFound { what: format!("node {name:?}") })?;
        if !force && node.state != holdfast_control::NodeState::Leaving {
            let left = view.drives.values().filter(|drive| drive.state == StandingOfDrive::Removed);
            let left: BTreeSet<DriveId> = left.map(|drive| drive.drive).collect();
            check_holds_nothing(name, &self.health, node.node, &left)?;
        }
        self.control
            .propose(&Command::RetireNode(node.node))
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|refusal| refused(&refusal))?;
        tracing::warn!(target: "audit", node = %node.node, name, force, "node is to leave");
        Ok(())
    }

    async fn tenants(&self) -> Result<Vec<TenantStatus>, AdminError> {
        let view = self.view().await?;
        let region = view.cluster.as_ref().map(|cluster| cluster.region.clone()).unwrap_or_default();
        let mut tenants: Vec<TenantStatus> = view
            .tenants
            .values()
            .map(|tenant| TenantStatus {
                id: tenant.tenant,
                name: tenant.name.clone(),
                state: match tenant.state {
                    TenantState::Active => TenantStanding::Active,
                    TenantState::Suspended => TenantStanding::Suspended,
                    TenantState::Shredding => TenantStanding::Shredding,
                },
                region: region.clone(),
                level: tenant.level,
                access_keys: view
                    .access_keys
                    .iter()
                    .filter(|(_, record)| record.tenant == tenant.tenant)
                    .map(|(key, _)| key.clone())
                    .collect(),
                journal_address: tenant.journal_address.clone(),
            })
            .collect();
        tenants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tenants)
    }

    async fn create_tenant(&self, name: &str, level: Option<Level>) -> Result<CreatedTenant, AdminError> {
        check_tenant_name(name)?;
        let view = self.view().await?;
        let region = view.cluster.as_ref().map(|cluster| cluster.region.clone()).unwrap_or_default();
        let created = tenants::create(&self.control, &self.consensus, &self.keyring, name, level)
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|refusal| refused(&refusal))?;
        Ok(CreatedTenant {
            id: created.tenant,
            name: name.to_owned(),
            region,
            access_key: created.access_key,
            secret_key: Secret::new(created.secret),
        })
    }

    async fn create_encryption_key(&self, tenant: &str, id: &str) -> Result<(), AdminError> {
        let view = self.view().await?;
        let record = view
            .tenants
            .values()
            .find(|record| record.name == tenant)
            .ok_or_else(|| AdminError::NotFound { what: format!("tenant {tenant:?}") })?;
        tenants::add_named_key(&self.control, &self.keyring, record.tenant, id)
            .await
            .map_err(|error| unavailable(&error))?
            .map_err(|refusal| refused(&refusal))
    }

    fn keys(&self) -> &dyn KeyAdmin {
        &self.keys
    }

    async fn accounts(&self, tenant: &str) -> Result<Vec<AccountStatus>, AdminError> {
        let snapshot = self.identities.snapshot();
        let found = snapshot.tenants.values().find(|known| known.name == tenant);
        let found = found.ok_or_else(|| AdminError::NotFound { what: format!("tenant {tenant:?}") })?;
        let mut accounts: Vec<_> = found.accounts.values().collect();
        accounts.sort_by_key(|account| (Some(account.info.number) != found.first, account.info.name.clone()));
        let shown = |account: &holdfast_access::identity::Account| AccountStatus {
            number: account.info.number.to_string(),
            id: account.info.canonical.to_string(),
            name: account.info.name.clone(),
            email: account.info.email.clone(),
            identities: (account.users.len()
                + account.groups.len()
                + account.roles.len()
                + account.policies.len()) as u64,
        };
        Ok(accounts.into_iter().map(shown).collect())
    }

    async fn create_account(
        &self,
        tenant: &str,
        name: &str,
        email: &str,
    ) -> Result<CreatedAccount, AdminError> {
        let view = self.view().await?;
        let record = view.tenants.values().find(|record| record.name == tenant);
        let record = record.ok_or_else(|| AdminError::NotFound { what: format!("tenant {tenant:?}") })?;
        let created = self.identities.create_account(record.tenant, name, email).await;
        let created = created.map_err(|error| unavailable(&error))?.map_err(|refusal| refused(&refusal))?;
        Ok(CreatedAccount {
            number: created.info.number.to_string(),
            id: created.info.canonical.to_string(),
            name: created.info.name,
            email: created.info.email,
            access_key: created.access_key,
            secret_key: Secret::new(created.secret),
        })
    }

    fn session_key(&self) -> [u8; 32] {
        self.session_key
    }

    fn ca_pem(&self) -> String {
        self.ca.certificate().pem()
    }

    fn node_name(&self) -> String {
        self.name.clone()
    }

    async fn work(&self) -> Result<WorkStatus, AdminError> {
        let view = self.view().await?;
        Ok(work::status(&view, &self.health, &self.objects.workers().orders()))
    }

    async fn scrub_now(&self) -> Result<(), AdminError> {
        self.objects.scrub_now();
        Ok(())
    }

    async fn drain_drive(&self, drive: DriveId, draining: bool) -> Result<(), AdminError> {
        let state = if draining { StandingOfDrive::Draining } else { StandingOfDrive::Active };
        let command = Command::SetDriveState { drive, state };
        match self.control.propose(&command).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refusal)) => Err(refused(&refusal)),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn ready(&self) -> Readiness {
        let barrier = tokio::time::timeout(RETRY_AFTER, self.consensus.read_barrier(GroupId::CONTROL));
        if matches!(barrier.await, Ok(Ok(()))) { Readiness::Ready } else { Readiness::NotReady }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_names_are_host_name_labels() {
        for name in ["demo", "a1", "client-domain-7"] {
            assert!(check_tenant_name(name).is_ok(), "{name}");
        }
        for name in ["", "a", "-a", "a-", "Demo", "a_b", "a.b", &"x".repeat(64)] {
            assert!(check_tenant_name(name).is_err(), "{name}");
        }
    }
}
