//! A content that is cut anew: other stripes take the place of those that hold it.
//!
//! The content keeps its number, so that objects, versions and parts go on referring to it; the old stripes
//! move to a content of their own that is dead from the start, and are swept like those of a deleted object.

use rusqlite::{OptionalExtension, params};

use super::bytes;
use crate::{
    body::BodyRef,
    command::ReplaceStripes,
    partition::Writer,
    response::{Outcome, Refusal, Response},
};

pub(super) fn replace(writer: &mut Writer<'_>, replace: ReplaceStripes) -> rusqlite::Result<Outcome> {
    let ReplaceStripes { content, expected, wrapped_key, stripes } = replace;
    let content = content.cast_signed();
    let Some((size, old_key)) = living(writer, content)? else { return Ok(Err(Refusal::ContentChanged)) };
    let first: Option<[u8; 16]> = writer
        .db
        .prepare_cached("SELECT id FROM stripes WHERE content = ?1 ORDER BY start LIMIT 1")?
        .query_row(params![content], |row| row.get(0))
        .optional()?;
    let Some(first) = first else { return Ok(Err(Refusal::ContentChanged)) };
    if stripes.first().is_some_and(|stripe| *stripe.id.as_bytes() == first) {
        return Ok(Ok(Response::StripesReplaced));
    }
    if first != *expected.as_bytes() {
        return Ok(Err(Refusal::ContentChanged));
    }
    let body = BodyRef::Stripes(stripes);
    if let Err(refusal) = writer.admit(size.cast_unsigned(), &body)? {
        return Ok(Err(refusal));
    }

    let dead = writer.open.next_content;
    writer.open.next_content += 1;
    writer
        .db
        .prepare_cached(
            "INSERT INTO contents (no, size, died, wrapped_key, inline) VALUES (?1, ?2, NULL, ?3, NULL)",
        )?
        .execute(params![dead, size, old_key])?;
    writer
        .db
        .prepare_cached("UPDATE stripes SET content = ?2 WHERE content = ?1")?
        .execute(params![content, dead])?;
    writer.release_content(dead)?;
    writer
        .db
        .prepare_cached("UPDATE contents SET wrapped_key = ?2 WHERE no = ?1")?
        .execute(params![content, wrapped_key.as_ref()])?;
    let mut start = 0;
    for stripe in body.stripes() {
        writer.insert_stripe(content, start, stripe)?;
        start += u64::from(stripe.plain_len);
    }
    debug_assert_eq!(bytes(start), size);
    Ok(Ok(Response::StripesReplaced))
}

/// Size and wrapped key of a content in stripes that something refers to.
fn living(writer: &Writer<'_>, content: i64) -> rusqlite::Result<Option<(i64, Vec<u8>)>> {
    writer
        .db
        .prepare_cached(
            "SELECT size, wrapped_key FROM contents WHERE no = ?1 AND died IS NULL AND inline IS NULL",
        )?
        .query_row(params![content], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}
