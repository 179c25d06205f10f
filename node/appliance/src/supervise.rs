//! When to start the role, when to stop it, when to give up waiting. Pure: an event and the time in,
//! actions out.
//!
//! Invariants:
//! - at most one child exists at any time;
//! - after `Stop` the machine finishes within `STOP_GRACE + KILL_GRACE`, whatever the child does.

use std::time::Duration;

/// First pause before a restart; doubles with each early death.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Longest pause before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A child that lived this long was healthy: the next pause is the shortest again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);
/// Time a child has to end by itself.
pub const STOP_GRACE: Duration = Duration::from_secs(20);
/// Time the kernel has to bury it after that. A process stuck in a dead device never ends.
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// How the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Switch off.
    PowerOff,
    /// Start anew.
    Restart,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Time passed.
    Tick,
    /// The child runs.
    Started(i32),
    /// The child could not be started.
    StartFailed,
    /// A process ended; it may be any orphan.
    Exited(i32),
    /// Someone wants the machine to end.
    Stop(Goal),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the child; answer with `Started` or `StartFailed`.
    Start,
    /// Ask it to end.
    Terminate(i32),
    /// End it and its group.
    Kill(i32),
    /// End the machine.
    Finish(Goal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Duration },
    Starting,
    Running { pid: i32, since: Duration },
    Stopping { pid: i32, goal: Goal, until: Duration, killed: bool },
    Finished,
}

/// The supervisor of one child.
#[derive(Debug)]
pub struct Supervisor {
    state: State,
    backoff: Duration,
}

impl Supervisor {
    /// Will start the child at the first tick.
    pub fn new() -> Self {
        Self { state: State::Waiting { until: Duration::ZERO }, backoff: BACKOFF_MIN }
    }

