//! The admin API: typed routes, operators' sessions and the embedded web console.
//!
//! What is behind it is an [`AdminBackend`], which the node program implements; this crate knows HTTP, the
//! node program knows the cluster.
//!
//! Invariants:
//! - default deny: a route exists only as a row of the table in [`routes`], with the role it asks for and the
//!   reason; nothing under `/api/` answers without a session except the login, the CA's certificate and the lock;
//! - passwords are checked off the async threads, at most two at a time, with the same work for an unknown
//!   user as for a wrong password;
//! - a session is a signed token that every node can check; it ends at its time, and at once when the
//!   operator's password or record changes;
//! - every write and every login is an audit event, whether it was allowed or not;
//! - secrets ([`Secret`]) are never printed by `Debug` and never cached by a browser.

#![forbid(unsafe_code)]

mod access_keys;
mod accounts;
mod audit;
mod backend;
mod backoff;
mod drives;
mod error;
mod events;
mod external_keys;
mod guard;
mod headers;
mod keys;
mod locked;
mod login;
mod metrics;
mod openapi;
mod partitions;
mod password;
mod problem;
mod protection;
pub mod routes;
mod server;
mod session;
mod state;
mod status;
mod tenancy;
mod tenants;
mod web;
mod workers;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware};

pub use access_keys::{AccessKeyBackend, AccessKeyBounds, AccessKeyStatus};
pub use backend::{
    AccessKeyPair, AccountStatus, AdminBackend, AilingReplica, Capacity, ClusterStatus, CreatedAccount,
    CreatedTenant, DriveState, DriveStatus, DriveUsage, GroupStatus, JoinTokenInfo, LevelStatus, NodeState,
    NodeStatus, OperatorRecord, Readiness, Role, Secret, ServiceUrls, StripeShape, TenantStanding,
    TenantStatus,
};
pub use drives::{DeviceStanding, DeviceStatus, DriveBackend, LOCATE_MINUTES_MAX};
pub use error::AdminError;
pub use events::{EventBackend, EventStatus, WebhookSpec, WebhookStatus};
pub use external_keys::{ExternalKeyBackend, ExternalKeySpec, ExternalKeyState, ExternalKeyStatus};
pub use keys::{KeyAdmin, KeysStatus, RecoveryShares, RecoveryStatus, ShareHolder};
pub use locked::{
    LockState, LockStatus, LockedBackend, ShareText, UnlockError, UnlockRequest, locked_router,
    locked_s3_router,
};
pub use metrics::serve_metrics;
pub use openapi::document as openapi_document;
pub use partitions::{PartitionBackend, PartitionState, PartitionStatus};
pub use password::{HashPasswordError, hash_password};
pub use protection::{
    Audit, AuditLoss, AuditStatus, BucketLevels, LevelScope, ProtectionBackend, TenantLevels, WorkerChange,
    WorkerHours, WorkerImpact, WorkerOrder,
};
pub use server::serve;
pub use tenancy::{Quota, ShredOrder, ShredState, ShredStatus, TenancyBackend, TenantQuota};
pub use web::CONSOLE_INCLUDED;
pub use workers::{LostShards, TenantDebt, WorkStatus, WorkerStatus};

/// Largest request body in bytes. The largest legitimate one is a login.
const BODY_SIZE_MAX: usize = 16 * 1024;

/// The whole service: API, health, console. Hand it to [`serve`].
pub fn router(backend: Arc<dyn AdminBackend>) -> Router {
    let state = state::AppState::new(backend);
    routes::mount(&state)
        .fallback(web::serve)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_SIZE_MAX))
        .layer(middleware::map_response(headers::secure))
        .with_state(state)
}
