//! Clients that read and write small objects at a fixed pace: a request is due whether the one before it was quick
//! or not, and what it waits for that counts as its time.

use std::{
    cmp::Reverse,
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{s3::Client, tree::noise};
use tokio::{task::JoinSet, time::sleep_until};

use crate::fill::BUCKET;

/// Objects that are read.
const OBJECTS: usize = 256;

const SIZE: usize = 64 << 10;

/// Time between two requests of one client; three clients.
const PACE: Duration = Duration::from_millis(50);

/// Clients at work on every node.
pub struct Foreground {
    clients: Vec<Client>,
}

/// Requests below which a percentile says little.
const REQUESTS_MIN: usize = 500;

/// How long requests took.
#[derive(Debug, Default)]
pub struct Times {
    puts: Sorted,
    gets: Sorted,
    all: Sorted,
    /// The slowest, by when they were due.
    slowest: Vec<Request>,
}

/// Of the slowest requests, how many are told one by one.
const SLOWEST: usize = 12;

#[derive(Debug, Clone, Copy)]
struct Request {
    put: bool,
    /// Since 1970, as nodes' logs have it.
    due: Duration,
    took: Duration,
}

#[derive(Debug, Default)]
struct Sorted(Vec<Duration>);

impl Times {
    /// The time that one in a hundred exceeds.
    pub fn p99(&self) -> Duration {
        self.all.at(0.99)
    }

    /// When the slowest requests were due, in Unix seconds, and what they took: whether one moment makes a percentile.
    pub fn slowest(&self) -> String {
        let told = self.slowest.iter().map(|Request { put, due, took }| {
            let kind = if *put { "PUT" } else { "GET" };
            format!("{:.2} s {kind} {:.0} ms", due.as_secs_f64(), took.as_secs_f64() * 1e3)
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

impl FromIterator<Request> for Times {
    fn from_iter<T: IntoIterator<Item = Request>>(all: T) -> Self {
        let mut times = Self::default();
        for request in all {
            times.slowest.push(request);
            times.all.0.push(request.took);
            (if request.put { &mut times.puts } else { &mut times.gets }).0.push(request.took);
        }
        times.slowest.sort_by_key(|request| Reverse(request.took));
        times.slowest.truncate(SLOWEST);
        times.slowest.sort_by_key(|request| request.due);
        for kind in [&mut times.puts, &mut times.gets, &mut times.all] {
            kind.0.sort();
        }
        times
    }
}

impl Sorted {
    fn at(&self, share: f64) -> Duration {
        self.0.get((self.0.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Sorted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [self.at(0.5), self.at(0.99)].map(|time| time.as_secs_f64() * 1e3);
        write!(f, "p50 {p50:.1} ms, p99 {p99:.1} ms")
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { puts, gets, all, .. } = self;
        write!(f, "{} requests of 64 KiB: {all} (PUT: {puts}; GET: {gets})", all.0.len())
    }
}

fn key(number: usize) -> String {
    format!("small/{number}")
}

fn body(number: usize) -> Vec<u8> {
    noise(number as u64, SIZE)
}

impl Foreground {
    pub fn new(clients: Vec<Client>) -> Self {
        Self { clients }
    }

    /// Writes what is read.
    pub async fn prepare(&self) -> Result<()> {
        for number in 0..OBJECTS {
            self.clients[0].put(BUCKET, &key(number), body(number)).await?;
        }
        Ok(())
    }

    /// Works until `end`; every answer is checked.
    pub async fn run(&self, end: impl Future<Output = ()>) -> Result<Times> {
        let working = Arc::new(AtomicBool::new(true));
        let mut tasks = JoinSet::new();
        for (worker, client) in self.clients.iter().enumerate() {
            tasks.spawn(work(worker, client.clone(), Arc::clone(&working)));
        }
        end.await;
        working.store(false, Ordering::Relaxed);
        let mut all: Vec<Request> = Vec::new();
        while let Some(times) = tasks.join_next().await {
            all.extend(times??);
        }
        ensure!(all.len() >= REQUESTS_MIN, "{} requests are too few for a percentile", all.len());
        Ok(all.into_iter().collect())
    }
}

async fn work(worker: usize, client: Client, working: Arc<AtomicBool>) -> Result<Vec<Request>> {
    let mut times = Vec::new();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let begun = Instant::now();
    let mut due = begun;
    for number in worker.. {
        due += PACE;
        sleep_until(due.into()).await;
        if !working.load(Ordering::Relaxed) {
            break;
        }
        let at = (number * 7) % OBJECTS;
        let put = number % 2 == 0;
        if put {
            client.put(BUCKET, &format!("written/{worker}/{}", number % 64), body(at)).await?;
        } else {
            ensure!(client.get(BUCKET, &key(at)).await? == body(at), "{}: other bytes", key(at));
        }
        times.push(Request { put, due: since_1970 + (due - begun), took: due.elapsed() });
    }
    Ok(times)
}
