//! Envelopes: small secrets sealed under a long-lived key, each with a key of its own.
//!
//! | offset | size | field      | meaning                                                            |
//! |-------:|-----:|------------|--------------------------------------------------------------------|
//! |      0 |    1 | version    | 1                                                                  |
//! |      1 |   24 | salt       | random                                                             |
//! |     25 |   32 | commitment | second half of HKDF(key, salt, purpose): names the key, checked first |
//! |     57 |    n | ciphertext | AES-256-GCM under the first half, nonce zero (the key is used once) |
//! |   57+n |   16 | tag        | over ciphertext and the caller's associated data                   |
//!
//! The derived key is used for one message, so the fixed nonce cannot repeat under it; the commitment
//! makes the envelope key-committing, which GCM alone is not (RFC 9771, section 4.3).

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{CryptError, derive::derive, labels, secret::random_array};

const VERSION: u8 = 1;
pub(crate) const SALT_SIZE: usize = 24;
const COMMITMENT_SIZE: usize = 32;
const TAG_SIZE: usize = 16;
const HEADER_SIZE: usize = 1 + SALT_SIZE + COMMITMENT_SIZE;

/// Bytes that an envelope adds to what it holds.
pub const OVERHEAD: usize = HEADER_SIZE + TAG_SIZE;

/// Seals `secret` under `key` for `purpose`, bound to `context`.
#[must_use]
pub fn seal(key: &[u8; 32], purpose: &'static str, context: &[u8], secret: &[u8]) -> Vec<u8> {
    seal_salted(key, purpose, context, secret, random_array())
}

pub(crate) fn seal_salted(
    key: &[u8; 32],
    purpose: &'static str,
    context: &[u8],
    secret: &[u8],
    salt: [u8; SALT_SIZE],
) -> Vec<u8> {
    let derived = derived(key, purpose, &salt);
    let ciphertext = cipher(&derived)
        .encrypt(&Nonce::default(), Payload { msg: secret, aad: context })
        .expect("envelopes hold far less than AES-GCM's 64 GiB");
    let mut envelope = Vec::with_capacity(OVERHEAD + secret.len());
    envelope.push(VERSION);
    envelope.extend_from_slice(&salt);
    envelope.extend_from_slice(&derived[32..]);
    envelope.extend_from_slice(&ciphertext);
    envelope
}

/// Opens what [`seal`] made with the same key, purpose and context.
///
/// # Errors
/// `Malformed`, or `Refused` when anything differs.
pub fn open(
    key: &[u8; 32],
    purpose: &'static str,
    context: &[u8],
    envelope: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptError> {
    if envelope.len() < OVERHEAD || envelope[0] != VERSION {
        return Err(CryptError::Malformed(purpose));
    }
    let (salt, rest) = envelope[1..].split_at(SALT_SIZE);
    let (commitment, ciphertext) = rest.split_at(COMMITMENT_SIZE);
    let derived = derived(key, purpose, salt);
    if !bool::from(derived[32..].ct_eq(commitment)) {
        return Err(CryptError::Refused(purpose));
    }
    cipher(&derived)
        .decrypt(&Nonce::default(), Payload { msg: ciphertext, aad: context })
        .map(Zeroizing::new)
        .map_err(|_| CryptError::Refused(purpose))
}

fn derived(key: &[u8; 32], purpose: &'static str, salt: &[u8]) -> Zeroizing<[u8; 64]> {
    derive(key, salt, &[labels::ENVELOPE, purpose.as_bytes()])
}

fn cipher(derived: &[u8; 64]) -> Aes256Gcm {
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&derived[..32]);
    Aes256Gcm::new((&*key).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_only_as_it_was_sealed() {
        let key = [1; 32];
        let envelope = seal(&key, "test", b"here", b"secret");
        assert_eq!(envelope.len(), OVERHEAD + 6);
        assert_eq!(open(&key, "test", b"here", &envelope).unwrap().as_slice(), b"secret");
        assert_eq!(open(&[2; 32], "test", b"here", &envelope), Err(CryptError::Refused("test")));
        assert_eq!(open(&key, "other", b"here", &envelope), Err(CryptError::Refused("other")));
        assert_eq!(open(&key, "test", b"there", &envelope), Err(CryptError::Refused("test")));
        for i in 0..envelope.len() {
            let mut changed = envelope.clone();
            changed[i] ^= 1;
            assert!(open(&key, "test", b"here", &changed).is_err(), "byte {i}");
        }
        for length in 0..envelope.len() {
            assert!(open(&key, "test", b"here", &envelope[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn another_implementation_of_the_cipher_opens_envelopes() {
        use ring::aead;
        let key = [9; 32];
        let envelope = seal_salted(&key, "test", b"aad", b"checked twice", [3; SALT_SIZE]);
        let derived = derived(&key, "test", &[3; SALT_SIZE]);
        let other =
            aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &derived[..32]).unwrap());
        let mut bytes = envelope[HEADER_SIZE..].to_vec();
        let plain = other
            .open_in_place(aead::Nonce::assume_unique_for_key([0; 12]), aead::Aad::from(b"aad"), &mut bytes)
            .unwrap();
        assert_eq!(plain, b"checked twice");
    }
}
