//! Requests done lately: a command that is proposed twice after an unknown outcome is done once.
//!
//! Forgotten requests are removed by the commands that come after them, one range delete each, so that
//! every replica forgets at the same entry.

use bytes::Bytes;
use holdfast_model::UnixMillis;
use rusqlite::{OptionalExtension, params};

use super::millis;
use crate::{command::RequestId, partition::Writer};

/// How long a request is remembered, in milliseconds. A command proposed longer ago than this by the
/// partition's clock is refused, because it could be a repetition.
pub const REQUESTS_KEPT_MILLIS: u64 = 5 * 60 * 1000;

/// What is known of a request.
pub(super) enum Known {
    /// Not seen before.
    Fresh,
    /// Done: the encoded outcome.
    Done(Bytes),
    /// Too old to tell.
    TooOld,
}

impl Writer<'_> {
    pub(super) fn request(&self, at: UnixMillis, request: RequestId) -> rusqlite::Result<Known> {
        let oldest = UnixMillis::new(self.now.get().saturating_sub(REQUESTS_KEPT_MILLIS));
        if at < oldest {
            return Ok(Known::TooOld);
        }
        self.db.prepare_cached("DELETE FROM requests WHERE at < ?1")?.execute(params![millis(oldest)])?;
        let answer: Option<Vec<u8>> = self
            .db
            .prepare_cached("SELECT answer FROM requests WHERE at = ?1 AND id = ?2")?
            .query_row(params![millis(at), request.as_bytes()], |row| row.get(0))
            .optional()?;
        let answer = answer.filter(|_| !holdfast_planted::is("RequestsAreForgotten"));
        Ok(answer.map_or(Known::Fresh, |answer| Known::Done(answer.into())))
    }

    pub(super) fn remember(&self, at: UnixMillis, request: RequestId, answer: &[u8]) -> rusqlite::Result<()> {
        self.db
            .prepare_cached("INSERT INTO requests (at, id, answer) VALUES (?1, ?2, ?3)")?
            .execute(params![millis(at), request.as_bytes(), answer])?;
        Ok(())
    }
}
