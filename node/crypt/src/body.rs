//! Sealing of bodies: the cells of one object's content, or of one part, under a key of their own.
//!
//! Who begins a body gets a [`BodySealer`] with a fresh key; it lives in one place, cannot be copied and is
//! never stored. It deals out [`StripeSealer`]s, each with a number that no other has, and each of those
//! counts its cells. So a nonce under a body key is a counter that cannot be set: 4 zero bytes, the
//! stripe's number in the body (32 bits) and the cell's number in the stripe (32 bits), big-endian. A stripe
//! that has to be cut anew takes a new number; a body that is sent again, or was cut off by a crash, gets a
//! fresh key. Who unwraps a stored key gets a [`BodyKey`], which only opens.
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

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_model::{BucketId, ClusterId, TenantId, VersionId, limits::CELL_TAG_SIZE};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::Zeroizing;

use crate::{
    BodyUse, CryptError, CustodyError, Outer, TenantCustody, TenantKey, envelope::SALT_SIZE, labels,
    secret::random_array,
};

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

/// The key of one body, bound to its context. Opens; what seals is a [`BodySealer`].
pub struct BodyKey {
    cipher: LessSafeKey,
    context: BodyContext,
}

/// The key of a body that is being written.
pub struct BodySealer {
    key: BodyKey,
    bytes: Zeroizing<[u8; 32]>,
    /// Wider than a stripe's number, so that drawing past the last one cannot come round.
    next_stripe: AtomicU64,
}

/// Seals the cells of one stripe, in order.
pub struct StripeSealer<'b> {
    body: &'b BodySealer,
    number: u32,
    next_cell: u32,
}

impl std::fmt::Debug for BodyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodyKey").field("context", &self.context).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for BodySealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BodySealer").field("context", &self.key.context).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StripeSealer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StripeSealer").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A body key as the catalog keeps it: content id (16 bytes), version of the tenant key (4), envelope. It
/// holds the key, or, where there is an outer key, the key's envelope under that.
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

    /// Which body it is of, in its place, and what the tenant's key wrapped.
    fn parts(
        &self,
        (cluster, tenant, bucket): (ClusterId, TenantId, BucketId),
    ) -> Result<(BodyContext, &[u8]), CryptError> {
        let (content, wrapped) =
            self.0.split_first_chunk::<16>().ok_or(CryptError::Malformed(labels::BODY_KEY))?;
        Ok((BodyContext { cluster, tenant, bucket, content: VersionId::from_bytes(*content) }, wrapped))
    }
}

impl TenantKey {
    /// Wraps what a body's key is made of; for custodians.
    #[must_use]
    pub fn wrap_body_secret(&self, context: &BodyContext, name: &str, secret: &[u8]) -> Vec<u8> {
        self.wrap(labels::BODY_KEY, &wrap_context(context, name), secret, random_array())
    }

    /// Opens what [`TenantKey::wrap_body_secret`] made for the same body and name.
    ///
    /// # Errors
    /// `Refused` or `Malformed`.
    pub fn unwrap_body_secret(
        &self,
        context: &BodyContext,
        name: &str,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        self.unwrap(labels::BODY_KEY, &wrap_context(context, name), wrapped)
    }
}

impl BodySealer {
    /// A fresh key for a body that is begun now.
    #[must_use]
    pub fn begin(context: BodyContext) -> Self {
        Self::with_key(random_array(), context)
    }

