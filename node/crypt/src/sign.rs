//! The cluster's signature under certificates: Ed25519 (RFC 8032), from a seed derived from the cluster key, so that
//! every unlocked node signs alike, and a rotation of the root changes nothing.

use std::fmt;

use ring::signature::{self, Ed25519KeyPair, KeyPair};

use crate::{CryptError, derive::derive, labels, secret::ClusterKey};

/// Bytes of a public key.
pub const PUBLIC_KEY_SIZE: usize = 32;

/// Bytes of a signature.
pub const SIGNATURE_SIZE: usize = 64;

/// Signs certificates.
pub struct CertificateSigner(Ed25519KeyPair);

impl fmt::Debug for CertificateSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateSigner(..)")
    }
}

impl ClusterKey {
    /// What signs certificates of this cluster.
    #[must_use]
    pub fn certificate_signer(&self) -> CertificateSigner {
        let seed = derive::<32>(self.expose(), b"", &[labels::CERTIFICATE_SEED]);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice());
        CertificateSigner(pair.expect("every 32 bytes are an Ed25519 seed"))
    }
}

impl CertificateSigner {
    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; PUBLIC_KEY_SIZE] {
        self.0.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes")
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_SIZE] {
        self.0.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }
}

/// Checks a signature.
///
/// # Errors
/// `Refused` when `public` did not sign `message` so.
pub fn verify_signature(
    public: &[u8; PUBLIC_KEY_SIZE],
    message: &[u8],
    signed: &[u8; SIGNATURE_SIZE],
) -> Result<(), CryptError> {
    signature::UnparsedPublicKey::new(&signature::ED25519, public)
        .verify(message, signed)
        .map_err(|_| CryptError::Refused("signature"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_cluster_signs_verifies_with_its_public_key_and_with_no_other() {
        let (one, other) = (ClusterKey::from_bytes([1; 32]), ClusterKey::from_bytes([2; 32]));
        let (signer, again) = (one.certificate_signer(), one.certificate_signer());
        assert_eq!(signer.public(), again.public());
        let signed = signer.sign(b"destroyed");
        assert_eq!(signed, again.sign(b"destroyed"));
        assert!(verify_signature(&signer.public(), b"destroyed", &signed).is_ok());
        assert!(verify_signature(&signer.public(), b"destroyed.", &signed).is_err());
        assert!(verify_signature(&other.certificate_signer().public(), b"destroyed", &signed).is_err());
    }

    #[test]
    fn the_seed_is_what_the_documentation_says() {
        let seed = derive::<32>(&[1; 32], b"", &[b"holdfast certificate seed v1"]);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()).unwrap();
        let public = ClusterKey::from_bytes([1; 32]).certificate_signer().public();
        assert_eq!(pair.public_key().as_ref(), public);
    }
}
