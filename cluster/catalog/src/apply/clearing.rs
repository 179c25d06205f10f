//! Clearing away what a split left behind. Both halves begin with every row; each removes those of keys that are
//! not its own, a bounded number with each command, while clients go on: reads and writes of such keys are refused
//! from the split on, and listings pass over them.
//!
//! Nothing becomes garbage by this: the shards belong to the other half, which has the same rows. That is why no
//! shard may move before the rows are gone ([`crate::Refusal::Clearing`]), and why what was garbage before the split
//! stays with the lower half alone.

use rusqlite::params;

use crate::{
    body::StripeRef,
    partition::{Clearing, Writer},
    response::{Outcome, Response},
    rows::{STRIPE_COLUMNS, stripe_from},
};

/// Phases in the lower half: its garbage is its own.
pub(crate) const OF_LOWER_HALF: i64 = 1;

/// Phases in the upper half.
pub(crate) const OF_UPPER_HALF: i64 = 11;

/// Phases begin here in both halves: `objects`, `versions`, `uploads`, and the contents that were dead.
const OBJECTS: i64 = 1;
const VERSIONS: i64 = 2;
const UPLOADS: i64 = 3;
const DEAD: i64 = 4;
/// What distinguishes the phases of the upper half.
const UPPER: i64 = 10;

/// Rows looked at by one command.
const ROWS: i64 = 2048;

/// A partition is not said to be cleared earlier than this after the split, in milliseconds by its clock: work that
/// had begun on its shards before is over by then.
pub const CLEARING_MILLIS_MIN: i64 = 20_000;

/// A row that may have to go.
struct Row {
    bucket: i64,
    key: Vec<u8>,
    rank: Vec<u8>,
    content: i64,
    /// The version or upload.
    id: Vec<u8>,
}

pub(super) fn clear(writer: &mut Writer<'_>) -> rusqlite::Result<Outcome> {
    let phase = writer.open.clearing.phase;
    let done = match phase % UPPER {
        OBJECTS => clear_rows(writer, &OF_OBJECTS)?,
        VERSIONS => clear_rows(writer, &OF_VERSIONS)?,
        UPLOADS => clear_rows(writer, &OF_UPLOADS)?,
        DEAD => clear_dead(writer)?,
        _ => return Ok(Ok(Response::Cleared { done: true })),
    };
    if done {
        let is_upper = phase > UPPER;
        let last = if is_upper { DEAD } else { UPLOADS };
        let clearing = &mut writer.open.clearing;
        let split_at = clearing.split_at;
        if phase % UPPER < last {
            let phase = phase + 1;
            *clearing = Clearing { phase, bucket: -1, split_at, ..Clearing::default() };
        } else if writer.now.get().cast_signed() >= split_at + CLEARING_MILLIS_MIN {
            *clearing = Clearing { bucket: -1, split_at, ..Clearing::default() };
        }
    }
    Ok(Ok(Response::Cleared { done: writer.open.clearing.phase == 0 }))
}

/// How one table is cleared.
struct Table {
    /// Rows after a place: bucket, key, rank, content, id.
    page: &'static str,
    /// Removes one by bucket, key and rank.
    delete: &'static str,
}

const OF_OBJECTS: Table = Table {
    page: "SELECT bucket, key, x'', content, version FROM objects
           WHERE (bucket, key) > (?1, ?2) AND ?3 = ?3 ORDER BY bucket, key LIMIT ?4",
    delete: "DELETE FROM objects WHERE bucket = ?1 AND key = ?2 AND ?3 = ?3",
};

const OF_VERSIONS: Table = Table {
    page: "SELECT bucket, key, rank, content, version FROM versions
           WHERE (bucket, key, rank) > (?1, ?2, ?3) ORDER BY bucket, key, rank LIMIT ?4",
    delete: "DELETE FROM versions WHERE bucket = ?1 AND key = ?2 AND rank = ?3",
};

