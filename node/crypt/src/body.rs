//! Sealing of bodies: the cells of one object's content, or of one part, under a key of their own.
//!
//! A [`BodyKey`] seals one body and no other, so its nonces can be counters: 4 zero bytes, the stripe's
//! number in the body (32 bits) and the cell's number in the stripe (32 bits), big-endian. Sealing the
//! same cell again with the same plaintext gives the same bytes; a body key never sees two plaintexts
//! for one cell, because a body that is sent again gets a fresh key.
//!
//! Associated data of a cell (75 bytes), so that nothing can be swapped, reordered or cut:
//!
//! | offset | size | field                                       |
//! |-------:|-----:|---------------------------------------------|
//! |      0 |    5 | `cell\x01`                                  |
//! |      5 |   16 | cluster                                     |
//! |     21 |   16 | tenant                                      |
//! |     37 |   16 | bucket                                      |
//! |     53 |   16 | content: this body, made when it was begun  |
//! |     69 |    4 | stripe number in the body                   |
//! |     73 |    1 | 1 for the last cell of the body, else 0     |
//! |     74 |    1 | zero                                        |
//!
//! The cell number is bound through the nonce. The object key (name) is bound by [`SealedBodyKey`].

use holdfast_model::{BucketId, ClusterId, TenantId, VersionId, limits::CELL_TAG_SIZE};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::Zeroizing;

use crate::{CryptError, Outer, TenantKey, envelope, secret::random_array};

const WRAP_PURPOSE: &str = "body key";
const MANIFEST_PURPOSE: &str = "record manifest";
const AAD_SIZE: usize = 75;

/// What a body belongs to. `content` is made anew for every body that is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyContext {
    /// The cluster.
    pub cluster: ClusterId,
    /// The tenant.
    pub tenant: TenantId,
    /// The bucket.
    pub bucket: BucketId,
    /// This body.
    pub content: VersionId,
}

/// Where a cell is in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellAddress {
    /// Number of the stripe in the body, from 0.
    pub stripe: u32,
    /// Number of the cell in the stripe, from 0.
    pub cell: u32,
    /// Whether it is the last cell of the body.
    pub last: bool,
}

/// The key of one body, bound to its context.
pub struct BodyKey {
    cipher: LessSafeKey,
    context: BodyContext,
    bytes: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for BodyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyKey").field("context", &self.context).finish_non_exhaustive()
    }
}

/// A body key as the catalog keeps it: content id (16 bytes), then an envelope under the tenant key. It holds
/// the key, or, where there is an outer key, the key's envelope under that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedBodyKey(Vec<u8>);

impl SealedBodyKey {
    /// The stored form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Takes the stored form as it is; [`BodyKey::unwrap`] judges it.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl BodyKey {
    /// A fresh key for a body that is begun now.
    #[must_use]
    pub fn generate(context: BodyContext) -> Self {
        Self::new(random_array(), context)
    }

    fn new(bytes: [u8; 32], context: BodyContext) -> Self {
        let bytes = Zeroizing::new(bytes);
        let unbound = UnboundKey::new(&AES_256_GCM, bytes.as_slice()).expect("the key is 32 bytes");
        Self { cipher: LessSafeKey::new(unbound), context, bytes }
    }

    /// What this key is bound to.
    #[must_use]
    pub fn context(&self) -> &BodyContext {
        &self.context
    }

    /// Wraps this key under the outer key, if there is one, and then under the tenant's, bound to the context
    /// and to `name` (the object key).
    #[must_use]
    pub fn wrap(&self, tenant: &TenantKey, name: &str, outer: Option<Outer<'_>>) -> SealedBodyKey {
        let bound = wrap_context(&self.context, name);
        let envelope = match outer {
            None => envelope::seal(tenant.expose(), WRAP_PURPOSE, &bound, self.bytes.as_slice()),
            Some(outer) => {
                let inner = outer.seal(&bound, self.bytes.as_slice());
                envelope::seal(tenant.expose(), WRAP_PURPOSE, &bound, &inner)
            }
        };
        let mut sealed = self.context.content.as_bytes().to_vec();
        sealed.extend(envelope);
        SealedBodyKey(sealed)
    }

