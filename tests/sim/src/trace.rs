//! What happened in a run, as a hash, and as lines when somebody wants to read them.

use std::fmt;

use parking_lot::Mutex;
use tokio::time::Instant;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

#[derive(Debug)]
struct State {
    hash: u64,
    events: u64,
    violation: Option<String>,
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    print: bool,
    state: Mutex<State>,
}

impl Trace {
    /// An empty trace. Needs a runtime.
    #[must_use]
    pub fn new(print: bool) -> Self {
        let state = State { hash: OFFSET, events: 0, violation: None };
        Self { begun: Instant::now(), print, state: Mutex::new(state) }
    }

    /// Milliseconds of simulated time so far.
    #[must_use]
    pub fn millis(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes an event.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let line = format!("{:>8} {what}", self.millis());
        if self.print {
            println!("{line}");
        }
        let mut state = self.state.lock();
        state.events += 1;
        for byte in line.bytes() {
            state.hash = (state.hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }

    /// Notes a broken promise; the first one counts. `check` says which oracle found it.
    pub fn violation(&self, check: &str, what: fmt::Arguments<'_>) {
        self.note(format_args!("VIOLATION {check}: {what}"));
        self.state.lock().violation.get_or_insert_with(|| format!("{check}: {what}"));
    }

    /// The first broken promise.
    #[must_use]
    pub fn first_violation(&self) -> Option<String> {
        self.state.lock().violation.clone()
    }

    /// Hash over all events, and how many there were.
    #[must_use]
    pub fn hash(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.hash, state.events)
    }
}
