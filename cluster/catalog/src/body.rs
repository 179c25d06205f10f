//! Where the bytes of an object or a part are: in the catalog itself, or in stripes on drives.

use bytes::Bytes;
use holdfast_model::{
    Generation, ShardIndex, StripeId,
    limits::{DATA_SHARDS_MAX, INLINE_BODY_MAX, PARITY_SHARDS_MAX},
    placement::Place,
};
use serde::{Deserialize, Serialize};

/// Sealing may add this many bytes to an inline body: header, tag, commitment. Generous on purpose; the
/// exact figure belongs to the layer that seals.
pub const INLINE_OVERHEAD_MAX: usize = 1024;

/// A sealed body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyRef {
    /// Sealed bytes of a small body, kept in the catalog.
    Inline(Bytes),
    /// Stripes in the order of their content. Never empty: an empty body is inline.
    Stripes(Vec<StripeRef>),
}

/// One stripe and the places of its shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StripeRef {
    /// The stripe.
    pub id: StripeId,
    /// Number of the stripe under its body's key: its cells are sealed with it. Unique within a body but
    /// with gaps and not in order (a stripe that is cut anew while being written takes a new one), so it
    /// is kept, in a column of its own, and never computed from the position.
    pub number: u32,
    /// Bytes of plaintext in it.
    pub plain_len: u32,
    /// Data shards, `k`.
    pub data: u8,
    /// Parity shards, `m`.
    pub parity: u8,
    /// Counts up each time shards of this stripe are given new places. A shard's record carries the
    /// generation it was written under, which is this one or an earlier one.
    pub generation: Generation,
    /// The place of each shard by its index: data shards first, then parity.
    pub places: Vec<Place>,
}

impl StripeRef {
    /// All shards with their places.
    pub fn shards(&self) -> impl Iterator<Item = (ShardIndex, Place)> + '_ {
        self.places.iter().enumerate().map(|(index, place)| (shard_index(index), *place))
    }

    /// What is wrong with this stripe, if anything.
    fn fault(&self) -> Option<&'static str> {
        let (data, parity) = (usize::from(self.data), usize::from(self.parity));
        if self.plain_len == 0 {
            return Some("a stripe without content");
        }
        if data == 0 || data > DATA_SHARDS_MAX || parity > PARITY_SHARDS_MAX {
            return Some("a stripe with an impossible count of shards");
        }
        if self.places.len() != data + parity {
            return Some("a stripe whose places are not one for each shard");
        }
        (!drives_distinct(&self.places)).then_some("a stripe with two shards on one drive")
    }
}

impl BodyRef {
    /// What is wrong with this body of `size` plaintext bytes, if anything.
    pub(crate) fn fault(&self, size: u64) -> Option<&'static str> {
        match self {
            Self::Inline(_) if size > INLINE_BODY_MAX as u64 => Some("an inline body of a large object"),
            Self::Inline(sealed) if sealed.len() > INLINE_BODY_MAX + INLINE_OVERHEAD_MAX => {
                Some("an inline body that is too long")
            }
            Self::Inline(_) => None,
            Self::Stripes(stripes) if stripes.is_empty() => Some("a body without stripes"),
            Self::Stripes(stripes) => {
                if stripes.iter().map(|s| u64::from(s.plain_len)).sum::<u64>() != size {
                    return Some("stripes whose lengths do not add up to the size");
                }
                let mut ids: Vec<StripeId> = stripes.iter().map(|s| s.id).collect();
                ids.sort_unstable();
                if ids.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Some("the same stripe twice");
                }
                stripes.iter().find_map(StripeRef::fault)
            }
        }
    }

    /// The stripes; none for an inline body.
    #[must_use]
    pub fn stripes(&self) -> &[StripeRef] {
        match self {
            Self::Inline(_) => &[],
            Self::Stripes(stripes) => stripes,
        }
    }
}

pub(crate) fn drives_distinct(places: &[Place]) -> bool {
    places.iter().enumerate().all(|(i, place)| places[..i].iter().all(|other| other.drive != place.drive))
}

/// A position in a stripe as an index. Stripes have at most `DATA_SHARDS_MAX + PARITY_SHARDS_MAX` shards.
pub(crate) fn shard_index(position: usize) -> ShardIndex {
    ShardIndex::new(u8::try_from(position).expect("a stripe has fewer than 256 shards"))
}
