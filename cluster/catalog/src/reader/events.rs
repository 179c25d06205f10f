//! Events that wait to be told.

use holdfast_model::UnixMillis;
use rusqlite::params;

use super::{PartitionReader, ReadError, count_from, time_from};
use crate::{events::Event, rows::malformed};

/// An event in its queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedEvent {
    /// Counts up in the partition, and over the splits of it.
    pub no: u64,
    /// Attempts that failed.
    pub attempts: u32,
    /// The event.
    pub event: Event,
}

/// The queue of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQueue {
    /// Name of the target.
    pub target: String,
    /// Events in it.
    pub queued: u64,
    /// When the oldest of them happened.
    pub oldest: UnixMillis,
}

/// All queues of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQueues {
    /// Those that hold something, by the names of their targets.
    pub queues: Vec<EventQueue>,
    /// Events that were given up since the partition began.
    pub dropped: u64,
}

impl PartitionReader {
    /// How much waits for which target.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn event_queues(&self) -> Result<EventQueues, ReadError> {
        self.read(|db| {
            let (events, dropped) = db
                .prepare_cached("SELECT events, events_dropped FROM meta")?
                .query_row([], |row| Ok((count_from(row, 0)?, count_from(row, 1)?)))?;
            if events == 0 {
                return Ok(EventQueues { queues: Vec::new(), dropped });
            }
            let queues = db
                .prepare_cached(
                    "SELECT target, sum(queued),
                            (SELECT at FROM events e WHERE e.target = q.target ORDER BY no LIMIT 1)
                     FROM event_queues q GROUP BY target ORDER BY target",
                )?
                .query_map([], |row| {
                    Ok(EventQueue {
                        target: row.get(0)?,
                        queued: count_from(row, 1)?,
                        oldest: time_from(row, 2)?,
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            Ok(EventQueues { queues, dropped })
        })
    }

    /// Events for a target that are due, in the order in which they happened, `limit` at most.
    ///
    /// # Errors
    /// [`ReadError::Storage`].
    pub fn events_due(
        &self,
        target: &str,
        now: UnixMillis,
        limit: usize,
    ) -> Result<Vec<QueuedEvent>, ReadError> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT no, attempts, body FROM events WHERE target = ?1 AND due <= ?2 ORDER BY no LIMIT ?3",
                )?
                .query_map(params![target, now.get().cast_signed(), limit as i64], |row| {
                    let event = Event::decode(row.get_ref(2)?.as_blob()?).ok_or_else(|| malformed(2, "an event"))?;
                    Ok(QueuedEvent { no: count_from(row, 0)?, attempts: row.get(1)?, event })
                })?
                .collect::<rusqlite::Result<_>>()?)
        })
    }
}
