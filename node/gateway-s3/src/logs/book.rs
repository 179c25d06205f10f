//! Lines that wait to be delivered, in batches by where they go.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_access::text::CanonicalId;
use holdfast_model::TenantId;
use parking_lot::Mutex;

use super::{BATCH_SIZE, LINE_SIZE_MAX, LINES_SIZE_MAX, LogTo, Logging, Naming};
use crate::observer::{LogFate, Observer};

/// Where lines go together into one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    pub tenant: TenantId,
    /// Owner of the bucket that is logged; the target is to have the same.
    pub owner: CanonicalId,
    pub account: String,
    /// The bucket that is logged.
    pub source: String,
    pub target: String,
    pub prefix: String,
    pub naming: Naming,
    /// Days since 1970, where requests of one day go together.
    pub day: Option<u64>,
}

/// Lines for one object.
#[derive(Debug)]
pub(super) struct Batch {
    pub text: Vec<u8>,
    pub lines: u64,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Held {
    batches: HashMap<Destination, Batch>,
    /// Of all batches, those under way included.
    size: usize,
}

/// Takes lines from requests that ended and keeps them, within a bound, until they are delivered.
pub(crate) struct Book {
    held: Mutex<Held>,
    /// After how long a batch is delivered, however small.
    age: Duration,
    observer: Arc<dyn Observer>,
}

/// Milliseconds of a day.
const DAY_MILLIS: u64 = 24 * 3600 * 1000;

impl Book {
    pub(crate) fn new(age: Duration, observer: Arc<dyn Observer>) -> Self {
        Self { held: Mutex::default(), age, observer }
    }

    /// Takes the line of a request that came at `at` (milliseconds since 1970).
    pub(crate) fn record(&self, to: &LogTo, source: &str, at: u64, line: &str) {
        let Logging { bucket, prefix, naming } = &*to.logging;
        let destination = Destination {
            tenant: to.tenant,
            owner: to.owner,
            account: to.account.clone(),
            source: source.to_owned(),
            target: bucket.clone(),
            prefix: prefix.clone(),
            naming: *naming,
            day: (*naming == Naming::ByEvent).then_some(at / DAY_MILLIS),
        };
        let fits = {
            let mut held = self.held.lock();
            let fits = line.len() <= LINE_SIZE_MAX && held.size + line.len() <= LINES_SIZE_MAX;
            if fits {
                held.size += line.len();
                let fresh = || Batch { text: Vec::new(), lines: 0, begun: Instant::now() };
                let batch = held.batches.entry(destination).or_insert_with(fresh);
                batch.text.extend_from_slice(line.as_bytes());
                batch.lines += 1;
            }
            fits
        };
        if !fits {
            self.observer.log_lines(LogFate::Dropped, 1);
        }
    }

    /// Batches that are due, or all. What is taken counts until it is [settled](Self::settle) or put back.
    pub(super) fn take(&self, all: bool) -> Vec<(Destination, Batch)> {
        let due = |batch: &Batch| all || batch.text.len() >= BATCH_SIZE || batch.begun.elapsed() >= self.age;
        self.held.lock().batches.extract_if(|_, batch| due(batch)).collect()
    }

    /// A batch that was taken is gone, delivered or not.
    pub(super) fn settle(&self, batch: &Batch, fate: LogFate) {
        self.held.lock().size -= batch.text.len();
        self.observer.log_lines(fate, batch.lines);
    }

    /// A batch that could not be delivered now waits again; lines that came meanwhile stand behind it.
    pub(super) fn put_back(&self, destination: Destination, mut batch: Batch) {
        let mut held = self.held.lock();
        if let Some(newer) = held.batches.remove(&destination) {
            batch.text.extend_from_slice(&newer.text);
            batch.lines += newer.lines;
        }
        batch.begun = Instant::now();
        held.batches.insert(destination, batch);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Dropped(AtomicU64);

    impl Observer for Dropped {
        fn log_lines(&self, fate: LogFate, count: u64) {
            if fate == LogFate::Dropped {
                self.0.fetch_add(count, Ordering::Relaxed);
            }
        }
    }

    fn to(naming: Naming) -> LogTo {
        LogTo {
            tenant: TenantId::from_bytes([1; 16]),
            owner: CanonicalId::from_bytes([2; 32]),
            account: "123456789012".to_owned(),
            requester: "-".to_owned(),
            logging: Arc::new(Logging { bucket: "logs".to_owned(), prefix: "p/".to_owned(), naming }),
        }
    }

    fn book(age: Duration) -> (Book, Arc<Dropped>) {
        let dropped = Arc::new(Dropped::default());
        (Book::new(age, dropped.clone()), dropped)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn lines_wait_until_they_are_due_and_keep_their_order() {
        let (book, dropped) = book(HOUR);
        book.record(&to(Naming::Simple), "b", 0, "1\n");
        book.record(&to(Naming::Simple), "b", DAY_MILLIS, "2\n");
        assert!(book.take(false).is_empty());
        let (destination, batch) = book.take(true).pop().unwrap();
        assert_eq!((batch.text.as_slice(), batch.lines), (b"1\n2\n".as_slice(), 2));
        book.record(&to(Naming::Simple), "b", 0, "3\n");
        book.put_back(destination, batch);
        let (_, batch) = book.take(true).pop().unwrap();
        assert_eq!(batch.text, b"1\n2\n3\n");
        book.settle(&batch, LogFate::Delivered);
        assert_eq!((book.held.lock().size, dropped.0.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn days_are_apart_where_names_say_the_day_of_the_request() {
        let (book, _) = book(Duration::ZERO);
        for at in [0, 1, DAY_MILLIS] {
            book.record(&to(Naming::ByEvent), "b", at, "x\n");
        }
        assert_eq!(book.take(false).len(), 2);
    }

    #[test]
    fn memory_is_bounded_and_what_does_not_fit_is_counted() {
        let (book, dropped) = book(HOUR);
        book.record(&to(Naming::Simple), "b", 0, &"x".repeat(LINE_SIZE_MAX + 1));
        assert_eq!(dropped.0.load(Ordering::Relaxed), 1);
        let line = "x".repeat(LINE_SIZE_MAX);
        for _ in 0..LINES_SIZE_MAX / LINE_SIZE_MAX {
            book.record(&to(Naming::Simple), "b", 0, &line);
        }
        assert_eq!(dropped.0.load(Ordering::Relaxed), 1);
        // A batch of a full size is due however young; while it is under way its memory counts.
        let taken = book.take(false);
        book.record(&to(Naming::Simple), "b", 0, &line);
        assert_eq!((taken.len(), dropped.0.load(Ordering::Relaxed)), (1, 2));
        book.settle(&taken[0].1, LogFate::Delivered);
        book.record(&to(Naming::Simple), "b", 0, &line);
        assert_eq!(dropped.0.load(Ordering::Relaxed), 2);
    }
}
