//! Nothing opens in another's place: of bodies of two tenants, buckets, objects, versions, stripes and cells, every
//! pair is exchanged, whole and part by part.
//!
//! One exchange is not for this layer to see: all of one version put in the place of another version of the same
//! object, key and cells together. Which version has which content is said by a row of the catalog, whose pages are
//! sealed under the tenant's key at their place in their file.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;

use holdfast_crypt::{BodyContext, BodyKey, BodySealer, CellAddress, SealedBodyKey, TenantKey};
use holdfast_model::{BucketId, ClusterId, TenantId, VersionId, limits::CELL_TAG_SIZE};
use proptest::prelude::*;

const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
/// Values of each part of a place.
const EACH: usize = 2;

/// Whose a body is: which tenant, bucket, object and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    tenant: usize,
    bucket: usize,
    object: usize,
    version: usize,
}

/// Where a cell belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    owner: Owner,
    stripe: u32,
    cell: u32,
}

/// Ids, names and keys by number.
#[derive(Debug)]
struct Names {
    tenants: [TenantId; EACH],
    keys: [TenantKey; EACH],
    buckets: [BucketId; EACH],
    objects: [String; EACH],
    versions: [VersionId; EACH],
}

impl Names {
    fn context(&self, owner: Owner) -> BodyContext {
        BodyContext {
            cluster: CLUSTER,
            tenant: self.tenants[owner.tenant],
            bucket: self.buckets[owner.bucket],
            content: self.versions[owner.version],
        }
    }

    /// The key of a body as a reader gets it who looks for `owner` and finds `wrapped`.
    fn unwrap(&self, owner: Owner, wrapped: &SealedBodyKey) -> Option<BodyKey> {
        let place = (CLUSTER, self.tenants[owner.tenant], self.buckets[owner.bucket]);
        let name = &self.objects[owner.object];
        BodyKey::unwrap(wrapped, &self.keys[owner.tenant], place, name, None).ok()
    }
}

/// What is stored.
struct World {
    names: Names,
    wrapped: BTreeMap<Owner, SealedBodyKey>,
    cells: BTreeMap<Place, Vec<u8>>,
}

fn owners() -> impl Iterator<Item = Owner> {
    (0..EACH.pow(4)).map(|n| Owner {
        tenant: n & 1,
        bucket: n >> 1 & 1,
        object: n >> 2 & 1,
        version: n >> 3 & 1,
    })
}

fn address(place: Place) -> CellAddress {
    let end = EACH as u32 - 1;
    CellAddress { stripe: place.stripe, cell: place.cell, last: place.stripe == end && place.cell == end }
}

impl World {
    /// All bodies have the same content and length, so that nothing but the keys tells them apart.
    fn new(names: Names, plain: &[u8]) -> Self {
        let (mut wrapped, mut cells) = (BTreeMap::new(), BTreeMap::new());
        for owner in owners() {
            let body = BodySealer::begin(names.context(owner));
            wrapped.insert(owner, body.wrap(&names.keys[owner.tenant], &names.objects[owner.object], None));
            for _ in 0..EACH {
                let mut sealer = body.stripe().unwrap();
                for cell in 0..EACH as u32 {
                    let place = Place { owner, stripe: sealer.number(), cell };
                    let mut bytes = [plain, &[0; CELL_TAG_SIZE]].concat();
                    let at = sealer.seal_next(address(place).last, &mut bytes);
                    assert_eq!(at, address(place));
                    cells.insert(place, bytes);
                }
            }
        }
        Self { names, wrapped, cells }
    }

    /// Whether a reader that looks for `place` gets something, when the wrapped key there is `key_of`'s and the cell
    /// is `cell_of`'s.
    fn reads(&self, place: Place, key_of: Owner, cell_of: Place) -> bool {
        let Some(key) = self.names.unwrap(place.owner, &self.wrapped[&key_of]) else { return false };
        key.open_cell(address(place), &mut self.cells[&cell_of].clone()).is_ok()
    }
}

fn two<T: std::fmt::Debug + PartialEq + Clone>(
    one: impl Strategy<Value = T> + Clone,
) -> impl Strategy<Value = [T; EACH]> {
    [one.clone(), one].prop_filter("two different ones", |[a, b]| a != b)
}

fn names() -> impl Strategy<Value = Names> {
    let id = any::<[u8; 16]>();
    (two(id), two(id), two("[a-z/]{1,20}"), two(id), two(any::<[u8; 32]>())).prop_map(
        |(tenants, buckets, objects, versions, _)| Names {
            tenants: tenants.map(TenantId::from_bytes),
            keys: [TenantKey::generate(), TenantKey::generate()],
            buckets: buckets.map(BucketId::from_bytes),
            objects,
            versions: versions.map(VersionId::from_bytes),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn no_cell_and_no_wrapped_key_opens_in_anothers_place(
        names in names(),
        plain in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let world = World::new(names, &plain);
        let places: Vec<Place> = world.cells.keys().copied().collect();
        let mut tried = [0_u32; 3];
        for here in &places {
            prop_assert!(world.reads(*here, here.owner, *here), "{here:?} as it was written");
            for there in places.iter().filter(|there| *there != here) {
                // The cell alone; the wrapped key alone; both, as a whole object put in another's place.
                prop_assert!(!world.reads(*here, here.owner, *there), "{here:?} with the cell of {there:?}");
                tried[0] += 1;
                if here.owner != there.owner {
                    prop_assert!(!world.reads(*here, there.owner, *here), "{here:?} with the key of {there:?}");
                    tried[1] += 1;
                }
                let versions = address(*here) == address(*there)
                    && Owner { version: here.owner.version, ..there.owner } == here.owner;
                let read = world.reads(*here, there.owner, *there);
                prop_assert_eq!(read, versions, "{:?} with all of {:?}", here, there);
                tried[2] += u32::from(!versions);
            }
        }
        let [cells, keys, both] = tried;
        println!(
            "{} places: {cells} exchanges of cells, {keys} of wrapped keys, {both} of both, none opened",
            places.len()
        );
    }
}
