//! What callers and the engine share: the queue, the index, the figures.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_format::RecordHeader;
use holdfast_model::{DriveId, Generation, ShardId};
use holdfast_ring::{Buffer, Waker};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::{
    commit::Durable,
    errors::{DeleteError, GetError, PutError},
    index::{Index, Indexed},
    types::{DriveCounters, DriveState, Latency},
};

/// Requests of one drive under way at most; more wait at the door.
pub(crate) const REQUESTS_MAX: usize = 1024;

/// Why a drive takes no requests, or no writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unavailable {
    Fenced(String),
    Gone(String),
    Closed,
}

impl Unavailable {
    pub(crate) fn put(&self, drive: DriveId) -> PutError {
        match self.clone() {
            Self::Fenced(why) => PutError::Fenced { drive, why },
            Self::Gone(why) => PutError::Gone { drive, why },
            Self::Closed => PutError::Closed { drive },
        }
    }

    pub(crate) fn delete(&self, drive: DriveId) -> DeleteError {
        match self.clone() {
            Self::Fenced(why) => DeleteError::Fenced { drive, why },
            Self::Gone(why) => DeleteError::Gone { drive, why },
            Self::Closed => DeleteError::Closed { drive },
        }
    }

    /// A fenced drive still reads.
    pub(crate) fn get(&self, drive: DriveId) -> Option<GetError> {
        match self.clone() {
            Self::Fenced(_) => None,
            Self::Gone(why) => Some(GetError::Gone { drive, why }),
            Self::Closed => Some(GetError::Closed { drive }),
        }
    }
}

/// A request to the engine. An answer nobody waits for any more is dropped.
#[derive(Debug)]
pub(crate) enum Request {
    Put(PutRequest),
    Get(GetRequest),
    Delete { id: ShardId, generation: Generation, reply: oneshot::Sender<Result<bool, DeleteError>> },
    Close { reply: Option<oneshot::Sender<()>> },
}

/// `header` lacks only what the engine decides: place, sequence, durable sequence.
#[derive(Debug)]
pub(crate) struct PutRequest {
    pub(crate) header: Box<RecordHeader>,
    pub(crate) payload: Buffer,
    pub(crate) reply: oneshot::Sender<Result<Durable, PutError>>,
}

/// What a read waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Somebody waits: nothing.
    Now,
    /// For a device with little else to do, though not for long.
    Behind,
    /// The same, and for its pace.
    Background,
}

/// Blocks `first_block..` of the payload into `buffer`, whose length is that of those blocks.
#[derive(Debug)]
pub(crate) struct GetRequest {
    pub(crate) id: ShardId,
    pub(crate) generation: Generation,
    pub(crate) first_block: u32,
    pub(crate) urgency: Urgency,
    pub(crate) buffer: Buffer,
    pub(crate) expires: Instant,
    pub(crate) reply: oneshot::Sender<Result<RawRead, GetError>>,
}

/// What the device gave, not yet verified.
#[derive(Debug)]
pub(crate) struct RawRead {
    pub(crate) entry: Indexed,
    /// The header, when it is not in the headroom of `buffer`.
    pub(crate) header: Option<Buffer>,
    pub(crate) buffer: Buffer,
    /// How long the device worked for it, since the read was begun.
    pub(crate) took: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    requests: Vec<Request>,
    closed: bool,
}

/// Figures the engine sets once a turn.
#[derive(Debug, Clone)]
pub(crate) struct Gauges {
    pub(crate) state: DriveState,
    pub(crate) reason: String,
    pub(crate) used: u64,
    pub(crate) live: u64,
    pub(crate) free: u64,
    /// Of the label that is known to be flushed.
    pub(crate) label_counter: u64,
}

/// Durations of one kind of operation.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    count: AtomicU64,
    total_micros: AtomicU64,
    max_micros: AtomicU64,
}

impl Timer {
    pub(crate) fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_micros.fetch_add(micros, Ordering::Relaxed);
        self.max_micros.fetch_max(micros, Ordering::Relaxed);
    }

    fn read(&self) -> Latency {
        let get = |v: &AtomicU64| v.load(Ordering::Relaxed);
        Latency {
            count: get(&self.count),
            total_micros: get(&self.total_micros),
            max_micros: get(&self.max_micros),
        }
    }
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// Counters, written by the engine and by callers that verify.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            pub(crate) read_latency: Timer,
            pub(crate) write_latency: Timer,
            pub(crate) flush_latency: Timer,
        }

        impl Counters {
            pub(crate) fn read(&self) -> DriveCounters {
                DriveCounters {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    read_latency: self.read_latency.read(),
                    write_latency: self.write_latency.read(),
                    flush_latency: self.flush_latency.read(),
                }
            }
        }
    };
}

counters!(
    reads,
    read_bytes,
    writes,
    write_bytes,
    flushes,
    records_acknowledged,
    deletes_acknowledged,
    records_moved,
    segments_reclaimed,
    read_errors,
    write_errors,
    flush_errors,
    checksum_errors,
    timeouts,
    retries,
);

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Shared by the handle and the engine.
#[derive(Debug)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    sleeping: AtomicBool,
    waker: OnceLock<Waker>,
    pub(crate) index: RwLock<Index>,
    pub(crate) counters: Counters,
    pub(crate) gauges: Mutex<Gauges>,
    /// Puts are refused: the drive is being emptied.
    pub(crate) draining: AtomicBool,
    /// The drive takes far longer than the others of its node.
    pub(crate) lagging: AtomicBool,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            queue: Mutex::default(),
            draining: AtomicBool::new(false),
            lagging: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            waker: OnceLock::new(),
            index: RwLock::default(),
            counters: Counters::default(),
            gauges: Mutex::new(Gauges {
                state: DriveState::Live,
                reason: String::new(),
                used: 0,
                live: 0,
                free: 0,
                label_counter: 0,
            }),
        }
    }

    pub(crate) fn set_waker(&self, waker: Waker) {
        // Set once, by the engine when it starts.
        drop(self.waker.set(waker));
    }

    /// Hands a request to the engine; `false` when it takes none any more.
    pub(crate) fn send(&self, request: Request) -> bool {
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return false;
            }
            queue.requests.push(request);
        }
        if self.sleeping.swap(false, Ordering::SeqCst)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
        true
    }

    /// Moves what is queued to `requests`.
    pub(crate) fn take(&self, requests: &mut Vec<Request>) {
        self.sleeping.store(false, Ordering::SeqCst);
        std::mem::swap(&mut self.queue.lock().requests, requests);
    }

    /// Announces that the engine goes to sleep; `false` when something was queued meanwhile.
    pub(crate) fn may_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        self.queue.lock().requests.is_empty()
    }

    /// Refuses requests from now on and returns those that were queued.
    pub(crate) fn close(&self) -> Vec<Request> {
        let mut queue = self.queue.lock();
        queue.closed = true;
        std::mem::take(&mut queue.requests)
    }
}
