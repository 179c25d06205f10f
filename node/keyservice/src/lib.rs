//! The key service: the one process of a node that holds the root, the cluster key, tenants' keys and this node's
//! shares; and the client that the node program asks it by.
//!
//! ```text
//! node program ── Client ══ socket pair ══ serve ── Core ── Keyring, ShareStore
//!                   │                               ├── policy: which use, of whose key
//!                supervisor: starts it,             └── uses: every use of a body key, hash-chained
//!                starts it again
//! ```
//!
//! - [`protocol`]: what is asked and answered, and how that travels;
//! - [`policy`]: what may be done with which tenant's key;
//! - [`Core`]: does it;
//! - [`uses`]: the record of uses of body keys;
//! - [`process`]: the service as a process that can do little else;
//! - [`Client`]: asks, and keeps what is no secret at hand.
//!
//! What leaves the service is named in [`protocol::Reply`], and nothing else does: body keys one at a time, keys that
//! are derived for the catalog or by a name, secrets of the cluster by their names, shares for members.

#![forbid(unsafe_code)]

mod client;
mod core;
pub mod policy;
pub mod process;
pub mod protocol;
mod supervisor;
pub mod uses;

pub use client::{Client, RemoteTenant};
pub use core::Core;
pub use protocol::{KeyError, KeyState, Opening, Protect, Purpose, Standing};
pub use supervisor::OpeningOf;
