//! Starts the key service and starts it again when it ends; carries requests to it and answers back.

use std::{
    collections::HashMap,
    io::{self, BufReader},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    client::Known,
    protocol::{KeyError, Opening, Reply, Request, receive, send},
};

/// The program that is started: this one.
const PROGRAM: &str = "/proc/self/exe";

/// Its subcommand.
pub(crate) const SUBCOMMAND: &str = "key-service";

/// How long an answer may take. A service that does not answer by then is ended, and started again.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Pause before the service is started again; doubles up to [`PAUSE_MAX`] while it ends at once.
const PAUSE: Duration = Duration::from_millis(100);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What the service opens, looked up whenever it is started.
pub type OpeningOf = Box<dyn Fn() -> Result<Opening, String> + Send + Sync>;

type Answer = Result<Reply, KeyError>;

/// The way to the service.
pub(crate) struct Supervisor {
    opening: OpeningOf,
    known: Arc<Known>,
    to: Mutex<Option<UnixStream>>,
    asked: Mutex<HashMap<u64, mpsc::SyncSender<Answer>>>,
    next: AtomicU64,
    child: Mutex<Option<Child>>,
    stops: AtomicBool,
    pause: (Mutex<()>, Condvar),
}

impl Supervisor {
    /// Starts the service and returns when it answers.
    ///
    /// # Errors
    /// What the service says it could not open; `Away` when it cannot be started.
    pub(crate) fn start(opening: OpeningOf, known: Arc<Known>) -> Result<Arc<Self>, KeyError> {
        let this = Arc::new(Self {
            opening,
            known,
            to: Mutex::default(),
            asked: Mutex::default(),
            next: AtomicU64::new(1),
            child: Mutex::default(),
            stops: AtomicBool::new(false),
            pause: (Mutex::default(), Condvar::new()),
        });
        let (tell, told) = mpsc::sync_channel(1);
        let runs = Arc::clone(&this);
        // The service ends with the thread that started it, so that thread stays.
        let thread = std::thread::Builder::new().name("key-service".to_owned());
        thread.spawn(move || runs.run(&tell)).map_err(|_| KeyError::Away)?;
        told.recv().map_err(|_| KeyError::Away)??;
        Ok(this)
    }

    fn run(&self, tell: &mpsc::SyncSender<Result<(), KeyError>>) {
        let mut first = Some(tell);
        let mut pause = PAUSE;
        while !self.stops.load(Ordering::Acquire) {
            match self.begin() {
                Ok(from) => {
                    pause = PAUSE;
                    if let Some(tell) = first.take() {
                        // Whoever started this waits for it.
                        let _ = tell.send(Ok(()));
                    }
                    self.listen(from);
                }
                Err(error) => {
                    self.end();
                    if let Some(tell) = first.take() {
                        let _ = tell.send(Err(error));
                        return;
                    }
                    tracing::error!(%error, "the key service does not start; tried again");
                }
            }
            self.end();
            if !self.stops.load(Ordering::Acquire) {
                let mut guard = self.pause.0.lock();
                self.pause.1.wait_for(&mut guard, pause);
                pause = PAUSE_MAX.min(pause * 2);
            }
        }
    }

    /// Starts a process and opens it.
    fn begin(&self) -> Result<BufReader<UnixStream>, KeyError> {
        let opening = (self.opening)().map_err(KeyError::Store)?;
        let failed =
            |what: &str, error: io::Error| KeyError::Store(format!("{what} the key service: {error}"));
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed("connecting", error))?;
        let mut command = Command::new(PROGRAM);
        command.arg(SUBCOMMAND).env_clear().stdin(Stdio::from(OwnedFd::from(theirs)));
        if let Some(filter) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }
        let child = command.spawn().map_err(|error| failed("starting", error))?;
        let pid = child.id();
        // This end of theirs is held by the command.
        drop(command);
        *self.child.lock() = Some(child);
        let opened = move || {
            ours.set_read_timeout(Some(ANSWER_WITHIN))?;
            ours.set_write_timeout(Some(ANSWER_WITHIN))?;
            send(&mut &ours, 0, &Request::Open(opening))?;
            let mut from = BufReader::new(ours.try_clone()?);
            let answer = receive::<Answer>(&mut from)?;
            ours.set_read_timeout(None)?;
            io::Result::Ok((ours, from, answer))
        };
        let (ours, from, answer) = opened().map_err(|error| failed("opening", error))?;
        match answer {
            Some((0, Ok(Reply::State(state)))) => {
                *self.to.lock() = Some(ours);
                self.known.begin(*state);
            }
            Some((_, Err(error))) => return Err(error),
            Some((_, Ok(_))) => return Err(KeyError::Misused("an answer to nothing".to_owned())),
            None => return Err(KeyError::Store("the key service ended when it was opened".to_owned())),
        }
        tracing::info!(target: "audit", pid, "key service started");
        Ok(from)
    }

    fn listen(&self, mut from: BufReader<UnixStream>) {
        loop {
            match receive::<Answer>(&mut from) {
                Ok(Some((number, answer))) => {
                    if let Some(asked) = self.asked.lock().remove(&number) {
                        // It may have stopped waiting.
                        let _ = asked.try_send(answer);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "key service");
                    break;
                }
            }
        }
    }

    /// Ends the process, if there is one, and everything that waits for it.
    fn end(&self) {
        *self.to.lock() = None;
        self.known.forget();
        // Requests find no way from here on: none is added after these.
        self.asked.lock().clear();
        let child = self.child.lock().take();
        let Some(mut child) = child else { return };
        if self.stops.load(Ordering::Acquire) {
            // It ends by itself: its line is cut.
            let _ = child.wait();
            return;
        }
        let _ = child.kill();
        match child.wait() {
            Ok(status) => {
                tracing::error!(target: "audit", %status, "the key service ended; this node is locked")
            }
            Err(error) => tracing::error!(%error, "waiting for the key service"),
        }
    }

    /// Asks and waits for the answer.
    pub(crate) fn ask(&self, request: &Request) -> Answer {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = mpsc::sync_channel(1);
        {
            let mut to = self.to.lock();
            let stream = to.as_mut().ok_or(KeyError::Away)?;
            self.asked.lock().insert(number, tell);
            match send(stream, number, request) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.asked.lock().remove(&number);
                    return Err(KeyError::Misused(error.to_string()));
                }
                Err(error) => {
                    tracing::error!(%error, "asking the key service");
                    self.asked.lock().remove(&number);
                    // Half a frame may be on its way: nothing can follow it.
                    let _ = stream.shutdown(Shutdown::Both);
                    return Err(KeyError::Away);
                }
            }
        }
        match told.recv_timeout(ANSWER_WITHIN) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(KeyError::Away),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                tracing::error!(
                    seconds = ANSWER_WITHIN.as_secs(),
                    "the key service does not answer; it is ended"
                );
                self.asked.lock().remove(&number);
                self.cut();
                Err(KeyError::Away)
            }
        }
    }

    fn cut(&self) {
        if let Some(stream) = self.to.lock().as_ref() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Has the service end for good.
    pub(crate) fn stop(&self) {
        self.stops.store(true, Ordering::Release);
        self.cut();
        self.pause.1.notify_all();
    }
}
