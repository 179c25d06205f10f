//! What is in a catalog record once its header is off: sealed sections, one for each owner.
//!
//! Postcard of `Vec<Section>`; what is sealed in a section is postcard as well: journaled commands, a piece
//! of a file, or a base's table of contents. The shapes are published with version 1 of the record header:
//! a change is a new version of that.

use bytes::Bytes;
use holdfast_model::StripeId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{CatalogKeys, Owner};

/// A sealed part of a record.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Section {
    pub owner: Owner,
    pub sealed: Bytes,
}

/// A command that a group applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JournaledCommand {
    /// Log index of its entry.
    pub index: u64,
    /// Its position in the entry.
    pub position: u32,
    /// As it was proposed.
    pub command: Bytes,
}

/// A piece of a file of a base.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FilePiece {
    pub file: String,
    pub offset: u64,
    pub bytes: Bytes,
}

/// Table of contents of a base.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BaseContents {
    pub files: Vec<FileEntry>,
}

/// A file of a base.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub name: String,
    pub owner: Owner,
    pub size: u64,
    /// Part number of its first piece; the others follow.
    pub first_part: u32,
    pub pieces: u32,
    pub sha256: [u8; 32],
}

/// Why sections do not open.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum SectionError {
    #[error("record {0} does not parse: {1}")]
    Malformed(StripeId, String),
    #[error("record {id}: what {owner:?} owns in it does not open: {reason}")]
    Sealed { id: StripeId, owner: Owner, reason: String },
}

/// Seals a value for its owner; `None` while the owner's key is not known.
pub(super) fn seal<T: Serialize>(
    keys: &dyn CatalogKeys,
    owner: Owner,
    id: &StripeId,
    value: &T,
) -> Option<Section> {
    keys.seal(owner, id, &encode(value)).map(|sealed| Section { owner, sealed: sealed.into() })
}

/// Opens what [`seal`] made.
pub(super) fn open<T: DeserializeOwned>(
    keys: &dyn CatalogKeys,
    id: &StripeId,
    section: &Section,
) -> Result<T, SectionError> {
    let owner = section.owner;
    let plain = keys.open(owner, id, &section.sealed).map_err(|reason| SectionError::Sealed {
        id: *id,
        owner,
        reason,
    })?;
    decode(id, &plain)
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("these shapes have nothing that postcard refuses, and a Vec grows")
}

pub(super) fn decode<T: DeserializeOwned>(id: &StripeId, bytes: &[u8]) -> Result<T, SectionError> {
    postcard::from_bytes(bytes).map_err(|error| SectionError::Malformed(*id, error.to_string()))
}
