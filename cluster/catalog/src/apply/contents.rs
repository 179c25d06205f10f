//! Contents: runs of bytes under one wrapped key, inline or in stripes, from birth to garbage.
//!
//! Invariant: a stripe that entered the catalog is found by its id until the sweeper has said that its
//! shards are deleted, whatever happens to the object it belonged to.

use bytes::Bytes;
use holdfast_model::{DriveId, StripeId};
use rusqlite::{OptionalExtension, params};

use super::{Step, bytes, millis};
use crate::{
    body::{BodyRef, StripeRef},
    partition::Writer,
    response::Refusal,
    rows::encode_places,
};

impl Writer<'_> {
    /// Checks a body that is to be stored: sound in itself, and of stripes that were never seen before.
    pub(super) fn admit(&self, size: u64, body: &BodyRef) -> Step<()> {
        if let Some(fault) = body.fault(size) {
            return Ok(Err(Refusal::Invalid(fault.to_owned())));
        }
        for stripe in body.stripes() {
            if self.stripe_content(stripe.id)?.is_some() || self.is_barred(stripe.id)? {
                return Ok(Err(Refusal::StripeInUse(stripe.id)));
            }
        }
        Ok(Ok(()))
    }

    /// Stores an admitted body and returns its content number.
    pub(super) fn insert_content(
        &mut self,
        size: u64,
        wrapped_key: &Bytes,
        body: &BodyRef,
    ) -> rusqlite::Result<i64> {
        let content = self.open.next_content;
        self.open.next_content += 1;
        let inline = match body {
            BodyRef::Inline(sealed) => Some(sealed.as_ref()),
            BodyRef::Stripes(_) => None,
        };
        self.db
            .prepare_cached(
                "INSERT INTO contents (no, size, died, wrapped_key, inline) VALUES (?1, ?2, NULL, ?3, ?4)",
            )?
            .execute(params![content, bytes(size), wrapped_key.as_ref(), inline])?;
        let mut start = 0;
        for stripe in body.stripes() {
            self.insert_stripe(content, start, stripe)?;
            start += u64::from(stripe.plain_len);
        }
        Ok(content)
    }

    pub(super) fn insert_stripe(
        &mut self,
        content: i64,
        start: u64,
        stripe: &StripeRef,
    ) -> rusqlite::Result<()> {
        self.db
            .prepare_cached(
                "INSERT INTO stripes (content, start, id, number, plain_len, data, parity, generation, places)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                content,
                bytes(start),
                stripe.id.as_bytes(),
                stripe.number,
                stripe.plain_len,
                stripe.data,
                stripe.parity,
                stripe.generation.get(),
                encode_places(&stripe.places)
            ])?;
        for (shard, place) in stripe.shards() {
            self.insert_place(place.drive, stripe.id, shard.get())?;
        }
        Ok(())
    }

    pub(super) fn insert_place(
        &mut self,
        drive: DriveId,
        stripe: StripeId,
        shard: u8,
    ) -> rusqlite::Result<()> {
        *self.open.placed.entry(drive).or_default() += 1;
        let drive = self.drive_number(drive)?;
        self.db
            .prepare_cached("INSERT INTO places (drive, stripe, shard) VALUES (?1, ?2, ?3)")?
            .execute(params![drive, stripe.as_bytes(), shard])?;
        Ok(())
    }

    pub(super) fn remove_place(&mut self, drive: DriveId, stripe: StripeId) -> rusqlite::Result<()> {
        let drive = self.drive_number(drive)?;
        self.db
            .prepare_cached("DELETE FROM places WHERE drive = ?1 AND stripe = ?2")?
            .execute(params![drive, stripe.as_bytes()])?;
        Ok(())
    }

    /// The small number of a drive in this partition, given when it is first seen.
    fn drive_number(&mut self, drive: DriveId) -> rusqlite::Result<i64> {
        if let Some(no) = self.open.drives.get(&drive) {
            return Ok(*no);
        }
        let known = self
            .db
            .prepare_cached("SELECT no FROM drives WHERE id = ?1")?
            .query_row(params![drive.as_bytes()], |row| row.get(0))
            .optional()?;
        let no = match known {
            Some(no) => no,
            None => self
                .db
                .prepare_cached("INSERT INTO drives (no, id) SELECT coalesce(max(no), 0) + 1, ?1 FROM drives RETURNING no")?
                .query_row(params![drive.as_bytes()], |row| row.get(0))?,
        };
        self.open.drives.insert(drive, no);
        Ok(no)
    }

    /// Lets go of a content: an inline body is dropped, stripes become garbage. Costs the same however
    /// many stripes it has.
    pub(super) fn release_content(&mut self, content: i64) -> rusqlite::Result<()> {
        let dropped = self
            .db
            .prepare_cached("DELETE FROM contents WHERE no = ?1 AND inline IS NOT NULL")?
            .execute(params![content])?;
        if dropped == 0 && !holdfast_planted::is("OldContentLives") {
            let since_index = self.index.cast_signed();
            self.db
                .prepare_cached("UPDATE contents SET died = ?2 WHERE no = ?1")?
                .execute(params![content, since_index])?;
            self.db
                .prepare_cached(
                    "INSERT INTO dead_contents (since_index, content, since) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![since_index, content, millis(self.now)])?;
        }
        Ok(())
    }

    /// The content a stripe belongs to, and whether that is dead.
    pub(super) fn stripe_content(&self, stripe: StripeId) -> rusqlite::Result<Option<(i64, bool)>> {
        self.db
            .prepare_cached(
                "SELECT s.content, c.died IS NOT NULL
                 FROM stripes s JOIN contents c ON c.no = s.content WHERE s.id = ?1",
            )?
            .query_row(params![stripe.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()
    }

    /// Whether a stripe that is not part of any content must not become so: it was condemned, or shards
    /// of it wait for the sweeper.
    fn is_barred(&self, stripe: StripeId) -> rusqlite::Result<bool> {
        self.db
            .prepare_cached(
                "SELECT 1 FROM condemned WHERE stripe = ?1 UNION ALL SELECT 1 FROM stale_shards WHERE stripe = ?1",
            )?
            .exists(params![stripe.as_bytes()])
    }
}