    pub(crate) fn with_key(bytes: [u8; 32], context: BodyContext) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self { key: BodyKey::new(&bytes, context), bytes, next_stripe: AtomicU64::new(0) }
    }

    /// The key, to read back what was sealed.
    #[must_use]
    pub fn key(&self) -> &BodyKey {
        &self.key
    }

    /// Wraps this key under the outer key, if there is one, and then under the tenant's, bound to the context
    /// and to `name` (the object key).
    #[must_use]
    pub fn wrap(&self, tenant: &TenantKey, name: &str, outer: Option<Outer<'_>>) -> SealedBodyKey {
        match outer {
            None => self.wrap_salted(tenant, name, random_array()),
            Some(outer) => {
                let bound = wrap_context(&self.key.context, name);
                self.wrapped(tenant, &bound, &outer.seal(&bound, self.bytes.as_slice()), random_array())
            }
        }
    }

    /// As [`BodySealer::wrap`], by whoever holds the tenant's key.
    ///
    /// # Errors
    /// See [`CustodyError`].
    pub fn wrap_by(
        &self,
        tenant: &dyn TenantCustody,
        wanted: BodyUse,
        name: &str,
        outer: Option<Outer<'_>>,
    ) -> Result<SealedBodyKey, CustodyError> {
        let context = &self.key.context;
        let wrapped = match outer {
            None => tenant.wrap_body(wanted, context, name, self.bytes.as_slice())?,
            Some(outer) => {
                let secret = outer.seal(&wrap_context(context, name), self.bytes.as_slice());
                tenant.wrap_body(wanted, context, name, &secret)?
            }
        };
        Ok(SealedBodyKey([context.content.as_bytes().as_slice(), &wrapped].concat()))
    }

    pub(crate) fn wrap_salted(&self, tenant: &TenantKey, name: &str, salt: [u8; SALT_SIZE]) -> SealedBodyKey {
        let bound = wrap_context(&self.key.context, name);
        self.wrapped(tenant, &bound, self.bytes.as_slice(), salt)
    }

    fn wrapped(
        &self,
        tenant: &TenantKey,
        bound: &[u8],
        secret: &[u8],
        salt: [u8; SALT_SIZE],
    ) -> SealedBodyKey {
        let mut sealed = self.key.context.content.as_bytes().to_vec();
        sealed.extend(tenant.wrap(labels::BODY_KEY, bound, secret, salt));
        SealedBodyKey(sealed)
    }

    /// The next stripe of this body; the first is number 0.
    ///
    /// # Errors
    /// `Limit` after 2^32 stripes.
    pub fn stripe(&self) -> Result<StripeSealer<'_>, CryptError> {
        let drawn = self.next_stripe.fetch_add(1, Ordering::Relaxed);
        let number = u32::try_from(drawn).map_err(|_| CryptError::Limit("stripes of a body"))?;
        Ok(StripeSealer { body: self, number, next_cell: 0 })
    }
}

impl StripeSealer<'_> {
    /// The stripe's number in its body.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Seals the next cell in place: the plaintext is all of `cell` but its last [`CELL_TAG_SIZE`] bytes,
    /// which receive the tag. `last` says that it ends the body. Returns where the cell is.
    ///
    /// # Panics
    /// When `cell` is shorter than a tag, or after 2^32 cells: bugs of the caller's layout.
    pub fn seal_next(&mut self, last: bool, cell: &mut [u8]) -> CellAddress {
        let at = CellAddress { stripe: self.number, cell: self.next_cell, last };
        self.next_cell = self.next_cell.checked_add(1).expect("a stripe has at most 128 cells");
        let plain_len = cell.len().checked_sub(CELL_TAG_SIZE).expect("a cell has room for its tag");
        let (plain, tag_out) = cell.split_at_mut(plain_len);
        let key = &self.body.key;
        let tag: Tag = key
            .cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce(at)),
                Aad::from(key.aad(at)),
                plain,
            )
            .expect("a cell is far below AES-GCM's 64 GiB");
        tag_out.copy_from_slice(tag.as_ref());
        at
    }
}

impl BodyKey {
    fn new(bytes: &[u8; 32], context: BodyContext) -> Self {
        let unbound = UnboundKey::new(&AES_256_GCM, bytes).expect("the key is 32 bytes");
        Self { cipher: LessSafeKey::new(unbound), context }
    }

    /// What this key is bound to.
    #[must_use]
    pub fn context(&self) -> &BodyContext {
        &self.context
    }

    /// Opens what [`BodySealer::wrap`] made.
    ///
    /// # Errors
    /// `Refused` for another tenant, bucket or name, or another outer key; `Malformed`, also when there is an
    /// outer key and none is needed or the other way.
    pub fn unwrap(
        sealed: &SealedBodyKey,
        tenant_key: &TenantKey,
        place: (ClusterId, TenantId, BucketId),
        name: &str,
        outer: Option<Outer<'_>>,
    ) -> Result<Self, CryptError> {
        let (context, wrapped) = sealed.parts(place)?;
        let bytes = tenant_key.unwrap_body_secret(&context, name, wrapped)?;
        Self::from_secret(context, name, bytes, outer)
    }

