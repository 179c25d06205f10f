//! The front end for virtual machines: an NBD server on a unix socket, which QEMU attaches as a drive.
//!
//! READ, WRITE, FLUSH and FUA; TRIM and everything else is refused as invalid. One thread a connection,
//! requests one after another, so a write is in the cache when it is answered, and only there.
//!
//! Invariants:
//! - nothing is durable before the client's flush or FUA says so; a power cut takes the rest as it pleases;
//! - a connection of before a power cut is closed and never reaches the disk again;
//! - dropping the server ends its threads and removes the socket; the disk stays.

pub mod protocol;

use std::{
    fs, io,
    io::Read,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use holdfast_model::limits::SECTOR_SIZE;
use parking_lot::Mutex;

use self::protocol::{Command, Request, handshake, reply};
use crate::{Cut, FaultDisk, Random, disk::Disk};

/// How often a request that hangs looks whether it still does.
const HANG_STEP: Duration = Duration::from_millis(5);

/// Error numbers of the protocol.
const EIO: u32 = 5;
const EINVAL: u32 = 22;
const ENOSPC: u32 = 28;

/// A server of one disk.
#[derive(Debug)]
pub struct NbdServer {
    disk: FaultDisk,
    socket: PathBuf,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    connections: Mutex<Vec<(UnixStream, JoinHandle<()>)>>,
    accepted: AtomicU64,
}

impl NbdServer {
    /// Serves `disk` on a unix socket at `socket`, which must not exist. `seed` decides what faults leave
    /// to chance.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(socket: &Path, disk: FaultDisk, seed: u64) -> io::Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let shared = Arc::new(Shared::default());
        let thread = {
            let (disk, shared) = (disk.clone(), Arc::clone(&shared));
            thread::Builder::new().name("nbd".to_owned()).spawn(move || {
                while let Ok((stream, _)) = listener.accept() {
                    if shared.over.load(Ordering::SeqCst) {
                        break;
                    }
                    let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                    accept(&shared, &disk, stream, seed.wrapping_add(number));
                }
            })?
        };
        Ok(Self { disk, socket: socket.to_owned(), shared, listener: Some(thread) })
    }

    /// The disk behind it.
    #[must_use]
    pub fn disk(&self) -> &FaultDisk {
        &self.disk
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connections so far: a client that reconnects counts again.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// The power goes and comes back: what was not flushed survives as `cut` says, connections are closed.
    /// Returns how many sectors had not been flushed.
    pub fn cut_power(&self, cut: Cut) -> usize {
        let unflushed = self.disk.unflushed();
        // The disk first: a request that is being read now must not get in behind the cut.
        self.disk.cut_power(cut);
        self.disconnect();
        unflushed
    }

    /// Closes all connections and waits for their threads.
    fn disconnect(&self) {
        let connections = std::mem::take(&mut *self.shared.connections.lock());
        for (stream, thread) in connections {
            // The client may have closed it already.
            drop(stream.shutdown(Shutdown::Both));
            drop(thread.join());
        }
    }
}

impl Drop for NbdServer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        drop(UnixStream::connect(&self.socket));
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
        self.disconnect();
        drop(fs::remove_file(&self.socket));
    }
}

fn accept(shared: &Arc<Shared>, disk: &FaultDisk, stream: UnixStream, seed: u64) {
    let Ok(kept) = stream.try_clone() else { return };
    let cuts = disk.lock().cuts;
    let mut session =
        Session { disk: disk.clone(), cuts, random: Random::new(seed), shared: Arc::clone(shared) };
    let served = thread::Builder::new().name("nbd client".to_owned()).spawn(move || {
        // How a client goes is its own business; its requests were answered one by one.
        drop(session.serve(&stream));
        // The clone that is kept would leave the client waiting.
        drop(stream.shutdown(Shutdown::Both));
    });
    if let Ok(thread) = served {
        let mut connections = shared.connections.lock();
        connections.retain(|(_, thread)| !thread.is_finished());
        connections.push((kept, thread));
    }
}

