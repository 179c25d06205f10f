//! The virtual switch: one thread that joins the guests' `stream` network devices.
//!
//! Every node has a listening socket of its own, so a connection says by itself which port it is. A
//! guest that ends and comes back takes its port again. QEMU of Debian 12 does not reconnect by itself:
//! the switch must be there before the guests, and must outlive them.
//!
//! On the wire: length of the frame, 4 bytes big-endian, then the frame (QEMU net/stream.c).

mod core;

use std::{
    io::{self, Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::core::{Core, Counters, Delivery, LinkFault, Port};

/// QEMU's own limit for a frame with its offload header.
const FRAME_SIZE_MAX: usize = 4096 + 65_536;
/// Bytes that may wait for a guest that does not read; beyond that, frames to it are lost.
const QUEUE_BYTES_MAX: usize = 4 << 20;
const READ_SIZE: usize = 256 << 10;
/// Longest sleep: a stop is noticed through its own descriptor, this is only a safety net.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// A running switch. Dropping it ends the thread and removes the sockets.
#[derive(Debug)]
pub struct Switch {
    core: Arc<Mutex<Core>>,
    sockets: Vec<PathBuf>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Switch {
    /// Starts a switch with one port per socket path.
    ///
    /// # Errors
    /// When a socket cannot be created.
    pub fn start(sockets: &[PathBuf], seed: u64) -> io::Result<Self> {
        let mut ports = Vec::new();
        for path in sockets {
            ports.push(PortState::listen(path)?);
        }
        let core = Arc::new(Mutex::new(Core::new(ports.len(), seed)));
        let (wake, waker) = UnixStream::pair()?;
        let shared = Arc::clone(&core);
        let thread =
            thread::Builder::new().name("switch".to_owned()).spawn(move || run(ports, &shared, &waker))?;
        Ok(Self { core, sockets: sockets.to_vec(), wake, thread: Some(thread) })
    }

    /// Socket of a port.
    pub fn socket(&self, port: Port) -> &Path {
        &self.sockets[port]
    }

    /// The switch's settings and counters.
    pub fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Closing one end makes the other readable, which ends the thread.
        self.wake.shutdown(std::net::Shutdown::Both).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
        for path in &self.sockets {
            std::fs::remove_file(path).ok();
        }
    }
}

/// The core is only ever changed by calls that leave it whole.
fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

struct PortState {
    listener: UnixListener,
    guest: Option<UnixStream>,
    /// Bytes read that are not a whole frame yet.
    input: Vec<u8>,
    /// Whole frames to write; the first `written` bytes are gone.
    output: Vec<u8>,
    written: usize,
}

impl PortState {
    fn listen(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, guest: None, input: Vec::new(), output: Vec::new(), written: 0 })
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).is_ok() {
                self.disconnect();
                self.guest = Some(stream);
            }
        }
    }

    fn disconnect(&mut self) {
        self.guest = None;
        self.input.clear();
        self.output.clear();
        self.written = 0;
    }

    /// Reads once; `false` when the guest is gone.
    fn fill(&mut self, buffer: &mut [u8]) -> bool {
        let Some(guest) = &mut self.guest else { return true };
        match guest.read(buffer) {
            Ok(0) => false,
            Ok(length) => {
                self.input.extend_from_slice(&buffer[..length]);
                true
            }
            Err(error) => is_patience(&error),
        }
    }

    fn enqueue(&mut self, frame: &[u8]) {
        let waiting = self.output.len() - self.written;
        if self.guest.is_none() || waiting + frame.len() > QUEUE_BYTES_MAX {
            return;
        }
        let length = u32::try_from(frame.len()).expect("frames are at most FRAME_SIZE_MAX long");
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(frame);
    }

    /// Writes what the guest takes; `false` when it is gone.
    fn flush(&mut self) -> bool {
        let Some(guest) = &mut self.guest else { return true };
        while self.written < self.output.len() {
            match guest.write(&self.output[self.written..]) {
                Ok(0) => return false,
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_patience(&error) => break,
                Err(_) => return false,
            }
        }
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        } else if self.written > QUEUE_BYTES_MAX / 2 {
            self.output.drain(..self.written);
            self.written = 0;
        }
        true
    }
}

fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Takes one whole frame off the front of `input`, starting at `at`. `Err` when the length is absurd.
fn next_frame(input: &[u8], at: usize) -> Result<Option<&[u8]>, ()> {
    let Some((length, rest)) = input[at..].split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length) as usize;
    if length > FRAME_SIZE_MAX {
        return Err(());
    }
    Ok(rest.get(..length))
}

