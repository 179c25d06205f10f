//! Events: sends what the catalog has queued to the targets of tenants.
//!
//! The leader of a group sends for its partitions. Each queue of a partition, which is what waits for one target, is
//! sent by a task of its own, some events at a time in the order in which they happened, and what became of them is
//! then settled by one command. A target that does not take an event is left alone for a while, longer each time; the
//! event itself waits for longer still, so that one which a target never takes does not stand before all others; the
//! batch ends with it only when the target may be away. An
//! event that was sent and not settled, because this node was killed or lost its leadership, is sent once more.
//!
//! What is known of targets is forgotten with the leadership: the next leader tries at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use holdfast_catalog::{Op, QueuedEvent, Response, SETTLE_MAX, Settle};
use holdfast_model::{GroupId, NodeId, PartitionId, TenantId, UnixMillis};
use tokio::time::Instant;

use super::{led_with_leftovers, status::Kind, worker::Worker};
use crate::{
    api::ObjectError,
    events::{EVENT_KEPT, EventSender, Parcel, Undelivered},
    host::now,
    service::ObjectService,
};

/// How often queues are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Events read and settled at once.
const BATCH: usize = 200;

/// A batch ends after so long, with what was sent until then.
const BATCH_TIME: Duration = Duration::from_secs(5);

/// Queues sent at once.
const QUEUES_AT_ONCE: usize = 64;

/// How long a target is left alone after it did not take an event; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest of these pauses.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long an event waits that was not taken; doubled each time.
const RETRY_MIN: Duration = Duration::from_secs(2);

/// The longest of these waits.
const RETRY_MAX: Duration = Duration::from_secs(600);

/// Above so many failures the longest time is reached in any case.
const DOUBLINGS_MAX: u32 = 16;

const _: () = assert!(BATCH <= SETTLE_MAX);

type Route = (PartitionId, GroupId);

/// What waits for one target in one partition.
type QueueName = (PartitionId, String);

/// What a leader knows of the events of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionEvents {
    /// Events that wait.
    pub queued: u64,
    /// When the oldest of them happened.
    pub oldest: Option<UnixMillis>,
    /// Events that were given up since the partition began.
    pub dropped: u64,
}

/// A target that is left alone.
struct Pause {
    failures: u32,
    until: Instant,
}

/// What a batch came to.
struct Batch {
    queue: QueueName,
    sent: u64,
    dropped: u64,
    trouble: Option<String>,
    /// There may be more that is due.
    more: bool,
}

pub(super) struct Events {
    service: Arc<ObjectService>,
    node: NodeId,
    running: FuturesUnordered<BoxFuture<'static, Batch>>,
    busy: HashSet<QueueName>,
    pauses: HashMap<QueueName, Pause>,
    look: Instant,
    working: bool,
}

/// `first`, doubled so many times, `last` at most.
fn doubled(first: Duration, times: u32, last: Duration) -> Duration {
    first.saturating_mul(1 << times.min(DOUBLINGS_MAX)).min(last)
}

impl Events {
    pub(super) fn new(service: Arc<ObjectService>, node: NodeId) -> Self {
        Self {
            service,
            node,
            running: FuturesUnordered::new(),
            busy: HashSet::new(),
            pauses: HashMap::new(),
            look: Instant::now(),
            working: false,
        }
    }

    fn finish(&mut self, batch: Batch) {
        self.busy.remove(&batch.queue);
        let board = &self.service.workers;
        board.count_events(batch.sent, batch.trouble.is_some());
        let (sent, failed) = (batch.sent, u64::from(batch.trouble.is_some()));
        board.update(Kind::Events, |progress| {
            progress.done += sent;
            progress.failed += failed;
        });
        if batch.dropped > 0 {
            let (partition, target) = (batch.queue.0, &batch.queue.1);
            tracing::warn!(%partition, target, events = batch.dropped, "events were not told in days and are given up");
        }
        match batch.trouble {
            Some(trouble) => {
                let before = self.pauses.get(&batch.queue).map_or(0, |pause| pause.failures);
                // A target that takes some is there.
                let failures = if batch.sent > 0 { 0 } else { before };
                let (partition, target) = (batch.queue.0, &batch.queue.1);
                if before == 0 {
                    tracing::warn!(%partition, target, error = trouble, "events are not taken; will be tried again");
                }
                board.trouble(Kind::Events, format!("target {target}: {trouble}"));
                let until = Instant::now() + doubled(PAUSE_MIN, failures, PAUSE_MAX);
                self.pauses.insert(batch.queue, Pause { failures: failures.saturating_add(1), until });
            }
            None => {
                self.pauses.remove(&batch.queue);
                if batch.more {
                    self.look = Instant::now();
                }
            }
        }
    }

