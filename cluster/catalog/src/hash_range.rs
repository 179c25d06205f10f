//! Which keys a partition holds: those whose hash is in its range.
//!
//! A key's hash is the first two bytes of its SHA-256 (FIPS 180-4), big-endian; the bucket does not count. It is
//! part of the catalog's format: which partition a key is in follows from it.

use sha2::{Digest as _, Sha256};

/// Hashes there are.
pub const HASHES: u32 = 1 << 16;

/// A range of hashes: `from` inclusive, `until` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashRange {
    /// The first.
    pub from: u32,
    /// Behind the last, [`HASHES`] at most.
    pub until: u32,
}

impl Default for HashRange {
    fn default() -> Self {
        Self::ALL
    }
}

impl HashRange {
    /// Every key.
    pub const ALL: Self = Self { from: 0, until: HASHES };

    /// Whether the range has the key.
    #[must_use]
    pub fn has(self, key: &[u8]) -> bool {
        self.is_all() || (self.from..self.until).contains(&hash_of(key))
    }

    /// Whether it has every key: the partition was never split.
    #[must_use]
    pub fn is_all(self) -> bool {
        self == Self::ALL
    }

    /// The lower and the upper half. `None` when there is only one hash left.
    #[must_use]
    pub fn halves(self) -> Option<(Self, Self)> {
        let middle = self.from + (self.until - self.from) / 2;
        (middle > self.from)
            .then_some((Self { from: self.from, until: middle }, Self { from: middle, until: self.until }))
    }

    /// Whether these ranges, in any order, hold every key once.
    #[must_use]
    pub fn tile(ranges: impl IntoIterator<Item = Self>) -> bool {
        let mut ranges: Vec<Self> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let ends = ranges.iter().try_fold(0, |end, range| (range.from == end).then_some(range.until));
        ends == Some(HASHES)
    }
}

/// The hash of a key.
fn hash_of(key: &[u8]) -> u32 {
    let digest = Sha256::digest(key);
    u32::from(digest[0]) << 8 | u32::from(digest[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_are_published() {
        // SHA-256 of the empty string begins with e3b0, of "abc" with ba78.
        assert_eq!((hash_of(b""), hash_of(b"abc")), (0xe3b0, 0xba78));
    }

    #[test]
    fn halves_hold_each_key_once_down_to_a_single_hash() {
        let mut range = HashRange::ALL;
        let mut others = Vec::new();
        while let Some((lower, upper)) = range.halves() {
            for key in [&b"a"[..], b"abc", b"photos/1.jpg"] {
                assert_eq!(range.has(key), lower.has(key) ^ upper.has(key));
            }
            others.push(lower);
            range = upper;
        }
        assert_eq!((range.until - range.from, others.len()), (1, 16));
        others.push(range);
        assert!(HashRange::tile(others.clone()));
        others.remove(3);
        assert!(!HashRange::tile(others));
        assert!(!HashRange::tile([HashRange::ALL, HashRange::ALL]));
    }
}
