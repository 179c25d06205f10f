//! Tenants, their named keys, and tokens with which nodes join.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use holdfast_model::Level;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    TenantStatus,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// Shortest and longest name of a tenant in bytes: it is a DNS label (RFC 1035, section 2.3.4).
const TENANT_NAME_SIZE: std::ops::RangeInclusive<usize> = 2..=63;
/// A join token is valid for so long unless asked otherwise, in seconds.
const JOIN_TOKEN_DEFAULT_SECONDS: u64 = 15 * 60;
/// Shortest and longest validity of a join token, in seconds.
const JOIN_TOKEN_SECONDS: std::ops::RangeInclusive<u64> = 60..=24 * 3600;

/// All tenants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantList {
    /// By name.
    tenants: Vec<TenantStatus>,
}

/// A tenant to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTenant {
    /// A DNS label: a-z, 0-9 and inner hyphens, 2 to 63 characters.
    #[schema(pattern = "^[a-z0-9][a-z0-9-]{0,61}[a-z0-9]$")]
    name: String,
    /// Its protection level; the cluster's when absent.
    #[schema(value_type = Option<String>, example = "+2d:1n")]
    level: Option<Level>,
}

/// Longest id of a named key in bytes.
const KEY_ID_SIZE_MAX: usize = 200;

/// A named key of a tenant.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EncryptionKey {
    /// As clients name it: 1 to 200 printable characters of ASCII without spaces.
    id: String,
}

impl EncryptionKey {
    fn is_sound(&self) -> bool {
        (1..=KEY_ID_SIZE_MAX).contains(&self.id.len()) && self.id.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

/// A join token to make.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewJoinToken {
    /// How long it works: 60 to 86400, 900 when absent.
    #[schema(minimum = 60, maximum = 86400)]
    valid_for_seconds: Option<u64>,
}

pub(crate) async fn list(State(state): State<AppState>) -> Result<Json<TenantList>, Problem> {
    Ok(Json(TenantList { tenants: state.backend.tenants().await? }))
}

pub(crate) async fn create(State(state): State<AppState>, Body(new): Body<NewTenant>) -> Response {
    let result = match tenant_name(&new.name) {
        Ok(name) => state.backend.create_tenant(name, new.level).await.map_err(Problem::from),
        Err(problem) => Err(problem),
    };
    noted(new.name, result.map(|created| (StatusCode::CREATED, Json(created))))
}

pub(crate) async fn create_encryption_key(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
    Body(key): Body<EncryptionKey>,
) -> Response {
    let result = match (tenant_name(&tenant), key.is_sound()) {
        (Ok(name), true) => state.backend.create_encryption_key(name, &key.id).await.map_err(Problem::from),
        (Ok(_), false) => Err(Problem::invalid(format!(
            "The id of a key is 1 to {KEY_ID_SIZE_MAX} printable characters of ASCII without spaces."
        ))),
        (Err(problem), _) => Err(problem),
    };
    noted(format!("{tenant} {}", key.id), result.map(|()| (StatusCode::CREATED, Json(key))))
}

pub(crate) async fn create_join_token(
    State(state): State<AppState>,
    Body(new): Body<NewJoinToken>,
) -> Result<Response, Problem> {
    let seconds = new.valid_for_seconds.unwrap_or(JOIN_TOKEN_DEFAULT_SECONDS);
    if !JOIN_TOKEN_SECONDS.contains(&seconds) {
        let (shortest, longest) = (JOIN_TOKEN_SECONDS.start(), JOIN_TOKEN_SECONDS.end());
        return Err(Problem::invalid(format!(
            "valid_for_seconds is {shortest} to {longest}, got {seconds}."
        )));
    }
    let token = state.backend.create_join_token(Duration::from_secs(seconds)).await?;
    Ok((StatusCode::CREATED, Json(token)).into_response())
}

fn noted(target: String, result: impl IntoResponse) -> Response {
    (Extension(Note { user: None, target: Some(target) }), result).into_response()
}

fn tenant_name(name: &str) -> Result<&str, Problem> {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let is_label = TENANT_NAME_SIZE.contains(&name.len())
        && name.as_bytes().iter().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if is_label {
        Ok(name)
    } else {
        Err(Problem::invalid(
            "A tenant's name is 2 to 63 of a-z, 0-9 and hyphen, with no hyphen at either end.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::tenant_name;

    #[test]
    fn names_are_dns_labels() {
        for good in ["ab", "acme", "a-1", &"a".repeat(63)] {
            assert!(tenant_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "-a", "a-", "A", "a.b", "a_b", "ä", "a\n", &"a".repeat(64)] {
            assert!(tenant_name(bad).is_err(), "{bad:?}");
        }
    }
}
