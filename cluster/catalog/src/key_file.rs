//! The key file of a partition, beside its database: `p7.key` of `p7.sqlite`.
//!
//! Version 1; integers are little-endian.
//!
//! | offset | size | field     | meaning                                                    |
//! |-------:|-----:|-----------|------------------------------------------------------------|
//! |      0 |    8 | magic     | `HFPKEY` and two zero bytes                                |
//! |      8 |    2 | version   | 1                                                          |
//! |     10 |    2 | length    | of the wrapped key, in bytes                               |
//! |     12 |    4 | key       | version of the tenant's key that wraps                     |
//! |     16 |    8 | partition |                                                            |
//! |     24 |   16 | tenant    |                                                            |
//! |     40 |   16 | database  |                                                            |
//! |     56 |    n | wrapped   | the file's key under the metadata key, bound to bytes 12..56 |
//! |   56+n |    4 | checksum  | CRC-32C of all before                                      |
//!
//! Written whole or not at all, before the database is created.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use holdfast_crypt::{CryptError, FileKey};
use holdfast_model::{DatabaseId, PartitionId, TenantId};

use crate::{
    keys::{KeyVersion, MetadataSeal},
    partition::Identity,
    sqlite::{beside, sync_dir},
};

const MAGIC: &[u8; 8] = b"HFPKEY\0\0";
const VERSION: u16 = 1;
const HEADER_SIZE: usize = 56;
const CHECKSUM_SIZE: usize = 4;

/// What a key file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyFile {
    /// Version of the tenant's key that wraps.
    pub(crate) key: KeyVersion,
    pub(crate) identity: Identity,
    wrapped: Vec<u8>,
}

/// Name of a partition's key file.
pub(crate) fn file_name(partition: PartitionId) -> String {
    format!("{partition}.key")
}

/// The partition whose key file has this name.
pub(crate) fn partition_of(name: &str) -> Option<PartitionId> {
    let number = name.strip_prefix('p')?.strip_suffix(".key")?;
    number.parse().ok().map(PartitionId::new).filter(|id| file_name(*id) == name)
}

impl KeyFile {
    /// Wraps the key of a partition's file.
    pub(crate) fn wrap(identity: Identity, key: &FileKey, seal: &MetadataSeal) -> Self {
        let wrapped = key.wrap(&seal.key, &context(seal.version, &identity));
        Self { key: seal.version, identity, wrapped }
    }

    /// The key in it.
    ///
    /// # Errors
    /// When `seal` is of another version or tenant, or the file is not what was written.
    pub(crate) fn unwrap(&self, seal: &MetadataSeal) -> Result<Arc<FileKey>, CryptError> {
        FileKey::unwrap(&seal.key, &context(self.key, &self.identity), &self.wrapped).map(Arc::new)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_SIZE + self.wrapped.len() + CHECKSUM_SIZE);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        let length = u16::try_from(self.wrapped.len()).expect("a wrapped key is an envelope of 32 bytes");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&context(self.key, &self.identity));
        out.extend_from_slice(&self.wrapped);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (whole, checksum) = bytes.split_last_chunk::<CHECKSUM_SIZE>()?;
        if whole.len() < HEADER_SIZE || crc32c::crc32c(whole).to_le_bytes() != *checksum {
            return None;
        }
        let (header, wrapped) = whole.split_at(HEADER_SIZE);
        let length = usize::from(u16::from_le_bytes([header[10], header[11]]));
        if &header[..8] != MAGIC || header[8..10] != VERSION.to_le_bytes() || wrapped.len() != length {
            return None;
        }
        let id = |at: usize| -> [u8; 16] { header[at..at + 16].try_into().expect("16 bytes of the header") };
        let number = u64::from_le_bytes(header[16..24].try_into().expect("8 bytes of the header"));
        Some(Self {
            key: KeyVersion::from_le_bytes(header[12..16].try_into().expect("4 bytes of the header")),
            identity: Identity {
                partition: PartitionId::new(number),
                tenant: TenantId::from_bytes(id(24)),
                database_id: DatabaseId::from_bytes(id(40)),
            },
            wrapped: wrapped.to_vec(),
        })
    }

    /// Reads the key file at `path`.
    ///
    /// # Errors
    /// I/O; `InvalidData` when it is damaged, or of a newer release.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        Self::parse(&fs::read(path)?).ok_or_else(|| {
            let text = format!("{} is damaged, or was written by a newer release", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    /// Writes it into `dir`, durably, whole or not at all.
    ///
    /// # Errors
    /// I/O.
    pub(crate) fn store(&self, dir: &Path) -> io::Result<PathBuf> {
        let path = dir.join(file_name(self.identity.partition));
        let new = beside(&path, ".new");
        let mut file = File::create(&new)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync_dir(dir)?;
        Ok(path)
    }
}

/// Bytes 12..56 of the file: what the wrapped key is bound to.
fn context(key: KeyVersion, identity: &Identity) -> [u8; 44] {
    let mut out = [0; 44];
    out[..4].copy_from_slice(&key.to_le_bytes());
    out[4..12].copy_from_slice(&identity.partition.get().to_le_bytes());
    out[12..28].copy_from_slice(identity.tenant.as_bytes());
    out[28..].copy_from_slice(identity.database_id.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use holdfast_crypt::MetadataKey;

    use super::*;

    fn identity() -> Identity {
        Identity {
            partition: PartitionId::new(7),
            tenant: TenantId::from_bytes([1; 16]),
            database_id: DatabaseId::from_bytes([2; 16]),
        }
    }

    #[test]
    fn a_key_file_opens_under_its_metadata_key_for_its_own_partition() {
        let dir = tempfile::tempdir().unwrap();
        let seal = MetadataSeal::new(3, MetadataKey::from_bytes([9; 32]));
        let written = KeyFile::wrap(identity(), &FileKey::generate(), &seal);
        let path = written.store(dir.path()).unwrap();
        let read = KeyFile::load(&path).unwrap();
        assert_eq!(read, written);
        read.unwrap(&seal).unwrap();
        let other = Identity { partition: PartitionId::new(8), ..identity() };
        assert!(KeyFile { identity: other, ..read.clone() }.unwrap(&seal).is_err());
        assert!(KeyFile { key: 4, ..read.clone() }.unwrap(&seal).is_err());
        assert!(read.unwrap(&MetadataSeal::new(3, MetadataKey::from_bytes([8; 32]))).is_err());
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(KeyFile::parse(&changed), None, "byte {at}");
            assert_eq!(KeyFile::parse(&whole[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn names_are_of_one_partition_each() {
        assert_eq!(partition_of("p7.key"), Some(PartitionId::new(7)));
        for name in ["p07.key", "7.key", "p7.sqlite", "p7.key.new"] {
            assert_eq!(partition_of(name), None, "{name}");
        }
    }
}
