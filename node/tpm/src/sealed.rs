//! A key as it lies on the disk, sealed to a TPM.
//!
//! | size | field   | meaning                                                                      |
//! |-----:|---------|------------------------------------------------------------------------------|
//! |    1 | version | 1                                                                            |
//! |  2+n | storage | public area of the storage key that it was sealed under (TPM2B_PUBLIC)       |
//! |  2+n | public  | public area of the sealed object (TPM2B_PUBLIC)                              |
//! |  2+n | private | its private area, which that storage key alone opens (TPM2B_PRIVATE)         |
//!
//! Lengths are big-endian, as the TPM has them. Nothing in it is secret.

use crate::{error::TpmError, wire};

const VERSION: u8 = 1;

/// Longest area, in bytes. Those here have about 100 and 200.
const AREA_SIZE_MAX: usize = 1024;

/// A sealed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    pub(crate) storage: Vec<u8>,
    pub(crate) public: Vec<u8>,
    pub(crate) private: Vec<u8>,
}

impl SealedKey {
    /// As it is kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        for area in [&self.storage, &self.public, &self.private] {
            wire::put_sized(&mut bytes, area);
        }
        bytes
    }

    /// Reads what [`SealedKey::encode`] wrote.
    ///
    /// # Errors
    /// `NotSealed`.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = wire::Reader::new(bytes);
        let mut read = || {
            (reader.u8()? == VERSION).then_some(())?;
            let mut area = || Some(reader.sized().filter(|area| area.len() <= AREA_SIZE_MAX)?.to_vec());
            let sealed = Self { storage: area()?, public: area()?, private: area()? };
            reader.end()?;
            Some(sealed)
        };
        read().ok_or(TpmError::NotSealed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sealed_key_is_whole_or_none() {
        let sealed = SealedKey { storage: vec![1; 90], public: vec![2; 50], private: vec![3; 200] };
        let bytes = sealed.encode();
        assert_eq!(SealedKey::parse(&bytes).unwrap(), sealed);
        for length in 0..bytes.len() {
            assert!(SealedKey::parse(&bytes[..length]).is_err());
        }
        assert!(SealedKey::parse(&[&bytes[..], &[0]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn what_parses_is_written_as_it_was(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(sealed) = SealedKey::parse(&bytes) {
                prop_assert_eq!(sealed.encode(), bytes);
            }
        }
    }
}
