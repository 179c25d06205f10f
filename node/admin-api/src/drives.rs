//! The life of drives: devices that wait for approval, adopting them, finding them in the rack.

use async_trait::async_trait;
use axum::{
    Extension,
    extract::State,
    response::{IntoResponse, Response},
};
use holdfast_model::{ByteCount, DriveId, UnixMillis};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AdminError,
    audit::Note,
    problem::{Body, Problem},
    state::AppState,
};

/// Longest time a light blinks, in minutes.
pub const LOCATE_MINUTES_MAX: u32 = 24 * 60;

/// What the admin API needs of a node for its drives.
#[async_trait]
pub trait DriveBackend: Send + Sync {
    /// Has a device of a node made a drive of the cluster; what is on it is erased only when `erase` is its
    /// serial number. Answers when that has begun.
    async fn adopt(&self, node: &str, device: &str, erase: Option<&str>) -> Result<(), AdminError>;

    /// Has the light of a device blink for so many minutes; with 0, no longer.
    async fn locate(&self, node: &str, device: &str, minutes: u32) -> Result<(), AdminError>;
}

/// A device that is no drive of the cluster, or not yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct DeviceStatus {
    /// Printed on it, or its place.
    pub serial: String,
    /// Where its node finds it.
    pub path: String,
    /// Its size.
    #[schema(value_type = u64)]
    pub size_bytes: ByteCount,
    /// What it is.
    pub standing: DeviceStanding,
    /// Why it is not used, and what to do; null when it waits for approval or is being adopted.
    #[schema(required = true)]
    pub reason: Option<String>,
    /// The drive that its label names.
    #[schema(value_type = Option<String>, required = true)]
    pub drive: Option<DriveId>,
    /// Whether it can be erased and adopted, by naming its serial number.
    pub erasable: bool,
    /// Its light blinks until then; null when it does not.
    #[schema(value_type = Option<u64>, required = true)]
    pub locate_until_unix_ms: Option<UnixMillis>,
}

/// What a device is that is no drive of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeviceStanding {
    /// Blank: waits for approval.
    Waiting,
    /// Being made a drive.
    Adopting,
    /// A drive of another cluster.
    Foreign,
    /// A copy of a drive that is open.
    Duplicate,
    /// An old image of a drive.
    Stale,
    /// A drive that has left the cluster for good.
    Left,
    /// Something else is on it.
    Unknown,
    /// A drive whose labels are damaged.
    Damaged,
    /// It cannot be read or opened.
    Unreadable,
}

/// Which device is to be adopted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adoption {
    /// Name of its node.
    node: String,
    /// Its serial number or path.
    device: String,
    /// Its serial number once more, when it is not blank and what is on it is to be erased.
    #[serde(default)]
    erase: Option<String>,
}

/// Which device is looked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Locating {
    /// Name of its node.
    node: String,
    /// Its serial number, its path, or the id of the drive on it.
    device: String,
    /// How long its light blinks, at most 1440; 0 stops it.
    minutes: u32,
}

pub(crate) async fn adopt(State(state): State<AppState>, Body(adoption): Body<Adoption>) -> Response {
    let Adoption { node, device, erase } = adoption;
    let result = state.backend.adopt(&node, &device, erase.as_deref()).await.map_err(Problem::from);
    let note = Note { user: None, target: Some(format!("{node} {device}")) };
    (Extension(note), result.map(|()| StatusCode::NO_CONTENT)).into_response()
}

pub(crate) async fn locate(State(state): State<AppState>, Body(locating): Body<Locating>) -> Response {
    let Locating { node, device, minutes } = locating;
    let result = if minutes > LOCATE_MINUTES_MAX {
        Err(Problem::invalid("A light blinks for at most 1440 minutes."))
    } else {
        state.backend.locate(&node, &device, minutes).await.map_err(Problem::from)
    };
    let note = Note { user: None, target: Some(format!("{node} {device}")) };
    (Extension(note), result.map(|()| StatusCode::NO_CONTENT)).into_response()
}
