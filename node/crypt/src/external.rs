//! A tenant's key sealed under a key that only the tenant's external key service gives back.
//!
//! Stored form, itself wrapped by the root in the place of the plain form of [`TenantKey`]. Integers are big-endian.
//!
//! | offset | size | field       | meaning                                                                       |
//! |-------:|-----:|-------------|-------------------------------------------------------------------------------|
//! |      0 |    4 | marker      | zero: no version of a key has this number, so the plain form never begins so  |
//! |      4 |    1 | form        | 1                                                                             |
//! |      5 |   16 | service     | which settings say how the service is reached                                 |
//! |     21 |    2 | length *d*  |                                                                               |
//! |     23 |  *d* | description | the service's key, for people; UTF-8                                          |
//! |        |    2 | length *c*  |                                                                               |
//! |        |  *c* | ciphertext  | the external key, as the service encrypted it; UTF-8                          |
//! |        |    2 | count *n*   | versions of the tenant's key                                                  |
//! |        | 52*n* | metadata   | of each version its number (4), its metadata key (32) and its public name (16) |
//! |        | rest | envelope    | under the external key: the plain form of the tenant's key                    |
//!
//! The envelope is bound to cluster and tenant, and so is what the service encrypts ([`external_context`]). Whoever
//! has the root alone reads metadata and names of versions, and no body.

use holdfast_model::{ClusterId, TenantId};
use zeroize::Zeroizing;

use crate::{
    CryptError, envelope,
    envelope::SALT_SIZE,
    labels,
    secret::{ExternalKek, random_array},
    tenant::{TENANT_KEY_VERSIONS_MAX, TenantKey, TenantMetadata},
};

/// Longest ciphertext of a service, in bytes.
pub const EXTERNAL_CIPHERTEXT_SIZE_MAX: usize = 4096;

/// Longest description of a service's key, in bytes.
pub const EXTERNAL_DESCRIPTION_SIZE_MAX: usize = 1024;

const MARKER: [u8; 4] = [0; 4];
const FORM: u8 = 1;
const SERVICE_SIZE: usize = 16;

const _: () = assert!(EXTERNAL_CIPHERTEXT_SIZE_MAX <= u16::MAX as usize);
const _: () = assert!(EXTERNAL_DESCRIPTION_SIZE_MAX <= u16::MAX as usize);
const _: () = assert!(TENANT_KEY_VERSIONS_MAX <= u16::MAX as usize);

/// A tenant's key as the root gives it back.
#[derive(Debug, Clone)]
pub enum WrappedTenant {
    /// The key itself.
    Plain(TenantKey),
    /// Sealed: the external key is needed as well.
    External(ExternallySealed),
}

impl WrappedTenant {
    pub(crate) fn parse(plain: &[u8]) -> Result<Self, CryptError> {
        if plain.starts_with(&MARKER) {
            ExternallySealed::parse(plain).map(Self::External)
        } else {
            TenantKey::from_bytes(plain).map(Self::Plain)
        }
    }

    /// What the tenant's metadata is sealed under.
    #[must_use]
    pub fn metadata(&self) -> TenantMetadata {
        match self {
            Self::Plain(key) => key.metadata(),
            Self::External(sealed) => sealed.metadata.clone(),
        }
    }
}

/// A tenant's key under an external key.
#[derive(Debug, Clone)]
pub struct ExternallySealed {
    /// Which settings say how the service is reached.
    pub service: [u8; SERVICE_SIZE],
    /// The service's key, for people.
    pub description: String,
    /// The external key as the service encrypted it.
    pub ciphertext: String,
    /// What needs no external key.
    pub metadata: TenantMetadata,
    envelope: Vec<u8>,
}

/// What binds an external key to its place, at the service and here: cluster ‖ tenant.
#[must_use]
pub fn external_context(cluster: ClusterId, tenant: TenantId) -> [u8; 32] {
    let mut context = [0; 32];
    context[..16].copy_from_slice(cluster.as_bytes());
    context[16..].copy_from_slice(tenant.as_bytes());
    context
}

impl ExternallySealed {
    /// Seals `key` under `kek`, whose `ciphertext` the service keeps the key of.
    ///
    /// # Errors
    /// `Limit` for texts that are too long.
    pub fn seal(
        (cluster, tenant): (ClusterId, TenantId),
        key: &TenantKey,
        kek: &ExternalKek,
        service: [u8; SERVICE_SIZE],
        description: &str,
        ciphertext: &str,
    ) -> Result<Self, CryptError> {
        Self::seal_salted((cluster, tenant), key, kek, (service, description, ciphertext), random_array())
    }

