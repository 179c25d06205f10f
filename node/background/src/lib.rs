//! Threads for work that nobody waits for and that computes for long: digests, copies of databases.
//!
//! A request passes through a dozen threads on its way. Beside threads that compute without a pause, each of these
//! steps may wait for a whole time slice (Linux gives 3 ms), so that a few such threads cost every client a tenth of a
//! second. These here are *nice*: whoever else wakes up runs at once.
//!
//! They are not idle altogether: on a machine that is busy for hours they still get on, because what they read may
//! have to be kept for them until they are done.

#![forbid(unsafe_code)]

use std::{io, thread};

use rustix::process::setpriority_process;

/// Nice value of background threads: a tenth of an ordinary thread's weight (sched(7)).
const NICE: i32 = 10;

/// Runs `work` on a background thread of its own, called `name` (15 bytes at most are shown by tools).
///
/// # Errors
/// The thread could not be started.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let yielding = move || {
        // Without a process id it is for the calling thread alone, and to be nicer needs no privilege.
        // Should it fail, the work is done all the same.
        let _ = setpriority_process(None, NICE);
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(yielding).map(drop)
}

/// As [`spawn`], for asynchronous callers; returns what `work` did. It goes on when the caller stops waiting.
///
/// # Errors
/// The thread could not be started, or `work` panicked.
pub async fn run<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    spawn(name, move || drop(done.send(work())))?;
    result.await.map_err(|_| io::Error::other(format!("the thread {name} panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    #[tokio::test]
    async fn only_the_thread_itself_is_nice() {
        let before = getpriority_process(None).unwrap();
        let of_thread = run("nice", || getpriority_process(None).unwrap()).await.unwrap();
        assert_eq!(of_thread, NICE);
        assert_eq!(getpriority_process(None).unwrap(), before);
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let error = run("panics", || panic!("on purpose")).await.unwrap_err();
        assert!(error.to_string().contains("panics"), "{error}");
    }
}