    /// As [`BodyKey::unwrap`], by whoever holds the tenant's key.
    ///
    /// # Errors
    /// See [`CustodyError`].
    pub fn unwrap_by(
        sealed: &SealedBodyKey,
        (tenant_key, wanted): (&dyn TenantCustody, BodyUse),
        place: (ClusterId, TenantId, BucketId),
        name: &str,
        outer: Option<Outer<'_>>,
    ) -> Result<Self, CustodyError> {
        let (context, wrapped) = sealed.parts(place)?;
        let bytes = tenant_key.unwrap_body(wanted, &context, name, wrapped)?;
        Ok(Self::from_secret(context, name, bytes, outer)?)
    }

    fn from_secret(
        context: BodyContext,
        name: &str,
        mut bytes: Zeroizing<Vec<u8>>,
        outer: Option<Outer<'_>>,
    ) -> Result<Self, CryptError> {
        let bound = wrap_context(&context, name);
        if let Some(outer) = outer {
            bytes = outer.open(&bound, &bytes)?;
        }
        let bytes: &[u8; 32] =
            bytes.as_slice().try_into().map_err(|_| CryptError::Malformed(labels::BODY_KEY))?;
        Ok(Self::new(bytes, context))
    }

    /// Opens a cell in place and returns its plaintext.
    ///
    /// # Errors
    /// `Refused`; the bytes of `cell` are then unspecified and must not be used.
    pub fn open_cell<'c>(&self, at: CellAddress, cell: &'c mut [u8]) -> Result<&'c mut [u8], CryptError> {
        self.cipher
            .open_in_place(Nonce::assume_unique_for_key(nonce(at)), Aad::from(self.aad(at)), cell)
            .map_err(|_| CryptError::Refused("cell"))
    }

    fn aad(&self, at: CellAddress) -> [u8; AAD_SIZE] {
        let mut aad = [0; AAD_SIZE];
        aad[..5].copy_from_slice(labels::CELL);
        aad[5..21].copy_from_slice(self.context.cluster.as_bytes());
        aad[21..37].copy_from_slice(self.context.tenant.as_bytes());
        aad[37..53].copy_from_slice(self.context.bucket.as_bytes());
        aad[53..69].copy_from_slice(self.context.content.as_bytes());
        aad[69..73].copy_from_slice(&at.stripe.to_be_bytes());
        aad[73] = u8::from(at.last);
        aad
    }
}

