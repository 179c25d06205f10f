//! What objects take from the machine below them, beside drives, links and the log: the time of day, and the chance
//! that names and places things. A simulation puts itself in their place for its own thread, so that one seed decides
//! everything that happens (docs/decisions/0032-cluster-simulated.md).
//!
//! Keys, nonces and salts are not among them: those come from the kernel, in a simulation too.

use std::{cell::RefCell, fmt, rc::Rc};

use holdfast_model::UnixMillis;

/// What stands in for the machine.
pub trait Host: fmt::Debug {
    /// The time of day.
    fn now(&self) -> UnixMillis;

    /// Fills `bytes` with what ids are made of and places are drawn by.
    fn fill(&self, bytes: &mut [u8]);
}

thread_local! {
    static HOST: RefCell<Option<Rc<dyn Host>>> = const { RefCell::new(None) };
}

/// Has `host` stand in for the machine on this thread, until it is put away with `None`.
pub fn simulate(host: Option<Rc<dyn Host>>) {
    HOST.set(host);
}

/// The time of day, as the cluster has it.
pub(crate) fn now() -> UnixMillis {
    if let Some(host) = HOST.with_borrow(Clone::clone) {
        return host.now();
    }
    holdfast_clock::now()
}

/// Bytes for ids and for the choice of places.
pub(crate) fn chance<const N: usize>() -> [u8; N] {
    let Some(host) = HOST.with_borrow(Clone::clone) else { return holdfast_crypt::random_array() };
    let mut bytes = [0; N];
    host.fill(&mut bytes);
    bytes
}
