//! Tenants: keeps the object layer's directory in step with the control group, and creates new ones.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context, Result};
use holdfast_catalog::{Command as CatalogCommand, Op, decode_outcome};
use holdfast_consensus::Consensus;
use holdfast_control::{Command, ControlView, DriveState, NewTenant, Refusal, Response, TenantState};
use holdfast_crypt::{TenantCustody, random_array};
use holdfast_keyservice::{Client, KeyError, Standing as KeyStanding};
use holdfast_model::{DatabaseId, GroupId, Level, PartitionId, TenantId};
use holdfast_object::{
    Directory, DirectorySnapshot, TenantEntry,
    workers::{KnownDrive, Standing},
};
use holdfast_store::Health;
use tokio_util::sync::CancellationToken;

use crate::{
    control::{Control, now},
    events, external_keys,
    identities::NodeIdentities,
    metadata_keys::{LiveMetadataKeys, seal_of},
    work,
};

/// Name under which an access key's secret is sealed.
pub(crate) fn secret_name(access_key: &str) -> String {
    format!("access key {access_key}")
}

/// Names of the cluster's secrets that are a tenant's: which named keys it has, and the targets of its events.
pub(crate) fn secrets_of(view: &ControlView, tenant: TenantId) -> Vec<String> {
    let keys = named_keys(view, tenant);
    let keys = keys.iter().map(|id| named_key_secret(tenant, id));
    keys.chain(events::secrets(view, tenant)).chain(external_keys::secrets(view, tenant)).collect()
}

/// Name of the secret that says that a tenant has a named key. The key itself is derived under the tenant's.
fn named_key_secret(tenant: TenantId, id: &str) -> String {
    format!("named key {tenant}/{id}")
}

fn named_keys(view: &ControlView, tenant: TenantId) -> BTreeSet<String> {
    let prefix = named_key_secret(tenant, "");
    let secrets = view.secrets.range(prefix.clone()..);
    secrets.map_while(|(name, _)| name.strip_prefix(&prefix).map(str::to_owned)).collect()
}

/// Gives a tenant a named key. Done already when it has one of that name.
///
/// # Errors
/// As [`create`].
pub async fn add_named_key(
    control: &Control,
    keyring: &Client,
    tenant: TenantId,
    id: &str,
) -> Result<Result<(), Refusal>> {
    let name = named_key_secret(tenant, id);
    let sealed = keyring.seal_secret(&name, id.as_bytes()).context("sealing a named key")?;
    Ok(control.propose(&Command::PutSecret { name, sealed }).await?.map(drop))
}

/// Rebuilds the directory on every change of the control state, until cancelled.
pub async fn follow(
    control: Control,
    keyring: Arc<Client>,
    directory: Arc<Directory>,
    health: Arc<Health>,
    identities: Arc<NodeIdentities>,
    metadata_keys: Arc<LiveMetadataKeys>,
    stop: CancellationToken,
) {
    let mut changes = control.reader().changes();
    let mut roots = keyring.changes();
    changes.mark_changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
            changed = roots.changed() => if changed.is_err() { return },
        }
        match control.view().await {
            Ok(view) => {
                let starts = keyring.starts();
                learn(&view, &keyring);
                metadata_keys.forget_destroyed(&view);
                let snapshot = snapshot(&view, &keyring);
                let known = identities.prepare(&view);
                // What was put together while the key service was away lacks what only it opens. What was known
                // before stays in force, and this goes on when the service is back and unlocked.
                if keyring.is_locked() || keyring.starts() != starts {
                    continue;
                }
                health.set_spare(snapshot.orders.spare_drives);
                directory.update(snapshot);
                identities.update(&view, known);
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "tenants not refreshed"),
        }
    }
}

/// Takes note of the current root and of the cluster key. A root that is new here is on its way.
pub fn learn(view: &ControlView, keyring: &Client) {
    let standing = |state| match state {
        TenantState::Active => KeyStanding::Active,
        TenantState::Suspended => KeyStanding::Suspended,
        TenantState::Shredding => KeyStanding::Shredding,
    };
    let there = view.tenants.values().map(|tenant| (tenant.tenant, standing(tenant.state)));
    let gone = view.shreds.keys().filter(|tenant| view.is_destroyed(**tenant));
    let standings = there.chain(gone.map(|tenant| (*tenant, KeyStanding::Destroyed))).collect();
    if let Err(error) = keyring.set_standings(standings) {
        tracing::info!(%error, "the key service does not know how tenants stand yet");
    }
    let Some(current) = view.keys.current() else { return };
    if let Err(error) = keyring.learn(current.epoch, &view.keys.cluster_key) {
        tracing::info!(%error, "the cluster key is not opened yet");
    }
}

