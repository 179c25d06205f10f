//! Delays after failed logins, by user and address, and by address alone.
//!
//! Pure: time is an argument. An attempt counts as failed from its start, so that many at once are held back
//! as one after the other; success clears the pair.
//!
//! Invariants:
//! - at most [`ENTRIES_MAX`] are remembered: a full table forgets what has expired, then the oldest;
//! - nobody is locked out for longer than [`DELAY_MAX`] after their last attempt; a refused attempt does not
//!   count.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Failures of one user from one address that cost nothing.
const FREE_FAILURES_PAIR: u32 = 3;
/// Failures from one address, whoever the user, that cost nothing.
const FREE_FAILURES_ADDRESS: u32 = 20;
/// Delay after the first failure that is not free; doubles with each further one.
const DELAY_FIRST: Duration = Duration::from_secs(2);
/// Longest delay.
const DELAY_MAX: Duration = Duration::from_secs(300);
/// Failures are forgotten after this long without another.
const MEMORY: Duration = Duration::from_secs(900);
/// Remembered pairs and addresses.
const ENTRIES_MAX: usize = 4096;

const _: () = assert!(DELAY_MAX.as_secs() < MEMORY.as_secs());

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pair(String, IpAddr),
    Address(IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Instant,
    blocked_until: Instant,
}

/// Failed logins of late.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: HashMap<Key, Failures>,
}

impl Backoff {
    /// Counts an attempt, or tells how long to wait before the next.
    pub(crate) fn begin(&mut self, user: &str, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let keys = keys(user, address);
        let wait = keys
            .iter()
            .filter_map(|(key, _)| self.failures.get(key))
            .map(|failures| failures.blocked_until.saturating_duration_since(now))
            .max()
            .unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        for (key, free) in keys {
            self.count(key, free, now);
        }
        Ok(())
    }

    /// The attempt was good: the pair starts anew, the address gets its attempt back.
    pub(crate) fn succeeded(&mut self, user: &str, address: IpAddr) {
        let [(pair, _), (address, _)] = keys(user, address);
        self.failures.remove(&pair);
        if let Some(failures) = self.failures.get_mut(&address) {
            failures.count = failures.count.saturating_sub(1);
            failures.blocked_until = failures.last;
        }
    }

    fn count(&mut self, key: Key, free: u32, now: Instant) {
        if self.failures.len() >= ENTRIES_MAX && !self.failures.contains_key(&key) {
            self.make_room(now);
        }
        let entry = self.failures.entry(key).or_insert(Failures { count: 0, last: now, blocked_until: now });
        if now.saturating_duration_since(entry.last) > MEMORY {
            entry.count = 0;
        }
        entry.count = entry.count.saturating_add(1);
        entry.last = now;
        entry.blocked_until = now + delay(entry.count, free);
    }

    fn make_room(&mut self, now: Instant) {
        self.failures.retain(|_, failures| now.saturating_duration_since(failures.last) <= MEMORY);
        if self.failures.len() >= ENTRIES_MAX {
            let oldest =
                self.failures.iter().min_by_key(|(_, failures)| failures.last).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                self.failures.remove(&oldest);
            }
        }
    }
}

fn keys(user: &str, address: IpAddr) -> [(Key, u32); 2] {
    let address = network(address);
    [
        (Key::Pair(user.to_owned(), address), FREE_FAILURES_PAIR),
        (Key::Address(address), FREE_FAILURES_ADDRESS),
    ]
}

/// IPv6 clients own a /64 and would otherwise have 2^64 tries.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

fn delay(count: u32, free: u32) -> Duration {
    match count.checked_sub(free) {
        None | Some(0) => Duration::ZERO,
        Some(paid) => DELAY_FIRST.saturating_mul(1 << (paid - 1).min(16)).min(DELAY_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn delays_double_after_the_free_failures_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..14 {
            match backoff.begin("admin", address(1), now) {
                Ok(()) => {}
                Err(wait) => {
                    waits.push(wait.as_secs());
                    now += wait;
                    backoff.begin("admin", address(1), now).unwrap();
                }
            }
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn success_clears_the_pair_and_others_were_never_held_back() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        while backoff.begin("admin", address(1), now).is_ok() {}
        assert!(backoff.begin("admin", address(2), now).is_ok());
        assert!(backoff.begin("eve", address(1), now).is_ok());
        backoff.succeeded("admin", address(1));
        assert!(backoff.begin("admin", address(1), now).is_ok());
    }

    #[test]
    fn guessing_names_from_one_address_is_held_back_too() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        let tried = (0..1000).filter(|n| backoff.begin(&format!("user{n}"), address(1), now).is_ok()).count();
        assert_eq!(tried, FREE_FAILURES_ADDRESS as usize + 1);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_and_mapped_ones_are_ipv4() {
        let net = |text: &str| network(text.parse().unwrap());
        assert_eq!(net("2001:db8::1"), net("2001:db8::ffff:1"));
        assert_ne!(net("2001:db8::1"), net("2001:db8:0:1::1"));
        assert_eq!(net("::ffff:10.0.0.1"), net("10.0.0.1"));
    }

    #[test]
    fn failures_are_forgotten_and_the_table_stays_bounded() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        while backoff.begin("admin", address(1), now).is_ok() {}
        assert!(backoff.begin("admin", address(1), now + MEMORY + DELAY_MAX).is_ok());
        for n in 0..10_000 {
            let _ = backoff.begin("admin", address(n), now);
        }
        assert!(backoff.failures.len() <= ENTRIES_MAX);
    }
}
