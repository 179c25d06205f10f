//! Keys from passphrases: argon2id (RFC 9106), with the second recommended option of its section 4 as the
//! least that is accepted.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

use crate::{CryptError, envelope, labels, secret::random_array};

/// Memory in KiB.
const MEMORY_KIB: u32 = 64 * 1024;
/// Passes over it.
const PASSES: u32 = 3;
/// Lanes; computed by one thread.
const LANES: u32 = 4;
/// Size of a salt in bytes.
const SALT_SIZE: usize = 16;
const VERSION_BYTE: u8 = 1;

/// A key that a passphrase and a salt give. Derived once, then kept in memory to seal and open with.
#[derive(Clone)]
pub struct PassphraseKey {
    salt: [u8; SALT_SIZE],
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for PassphraseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PassphraseKey(..)")
    }
}

impl PassphraseKey {
    /// A key under a fresh salt. Takes a tenth of a second and 64 MiB, on purpose.
    ///
    /// # Errors
    /// `Limit` when argon2 refuses the passphrase (longer than 4 GiB).
    pub fn fresh(passphrase: &[u8]) -> Result<Self, CryptError> {
        Self::derive(passphrase, random_array())
    }

    fn derive(passphrase: &[u8], salt: [u8; SALT_SIZE]) -> Result<Self, CryptError> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32))
            .map_err(|_| CryptError::Limit("argon2id parameters"))?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, &salt, key.as_mut_slice())
            .map_err(|_| CryptError::Limit("passphrase"))?;
        Ok(Self { salt, key })
    }

    /// Seals a node's shares: version (1), salt (16), envelope.
    #[must_use]
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut sealed = vec![VERSION_BYTE];
        sealed.extend_from_slice(&self.salt);
        sealed.extend(envelope::seal(&self.key, labels::SHARES, context, plain));
        sealed
    }

    /// Opens what [`PassphraseKey::seal`] made under the same passphrase; returns the key to go on with.
    ///
    /// # Errors
    /// `Refused` for another passphrase or changed bytes; `Malformed`.
    pub fn open(
        passphrase: &[u8],
        context: &[u8],
        sealed: &[u8],
    ) -> Result<(Self, Zeroizing<Vec<u8>>), CryptError> {
        let malformed = CryptError::Malformed(labels::SHARES);
        let Some((&VERSION_BYTE, rest)) = sealed.split_first() else { return Err(malformed) };
        let (salt, envelope) = rest.split_first_chunk::<SALT_SIZE>().ok_or(malformed)?;
        let key = Self::derive(passphrase, *salt)?;
        let plain = envelope::open(&key.key, labels::SHARES, context, envelope)?;
        Ok((key, plain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_passphrase_opens_what_it_sealed() {
        let key = PassphraseKey::fresh(b"correct horse").unwrap();
        let sealed = key.seal(b"node", b"shares");
        assert_eq!(PassphraseKey::open(b"correct horse", b"node", &sealed).unwrap().1.as_slice(), b"shares");
        assert!(PassphraseKey::open(b"correct mare", b"node", &sealed).is_err());
        assert!(PassphraseKey::open(b"correct horse", b"other node", &sealed).is_err());
        assert!(PassphraseKey::open(b"correct horse", b"node", &sealed[..10]).is_err());
    }
}
