//! Which keys a partition holds, and what follows for reads: a key that another one holds is not "not there", and
//! listings pass over rows that a split left behind.

use rusqlite::Transaction;

use super::{PartitionReader, ReadError, Stop, count_from};
use crate::{
    hash_range::HashRange,
    settings::Quota,
    used::{Limits, Stored},
};

/// Where a partition stands among those of its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The keys it holds.
    pub range: HashRange,
    /// Rows that a split left behind are being cleared away: its shards must be left alone.
    pub clearing: bool,
    /// Versions of all its keys, delete markers included.
    pub versions: u64,
    /// Bytes of these and of parts of uploads.
    pub bytes: u64,
    /// What it may hold: its share of the tenant's quota.
    pub quota: Quota,
    /// Which sharing of the quota this share is from.
    pub quota_shares: u64,
}

impl PartitionReader {
    /// Where the partition stands.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn layout(&self) -> Result<Layout, ReadError> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT hash_from, hash_until, clearing <> 0, versions, bytes, quota_versions, quota_bytes,
                            quota_shares FROM meta",
                )?
                .query_row([], |row| {
                    let held = Stored { versions: row.get(3)?, bytes: row.get(4)? };
                    Ok(Layout {
                        range: HashRange { from: row.get(0)?, until: row.get(1)? },
                        clearing: row.get(2)?,
                        versions: held.versions.cast_unsigned(),
                        bytes: held.bytes.cast_unsigned(),
                        quota: Limits { versions: row.get(5)?, bytes: row.get(6)? }.quota(),
                        quota_shares: count_from(row, 7)?,
                    })
                })?)
        })
    }
}

/// What a read sees of the partition's keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys {
    pub(super) range: HashRange,
    clearing: bool,
}

impl Keys {
    pub(super) fn of(db: &Transaction<'_>) -> rusqlite::Result<Self> {
        db.prepare_cached("SELECT hash_from, hash_until, clearing <> 0 FROM meta")?.query_row([], |row| {
            let range = HashRange { from: row.get(0)?, until: row.get(1)? };
            Ok(Self { range, clearing: row.get(2)? })
        })
    }

    /// Whether a row of this key is to be passed over.
    pub(super) fn hides(self, key: &str) -> bool {
        self.clearing && !self.range.has(key.as_bytes())
    }

    /// Rows to ask for where `wanted` are to be shown: all there are while some of them are passed over. Rows are
    /// taken one by one, so what is not taken costs nothing.
    pub(super) fn limit(self, wanted: usize) -> i64 {
        if self.clearing { -1 } else { wanted as i64 }
    }
}

/// Refuses a read of a key that another partition holds.
pub(super) fn expect_key(db: &Transaction<'_>, key: &str) -> Result<(), Stop> {
    if Keys::of(db)?.range.has(key.as_bytes()) { Ok(()) } else { Err(Stop::Answer(ReadError::Moved)) }
}
