//! Events: queued by the commands that make changes, settled by what the worker says became of them.
//!
//! Queueing refuses nothing: a queue that is full costs events, which are counted, and never a client's write.

use std::sync::Arc;

use holdfast_model::BucketId;
use rusqlite::{OptionalExtension, params};

use super::millis;
use crate::{
    command::Op,
    events::{
        EVENTS_MAX, EVENTS_OF_BUCKET_MAX, Event, EventKind, Notifications, Origin, SETTLE_MAX, Settle,
        WrittenBy,
    },
    partition::Writer,
    response::{Outcome, Refusal, Response, VersionRef},
    rows::malformed,
    settings::{DocumentKind, Versioning},
};

/// What an event says of the object.
pub(super) struct Told<'a> {
    pub(super) kind: EventKind,
    pub(super) key: &'a str,
    pub(super) version: VersionRef,
    /// Size in bytes and ETag, of what is there.
    pub(super) content: Option<(u64, &'a str)>,
}

/// A command with the request it comes from.
pub(super) fn with_origin(writer: &mut Writer<'_>, origin: Origin, op: Op) -> rusqlite::Result<Outcome> {
    if let Some(fault) = origin.fault() {
        return Ok(Err(Refusal::Invalid(fault.to_owned())));
    }
    if !op.may_have_origin() {
        return Ok(Err(Refusal::Invalid(
            "a command that does not change objects, with an origin".to_owned(),
        )));
    }
    writer.origin = origin;
    super::apply_op(writer, op)
}

