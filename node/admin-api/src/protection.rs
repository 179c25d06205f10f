//! Protection: levels of tenants and buckets, orders to background workers, nodes that are emptied.

use async_trait::async_trait;
use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use holdfast_model::{DriveId, Level, TenantId, UnixMillis, spare::SPARE_DRIVES_MAX};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AdminError, StripeShape,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// What the admin API asks about protection.
#[async_trait]
pub trait ProtectionBackend: Send + Sync + 'static {
    /// Levels of a tenant and its buckets.
    async fn levels(&self, tenant: &str) -> Result<TenantLevels, AdminError>;

    /// Asks for another level. `None` follows the next wider scope.
    async fn set_level(&self, scope: LevelScope<'_>, level: Option<Level>) -> Result<(), AdminError>;

    /// Has stripes that are narrower than the drives allow now cut anew.
    async fn widen(&self) -> Result<(), AdminError>;

    /// Sets how many drives' space is set aside for rebuilding, 0 to 4; `None` leaves it to the cluster.
    async fn set_spare(&self, drives: Option<u8>) -> Result<(), AdminError>;

    /// Changes what is asked of a kind of worker.
    async fn set_worker(&self, kind: &str, change: WorkerChange) -> Result<(), AdminError>;

    /// Whether an audit runs on this node, and what the last one found.
    async fn audit(&self) -> Result<AuditStatus, AdminError>;

    /// Starts an audit on this node, unless one runs.
    async fn start_audit(&self) -> Result<(), AdminError>;

    /// Has all drives of a node emptied; or, with `draining` false, keeps those that were not yet.
    async fn drain_node(&self, name: &str, draining: bool) -> Result<(), AdminError>;
}

/// What a level is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelScope<'a> {
    /// Tenants that have none of their own.
    Cluster,
    /// A tenant, by name: its buckets that have none of their own.
    Tenant(&'a str),
    /// A bucket of a tenant, by their names.
    Bucket(&'a str, &'a str),
}

/// Requested, actual and suggested levels of a tenant, side by side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct TenantLevels {
    /// Its own level; null when it follows the cluster's.
    #[schema(value_type = Option<String>, required = true)]
    pub own: Option<Level>,
    /// What its new stripes are asked to have, where the bucket has no level of its own.
    #[schema(value_type = String, example = "+2d:1n")]
    pub requested: Level,
    /// What suits a cluster of this size.
    #[schema(value_type = String, example = "+2d:1n")]
    pub suggested: Level,
    /// How its new stripes are cut on the nodes that are up; null when none can be written.
    #[schema(required = true)]
    pub stripe: Option<StripeShape>,
    /// Its stripes, in all buckets.
    pub stripes: u64,
    /// Stripes that are still to be cut anew for their level.
    pub pending_stripes: u64,
    /// Whether its stripes have been looked through since the last change of a level; until then the other
    /// figures are of before.
    pub complete: bool,
    /// Its buckets, by name.
    pub buckets: Vec<BucketLevels>,
}

/// Requested and actual level of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BucketLevels {
    /// Its name.
    pub bucket: String,
    /// Its own level; null when it follows the tenant's.
    #[schema(value_type = Option<String>, required = true)]
    pub own: Option<Level>,
    /// What its stripes are asked to have.
    #[schema(value_type = String)]
    pub requested: Level,
    /// What the weakest of its stripes has; null when losing one node may lose it.
    #[schema(value_type = Option<String>, required = true)]
    pub actual: Option<Level>,
    /// Stripes that are still to be cut anew.
    pub pending_stripes: u64,
}

/// Audits of the node that answers: what the drives hold against what the catalog says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditStatus {
    /// One runs now.
    pub running: bool,
    /// What the last one found since the node started.
    #[schema(required = true)]
    pub last: Option<Audit>,
}

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Audit {
    /// When it began.
    #[schema(value_type = u64)]
    pub begun_unix_ms: UnixMillis,
    /// When it ended.
    #[schema(value_type = u64)]
    pub ended_unix_ms: UnixMillis,
    /// Drives that told what they hold.
    pub drives_listed: u64,
    /// Drives that did not: what they should hold counts as missing.
    #[schema(value_type = Vec<String>)]
    pub drives_unreadable: Vec<DriveId>,
    /// Shards on the drives that were listed.
    pub shards: u64,
    /// Stripes of objects, versions and parts of uploads.
    pub stripes: u64,
    /// Of those, the ones that miss a shard: to be compared with the debt that the workers know of.
    pub debt_stripes: u64,
    /// Of those, the ones that miss more than can be rebuilt.
    pub unreadable_stripes: u64,
    /// Objects that cannot be read.
    pub lost_count: u64,
    /// Their names, the first thousand.
    pub lost: Vec<AuditLoss>,
}

/// An object that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditLoss {
    /// Its tenant, 32 hex digits.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// Its bucket.
    pub bucket: String,
    /// Its key.
    pub key: String,
}

