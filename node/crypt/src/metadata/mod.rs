//! Sealing of a tenant's metadata at rest: the commands of its catalog and the pages of its files.
//!
//! ```text
//! metadata key (derived from a tenant key, so it has that key's version)
//!   seals  commands                 before they enter any log
//!   wraps  file key (random, one a database file)
//!            seals   pages          each with a nonce of its own
//!            masks   the checksums in frames of the write-ahead file
//! ```
//!
//! Both seal with XAES-256-GCM ([`xaes`]): its nonces of 192 bits may be drawn at random for ever.

mod command;
mod file_key;
mod page;
mod xaes;

pub use command::CommandCipher;
pub use file_key::FileKey;
pub use page::{PAGE_RESERVE, PageAddress, PageSealer};
