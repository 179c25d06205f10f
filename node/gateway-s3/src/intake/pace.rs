//! Gives up a client whose body stands still or drips.
//!
//! Only time spent waiting for the client counts; while the object layer is slow to take bytes, no clock
//! runs. A client earns waiting time with the bytes it sends: [`BODY_IDLE_TIMEOUT`] to start with, and one
//! second more for every [`BODY_RATE_MIN`] bytes, up to [`BODY_IDLE_TIMEOUT`] in hand.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep};

use super::{Fault, Source};
use crate::limits::{BODY_IDLE_TIMEOUT, BODY_RATE_MIN};

/// The waiting time a client has in hand.
pub(super) struct Pace {
    in_hand: Duration,
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { in_hand: BODY_IDLE_TIMEOUT, waiting: None }
    }

    pub(super) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source,
    ) -> Poll<Result<Option<Bytes>, Fault>> {
        match source.as_mut().poll_next(cx) {
            Poll::Ready(item) => {
                if let Some((since, _)) = self.waiting.take() {
                    self.in_hand = self.in_hand.saturating_sub(since.elapsed());
                }
                if let Some(Ok(bytes)) = &item {
                    let earned = Duration::from_millis(bytes.len() as u64 * 1000 / BODY_RATE_MIN);
                    self.in_hand = (self.in_hand + earned).min(BODY_IDLE_TIMEOUT);
                }
                Poll::Ready(item.transpose())
            }
            Poll::Pending => {
                let in_hand = self.in_hand;
                let (_, sleep) = self
                    .waiting
                    .get_or_insert_with(|| (Instant::now(), Box::pin(tokio::time::sleep(in_hand))));
                sleep.as_mut().poll(cx).map(|()| Err(Fault::TooSlow))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    async fn drain(pace: &mut Pace, source: &mut Source) -> Result<u64, Fault> {
        let mut total = 0;
        loop {
            match std::future::poll_fn(|cx| pace.poll_next(cx, source)).await? {
                Some(bytes) => total += bytes.len() as u64,
                None => return Ok(total),
            }
        }
    }

    fn every(wait: Duration, size: usize, count: usize) -> Source {
        let pieces = futures::stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(wait).await;
            Ok(Bytes::from(vec![0; size]))
        });
        Box::pin(pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn a_dripping_client_is_given_up_and_a_slow_honest_one_is_not() {
        let mut drip = every(Duration::from_secs(5), 10, 1000);
        assert_eq!(drain(&mut Pace::new(), &mut drip).await, Err(Fault::TooSlow));

        let enough = usize::try_from(BODY_RATE_MIN * 5).unwrap();
        let mut slow = every(Duration::from_secs(5), enough, 1000);
        assert_eq!(drain(&mut Pace::new(), &mut slow).await, Ok(enough as u64 * 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_given_up() {
        let mut silent: Source = Box::pin(futures::stream::pending());
        assert_eq!(drain(&mut Pace::new(), &mut silent).await, Err(Fault::TooSlow));
    }
}
