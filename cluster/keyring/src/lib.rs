//! The root key on this node: unlocked in memory, on disk as this node's share only; and what it wraps.
//!
//! ```text
//! shares (this node's, its peers', or operators') ─> root of an epoch ─> cluster key, tenants' keys
//! ```
//!
//! - [`Keyring`]: keys in memory;
//! - [`HeldShare`], [`ShareSet`], [`Gathering`]: what a node holds of a root, and how it becomes one again;
//! - [`ShareStore`]: the shares in the node's state directory;
//! - [`recovery`]: operators' shares;
//! - [`certificate`]: the word that a tenant's key is destroyed, signed.
//!
//! Invariant: a root is never written whole; with one node, whose threshold is one, its share is the root,
//! and what protects it is the [`Protection`] of the file.

#![forbid(unsafe_code)]

pub mod certificate;
mod keyring;
mod protection;
pub mod recovery;
mod shares;
mod store;

pub use keyring::{ExternalSealing, Keyring, KeyringError};
pub use protection::{Protection, Protector, Seal, StoreError};
pub use shares::{Gathering, HeldShare, PENDING_MAX, Progress, ShareSet, deal};
pub use store::{KEYS_DIR, ShareStore};
