//! The host of a simulated node: its log and its machine are served by tasks, randomness comes from the seed.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{sleep, timeout_at},
};

use super::{
    faults::Planted,
    random::Random,
    runtime::{Executor, Owner},
};
use crate::log::{
    record::Kind,
    writer::{Done, Next, Request, Writer},
};

/// One run of one node. Clones share it.
#[derive(Clone)]
pub(crate) struct SimulatedHost {
    pub(crate) executor: Executor,
    pub(crate) owner: Owner,
    random: Arc<Mutex<Random>>,
    /// Longest time a flush takes, in milliseconds.
    flush_millis_max: Arc<Mutex<u64>>,
    planted: Option<Planted>,
}

impl SimulatedHost {
    pub(crate) fn new(executor: Executor, owner: Owner, random: Random, planted: Option<Planted>) -> Self {
        let (random, flush_millis_max) = (Arc::new(Mutex::new(random)), Arc::new(Mutex::new(2)));
        Self { executor, owner, random, flush_millis_max, planted }
    }

    pub(crate) fn fill(&self, bytes: &mut [u8]) {
        let mut random = self.random.lock();
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&random.next().to_le_bytes()[..piece.len()]);
        }
    }

    pub(crate) fn set_flush_millis_max(&self, millis: u64) {
        *self.flush_millis_max.lock() = millis;
    }

    pub(crate) async fn work_takes_time(&self) {
        let millis = self.random.lock().below(3);
        sleep(Duration::from_millis(millis)).await;
    }

    async fn flush_takes_time(&self) {
        let millis = self.random.lock().below(*self.flush_millis_max.lock() + 1);
        sleep(Duration::from_millis(millis)).await;
    }

    /// In place of a thread that takes `jobs`.
    pub(crate) fn serve<J: Send + 'static>(
        &self,
        mut jobs: mpsc::UnboundedReceiver<J>,
        mut serve: impl FnMut(J) -> bool + Send + 'static,
    ) {
        let host = self.clone();
        self.executor.spawn_on(self.owner, async move {
            while let Some(job) = jobs.recv().await {
                host.work_takes_time().await;
                if !serve(job) {
                    return;
                }
            }
        });
    }

    /// In place of the log's thread.
    pub(crate) fn serve_log(&self, mut writer: Writer) -> mpsc::UnboundedSender<Request> {
        let (requests, mut inbox) = mpsc::unbounded_channel();
        let host = self.clone();
        self.executor.spawn_on(self.owner, async move {
            loop {
                let request = match writer.next() {
                    Next::Wait(None) => match inbox.recv().await {
                        Some(request) => Some(request),
                        None => return,
                    },
                    Next::Wait(Some(until)) => match timeout_at(until, inbox.recv()).await {
                        Ok(Some(request)) => Some(request),
                        Ok(None) => return,
                        Err(_) => None,
                    },
                    Next::Look => inbox.try_recv().ok(),
                    Next::Commit => None,
                };
                match request {
                    Some(request) => writer.take(host.sabotage(request)),
                    None => {
                        host.flush_takes_time().await;
                        if !writer.finish_batch() {
                            return;
                        }
                    }
                }
            }
        });
        requests
    }

    /// Makes the writer's promises lies, when that is what was planted.
    fn sabotage(&self, request: Request) -> Request {
        let Request::Write(mut write) = request else { return request };
        let is = |kind| write.records.iter().all(|(record, _)| record.kind == kind);
        match self.planted {
            Some(Planted::VoteAnsweredBeforeFlush) if is(Kind::Vote) => {
                if let Done::Told(told) = std::mem::replace(&mut write.done, Done::Lazy) {
                    let _ = told.send(Ok(()));
                }
            }
            Some(Planted::VoteNotWritten) if is(Kind::Vote) => {
                write.records.clear();
            }
            Some(Planted::AppendAnsweredBeforeFlush) if is(Kind::Entry) => {
                if let Done::Appended(callback) = std::mem::replace(&mut write.done, Done::Lazy) {
                    callback.log_io_completed(Ok(()));
                }
            }
            Some(Planted::TruncationNotWritten) if is(Kind::Truncate) => write.records.clear(),
            _ => {}
        }
        Request::Write(write)
    }
}
