//! Pieces of work side by side, as many as may be now: orders that change in the middle of a run count for what is begun
//! after them.

use std::future::Future;

use futures::{StreamExt, stream::FuturesUnordered};

/// Work in progress, and what is left of a plan.
pub(super) struct Abreast<Plan, Begin, Work, Limit> {
    plan: Plan,
    begin: Begin,
    limit: Limit,
    running: FuturesUnordered<Work>,
}

impl<Plan, Begin, Work, Limit> Abreast<Plan, Begin, Work, Limit>
where
    Plan: Iterator,
    Begin: FnMut(Plan::Item) -> Work,
    Work: Future,
    Limit: Fn() -> usize,
{
    /// Does what `begin` makes of each of `plan`, `limit` at once.
    pub(super) fn new(plan: impl IntoIterator<IntoIter = Plan>, limit: Limit, begin: Begin) -> Self {
        Self { plan: plan.into_iter(), begin, limit, running: FuturesUnordered::new() }
    }

    /// What came of the piece that ended first; `None` when all have. With `more` false nothing is begun any more.
    pub(super) async fn next(&mut self, more: bool) -> Option<Work::Output> {
        while more && self.running.len() < (self.limit)().max(1) {
            let Some(item) = self.plan.next() else { break };
            self.running.push((self.begin)(item));
        }
        self.running.next().await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_limit_that_changes_counts_from_then_on() {
        let (limit, at_work, most) = (Cell::new(1), Cell::new(0_usize), Cell::new(0));
        let begin = |number: u32| {
            at_work.set(at_work.get() + 1);
            most.set(most.get().max(at_work.get()));
            let at_work = &at_work;
            async move {
                tokio::task::yield_now().await;
                at_work.set(at_work.get() - 1);
                number
            }
        };
        let mut work = Abreast::new(0..100, || limit.get(), begin);
        for _ in 0..10 {
            assert!(work.next(true).await.is_some());
        }
        assert_eq!(most.get(), 1);
        limit.set(4);
        for _ in 0..10 {
            assert!(work.next(true).await.is_some());
        }
        assert_eq!(most.get(), 4);
        let mut rest = 0;
        while work.next(false).await.is_some() {
            rest += 1;
        }
        assert_eq!((rest, at_work.get()), (3, 0), "what had begun ends, and nothing else begins");
    }
}
