//! Tenants' external keys on a node: who asks the services, and when what they gave back is forgotten.
//!
//! ```text
//! standing  what follows from a service's answers; pure
//! watch     asks every service whose tenant is here, again and again, and tells the keyring
//! admin     sets, rotates and removes external keys
//! ```
//!
//! Every node asks for itself. How a service is reached is a secret of the cluster; which of a tenant's settings count
//! stands in its wrapped key, so that both change with one command.

mod admin;
mod standing;
mod watch;

use holdfast_admin_api::AdminError;
use holdfast_control::{ControlView, FEATURE_LEVEL_EXTERNAL_KEYS};
use holdfast_external_keys::{VaultSettings, VaultTransit};
use holdfast_keyservice::Client;
use holdfast_model::TenantId;
use holdfast_object::events::Network;
use serde::{Deserialize, Serialize};

pub use watch::ExternalKeys;

/// What clients are told of a tenant whose key is not here. Names no service: anonymous clients read it as well.
pub const WAITS: &str = "it waits for the tenant's external key service";

/// How often a service is asked whether its key is still allowed, unless set otherwise, in seconds.
pub const CHECK_SECONDS: u32 = 60;

/// Between which a tenant may set that, in seconds.
pub const CHECK_SECONDS_RANGE: std::ops::RangeInclusive<u32> = 5..=3600;

/// How long a service may be silent before its tenant's key is forgotten, unless set otherwise, in seconds.
pub const GRACE_SECONDS: u32 = 3600;

/// Longest that a tenant may set that to, in seconds: a week.
pub const GRACE_SECONDS_MAX: u32 = 7 * 24 * 3600;

/// How a tenant's service is reached and how patient the cluster is with it, as it is kept: sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    vault: VaultSettings,
    check_seconds: u32,
    grace_seconds: u32,
}

impl Kept {
    fn service(&self, networks: Vec<Network>) -> Result<VaultTransit, AdminError> {
        VaultTransit::new(self.vault.clone(), networks)
            .map_err(|error| AdminError::Invalid { what: error.to_string() })
    }
}

/// Name of the secret that holds a tenant's settings.
fn secret_name(tenant: TenantId, service: [u8; 16]) -> String {
    format!("external key {tenant}/{:032x}", u128::from_be_bytes(service))
}

/// Names of a tenant's secrets that are settings of external keys.
pub fn secrets(view: &ControlView, tenant: TenantId) -> Vec<String> {
    let prefix = format!("external key {tenant}/");
    let names = view.secrets.range(prefix.clone()..).map(|(name, _)| name);
    names.take_while(|name| name.starts_with(&prefix)).cloned().collect()
}

fn kept(view: &ControlView, keyring: &Client, tenant: TenantId, service: [u8; 16]) -> anyhow::Result<Kept> {
    let name = secret_name(tenant, service);
    let sealed = view.secrets.get(&name).ok_or_else(|| anyhow::anyhow!("its settings are not there"))?;
    let text = zeroize::Zeroizing::new(keyring.open_secret(&name, sealed)?);
    // The error could quote what was read.
    serde_json::from_slice(&text).map_err(|_| anyhow::anyhow!("its settings are not readable"))
}

/// Whether every node's program knows of external keys.
fn are_known(view: &ControlView) -> bool {
    view.cluster.as_ref().is_some_and(|cluster| cluster.feature_level >= FEATURE_LEVEL_EXTERNAL_KEYS)
}
