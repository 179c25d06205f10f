//! The checksums S3 clients send with content: CRC-32, CRC-32C, CRC-64/NVME, SHA-1 and SHA-256.
//!
//! Values travel base64-encoded, big-endian. A multipart object's checksum is either FULL_OBJECT (of
//! all bytes; CRCs combine without the bytes) or COMPOSITE (a hash of the parts' hashes, written
//! `value-N` for N parts).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use crc_fast::CrcAlgorithm;
use ring::digest;

/// A checksum algorithm of S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// CRC-32 (ISO HDLC).
    Crc32,
    /// CRC-32C (Castagnoli).
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl Algorithm {
    /// All of them, in the order AWS documents.
    pub const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// As in `x-amz-checksum-algorithm` and in `Attributes::checksums`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Crc32c => "CRC32C",
            Self::Crc64Nvme => "CRC64NVME",
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }

    /// The header or trailer that carries the value.
    #[must_use]
    pub const fn header(self) -> &'static str {
        match self {
            Self::Crc32 => "x-amz-checksum-crc32",
            Self::Crc32c => "x-amz-checksum-crc32c",
            Self::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Self::Sha1 => "x-amz-checksum-sha1",
            Self::Sha256 => "x-amz-checksum-sha256",
        }
    }

    /// By [`Algorithm::name`], in any case.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    /// By [`Algorithm::header`], in any case.
    #[must_use]
    pub fn by_header(header: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.header().eq_ignore_ascii_case(header))
    }

    /// Length of a value in bytes.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    const fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Sha1 | Self::Sha256 => None,
        }
    }

    /// Whether parts' values can be combined to the whole's.
    #[must_use]
    pub const fn combines(self) -> bool {
        self.crc().is_some()
    }

    /// Decodes a base64 value; `None` when it is not one of this algorithm's length.
    #[must_use]
    pub fn decode(self, text: &str) -> Option<Vec<u8>> {
        BASE64.decode(text).ok().filter(|value| value.len() == self.size())
    }
}

/// Computes one checksum over bytes as they pass.
pub struct Hasher(State);

enum State {
    Crc(crc_fast::Digest, usize),
    Sha(digest::Context),
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// Starts with no bytes seen.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match (algorithm.crc(), algorithm) {
            (Some(crc), _) => State::Crc(crc_fast::Digest::new(crc), algorithm.size()),
            (None, Algorithm::Sha1) => State::Sha(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY)),
            (None, _) => State::Sha(digest::Context::new(&digest::SHA256)),
        })
    }

    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Crc(crc, _) => crc.update(bytes),
            State::Sha(sha) => sha.update(bytes),
        }
    }

    /// The value of all bytes taken in.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        match self.0 {
            State::Crc(crc, size) => crc.finalize().to_be_bytes()[8 - size..].to_vec(),
            State::Sha(sha) => sha.finish().as_ref().to_vec(),
        }
    }
}

/// Base64, as checksums travel.
#[must_use]
pub fn encode(value: &[u8]) -> String {
    BASE64.encode(value)
}

/// COMPOSITE: the algorithm over the parts' values, and how many they are.
#[must_use]
pub fn composite(algorithm: Algorithm, parts: &[Vec<u8>]) -> String {
    let mut hasher = Hasher::new(algorithm);
    for part in parts {
        hasher.update(part);
    }
    format!("{}-{}", encode(&hasher.finish()), parts.len())
}

/// FULL_OBJECT: what the CRC of all bytes is, from the parts' CRCs and sizes. `None` for the SHA family,
/// which cannot be combined.
#[must_use]
pub fn full_object(algorithm: Algorithm, parts: &[(Vec<u8>, u64)]) -> Option<String> {
    let crc = algorithm.crc()?;
    let number = |value: &[u8]| value.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (first, rest) = parts.split_first()?;
    let whole = rest.iter().filter(|(_, size)| *size > 0).fold(number(&first.0), |sum, (value, size)| {
        crc_fast::checksum_combine(crc, sum, number(value), *size)
    });
    Some(encode(&whole.to_be_bytes()[8 - algorithm.size()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(algorithm: Algorithm, bytes: &[u8]) -> Vec<u8> {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    #[test]
    fn check_values_of_the_catalogues_are_met() {
        // "123456789": the check value of the CRC RevEng catalogue; SHA from FIPS 180-4 implementations.
        let check = b"123456789";
        assert_eq!(hex::encode(of(Algorithm::Crc32, check)), "cbf43926");
        assert_eq!(hex::encode(of(Algorithm::Crc32c, check)), "e3069283");
        assert_eq!(hex::encode(of(Algorithm::Crc64Nvme, check)), "ae8b14860a799888");
        assert_eq!(hex::encode(of(Algorithm::Sha1, check)), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        assert_eq!(
            hex::encode(of(Algorithm::Sha256, check)),
            "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"
        );
    }

    #[test]
    fn combined_crcs_equal_the_crc_of_the_whole() {
        let whole: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts: Vec<(Vec<u8>, u64)> =
                whole.chunks(33_333).map(|part| (of(algorithm, part), part.len() as u64)).collect();
            assert_eq!(full_object(algorithm, &parts), Some(encode(&of(algorithm, &whole))), "{algorithm:?}");
        }
        assert_eq!(full_object(Algorithm::Sha256, &[(vec![0; 32], 1)]), None);
    }

    #[test]
    fn values_of_the_wrong_length_are_not_values() {
        assert!(Algorithm::Crc32.decode("AAAAAA==").is_some());
        assert!(Algorithm::Crc32.decode("AAAAAAAA").is_none());
        assert!(Algorithm::Crc32.decode("AAAAAA==\n").is_none());
        assert!(Algorithm::Sha256.decode("AAAAAA==").is_none());
    }
}
