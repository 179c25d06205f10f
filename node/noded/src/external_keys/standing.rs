//! What follows from the answers of one tenant's key service. Pure: time and chance are arguments.
//!
//! A refusal is the tenant's word: its key is forgotten at once. Silence is borne for the tenant's grace, counted from
//! the first question without an answer; then its key is forgotten as well. Whatever was forgotten is asked for again.

use std::time::{Duration, Instant};

use holdfast_external_keys::ServiceError;

/// How long after a question without an answer the next one is asked; doubled each time, up to the usual interval.
const RETRY: Duration = Duration::from_secs(1);

/// Part of the interval by which questions are spread, so that nodes do not ask all at once: one in so many.
const SPREAD: u32 = 10;

/// How patient the cluster is with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How often it is asked.
    pub interval: Duration,
    /// How long it may be silent.
    pub grace: Duration,
}

/// How a service stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Not asked yet.
    New,
    /// It allows its key.
    Allowed,
    /// It did not answer, or not sensibly; what it said last still counts while the grace lasts.
    Silent,
    /// It refuses.
    Refused,
}

/// What is to be done with the tenant's key in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing.
    Keep,
    /// It is forgotten.
    Forget,
}

/// One service and one tenant.
#[derive(Debug, Clone)]
pub struct Standing {
    /// How it stands.
    pub state: State,
    /// When the next question is due.
    pub due: Instant,
    /// Since when there has been no answer.
    pub silent_since: Option<Instant>,
    /// In a service's words, and ours, why it is not allowed.
    pub why: Option<String>,
    failures: u32,
}

impl Standing {
    /// Asks at once.
    pub fn new(now: Instant) -> Self {
        Self { state: State::New, due: now, silent_since: None, why: None, failures: 0 }
    }

    /// Takes an answer, or that there was none. `chance` is any number.
    pub fn heard(
        &mut self,
        now: Instant,
        patience: Patience,
        chance: u32,
        answer: Result<(), &ServiceError>,
    ) -> Action {
        let spread = patience.interval / SPREAD;
        let next = now + patience.interval - spread.mul_f64(f64::from(chance) / f64::from(u32::MAX));
        match answer {
            Ok(()) => {
                *self = Self { state: State::Allowed, due: next, silent_since: None, why: None, failures: 0 };
                Action::Keep
            }
            Err(error) if error.is_refusal() => {
                let why = Some(error.to_string());
                *self = Self { state: State::Refused, due: next, silent_since: None, why, failures: 0 };
                Action::Forget
            }
            Err(error) => {
                let since = *self.silent_since.get_or_insert(now);
                let end = since + patience.grace;
                let retry = RETRY.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                self.due = next.min(now + retry);
                // A refusal before it still counts: silence gives nothing back.
                if self.state != State::Refused {
                    self.state = State::Silent;
                }
                self.why = Some(error.to_string());
                if now >= end {
                    return Action::Forget;
                }
                self.due = self.due.min(end);
                Action::Keep
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { interval: Duration::from_secs(60), grace: Duration::from_secs(3600) };

    fn refused() -> ServiceError {
        ServiceError::Refused("403".into())
    }

    fn silent() -> ServiceError {
        ServiceError::Unreachable("no connection".into())
    }

    #[test]
    fn a_refusal_is_obeyed_at_once_and_asked_about_again() {
        let begun = Instant::now();
        let mut standing = Standing::new(begun);
        assert_eq!(standing.due, begun);
        assert_eq!(standing.heard(begun, PATIENCE, 0, Ok(())), Action::Keep);
        assert_eq!((standing.state.clone(), standing.due), (State::Allowed, begun + PATIENCE.interval));
        let later = begun + Duration::from_secs(60);
        assert_eq!(standing.heard(later, PATIENCE, 0, Err(&refused())), Action::Forget);
        assert_eq!((standing.state.clone(), standing.due), (State::Refused, later + PATIENCE.interval));
        assert_eq!(standing.heard(later, PATIENCE, 0, Err(&silent())), Action::Keep);
        assert_eq!(standing.state, State::Refused, "silence gives nothing back");
        assert_eq!(standing.heard(later, PATIENCE, 0, Ok(())), Action::Keep);
        assert_eq!(standing.state, State::Allowed);
    }

    #[test]
    fn silence_is_borne_for_the_grace_from_its_first_moment() {
        let mut now = Instant::now();
        let mut standing = Standing::new(now);
        standing.heard(now, PATIENCE, 0, Ok(()));
        now += Duration::from_secs(60);
        let since = now;
        let mut asked = 0;
        while standing.heard(now, PATIENCE, 0, Err(&silent())) == Action::Keep {
            assert!(standing.due > now && standing.due <= now + PATIENCE.interval);
            now = standing.due;
            asked += 1;
        }
        assert_eq!(now, since + PATIENCE.grace, "neither earlier nor later");
        assert!((60..80).contains(&asked), "{asked}");
        assert_eq!(standing.heard(now, PATIENCE, 0, Ok(())), Action::Keep);
        now += Duration::from_secs(60);
        assert_eq!(standing.heard(now, PATIENCE, 0, Err(&silent())), Action::Keep, "a new silence");
    }

    #[test]
    fn without_grace_the_first_silence_counts() {
        let now = Instant::now();
        let patience = Patience { grace: Duration::ZERO, ..PATIENCE };
        let mut standing = Standing::new(now);
        standing.heard(now, patience, 0, Ok(()));
        assert_eq!(standing.heard(now, patience, 0, Err(&silent())), Action::Forget);
        assert!(standing.due <= now + RETRY, "asked for again soon");
        let nonsense = ServiceError::Protocol("?".into());
        assert_eq!(standing.heard(now, patience, 0, Err(&nonsense)), Action::Forget);
    }

    #[test]
    fn nodes_do_not_ask_all_at_once() {
        let now = Instant::now();
        let mut standing = Standing::new(now);
        standing.heard(now, PATIENCE, u32::MAX, Ok(()));
        assert_eq!(standing.due, now + Duration::from_secs(54));
    }
}
