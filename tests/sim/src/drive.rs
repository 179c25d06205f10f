//! A drive's device and the task that steps its engine: operations take simulated time.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_drive::DriveSteps;
use holdfast_fault::{FaultDevice, Random};
use holdfast_model::ByteCount;
use holdfast_ring::{BlockDevice, Completion, Operation, Waker};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

/// How long an operation takes at most, in milliseconds.
const LATENCY_MAX_MILLIS: u64 = 4;

/// Steps without a wait after which time has to go on.
const STEPS_AT_ONCE: u32 = 64;

/// Looks for a completion after which a device that is being mounted is taken to hang.
const LOOKS_IN_VAIN_MAX: u32 = 2000;

/// Doublings of the time between two looks at a device that completes nothing.
const BACK_OFF_MAX: u32 = 8;

/// Attempts to get buffers back from a device that is let go of.
const DRAIN_ROUNDS: usize = 200;

/// What is shared by a device, the task that steps its engine, and whoever breaks it.
#[derive(Debug)]
pub struct Gate {
    /// A mount takes no time.
    mounted: AtomicBool,
    /// Something completed: the engine may have more to do at once.
    moved: AtomicBool,
    /// Looks in vain, one after the other.
    vain: AtomicU32,
    wake: Arc<Notify>,
    timeout_micros: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: Random,
    ready: Option<Instant>,
    stalled_until: Option<Instant>,
}

impl Gate {
    /// `seed` decides how long operations take.
    #[must_use]
    pub fn new(seed: u64) -> Arc<Self> {
        let state = State { random: Random::new(seed), ready: None, stalled_until: None };
        Arc::new(Self {
            mounted: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            vain: AtomicU32::new(0),
            wake: Arc::new(Notify::new()),
            timeout_micros: AtomicU64::new(u64::MAX),
            state: Mutex::new(state),
        })
    }

    /// Nothing completes for so long.
    pub fn stall(&self, time: Duration) {
        self.state.lock().stalled_until = Some(Instant::now() + time);
    }

    /// From now on operations take time.
    pub fn mounted(&self) {
        self.mounted.store(true, Ordering::Relaxed);
    }

    fn submitted(&self) {
        let mut state = self.state.lock();
        let latency = Duration::from_millis(state.random.below(LATENCY_MAX_MILLIS + 1));
        let now = Instant::now();
        let ready = now + latency;
        state.ready = Some(state.ready.filter(|earlier| *earlier > now).map_or(ready, |e| e.min(ready)));
    }

    fn is_ready(&self) -> bool {
        if !self.mounted.load(Ordering::Relaxed) {
            return true;
        }
        let state = self.state.lock();
        let now = Instant::now();
        state.stalled_until.is_none_or(|until| now >= until) && state.ready.is_none_or(|ready| now >= ready)
    }

    /// How long the engine has nothing to do, when nothing wakes it.
    fn rest(&self, in_flight: usize) -> Duration {
        if self.moved.swap(false, Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let asked = self.timeout_micros.load(Ordering::Relaxed);
        let asked = if asked == u64::MAX { Duration::from_secs(3600) } else { Duration::from_micros(asked) };
        if in_flight == 0 {
            return asked;
        }
        let state = self.state.lock();
        let due = state.ready.max(state.stalled_until);
        let due = due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()));
        // What hangs is looked at ever more rarely.
        let vain = self.vain.load(Ordering::Relaxed).min(BACK_OFF_MAX);
        asked.min(due.max(Duration::from_millis(1 << vain)))
    }
}

/// A device on a disk that misbehaves, whose operations take simulated time.
pub struct SimDevice {
    inner: FaultDevice,
    gate: Arc<Gate>,
    /// Looks in vain while it is mounted.
    vain: u32,
}

impl fmt::Debug for SimDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDevice").field("in_flight", &self.inner.in_flight()).finish_non_exhaustive()
    }
}

impl SimDevice {
    /// A device.
    #[must_use]
    pub fn new(inner: FaultDevice, gate: Arc<Gate>) -> Self {
        Self { inner, gate, vain: 0 }
    }
}

impl BlockDevice for SimDevice {
    fn capacity(&self) -> ByteCount {
        self.inner.capacity()
    }

    fn depth(&self) -> usize {
        self.inner.depth()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }

    fn submit(&mut self, operation: Operation) -> Result<(), Operation> {
        self.inner.submit(operation)?;
        self.gate.submitted();
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        let micros = timeout.map_or(u64::MAX, |t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX));
        self.gate.timeout_micros.store(micros, Ordering::Relaxed);
        if !self.gate.is_ready() {
            return Ok(());
        }
        let before = completions.len();
        self.inner.wait(Some(Duration::ZERO), completions)?;
        let moved = completions.len() > before;
        self.gate.moved.store(moved, Ordering::Relaxed);
        let looks = if moved { 0 } else { self.gate.vain.load(Ordering::Relaxed) + 1 };
        self.gate.vain.store(looks, Ordering::Relaxed);
        let mounting = !self.gate.mounted.load(Ordering::Relaxed);
        self.vain = if mounting && !moved { self.vain + 1 } else { 0 };
        if self.vain > LOOKS_IN_VAIN_MAX {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        let wake = Arc::clone(&self.gate.wake);
        Waker::new(move || wake.notify_one())
    }
}

impl Drop for SimDevice {
    /// Buffers come back to their pools, unless the disk hangs.
    fn drop(&mut self) {
        let mut completions = Vec::new();
        for _ in 0..DRAIN_ROUNDS {
            if self.inner.in_flight() == 0 || self.inner.wait(Some(Duration::ZERO), &mut completions).is_err()
            {
                return;
            }
        }
    }
}

/// Steps a drive's engine until it ends.
pub async fn drive(mut steps: DriveSteps<SimDevice>, gate: Arc<Gate>) {
    let mut at_once = 0;
    while steps.step() {
        let rest = gate.rest(steps.in_flight());
        if rest.is_zero() && at_once < STEPS_AT_ONCE {
            at_once += 1;
            tokio::task::yield_now().await;
            continue;
        }
        at_once = 0;
        tokio::select! {
            biased;
            () = gate.wake.notified() => {}
            () = tokio::time::sleep(rest.max(Duration::from_millis(1))) => {}
        }
    }
}
