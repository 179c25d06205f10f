//! What the cluster is: the whole, its nodes, its drives; and health for load balancers.

use axum::{Json, extract::State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{ClusterStatus, DriveStatus, NodeStatus, Readiness, problem::Problem, state::AppState};

/// All nodes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NodeList {
    /// By number.
    nodes: Vec<NodeStatus>,
}

/// All drives.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DriveList {
    /// By node, in the node's order.
    drives: Vec<NodeDrive>,
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
    let drives = nodes
        .into_iter()
        .flat_map(|node| {
            let name = node.name;
            node.drives.into_iter().map(move |drive| NodeDrive { node: name.clone(), drive })
        })
        .collect();
    Ok(Json(DriveList { drives }))
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
