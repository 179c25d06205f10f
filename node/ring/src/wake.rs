//! Ending a device's wait from another thread.

#![expect(unsafe_code, reason = "eventfd(2) has no wrapper in std")]

use std::{
    fmt,
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::Arc,
};

/// Ends the wait of the device it came from; clones do the same.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`, which must neither block nor panic.
    #[must_use]
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Ends the wait, or the next one when none is going on.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// An eventfd: a counter in the kernel that a ring can read like a file.
#[derive(Debug, Clone)]
pub(crate) struct Event(Arc<File>);

impl Event {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are involved.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is a descriptor just opened and owned by nothing else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(File::from(fd))))
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// A waker that adds one to the counter.
    pub(crate) fn waker(&self) -> Waker {
        let file = Arc::clone(&self.0);
        // The write fails only at a count of 2^64 - 2, when the reader is awake in any case.
        Waker::new(move || drop((&*file).write(&1u64.to_ne_bytes())))
    }
}
