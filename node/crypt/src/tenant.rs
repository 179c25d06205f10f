//! A tenant's key in all its versions, and the metadata keys derived from them.
//!
//! The newest version wraps; every version opens what it wrapped. Rotation adds a version and rewrites
//! nothing; destroying the whole destroys the tenant. What a version wrapped or sealed names it first:
//!
//! | offset | size | field                                 |
//! |-------:|-----:|---------------------------------------|
//! |      0 |    4 | version of the tenant key, big-endian |
//! |      4 |    n | envelope                              |
//!
//! Stored form, itself wrapped by the root: for each version in rising order its number (4, big-endian) and
//! its key (32).

use std::fmt;

use holdfast_model::{KeyId, StripeId};
use zeroize::Zeroizing;

use crate::{
    CryptError, TenantMetadata,
    derive::derive,
    envelope::{self, SALT_SIZE},
    labels,
    secret::{MetadataKey, random_array},
};

/// Versions of one tenant's key at most: rotated every week, they last ten years.
pub const TENANT_KEY_VERSIONS_MAX: usize = 512;

const VERSION_SIZE: usize = 4;
const ENTRY_SIZE: usize = VERSION_SIZE + 32;

/// One tenant's key. Destroying it destroys the tenant.
#[derive(Clone)]
pub struct TenantKey {
    /// In rising order, never empty.
    versions: Vec<(u32, Zeroizing<[u8; 32]>)>,
}

impl fmt::Debug for TenantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantKey").field("version", &self.version()).finish_non_exhaustive()
    }
}

impl TenantKey {
    /// A fresh key, version 1.
    #[must_use]
    pub fn generate() -> Self {
        Self { versions: vec![(1, Zeroizing::new(random_array()))] }
    }

    /// This key with one more version, which wraps from now on.
    ///
    /// # Errors
    /// `Limit` after [`TENANT_KEY_VERSIONS_MAX`].
    pub fn rotated(&self) -> Result<Self, CryptError> {
        if self.versions.len() >= TENANT_KEY_VERSIONS_MAX {
            return Err(CryptError::Limit("versions of a tenant key"));
        }
        let mut versions = self.versions.clone();
        versions.push((self.version() + 1, Zeroizing::new(random_array())));
        Ok(Self { versions })
    }

    /// The stored form. Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.versions.len() * ENTRY_SIZE));
        for (version, key) in &self.versions {
            bytes.extend_from_slice(&version.to_be_bytes());
            bytes.extend_from_slice(key.as_slice());
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptError> {
        let malformed = CryptError::Malformed(labels::TENANT_KEY);
        let (entries, rest) = bytes.as_chunks::<ENTRY_SIZE>();
        let mut versions: Vec<(u32, Zeroizing<[u8; 32]>)> = Vec::with_capacity(entries.len());
        for entry in entries {
            let (version, key) = entry.split_first_chunk::<VERSION_SIZE>().expect("entries are longer");
            let version = u32::from_be_bytes(*version);
            if versions.last().map_or(0, |(last, _)| *last) >= version {
                return Err(malformed);
            }
            let mut own = Zeroizing::new([0; 32]);
            own.copy_from_slice(key);
            versions.push((version, own));
        }
        let fits = rest.is_empty() && (1..=TENANT_KEY_VERSIONS_MAX).contains(&versions.len());
        if fits { Ok(Self { versions }) } else { Err(malformed) }
    }

    /// The version that wraps.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.newest().0
    }

    /// Public names of all versions.
    #[must_use]
    pub fn ids(&self) -> Vec<(u32, KeyId)> {
        let id = |key| KeyId::from_bytes(*derive(key, b"", &[labels::KEY_ID, b"tenant"]));
        self.versions.iter().map(|(version, key)| (*version, id(key))).collect()
    }

    /// The key that seals what is rewritten for no rotation: the catalog's files and commands. It is that of
    /// the first version.
    #[must_use]
    pub fn metadata_key(&self) -> MetadataKey {
        metadata_key(self.first())
    }

    /// Seals a record manifest under the newest metadata key, bound to the stripe it travels with.
    #[must_use]
    pub fn seal_manifest(&self, stripe: &StripeId, manifest: &[u8]) -> Vec<u8> {
        self.seal_manifest_salted(stripe, manifest, random_array())
    }

    pub(crate) fn seal_manifest_salted(
        &self,
        stripe: &StripeId,
        manifest: &[u8],
        salt: [u8; SALT_SIZE],
    ) -> Vec<u8> {
        let (version, key) = self.newest();
        seal_manifest(version, &metadata_key(key), stripe, manifest, salt)
    }

    /// Opens what [`TenantKey::seal_manifest`] made, under any version.
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn open_manifest(&self, stripe: &StripeId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        open_manifest(stripe, sealed, |version| self.of_version(version).map(metadata_key))
    }

    /// What seals metadata, of every version.
    #[must_use]
    pub fn metadata(&self) -> TenantMetadata {
        let versions = self.versions.iter().map(|(version, key)| (*version, metadata_key(key)));
        TenantMetadata::new(versions.collect()).expect("a tenant key has versions in rising order")
    }

    pub(crate) fn wrap(
        &self,
        purpose: &'static str,
        context: &[u8],
        plain: &[u8],
        salt: [u8; SALT_SIZE],
    ) -> Vec<u8> {
        let (version, key) = self.newest();
        let envelope = envelope::seal_salted(key, purpose, context, plain, salt);
        [version.to_be_bytes().as_slice(), &envelope].concat()
    }