fn snapshot(view: &ControlView, keyring: &Client) -> DirectorySnapshot {
    let Some(cluster) = &view.cluster else { return DirectorySnapshot::default() };
    let drives = view.drives.values().map(|record| KnownDrive {
        drive: record.drive,
        node: record.node,
        since: record.registered,
        standing: match record.state {
            DriveState::Active => Standing::Active,
            DriveState::Draining => Standing::Draining,
            DriveState::Removed => Standing::Removed,
        },
    });
    let mut snapshot = DirectorySnapshot {
        drives: drives.collect(),
        orders: Arc::new(work::orders(view, keyring)),
        events: Arc::new(events::settings(view, keyring)),
        can_tell_events: events::are_known(view),
        destroyed: view.shreds.keys().copied().filter(|tenant| view.is_destroyed(*tenant)).collect(),
        ..DirectorySnapshot::default()
    };
    for tenant in view.tenants.values() {
        // One that does not open is told of below, or is not served anyhow.
        if let Ok(metadata) = keyring.tenant_metadata(tenant.tenant, &tenant.wrapped_key) {
            snapshot.seals.insert(tenant.tenant, seal_of(&metadata));
            snapshot.metadata.insert(tenant.tenant, metadata);
        }
    }
    for tenant in view.tenants.values().filter(|tenant| tenant.state != TenantState::Shredding) {
        // Work that needs metadata only goes on for a tenant whose key waits.
        let opened = keyring.tenant(tenant.tenant, &tenant.wrapped_key).and_then(|key| {
            match keyring.check_open(tenant.tenant, &tenant.wrapped_key) {
                Ok(()) => Ok((Some(key as Arc<dyn TenantCustody>), None)),
                Err(KeyError::WaitsForExternal { .. }) => Ok((None, Some(external_keys::WAITS.to_owned()))),
                Err(error) => Err(error),
            }
        });
        match opened {
            Ok((key, waits_for)) => {
                let entry = TenantEntry {
                    id: tenant.tenant,
                    name: tenant.name.clone(),
                    level: tenant.level.unwrap_or(cluster.level),
                    key,
                    waits_for,
                    named_keys: named_keys(view, tenant.tenant),
                    webhooks: events::webhooks(view, keyring, tenant.tenant),
                    partitions: tenant.partitions.clone(),
                };
                snapshot.tenants.insert(tenant.tenant, Arc::new(entry));
            }
            Err(error) => tracing::error!(tenant = tenant.name, %error, "tenant not served"),
        }
    }
    snapshot
}

/// A fresh access key: 20 capital letters and digits, as S3 clients expect, and a 40 character secret.
#[must_use]
pub fn fresh_access_key() -> (String, String) {
    (format!("HF{}", text::<18>(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")), {
        text::<40>(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    })
}

/// `N` characters drawn evenly from an alphabet whose size is a power of two.
pub(crate) fn text<const N: usize>(alphabet: &[u8]) -> String {
    debug_assert!(alphabet.len().is_power_of_two());
    random_array::<N>().iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
}

/// A tenant just created.
#[derive(Debug)]
pub struct Created {
    /// Its id.
    pub tenant: TenantId,
    /// Id of its first access key.
    pub access_key: String,
    /// The secret of that key.
    pub secret: String,
}

/// Creates a tenant, its first access key and its catalog partition.
///
/// # Errors
/// `Ok(Err(..))` when the control group refuses; `Err` when it, or the catalog group, does not decide.
pub async fn create(
    control: &Control,
    consensus: &Consensus,
    keyring: &Client,
    name: &str,
    level: Option<Level>,
) -> Result<Result<Created, Refusal>> {
    let tenant = TenantId::from_bytes(random_array());
    let database_id = DatabaseId::from_bytes(random_array());
    let (access_key, secret) = fresh_access_key();
    let new = NewTenant {
        tenant,
        name: name.to_owned(),
        database_id,
        wrapped_key: keyring.make_tenant_key(tenant).context("making its key")?,
        level,
        access_key: access_key.clone(),
        sealed_secret: keyring
            .seal_secret(&secret_name(&access_key), secret.as_bytes())
            .context("sealing the secret of its access key")?,
        at: now(),
    };
    match control.propose(&Command::CreateTenant(new)).await? {
        Ok(Response::TenantCreated(partition, group)) => {
            create_partition(consensus, tenant, database_id, partition, group).await?;
            Ok(Ok(Created { tenant, access_key, secret }))
        }
        Ok(other) => anyhow::bail!("the control group answered {other:?}"),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Creates the partitions that tenants begin with: a creation may have been cut short between the two groups. Run by
/// the leader of the control group. Those that are split off are the business of [`crate::splits`].
///
/// # Errors
/// When a catalog group does not decide.
pub async fn complete_creations(view: &ControlView, consensus: &Consensus) -> Result<()> {
    for tenant in view.tenants.values().filter(|tenant| tenant.state != TenantState::Shredding) {
        let first = tenant.partitions.iter().filter(|(id, _)| !tenant.split_from.contains_key(id));
        for (partition, group) in first {
            create_partition(consensus, tenant.tenant, tenant.database_id, *partition, *group).await?;
        }
    }
    Ok(())
}

async fn create_partition(
    consensus: &Consensus,
    tenant: TenantId,
    database_id: DatabaseId,
    partition: PartitionId,
    group: GroupId,
) -> Result<()> {
    let op = Op::CreatePartition { tenant, database_id };
    let command = CatalogCommand { partition, at: now(), request: None, op };
    let answer =
        consensus.propose(group, command.encode()).await.context("the catalog group did not decide")?;
    decode_outcome(&answer)?.map(drop).map_err(|refusal| anyhow::anyhow!("catalog group {group}: {refusal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_keys_look_as_clients_expect_and_differ() {
        let (key, secret) = fresh_access_key();
        assert_eq!((key.len(), secret.len()), (20, 40));
        assert!(key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()));
        assert_ne!(fresh_access_key().1, secret);
    }
}