    pub(crate) fn seal_salted(
        (cluster, tenant): (ClusterId, TenantId),
        key: &TenantKey,
        kek: &ExternalKek,
        (service, description, ciphertext): ([u8; SERVICE_SIZE], &str, &str),
        salt: [u8; SALT_SIZE],
    ) -> Result<Self, CryptError> {
        if ciphertext.len() > EXTERNAL_CIPHERTEXT_SIZE_MAX {
            return Err(CryptError::Limit("ciphertext of an external key"));
        }
        if description.len() > EXTERNAL_DESCRIPTION_SIZE_MAX {
            return Err(CryptError::Limit("description of an external key"));
        }
        let context = external_context(cluster, tenant);
        let purpose = labels::EXTERNAL_TENANT_KEY;
        Ok(Self {
            service,
            description: description.to_owned(),
            ciphertext: ciphertext.to_owned(),
            metadata: key.metadata(),
            envelope: envelope::seal_salted(kek.expose(), purpose, &context, &key.to_bytes(), salt),
        })
    }

    /// This sealing with another version of the key, under the same external key.
    ///
    /// # Errors
    /// As [`ExternallySealed::seal`].
    pub fn with_key(
        &self,
        place: (ClusterId, TenantId),
        key: &TenantKey,
        kek: &ExternalKek,
    ) -> Result<Self, CryptError> {
        Self::seal(place, key, kek, self.service, &self.description, &self.ciphertext)
    }

    /// The tenant's key.
    ///
    /// # Errors
    /// `Refused` under another external key, or of another cluster or tenant; `Malformed`.
    pub fn open(
        &self,
        (cluster, tenant): (ClusterId, TenantId),
        kek: &ExternalKek,
    ) -> Result<TenantKey, CryptError> {
        let context = external_context(cluster, tenant);
        let purpose = labels::EXTERNAL_TENANT_KEY;
        TenantKey::from_bytes(&envelope::open(kek.expose(), purpose, &context, &self.envelope)?)
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let metadata = self.metadata.to_bytes();
        let mut bytes = Zeroizing::new(Vec::with_capacity(
            MARKER.len()
                + 1
                + SERVICE_SIZE
                + 6
                + self.description.len()
                + self.ciphertext.len()
                + metadata.len()
                + self.envelope.len(),
        ));
        let length = |n: usize| u16::try_from(n).expect("checked when it was sealed or read").to_be_bytes();
        bytes.extend_from_slice(&MARKER);
        bytes.push(FORM);
        bytes.extend_from_slice(&self.service);
        for text in [&self.description, &self.ciphertext] {
            bytes.extend_from_slice(&length(text.len()));
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&length(metadata.len() / TenantMetadata::ENTRY_SIZE));
        bytes.extend_from_slice(&metadata);
        bytes.extend_from_slice(&self.envelope);
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, CryptError> {
        Self::read(bytes).ok_or(CryptError::Malformed(labels::EXTERNAL_TENANT_KEY))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(&MARKER)?.strip_prefix(&[FORM])?;
        let (service, rest) = rest.split_first_chunk::<SERVICE_SIZE>()?;
        let (description, rest) = text(rest, EXTERNAL_DESCRIPTION_SIZE_MAX)?;
        let (ciphertext, rest) = text(rest, EXTERNAL_CIPHERTEXT_SIZE_MAX)?;
        let (count, rest) = rest.split_first_chunk::<2>()?;
        let size = usize::from(u16::from_be_bytes(*count)) * TenantMetadata::ENTRY_SIZE;
        let (metadata, envelope) = rest.split_at_checked(size)?;
        let metadata = TenantMetadata::from_bytes(metadata).ok()?;
        let envelope = envelope.to_vec();
        Some(Self { service: *service, description, ciphertext, metadata, envelope })
    }
}

fn text(bytes: &[u8], size_max: usize) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (text, rest) = rest.split_at_checked(length)?;
    if length > size_max {
        return None;
    }
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use holdfast_model::{RootEpoch, StripeId};

    use super::*;
    use crate::Root;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
    const TENANT: TenantId = TenantId::from_bytes([2; 16]);
    const OTHER: TenantId = TenantId::from_bytes([3; 16]);
    const STRIPE: StripeId = StripeId::from_bytes([4; 16]);

    fn sealed(key: &TenantKey, kek: &ExternalKek) -> ExternallySealed {
        ExternallySealed::seal((CLUSTER, TENANT), key, kek, [7; 16], "key k at s", "vault:v1:abc").unwrap()
    }

