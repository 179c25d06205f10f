//! The front end for programs: a [`BlockDevice`] whose completions come late, short, out of order.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_model::{ByteCount, limits::SECTOR_SIZE};
use holdfast_ring::{BlockDevice, Completion, Kind, Operation, Waker};
use parking_lot::{Condvar, Mutex};

use crate::{FaultDisk, Random, disk::Absent};

/// How often the device does what it may do, in percent.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Of operations whose completion is put off each time the device is looked at.
    pub late: u64,
    /// Of transfers that are cut short.
    pub short: u64,
    /// Of operations refused for a moment (`EAGAIN`).
    pub again: u64,
    /// At most one completion each time the device is looked at.
    pub single: bool,
}

impl Manners {
    /// Immediate, in order, whole.
    pub const GOOD: Self = Self { late: 0, short: 0, again: 0, single: false };
    /// Everything a correct device may do, often.
    pub const BAD: Self = Self { late: 50, short: 10, again: 5, single: false };
}

/// Pieces in which a slow device is waited for.
const SLOW_STEP: Duration = Duration::from_millis(1);

/// One operation the device holds.
#[derive(Debug)]
struct Pending {
    operation: Operation,
    /// Number of this write among those in flight, or of this flush.
    number: u64,
    since: Instant,
}

/// A connection to a [`FaultDisk`].
#[derive(Debug)]
pub struct FaultDevice {
    disk: FaultDisk,
    cuts: u64,
    random: Random,
    manners: Manners,
    pending: Vec<Pending>,
    wake: Arc<(Mutex<bool>, Condvar)>,
}

impl FaultDisk {
    /// A connection. `seed` decides what `manners` leave to chance.
    #[must_use]
    pub fn connect(&self, seed: u64, manners: Manners) -> FaultDevice {
        FaultDevice {
            disk: self.clone(),
            cuts: self.lock().cuts,
            random: Random::new(seed),
            manners,
            pending: Vec::new(),
            wake: Arc::new((Mutex::new(false), Condvar::new())),
        }
    }
}

impl FaultDevice {
    fn execute(&mut self, Pending { mut operation, number, .. }: Pending) -> Completion {
        let mut disk = self.disk.lock();
        let errno = |code| Err(io::Error::from_raw_os_error(code));
        if operation.kind() == Kind::Write {
            disk.write_arrived(number);
        }
        match disk.admit(self.cuts) {
            Ok(()) => {}
            Err(Absent::Vanished) if operation.kind() != Kind::Flush => return operation.complete(Ok(0)),
            Err(Absent::Cut | Absent::Vanished) => return operation.complete(errno(libc::ENODEV)),
        }
        let whole = operation.length() / SECTOR_SIZE;
        let first = operation.offset() / SECTOR_SIZE as u64;
        let outcome = match operation.kind() {
            Kind::Read => match disk.read_fault(first, whole as u64) {
                Err(error) => Err(error),
                Ok(()) if self.random.chance(self.manners.again) => errno(libc::EAGAIN),
                Ok(()) => {
                    let inside = (disk.capacity / SECTOR_SIZE as u64).saturating_sub(first).min(whole as u64);
                    let inside = usize::try_from(inside).expect("no more than was asked for");
                    let count = cut_short(&mut self.random, self.manners, inside);
                    let bytes = operation.bytes_mut();
                    for (sector, bytes) in (first..).zip(bytes.chunks_exact_mut(SECTOR_SIZE).take(count)) {
                        bytes.copy_from_slice(&disk.read_sector(sector)[..]);
                    }
                    Ok(count * SECTOR_SIZE)
                }
            },
            Kind::Write => match disk.write_fault(first, whole as u64) {
                Err(error) => Err(error),
                Ok(_) if self.random.chance(self.manners.again) => errno(libc::EAGAIN),
                Ok(fate) => {
                    let count = cut_short(&mut self.random, self.manners, whole);
                    let sectors = operation.bytes().chunks_exact(SECTOR_SIZE).take(count);
                    for (sector, bytes) in (first..).zip(sectors) {
                        let bytes = bytes.try_into().expect("chunks of one sector");
                        disk.write_sector(sector, Arc::new(bytes), fate);
                    }
                    Ok(count * SECTOR_SIZE)
                }
            },
            Kind::Flush => disk.flush_arrived(number, &mut self.random).map(|()| 0),
        };
        operation.complete(outcome)
    }

    fn hangs(&self) -> bool {
        self.disk.lock().hangs(self.cuts)
    }

    /// Whether the disk takes longer for this operation than it has had.
    fn takes_longer(&self, pending: &Pending) -> bool {
        self.disk.lock().delay().is_some_and(|each| pending.since.elapsed() < each)
    }
}

/// How many of `sectors` are moved.
fn cut_short(random: &mut Random, manners: Manners, sectors: usize) -> usize {
    if sectors > 1 && random.chance(manners.short) {
        return 1 + random.below(sectors as u64 - 1) as usize;
    }
    sectors
}

impl BlockDevice for FaultDevice {
    fn capacity(&self) -> ByteCount {
        self.disk.capacity()
    }

    fn depth(&self) -> usize {
        64
    }

    fn in_flight(&self) -> usize {
        self.pending.len()
    }

    fn submit(&mut self, operation: Operation) -> Result<(), Operation> {
        if self.pending.len() >= self.depth() {
            return Err(operation);
        }
        let mut disk = self.disk.lock();
        let number = match operation.kind() {
            Kind::Read => 0,
            Kind::Write => {
                let first = operation.offset() / SECTOR_SIZE as u64;
                disk.write_submitted(self.cuts, first, operation.bytes())
            }
            Kind::Flush => disk.flush_submitted(),
        };
        drop(disk);
        self.pending.push(Pending { operation, number, since: Instant::now() });
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        let before = completions.len();
        while !self.pending.is_empty() && !self.hangs() {
            for _ in 0..self.pending.len() {
                if self.random.chance(self.manners.late) || self.hangs() {
                    continue;
                }
                let which =
                    if self.manners.late == 0 { 0 } else { self.random.below(self.pending.len() as u64) };
                let which = usize::try_from(which).expect("a small number");
                if self.takes_longer(&self.pending[which]) {
                    std::thread::sleep(SLOW_STEP);
                    continue;
                }
                let pending = self.pending.remove(which);
                completions.push(self.execute(pending));
                if self.manners.single {
                    return Ok(());
                }
            }
            // A caller that waits without limit needs a completion; one that polls comes again.
            if completions.len() > before || timeout == Some(Duration::ZERO) {
                return Ok(());
            }
        }
        let (woken, condition) = &*self.wake;
        let mut woken = woken.lock();
        if !*woken {
            match timeout {
                None => condition.wait(&mut woken),
                Some(timeout) => drop(condition.wait_for(&mut woken, timeout)),
            }
        }
        *woken = false;
        Ok(())
    }

    fn waker(&self) -> Waker {
        let wake = Arc::clone(&self.wake);
        Waker::new(move || {
            *wake.0.lock() = true;
            wake.1.notify_all();
        })
    }
}

impl Drop for FaultDevice {
    fn drop(&mut self) {
        // Operations that hang: their buffers belong to the device for good.
        for pending in self.pending.drain(..) {
            std::mem::forget(pending);
        }
    }
}
