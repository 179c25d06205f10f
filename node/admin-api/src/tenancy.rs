//! A tenant's standing: suspended, limited, destroyed.

use async_trait::async_trait;
use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use holdfast_model::{KeyId, TenantId, TenantLimits, UnixMillis};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AdminError,
    audit::Note,
    guard::Session,
    problem::{Body, Problem},
    state::AppState,
};

/// Longest reason for passing over retentions, in bytes.
const REASON_SIZE_MAX: usize = 1000;

/// What the admin API needs to change a tenant's standing.
#[async_trait]
pub trait TenancyBackend: Send + Sync + 'static {
    /// Refuses a tenant's clients, or serves them again.
    async fn suspend(&self, tenant: &str, suspended: bool) -> Result<(), AdminError>;

    /// What a tenant holds and may hold.
    async fn quota(&self, tenant: &str) -> Result<TenantQuota, AdminError>;

    /// What a tenant may hold from now on.
    async fn set_quota(&self, tenant: &str, quota: Quota) -> Result<(), AdminError>;

    /// What a tenant's clients may ask of the cluster.
    async fn limits(&self, tenant: &str) -> Result<TenantLimits, AdminError>;

    /// What a tenant's clients may ask of the cluster from now on.
    async fn set_limits(&self, tenant: &str, limits: TenantLimits) -> Result<(), AdminError>;

    /// Decides that a tenant is destroyed, for good. Answers when that is decided, not when it is done.
    async fn shred(&self, order: ShredOrder) -> Result<ShredStatus, AdminError>;

    /// Tenants that are being destroyed and that were, the newest first.
    async fn shreds(&self) -> Result<Vec<ShredStatus>, AdminError>;

    /// The certificate that a tenant is destroyed.
    async fn certificate(&self, tenant: TenantId) -> Result<String, AdminError>;
}

/// The order to destroy a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShredOrder {
    /// Its name.
    pub tenant: String,
    /// The operator who asks.
    pub by: String,
    /// Why legal holds and retentions in compliance mode are passed over, if they are to be.
    pub override_retention: Option<String>,
}

/// What a tenant may hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Bytes of content, old versions and parts of uploads included; null or absent: as many as fit.
    pub bytes: Option<u64>,
    /// Objects, old versions and delete markers included; null or absent: any number.
    pub objects: Option<u64>,
}

/// What a tenant holds and may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct TenantQuota {
    /// Bytes it may hold; null: as many as fit.
    #[schema(required = true)]
    pub bytes_max: Option<u64>,
    /// Objects it may hold; null: any number.
    #[schema(required = true)]
    pub objects_max: Option<u64>,
    /// Bytes of content it holds, old versions and parts of uploads included.
    pub used_bytes: u64,
    /// Objects it holds, old versions and delete markers included.
    pub used_objects: u64,
}

/// What a tenant's clients may ask of the whole cluster. Each node enforces its part: the figure divided by the
/// number of nodes, rounded up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests begun in a second; more are answered 503 SlowDown. Null or absent: no limit.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub requests_per_second: Option<u32>,
    /// Requests in progress at once; more are answered 503 SlowDown. Null or absent: no limit.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub requests_at_once: Option<u32>,
    /// Bytes of bodies received in a second; bodies are slowed down to it. Null or absent: no limit.
    #[serde(default)]
    #[schema(minimum = 65536)]
    pub in_bytes_per_second: Option<u64>,
    /// Bytes of bodies sent in a second; answers are slowed down to it. Null or absent: no limit.
    #[serde(default)]
    #[schema(minimum = 65536)]
    pub out_bytes_per_second: Option<u64>,
}

impl From<TenantLimits> for Limits {
    fn from(limits: TenantLimits) -> Self {
        Self {
            requests_per_second: limits.requests_per_second,
            requests_at_once: limits.requests_at_once,
            in_bytes_per_second: limits.in_bytes_per_second,
            out_bytes_per_second: limits.out_bytes_per_second,
        }
    }
}

impl From<Limits> for TenantLimits {
    fn from(limits: Limits) -> Self {
        Self {
            requests_per_second: limits.requests_per_second,
            requests_at_once: limits.requests_at_once,
            in_bytes_per_second: limits.in_bytes_per_second,
            out_bytes_per_second: limits.out_bytes_per_second,
        }
    }
}

/// How far a tenant's destruction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ShredState {
    /// Decided, and under way: the key may still be opened from what is there.
    Pending,
    /// Nothing that is left opens the key.
    Done,
}