    /// When the next tick is due, if time alone changes anything.
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Waiting { until } | State::Stopping { until, .. } => Some(until),
            State::Starting | State::Running { .. } | State::Finished => None,
        }
    }

    /// Is this process the child?
    pub fn is_child(&self, candidate: i32) -> bool {
        matches!(self.state, State::Running { pid, .. } | State::Stopping { pid, .. } if pid == candidate)
    }

    /// Time until the next start, when waiting for one.
    pub fn pause(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Waiting { until } => Some(until.saturating_sub(now)),
            _ => None,
        }
    }

    /// Advances by one event at monotonic time `now`.
    pub fn step(&mut self, now: Duration, event: Event) -> Option<Action> {
        match (self.state, event) {
            (State::Waiting { until }, Event::Tick) if now >= until => {
                self.state = State::Starting;
                Some(Action::Start)
            }
            (State::Starting, Event::Started(pid)) => {
                self.state = State::Running { pid, since: now };
                None
            }
            (State::Starting, Event::StartFailed) => self.wait(now),
            (State::Running { pid, since }, Event::Exited(ended)) if ended == pid => {
                if now.saturating_sub(since) >= HEALTHY_AFTER {
                    self.backoff = BACKOFF_MIN;
                }
                self.wait(now)
            }
            (State::Running { pid, .. }, Event::Stop(goal)) => {
                self.state = State::Stopping { pid, goal, until: now + STOP_GRACE, killed: false };
                Some(Action::Terminate(pid))
            }
            (State::Waiting { .. } | State::Starting, Event::Stop(goal)) => self.finish(goal),
            (State::Stopping { pid, goal, .. }, Event::Exited(ended)) if ended == pid => self.finish(goal),
            (State::Stopping { goal, until, killed: true, .. }, Event::Tick) if now >= until => {
                self.finish(goal)
            }
            (State::Stopping { pid, goal, until, killed: false }, Event::Tick) if now >= until => {
                self.state = State::Stopping { pid, goal, until: now + KILL_GRACE, killed: true };
                Some(Action::Kill(pid))
            }
            _ => None,
        }
    }

    fn wait(&mut self, now: Duration) -> Option<Action> {
        self.state = State::Waiting { until: now + self.backoff };
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        None
    }

    fn finish(&mut self, goal: Goal) -> Option<Action> {
        self.state = State::Finished;
        Some(Action::Finish(goal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn running(pid: i32, now: Duration) -> Supervisor {
        let mut supervisor = Supervisor::new();
        assert_eq!(supervisor.step(now, Event::Tick), Some(Action::Start));
        assert_eq!(supervisor.step(now, Event::Started(pid)), None);
        supervisor
    }

    /// Lets the child die `lifetime` after each start; returns the pause before each new start.
    fn pauses(deaths: usize, lifetime: Duration) -> Vec<Duration> {
        let mut supervisor = Supervisor::new();
        let mut now = s(100);
        let mut seen = Vec::new();
        for pid in 0..deaths as i32 {
            assert_eq!(supervisor.step(now, Event::Tick), Some(Action::Start));
            assert_eq!(supervisor.step(now, Event::Started(pid)), None);
            now += lifetime;
            assert_eq!(supervisor.step(now, Event::Exited(pid)), None);
            seen.push(supervisor.pause(now).unwrap());
            now = supervisor.deadline().unwrap();
        }
        seen
    }

    #[test]
    fn a_child_that_keeps_dying_is_restarted_ever_more_slowly() {
        let pauses = pauses(10, s(1));
        assert_eq!(pauses[0], BACKOFF_MIN);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[9], BACKOFF_MAX);
    }

    #[test]
    fn a_child_that_lived_long_is_restarted_at_once() {
        assert_eq!(pauses(4, HEALTHY_AFTER), [BACKOFF_MIN; 4]);
    }

    #[test]
    fn no_start_before_the_pause_is_over() {
        let mut supervisor = running(7, s(0));
        supervisor.step(s(1), Event::Exited(7));
        assert_eq!(supervisor.step(s(1), Event::Tick), None);
        assert_eq!(supervisor.step(s(1) + BACKOFF_MIN, Event::Tick), Some(Action::Start));
    }

    #[test]
    fn the_death_of_an_orphan_changes_nothing() {
        let mut supervisor = running(7, s(0));
        assert_eq!(supervisor.step(s(1), Event::Exited(8)), None);
        assert_eq!(supervisor.deadline(), None);
    }

    #[test]
    fn a_stop_waits_for_the_child() {
        let mut supervisor = running(7, s(0));
        assert_eq!(supervisor.step(s(1), Event::Stop(Goal::PowerOff)), Some(Action::Terminate(7)));
        assert_eq!(supervisor.step(s(2), Event::Stop(Goal::PowerOff)), None, "asked twice, told once");
        assert_eq!(supervisor.step(s(3), Event::Exited(7)), Some(Action::Finish(Goal::PowerOff)));
        assert_eq!(supervisor.step(s(4), Event::Tick), None);
    }

    #[test]
    fn a_child_that_never_ends_does_not_stop_the_stop() {
        let mut supervisor = running(7, s(0));
        supervisor.step(s(1), Event::Stop(Goal::Restart));
        let kill_at = supervisor.deadline().unwrap();
        assert_eq!(kill_at, s(1) + STOP_GRACE);
        assert_eq!(supervisor.step(kill_at, Event::Tick), Some(Action::Kill(7)));
        let end_at = supervisor.deadline().unwrap();
        assert_eq!(supervisor.step(end_at, Event::Tick), Some(Action::Finish(Goal::Restart)));
        assert_eq!(end_at, s(1) + STOP_GRACE + KILL_GRACE);
    }

    #[test]
    fn a_stop_between_two_lives_is_immediate() {
        let mut supervisor = running(7, s(0));
        supervisor.step(s(1), Event::Exited(7));
        assert_eq!(supervisor.step(s(1), Event::Stop(Goal::PowerOff)), Some(Action::Finish(Goal::PowerOff)));
    }
}
