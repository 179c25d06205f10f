//! The catalog's second copy, on the data drives: what `noded recover` rebuilds it from when every system
//! disk is lost.
//!
//! ```text
//! commands applied by a group ──> journal records   sealed, mirrored; the leader's answer waits for them
//! its database files, at times ─> base              sealed pieces, mirrored, and a root that names them
//! ```
//!
//! Every node journals what its replicas apply. The leader's records are mirrored over drives of different
//! nodes, as many copies as the level survives losses and one more, and no command is answered before they
//! have passed their drives' flushes. A follower writes the same commands once more, to one drive of its
//! own, later and in large records: whoever leads next needs not ask what its predecessor had journaled,
//! because the union of all nodes' records has no gap. A base, written by the leader from time to time,
//! makes the journal before it superfluous.
//!
//! Commands and files of a tenant are sealed under the tenant's metadata key; what belongs to no tenant
//! under the cluster's root key.
//!
//! Invariants:
//! - journal records of a group carry the log indices they cover; order is the log's, never a clock's;
//! - a base is complete when its root is there: the root is written after every piece was read back;
//! - only a root on the node's own drives lets that node delete older records from them.

mod base;
mod census;
mod holdings;
mod inventory;
mod keeper;
mod pending;
mod rebuild;
mod record;
mod sections;
mod verdict;

use std::{io, path::Path};

use holdfast_model::{StripeId, TenantId};
use serde::{Deserialize, Serialize};

pub use base::BaseFile;
pub use holdfast_format::CATALOG_OWNER;
pub use keeper::{Journal, JournalParts, JournalStatus, Standing};
pub use pending::JournaledMachine;
pub use rebuild::{FoundBase, FoundRecords, Replayed};

/// Whose key seals a command or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// The cluster's root key.
    Cluster,
    /// A tenant's metadata key.
    Tenant(TenantId),
}

/// Seals and opens what goes into catalog records. `id` is the record's, and binds what is sealed to it.
pub trait CatalogKeys: Send + Sync + 'static {
    /// Whether the owner's key is known here.
    fn has(&self, owner: Owner) -> bool;

    /// `None` while the owner's key is not known here.
    fn seal(&self, owner: Owner, id: &StripeId, plain: &[u8]) -> Option<Vec<u8>>;

    /// # Errors
    /// A text that says why it does not open.
    fn open(&self, owner: Owner, id: &StripeId, sealed: &[u8]) -> Result<Vec<u8>, String>;
}

/// Where a group's state can be copied from while it is in use.
pub trait BaseSource: Send + Sync + 'static {
    /// Copies every file of the group's state, as of now or later, into the empty directory `dir`. Blocking.
    ///
    /// # Errors
    /// I/O.
    fn copy_to(&self, dir: &Path) -> io::Result<Vec<BaseFile>>;
}
