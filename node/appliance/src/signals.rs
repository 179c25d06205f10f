//! Signals as readable pipes, so that one `poll` waits for everything.
//!
//! Handlers are installed, nothing is blocked: children start with an ordinary signal state.

use std::{
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use signal_hook::{
    consts::{SIGCHLD, SIGINT, SIGTERM},
    low_level::pipe,
};

/// What a signal means to PID 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// A child ended.
    Reap,
    /// Switch the machine off.
    PowerOff,
    /// Start the machine anew.
    Restart,
}

/// The pipes.
#[derive(Debug)]
pub struct Signals {
    pipes: Vec<(Wish, UnixStream)>,
}

impl Signals {
    /// Installs the handlers.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn install() -> io::Result<Self> {
        let mut pipes = Vec::new();
        for (signal, wish) in [(SIGCHLD, Wish::Reap), (SIGTERM, Wish::PowerOff), (SIGINT, Wish::Restart)] {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            pipe::register(signal, writer)?;
            pipes.push((wish, reader));
        }
        Ok(Self { pipes })
    }

    /// Descriptors to wait on.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes.iter().map(|(_, pipe)| pipe.as_fd())
    }

    /// What has arrived since the last call, each wish once.
    pub fn take(&mut self) -> Vec<Wish> {
        let mut arrived = Vec::new();
        for (wish, pipe) in &mut self.pipes {
            let mut buffer = [0; 64];
            let mut any = false;
            while matches!(pipe.read(&mut buffer), Ok(1..)) {
                any = true;
            }
            if any {
                arrived.push(*wish);
            }
        }
        arrived
    }
}
