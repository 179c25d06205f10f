//! When a group that stopped on this node starts again: after a pause that grows as long as it does not stay up.
//!
//! What stops a group while its files are whole is mostly something that passes: no space, no memory, no thread. Its machine
//! has rolled back what it was at, and skips what it holds when the log is applied to it once more.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use holdfast_model::GroupId;

/// The first pause.
pub const PAUSE_MIN: Duration = Duration::from_secs(5);

/// The longest: a disk that stays full is not tried more often.
pub const PAUSE_MAX: Duration = Duration::from_secs(300);

/// A group that ran for so long was well: the next pause is the first again.
const WELL_AFTER: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
struct Restart {
    pause: Duration,
    /// When it is due; `None` while the group runs.
    due: Option<Instant>,
    started: Option<Instant>,
}

/// All groups that stopped.
#[derive(Debug, Default)]
pub struct Restarts(BTreeMap<GroupId, Restart>);

impl Restarts {
    /// `group` has stopped, or could not be started. In how long it is to be tried again.
    pub fn stopped(&mut self, group: GroupId, now: Instant) -> Duration {
        let before = self.0.get(&group);
        let was_well = |before: &Restart| {
            before.started.is_some_and(|started| now.duration_since(started) >= WELL_AFTER)
        };
        let pause = match before {
            Some(before) if !was_well(before) => (before.pause * 2).min(PAUSE_MAX),
            _ => PAUSE_MIN,
        };
        self.0.insert(group, Restart { pause, due: Some(now + pause), started: None });
        pause
    }

    /// `group` runs.
    pub fn started(&mut self, group: GroupId, now: Instant) {
        if let Some(restart) = self.0.get_mut(&group) {
            restart.due = None;
            restart.started = Some(now);
        }
    }

    /// `group` is no more to be started by itself.
    pub fn forget(&mut self, group: GroupId) {
        self.0.remove(&group);
    }

    /// Those that are due.
    #[must_use]
    pub fn due(&self, now: Instant) -> Vec<GroupId> {
        let is_due = |restart: &Restart| restart.due.is_some_and(|due| due <= now);
        self.0.iter().filter(|(_, restart)| is_due(restart)).map(|(group, _)| *group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId::new(3);

    #[test]
    fn pauses_grow_until_a_group_stays_up() {
        let (mut restarts, mut now) = (Restarts::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..9 {
            let pause = restarts.stopped(GROUP, now);
            assert_eq!(restarts.due(now + pause - Duration::from_millis(1)), []);
            now += pause;
            assert_eq!(restarts.due(now), [GROUP]);
            restarts.started(GROUP, now);
            assert_eq!(restarts.due(now + PAUSE_MAX), [], "it runs");
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
        now += WELL_AFTER;
        assert_eq!(restarts.stopped(GROUP, now), PAUSE_MIN, "it was well");
    }

    #[test]
    fn one_that_cannot_be_started_waits_longer_each_time_and_others_are_their_own() {
        let (mut restarts, now) = (Restarts::default(), Instant::now());
        restarts.stopped(GROUP, now);
        assert_eq!(restarts.stopped(GROUP, now), PAUSE_MIN * 2);
        let other = GroupId::new(4);
        assert_eq!(restarts.stopped(other, now), PAUSE_MIN);
        assert_eq!(restarts.due(now + PAUSE_MIN), [other]);
        restarts.forget(other);
        assert_eq!(restarts.due(now + PAUSE_MAX), [GROUP]);
    }
}
