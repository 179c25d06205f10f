//! What the background workers ask: is this stripe known, what did this drive hold, what is garbage.

use holdfast_model::{DriveId, Generation, ShardIndex, StripeId, UnixMillis, placement::Place};
use rusqlite::{OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::{PartitionReader, ReadError, count_from, time_from};
use crate::{
    body::StripeRef,
    response::GarbageId,
    rows::{STRIPE_COLUMNS, decode_shards, malformed, stripe_from},
};

/// Rows of one page of stripes or garbage at most.
pub const STRIPES_PAGE_MAX: usize = 4096;

/// A stripe that the catalog knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownStripe {
    /// The stripe.
    pub stripe: StripeRef,
    /// An object or a part needs it; otherwise it is garbage.
    pub live: bool,
}

/// One shard that a drive holds, or should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardOnDrive {
    /// Which shard of the stripe.
    pub index: ShardIndex,
    /// The stripe with all its places.
    pub known: KnownStripe,
}

/// Shards for the sweeper to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarbageRow {
    /// What [`crate::Op::RemoveGarbage`] is told when they are deleted.
    pub id: GarbageId,
    /// The stripe.
    pub stripe: StripeId,
    /// Only shards of this generation or an earlier one are garbage.
    pub generation: Generation,
    /// The shards and their places.
    pub shards: Vec<(ShardIndex, Place)>,
    /// Log index of the entry that made them garbage.
    pub since_index: u64,
    /// The time in that entry's command.
    pub since: UnixMillis,
}

/// Where the next page of garbage starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GarbageCursor {
    /// After this stripe of a dead content.
    Content {
        /// Log index of its death.
        since_index: u64,
        /// The content.
        content: i64,
        /// The stripe's offset in it, in bytes.
        start: u64,
    },
    /// After these shards.
    Shards {
        /// Their number.
        no: u64,
    },
}

impl PartitionReader {
    /// Whether the catalog knows the stripe, as part of an object, of an upload, or as garbage.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn stripe_known(&self, stripe: StripeId) -> Result<bool, ReadError> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT 1 FROM stripes WHERE id = ?1 UNION ALL SELECT 1 FROM stale_shards WHERE stripe = ?1",
                )?
                .exists(params![stripe.as_bytes()])?)
        })
    }

    /// Shards of a stripe that moves have left, and that wait to be swept.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn unswept(&self, stripe: StripeId) -> Result<Vec<(ShardIndex, Place)>, ReadError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT shards FROM stale_shards WHERE stripe = ?1")?;
            let mut rows = statement.query(params![stripe.as_bytes()])?;
            let mut shards = Vec::new();
            while let Some(row) = rows.next()? {
                shards.extend(shards_from(row, 0)?);
            }
            Ok(shards)
        })
    }

    /// A stripe by its id. `None`: no object or part ever held it, or the sweeper has removed it.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn stripe(&self, stripe: StripeId) -> Result<Option<KnownStripe>, ReadError> {
        self.read(|db| {
            let sql = format!(
                "SELECT c.died IS NULL, {STRIPE_COLUMNS} FROM stripes s JOIN contents c ON c.no = s.content WHERE s.id = ?1"
            );
            Ok(db
                .prepare_cached(&sql)?
                .query_row(params![stripe.as_bytes()], |row| {
                    Ok(KnownStripe { live: row.get(0)?, stripe: stripe_from(row, 1)? })
                })
                .optional()?)
        })
    }

    /// The shards on a drive, in the order of their stripes, after the given one. A scan of one range.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn stripes_on_drive(
        &self,
        drive: DriveId,
        after: Option<StripeId>,
        limit: usize,
    ) -> Result<Vec<ShardOnDrive>, ReadError> {
        self.read(|db| {
            let sql = format!(
                "SELECT p.shard, c.died IS NULL, {STRIPE_COLUMNS}
                 FROM places p JOIN stripes s ON s.id = p.stripe JOIN contents c ON c.no = s.content
                 WHERE p.drive = (SELECT no FROM drives WHERE id = ?1) AND p.stripe > ?2
                 ORDER BY p.stripe LIMIT ?3"
            );
            let after = after.map_or(Vec::new(), |stripe| stripe.as_bytes().to_vec());
            let limit = limit.min(STRIPES_PAGE_MAX) as i64;
            let shards = db
                .prepare_cached(&sql)?
                .query_map(params![drive.as_bytes(), after, limit], |row| {
                    let known = KnownStripe { live: row.get(1)?, stripe: stripe_from(row, 2)? };
                    Ok(ShardOnDrive { index: ShardIndex::new(row.get(0)?), known })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(shards)
        })
    }

    /// How many shards the catalog places on a drive, live or not.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn shards_on_drive(&self, drive: DriveId) -> Result<u64, ReadError> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT count(*) FROM places WHERE drive = (SELECT no FROM drives WHERE id = ?1)",
                )?
                .query_row(params![drive.as_bytes()], |row| count_from(row, 0))?)
        })
    }

    /// Shards that nothing needs any more: first whole stripes, those dead for longest first, then single
    /// shards. Also returns where the next page starts, when the page is full.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn garbage(
        &self,
        after: Option<GarbageCursor>,
        limit: usize,
    ) -> Result<(Vec<GarbageRow>, Option<GarbageCursor>), ReadError> {
        self.read(|db| {
            let limit = limit.min(STRIPES_PAGE_MAX);
            let mut found: Vec<(GarbageCursor, GarbageRow)> = Vec::new();
            if !matches!(after, Some(GarbageCursor::Shards { .. })) {
                dead_stripes(db, after, limit, &mut found)?;
            }
            if found.len() < limit {
                stale_shards(db, after, limit - found.len(), &mut found)?;
            }
            let next = found.last().map(|(cursor, _)| *cursor).filter(|_| found.len() == limit);
            Ok((found.into_iter().map(|(_, row)| row).collect(), next))
        })
    }
}

