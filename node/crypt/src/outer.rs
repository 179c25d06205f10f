//! Outer keys: a further key that a body key is wrapped under, inside the tenant's wrapping.
//!
//! ```text
//! body key ── sealed under the outer key, bound to body, name and context ── sealed under the tenant key
//! ```
//!
//! Either key alone opens nothing: neither the tenant's key without the customer's, nor the other way. An
//! outer key is one that a client sends with each request and that is never kept, or one derived under the
//! tenant's key for a name. What is kept of a client's key is a [`KeyCheck`], which tells it from others.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{CryptError, TenantKey, derive::derive, envelope, secret::random_array};

const PURPOSE: &str = "body key under an outer key";
const SALT_SIZE: usize = 16;
const CHECK_SIZE: usize = 16;

/// What a [`KeyCheck`] is written as, in bytes.
pub const KEY_CHECK_SIZE: usize = SALT_SIZE + CHECK_SIZE;

/// A further key for body keys.
#[derive(Clone)]
pub struct OuterKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for OuterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OuterKey(..)")
    }
}

impl OuterKey {
    /// A fresh random key.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(random_array()))
    }

    /// Takes the bytes of a key.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, to be sealed by the key service.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Something to tell this key by, under a fresh salt.
    #[must_use]
    pub fn check(&self) -> KeyCheck {
        self.check_with(random_array())
    }

    fn check_with(&self, salt: [u8; SALT_SIZE]) -> KeyCheck {
        let value = derive::<CHECK_SIZE>(&self.0, &salt, &[b"holdfast outer key check v1"]);
        let mut bytes = [0; KEY_CHECK_SIZE];
        bytes[..SALT_SIZE].copy_from_slice(&salt);
        bytes[SALT_SIZE..].copy_from_slice(value.as_slice());
        KeyCheck(bytes)
    }
}

impl TenantKey {
    /// The tenant's named key `id`. Whether there is one of that name is decided above.
    #[must_use]
    pub fn named(&self, id: &str) -> OuterKey {
        OuterKey(derive(self.first(), b"", &[b"holdfast named key v1 ", id.as_bytes()]))
    }
}

/// Tells a key from others and says nothing else about it: a salt, and HKDF of the key with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyCheck([u8; KEY_CHECK_SIZE]);

impl KeyCheck {
    /// As it is kept.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; KEY_CHECK_SIZE] {
        &self.0
    }

    /// What was kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_CHECK_SIZE]) -> Self {
        Self(bytes)
    }

    /// Whether it is this key's.
    #[must_use]
    pub fn is_of(&self, key: &OuterKey) -> bool {
        let (salt, _) = self.0.split_first_chunk().expect("a salt is shorter than a check");
        key.check_with(*salt).0.ct_eq(&self.0).into()
    }
}

/// An outer key and what else its wrapping is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Outer<'a> {
    /// The key.
    pub key: &'a OuterKey,
    /// Bound: an encryption context, say. Mostly empty.
    pub context: &'a [u8],
}

impl Outer<'_> {
    pub(crate) fn seal(&self, body: &[u8], secret: &[u8]) -> Vec<u8> {
        envelope::seal(&self.key.0, PURPOSE, &self.bound(body), secret)
    }

    pub(crate) fn open(&self, body: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        envelope::open(&self.key.0, PURPOSE, &self.bound(body), sealed)
    }

    /// Length first, so that the border between the two cannot move.
    fn bound(&self, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u64).to_be_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(self.context);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_of_one_key() {
        let key = OuterKey::generate();
        let check = KeyCheck::from_bytes(*key.check().as_bytes());
        assert!(check.is_of(&key) && !check.is_of(&OuterKey::generate()));
        assert_ne!(key.check(), check, "each has a salt of its own");
        assert_eq!(format!("{key:?}"), "OuterKey(..)");
    }

    #[test]
    fn named_keys_differ_by_name_and_tenant() {
        let tenant = TenantKey::generate();
        let check = tenant.named("a").check();
        assert!(check.is_of(&tenant.named("a")) && !check.is_of(&tenant.named("b")));
        assert!(!check.is_of(&TenantKey::generate().named("a")));
    }
}