fn nonce(at: CellAddress) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..8].copy_from_slice(&at.stripe.to_be_bytes());
    bytes[8..].copy_from_slice(&at.cell.to_be_bytes());
    bytes
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

    /// Draws and seals until the address is reached.
    fn sealed(body: &BodySealer, at: CellAddress, plain: &[u8]) -> Vec<u8> {
        let mut stripe = body.stripe().unwrap();
        while stripe.number() < at.stripe {
            stripe = body.stripe().unwrap();
        }
        loop {
            let ours = stripe.next_cell == at.cell;
            let mut cell = if ours { plain.to_vec() } else { Vec::new() };
            cell.extend([0; CELL_TAG_SIZE]);
            let sealed_at = stripe.seal_next(at.last && ours, &mut cell);
            if ours {
                assert_eq!(sealed_at, at);
                return cell;
            }
        }
    }

    proptest! {
        #[test]
        fn a_cell_opens_only_where_it_was_sealed(
            plain in prop::collection::vec(any::<u8>(), 0..300),
            at in (0..5u32, 0..5u32, any::<bool>()),
            other in (0..5u32, 0..5u32, any::<bool>()),
        ) {
            let address = |(stripe, cell, last)| CellAddress { stripe, cell, last };
            let body = BodySealer::begin(context(1));
            let mut cell = sealed(&body, address(at), &plain);
            let mut moved = cell.clone();
            prop_assert_eq!(body.key().open_cell(address(other), &mut moved).is_ok(), at == other);
            prop_assert_eq!(body.key().open_cell(address(at), &mut cell).unwrap(), &plain[..]);
        }
    }

    #[test]
    fn every_part_of_the_context_is_bound() {
        let at = CellAddress { stripe: 0, cell: 0, last: true };
        let base = context(1);
        let changed = [
            BodyContext { cluster: ClusterId::from_bytes([0; 16]), ..base },
            BodyContext { tenant: TenantId::from_bytes([0; 16]), ..base },
            BodyContext { bucket: BucketId::from_bytes([0; 16]), ..base },
            BodyContext { content: VersionId::from_bytes([0; 16]), ..base },
        ];
        for other in changed {
            let mut cell = sealed(&BodySealer::with_key([5; 32], base), at, b"content");
            assert!(BodyKey::new(&[5; 32], other).open_cell(at, &mut cell).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_wrapped_key_opens_only_under_its_tenant_and_name() {
        let tenant = TenantKey::generate();
        let base = context(1);
        let place = (base.cluster, base.tenant, base.bucket);
        let body = BodySealer::begin(base);
        let wrapped = body.wrap(&tenant, "a/key", None);
        let at = CellAddress { stripe: 3, cell: 1, last: false };
        let mut cell = sealed(&body, at, b"content");
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
        let body = BodySealer::begin(base);
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
    fn stripe_numbers_end_and_do_not_come_round() {
        let body = BodySealer::begin(context(1));
        body.next_stripe.store(u64::from(u32::MAX), Ordering::Relaxed);
        assert_eq!(body.stripe().unwrap().number(), u32::MAX);
        assert_eq!(body.stripe().unwrap_err(), CryptError::Limit("stripes of a body"));
        assert!(body.stripe().is_err());
    }

    /// Every (key, nonce) pair of ten million seals, with stripes cut anew, bodies cut off and sent again.
    /// Set `HOLDFAST_SEED` to repeat a run.
    #[test]
    fn ten_million_seals_repeat_no_nonce_under_a_key() {
        const SEALS: usize = 10_000_000;
        let seed = std::env::var("HOLDFAST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| u64::from_le_bytes(random_array()));
        println!("HOLDFAST_SEED={seed}");
        let mut state = seed | 1;
        let mut draw = move |below: u64| {
            // xorshift64 (Marsaglia, 2003): chance for the schedule, not for keys.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        // 64 bits of the key beside the 64 bits that count in the nonce: keys are random, so two that agree
        // in the first 64 of some 100,000 would be a fault of their own.
        let mut ledger: Vec<u128> = Vec::with_capacity(SEALS + 1024);
        let (mut bodies, mut recuts, mut crashes) = (0u64, 0u64, 0u64);
        let mut cell = [0; CELL_TAG_SIZE + 1];
        while ledger.len() < SEALS {
            let body = BodySealer::begin(context(1));
            bodies += 1;
            let key = u64::from_be_bytes(*body.bytes.first_chunk().unwrap());
            let stripes = draw(24) + 1;
            // A crash leaves the rest of the body unwritten; the client sends it again under another key.
            let crash = (draw(8) == 0).then(|| draw(stripes * 8));
            let mut sealed = 0;
            let mut left = stripes;
            'body: while left > 0 {
                let mut stripe = body.stripe().unwrap();
                for _ in 0..draw(12) + 1 {
                    if crash == Some(sealed) {
                        crashes += 1;
                        break 'body;
                    }
                    let at = stripe.seal_next(false, &mut cell);
                    let nonce = nonce(at);
                    let counted = u64::from_be_bytes(*nonce.last_chunk().unwrap());
                    ledger.push(u128::from(key) << 64 | u128::from(counted));
                    sealed += 1;
                }
                // A drive failed under the stripe: the same content again.
                if draw(6) == 0 {
                    recuts += 1;
                } else {
                    left -= 1;
                }
            }
        }
        let seals = ledger.len();
        ledger.sort_unstable();
        let repeated = ledger.windows(2).filter(|pair| pair[0] == pair[1]).count();
        println!(
            "{seals} seals, {bodies} bodies, {recuts} stripes cut anew, {crashes} crashes: {repeated} repeated"
        );
        assert!(seals >= SEALS && recuts > 10_000 && crashes > 1_000);
        assert_eq!(repeated, 0);
    }
}
