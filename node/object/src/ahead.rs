//! Work that goes on while nobody waits for it.
//!
//! A future runs only when it is polled. A stream that reads ahead polls what it has begun while it is asked for the next
//! piece, and not while its taker does something else: writes what it got, or waits for a slow client. What was begun then
//! keeps all that it had taken so far (memory shared out to rebuilds, places at a drive), and whoever needs that waits
//! for the taker. If that is the taker itself, for ever.
//!
//! What has to be taken in the order of the stream (memory for content) is taken before, by the future itself: it only
//! holds back others who take in order.

use std::future::Future;

use tokio_util::task::AbortOnDropHandle;

use crate::api::ObjectError;

/// Begins `work` now, on a task of its own. It is given up when what this returns is dropped.
pub(crate) fn begun<T: Send + 'static>(
    work: impl Future<Output = Result<T, ObjectError>> + Send + 'static,
) -> impl Future<Output = Result<T, ObjectError>> + Send + 'static {
    let task = AbortOnDropHandle::new(tokio::spawn(work));
    async move {
        match task.await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ObjectError::Unavailable("the node is stopping".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures::{StreamExt, stream};
    use tokio::{
        sync::Semaphore,
        time::{sleep, timeout},
    };

    use super::*;

    /// As memory for rebuilding, of which one rebuild of large shards takes all.
    async fn rebuild(memory: Arc<Semaphore>) -> Result<u8, ObjectError> {
        let _all = memory.acquire().await.map_err(|error| ObjectError::Internal(error.to_string()))?;
        sleep(Duration::from_millis(10)).await;
        Ok(1)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_read_ahead_keeps_nothing_from_its_own_taker() {
        let memory = Arc::new(Semaphore::new(1));
        let reads = stream::iter(0..5).map(|_| begun(rebuild(Arc::clone(&memory))));
        let mut pieces = std::pin::pin!(reads.buffered(3));
        while let Some(piece) = pieces.next().await {
            assert_eq!(piece.unwrap(), 1);
            // It writes, a drive fails under that, and it needs a rebuild itself.
            let own = timeout(Duration::from_secs(60), rebuild(Arc::clone(&memory))).await;
            assert!(own.is_ok(), "it waits for what it has begun itself");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_wants_any_more_is_given_up() {
        let memory = Arc::new(Semaphore::new(1));
        let held = Arc::clone(&memory).acquire_owned().await.unwrap();
        let waiting = begun(rebuild(Arc::clone(&memory)));
        sleep(Duration::from_millis(1)).await;
        drop((waiting, held));
        sleep(Duration::from_millis(1)).await;
        assert_eq!(memory.available_permits(), 1);
        assert_eq!(Arc::strong_count(&memory), 1, "nothing of it is left");
    }
}