/// A tenant that is being destroyed, or was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShredStatus {
    /// 32 hex digits.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// The name it had.
    pub name: String,
    /// How far it has come.
    pub state: ShredState,
    /// What it waits for; null when it is done.
    #[schema(required = true)]
    pub waits_for: Option<String>,
    /// Public names of the versions of its key, oldest first.
    #[schema(value_type = Vec<String>)]
    pub keys: Vec<KeyId>,
    /// The operator who asked.
    pub by: String,
    /// Why legal holds and retentions in compliance mode were passed over; null when none stood in the way.
    #[schema(required = true)]
    pub override_retention: Option<String>,
    /// When it was decided.
    #[schema(value_type = u64)]
    pub begun_unix_ms: UnixMillis,
    /// When the wrapped key was removed.
    #[schema(value_type = Option<u64>, required = true)]
    pub destroyed_unix_ms: Option<UnixMillis>,
    /// Nodes that hold nothing of it any more.
    pub confirmed_by: Vec<String>,
    /// When all was done.
    #[schema(value_type = Option<u64>, required = true)]
    pub finished_unix_ms: Option<UnixMillis>,
}

/// Tenants that are being destroyed and that were.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShredList {
    /// The newest first.
    shreds: Vec<ShredStatus>,
}

/// The word that destroys a tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shred {
    /// The tenant's name once more: what is destroyed does not come back.
    confirm: String,
    /// Why legal holds and retentions in compliance mode are passed over. Without it they forbid this. Stands
    /// in the audit log and in the certificate.
    override_retention: Option<String>,
}

pub(crate) async fn suspend(State(state): State<AppState>, Path(name): Path<String>) -> Response {
    let result = state.backend.suspend(&name, true).await;
    done(name, result)
}

pub(crate) async fn resume(State(state): State<AppState>, Path(name): Path<String>) -> Response {
    let result = state.backend.suspend(&name, false).await;
    done(name, result)
}

pub(crate) async fn quota(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<TenantQuota>, Problem> {
    Ok(Json(state.backend.quota(&name).await?))
}

pub(crate) async fn set_quota(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Body(quota): Body<Quota>,
) -> Response {
    let result = state.backend.set_quota(&name, quota).await;
    done(name, result)
}

pub(crate) async fn limits(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<Limits>, Problem> {
    Ok(Json(state.backend.limits(&name).await?.into()))
}

pub(crate) async fn set_limits(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Body(limits): Body<Limits>,
) -> Response {
    let limits = TenantLimits::from(limits);
    let result = match limits.check() {
        Ok(()) => state.backend.set_limits(&name, limits).await,
        Err(what) => Err(AdminError::Invalid { what }),
    };
    done(name, result)
}

pub(crate) async fn shred(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Extension(session): Extension<Session>,
    Body(order): Body<Shred>,
) -> Response {
    let reason = order.override_retention;
    let too_long =
        reason.as_ref().is_some_and(|reason| reason.trim().is_empty() || reason.len() > REASON_SIZE_MAX);
    let result = if order.confirm != name {
        Err(Problem::invalid("confirm repeats the name of the tenant that is to be destroyed."))
    } else if too_long {
        Err(Problem::invalid(format!("A reason has 1 to {REASON_SIZE_MAX} bytes.")))
    } else {
        let order = ShredOrder { tenant: name.clone(), by: session.claims.user, override_retention: reason };
        state.backend.shred(order).await.map_err(Problem::from)
    };
    let note = Note { user: None, target: Some(name) };
    (Extension(note), result.map(|status| (StatusCode::ACCEPTED, Json(status)))).into_response()
}

pub(crate) async fn shreds(State(state): State<AppState>) -> Result<Json<ShredList>, Problem> {
    Ok(Json(ShredList { shreds: state.backend.shreds().await? }))
}

pub(crate) async fn certificate(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
) -> Result<String, Problem> {
    let id = tenant.parse().map_err(|_| {
        Problem::from(AdminError::NotFound { what: format!("a certificate of tenant {tenant:?}") })
    })?;
    Ok(state.backend.certificate(id).await?)
}

fn done(target: String, result: Result<(), AdminError>) -> Response {
    let answer = result.map(|()| StatusCode::NO_CONTENT).map_err(Problem::from);
    (Extension(Note { user: None, target: Some(target) }), answer).into_response()
}
