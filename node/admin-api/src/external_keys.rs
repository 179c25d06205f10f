//! External keys of tenants: a key service of the tenant's own, without which its data are not read.

use async_trait::async_trait;
use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AdminError,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// What the admin API asks about external keys.
#[async_trait]
pub trait ExternalKeyBackend: Send + Sync + 'static {
    /// How a tenant's external key stands with the node that answers.
    async fn external_key(&self, tenant: &str) -> Result<ExternalKeyStatus, AdminError>;

    /// Seals a tenant's key under a key of this service, in the place of any before.
    async fn set_external_key(&self, tenant: &str, spec: ExternalKeySpec) -> Result<(), AdminError>;

    /// Seals a tenant's key under a fresh external key, encrypted by the newest version of the service's.
    async fn rotate_external_key(&self, tenant: &str) -> Result<(), AdminError>;

    /// Leaves a tenant's key to the cluster's root alone.
    async fn remove_external_key(&self, tenant: &str) -> Result<(), AdminError>;
}

/// A key of a service that speaks Vault's transit.
#[derive(Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalKeySpec {
    /// Where the service is: `https://HOST:PORT`.
    pub url: String,
    /// Certificates of the authorities that vouch for the service, as PEM; no others are trusted.
    pub ca_pem: String,
    /// Name of the key there: of a type with associated data (`aes256-gcm96`, `chacha20-poly1305`), not derived.
    pub key: String,
    /// Where the transit engine is mounted; null or absent: `transit`.
    pub mount: Option<String>,
    /// Namespace; null or absent: none is named.
    pub namespace: Option<String>,
    /// A token; never shown again. Null or absent with a role.
    pub token: Option<String>,
    /// Id of an AppRole; null or absent with a token.
    pub role_id: Option<String>,
    /// Secret id of the role; never shown again.
    pub secret_id: Option<String>,
    /// Where the AppRole method is mounted; null or absent: `approle`.
    pub approle_mount: Option<String>,
    /// How often each node asks whether the key is still allowed, in seconds; null or absent: 60.
    #[schema(minimum = 5, maximum = 3600)]
    pub check_seconds: Option<u32>,
    /// How long the service may be silent before the tenant's key is forgotten, in seconds; null or absent: 3600. With 0
    /// the first question without an answer counts.
    #[schema(maximum = 604_800)]
    pub grace_seconds: Option<u32>,
}

impl std::fmt::Debug for ExternalKeySpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalKeySpec")
            .field("url", &self.url)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// How a service stands with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExternalKeyState {
    /// It was not asked yet.
    Asking,
    /// It gave the key back when it was last asked.
    Allowed,
    /// It does not answer; the tenant's key stays while the grace lasts.
    Silent,
    /// It refuses: the tenant's data are not read until it allows it again.
    Refused,
}

/// How a tenant's external key stands, as the node that answers sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExternalKeyStatus {
    /// The service and its key; null when the cluster's root alone opens the tenant's key.
    #[schema(required = true)]
    pub service: Option<String>,
    /// How the service stands; null without one.
    #[schema(required = true)]
    pub state: Option<ExternalKeyState>,
    /// Whether the tenant's key is in the memory of the node that answers.
    pub key_here: bool,
    /// Why the service does not give the key back; null when it does.
    #[schema(required = true)]
    pub detail: Option<String>,
    /// When it was last asked; null when it was not.
    #[schema(required = true)]
    pub asked_unix_ms: Option<u64>,
    /// How often it is asked; null without a service.
    #[schema(required = true)]
    pub check_seconds: Option<u32>,
    /// How long it may be silent; null without a service.
    #[schema(required = true)]
    pub grace_seconds: Option<u32>,
}

impl ExternalKeyStatus {
    /// Of a tenant that has none.
    #[must_use]
    pub fn none() -> Self {
        Self {
            service: None,
            state: None,
            key_here: true,
            detail: None,
            asked_unix_ms: None,
            check_seconds: None,
            grace_seconds: None,
        }
    }
}

pub(crate) async fn show(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
) -> Result<Json<ExternalKeyStatus>, Problem> {
    Ok(Json(state.backend.external_key(&tenant).await?))
}

pub(crate) async fn set(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
    Body(spec): Body<ExternalKeySpec>,
) -> Response {
    let result = state.backend.set_external_key(&tenant, spec).await;
    done(tenant, result)
}

pub(crate) async fn rotate(State(state): State<AppState>, Path(tenant): Path<String>) -> Response {
    let result = state.backend.rotate_external_key(&tenant).await;
    done(tenant, result)
}

pub(crate) async fn remove(State(state): State<AppState>, Path(tenant): Path<String>) -> Response {
    let result = state.backend.remove_external_key(&tenant).await;
    done(tenant, result)
}

fn done(target: String, result: Result<(), AdminError>) -> Response {
    let answer = result.map(|()| StatusCode::NO_CONTENT).map_err(Problem::from);
    (Extension(Note { user: None, target: Some(target) }), answer).into_response()
}
