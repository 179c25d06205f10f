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
    CryptError,
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

    /// The metadata keys of all versions, and their names.
    #[must_use]
    pub fn metadata(&self) -> TenantMetadata {
        let ids = self.ids().into_iter();
        let versions = ids.zip(&self.versions).map(|((number, id), (_, key))| MetadataVersion {
            number,
            id,
            key: metadata_key(key),
        });
        TenantMetadata { versions: versions.collect() }
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
        let (key, envelope) = self.named_in(labels::RECORD_MANIFEST, sealed)?;
        open_manifest(&metadata_key(key), stripe, envelope)
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

    /// The key of the version that `sealed` names, and what follows.
    fn named_in<'s>(
        &self,
        purpose: &'static str,
        sealed: &'s [u8],
    ) -> Result<(&[u8; 32], &'s [u8]), CryptError> {
        let (version, envelope) =
            sealed.split_first_chunk::<VERSION_SIZE>().ok_or(CryptError::Malformed(purpose))?;
        let version = u32::from_be_bytes(*version);
        let found = self.versions.iter().find(|(known, _)| *known == version);
        let (_, key) = found.ok_or(CryptError::Refused(purpose))?;
        Ok((key, envelope))
    }
}

/// The part of a tenant's key that its metadata is sealed under: the metadata key of every version, with the public
/// names of the versions. Opens no body.
#[derive(Debug, Clone)]
pub struct TenantMetadata {
    /// In rising order, never empty.
    versions: Vec<MetadataVersion>,
}

#[derive(Debug, Clone)]
struct MetadataVersion {
    number: u32,
    id: KeyId,
    key: MetadataKey,
}

impl TenantMetadata {
    /// Bytes of one version in the stored form.
    pub(crate) const ENTRY_SIZE: usize = VERSION_SIZE + 32 + KeyId::SIZE;

    /// The version that seals.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.newest().number
    }

    /// Public names of all versions of the tenant's key.
    #[must_use]
    pub fn ids(&self) -> Vec<(u32, KeyId)> {
        self.versions.iter().map(|version| (version.number, version.id)).collect()
    }

    /// As [`TenantKey::metadata_key`].
    #[must_use]
    pub fn metadata_key(&self) -> MetadataKey {
        self.versions.first().expect("a tenant key has a version").key.clone()
    }

    /// As [`TenantKey::seal_manifest`].
    #[must_use]
    pub fn seal_manifest(&self, stripe: &StripeId, manifest: &[u8]) -> Vec<u8> {
        let newest = self.newest();
        seal_manifest(newest.number, &newest.key, stripe, manifest, random_array())
    }

    /// As [`TenantKey::open_manifest`].
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn open_manifest(&self, stripe: &StripeId, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        let purpose = labels::RECORD_MANIFEST;
        let (number, envelope) =
            sealed.split_first_chunk::<VERSION_SIZE>().ok_or(CryptError::Malformed(purpose))?;
        let number = u32::from_be_bytes(*number);
        let found = self.versions.iter().find(|version| version.number == number);
        open_manifest(&found.ok_or(CryptError::Refused(purpose))?.key, stripe, envelope)
    }

    /// The stored form: for each version its number (4, big-endian), its metadata key (32) and its name (16). Secret.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.versions.len() * Self::ENTRY_SIZE));
        for version in &self.versions {
            bytes.extend_from_slice(&version.number.to_be_bytes());
            bytes.extend_from_slice(version.key.expose());
            bytes.extend_from_slice(version.id.as_bytes());
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CryptError> {
        let malformed = CryptError::Malformed(labels::EXTERNAL_TENANT_KEY);
        let (entries, rest) = bytes.as_chunks::<{ Self::ENTRY_SIZE }>();
        let mut versions: Vec<MetadataVersion> = Vec::with_capacity(entries.len());
        for entry in entries {
            let (number, rest) = entry.split_first_chunk::<VERSION_SIZE>().expect("entries are longer");
            let (key, id) = rest.split_first_chunk::<32>().expect("entries are longer");
            let id = id.first_chunk::<{ KeyId::SIZE }>().expect("entries are as long as that");
            let number = u32::from_be_bytes(*number);
            if versions.last().map_or(0, |last| last.number) >= number {
                return Err(malformed);
            }
            versions.push(MetadataVersion {
                number,
                id: KeyId::from_bytes(*id),
                key: MetadataKey::from_bytes(*key),
            });
        }
        let fits = rest.is_empty() && (1..=TENANT_KEY_VERSIONS_MAX).contains(&versions.len());
        if fits { Ok(Self { versions }) } else { Err(malformed) }
    }

    fn newest(&self) -> &MetadataVersion {
        self.versions.last().expect("a tenant key has a version")
    }
}

fn seal_manifest(
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

fn open_manifest(
    key: &MetadataKey,
    stripe: &StripeId,
    envelope: &[u8],
) -> Result<Zeroizing<Vec<u8>>, CryptError> {
    envelope::open(key.expose(), labels::RECORD_MANIFEST, stripe.as_bytes(), envelope)
}

fn metadata_key(key: &[u8; 32]) -> MetadataKey {
    MetadataKey::from_bytes(*derive(key, b"", &[labels::TENANT_METADATA]))
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
