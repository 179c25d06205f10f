//! What a session with a TPM 2.0 needs of cryptography: a secret that only the TPM and we know, proof that
//! commands and answers are theirs, and encryption of the parameter that holds a secret.
//!
//! ```text
//! ephemeral P-256 key × the TPM's storage key ── KDFe ──> salt ── KDFa(nonces) ──> session key
//!     session key ── HMAC ──> proof of each command and answer
//!     session key ── KDFa(nonces) ──> AES-128-CFB key and IV of one parameter
//! ```
//!
//! Sources: TPM 2.0 Library, Part 1 (revision 1.59): 11.4.10.2 KDFa, 11.4.10.3 KDFe, 19.6.8 session key, 19.6.5
//! HMAC, 21.3 CFB parameter encryption; annex C.6.3 salts by ECDH. All authorization values here are empty.

use aes_gcm::aes::{
    Aes128,
    cipher::{BlockCipherEncrypt as _, KeyInit as _},
};
use ring::{
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    digest, hmac,
    rand::SystemRandom,
};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::{CryptError, secret::random_array};

/// Size of a coordinate on P-256, of SHA-256 and of our nonces, in bytes.
pub const TPM_FIELD_SIZE: usize = 32;
/// Block of AES, in bytes.
const BLOCK_SIZE: usize = 16;
/// First byte of an uncompressed point (SEC 1, section 2.3.3).
const UNCOMPRESSED: u8 = 4;
/// What a refusal is about.
const SESSION: &str = "session with the TPM";

type Field = [u8; TPM_FIELD_SIZE];

/// SHA-256, the hash of all names and sessions here.
#[must_use]
pub fn tpm_hash(parts: &[&[u8]]) -> [u8; TPM_FIELD_SIZE] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; TPM_FIELD_SIZE];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A session that is asked for: what goes to the TPM, and the salt that does not.
pub struct TpmOffer {
    /// Our half of the agreement.
    pub point: (Field, Field),
    /// Our nonce.
    pub nonce: Field,
    salt: Zeroizing<Field>,
}

impl std::fmt::Debug for TpmOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TpmOffer(..)")
    }
}

impl TpmOffer {
    /// Agrees on a salt with whoever holds the private half of the point `x`, `y`.
    ///
    /// # Errors
    /// `Refused` when that is no point of P-256.
    pub fn to(x: &Field, y: &Field) -> Result<Self, CryptError> {
        let refused = |_| CryptError::Refused(SESSION);
        let own = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).map_err(refused)?;
        let public = own.compute_public_key().map_err(refused)?;
        let (&[own_x, own_y], []) = public.as_ref()[1..].as_chunks::<TPM_FIELD_SIZE>() else {
            return Err(CryptError::Refused(SESSION));
        };
        let mut peer = vec![UNCOMPRESSED];
        peer.extend_from_slice(x);
        peer.extend_from_slice(y);
        let peer = UnparsedPublicKey::new(&ECDH_P256, peer);
        let salt =
            agree_ephemeral(own, &peer, |shared| kdf_e(shared, b"SECRET", &own_x, x)).map_err(refused)?;
        Ok(Self { point: (own_x, own_y), nonce: random_array(), salt: Zeroizing::new(salt) })
    }

    /// The session, after the TPM has answered with its nonce.
    #[must_use]
    pub fn accepted(self, tpm_nonce: &[u8]) -> TpmSession {
        let key = Zeroizing::new(kdf_a(self.salt.as_slice(), b"ATH", tpm_nonce, &self.nonce));
        TpmSession { key, caller: self.nonce, tpm: tpm_nonce.to_vec() }
    }
}

/// A session. Each command takes a new nonce of ours, each answer brings one of the TPM's.
pub struct TpmSession {
    key: Zeroizing<Field>,
    caller: Field,
    tpm: Vec<u8>,
}

impl std::fmt::Debug for TpmSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TpmSession(..)")
    }
}

impl TpmSession {
    /// Begins a command: our nonce for it.
    pub fn begin(&mut self) -> Field {
        self.caller = random_array();
        self.caller
    }

    /// Encrypts the first parameter of the command that was begun.
    pub fn encrypt(&self, parameter: &mut [u8]) {
        let (key, iv) = self.parameter_key(&self.caller, &self.tpm);
        cfb(&key, &iv, parameter, Direction::Encrypt);
    }

    /// Proof of the command: over the hash of its code, names and parameters, and its attributes.
    #[must_use]
    pub fn prove(&self, hash: &Field, attributes: u8) -> Field {
        let mut proof = [0; TPM_FIELD_SIZE];
        proof.copy_from_slice(self.mac(hash, &self.caller, &self.tpm, attributes).as_ref());
        proof
    }

