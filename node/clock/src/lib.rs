//! The time of day, as most nodes have it.
//!
//! Retention ends, lifecycle rules delete and keys expire by the time of day. One node whose clock is wrong must not
//! decide that for all: each node asks the others what their clocks show, and goes by what most agree on
//! ([`judge`]). In between, time goes on as the machine's monotonic clock does, so that a clock which is set while the
//! node runs is looked at before it is believed. Why it is done so: docs/decisions/0037-cluster-time.md.
//!
//! The clock is one for the process, as the machine's is. In a process where nobody is asked it is the machine's.

mod judge;

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use holdfast_model::{NodeId, UnixMillis};
pub use judge::{AGREEMENT, Judge, Judgement, SILENCE_MAX};
use parking_lot::Mutex;

/// Stands for "nobody was asked yet".
const UNJUDGED: i64 = i64::MIN;

/// What monotonic times of this process are counted from.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What has to be added to a monotonic time to get the time of day, in milliseconds.
static OFFSET: AtomicI64 = AtomicI64::new(UNJUDGED);

static JUDGE: LazyLock<Mutex<Judge>> = LazyLock::new(Mutex::default);

/// The time of day.
#[must_use]
pub fn now() -> UnixMillis {
    match OFFSET.load(Ordering::Relaxed) {
        UNJUDGED => machine(),
        offset => UnixMillis::new(monotonic().saturating_add(offset).try_into().unwrap_or(0)),
    }
}

/// The time of day, for whoever needs this type.
#[must_use]
pub fn system_time() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(now().get())
}

/// What the machine's clock shows: what peers are told, and nothing else goes by.
#[must_use]
pub fn machine() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::new(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The clock of `node` showed `shown` at some moment between `asked` and now.
pub fn heard(node: NodeId, shown: UnixMillis, asked: Instant) {
    let (asked, now) = (monotonic_at(asked), monotonic());
    let middle = asked + (now - asked) / 2;
    JUDGE.lock().heard(node, signed(shown).saturating_sub(middle), now);
}

/// `node` is a member no more.
pub fn forget(node: NodeId) {
    JUDGE.lock().forget(node);
}

/// Looks at all clocks, and goes by what they agree on from here on.
pub fn judge() -> Judgement {
    let mut judge = JUDGE.lock();
    let now = monotonic();
    let judgement = judge.judge(signed(machine()).saturating_sub(now), now);
    OFFSET.store(judgement.offset, Ordering::Relaxed);
    judgement
}

/// What was found when clocks were last looked at.
#[must_use]
pub fn judgement() -> Option<Judgement> {
    JUDGE.lock().last().cloned()
}

fn monotonic() -> i64 {
    monotonic_at(Instant::now())
}

fn monotonic_at(at: Instant) -> i64 {
    let since = at.saturating_duration_since(*BEGUN);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn signed(at: UnixMillis) -> i64 {
    i64::try_from(at.get()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    // One test: the clock is one for the process.
    #[test]
    fn time_is_the_machines_until_others_are_asked_and_then_what_most_have() {
        let apart = |a: UnixMillis, b: UnixMillis| a.get().abs_diff(b.get());
        assert!(apart(now(), machine()) < 1000, "nobody was asked");
        assert!(judgement().is_none());

        let wrong = UnixMillis::new(machine().get() + 86_400_000);
        for node in [2, 3] {
            heard(NodeId::new(node), wrong, Instant::now());
        }
        let found = judge();
        assert!(apart(now(), wrong) < 1000, "two of three have another time than this machine: {found:?}");
        assert!((found.own_ahead + 86_400_000).abs() < 1000);
        let system = system_time().duration_since(UNIX_EPOCH).unwrap();
        assert!(system.as_millis().abs_diff(u128::from(wrong.get())) < 1000);
        assert_eq!(judgement().unwrap(), found);

        for node in [2, 3] {
            forget(NodeId::new(node));
        }
        judge();
        assert!(apart(now(), machine()) < 1000, "nobody else is left");
    }
}
