//! What is written: every write has a number, and its number says what its bytes are.
//!
//! The number travels in the object's metadata, so that whoever reads an object, or a part of it, knows which
//! bytes to expect.

use holdfast_blackbox::tree::noise;
use holdfast_fault::Random;

/// Metadata header with the number of the write.
pub const NUMBER_HEADER: &str = "x-amz-meta-number";

/// Sizes in bytes, and out of how many writes how many have it: kept in the catalog, one stripe, several.
const SIZES: [(u64, usize); 7] =
    [(2, 0), (20, 700), (20, 14_000), (20, 60_000), (20, 300_000), (12, 1_500_000), (6, 5_000_000)];

/// Bytes of a body that is uploaded in parts: two parts, the first of the smallest size S3 allows.
pub const PARTS_SIZE: usize = 5 * 1024 * 1024 + 300_000;

/// What is in every body that is long enough, and must never be met on a disk.
pub const CANARY: &[u8; 24] = b"plaintext-canary-7f3a9c1";

/// From one canary in a body to the next, in bytes: every cell and every piece of memory that is written has some.
const CANARY_INTERVAL: usize = 1000;

/// Marks numbers of bodies uploaded in parts.
const IN_PARTS: u64 = 1 << 40;

/// A body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    /// Number of the write.
    pub number: u64,
}

impl Body {
    /// The body of a write that is uploaded whole.
    #[must_use]
    pub fn whole(number: u64) -> Self {
        Self { number }
    }

    /// The body of a write that is uploaded in parts.
    #[must_use]
    pub fn in_parts(number: u64) -> Self {
        Self { number: number | IN_PARTS }
    }

    /// How many bytes it has.
    #[must_use]
    pub fn size(self) -> usize {
        if self.number & IN_PARTS != 0 {
            return PARTS_SIZE;
        }
        let mut draw = Random::new(self.number).below(SIZES.iter().map(|(weight, _)| weight).sum());
        for (weight, size) in SIZES {
            if draw < weight {
                // Not all of one size: edges of cells and stripes are met.
                return size - size.min((self.number % 97) as usize);
            }
            draw -= weight;
        }
        unreachable!("the weights add up")
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = noise(self.number, self.size());
        for piece in bytes.chunks_mut(CANARY_INTERVAL) {
            if let Some(start) = piece.first_chunk_mut() {
                *start = *CANARY;
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_says_what_its_bytes_are_and_all_sizes_occur() {
        let sizes: Vec<usize> = (0..2000).map(|number| Body::whole(number).size()).collect();
        assert!(sizes.contains(&0) && sizes.iter().any(|size| *size > 4_000_000));
        assert_eq!(Body::whole(7).bytes(), Body { number: 7 }.bytes());
        assert_ne!(Body::whole(7).bytes(), Body::whole(8).bytes());
        assert_eq!(Body::in_parts(7).bytes().len(), PARTS_SIZE);
        let found = |body: Body| body.bytes().windows(CANARY.len()).filter(|at| *at == CANARY).count();
        assert_eq!(found(Body::whole(7)), Body::whole(7).size().div_ceil(CANARY_INTERVAL));
    }
}
