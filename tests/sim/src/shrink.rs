//! Makes a plan that fails as small as it can be and still fail in the same way.

use std::io;

use crate::{
    plan::Plan,
    rig::Rig,
    run::{Outcome, run},
};

/// Runs that may be spent on it.
const RUNS_MAX: usize = 400;

/// Which oracle a violation is of.
#[must_use]
pub fn check_of(violation: &str) -> &str {
    violation.split(':').next().unwrap_or(violation)
}

/// Takes away faults, clients and what they ask while the same check fails. Returns what is left, and its outcome.
///
/// # Errors
/// As [`run`].
pub fn shrink(rig: &mut Option<Rig>, plan: &Plan, outcome: Outcome) -> io::Result<(Plan, Outcome)> {
    let check = outcome.violation.as_deref().map(check_of).unwrap_or_default().to_owned();
    let (mut best, mut kept, mut runs) = (plan.clone(), outcome, 0);
    loop {
        let mut smaller = false;
        for candidate in candidates(&best) {
            if runs == RUNS_MAX {
                return Ok((best, kept));
            }
            runs += 1;
            let outcome = run(rig, &candidate, false)?;
            if outcome.violation.as_deref().map(check_of) == Some(check.as_str()) {
                (best, kept, smaller) = (candidate, outcome, true);
                break;
            }
        }
        if !smaller {
            return Ok((best, kept));
        }
    }
}

/// Plans with less in them, those with much less first.
fn candidates(plan: &Plan) -> Vec<Plan> {
    let mut all = Vec::new();
    for client in 0..plan.clients.len() {
        let mut less = plan.clone();
        less.clients.remove(client);
        all.push(less);
    }
    for (from, to) in pieces(plan.faults.len()) {
        let mut less = plan.clone();
        less.faults.drain(from..to);
        all.push(less);
    }
    for client in 0..plan.clients.len() {
        for (from, to) in pieces(plan.clients[client].len()) {
            let mut less = plan.clone();
            less.clients[client].drain(from..to);
            all.push(less);
        }
    }
    for guest in 0..plan.guests.len() {
        let mut less = plan.clone();
        less.guests.remove(guest);
        all.push(less);
        for (from, to) in pieces(plan.guests[guest].len()) {
            let mut less = plan.clone();
            less.guests[guest].drain(from..to);
            all.push(less);
        }
    }
    if plan.day_later {
        all.push(Plan { day_later: false, ..plan.clone() });
    }
    if plan.tidy {
        all.push(Plan { tidy: false, ..plan.clone() });
    }
    all
}

/// Halves, quarters, and so on to single ones.
fn pieces(length: usize) -> Vec<(usize, usize)> {
    let (mut all, mut size) = (Vec::new(), length.div_ceil(2));
    while size > 0 && length > 0 {
        all.extend((0..length).step_by(size).map(|from| (from, (from + size).min(length))));
        size = if size == 1 { 0 } else { size.div_ceil(2) };
    }
    all
}
