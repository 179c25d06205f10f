//! Tasks of simulated nodes: one thread, one at a time, and the seed says which of those that can go on does.
//!
//! Order of waking plays no part (tokio's `watch` wakes its waiters in an order that no seed decides), so
//! a seed decides everything; and it tries orders that a fair queue never would. Time is tokio's paused
//! clock. Every task belongs to an owner, one run of one node: a power cut drops all tasks of an owner, a
//! pause leaves them lying.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use openraft::{AsyncRuntime, OptionalSend, TokioRuntime};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::random::Random;

/// One run of one node. [`WORLD`] is no node.
pub(crate) type Owner = u64;

/// Owner of clients, messages under way, and the one who does the harm.
pub(crate) const WORLD: Owner = 0;

thread_local! {
    /// The executor of this thread, and whose task is being polled.
    static CURRENT: RefCell<Option<(Executor, Owner)>> = const { RefCell::new(None) };
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Slot {
    owner: Owner,
    /// Absent while it is polled.
    work: Option<Work>,
}

struct Tasks {
    next: u64,
    slots: BTreeMap<u64, Slot>,
    ready: BTreeSet<u64>,
    /// Ready, but of a paused owner.
    held: BTreeSet<u64>,
    paused: BTreeSet<Owner>,
    random: Random,
    polling: bool,
    root: Option<Waker>,
}

/// Clones share the tasks.
#[derive(Clone)]
pub(crate) struct Executor(Arc<Mutex<Tasks>>);

impl Executor {
    pub(crate) fn new(random: Random) -> Self {
        Self(Arc::new(Mutex::new(Tasks {
            next: 0,
            slots: BTreeMap::new(),
            ready: BTreeSet::new(),
            held: BTreeSet::new(),
            paused: BTreeSet::new(),
            random,
            polling: false,
            root: None,
        })))
    }

    /// Runs `main` to its end, and everything it spawns meanwhile; then drops what is left.
    pub(crate) fn run<T: Send + 'static>(&self, main: impl Future<Output = T> + Send + 'static) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.unwrap();
        let (done, mut result) = oneshot::channel();
        self.spawn_on(WORLD, async move { drop(done.send(main.await)) });
        let turns = poll_fn(|context| {
            self.turn(context);
            result.try_recv().map_or(Poll::Pending, Poll::Ready)
        });
        // Without tokio's budget, which counts per poll of the one future it knows.
        let outcome = runtime.block_on(tokio::task::unconstrained(turns));
        let _entered = runtime.enter();
        let left = std::mem::take(&mut self.0.lock().slots);
        drop(left);
        outcome
    }

    /// Adds a task of `owner`.
    pub(crate) fn spawn_on<T: Send + 'static>(
        &self,
        owner: Owner,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Task<T> {
        let (sender, result) = oneshot::channel();
        let work = Box::pin(async move { drop(sender.send(work.await)) });
        let mut tasks = self.0.lock();
        let id = tasks.next;
        tasks.next += 1;
        tasks.slots.insert(id, Slot { owner, work: Some(work) });
        tasks.ready.insert(id);
        tasks.wake_root();
        Task::Simulated { id, executor: self.clone(), result }
    }

    /// Drops all tasks of `owner` where they are.
    pub(crate) fn kill(&self, owner: Owner) {
        let dropped: Vec<Slot> = {
            let mut tasks = self.0.lock();
            let ids: Vec<u64> =
                tasks.slots.iter().filter(|(_, slot)| slot.owner == owner).map(|(id, _)| *id).collect();
            tasks.paused.remove(&owner);
            ids.iter().filter_map(|id| tasks.slots.remove(id)).collect()
        };
        drop(dropped);
    }

    /// From now on no task of `owner` is polled.
    pub(crate) fn pause(&self, owner: Owner) {
        self.0.lock().paused.insert(owner);
    }

    pub(crate) fn resume(&self, owner: Owner) {
        let mut tasks = self.0.lock();
        tasks.paused.remove(&owner);
        let held = std::mem::take(&mut tasks.held);
        tasks.ready.extend(held);
        tasks.wake_root();
    }

    fn abort(&self, id: u64) {
        let slot = self.0.lock().slots.remove(&id);
        drop(slot);
    }

    /// Polls tasks until none can go on.
    fn turn(&self, context: &Context<'_>) {
        self.0.lock().root = Some(context.waker().clone());
        loop {
            let Some((id, owner, mut work)) = self.0.lock().pick() else { break };
            let waker = Waker::from(Arc::new(TaskWaker { id, executor: self.clone() }));
            CURRENT.with_borrow_mut(|current| *current = Some((self.clone(), owner)));
            let poll = work.as_mut().poll(&mut Context::from_waker(&waker));
            CURRENT.with_borrow_mut(|current| *current = None);
            let mut tasks = self.0.lock();
            match tasks.slots.get_mut(&id) {
                Some(slot) if poll.is_pending() => slot.work = Some(work),
                _ => {
                    let slot = tasks.slots.remove(&id);
                    drop(tasks);
                    drop((slot, work));
                }
            }
        }
        self.0.lock().polling = false;
    }
}