fn dead_stripes(
    db: &Transaction<'_>,
    after: Option<GarbageCursor>,
    limit: usize,
    found: &mut Vec<(GarbageCursor, GarbageRow)>,
) -> rusqlite::Result<()> {
    let (since_index, content, start) = match after {
        Some(GarbageCursor::Content { since_index, content, start }) => {
            (since_index.cast_signed(), content, start.cast_signed())
        }
        _ => (-1, -1, -1),
    };
    // The inner range keeps the scan to one content at a time; the first may be resumed in its middle.
    let mut contents = db.prepare_cached(
        "SELECT since_index, content, since FROM dead_contents WHERE (since_index, content) >= (?1, ?2)
         ORDER BY since_index, content",
    )?;
    let mut stripes = db.prepare_cached(&format!(
        "SELECT start, {STRIPE_COLUMNS} FROM stripes WHERE content = ?1 AND start > ?2 ORDER BY start LIMIT ?3"
    ))?;
    let mut rows = contents.query(params![since_index, content])?;
    while let Some(row) = rows.next()? {
        let (died, no, since) = (count_from(row, 0)?, row.get::<_, i64>(1)?, time_from(row, 2)?);
        let resumed = died.cast_signed() == since_index && no == content;
        let left = (limit - found.len()) as i64;
        let mut of_content = stripes.query(params![no, if resumed { start } else { -1 }, left])?;
        while let Some(row) = of_content.next()? {
            found.push(dead_stripe(row, died, no, since)?);
        }
        if found.len() == limit {
            break;
        }
    }
    Ok(())
}

fn dead_stripe(
    row: &Row<'_>,
    since_index: u64,
    content: i64,
    since: UnixMillis,
) -> rusqlite::Result<(GarbageCursor, GarbageRow)> {
    let stripe = stripe_from(row, 1)?;
    let garbage = GarbageRow {
        id: GarbageId::Stripe(stripe.id),
        stripe: stripe.id,
        generation: stripe.generation,
        shards: stripe.shards().collect(),
        since_index,
        since,
    };
    Ok((GarbageCursor::Content { since_index, content, start: count_from(row, 0)? }, garbage))
}

fn stale_shards(
    db: &Transaction<'_>,
    after: Option<GarbageCursor>,
    limit: usize,
    found: &mut Vec<(GarbageCursor, GarbageRow)>,
) -> rusqlite::Result<()> {
    let after = match after {
        Some(GarbageCursor::Shards { no }) => no.cast_signed(),
        _ => 0,
    };
    let mut statement = db.prepare_cached(
        "SELECT no, stripe, generation, shards, since_index, since FROM stale_shards WHERE no > ?1 ORDER BY no LIMIT ?2",
    )?;
    let mut rows = statement.query(params![after, limit as i64])?;
    while let Some(row) = rows.next()? {
        let no = count_from(row, 0)?;
        let shards = shards_from(row, 3)?;
        let garbage = GarbageRow {
            id: GarbageId::Shards(no),
            stripe: StripeId::from_bytes(row.get(1)?),
            generation: Generation::new(row.get(2)?),
            shards,
            since_index: count_from(row, 4)?,
            since: time_from(row, 5)?,
        };
        found.push((GarbageCursor::Shards { no }, garbage));
    }
    Ok(())
}

fn shards_from(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<(ShardIndex, Place)>> {
    decode_shards(row.get_ref(column)?.as_blob()?).ok_or_else(|| malformed(column, "stale shards"))
}