fn run(mut ports: Vec<PortState>, core: &Mutex<Core>, waker: &UnixStream) {
    let started = Instant::now();
    let mut buffer = vec![0; READ_SIZE];
    loop {
        if wait(&ports, waker, lock(core).next_due().map(|due| due.saturating_sub(started.elapsed()))) {
            return;
        }
        for port in &mut ports {
            port.accept();
        }
        for from in 0..ports.len() {
            if !ports[from].fill(&mut buffer) {
                ports[from].disconnect();
                continue;
            }
            let input = std::mem::take(&mut ports[from].input);
            let mut at = 0;
            let mut core = lock(core);
            let absurd = loop {
                match next_frame(&input, at) {
                    Ok(Some(frame)) => {
                        at += 4 + frame.len();
                        core.ingress(started.elapsed(), from, frame, |delivery| {
                            ports[delivery.to].enqueue(delivery.frame);
                        });
                    }
                    Ok(None) => break false,
                    Err(()) => break true,
                }
            };
            drop(core);
            ports[from].input = input;
            ports[from].input.drain(..at);
            if absurd {
                ports[from].disconnect();
            }
        }
        lock(core).deliver_due(started.elapsed(), |delivery| ports[delivery.to].enqueue(delivery.frame));
        for port in &mut ports {
            if !port.flush() {
                port.disconnect();
            }
        }
    }
}

/// Sleeps until there is something to do; `true` when the switch is to end.
fn wait(ports: &[PortState], waker: &UnixStream, due_in: Option<Duration>) -> bool {
    let mut descriptors = vec![PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
    for port in ports {
        descriptors.push(PollFd::new(port.listener.as_fd(), PollFlags::POLLIN));
        if let Some(guest) = &port.guest {
            let waiting = port.written < port.output.len();
            let writable = if waiting { PollFlags::POLLOUT } else { PollFlags::empty() };
            descriptors.push(PollFd::new(guest.as_fd(), PollFlags::POLLIN | writable));
        }
    }
    let sleep = due_in.unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
    // Rounded up: a frame due in half a millisecond must not make the loop spin.
    let millis = u16::try_from(sleep.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
    // An interrupted sleep is as good as a finished one: every socket is looked at anyway.
    poll(&mut descriptors, PollTimeout::from(millis)).ok();
    descriptors[0].any().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(switch: &Switch, port: Port) -> UnixStream {
        let stream = UnixStream::connect(switch.socket(port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn frame(source: u8, destination: u8, size: usize) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, destination, 2, 0, 0, 0, 0, source, 8, 0];
        frame.resize(size, source);
        frame
    }

    fn send(stream: &mut UnixStream, frame: &[u8]) {
        let mut message = (frame.len() as u32).to_be_bytes().to_vec();
        message.extend_from_slice(frame);
        stream.write_all(&message).unwrap();
    }

    fn receive(stream: &mut UnixStream) -> Vec<u8> {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame).unwrap();
        frame
    }

    fn switch(dir: &Path) -> Switch {
        Switch::start(&[dir.join("1"), dir.join("2")], 0).unwrap()
    }

    /// Sends broadcasts until one arrives: a connection counts from when the switch has accepted it.
    fn introduce(from: &mut UnixStream, to: &mut UnixStream, source: u8) {
        let mut hello = frame(source, 0, 60);
        hello[..6].fill(0xff);
        to.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut length = [0; 4];
        while {
            send(from, &hello);
            to.read_exact(&mut length).is_err()
        } {}
        to.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut rest = vec![0; u32::from_be_bytes(length) as usize];
        to.read_exact(&mut rest).unwrap();
    }

    #[test]
    fn frames_of_all_sizes_pass_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path());
        let (mut one, mut two) = (connect(&switch, 0), connect(&switch, 1));
        introduce(&mut one, &mut two, 1);
        introduce(&mut two, &mut one, 2);
        let sizes = [14, 60, 1514, 9014, 65_000];
        let sender = thread::spawn(move || {
            for round in 0..200 {
                send(&mut one, &frame(1, 2, sizes[round % sizes.len()]));
            }
            one
        });
        let mut round = 0;
        while round < 200 {
            let got = receive(&mut two);
            if got[..6] == [0xff; 6] {
                continue;
            }
            assert_eq!(got, frame(1, 2, sizes[round % sizes.len()]), "round {round}");
            round += 1;
        }
        sender.join().unwrap();
    }

    #[test]
    fn a_guest_that_comes_back_has_its_port_again() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path());
        let (mut one, mut two) = (connect(&switch, 0), connect(&switch, 1));
        introduce(&mut one, &mut two, 1);
        drop(two);
        let mut two = connect(&switch, 1);
        introduce(&mut one, &mut two, 1);
        introduce(&mut two, &mut one, 2);
    }

    #[test]
    fn nonsense_on_a_port_ends_that_connection_only() {
        let dir = tempfile::tempdir().unwrap();
        let switch = switch(dir.path());
        let (mut one, mut two) = (connect(&switch, 0), connect(&switch, 1));
        introduce(&mut one, &mut two, 1);
        one.write_all(&[0xff; 4]).unwrap();
        let mut rest = Vec::new();
        assert!(one.read_to_end(&mut rest).is_ok(), "the switch closes the connection");
        let mut one = connect(&switch, 0);
        introduce(&mut one, &mut two, 1);
    }

    #[test]
    fn sockets_are_gone_after_the_switch() {
        let dir = tempfile::tempdir().unwrap();
        drop(switch(dir.path()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