/// One connection.
struct Session {
    disk: FaultDisk,
    cuts: u64,
    random: Random,
    shared: Arc<Shared>,
}

impl Session {
    fn serve(&mut self, mut stream: &UnixStream) -> io::Result<()> {
        if !handshake(&mut stream, self.disk.capacity().get())? {
            return Ok(());
        }
        let mut header = [0; Request::SIZE];
        let mut data = Vec::new();
        loop {
            stream.read_exact(&mut header)?;
            let request = Request::parse(&header)?;
            data.clear();
            match request.command {
                Command::Disconnect => return Ok(()),
                Command::Write { .. } => {
                    data.resize(request.length as usize, 0);
                    stream.read_exact(&mut data)?;
                }
                Command::Read => data.resize(request.length as usize, 0),
                Command::Flush | Command::Other(_) => {}
            }
            self.take_time()?;
            let result = {
                let mut disk = self.disk.lock();
                if disk.admit(self.cuts).is_err() {
                    return Ok(());
                }
                execute(&mut disk, &mut self.random, &request, &mut data)
            };
            let error = result.as_ref().err().map_or(0, |error| match error.raw_os_error() {
                Some(libc::ENOSPC) => ENOSPC,
                Some(libc::EINVAL) => EINVAL,
                _ => EIO,
            });
            let answer = if request.command == Command::Read && error == 0 { &data[..] } else { &[] };
            reply(&mut stream, request.cookie, error, answer)?;
        }
    }

    /// Waits as long as a slow disk takes; for ever when it hangs, until that is over.
    fn take_time(&self) -> io::Result<()> {
        let since = Instant::now();
        loop {
            let (hangs, delay, cut) = {
                let disk = self.disk.lock();
                (disk.hangs(self.cuts), disk.delay(), disk.cuts != self.cuts)
            };
            if cut || self.shared.over.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if !hangs && delay.is_none_or(|each| since.elapsed() >= each) {
                return Ok(());
            }
            thread::sleep(HANG_STEP);
        }
    }
}

/// Does what is asked, in one piece: no power cut comes in the middle.
fn execute(disk: &mut Disk, random: &mut Random, request: &Request, data: &mut [u8]) -> io::Result<()> {
    let invalid = || Err(io::Error::from_raw_os_error(libc::EINVAL));
    let end = request.offset.saturating_add(u64::from(request.length));
    let sectors = request.offset / SECTOR_SIZE as u64..end.div_ceil(SECTOR_SIZE as u64);
    // Which bytes of a sector are meant, and where they are in `data`.
    let pieces = |sector: u64| {
        let start = sector * SECTOR_SIZE as u64;
        let from = request.offset.max(start);
        let length = end.min(start + SECTOR_SIZE as u64) - from;
        let small = |n: u64| usize::try_from(n).expect("below the size of a request");
        (small(from - start), small(from - request.offset), small(length))
    };
    match request.command {
        Command::Read => {
            disk.read_fault(sectors.start, sectors.end - sectors.start)?;
            if end > disk.capacity {
                return invalid();
            }
            for sector in sectors {
                let (within, at, length) = pieces(sector);
                let bytes = disk.read_sector(sector);
                data[at..at + length].copy_from_slice(&bytes[within..within + length]);
            }
            Ok(())
        }
        Command::Write { fua } => {
            let fate = disk.write_fault(sectors.start, sectors.end - sectors.start)?;
            for sector in sectors.clone() {
                let (within, at, length) = pieces(sector);
                let mut bytes = *disk.read_sector(sector);
                bytes[within..within + length].copy_from_slice(&data[at..at + length]);
                disk.write_sector(sector, Arc::new(bytes), fate);
            }
            if fua {
                sectors.for_each(|sector| disk.force(sector));
            }
            Ok(())
        }
        Command::Flush => {
            let number = disk.flush_submitted();
            disk.flush_arrived(number, random)
        }
        Command::Disconnect | Command::Other(_) => invalid(),
    }
}
