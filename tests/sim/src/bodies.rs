//! What is written: bytes that follow from a number, with a canary that must never be met on a disk.

use holdfast_fault::Random;

/// Begins every body, and comes again in it.
pub const CANARY: &[u8; 24] = b"plaintext-canary-7f3a9c1";

/// How often it comes, in bytes.
const CANARY_INTERVAL: usize = 4096;

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
