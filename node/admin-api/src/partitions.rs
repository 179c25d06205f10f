//! The partitions of a tenant's catalog: how large they are, and splitting one.

use async_trait::async_trait;
use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use holdfast_model::{GroupId, PartitionId};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AdminError,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// What the admin API needs to show and split partitions.
#[async_trait]
pub trait PartitionBackend: Send + Sync + 'static {
    /// A tenant's partitions, oldest first.
    async fn partitions(&self, tenant: &str) -> Result<Vec<PartitionStatus>, AdminError>;

    /// Has one split, the largest when none is named; the number of the new one. Answers when that is decided, not
    /// when it is done.
    async fn split_partition(
        &self,
        tenant: &str,
        partition: Option<PartitionId>,
    ) -> Result<PartitionId, AdminError>;
}

/// Where a partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PartitionState {
    /// It has a number and is not split off yet.
    ToBeSplit,
    /// It works, and still holds rows of keys that are another's since a split.
    Clearing,
    /// It works, and holds its own.
    Settled,
}

/// A partition of a tenant's catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct PartitionStatus {
    /// Its number.
    #[schema(value_type = u64)]
    pub partition: PartitionId,
    /// The Raft group that keeps it.
    #[schema(value_type = u32)]
    pub group: GroupId,
    /// The node that leads that group, as far as the node that answers knows.
    #[schema(required = true)]
    pub leader: Option<String>,
    /// The partition it was split off from.
    #[schema(value_type = Option<u64>, required = true)]
    pub split_from: Option<PartitionId>,
    /// Where it stands.
    pub state: PartitionState,
    /// First hash of the keys it holds, of 65,536; null until it is split off.
    #[schema(required = true)]
    pub hash_from: Option<u32>,
    /// Behind the last.
    #[schema(required = true)]
    pub hash_until: Option<u32>,
    /// Versions it holds, delete markers included.
    pub versions: u64,
    /// Bytes of content of these and of parts of uploads.
    pub bytes: u64,
}

/// Partitions of a tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PartitionList {
    /// The oldest first.
    partitions: Vec<PartitionStatus>,
}

/// Which partition to split.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SplitPartition {
    /// Absent: the largest.
    #[schema(value_type = Option<u64>)]
    partition: Option<PartitionId>,
}

/// The partition that is being split off.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NewPartition {
    /// Its number.
    #[schema(value_type = u64)]
    partition: PartitionId,
}

pub(crate) async fn list(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<PartitionList>, Problem> {
    Ok(Json(PartitionList { partitions: state.backend.partitions(&name).await? }))
}

pub(crate) async fn split(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Body(order): Body<SplitPartition>,
) -> Response {
    let result = state.backend.split_partition(&name, order.partition).await;
    let answer = result
        .map(|partition| (StatusCode::ACCEPTED, Json(NewPartition { partition })))
        .map_err(Problem::from);
    (Extension(Note { user: None, target: Some(name) }), answer).into_response()
}
