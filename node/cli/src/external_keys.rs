//! External keys of tenants, over the admin API.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::{
    arguments::{ExternalKeyCommand, NewExternalKey},
    client::{Client, segment},
    online::done,
    table::{Table, show, word},
};

/// Carries a command out in a session.
///
/// # Errors
/// When a file cannot be read, or the node refuses.
pub async fn run(client: &Client, command: ExternalKeyCommand, json: bool) -> Result<()> {
    let path = |tenant: &str| format!("/api/v1/tenants/{}/external-key", segment(tenant));
    match command {
        ExternalKeyCommand::Show { tenant } => {
            let document = client.get(&path(&tenant)).await?;
            let mut table = Table::new(&["SERVICE", "STATE", "KEY HERE", "CHECK", "GRACE", "DETAIL"]);
            if !document["service"].is_null() {
                let fields = ["service", "state", "key_here", "check_seconds", "grace_seconds"];
                let [service, state, here, check, grace] = fields.map(|field| word(&document[field]));
                let detail = document["detail"].as_str().unwrap_or_default().to_owned();
                table.row([service, state, here, format!("{check} s"), format!("{grace} s"), detail]);
            }
            show(json, &document, &[table])
        }
        ExternalKeyCommand::Set(new) => {
            let NewExternalKey { tenant, url, key, ca_file, role_id, .. } = &*new;
            let first_line =
                |path: &Path| anyhow::Ok(read(path)?.lines().next().unwrap_or_default().trim().to_owned());
            let body = json!({
                "url": url,
                "ca_pem": read(ca_file)?,
                "key": key,
                "mount": new.mount,
                "namespace": new.namespace,
                "token": new.token_file.as_deref().map(first_line).transpose()?,
                "role_id": role_id,
                "secret_id": new.secret_id_file.as_deref().map(first_line).transpose()?,
                "approle_mount": new.approle_mount,
                "check_seconds": new.check_seconds,
                "grace_seconds": new.grace_seconds,
            });
            done(client, &path(tenant), Some(&body)).await
        }
        ExternalKeyCommand::Rotate { tenant } => {
            done(client, &format!("{}/rotation", path(&tenant)), None).await
        }
        ExternalKeyCommand::Remove { tenant } => client.delete(&path(&tenant)).await,
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}