    /// Opens what [`BodyKey::wrap`] made.
    ///
    /// # Errors
    /// `Refused` for another tenant, bucket or name, or another outer key; `Malformed`, also when there is an
    /// outer key and none is needed or the other way.
    pub fn unwrap(
        sealed: &SealedBodyKey,
        tenant_key: &TenantKey,
        (cluster, tenant, bucket): (ClusterId, TenantId, BucketId),
        name: &str,
        outer: Option<Outer<'_>>,
    ) -> Result<Self, CryptError> {
        let (content, wrapped) =
            sealed.0.split_first_chunk::<16>().ok_or(CryptError::Malformed(WRAP_PURPOSE))?;
        let context = BodyContext { cluster, tenant, bucket, content: VersionId::from_bytes(*content) };
        let bound = wrap_context(&context, name);
        let mut bytes = envelope::open(tenant_key.expose(), WRAP_PURPOSE, &bound, wrapped)?;
        if let Some(outer) = outer {
            bytes = outer.open(&bound, &bytes)?;
        }
        let bytes: [u8; 32] = bytes.as_slice().try_into().map_err(|_| CryptError::Malformed(WRAP_PURPOSE))?;
        Ok(Self::new(bytes, context))
    }

    /// Seals a cell in place: the plaintext is all of `cell` but its last [`CELL_TAG_SIZE`] bytes,
    /// which receive the tag.
    ///
    /// # Panics
    /// When `cell` is shorter than a tag: a bug of the caller's layout.
    pub fn seal_cell(&self, at: CellAddress, cell: &mut [u8]) {
        let plain_len = cell.len().checked_sub(CELL_TAG_SIZE).expect("a cell has room for its tag");
        let (plain, tag_out) = cell.split_at_mut(plain_len);
        let tag: Tag = self
            .cipher
            .seal_in_place_separate_tag(nonce(at), Aad::from(self.aad(at)), plain)
            .expect("a cell is far below AES-GCM's 64 GiB");
        tag_out.copy_from_slice(tag.as_ref());
    }

    /// Opens a cell in place and returns its plaintext.
    ///
    /// # Errors
    /// `Refused`; the bytes of `cell` are then unspecified and must not be used.
    pub fn open_cell<'c>(&self, at: CellAddress, cell: &'c mut [u8]) -> Result<&'c mut [u8], CryptError> {
        self.cipher
            .open_in_place(nonce(at), Aad::from(self.aad(at)), cell)
            .map_err(|_| CryptError::Refused("cell"))
    }

    fn aad(&self, at: CellAddress) -> [u8; AAD_SIZE] {
        let mut aad = [0; AAD_SIZE];
        aad[..5].copy_from_slice(b"cell\x01");
        aad[5..21].copy_from_slice(self.context.cluster.as_bytes());
        aad[21..37].copy_from_slice(self.context.tenant.as_bytes());
        aad[37..53].copy_from_slice(self.context.bucket.as_bytes());
        aad[53..69].copy_from_slice(self.context.content.as_bytes());
        aad[69..73].copy_from_slice(&at.stripe.to_be_bytes());
        aad[73] = u8::from(at.last);
        aad
    }
}

fn nonce(at: CellAddress) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..8].copy_from_slice(&at.stripe.to_be_bytes());
    bytes[8..].copy_from_slice(&at.cell.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn wrap_context(context: &BodyContext, name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + name.len());
    bytes.extend_from_slice(context.cluster.as_bytes());
    bytes.extend_from_slice(context.tenant.as_bytes());
    bytes.extend_from_slice(context.bucket.as_bytes());
    bytes.extend_from_slice(context.content.as_bytes());
    bytes.extend_from_slice(name.as_bytes());
    bytes
}

impl TenantKey {
    /// Seals a record manifest under the tenant's metadata key, bound to the stripe it travels with.
    #[must_use]
    pub fn seal_manifest(&self, stripe: &holdfast_model::StripeId, manifest: &[u8]) -> Vec<u8> {
        envelope::seal(self.metadata_key().expose(), MANIFEST_PURPOSE, stripe.as_bytes(), manifest)
    }