    fn external(root: &Root, wrapped: &[u8]) -> ExternallySealed {
        match root.open_tenant(TENANT, wrapped).unwrap() {
            WrappedTenant::External(sealed) => sealed,
            WrappedTenant::Plain(_) => panic!("it was sealed"),
        }
    }

    #[test]
    fn both_the_root_and_the_external_key_are_needed() {
        let (key, kek) = (TenantKey::generate().rotated().unwrap(), ExternalKek::generate());
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let wrapped = root.wrap_external(TENANT, &sealed(&key, &kek));
        let back = external(&root, &wrapped);
        assert_eq!((back.service, back.ciphertext.as_str()), ([7; 16], "vault:v1:abc"));
        assert_eq!(back.open((CLUSTER, TENANT), &kek).unwrap().to_bytes(), key.to_bytes());
        assert!(back.open((CLUSTER, TENANT), &ExternalKek::generate()).is_err(), "another external key");
        assert!(back.open((CLUSTER, OTHER), &kek).is_err(), "another tenant");
        assert!(back.open((ClusterId::from_bytes([9; 16]), TENANT), &kek).is_err(), "another cluster");
        assert!(root.open_tenant(OTHER, &wrapped).is_err(), "wrapped for another tenant");
        assert!(Root::generate(CLUSTER, RootEpoch::new(1)).open_tenant(TENANT, &wrapped).is_err());
        assert!(
            root.unwrap_tenant(TENANT, &wrapped).is_err(),
            "who knows the plain form only takes it for none"
        );
    }

    #[test]
    fn metadata_and_names_of_versions_need_the_root_alone() {
        let (key, kek) = (TenantKey::generate().rotated().unwrap(), ExternalKek::generate());
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        let back = external(&root, &root.wrap_external(TENANT, &sealed(&key, &kek)));
        assert_eq!(back.metadata.ids(), key.ids());
        assert_eq!(back.metadata.metadata_key().expose(), key.metadata_key().expose());
        let manifest = key.seal_manifest(&STRIPE, b"who I am");
        assert_eq!(back.metadata.open_manifest(&STRIPE, &manifest).unwrap().as_slice(), b"who I am");
        let again = back.metadata.seal_manifest(&STRIPE, b"again");
        assert_eq!(key.open_manifest(&STRIPE, &again).unwrap().as_slice(), b"again");
        let stored = back.encode();
        for (_, version) in key.to_bytes().as_chunks::<36>().0.iter().map(|entry| entry.split_at(4)) {
            assert!(!stored.windows(32).any(|window| window == version), "no version of the key is in it");
        }
    }

    #[test]
    fn a_new_root_wraps_it_anew_without_the_external_key() {
        let (key, kek) = (TenantKey::generate(), ExternalKek::generate());
        let (old, new) =
            (Root::generate(CLUSTER, RootEpoch::new(1)), Root::generate(CLUSTER, RootEpoch::new(2)));
        let wrapped = old.wrap_external(TENANT, &sealed(&key, &kek));
        let again = old.rewrap_tenant(TENANT, &wrapped, &new).unwrap();
        assert!(old.open_tenant(TENANT, &again).is_err());
        assert_eq!(external(&new, &again).open((CLUSTER, TENANT), &kek).unwrap().to_bytes(), key.to_bytes());
        let plain = old.rewrap_tenant(TENANT, &old.wrap_tenant(TENANT, &key), &new).unwrap();
        assert_eq!(new.unwrap_tenant(TENANT, &plain).unwrap().to_bytes(), key.to_bytes());
    }

    #[test]
    fn the_stored_form_is_read_whole_or_refused() {
        let sealed = sealed(&TenantKey::generate(), &ExternalKek::generate());
        let bytes = sealed.encode();
        assert_eq!(ExternallySealed::parse(&bytes).unwrap().encode(), bytes);
        let envelope_at = bytes.len() - sealed.envelope.len();
        for length in 0..envelope_at {
            assert!(ExternallySealed::parse(&bytes[..length]).is_err(), "length {length}");
        }
        let mut changed = bytes.to_vec();
        changed[4] = 2;
        assert!(ExternallySealed::parse(&changed).is_err(), "another form");
        let long = "x".repeat(EXTERNAL_CIPHERTEXT_SIZE_MAX + 1);
        let kek = ExternalKek::generate();
        let refused =
            ExternallySealed::seal((CLUSTER, TENANT), &TenantKey::generate(), &kek, [0; 16], "", &long);
        assert!(refused.is_err());
    }
}