impl Tasks {
    /// Takes out the task that is polled next.
    fn pick(&mut self) -> Option<(u64, Owner, Work)> {
        self.polling = true;
        while !self.ready.is_empty() {
            let at = self.random.below(self.ready.len() as u64);
            let id = *self.ready.iter().nth(usize::try_from(at).unwrap()).unwrap();
            self.ready.remove(&id);
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            if self.paused.contains(&slot.owner) {
                self.held.insert(id);
                continue;
            }
            let owner = slot.owner;
            if let Some(work) = slot.work.take() {
                return Some((id, owner, work));
            }
        }
        None
    }

    fn wake_root(&mut self) {
        if !self.polling
            && let Some(root) = &self.root
        {
            root.wake_by_ref();
        }
    }
}

struct TaskWaker {
    id: u64,
    executor: Executor,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut tasks = self.executor.0.lock();
        if tasks.slots.contains_key(&self.id) {
            tasks.ready.insert(self.id);
            tasks.wake_root();
        }
    }
}

/// Spawns a task of the owner whose task is being polled; outside of a simulation one of tokio's.
pub(crate) fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Task<T> {
    match CURRENT.with_borrow(Clone::clone) {
        Some((executor, owner)) => executor.spawn_on(owner, work),
        None => Task::Tokio(tokio::spawn(work)),
    }
}

/// A task that was spawned. Dropping this changes nothing.
pub(crate) enum Task<T> {
    Tokio(tokio::task::JoinHandle<T>),
    Simulated { id: u64, executor: Executor, result: oneshot::Receiver<T> },
}

impl<T> Task<T> {
    pub(crate) fn abort(&self) {
        match self {
            Self::Tokio(task) => task.abort(),
            Self::Simulated { id, executor, .. } => executor.abort(*id),
        }
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Tokio(task) => Pin::new(task).poll(context).map_err(TaskError::Tokio),
            Self::Simulated { result, .. } => Pin::new(result).poll(context).map_err(|_| TaskError::Dropped),
        }
    }
}

/// Why a task has no result. One that panics ends the whole simulation instead.
#[derive(Debug)]
pub(crate) enum TaskError {
    Tokio(tokio::task::JoinError),
    Dropped,
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokio(error) => error.fmt(f),
            Self::Dropped => f.write_str("the task was dropped"),
        }
    }
}

/// What openraft runs on in tests: tokio, but tasks are spawned by [`spawn`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = TaskError;
    type JoinHandle<T: OptionalSend + 'static> = Task<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    // Draws the election timeout of openraft's own timer, which is switched off.
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotReceiver<T>;
    type OneshotReceiverError = <TokioRuntime as AsyncRuntime>::OneshotReceiverError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        matches!(error, TaskError::Tokio(error) if error.is_panic())
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn oneshot<T: OptionalSend>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>) {
        TokioRuntime::oneshot()
    }
}
