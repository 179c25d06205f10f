//! A tenant's limits on this node: requests in a second and at once, bytes in a second each way.
//!
//! ```text
//! head ── admitted? ── no ── 503 SlowDown, before anything is read or looked up
//!           │ yes: an Admission, held until the last byte of the answer
//!           └─ body in, answer out ── each piece is paid for; who owes waits before the next is taken
//! ```
//!
//! Bandwidth is paced, not refused: nothing more is taken from the connection while a tenant owes, so that what waits is
//! in the client's and the kernel's buffers, not in ours. All requests of a tenant on this node owe together.
//!
//! Each node enforces its part of the cluster's figures (`TenantLimits::part_of`); nodes do not talk about it. Clients
//! that use one node of three get a third.

use std::{
    collections::HashMap,
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use holdfast_model::{TenantId, TenantLimits};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use crate::{
    errors::Refusal,
    observer::{Limit, Observer},
};

/// Tenants that are not limited any more and have nothing in progress are forgotten when there are so many.
const TENANTS_MAX: usize = 1024;

/// What may be asked for at once after a pause, as time at the limit.
const BURST: Duration = Duration::from_secs(1);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

/// A rate: the moment until which what was taken is paid for.
#[derive(Debug)]
struct Meter {
    paid_until: Instant,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self { paid_until: now }
    }

    /// Takes `amount` at `rate` a second. Returns how long whoever takes more has to wait.
    fn take(&mut self, now: Instant, amount: u64, rate: u64) -> Duration {
        let cost = Duration::from_secs_f64(amount as f64 / rate.max(1) as f64);
        self.paid_until = self.paid_until.max(now) + cost;
        self.owed(now)
    }

    /// How long it is until more may be taken.
    fn owed(&self, now: Instant) -> Duration {
        self.paid_until.saturating_duration_since(now).saturating_sub(BURST)
    }

    /// Takes one, or says that it is too early for that.
    fn try_take(&mut self, now: Instant, rate: u64) -> bool {
        let free = self.owed(now).is_zero();
        if free {
            self.take(now, 1, rate);
        }
        free
    }
}

#[derive(Debug)]
struct State {
    at_once: u32,
    requests: Meter,
    bytes_in: Meter,
    bytes_out: Meter,
}

/// One tenant on this node.
#[derive(Debug)]
struct Account(Mutex<State>);

/// All limited tenants on this node.
pub(crate) struct Throttle {
    accounts: Mutex<HashMap<TenantId, Arc<Account>>>,
    observer: Arc<dyn Observer>,
}

impl Throttle {
    pub(crate) fn new(observer: Arc<dyn Observer>) -> Self {
        Self { accounts: Mutex::default(), observer }
    }

    /// Lets a request of `tenant` in, if its limits do. `None`: it has none.
    ///
    /// # Errors
    /// `SlowDown`.
    pub(crate) fn admit(&self, tenant: TenantId, limits: TenantLimits) -> Result<Option<Admission>, Refusal> {
        if limits == TenantLimits::default() {
            return Ok(None);
        }
        let now = Instant::now();
        let account = {
            let mut accounts = self.accounts.lock();
            if accounts.len() >= TENANTS_MAX {
                accounts.retain(|_, account| Arc::strong_count(account) > 1);
            }
            Arc::clone(accounts.entry(tenant).or_insert_with(|| {
                let meter = || Meter::new(now);
                let state = State { at_once: 0, requests: meter(), bytes_in: meter(), bytes_out: meter() };
                Arc::new(Account(Mutex::new(state)))
            }))
        };
        let refused = |limit, said: &str| {
            self.observer.limited(tenant, limit, Duration::ZERO);
            Err(Refusal::because(
                "SlowDown",
                format!("This tenant's limit of {said} is reached. Try again later."),
            ))
        };
        {
            let mut state = account.0.lock();
            if limits.requests_at_once.is_some_and(|most| state.at_once >= most) {
                drop(state);
                return refused(Limit::RequestsAtOnce, "requests at once");
            }
            if let Some(rate) = limits.requests_per_second
                && !state.requests.try_take(now, rate.into())
            {
                drop(state);
                return refused(Limit::RequestsPerSecond, "requests per second");
            }
            state.at_once += 1;
        }
        Ok(Some(Admission { tenant, account, limits, observer: Arc::clone(&self.observer) }))
    }
}

