//! Objects: joins the catalog (meaning) and the store (bytes).
//!
//! A write streams its body into stripes, waits until every shard is durable, and only then has the
//! catalog refer to it; a read asks the catalog first. What no catalog entry refers to is garbage, and
//! the sweep among the [`workers`] removes it after asking the catalog.

#![forbid(unsafe_code)]

mod ahead;
pub mod api;
mod audit;
pub mod backing;
mod body_reader;
mod body_writer;
mod decides;
mod directory;
mod draft;
pub mod events;
mod family;
pub mod host;
pub mod journal;
pub mod lifecycle;
pub mod ownership;
mod quota_shares;
pub mod sealing;
mod service;
mod stamps;
mod stripes;
mod tenant;
pub mod versioned;
pub mod workers;

pub use audit::{AuditReport, LostObject};
pub use decides::Decides;
pub use directory::{Directory, DirectorySnapshot, TenantEntry};
pub use service::ObjectService;
pub use stripes::StripeIo;
pub use tenant::TenantHandle;
