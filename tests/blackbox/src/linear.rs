//! Is a history of reads and writes linearizable? Each key is a register, judged on its own (linearizability
//! is local: Herlihy and Wing, "Linearizability", 1990, theorem 1).
//!
//! The search is that of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) with the memory
//! of states already tried that Lowe added ("Testing for Linearizability", 2017): operations are tried in
//! every order that their times allow, and a set of operations with the value it led to is never tried twice.
//!
//! An operation without an end may take effect at any time after its start, or never.
//!
//! Other things than registers are judged in the same way: see [`Deed`].

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Sets of operations remembered for one key at most; a history that needs more is not judged.
pub const STATES_MAX: usize = 4_000_000;

/// What operations do to the thing that a history is of.
pub trait Deed: Clone + PartialEq + fmt::Debug {
    /// What the thing holds; at first the default.
    type State: Clone + Eq + Hash + Default;

    /// Whether it may change what is held.
    fn changes(&self) -> bool;

    /// What is held after it. `None`: it cannot have been done, or seen what it saw, then.
    fn after(&self, held: &Self::State) -> Option<Self::State>;
}

/// What an operation did to a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Did {
    /// Wrote this value.
    Wrote(u64),
    /// Made that there is nothing.
    Removed,
    /// Found this value, or nothing.
    Found(Option<u64>),
    /// Wrote a value, because it found another one, or nothing.
    Swapped {
        /// What it found.
        from: Option<u64>,
        /// What it wrote.
        to: u64,
    },
    /// Found another value than this one, or than nothing.
    Missed(Option<u64>),
}

impl Deed for Did {
    type State = Option<u64>;

    fn changes(&self) -> bool {
        !matches!(self, Self::Found(_) | Self::Missed(_))
    }

    fn after(&self, held: &Option<u64>) -> Option<Option<u64>> {
        match *self {
            Self::Wrote(value) => Some(Some(value)),
            Self::Removed => Some(None),
            Self::Found(found) => (found == *held).then_some(found),
            Self::Swapped { from, to } => (from == *held).then_some(Some(to)),
            Self::Missed(wanted) => (held.is_some() && wanted != *held).then_some(*held),
        }
    }
}

/// One operation, with times on one clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<D = Did> {
    /// When it was sent.
    pub start: Duration,
    /// When its answer was there; `None` when there was none.
    pub end: Option<Duration>,
    /// What it did.
    pub did: D,
}

/// Why a history was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<D = Did> {
    /// No order of the operations explains what was seen.
    Violation {
        /// Operations that could be ordered, at most.
        explained: usize,
        /// Of so many.
        of: usize,
        /// The operations around the first that could not.
        around: Vec<Operation<D>>,
    },
    /// More than [`STATES_MAX`] sets of operations.
    TooLong,
}

impl<D: fmt::Debug> fmt::Display for Verdict<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violation { explained, of, around } => {
                writeln!(
                    f,
                    "not linearizable: {explained} of {of} operations have an order; around the next:"
                )?;
                for operation in around {
                    writeln!(f, "  {:?} .. {:?}: {:?}", operation.start, operation.end, operation.did)?;
                }
                Ok(())
            }
            Self::TooLong => write!(f, "not judged: more than {STATES_MAX} states"),
        }
    }
}

/// Operations shown on each side of the one that could not be explained.
const SHOWN: usize = 6;

/// Judges the operations on one thing, in any order. It holds nothing at first.
///
/// # Errors
/// [`Verdict`].
pub fn check<D: Deed>(operations: &[Operation<D>]) -> Result<(), Verdict<D>> {
    Search::new(operations).run()
}

/// A call or a return, in the order of time.
#[derive(Debug, Clone, Copy)]
struct Event {
    operation: usize,
    is_return: bool,
    /// The matching return, for a call.
    pair: usize,
}

struct Search<D: Deed> {
    operations: Vec<Operation<D>>,
    events: Vec<Event>,
    /// Linked list over `events`; its head is the last index of each.
    next: Vec<usize>,
    previous: Vec<usize>,
    /// One bit for each operation that has its place in the order.
    done: Vec<u64>,
    /// Operations that had an answer and have no place in the order yet.
    answered: usize,
}

