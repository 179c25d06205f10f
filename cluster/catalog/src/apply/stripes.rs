//! Stripes after they were written: moves of shards, garbage, orphans.

use holdfast_model::{StripeId, UnixMillis};
use rusqlite::{OptionalExtension, params};

use super::millis;
use crate::{
    body::drives_distinct,
    command::{MoveShards, Orphan},
    partition::Writer,
    response::{GarbageId, Outcome, Refusal, Response},
    rows::{STRIPE_COLUMNS, decode_shards, encode_places, encode_shards, malformed, stripe_from},
};

/// Ids of one sweep or one condemnation at most.
pub const SWEEP_MAX: usize = 4096;

/// How long a condemned stripe is remembered. A write that was held up for longer than this can no longer
/// be told from a fresh one; proposals time out long before.
pub const CONDEMNED_KEPT_MILLIS: u64 = 90 * 24 * 60 * 60 * 1000;

pub(super) fn move_shards(writer: &mut Writer<'_>, moves: &MoveShards) -> rusqlite::Result<Outcome> {
    let Some((_, false)) = writer.stripe_content(moves.stripe)? else {
        return Ok(Err(Refusal::NoSuchStripe));
    };
    let stripe = writer
        .db
        .prepare_cached(&format!("SELECT {STRIPE_COLUMNS} FROM stripes WHERE id = ?1"))?
        .query_row(params![moves.stripe.as_bytes()], |row| stripe_from(row, 0))?;
    let mut indices: Vec<_> = moves.moves.iter().map(|m| m.index).collect();
    indices.sort_unstable();
    let repeated = indices.windows(2).any(|pair| pair[0] == pair[1]);
    if indices.is_empty() || repeated || indices.iter().any(|i| usize::from(i.get()) >= stripe.places.len()) {
        return Ok(Err(Refusal::Invalid("moves of shards that the stripe does not have".into())));
    }
    let Some(next) = moves.expected.get().checked_add(1) else {
        return Ok(Err(Refusal::Invalid("a stripe's last generation".into())));
    };
    let at_target = |m: &crate::command::ShardMove| stripe.places[usize::from(m.index.get())] == m.to;
    if stripe.generation.get() == next && moves.moves.iter().all(at_target) {
        return Ok(Ok(Response::ShardsMoved { generation: stripe.generation }));
    }
    let at_source = |m: &crate::command::ShardMove| stripe.places[usize::from(m.index.get())] == m.from;
    if (stripe.generation != moves.expected || !moves.moves.iter().all(at_source))
        && !holdfast_planted::is("MovesIgnoreGeneration")
    {
        return Ok(Err(Refusal::StripeChanged(stripe.generation)));
    }
    let mut places = stripe.places.clone();
    for m in &moves.moves {
        places[usize::from(m.index.get())] = m.to;
    }
    let leaving: Vec<_> =
        moves.moves.iter().filter(|m| m.from.drive != m.to.drive).map(|m| (m.index, m.from)).collect();
    if !drives_distinct(&places) {
        return Ok(Err(Refusal::PlaceOccupied));
    }
    // A drive that still holds an unswept shard of this stripe would lose the new one to the sweeper; so
    // would one that another shard leaves with this very move.
    let unswept = unswept_drives(writer, moves.stripe)?;
    let taken = |drive| unswept.contains(&drive) || leaving.iter().any(|(_, from)| from.drive == drive);
    if moves.moves.iter().any(|m| m.from.drive != m.to.drive && taken(m.to.drive))
        && !holdfast_planted::is("MovesGoToUnswept")
    {
        return Ok(Err(Refusal::PlaceOccupied));
    }

    writer
        .db
        .prepare_cached("UPDATE stripes SET generation = ?2, places = ?3 WHERE id = ?1")?
        .execute(params![moves.stripe.as_bytes(), next, encode_places(&places)])?;
    for m in moves.moves.iter().filter(|m| m.from.drive != m.to.drive) {
        writer.remove_place(m.from.drive, moves.stripe)?;
        if !holdfast_planted::is("MovesLeaveTheIndex") {
            writer.insert_place(m.to.drive, moves.stripe, m.index.get())?;
        }
    }
    if !leaving.is_empty() && !holdfast_planted::is("MovesLeaveTheOld") {
        insert_stale(writer, moves.stripe, moves.expected.get(), &encode_shards(&leaving))?;
    }
    Ok(Ok(Response::ShardsMoved { generation: holdfast_model::Generation::new(next) }))
}

fn unswept_drives(writer: &Writer<'_>, stripe: StripeId) -> rusqlite::Result<Vec<holdfast_model::DriveId>> {
    let mut statement = writer.db.prepare_cached("SELECT shards FROM stale_shards WHERE stripe = ?1")?;
    let mut rows = statement.query(params![stripe.as_bytes()])?;
    let mut drives = Vec::new();
    while let Some(row) = rows.next()? {
        let shards = decode_shards(row.get_ref(0)?.as_blob()?).ok_or_else(|| malformed(0, "stale shards"))?;
        drives.extend(shards.into_iter().map(|(_, place)| place.drive));
    }
    Ok(drives)
}

