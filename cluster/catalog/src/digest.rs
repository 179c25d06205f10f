//! A digest of a database's rows, equal on replicas that applied the same log.
//!
//! Covers values, not pages: two files with the same rows have the same digest, however they came to them.

use rusqlite::{Connection, types::ValueRef};
use sha2::{Digest as _, Sha256};

/// The tables of a partition, each with its order. `meta` counts too: its counters are state.
pub(crate) const PARTITION_TABLES: &[&str] = &[
    "meta ORDER BY one",
    "buckets ORDER BY no",
    "documents ORDER BY bucket, kind, id",
    "objects ORDER BY bucket, key",
    "versions ORDER BY bucket, key, rank",
    "requests ORDER BY at, id",
    "object_parts ORDER BY version, start",
    "contents ORDER BY no",
    "stripes ORDER BY content, start",
    "drives ORDER BY no",
    "places ORDER BY drive, stripe",
    "uploads ORDER BY bucket, key, id",
    "upload_parts ORDER BY upload, number",
    "dead_contents ORDER BY since_index, content",
    "stale_shards ORDER BY no",
    "condemned ORDER BY stripe",
    "splits ORDER BY partition",
    "events ORDER BY no",
    "event_queues ORDER BY bucket, target",
];

/// SHA-256 over every value of every row of `tables`, each given with its order.
///
/// Every value is hashed with its type and length, every row and table with a mark, so that no two
/// different contents give the same input.
///
/// # Errors
/// As rusqlite.
pub fn of_tables(db: &Connection, tables: &[&str]) -> rusqlite::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    for table in tables {
        hash.update([b'T']);
        let mut statement = db.prepare(&format!("SELECT * FROM {table}"))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            hash.update([b'R']);
            for column in 0..columns {
                match row.get_ref(column)? {
                    ValueRef::Null => hash.update([b'n']),
                    ValueRef::Integer(value) => {
                        hash.update([b'i']);
                        hash.update(value.to_le_bytes());
                    }
                    ValueRef::Real(value) => {
                        hash.update([b'r']);
                        hash.update(value.to_bits().to_le_bytes());
                    }
                    ValueRef::Text(bytes) => sized(&mut hash, b't', bytes),
                    ValueRef::Blob(bytes) => sized(&mut hash, b'b', bytes),
                }
            }
        }
    }
    Ok(hash.finalize().into())
}

fn sized(hash: &mut Sha256, kind: u8, bytes: &[u8]) {
    hash.update([kind]);
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