impl<D: Deed> Search<D> {
    fn new(operations: &[Operation<D>]) -> Self {
        // A read without an answer saw nothing and changed nothing.
        let known = |operation: &&Operation<D>| operation.end.is_some() || operation.did.changes();
        let operations: Vec<Operation<D>> = operations.iter().filter(known).cloned().collect();
        let mut times: Vec<(Duration, bool, usize)> = Vec::with_capacity(operations.len() * 2);
        for (at, operation) in operations.iter().enumerate() {
            times.push((operation.start, false, at));
            times.push((operation.end.unwrap_or(Duration::MAX), true, at));
        }
        // At one moment calls come first: what touches overlaps.
        times.sort_unstable();
        let mut events: Vec<Event> = times
            .iter()
            .map(|&(_, is_return, operation)| Event { operation, is_return, pair: usize::MAX })
            .collect();
        let mut calls = vec![0; operations.len()];
        for at in 0..events.len() {
            let Event { operation, is_return, .. } = events[at];
            if is_return {
                events[calls[operation]].pair = at;
            } else {
                calls[operation] = at;
            }
        }
        let count = events.len();
        let next = (0..=count).map(|at| if at == count { 0 } else { at + 1 }).collect();
        let previous = (0..=count).map(|at| if at == 0 { count } else { at - 1 }).collect();
        let done = vec![0; operations.len().div_ceil(64)];
        let answered = operations.iter().filter(|operation| operation.end.is_some()).count();
        Self { operations, events, next, previous, done, answered }
    }

    fn run(mut self) -> Result<(), Verdict<D>> {
        let head = self.events.len();
        let mut seen: HashSet<(Vec<u64>, D::State)> = HashSet::new();
        // The order so far, and for each write in it: what was held before, and where it stands.
        let mut order: Vec<usize> = Vec::new();
        let mut writes: Vec<(usize, D::State, usize)> = Vec::new();
        let mut held = D::State::default();
        let (mut explained, mut stuck_at) = (0, 0);
        let mut at = self.next[head];
        loop {
            // A read that fits now may as well be the next: it changes nothing for the others.
            let fits = |did: &D| !did.changes() && did.after(&held).is_some();
            while let Some(read) = self.first_call(self.next[head], fits) {
                self.take(read);
                order.push(read);
                at = self.next[head];
            }
            // What is left had no answer, and need not have been done.
            if self.answered == 0 {
                return Ok(());
            }
            let mut candidate = None;
            let mut from = at;
            while let Some(write) = self.first_call(from, D::changes) {
                if let Some(after) = self.did(write).after(&held)
                    && self.is_new(write, &after, &mut seen)
                {
                    candidate = Some((write, after));
                    break;
                }
                from = self.next[write];
            }
            if seen.len() > STATES_MAX {
                return Err(Verdict::TooLong);
            }
            if let Some((write, after)) = candidate {
                writes.push((write, std::mem::replace(&mut held, after), order.len()));
                self.take(write);
                order.push(write);
                at = self.next[head];
                continue;
            }
            if order.len() >= explained {
                (explained, stuck_at) = (order.len(), self.events[self.next[head]].operation);
            }
            // Nothing fits before the next return: the last choice of a write was wrong.
            let Some((write, before, length)) = writes.pop() else {
                return Err(self.violation(explained, stuck_at));
            };
            while order.len() > length {
                let call = order.pop().expect("it is longer than that");
                self.put_back(call);
            }
            held = before;
            at = self.next[write];
        }
    }

    /// The first call from `at` on that does what is wanted and starts before anything that is left ends.
    fn first_call(&self, mut at: usize, wanted: impl Fn(&D) -> bool) -> Option<usize> {
        let head = self.events.len();
        while at != head && !self.events[at].is_return {
            if wanted(self.did(at)) {
                return Some(at);
            }
            at = self.next[at];
        }
        None
    }

    fn did(&self, call: usize) -> &D {
        &self.operations[self.events[call].operation].did
    }

    /// Whether this write after those operations was not tried yet; notes it.
    fn is_new(&self, write: usize, after: &D::State, seen: &mut HashSet<(Vec<u64>, D::State)>) -> bool {
        let operation = self.events[write].operation;
        let mut done = self.done.clone();
        done[operation / 64] |= 1 << (operation % 64);
        seen.insert((done, after.clone()))
    }

    /// Takes a call and its return out of the list.
    fn take(&mut self, call: usize) {
        let Event { operation, pair, .. } = self.events[call];
        self.done[operation / 64] |= 1 << (operation % 64);
        self.answered -= usize::from(self.operations[operation].end.is_some());
        for at in [call, pair] {
            let (previous, next) = (self.previous[at], self.next[at]);
            self.next[previous] = next;
            self.previous[next] = previous;
        }
    }

    /// Undoes the last `take` of this call.
    fn put_back(&mut self, call: usize) {
        let Event { operation, pair, .. } = self.events[call];
        self.done[operation / 64] &= !(1 << (operation % 64));
        self.answered += usize::from(self.operations[operation].end.is_some());
        for at in [pair, call] {
            let (previous, next) = (self.previous[at], self.next[at]);
            self.next[previous] = at;
            self.previous[next] = at;
        }
    }

