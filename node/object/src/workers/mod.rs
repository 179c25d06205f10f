//! Background work that keeps the promises about what is stored: rebuild, repair, scrub; and lifecycle
//! rules.
//!
//! ```text
//! drives lost or to be emptied ──> rebuild ─┐
//! reads and scrubs that find bad shards ──> repair ─┴─> relocate: copy or rebuild, read back, switch
//! ```
//!
//! Each looks at the catalog and the drives anew, so any of them may be stopped at any point and started
//! elsewhere. What they do and what debt they know of is on the [`Board`].

mod absent;
mod lifecycle;
mod rebuild;
mod relocate;
mod repair;
mod scrub;
mod status;

use std::sync::Arc;

use holdfast_model::NodeId;
use holdfast_store::Found;
use tokio_util::sync::CancellationToken;

pub use absent::{DRIVE_GRACE, KnownDrive, NODE_GRACE, Standing};
pub use status::{Board, Debt, Kind, PartitionDebt, Progress, WorkerStatus};

use crate::service::ObjectService;

/// Runs all workers until cancelled.
pub async fn run(service: Arc<ObjectService>, node: NodeId, found: Found, stop: CancellationToken) {
    tokio::join!(
        rebuild::run(Arc::clone(&service), node, stop.clone()),
        repair::run(Arc::clone(&service), found, stop.clone()),
        lifecycle::run(Arc::clone(&service), node, stop.clone()),
        scrub::run(service, node, stop),
    );
}
