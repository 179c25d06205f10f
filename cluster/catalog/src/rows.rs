//! How values stand in columns. Integers are kept bit for bit; lists of places are fixed-width.

use holdfast_model::{DriveId, Generation, NodeId, ShardIndex, StripeId, placement::Place};
use rusqlite::{Row, types::Type};

use crate::body::StripeRef;

const PLACE_SIZE: usize = 8 + DriveId::SIZE;
const SHARD_SIZE: usize = 1 + PLACE_SIZE;

pub(crate) fn encode_places(places: &[Place]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(places.len() * PLACE_SIZE);
    for place in places {
        push_place(&mut bytes, *place);
    }
    bytes
}

pub(crate) fn decode_places(bytes: &[u8]) -> Option<Vec<Place>> {
    bytes.len().is_multiple_of(PLACE_SIZE).then(|| bytes.chunks_exact(PLACE_SIZE).map(take_place).collect())
}

pub(crate) fn encode_shards(shards: &[(ShardIndex, Place)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(shards.len() * SHARD_SIZE);
    for (index, place) in shards {
        bytes.push(index.get());
        push_place(&mut bytes, *place);
    }
    bytes
}

pub(crate) fn decode_shards(bytes: &[u8]) -> Option<Vec<(ShardIndex, Place)>> {
    bytes.len().is_multiple_of(SHARD_SIZE).then(|| {
        bytes
            .chunks_exact(SHARD_SIZE)
            .map(|shard| (ShardIndex::new(shard[0]), take_place(&shard[1..])))
            .collect()
    })
}

fn push_place(bytes: &mut Vec<u8>, place: Place) {
    bytes.extend_from_slice(&place.node.get().to_be_bytes());
    bytes.extend_from_slice(place.drive.as_bytes());
}

fn take_place(bytes: &[u8]) -> Place {
    let (node, drive) = bytes.split_at(8);
    Place {
        node: NodeId::new(u64::from_be_bytes(node.try_into().expect("the slice is 8 bytes"))),
        drive: DriveId::from_bytes(drive.try_into().expect("a place is 24 bytes")),
    }
}

/// A column holds what this release never wrote: the file is damaged.
pub(crate) fn malformed(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, what.into())
}

/// Columns of [`stripe_from`], in order.
pub(crate) const STRIPE_COLUMNS: &str = "id, number, plain_len, data, parity, generation, places";

/// A stripe from the columns [`STRIPE_COLUMNS`], the first of which is `first`.
pub(crate) fn stripe_from(row: &Row<'_>, first: usize) -> rusqlite::Result<StripeRef> {
    let places = row.get_ref(first + 6)?.as_blob()?;
    Ok(StripeRef {
        id: StripeId::from_bytes(row.get(first)?),
        number: row.get(first + 1)?,
        plain_len: row.get(first + 2)?,
        data: row.get(first + 3)?,
        parity: row.get(first + 4)?,
        generation: Generation::new(row.get(first + 5)?),
        places: decode_places(places).ok_or_else(|| malformed(first + 6, "places of a stripe"))?,
    })
}

/// A key. Keys are UTF-8; the column is a BLOB for its order.
pub(crate) fn key_from(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    let bytes = row.get_ref(column)?.as_blob()?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| malformed(column, "key that is not UTF-8"))
}