    /// Starts a batch of every queue that may be sent now; returns how many events wait in all.
    async fn look_at_queues(&mut self, sender: &Arc<dyn EventSender>, parallel: usize) -> u64 {
        let mut known = BTreeMap::new();
        let mut there = HashSet::new();
        for (tenant, route) in led_with_leftovers(&self.service, self.node) {
            let queues = match self.service.read_applied(route, |catalog| catalog.event_queues()).await {
                Ok(queues) => queues,
                Err(error) => {
                    tracing::debug!(partition = %route.0, %error, "events not looked at");
                    continue;
                }
            };
            let found = PartitionEvents {
                queued: queues.queues.iter().map(|queue| queue.queued).sum(),
                oldest: queues.queues.iter().map(|queue| queue.oldest).min(),
                dropped: queues.dropped,
            };
            known.insert(route.0, found);
            for queue in queues.queues {
                let name = (route.0, queue.target);
                let is_paused = self.pauses.get(&name).is_some_and(|pause| Instant::now() < pause.until);
                there.insert(name.clone());
                if is_paused || self.busy.contains(&name) || self.running.len() >= QUEUES_AT_ONCE {
                    continue;
                }
                self.busy.insert(name.clone());
                let (service, sender) = (Arc::clone(&self.service), Arc::clone(sender));
                let tenant = tenant.id;
                self.running.push(Box::pin(async move {
                    let mut batch = Batch { queue: name, sent: 0, dropped: 0, trouble: None, more: false };
                    if let Err(error) = send(&service, &*sender, (tenant, route), parallel, &mut batch).await
                    {
                        batch.trouble.get_or_insert(error.to_string());
                    }
                    batch
                }));
            }
        }
        self.pauses.retain(|name, _| there.contains(name));
        let waiting = known.values().map(|events| events.queued).sum();
        self.service.workers.set_events(known);
        waiting
    }
}

#[async_trait::async_trait]
impl Worker for Events {
    fn kind(&self) -> Kind {
        Kind::Events
    }

    async fn wait(&mut self) {
        tokio::select! {
            Some(batch) = self.running.next(), if !self.running.is_empty() => self.finish(batch),
            () = tokio::time::sleep_until(self.look) => {}
        }
    }

    async fn work(&mut self) {
        if Instant::now() < self.look {
            return;
        }
        self.look = Instant::now() + LOOK_INTERVAL;
        let Some(sender) = self.service.event_sender.clone() else { return };
        let service = Arc::clone(&self.service);
        let board = &service.workers;
        if !board.may_run(Kind::Events) {
            return;
        }
        let parallel = board.orders().of(Kind::Events).impact.parallel();
        let waiting = self.look_at_queues(&sender, parallel).await;
        match (waiting > 0, self.working) {
            (true, false) => board.begin(Kind::Events, waiting),
            (false, true) => board.end(Kind::Events),
            _ => {}
        }
        self.working = waiting > 0;
        board.update(Kind::Events, |progress| progress.left = waiting);
    }
}

/// Sends some of what waits for a target, and settles it.
async fn send(
    service: &ObjectService,
    sender: &dyn EventSender,
    (tenant, route): (TenantId, Route),
    parallel: usize,
    batch: &mut Batch,
) -> Result<(), ObjectError> {
    let (begun, at, name) = (Instant::now(), now(), batch.queue.1.clone());
    let due = service.read_applied(route, move |catalog| catalog.events_due(&name, at, BATCH)).await?;
    batch.more = due.len() == BATCH;
    let kept = u64::try_from(EVENT_KEPT.as_millis()).unwrap_or(u64::MAX);
    let (old, due): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|queued| queued.event.at.get().saturating_add(kept) < at.get());
    let mut settled: Vec<(u64, Settle)> = old.iter().map(|queued| (queued.no, Settle::Dropped)).collect();
    batch.dropped = settled.len() as u64;
    let snapshot = service.directory.snapshot();
    let webhook =
        snapshot.tenants.get(&tenant).and_then(|tenant| tenant.webhooks.get(&batch.queue.1).cloned());
    let region = service.directory.region();
    let (webhook, settings) = (webhook.as_deref(), &*snapshot.events);
    let one = |QueuedEvent { no, attempts, event }| async move {
        let outcome = match webhook {
            None => Err(Undelivered { why: "there is no target of that name".to_owned(), only_this: false }),
            Some(webhook) => sender.send(Parcel { webhook, settings, region, no, event: &event }).await,
        };
        (no, attempts, outcome)
    };
    let mut sending = stream::iter(due.into_iter().map(one)).buffered(parallel);
    while let Some((no, attempts, outcome)) = sending.next().await {
        match outcome {
            Ok(()) => {
                settled.push((no, Settle::Delivered));
                batch.sent += 1;
            }
            Err(undelivered) => {
                let wait = doubled(RETRY_MIN, attempts, RETRY_MAX);
                let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                let due = UnixMillis::new(now().get().saturating_add(wait));
                settled.push((no, Settle::Retry { due }));
                batch.trouble.get_or_insert(undelivered.to_string());
                if !undelivered.only_this {
                    break;
                }
            }
        }
        if begun.elapsed() > BATCH_TIME {
            batch.more = true;
            break;
        }
    }
    drop(sending);
    if settled.is_empty() {
        return Ok(());
    }
    match service.propose(route, Op::SettleEvents { items: settled }).await? {
        Ok(Response::EventsSettled) => Ok(()),
        other => Err(ObjectError::Internal(format!("the catalog answered {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound() {
        let waits: Vec<u64> = (0..8).map(|n| doubled(PAUSE_MIN, n, PAUSE_MAX).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(doubled(RETRY_MIN, u32::MAX, RETRY_MAX), RETRY_MAX);
    }
}