    pub(crate) fn unwrap(
        &self,
        purpose: &'static str,
        context: &[u8],
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        let (key, envelope) = self.named_in(purpose, wrapped)?;
        envelope::open(key, purpose, context, envelope)
    }

    fn newest(&self) -> (u32, &[u8; 32]) {
        let (version, key) = self.versions.last().expect("a tenant key has a version");
        (*version, key)
    }

    /// The first version: what is derived from it stays as it is when the key is rotated.
    pub(crate) fn first(&self) -> &[u8; 32] {
        &self.versions.first().expect("a tenant key has a version").1
    }

    fn of_version(&self, version: u32) -> Option<&[u8; 32]> {
        self.versions.iter().find(|(known, _)| *known == version).map(|(_, key)| &**key)
    }

    /// The key of the version that `sealed` names, and what follows.
    fn named_in<'s>(
        &self,
        purpose: &'static str,
        sealed: &'s [u8],
    ) -> Result<(&[u8; 32], &'s [u8]), CryptError> {
        let (version, envelope) = version_of(purpose, sealed)?;
        Ok((self.of_version(version).ok_or(CryptError::Refused(purpose))?, envelope))
    }
}

/// The version that `sealed` names, and what follows.
fn version_of<'s>(purpose: &'static str, sealed: &'s [u8]) -> Result<(u32, &'s [u8]), CryptError> {
    let (version, envelope) =
        sealed.split_first_chunk::<VERSION_SIZE>().ok_or(CryptError::Malformed(purpose))?;
    Ok((u32::from_be_bytes(*version), envelope))
}

fn metadata_key(key: &[u8; 32]) -> MetadataKey {
    MetadataKey::from_bytes(*derive(key, b"", &[labels::TENANT_METADATA]))
}

pub(crate) fn seal_manifest(
    version: u32,
    key: &MetadataKey,
    stripe: &StripeId,
    manifest: &[u8],
    salt: [u8; SALT_SIZE],
) -> Vec<u8> {
    let envelope =
        envelope::seal_salted(key.expose(), labels::RECORD_MANIFEST, stripe.as_bytes(), manifest, salt);
    [version.to_be_bytes().as_slice(), &envelope].concat()
}

pub(crate) fn open_manifest(
    stripe: &StripeId,
    sealed: &[u8],
    key_of: impl FnOnce(u32) -> Option<MetadataKey>,
) -> Result<Zeroizing<Vec<u8>>, CryptError> {
    let (version, envelope) = version_of(labels::RECORD_MANIFEST, sealed)?;
    let key = key_of(version).ok_or(CryptError::Refused(labels::RECORD_MANIFEST))?;
    envelope::open(key.expose(), labels::RECORD_MANIFEST, stripe.as_bytes(), envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRIPE: StripeId = StripeId::from_bytes([1; 16]);

    #[test]
    fn a_manifest_opens_only_with_its_stripe_and_tenant() {
        let tenant = TenantKey::generate();
        let sealed = tenant.seal_manifest(&STRIPE, b"who I am");
        assert_eq!(tenant.open_manifest(&STRIPE, &sealed).unwrap().as_slice(), b"who I am");
        assert!(tenant.open_manifest(&StripeId::from_bytes([2; 16]), &sealed).is_err());
        assert!(TenantKey::generate().open_manifest(&STRIPE, &sealed).is_err());
    }

    #[test]
    fn a_rotated_key_opens_what_older_versions_sealed_and_they_do_not_open_what_it_seals() {
        let old = TenantKey::generate();
        let new = old.rotated().unwrap();
        assert_eq!((old.version(), new.version()), (1, 2));
        let (before, after) = (old.seal_manifest(&STRIPE, b"1"), new.seal_manifest(&STRIPE, b"2"));
        assert_eq!(new.open_manifest(&STRIPE, &before).unwrap().as_slice(), b"1");
        assert_eq!(new.open_manifest(&STRIPE, &after).unwrap().as_slice(), b"2");
        assert!(old.open_manifest(&STRIPE, &after).is_err());
        let mut renamed = after.clone();
        renamed[3] = 1;
        assert!(new.open_manifest(&STRIPE, &renamed).is_err(), "a version opens its own only");
        assert_eq!(
            old.metadata_key().expose(),
            new.metadata_key().expose(),
            "the catalog's files stay readable"
        );
        assert_eq!(old.ids()[0], new.ids()[0]);
        assert_ne!(new.ids()[0].1, new.ids()[1].1);
    }

    #[test]
    fn the_stored_form_is_read_whole_or_refused() {
        let key = TenantKey::generate().rotated().unwrap();
        let bytes = key.to_bytes();
        assert_eq!(TenantKey::from_bytes(&bytes).unwrap().to_bytes(), bytes);
        let swapped = [&bytes[36..], &bytes[..36]].concat();
        for bad in [&bytes[..0], &bytes[..35], &bytes[..37], &swapped] {
            assert!(TenantKey::from_bytes(bad).is_err());
        }
        let mut full = key;
        while full.versions.len() < TENANT_KEY_VERSIONS_MAX {
            full = full.rotated().unwrap();
        }
        assert!(full.rotated().is_err());
        assert!(TenantKey::from_bytes(&full.to_bytes()).is_ok());
    }
}