    /// Opens what [`TenantKey::seal_manifest`] made.
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn open_manifest(
        &self,
        stripe: &holdfast_model::StripeId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        envelope::open(self.metadata_key().expose(), MANIFEST_PURPOSE, stripe.as_bytes(), sealed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::OuterKey;

    fn context(seed: u8) -> BodyContext {
        BodyContext {
            cluster: ClusterId::from_bytes([seed; 16]),
            tenant: TenantId::from_bytes([seed.wrapping_add(1); 16]),
            bucket: BucketId::from_bytes([seed.wrapping_add(2); 16]),
            content: VersionId::from_bytes([seed.wrapping_add(3); 16]),
        }
    }

    fn sealed(key: &BodyKey, at: CellAddress, plain: &[u8]) -> Vec<u8> {
        let mut cell = plain.to_vec();
        cell.extend([0; CELL_TAG_SIZE]);
        key.seal_cell(at, &mut cell);
        cell
    }

    proptest! {
        #[test]
        fn a_cell_opens_only_where_it_was_sealed(
            plain in prop::collection::vec(any::<u8>(), 0..300),
            at in (0..5u32, 0..5u32, any::<bool>()),
            other in (0..5u32, 0..5u32, any::<bool>()),
        ) {
            let address = |(stripe, cell, last)| CellAddress { stripe, cell, last };
            let key = BodyKey::generate(context(1));
            let mut cell = sealed(&key, address(at), &plain);
            let mut moved = cell.clone();
            prop_assert_eq!(key.open_cell(address(other), &mut moved).is_ok(), at == other);
            prop_assert_eq!(key.open_cell(address(at), &mut cell).unwrap(), &plain[..]);
        }
    }

    #[test]
    fn every_part_of_the_context_is_bound() {
        let at = CellAddress { stripe: 0, cell: 0, last: true };
        let base = context(1);
        let key = BodyKey::new([5; 32], base);
        let changed = [
            BodyContext { cluster: ClusterId::from_bytes([0; 16]), ..base },
            BodyContext { tenant: TenantId::from_bytes([0; 16]), ..base },
            BodyContext { bucket: BucketId::from_bytes([0; 16]), ..base },
            BodyContext { content: VersionId::from_bytes([0; 16]), ..base },
        ];
        for other in changed {
            let mut cell = sealed(&key, at, b"content");
            assert!(BodyKey::new([5; 32], other).open_cell(at, &mut cell).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_wrapped_key_opens_only_under_its_tenant_and_name() {
        let tenant = TenantKey::generate();
        let base = context(1);
        let place = (base.cluster, base.tenant, base.bucket);
        let key = BodyKey::generate(base);
        let wrapped = key.wrap(&tenant, "a/key", None);
        let at = CellAddress { stripe: 3, cell: 1, last: false };
        let mut cell = sealed(&key, at, b"content");
        let again = BodyKey::unwrap(&wrapped, &tenant, place, "a/key", None).unwrap();
        assert_eq!(again.open_cell(at, &mut cell).unwrap(), b"content");
        assert!(BodyKey::unwrap(&wrapped, &tenant, place, "another/key", None).is_err());
        assert!(BodyKey::unwrap(&wrapped, &TenantKey::generate(), place, "a/key", None).is_err());
        let elsewhere = (place.0, place.1, BucketId::from_bytes([0; 16]));
        assert!(BodyKey::unwrap(&wrapped, &tenant, elsewhere, "a/key", None).is_err());
        let mut other_content = wrapped.as_bytes().to_vec();
        other_content[0] ^= 1;
        assert!(
            BodyKey::unwrap(&SealedBodyKey::from_bytes(other_content), &tenant, place, "a/key", None)
                .is_err()
        );
        assert!(
            BodyKey::unwrap(&SealedBodyKey::from_bytes(vec![1; 5]), &tenant, place, "a/key", None).is_err()
        );
    }

    #[test]
    fn behind_an_outer_key_both_keys_and_the_context_are_needed() {
        let (tenant, key) = (TenantKey::generate(), OuterKey::generate());
        let base = context(1);
        let place = (base.cluster, base.tenant, base.bucket);
        let body = BodyKey::generate(base);
        let at = CellAddress { stripe: 0, cell: 0, last: true };
        let mut cell = sealed(&body, at, b"content");
        let outer = |key, context| Some(Outer { key, context });
        let wrapped = body.wrap(&tenant, "k", outer(&key, b"context"));
        let open = |tenant: &TenantKey, outer| BodyKey::unwrap(&wrapped, tenant, place, "k", outer);
        let again = open(&tenant, outer(&key, b"context")).unwrap();
        assert_eq!(again.open_cell(at, &mut cell).unwrap(), b"content");
        assert!(open(&tenant, None).is_err());
        let other = OuterKey::generate();
        assert!(open(&tenant, outer(&other, b"context")).is_err());
        assert!(open(&tenant, outer(&key, b"")).is_err());
        assert!(open(&TenantKey::generate(), outer(&key, b"context")).is_err());
        let plain = body.wrap(&tenant, "k", None);
        assert!(BodyKey::unwrap(&plain, &tenant, place, "k", outer(&key, b"")).is_err());
    }

    #[test]
    fn a_manifest_opens_only_with_its_stripe() {
        use holdfast_model::StripeId;
        let tenant = TenantKey::generate();
        let stripe = StripeId::from_bytes([1; 16]);
        let sealed = tenant.seal_manifest(&stripe, b"who I am");
        assert_eq!(tenant.open_manifest(&stripe, &sealed).unwrap().as_slice(), b"who I am");
        assert!(tenant.open_manifest(&StripeId::from_bytes([2; 16]), &sealed).is_err());
    }
}