    fn violation(&self, explained: usize, stuck_at: usize) -> Verdict<D> {
        let mut by_start = self.operations.clone();
        by_start.sort_by_key(|operation| operation.start);
        let stuck = &self.operations[stuck_at];
        let at = by_start.iter().position(|operation| operation == stuck).unwrap_or_default();
        let around = by_start[at.saturating_sub(SHOWN)..by_start.len().min(at + SHOWN)].to_vec();
        Verdict::Violation { explained, of: self.operations.len(), around }
    }
}

/// Gathers what many clients do to many keys.
#[derive(Debug, Clone)]
pub struct Recorder {
    begun: Instant,
    histories: Arc<Mutex<BTreeMap<String, Vec<Operation>>>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self { begun: Instant::now(), histories: Arc::default() }
    }
}

impl Recorder {
    /// The time, for `start` and `end`.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Notes an operation that ended.
    pub fn note(&self, key: &str, operation: Operation) {
        self.histories.lock().entry(key.to_owned()).or_default().push(operation);
    }

    /// How many operations were noted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.histories.lock().values().map(Vec::len).sum()
    }

    /// Judges every key; returns those that are not linearizable, with why.
    #[must_use]
    pub fn judge(&self) -> Vec<(String, Verdict)> {
        let histories = self.histories.lock();
        histories.iter().filter_map(|(key, history)| Some((key.clone(), check(history).err()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(start: u64, end: impl Into<Option<u64>>, did: Did) -> Operation {
        Operation { start: Duration::from_secs(start), end: end.into().map(Duration::from_secs), did }
    }

    use Did::{Found, Missed, Removed, Swapped, Wrote};

    #[test]
    fn of_two_that_want_nothing_to_be_there_one_wins() {
        let first = |to| Swapped { from: None, to };
        assert_eq!(check(&[op(0, 5, first(1)), op(0, 5, Missed(None)), op(6, 7, Found(Some(1)))]), Ok(()));
        assert!(check(&[op(0, 5, first(1)), op(0, 5, first(2))]).is_err(), "both won");
        assert!(check(&[op(0, 1, Missed(None))]).is_err(), "nothing was there");
        assert!(check(&[op(0, 1, Wrote(1)), op(2, 3, Missed(Some(1)))]).is_err(), "it was as wanted");
    }

    #[test]
    fn a_conditional_write_without_an_answer_may_never_have_been_possible() {
        let swap = op(2, None, Swapped { from: Some(1), to: 2 });
        assert_eq!(check(&[op(0, 1, Wrote(3)), swap, op(4, 5, Found(Some(3)))]), Ok(()));
        assert_eq!(check(&[op(0, 1, Wrote(1)), swap, op(4, 5, Found(Some(2)))]), Ok(()));
        assert!(check(&[op(0, 1, Wrote(3)), swap, op(4, 5, Found(Some(2)))]).is_err());
    }

    #[test]
    fn what_was_removed_is_gone_and_may_come_again() {
        let history = [op(0, 1, Wrote(1)), op(2, 3, Removed), op(4, 5, Found(None)), op(6, 7, Wrote(1))];
        assert_eq!(check(&history), Ok(()));
        let back = [op(0, 1, Wrote(1)), op(2, 3, Removed), op(4, 5, Found(Some(1)))];
        assert!(check(&back).is_err(), "what was removed came back");
        let late =
            [op(0, 1, Wrote(1)), op(2, None, Removed), op(4, 5, Found(Some(1))), op(6, 7, Found(None))];
        assert_eq!(check(&late), Ok(()));
    }

    #[test]
    fn what_one_client_does_in_turn_must_agree() {
        assert_eq!(check::<Did>(&[]), Ok(()));
        assert_eq!(check(&[op(0, 1, Found(None))]), Ok(()));
        let right =
            [op(0, 1, Wrote(1)), op(2, 3, Found(Some(1))), op(4, 5, Wrote(2)), op(6, 7, Found(Some(2)))];
        assert_eq!(check(&right), Ok(()));
        let stale = [op(0, 1, Wrote(1)), op(2, 3, Wrote(2)), op(4, 5, Found(Some(1)))];
        assert!(matches!(check(&stale), Err(Verdict::Violation { .. })));
        let lost = [op(0, 1, Wrote(1)), op(2, 3, Found(None))];
        assert!(check(&lost).is_err());
        let invented = [op(0, 1, Wrote(1)), op(2, 3, Found(Some(9)))];
        assert!(check(&invented).is_err());
    }

    #[test]
    fn what_overlaps_may_come_in_either_order_but_in_one_only() {
        let both = [op(0, 10, Wrote(1)), op(0, 10, Wrote(2)), op(11, 12, Found(Some(1)))];
        assert_eq!(check(&both), Ok(()));
        let during = [op(0, 10, Wrote(1)), op(1, 2, Found(None)), op(3, 4, Found(Some(1)))];
        assert_eq!(check(&during), Ok(()));
        let back = [op(0, 10, Wrote(1)), op(1, 2, Found(Some(1))), op(3, 4, Found(None))];
        assert!(check(&back).is_err(), "a read went back in time");
        // Two readers see two writes in opposite orders.
        let split = [
            op(0, 1, Wrote(1)),
            op(0, 1, Wrote(2)),
            op(2, 3, Found(Some(1))),
            op(4, 5, Found(Some(2))),
            op(6, 7, Found(Some(1))),
        ];
        assert!(check(&split).is_err());
    }

    #[test]
    fn a_write_without_an_answer_may_take_effect_later_or_never_but_not_come_and_go() {
        let never = [op(0, 1, Wrote(1)), op(2, None, Wrote(2)), op(5, 6, Found(Some(1)))];
        assert_eq!(check(&never), Ok(()));
        let later =
            [op(0, 1, Wrote(1)), op(2, None, Wrote(2)), op(5, 6, Found(Some(1))), op(50, 60, Found(Some(2)))];
        assert_eq!(check(&later), Ok(()));
        let gone =
            [op(0, 1, Wrote(1)), op(2, None, Wrote(2)), op(5, 6, Found(Some(2))), op(7, 8, Found(Some(1)))];
        assert!(check(&gone).is_err());
        let early = [op(0, 1, Found(Some(2))), op(2, None, Wrote(2))];
        assert!(check(&early).is_err(), "seen before it was sent");
        assert_eq!(check(&[op(0, None, Found(Some(7)))]), Ok(()), "a read without an answer says nothing");
    }

    /// Tries every order.
    fn brute_force(operations: &[Operation]) -> bool {
        fn explore(left: &mut Vec<Operation>, value: Option<u64>) -> bool {
            if left.iter().all(|operation| operation.end.is_none()) {
                return true;
            }
            for at in 0..left.len() {
                let first = left[at];
                let blocked = left.iter().any(|other| other.end.is_some_and(|end| end < first.start));
                let Some(after) = first.did.after(&value) else { continue };
                if blocked {
                    continue;
                }
                let operation = left.remove(at);
                let found = explore(left, after);
                left.insert(at, operation);
                if found {
                    return true;
                }
            }
            false
        }
        let known = |operation: &&Operation| operation.end.is_some() || !matches!(operation.did, Found(_));
        explore(&mut operations.iter().filter(known).copied().collect(), None)
    }

    #[test]
    fn the_search_agrees_with_trying_every_order() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let (mut accepted, mut refused) = (0, 0);
        for round in 0..3_000 {
            let operations: Vec<Operation> = (0..draw(7) + 1)
                .map(|number| {
                    let start = draw(12);
                    let end = (draw(6) > 0).then(|| start + 1 + draw(6));
                    let did = match draw(8) {
                        0..3 => Wrote(number),
                        3 => Removed,
                        4 => Swapped { from: draw(8).checked_sub(1), to: number },
                        5 => Missed(draw(8).checked_sub(1)),
                        _ => Found(draw(8).checked_sub(1)),
                    };
                    op(start, end, did)
                })
                .collect();
            let expected = brute_force(&operations);
            assert_eq!(check(&operations).is_ok(), expected, "round {round}: {operations:#?}");
            if expected { accepted += 1 } else { refused += 1 }
        }
        assert!(accepted > 300 && refused > 300, "{accepted} accepted, {refused} refused");
    }

    #[test]
    fn long_histories_of_many_clients_are_judged() {
        // Each overlaps with a dozen others and takes effect in its middle.
        let mut operations = Vec::new();
        let mut value = None;
        for at in 0..4_000_u64 {
            let did = if at % 3 == 0 { Wrote(at) } else { Found(value) };
            if let Wrote(written) = did {
                value = Some(written);
            }
            operations.push(op((2 * at).saturating_sub(6), 2 * at + 7, did));
        }
        assert_eq!(check(&operations), Ok(()));
        let Some(last) = operations.iter_mut().rev().find(|operation| matches!(operation.did, Found(_)))
        else {
            panic!("no read")
        };
        last.did = Found(Some(0));
        assert!(matches!(check(&operations), Err(Verdict::Violation { of: 4_000, .. })));
    }
}