/// A request that was let in. It counts until this is dropped.
pub(crate) struct Admission {
    tenant: TenantId,
    account: Arc<Account>,
    limits: TenantLimits,
    observer: Arc<dyn Observer>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.account.0.lock().at_once -= 1;
    }
}

impl Admission {
    /// Pays for bytes that passed; how long to wait before the next.
    fn pay(&self, direction: Direction, bytes: u64) -> Duration {
        let (rate, limit) = match direction {
            Direction::In => (self.limits.in_bytes_per_second, Limit::BytesIn),
            Direction::Out => (self.limits.out_bytes_per_second, Limit::BytesOut),
        };
        let Some(rate) = rate else { return Duration::ZERO };
        let wait = {
            let mut state = self.account.0.lock();
            let meter = match direction {
                Direction::In => &mut state.bytes_in,
                Direction::Out => &mut state.bytes_out,
            };
            meter.take(Instant::now(), bytes, rate)
        };
        if !wait.is_zero() {
            self.observer.limited(self.tenant, limit, wait);
        }
        wait
    }
}

/// One body of an admitted request, one way.
pub(crate) struct Toll {
    admission: Option<Arc<Admission>>,
    direction: Direction,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Toll {
    pub(crate) fn new(admission: Option<Arc<Admission>>, direction: Direction) -> Self {
        Self { admission, direction, waiting: None }
    }

    /// Ready when the next piece may be taken.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(waiting) = &mut self.waiting {
            std::task::ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        Poll::Ready(())
    }

    /// A piece was taken.
    pub(crate) fn pay(&mut self, bytes: u64) {
        let Some(admission) = &self.admission else { return };
        let wait = admission.pay(self.direction, bytes);
        if !wait.is_zero() {
            self.waiting = Some(Box::pin(tokio::time::sleep(wait)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant() -> TenantId {
        TenantId::from_bytes([1; 16])
    }

    fn throttle() -> Throttle {
        Throttle::new(Arc::new(()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_has_as_many_requests_as_the_limit_says() {
        let (throttle, limits) =
            (throttle(), TenantLimits { requests_per_second: Some(10), ..TenantLimits::default() });
        let mut let_in = 0;
        for _ in 0..100 {
            for _ in 0..5 {
                let_in += u32::from(throttle.admit(tenant(), limits).is_ok());
            }
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        // Ten seconds, and the burst of one.
        assert!((100..=112).contains(&let_in), "{let_in}");
        assert_eq!(throttle.admit(tenant(), TenantLimits::default()).map(|a| a.is_none()), Ok(true));
    }

    #[tokio::test]
    async fn requests_count_until_they_end_and_tenants_do_not_count_for_each_other() {
        let (throttle, limits) =
            (throttle(), TenantLimits { requests_at_once: Some(2), ..TenantLimits::default() });
        let one = throttle.admit(tenant(), limits).unwrap();
        let _two = throttle.admit(tenant(), limits).unwrap();
        assert_eq!(throttle.admit(tenant(), limits).err().map(|refusal| refusal.code), Some("SlowDown"));
        assert!(throttle.admit(TenantId::from_bytes([2; 16]), limits).is_ok());
        drop(one);
        assert!(throttle.admit(tenant(), limits).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_of_one_tenant_share_its_bandwidth() {
        let (throttle, limits) =
            (throttle(), TenantLimits { in_bytes_per_second: Some(1_000_000), ..TenantLimits::default() });
        let begun = Instant::now();
        let body = || {
            let admission = throttle.admit(tenant(), limits).unwrap().map(Arc::new);
            async move {
                let mut toll = Toll::new(admission, Direction::In);
                for _ in 0..50 {
                    std::future::poll_fn(|cx| toll.poll_open(cx)).await;
                    toll.pay(100_000);
                }
                std::future::poll_fn(|cx| toll.poll_open(cx)).await;
            }
        };
        tokio::join!(body(), body());
        let took = begun.elapsed();
        assert!((8.5..=10.1).contains(&took.as_secs_f64()), "10 MB at 1 MB/s took {took:?}");
    }
}
