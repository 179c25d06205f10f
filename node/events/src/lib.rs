//! Sends events of buckets to webhooks: one POST an event, with the message that AWS sends.
//!
//! What a target is (`target`) is checked when it is defined and looked at again for every event: where its name leads
//! to may change, and must never be this machine, its links, or a cloud's metadata service unless the cluster's
//! settings name that network. Redirects are not followed, answers are bounded in time and size.
//!
//! Left out on purpose: queues, retries and pace are the worker's (`holdfast_object::workers`).

#![forbid(unsafe_code)]

mod address;
mod message;
mod target;
mod webhook;

pub use address::is_refused;
pub use message::message;
pub use target::{Target, TargetError};
pub use webhook::{ANSWER_SIZE_MAX, SEND_TIMEOUT, WebhookSender};
