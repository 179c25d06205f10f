//! A body that comes back: what its reader leaves unread can still be read to its end.
//!
//! A handler that fails in the middle of an upload drops the body it was reading. Closing the connection then would
//! reset it under a client that is still sending and has not read why it was refused.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;

use crate::intake::{Fault, Source};

/// Where unread bodies go.
pub(crate) type Unread = Arc<Mutex<Option<Source>>>;

/// A body that goes to `back` when it is dropped before its end.
pub(crate) struct Lent {
    source: Option<Source>,
    back: Unread,
}

impl Lent {
    pub(crate) fn new(source: Source, back: Unread) -> Self {
        Self { source: Some(source), back }
    }
}

impl Stream for Lent {
    type Item = Result<Bytes, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(source) = self.source.as_mut() else { return Poll::Ready(None) };
        let next = source.as_mut().poll_next(context);
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            self.source = None;
        }
        next
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(source) = self.source.take() {
            *self.back.lock() = Some(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    fn body() -> Source {
        Box::pin(futures::stream::iter([b"one", b"two"].map(|bytes| Ok(Bytes::from_static(bytes)))))
    }

    #[tokio::test]
    async fn what_is_left_of_a_body_comes_back_and_of_a_whole_one_nothing() {
        let unread = Unread::default();
        let mut lent = Lent::new(body(), Arc::clone(&unread));
        assert_eq!(lent.next().await.unwrap().unwrap(), "one");
        drop(lent);
        let left = unread.lock().take().unwrap();
        assert_eq!(left.map(Result::unwrap).collect::<Vec<_>>().await, ["two"]);
        let all = Lent::new(body(), Arc::clone(&unread));
        assert_eq!(all.count().await, 2);
        assert!(unread.lock().is_none());
    }
}