fn insert_stale(
    writer: &mut Writer<'_>,
    stripe: StripeId,
    generation: u32,
    shards: &[u8],
) -> rusqlite::Result<()> {
    let no = writer.open.next_stale;
    writer.open.next_stale += 1;
    writer
        .db
        .prepare_cached(
            "INSERT INTO stale_shards (no, stripe, generation, shards, since_index, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            no,
            stripe.as_bytes(),
            generation,
            shards,
            writer.index.cast_signed(),
            millis(writer.now)
        ])?;
    Ok(())
}

pub(super) fn remove_garbage(writer: &mut Writer<'_>, ids: &[GarbageId]) -> rusqlite::Result<Outcome> {
    if ids.len() > SWEEP_MAX {
        return Ok(Err(Refusal::Invalid(format!("{} ids in one sweep", ids.len()))));
    }
    let mut answers = Vec::with_capacity(ids.len());
    for id in ids {
        answers.push(match id {
            GarbageId::Stripe(stripe) => remove_stripe(writer, *stripe)?,
            GarbageId::Shards(no) => {
                let mut delete = writer.db.prepare_cached("DELETE FROM stale_shards WHERE no = ?1")?;
                delete.execute(params![no.cast_signed()])? > 0
            }
        });
    }
    Ok(Ok(Response::GarbageRemoved(answers)))
}

/// Forgets a stripe of a dead content, and the content with its last stripe.
fn remove_stripe(writer: &mut Writer<'_>, stripe: StripeId) -> rusqlite::Result<bool> {
    let Some((content, true)) = writer.stripe_content(stripe)? else { return Ok(false) };
    let row = writer
        .db
        .prepare_cached(&format!("DELETE FROM stripes WHERE id = ?1 RETURNING {STRIPE_COLUMNS}"))?
        .query_row(params![stripe.as_bytes()], |row| stripe_from(row, 0))?;
    for place in &row.places {
        writer.remove_place(place.drive, stripe)?;
    }
    let more =
        writer.db.prepare_cached("SELECT 1 FROM stripes WHERE content = ?1")?.exists(params![content])?;
    if !more {
        let died: Option<i64> = writer
            .db
            .prepare_cached("DELETE FROM contents WHERE no = ?1 RETURNING died")?
            .query_row(params![content], |row| row.get(0))
            .optional()?
            .flatten();
        writer
            .db
            .prepare_cached("DELETE FROM dead_contents WHERE since_index = ?1 AND content = ?2")?
            .execute(params![died, content])?;
    }
    Ok(true)
}

/// Forgets what was condemned long ago.
pub(super) fn forget_condemned(writer: &Writer<'_>) -> rusqlite::Result<()> {
    let before = UnixMillis::new(writer.now.get().saturating_sub(CONDEMNED_KEPT_MILLIS));
    writer.db.prepare_cached("DELETE FROM condemned WHERE since < ?1")?.execute(params![millis(before)])?;
    Ok(())
}

/// From here on the stripe, which is not known here, cannot become known.
pub(super) fn bar_one(writer: &Writer<'_>, stripe: StripeId) -> rusqlite::Result<()> {
    writer
        .db
        .prepare_cached("INSERT OR IGNORE INTO condemned (stripe, since) VALUES (?1, ?2)")?
        .execute(params![stripe.as_bytes(), millis(writer.now)])?;
    Ok(())
}

fn is_condemned(writer: &Writer<'_>, stripe: StripeId) -> rusqlite::Result<bool> {
    writer.db.prepare_cached("SELECT 1 FROM condemned WHERE stripe = ?1")?.exists(params![stripe.as_bytes()])
}

pub(super) fn condemn(writer: &mut Writer<'_>, orphans: &[Orphan]) -> rusqlite::Result<Outcome> {
    if orphans.len() > SWEEP_MAX {
        return Ok(Err(Refusal::Invalid(format!("{} stripes in one condemnation", orphans.len()))));
    }
    forget_condemned(writer)?;
    // A partition that holds some keys only knows some stripes only: the others must have been asked.
    if !writer.open.range.is_all() {
        for orphan in orphans {
            if !is_condemned(writer, orphan.stripe)? && writer.stripe_content(orphan.stripe)?.is_none() {
                return Ok(Err(Refusal::Moved));
            }
        }
    }
    let mut answers = Vec::with_capacity(orphans.len());
    for orphan in orphans {
        let known =
            writer.stripe_content(orphan.stripe)?.is_some() && !holdfast_planted::is("CondemnsTheLiving");
        if !known {
            bar_one(writer, orphan.stripe)?;
            // Each node reports the shards on its own drives, and again until they are swept.
            let waiting = unswept_drives(writer, orphan.stripe)?;
            let fresh: Vec<_> =
                orphan.shards.iter().copied().filter(|(_, place)| !waiting.contains(&place.drive)).collect();
            if !fresh.is_empty() {
                insert_stale(writer, orphan.stripe, orphan.generation.get(), &encode_shards(&fresh))?;
            }
        }
        answers.push(!known);
    }
    Ok(Ok(Response::Condemned(answers)))
}
