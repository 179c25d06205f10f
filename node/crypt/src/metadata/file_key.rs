//! The key of one database file.

use zeroize::Zeroizing;

use super::{page::PageSealer, xaes::Xaes};
use crate::{
    CryptError,
    derive::derive,
    envelope,
    secret::{MetadataKey, random_array},
};

const PURPOSE: &str = "catalog file key";

/// The key of one database file: random, made with the file, kept beside it under the tenant's metadata key.
/// A new metadata key wraps it anew; no page is rewritten for that.
pub struct FileKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for FileKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FileKey(..)")
    }
}

impl FileKey {
    /// A key for a file that is created now.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(random_array()))
    }

    /// Takes the bytes of a key, for tests.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Wraps it, bound to `context`: which file it is of.
    #[must_use]
    pub fn wrap(&self, metadata: &MetadataKey, context: &[u8]) -> Vec<u8> {
        envelope::seal(metadata.expose(), PURPOSE, context, self.0.as_slice())
    }

    /// Opens what [`FileKey::wrap`] made.
    ///
    /// # Errors
    /// `Refused` for another metadata key or context, `Malformed`.
    pub fn unwrap(metadata: &MetadataKey, context: &[u8], wrapped: &[u8]) -> Result<Self, CryptError> {
        let bytes = envelope::open(metadata.expose(), PURPOSE, context, wrapped)?;
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| CryptError::Malformed(PURPOSE))?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// What seals the file's pages, for one that opens it.
    #[must_use]
    pub fn sealer(&self) -> PageSealer {
        let pages = Xaes::new(&derive(&self.0, b"", &[b"holdfast catalog page v1"]));
        let mask = derive(&self.0, b"", &[b"holdfast write-ahead frame v1"]);
        PageSealer::new(pages, &mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrapped_file_key_opens_only_for_its_file_and_under_its_metadata_key() {
        let metadata = MetadataKey::from_bytes([1; 32]);
        let key = FileKey::generate();
        let wrapped = key.wrap(&metadata, b"p1");
        assert_eq!(*FileKey::unwrap(&metadata, b"p1", &wrapped).unwrap().0, *key.0);
        assert!(FileKey::unwrap(&metadata, b"p2", &wrapped).is_err());
        assert!(FileKey::unwrap(&MetadataKey::from_bytes([2; 32]), b"p1", &wrapped).is_err());
    }
}
