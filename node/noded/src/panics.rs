//! What a panic says: one line, and no backtrace.
//!
//! The standard library takes a lock to print a backtrace, for a panic as for an allocation that fails. Where the second
//! happens while it prints the first, which it does when memory runs out, the thread waits for itself, and with it
//! sooner or later everything else: a node that hangs, where one that ends would be started again.

use std::{io::Write, panic, thread};

/// Has every panic of this process say where and why, from here on.
pub fn say_where_and_why() {
    panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let name = thread.name().unwrap_or("without a name");
        let why = info.payload_as_str().unwrap_or("no reason given");
        let mut stderr = std::io::stderr().lock();
        // Nobody is left to be told when this fails.
        let _ = match info.location() {
            Some(at) => writeln!(stderr, "thread {name:?} panicked at {at}: {why}"),
            None => writeln!(stderr, "thread {name:?} panicked: {why}"),
        };
    }));
}