/// A level to ask for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewLevel {
    /// `+1n`, `+2d:1n`, `+2n`, `+3d:1n`, `+3d:1n1d`, `+3n`, `+4d:1n`, `+4d:2n`, `+4n`, `2x` to `8x`; null follows
    /// the tenant's or the cluster's.
    #[schema(value_type = Option<String>, example = "+2d:1n")]
    level: Option<Level>,
}

/// How much of the drives' and processors' time a worker may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum WorkerImpact {
    Low,
    Medium,
    High,
}

/// Hours of the day (UTC) in which a worker may run; equal ones are all day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerHours {
    /// The first hour, 0 to 23.
    #[schema(maximum = 23)]
    pub from: u8,
    /// The hour before which it ends, 0 to 23.
    #[schema(maximum = 23)]
    pub until: u8,
}

/// What changes of what is asked of a kind of worker, on all nodes; what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkerChange {
    /// It takes up nothing new.
    pub paused: Option<bool>,
    /// How much it may take.
    pub impact: Option<WorkerImpact>,
    /// When it may run.
    pub hours: Option<WorkerHours>,
}

/// What is asked of a kind of worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WorkerOrder {
    /// `rebuild`, `smartfail`, `repair`, `scrub`, `level`, `rebalance`, `sweep`, `reclaim` or `events`.
    pub kind: String,
    /// It takes up nothing new.
    pub paused: bool,
    /// How much it may take.
    pub impact: WorkerImpact,
    /// When it may run; null is always.
    #[schema(required = true)]
    pub hours: Option<WorkerHours>,
}

pub(crate) async fn levels(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
) -> Result<Json<TenantLevels>, Problem> {
    Ok(Json(state.backend.levels(&tenant).await?))
}

pub(crate) async fn set_cluster_level(
    State(state): State<AppState>,
    Body(new): Body<NewLevel>,
) -> Result<StatusCode, Problem> {
    if new.level.is_none() {
        return Err(Problem::invalid("The cluster has a level: name one."));
    }
    state.backend.set_level(LevelScope::Cluster, new.level).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn set_tenant_level(
    State(state): State<AppState>,
    Path(tenant): Path<String>,
    Body(new): Body<NewLevel>,
) -> Response {
    let result = state.backend.set_level(LevelScope::Tenant(&tenant), new.level).await;
    done(tenant, result)
}

pub(crate) async fn set_bucket_level(
    State(state): State<AppState>,
    Path((tenant, bucket)): Path<(String, String)>,
    Body(new): Body<NewLevel>,
) -> Response {
    let result = state.backend.set_level(LevelScope::Bucket(&tenant, &bucket), new.level).await;
    done(format!("{tenant}/{bucket}"), result)
}

/// How much is set aside for rebuilding.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSpare {
    /// Drives, 0 to 4, the largest ones counting; null for the usual: one where it is at most a fifth of the cluster.
    #[schema(required = true)]
    drives: Option<u8>,
}

pub(crate) async fn set_spare(
    State(state): State<AppState>,
    Body(spare): Body<NewSpare>,
) -> Result<StatusCode, Problem> {
    if spare.drives.is_some_and(|drives| drives > SPARE_DRIVES_MAX) {
        return Err(Problem::invalid("The space of at most 4 drives can be set aside."));
    }
    state.backend.set_spare(spare.drives).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn widen(State(state): State<AppState>) -> Result<StatusCode, Problem> {
    state.backend.widen().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn set_worker(
    State(state): State<AppState>,
    Path(kind): Path<String>,
    Body(change): Body<WorkerChange>,
) -> Response {
    let wrong = change.hours.is_some_and(|hours| hours.from > 23 || hours.until > 23);
    let result = if wrong {
        Err(AdminError::Invalid { what: "hours: from and until are 0 to 23".to_owned() })
    } else {
        state.backend.set_worker(&kind, change).await
    };
    done(kind, result)
}

pub(crate) async fn audit(State(state): State<AppState>) -> Result<Json<AuditStatus>, Problem> {
    Ok(Json(state.backend.audit().await?))
}

pub(crate) async fn start_audit(State(state): State<AppState>) -> Result<StatusCode, Problem> {
    state.backend.start_audit().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn drain_node(State(state): State<AppState>, Path(name): Path<String>) -> Response {
    let result = state.backend.drain_node(&name, true).await;
    done(name, result)
}

pub(crate) async fn keep_node(State(state): State<AppState>, Path(name): Path<String>) -> Response {
    let result = state.backend.drain_node(&name, false).await;
    done(name, result)
}

fn done(target: String, result: Result<(), AdminError>) -> Response {
    let answer = result.map(|()| StatusCode::NO_CONTENT).map_err(Problem::from);
    (Extension(Note { user: None, target: Some(target) }), answer).into_response()
}
