//! What the cluster is: the whole, its nodes, its drives; and health for load balancers.

use axum::{
    Extension, Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ClusterStatus, DeviceStatus, DriveStatus, NodeStatus, Readiness,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// All nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeList {
    /// By number.
    nodes: Vec<NodeStatus>,
}

/// How a node is to leave.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Removal {
    /// Although its drives hold shards, or nobody can tell: what they hold is lost with it.
    #[serde(default)]
    force: bool,
}

/// All drives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DriveList {
    /// By node, in the node's order.
    drives: Vec<NodeDrive>,
    /// Devices that are no drives of the cluster, or not yet, by node.
    devices: Vec<NodeDevice>,
}

/// A device and where it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeDevice {
    /// Name of its node.
    node: String,
    /// The device.
    device: DeviceStatus,
}

/// A drive and where it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeDrive {
    /// Name of its node.
    node: String,
    /// The drive.
    drive: DriveStatus,
}

pub(crate) async fn cluster(State(state): State<AppState>) -> Result<Json<ClusterStatus>, Problem> {
    Ok(Json(state.backend.cluster().await?))
}

pub(crate) async fn nodes(State(state): State<AppState>) -> Result<Json<NodeList>, Problem> {
    Ok(Json(NodeList { nodes: state.backend.cluster().await?.nodes }))
}

pub(crate) async fn drives(State(state): State<AppState>) -> Result<Json<DriveList>, Problem> {
    let nodes = state.backend.cluster().await?.nodes;
    let mut list = DriveList { drives: Vec::new(), devices: Vec::new() };
    for node in nodes {
        let name = || node.name.clone();
        list.drives.extend(node.drives.into_iter().map(|drive| NodeDrive { node: name(), drive }));
        list.devices.extend(node.devices.into_iter().map(|device| NodeDevice { node: name(), device }));
    }
    Ok(Json(list))
}

/// The program runs. Says nothing else: it answers anyone.
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// The cluster's CA.
pub(crate) async fn ca(State(state): State<AppState>) -> String {
    state.backend.ca_pem()
}

/// Whether to send clients here.
pub(crate) async fn readyz(State(state): State<AppState>) -> (StatusCode, &'static str) {
    match state.backend.ready().await {
        Readiness::Ready => (StatusCode::OK, "ready\n"),
        Readiness::NotReady => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}

pub(crate) async fn remove_node(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Body(removal): Body<Removal>,
) -> Response {
    let result = state.backend.remove_node(&name, removal.force).await.map_err(Problem::from);
    let note = Note { user: None, target: Some(name) };
    (Extension(note), result.map(|()| StatusCode::NO_CONTENT)).into_response()
}
