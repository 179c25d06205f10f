//! Objects: joins the catalog (meaning) and the store (bytes).
//!
//! A write streams its body into stripes, waits until every shard is durable, and only then has the
//! catalog refer to it; a read asks the catalog first. What no catalog entry refers to is garbage, and
//! [`sweeper`] removes it after asking the catalog.

#![forbid(unsafe_code)]

pub mod api;
pub mod backing;
mod body_reader;
mod body_writer;
mod directory;
pub mod journal;
pub mod lifecycle;
pub mod ownership;
pub mod sealing;
mod service;
mod stripes;
pub mod sweeper;
mod tenant;
pub mod versioned;
pub mod workers;

pub use directory::{Directory, DirectorySnapshot, TenantEntry};
pub use service::ObjectService;
pub use stripes::StripeIo;
pub use tenant::TenantHandle;
