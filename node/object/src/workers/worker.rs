//! What all workers have in common: they wait for something to do, do it, and say on the
//! [`Board`](super::Board) what they are at. Each asks the board before every piece of work, and rests after
//! it, as operators want it ([`super::control`]).

use tokio_util::sync::CancellationToken;

use super::status::Kind;

/// A background worker. Any of its futures may be dropped at any point: whatever it does starts from the
/// catalog and the drives, and what was left half done is found again or swept.
#[async_trait::async_trait]
pub(crate) trait Worker: Send {
    /// Which one.
    fn kind(&self) -> Kind;

    /// Waits until there may be something to do.
    async fn wait(&mut self);

    /// Does what there is to do.
    async fn work(&mut self);
}

/// Runs a worker until cancelled.
pub(crate) async fn run(mut worker: impl Worker, stop: CancellationToken) {
    tracing::debug!(worker = worker.kind().name(), "worker runs");
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = worker.wait() => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = worker.work() => {}
        }
    }
}