impl Writer<'_> {
    /// How an object that is put comes to be written.
    pub(super) fn written_kind(&self) -> EventKind {
        match self.origin.by {
            WrittenBy::Put => EventKind::Put,
            WrittenBy::Post => EventKind::Post,
            WrittenBy::Copy => EventKind::Copy,
        }
    }

    /// What a bucket asks to be told.
    fn notifications(&mut self, bucket: i64) -> rusqlite::Result<Option<Arc<Notifications>>> {
        if let Some(known) = self.open.notifications.get(&bucket) {
            return Ok(known.clone());
        }
        let body: Option<Vec<u8>> = self
            .db
            .prepare_cached("SELECT body FROM documents WHERE bucket = ?1 AND kind = ?2 AND id = ''")?
            .query_row(params![bucket, DocumentKind::Notification.column()], |row| row.get(0))
            .optional()?;
        let found = body.map(|body| Notifications::decode(&body)).transpose();
        let found = found.map_err(|_| malformed(0, "notification rules of a bucket"))?.map(Arc::new);
        self.open.notifications.insert(bucket, found.clone());
        Ok(found)
    }

    /// Queues an event, if the bucket asks to be told. After the change: it refuses nothing.
    pub(super) fn tell(&mut self, bucket: BucketId, told: &Told<'_>) -> rusqlite::Result<()> {
        let Ok(row) = self.bucket(bucket)? else { return Ok(()) };
        let (no, versioning) = (row.no, row.versioning);
        let Some(rules) = self.notifications(no)? else { return Ok(()) };
        let Some(rule) = rules.rule_for(told.kind, told.key) else { return Ok(()) };
        let event = Event {
            kind: told.kind,
            at: self.now,
            bucket: self.bucket_name(no)?,
            owner: rules.owner.clone(),
            key: told.key.to_owned(),
            version: (versioning != Versioning::Off).then_some(told.version),
            size: told.content.map(|(size, _)| size),
            etag: told.content.map(|(_, etag)| etag.to_owned()),
            rule: rule.id.clone(),
            origin: self.origin.clone(),
        };
        self.queue(no, &rule.target, &event)
    }

    /// Forgets what a bucket asked for; queues a test event for each target of the new configuration. Of several
    /// partitions the first does so.
    pub(super) fn renotify(&mut self, bucket: i64, rules: Option<&Notifications>) -> rusqlite::Result<()> {
        self.open.notifications.remove(&bucket);
        let Some(rules) = rules.filter(|_| self.open.range.from == 0) else { return Ok(()) };
        let mut told: Vec<&str> = Vec::new();
        for rule in &rules.rules {
            if told.contains(&rule.target.as_str()) {
                continue;
            }
            told.push(&rule.target);
            let event = Event {
                kind: EventKind::Test,
                at: self.now,
                bucket: self.bucket_name(bucket)?,
                owner: rules.owner.clone(),
                key: String::new(),
                version: None,
                size: None,
                etag: None,
                rule: rule.id.clone(),
                origin: Origin::default(),
            };
            self.queue(bucket, &rule.target, &event)?;
        }
        Ok(())
    }

    fn bucket_name(&self, no: i64) -> rusqlite::Result<String> {
        self.db.prepare_cached("SELECT name FROM buckets WHERE no = ?1")?.query_row([no], |row| row.get(0))
    }

    fn queue(&mut self, bucket: i64, target: &str, event: &Event) -> rusqlite::Result<()> {
        let of_bucket: i64 = self
            .db
            .prepare_cached("SELECT coalesce(sum(queued), 0) FROM event_queues WHERE bucket = ?1")?
            .query_row([bucket], |row| row.get(0))?;
        // Dropped ones take a number too: who receives events sees a gap.
        let no = self.open.next_event;
        self.open.next_event += 1;
        if self.open.events >= EVENTS_MAX || of_bucket >= EVENTS_OF_BUCKET_MAX {
            self.open.events_dropped += 1;
            return Ok(());
        }
        let at = millis(self.now);
        self.db
            .prepare_cached(
                "INSERT INTO events (no, bucket, target, at, due, attempts, body) VALUES (?1, ?2, ?3, ?4, ?4, 0, ?5)",
            )?
            .execute(params![no, bucket, target, at, event.encode().as_ref()])?;
        self.db
            .prepare_cached(
                "INSERT INTO event_queues (bucket, target, queued) VALUES (?1, ?2, 1)
                 ON CONFLICT (bucket, target) DO UPDATE SET queued = queued + 1",
            )?
            .execute(params![bucket, target])?;
        self.open.events += 1;
        Ok(())
    }

    /// Takes an event out of its queue; whether it was there.
    fn unqueue(&mut self, no: i64) -> rusqlite::Result<bool> {
        let found: Option<(i64, String)> = self
            .db
            .prepare_cached("DELETE FROM events WHERE no = ?1 RETURNING bucket, target")?
            .query_row([no], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((bucket, target)) = found else { return Ok(false) };
        for sql in [
            "UPDATE event_queues SET queued = queued - 1 WHERE bucket = ?1 AND target = ?2",
            "DELETE FROM event_queues WHERE bucket = ?1 AND target = ?2 AND queued <= 0",
        ] {
            self.db.prepare_cached(sql)?.execute(params![bucket, target])?;
        }
        self.open.events -= 1;
        Ok(true)
    }
}

/// Settles events. One that is not there was settled before.
pub(super) fn settle(writer: &mut Writer<'_>, items: &[(u64, Settle)]) -> rusqlite::Result<Outcome> {
    if items.len() > SETTLE_MAX {
        return Ok(Err(Refusal::Invalid(format!("{} events settled at once", items.len()))));
    }
    for (no, settle) in items {
        let no = no.cast_signed();
        match settle {
            Settle::Delivered => {
                writer.unqueue(no)?;
            }
            Settle::Dropped => {
                if writer.unqueue(no)? {
                    writer.open.events_dropped += 1;
                }
            }
            Settle::Retry { due } => {
                writer
                    .db
                    .prepare_cached("UPDATE events SET attempts = attempts + 1, due = ?2 WHERE no = ?1")?
                    .execute(params![no, millis(*due)])?;
            }
        }
    }
    Ok(Ok(Response::EventsSettled))
}

/// What a change of the rules comes to.
pub(super) fn check(body: &[u8]) -> Result<Notifications, Refusal> {
    Notifications::decode(body).map_err(|error| Refusal::Invalid(error.to_string()))
}