    /// Checks the proof of an answer, and takes its nonce.
    ///
    /// # Errors
    /// `Refused` when it is not from who holds the session key.
    pub fn check(
        &mut self,
        hash: &Field,
        tpm_nonce: &[u8],
        attributes: u8,
        proof: &[u8],
    ) -> Result<(), CryptError> {
        let expected = self.mac(hash, tpm_nonce, &self.caller, attributes);
        if !bool::from(expected.as_ref().ct_eq(proof)) {
            return Err(CryptError::Refused(SESSION));
        }
        self.tpm = tpm_nonce.to_vec();
        Ok(())
    }

    /// Decrypts the first parameter of the answer that was checked last.
    pub fn decrypt(&self, parameter: &mut [u8]) {
        let (key, iv) = self.parameter_key(&self.tpm, &self.caller);
        cfb(&key, &iv, parameter, Direction::Decrypt);
    }

    fn mac(&self, hash: &Field, newer: &[u8], older: &[u8], attributes: u8) -> hmac::Tag {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.key.as_slice()));
        [hash.as_slice(), newer, older, &[attributes]].into_iter().for_each(|part| mac.update(part));
        mac.sign()
    }

    fn parameter_key(&self, newer: &[u8], older: &[u8]) -> (Zeroizing<[u8; BLOCK_SIZE]>, [u8; BLOCK_SIZE]) {
        let both = Zeroizing::new(kdf_a(self.key.as_slice(), b"CFB", newer, older));
        let (mut key, mut iv) = (Zeroizing::new([0; BLOCK_SIZE]), [0; BLOCK_SIZE]);
        key.copy_from_slice(&both[..BLOCK_SIZE]);
        iv.copy_from_slice(&both[BLOCK_SIZE..]);
        (key, iv)
    }
}

/// KDFa for 256 bits: SP 800-108 in counter mode, one block.
fn kdf_a(key: &[u8], label: &[u8], u: &[u8], v: &[u8]) -> Field {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in [&1_u32.to_be_bytes(), label, &[0], u, v, &256_u32.to_be_bytes()] {
        mac.update(part);
    }
    let mut out = [0; TPM_FIELD_SIZE];
    out.copy_from_slice(mac.sign().as_ref());
    out
}

/// KDFe for 256 bits: SP 800-56A, one block.
fn kdf_e(shared: &[u8], label: &[u8], u: &[u8], v: &[u8]) -> Field {
    tpm_hash(&[&1_u32.to_be_bytes(), shared, label, &[0], u, v])
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Encrypt,
    Decrypt,
}

/// Full-block CFB (SP 800-38A, section 6.3).
fn cfb(key: &[u8; BLOCK_SIZE], iv: &[u8; BLOCK_SIZE], bytes: &mut [u8], direction: Direction) {
    let cipher = Aes128::new(key.into());
    let mut feedback = *iv;
    for chunk in bytes.chunks_mut(BLOCK_SIZE) {
        let mut mask = feedback.into();
        cipher.encrypt_block(&mut mask);
        for ((byte, mask), feedback) in chunk.iter_mut().zip(mask.iter()).zip(&mut feedback) {
            let before = *byte;
            *byte ^= mask;
            *feedback = if direction == Direction::Encrypt { *byte } else { before };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SP 800-38A, section F.3.13 (CFB128-AES128), four blocks.
    #[test]
    fn cfb_gives_the_published_vector() {
        let field = |text: &str| hex::decode(text).unwrap();
        let key: [u8; 16] = field("2b7e151628aed2a6abf7158809cf4f3c").try_into().unwrap();
        let iv: [u8; 16] = field("000102030405060708090a0b0c0d0e0f").try_into().unwrap();
        let plain = field(
            "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51\
             30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710",
        );
        let mut bytes = plain.clone();
        cfb(&key, &iv, &mut bytes, Direction::Encrypt);
        assert_eq!(
            hex::encode(&bytes),
            "3b3fd92eb72dad20333449f8e83cfb4ac8a64537a0b3a93fcde3cdad9f1ce58b\
             26751f67a3cbb140b1808cf187a4f4dfc04b05357c5d1c0eeac4c66f9ff7f2e6"
        );
        cfb(&key, &iv, &mut bytes, Direction::Decrypt);
        assert_eq!(bytes, plain);
    }

    #[test]
    fn an_answer_that_was_changed_on_its_way_is_refused() {
        let offer = TpmOffer { point: ([0; 32], [0; 32]), nonce: [1; 32], salt: Zeroizing::new([2; 32]) };
        let mut session = offer.accepted(&[3; 32]);
        session.begin();
        let hash = [4; 32];
        let mut proof = session.mac(&hash, &[5; 32], &session.caller, 1).as_ref().to_vec();
        session.check(&hash, &[5; 32], 1, &proof).unwrap();
        for (nonce, attributes) in [([6; 32], 1), ([5; 32], 0)] {
            assert!(session.check(&hash, &nonce, attributes, &proof).is_err());
        }
        proof[31] ^= 1;
        assert!(session.check(&hash, &[5; 32], 1, &proof).is_err());
        assert!(session.check(&hash, &[5; 32], 1, &[]).is_err());
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        assert!(TpmOffer::to(&[1; 32], &[1; 32]).is_err());
    }
}
