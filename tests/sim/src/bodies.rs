//! What is written: bytes that follow from a number, with a canary that must never be met on a disk.

use holdfast_fault::Random;

/// Begins every body, and comes again in it.
pub const CANARY: &[u8; 24] = b"plaintext-canary-7f3a9c1";

/// How often it comes, in bytes.
const CANARY_INTERVAL: usize = 4096;

/// Bytes that were made at once: the body of a put, or of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// What they follow from.
    pub number: u64,
    /// How many.
    pub size: usize,
}

/// What is stored as one object: pieces one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The pieces.
    pub pieces: Vec<Piece>,
    /// All of it was copied: another object has the same ETag.
    pub copied: bool,
}

impl Content {
    /// The content of a put.
    #[must_use]
    pub fn put(number: u64, size: usize) -> Self {
        Self { pieces: vec![Piece { number, size }], copied: false }
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.pieces.iter().map(|piece| piece.size).sum()
    }

    /// The bytes themselves.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        // One after the other as a whole: byte by byte took a tenth of all time.
        let mut bytes = Vec::with_capacity(self.size());
        self.pieces.iter().for_each(|piece| bytes.extend_from_slice(&body(piece.number, piece.size)));
        bytes
    }
}

/// The body of write `number`, `size` bytes long.
#[must_use]
pub fn body(number: u64, size: usize) -> Vec<u8> {
    let mut random = Random::new(number.wrapping_mul(0x9e37_79b9).wrapping_add(1));
    let mut bytes = vec![0; size];
    for chunk in bytes.chunks_mut(8) {
        let word = random.number().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    for at in (0..size).step_by(CANARY_INTERVAL) {
        let end = (at + CANARY.len()).min(size);
        bytes[at..end].copy_from_slice(&CANARY[..end - at]);
    }
    bytes
}
