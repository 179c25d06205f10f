//! Bugs planted on purpose, to prove that the simulation of the cluster can fail.
//!
//! Code under test asks [`is`] where it could be wrong. Without the feature `planted` the answer is `false`, known at
//! compile time, and nothing of the bug is left in the program. No package of the workspace turns the feature on: it
//! is given on the command line of the one build that plants them.

#![forbid(unsafe_code)]

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Whether the bug of this name is planted on this thread.
#[cfg(feature = "planted")]
#[must_use]
pub fn is(name: &str) -> bool {
    PLANTED.get().is_some_and(|planted| planted == name)
}

/// Whether the bug of this name is planted: never.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline(always)]
pub const fn is(_: &str) -> bool {
    false
}

/// Plants a bug on this thread in place of the one that was there. Without the feature this does nothing.
pub fn plant(name: Option<&'static str>) {
    #[cfg(feature = "planted")]
    PLANTED.set(name);
    #[cfg(not(feature = "planted"))]
    let _ = name;
}

/// Whether bugs can be planted in this build.
pub const CAN_PLANT: bool = cfg!(feature = "planted");
