//! XAES-256-GCM (C2SP, <https://c2sp.org/XAES-256-GCM>): AES-256-GCM under a key derived from the first half
//! of a 192-bit nonce (NIST SP 800-108r1, KDF in counter mode with AES-256-CMAC), so that nonces may be drawn
//! at random for 2^80 messages under one key.

use aes_gcm::aes::{
    Aes256, Block,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

pub(super) const NONCE_SIZE: usize = 24;
pub(super) const TAG_SIZE: usize = 16;

/// The part of a nonce that chooses the derived key.
pub(super) const PREFIX_SIZE: usize = 12;

/// Bits that a shift of a CMAC subkey over its end brings back (NIST SP 800-38B, 5.3).
const CMAC_POLYNOMIAL: u8 = 0x87;

/// Derives the keys that seal.
pub(super) struct Xaes {
    cipher: Aes256,
    subkey: [u8; 16],
}

impl Drop for Xaes {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.subkey);
    }
}

impl Xaes {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let cipher = Aes256::new(key.into());
        let mut block = Block::default();
        cipher.encrypt_block(&mut block);
        let carry = block[0] >> 7;
        let mut subkey = [0; 16];
        for at in 0..16 {
            let next = block.get(at + 1).map_or(0, |byte| byte >> 7);
            subkey[at] = (block[at] << 1) | next;
        }
        subkey[15] ^= carry * CMAC_POLYNOMIAL;
        Self { cipher, subkey }
    }

    /// The key for all nonces that begin with `prefix`.
    pub(super) fn derived(&self, prefix: &[u8; PREFIX_SIZE]) -> LessSafeKey {
        let mut key = Zeroizing::new([0; 32]);
        for (counter, half) in (1u8..).zip(key.chunks_exact_mut(16)) {
            let mut block = Block::default();
            block[1] = counter;
            block[2] = b'X';
            block[4..].copy_from_slice(prefix);
            for (byte, mask) in block.iter_mut().zip(self.subkey) {
                *byte ^= mask;
            }
            self.cipher.encrypt_block(&mut block);
            half.copy_from_slice(&block);
        }
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("the key is 32 bytes"))
    }
}

/// A nonce in its two halves.
pub(super) fn halves(nonce: &[u8; NONCE_SIZE]) -> ([u8; PREFIX_SIZE], [u8; NONCE_SIZE - PREFIX_SIZE]) {
    let (mut prefix, mut rest) = ([0; PREFIX_SIZE], [0; NONCE_SIZE - PREFIX_SIZE]);
    prefix.copy_from_slice(&nonce[..PREFIX_SIZE]);
    rest.copy_from_slice(&nonce[PREFIX_SIZE..]);
    (prefix, rest)
}

/// Seals in place; returns the tag.
pub(super) fn seal(
    key: &LessSafeKey,
    rest: [u8; NONCE_SIZE - PREFIX_SIZE],
    aad: &[u8],
    bytes: &mut [u8],
) -> [u8; TAG_SIZE] {
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(rest), Aad::from(aad), bytes)
        .expect("a command or a page is far below AES-GCM's 64 GiB");
    tag.as_ref().try_into().expect("a tag of AES-GCM is 16 bytes")
}

/// Opens in place what is followed by its tag; false when it does not open: the bytes are unspecified then.
pub(super) fn open(
    key: &LessSafeKey,
    rest: [u8; NONCE_SIZE - PREFIX_SIZE],
    aad: &[u8],
    bytes_and_tag: &mut [u8],
) -> bool {
    key.open_in_place(Nonce::assume_unique_for_key(rest), Aad::from(aad), bytes_and_tag).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: [u8; 32], aad: &[u8]) -> String {
        let (prefix, rest) = halves(b"ABCDEFGHIJKLMNOPQRSTUVWX");
        let mut bytes = b"XAES-256-GCM".to_vec();
        let tag = seal(&Xaes::new(&key).derived(&prefix), rest, aad, &mut bytes);
        bytes.extend_from_slice(&tag);
        let sealed = hex::encode(&bytes);
        assert!(open(&Xaes::new(&key).derived(&prefix), rest, aad, &mut bytes));
        assert_eq!(&bytes[..12], b"XAES-256-GCM");
        sealed
    }

    /// Both vectors of the specification: with and without a carry in the subkey.
    #[test]
    fn the_vectors_of_the_specification_come_out() {
        assert_eq!(sealed([1; 32], b""), "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271");
        assert_eq!(
            sealed([3; 32], b"c2sp.org/XAES-256-GCM"),
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"
        );
    }
}
