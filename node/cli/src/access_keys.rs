//! Access keys of tenants, over the admin API.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use holdfast_access::text::instant_text;
use serde_json::{Value, json};

use crate::{
    arguments::{AccessKeyCommand, KeyBoundsArguments},
    client::{Client, segment},
    online::{done, list},
    table::{Table, show, word},
};

/// Seconds of a day.
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// Carries a command out in a session.
///
/// # Errors
/// When a file cannot be read, or the node refuses.
pub async fn run(client: &Client, command: AccessKeyCommand, json: bool) -> Result<()> {
    let all = |tenant: &str| format!("/api/v1/tenants/{}/access-keys", segment(tenant));
    match command {
        AccessKeyCommand::List { tenant } => {
            let document = client.get(&all(&tenant)).await?;
            let mut table = Table::new(&["ACCESS KEY", "ACCOUNT", "USER", "STATE", "EXPIRES", "POLICY"]);
            for key in list(&document, "access_keys")? {
                let user = if key["user"].is_null() { "(root)".to_owned() } else { word(&key["user"]) };
                let state = match (key["active"] == true, key["expired"] == true) {
                    (_, true) => "expired",
                    (true, false) => "active",
                    (false, false) => "inactive",
                };
                let expires =
                    key["expires_unix_ms"].as_u64().map_or_else(|| "never".to_owned(), instant_text);
                let policy = if key["policy"].is_null() { "none" } else { "bounded" };
                table.row([
                    word(&key["access_key"]),
                    word(&key["account"]),
                    user,
                    state.to_owned(),
                    expires,
                    policy.to_owned(),
                ]);
            }
            show(json, &document, &[table])
        }
        AccessKeyCommand::Create { tenant, bounds } => {
            let pair = client.post(&all(&tenant), Some(&body(&bounds)?)).await?;
            let mut table = Table::new(&["ACCESS KEY", "SECRET, SHOWN ONLY NOW"]);
            table.row(["access_key", "secret_key"].map(|field| word(&pair[field])));
            show(json, &pair, &[table])
        }
        AccessKeyCommand::Bound { tenant, access_key, bounds } => {
            let path = format!("{}/{}/bounds", all(&tenant), segment(&access_key));
            done(client, &path, Some(&body(&bounds)?)).await
        }
        AccessKeyCommand::Delete { tenant, access_key } => {
            client.delete(&format!("{}/{}", all(&tenant), segment(&access_key))).await
        }
    }
}

fn body(bounds: &KeyBoundsArguments) -> Result<Value> {
    let expires = bounds.days.map(|days| {
        let end = SystemTime::now() + Duration::from_secs(u64::from(days) * DAY_SECONDS);
        end.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    });
    let policy = bounds.policy_file.as_deref().map(document).transpose()?;
    Ok(json!({ "expires_unix_ms": expires, "policy": policy }))
}

fn document(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}
