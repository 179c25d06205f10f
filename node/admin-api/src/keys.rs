//! Keys of the cluster: how the root is split, recovery shares, rotation. Never a key, and shares once.

use async_trait::async_trait;
use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use holdfast_model::{KeyId, UnixMillis};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AdminError, LockStatus, Secret,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// Recovery shares at most.
const RECOVERY_SHARES_MAX: u8 = 32;

/// What the admin API needs of a node's keys.
#[async_trait]
pub trait KeyAdmin: Send + Sync {
    /// Whether this node has its keys.
    fn lock(&self) -> LockStatus;

    /// Roots, shares and who holds them.
    async fn status(&self) -> Result<KeysStatus, AdminError>;

    /// How many shares give the root; `None`: a majority of the nodes.
    async fn set_threshold(&self, threshold: Option<u8>) -> Result<(), AdminError>;

    /// Fresh recovery shares for operators; the ones before stay valid until the root is rotated.
    async fn issue_recovery(&self, threshold: u8, shares: u8) -> Result<RecoveryShares, AdminError>;

    /// A new root in place of the current one. Answers when the new one is in force.
    async fn rotate_root(&self) -> Result<(), AdminError>;

    /// One more version of a tenant's key, which wraps from then on.
    async fn rotate_tenant(&self, tenant: &str) -> Result<(), AdminError>;
}

/// The keys of the cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct KeysStatus {
    /// Version of the root that is in force.
    pub root_epoch: u32,
    /// Its public name.
    #[schema(value_type = String)]
    pub root_id: KeyId,
    /// Since when.
    #[schema(value_type = u64)]
    pub since_unix_ms: UnixMillis,
    /// Roots before it that are not let go yet, by version.
    pub retiring: Vec<u32>,
    /// Shares that give the root.
    pub threshold: u8,
    /// The threshold that was asked for; null: a majority of the nodes.
    #[schema(required = true)]
    pub threshold_wanted: Option<u8>,
    /// Every node and its share.
    pub nodes: Vec<ShareHolder>,
    /// The public key that signs certificates of destruction, 64 hex digits: keep it where they are verified.
    pub certificate_key: String,
    /// The recovery shares given out last; null when there are none.
    #[schema(required = true)]
    pub recovery: Option<RecoveryStatus>,
}

/// A node and its share of the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShareHolder {
    /// Its name.
    pub node: String,
    /// Whether it has its share of the splitting in force; null when it does not answer, or its shares are
    /// sealed.
    #[schema(required = true)]
    pub has_share: Option<bool>,
    /// What keeps its share from whoever has its disk: `passphrase`, or `file` for nothing but the file's
    /// mode; null when it does not answer.
    #[schema(required = true)]
    pub protection: Option<String>,
    /// Whether it is locked; null when it does not answer.
    #[schema(required = true)]
    pub locked: Option<bool>,
}

/// Recovery shares that were given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct RecoveryStatus {
    /// When.
    #[schema(value_type = u64)]
    pub issued_unix_ms: UnixMillis,
    /// How many are needed.
    pub threshold: u8,
    /// How many there are.
    pub shares: u8,
    /// Whether they are of the root in force. If not they are worthless: issue new ones.
    pub valid: bool,
}

/// Recovery shares, shown this one time.
#[derive(Debug, Serialize, ToSchema)]
pub struct RecoveryShares {
    /// How many are needed.
    pub threshold: u8,
    /// Version of the root they give.
    pub root_epoch: u32,
    /// Its public name.
    #[schema(value_type = String)]
    pub root_id: KeyId,
    /// The shares: one for each operator, on paper, apart from each other.
    pub shares: Vec<Secret>,
}

/// A threshold to set.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewThreshold {
    /// Shares that give the root; null or absent: a majority of the nodes.
    #[schema(minimum = 1)]
    threshold: Option<u8>,
}

/// Recovery shares to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRecovery {
    /// How many are needed.
    #[schema(minimum = 1, maximum = 32)]
    threshold: u8,
    /// How many to make.
    #[schema(minimum = 1, maximum = 32)]
    shares: u8,
}

pub(crate) async fn lock(State(state): State<AppState>) -> Json<LockStatus> {
    Json(state.backend.keys().lock())
}

pub(crate) async fn show(State(state): State<AppState>) -> Result<Json<KeysStatus>, Problem> {
    Ok(Json(state.backend.keys().status().await?))
}

pub(crate) async fn set_threshold(
    State(state): State<AppState>,
    Body(new): Body<NewThreshold>,
) -> Result<StatusCode, Problem> {
    if new.threshold == Some(0) {
        return Err(Problem::invalid("A threshold is one share or more."));
    }
    state.backend.keys().set_threshold(new.threshold).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn issue_recovery(
    State(state): State<AppState>,
    Body(new): Body<NewRecovery>,
) -> Result<Response, Problem> {
    if new.threshold == 0 || new.threshold > new.shares || new.shares > RECOVERY_SHARES_MAX {
        return Err(Problem::invalid(format!(
            "Of up to {RECOVERY_SHARES_MAX} shares, one or more and not more than all are needed; got {} of {}.",
            new.threshold, new.shares
        )));
    }
    let shares = state.backend.keys().issue_recovery(new.threshold, new.shares).await?;
    Ok((StatusCode::CREATED, Json(shares)).into_response())
}

pub(crate) async fn rotate_root(State(state): State<AppState>) -> Result<StatusCode, Problem> {
    state.backend.keys().rotate_root().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn rotate_tenant(State(state): State<AppState>, Path(tenant): Path<String>) -> Response {
    let result = state.backend.keys().rotate_tenant(&tenant).await.map_err(Problem::from);
    let note = Note { user: None, target: Some(tenant) };
    (Extension(note), result.map(|()| StatusCode::NO_CONTENT)).into_response()
}
