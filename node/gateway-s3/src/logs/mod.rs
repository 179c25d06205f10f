//! Access logs: a line for each request about a bucket that logs, delivered as objects into the bucket it names.
//!
//! ```text
//! request ends ── line ── Book: batches in memory, bounded ── Courier: put into the target, as its owner
//!                             └─ full: lines are dropped, and counted
//! ```
//!
//! Delivery is best effort, as AWS has it: a node that dies takes the lines of its last minutes with it. One that is
//! stopped delivers them first. Nothing here holds a request up.

mod book;
mod courier;
mod line;
mod names;

use std::{sync::Arc, time::Duration};

use holdfast_access::text::CanonicalId;
use holdfast_model::TenantId;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    book::Book,
    courier::Courier,
    line::{Entry, Head, Tls},
    names::of as name,
};

/// Lines that are not delivered yet, in bytes, of all buckets. One more is dropped.
const LINES_SIZE_MAX: usize = 32 * 1024 * 1024;

/// A batch of this size is delivered at once, in bytes.
const BATCH_SIZE: usize = 1024 * 1024;

/// How often lines are delivered however few they are: every five minutes of an ordinary day.
pub(crate) const DELIVERIES_A_DAY: u32 = 288;

/// Longest line in bytes. A longer one is dropped.
const LINE_SIZE_MAX: usize = 32 * 1024;

/// How often batches are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// How long one object may take to be delivered.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest prefix of logs in bytes: what is added to it, a partition's path and a name, fits a key.
pub(crate) const PREFIX_SIZE_MAX: usize = 700;

const _: () = assert!(LINE_SIZE_MAX < BATCH_SIZE && BATCH_SIZE < LINES_SIZE_MAX);
const _: () = assert!(PREFIX_SIZE_MAX + 300 <= holdfast_model::limits::KEY_SIZE_MAX);

/// Where a bucket's log goes; stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Logging {
    /// The bucket that takes it.
    pub bucket: String,
    /// What its objects' keys begin with.
    pub prefix: String,
    /// What follows.
    pub naming: Naming,
}

/// How log objects are named behind their prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Naming {
    /// `2026-01-31-23-59-59-UNIQUE`
    Simple,
    /// `ACCOUNT/REGION/BUCKET/2026/01/31/...`, by the day of the requests.
    ByEvent,
    /// The same by the day of delivery.
    ByDelivery,
}

/// What is known of a request about a bucket that logs, as soon as the bucket was found.
#[derive(Debug)]
pub(crate) struct LogTo {
    pub tenant: TenantId,
    /// Owner of both buckets.
    pub owner: CanonicalId,
    /// The owner's account number.
    pub account: String,
    /// Who asked; `-` is nobody.
    pub requester: String,
    pub logging: Arc<Logging>,
}
