//! Access keys of a tenant: made, bounded, taken away.

use async_trait::async_trait;
use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    AccessKeyPair, AdminError,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// What the admin API asks about access keys.
#[async_trait]
pub trait AccessKeyBackend: Send + Sync + 'static {
    /// All keys of a tenant, of users and other accounts too: by account, user and time of making.
    async fn access_keys(&self, tenant: &str) -> Result<Vec<AccessKeyStatus>, AdminError>;

    /// One more key of the root user of a tenant's first account.
    async fn create_access_key(
        &self,
        tenant: &str,
        bounds: AccessKeyBounds,
    ) -> Result<AccessKeyPair, AdminError>;

    /// Replaces the bounds of any key of a tenant.
    async fn set_access_key_bounds(
        &self,
        tenant: &str,
        access_key: &str,
        bounds: AccessKeyBounds,
    ) -> Result<(), AdminError>;

    /// Takes a key of a root user away. Those of users are their account's to delete.
    async fn delete_access_key(&self, tenant: &str, access_key: &str) -> Result<(), AdminError>;
}

/// What an access key is bounded by, beside what whoever it is of may do. It never allows more than that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AccessKeyBounds {
    /// From then on it lets nobody in, nor does anything signed with it or any session it began: milliseconds since
    /// 1970. Null or absent: it does not end.
    #[serde(default)]
    pub expires_unix_ms: Option<u64>,
    /// A policy document of at most 2,048 bytes, as of identities (no principals): what it does not allow the key may
    /// not be used for. Null or absent: no such bound.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub policy: Option<Value>,
}

/// One access key of a tenant; never its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccessKeyStatus {
    /// Id of the key.
    pub access_key: String,
    /// Number of its account: 12 digits, as in ARNs.
    pub account: String,
    /// The user it is of; null: the account's root user.
    #[schema(required = true)]
    pub user: Option<String>,
    /// When it was made.
    pub created_unix_ms: u64,
    /// Whether it is switched on.
    pub active: bool,
    /// Whether its time is up.
    pub expired: bool,
    /// When it ends; null: it does not.
    #[schema(required = true)]
    pub expires_unix_ms: Option<u64>,
    /// What it may be used for at most; null: all that whoever it is of may do.
    #[schema(required = true, value_type = Option<Object>)]
    pub policy: Option<Value>,
}

/// Access keys of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccessKeyList {
    /// By account, user and time of making.
    access_keys: Vec<AccessKeyStatus>,
}

pub(crate) async fn list(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
) -> Result<Json<AccessKeyList>, Problem> {
    Ok(Json(AccessKeyList { access_keys: state.backend.access_keys(&tenant).await? }))
}

pub(crate) async fn create(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
    bounds: Option<Body<AccessKeyBounds>>,
) -> Response {
    let bounds = bounds.map(|Body(bounds)| bounds).unwrap_or_default();
    let made = state.backend.create_access_key(&tenant, bounds).await;
    let target = match &made {
        Ok(pair) => format!("{tenant} {}", pair.access_key),
        Err(_) => tenant,
    };
    noted(target, made.map(|pair| (StatusCode::CREATED, Json(pair))))
}

pub(crate) async fn set_bounds(
    State(state): State<AppState>,
    Path((tenant, access_key)): Path<(String, String)>,
    Body(bounds): Body<AccessKeyBounds>,
) -> Response {
    let result = state.backend.set_access_key_bounds(&tenant, &access_key, bounds).await;
    noted(format!("{tenant} {access_key}"), result.map(|()| StatusCode::NO_CONTENT))
}

pub(crate) async fn delete(
    State(state): State<AppState>,
    Path((tenant, access_key)): Path<(String, String)>,
) -> Response {
    let result = state.backend.delete_access_key(&tenant, &access_key).await;
    noted(format!("{tenant} {access_key}"), result.map(|()| StatusCode::NO_CONTENT))
}

fn noted(target: String, result: Result<impl IntoResponse, AdminError>) -> Response {
    (Extension(Note { user: None, target: Some(target) }), result.map_err(Problem::from)).into_response()
}
