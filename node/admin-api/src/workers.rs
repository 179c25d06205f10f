//! Background work: what the workers of all nodes do, how much redundancy is owed, and what an operator may
//! start.

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use holdfast_model::{ByteCount, DriveId, NodeId, TenantId};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{audit::Note, problem::Problem, protection::WorkerOrder, state::AppState};

/// Redundancy owed, and who works on it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WorkStatus {
    /// Stripes that have fewer readable shards than their level asks for.
    pub debt_stripes: u64,
    /// Of those, the ones that cannot be read now at all.
    pub unreadable_stripes: u64,
    /// Shards on drives that are to be emptied.
    pub draining_shards: u64,
    /// Whether every partition has been counted by the leader of its group: otherwise the sums are too low.
    pub complete: bool,
    /// Debt of each tenant that has some.
    pub tenants: Vec<TenantDebt>,
    /// What is asked of each kind of worker.
    pub orders: Vec<WorkerOrder>,
    /// Workers of all nodes, idle ones too.
    pub workers: Vec<WorkerStatus>,
}

/// One tenant's debt.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TenantDebt {
    /// The tenant.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// Stripes by how many of their shards cannot be read now.
    pub by_lost_shards: Vec<LostShards>,
}

/// Stripes that miss so many shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct LostShards {
    /// Shards that cannot be read.
    pub lost: u8,
    /// Stripes.
    pub stripes: u64,
}

/// One worker of one node.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct WorkerStatus {
    /// The node's number.
    #[schema(value_type = u64)]
    pub node: NodeId,
    /// `rebuild`, `smartfail`, `repair`, `scrub`, `level`, `rebalance`, `sweep`, `reclaim` or `events`.
    pub kind: String,
    /// Whether it is at work now; otherwise the figures are of its last run.
    pub working: bool,
    /// Whether an order, or the hour, keeps it from taking up anything.
    pub held: bool,
    /// Stripes, or shards for a scrub, dealt with in this run.
    pub done: u64,
    /// Those left.
    pub left: u64,
    /// Those that could not be dealt with; they are tried again.
    pub failed: u64,
    /// Bytes read and written.
    #[schema(value_type = u64)]
    pub bytes: ByteCount,
    /// Bytes a second.
    #[schema(value_type = u64)]
    pub bytes_per_second: ByteCount,
    /// How long this run takes, or took.
    pub elapsed_seconds: u64,
    /// How long it will take at this rate.
    #[schema(required = true)]
    pub remaining_seconds: Option<u64>,
    /// What holds it up.
    #[schema(required = true)]
    pub trouble: Option<String>,
}

pub(crate) async fn show(State(state): State<AppState>) -> Result<Json<WorkStatus>, Problem> {
    Ok(Json(state.backend.work().await?))
}

pub(crate) async fn scrub(State(state): State<AppState>) -> Result<StatusCode, Problem> {
    state.backend.scrub_now().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn drain(State(state): State<AppState>, Path(drive): Path<String>) -> Response {
    let result = set(&state, &drive, true).await;
    (Extension(Note { user: None, target: Some(drive) }), result).into_response()
}

pub(crate) async fn keep(State(state): State<AppState>, Path(drive): Path<String>) -> Response {
    let result = set(&state, &drive, false).await;
    (Extension(Note { user: None, target: Some(drive) }), result).into_response()
}

async fn set(state: &AppState, drive: &str, draining: bool) -> Result<StatusCode, Problem> {
    let id: DriveId = drive.parse().map_err(|_| {
        Problem::invalid("A drive's id is 32 hexadecimal digits, as GET /api/v1/drives shows it.")
    })?;
    state.backend.drain_drive(id, draining).await?;
    Ok(StatusCode::NO_CONTENT)
}