/// An upload has no content of its own, but parts.
const OF_UPLOADS: Table = Table {
    page: "SELECT bucket, key, id, -1, id FROM uploads
           WHERE (bucket, key, id) > (?1, ?2, ?3) ORDER BY bucket, key, id LIMIT ?4",
    delete: "DELETE FROM uploads WHERE bucket = ?1 AND key = ?2 AND id = ?3",
};

/// Clears one page of a table; whether that was the last.
fn clear_rows(writer: &mut Writer<'_>, table: &Table) -> rusqlite::Result<bool> {
    let at = writer.open.clearing.clone();
    let rows: Vec<Row> = writer
        .db
        .prepare_cached(table.page)?
        .query_map(params![at.bucket, at.key, at.rank, ROWS], |row| {
            Ok(Row {
                bucket: row.get(0)?,
                key: row.get(1)?,
                rank: row.get(2)?,
                content: row.get(3)?,
                id: row.get(4)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let range = writer.open.range;
    for row in rows.iter().filter(|row| !range.has(&row.key)) {
        for (parts, remove) in PARTS {
            let contents: Vec<i64> = writer
                .db
                .prepare_cached(parts)?
                .query_map(params![row.id], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            if !contents.is_empty() {
                contents.iter().try_for_each(|content| forget_content(writer, *content))?;
                writer.db.prepare_cached(remove)?.execute(params![row.id])?;
            }
        }
        if row.content > 0 {
            forget_content(writer, row.content)?;
        }
        writer.db.prepare_cached(table.delete)?.execute(params![row.bucket, row.key, row.rank])?;
    }
    let last = rows.len() < usize::try_from(ROWS).unwrap_or(usize::MAX);
    if let Some(Row { bucket, key, rank, .. }) = rows.into_iter().next_back() {
        writer.open.clearing = Clearing { bucket, key, rank, ..at };
    }
    Ok(last)
}

/// Parts of a version or an upload: their contents, and how they go. Ids of the one are none of the other.
const PARTS: [(&str, &str); 2] = [
    ("SELECT content FROM object_parts WHERE version = ?1", "DELETE FROM object_parts WHERE version = ?1"),
    ("SELECT content FROM upload_parts WHERE upload = ?1", "DELETE FROM upload_parts WHERE upload = ?1"),
];

/// Clears some of the contents that were dead at the split: those that the upper half does not know as garbage. The
/// cursor's bucket counts contents here.
fn clear_dead(writer: &mut Writer<'_>) -> rusqlite::Result<bool> {
    let after = writer.open.clearing.bucket;
    let found: Vec<(i64, bool)> = writer
        .db
        .prepare_cached(
            "SELECT c.no, c.died IS NOT NULL AND NOT EXISTS
                 (SELECT 1 FROM dead_contents d WHERE d.since_index = c.died AND d.content = c.no)
             FROM contents c WHERE c.no > ?1 ORDER BY c.no LIMIT ?2",
        )?
        .query_map(params![after, ROWS], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (content, _) in found.iter().filter(|(_, is_foreign)| *is_foreign) {
        forget_content(writer, *content)?;
    }
    let last = found.len() < usize::try_from(ROWS).unwrap_or(usize::MAX);
    if let Some((bucket, _)) = found.last() {
        writer.open.clearing.bucket = *bucket;
    }
    Ok(last)
}

/// Forgets a content and where its shards are: the other half knows them.
fn forget_content(writer: &mut Writer<'_>, content: i64) -> rusqlite::Result<()> {
    let stripes: Vec<StripeRef> = writer
        .db
        .prepare_cached(&format!("SELECT {STRIPE_COLUMNS} FROM stripes WHERE content = ?1"))?
        .query_map(params![content], |row| stripe_from(row, 0))?
        .collect::<rusqlite::Result<_>>()?;
    for stripe in &stripes {
        for place in &stripe.places {
            writer.remove_place(place.drive, stripe.id)?;
        }
    }
    for sql in ["DELETE FROM stripes WHERE content = ?1", "DELETE FROM contents WHERE no = ?1"] {
        writer.db.prepare_cached(sql)?.execute(params![content])?;
    }
    Ok(())
}
