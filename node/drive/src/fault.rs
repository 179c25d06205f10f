//! A disk that misbehaves on purpose, in memory.
//!
//! [`FaultDisk`] is the disk: a durable image and the ordered writes that are not flushed yet. It outlives
//! power cuts. [`FaultDevice`] is a connection to it: it completes operations late, out of order, short, or
//! with errors, as its seed and its orders say. After a power cut its old connections answer nothing.
//!
//! The model is as mean as a real device may be:
//! - a write counts as in the cache when it completes; one in flight when the power goes may be kept too;
//! - a flush makes durable only what had completed before the flush was submitted;
//! - a power cut keeps any subset of the rest: all, none, a prefix, a random one, sectors torn at 512 B;
//! - after a failed flush, the cache may have dropped what it was to write, and the next flush says nothing.
//!
//! For tests of this crate, and with the feature `fault` of others. Everything follows from the seed.

use std::{collections::HashMap, fmt, io, sync::Arc, time::Duration};

use holdfast_model::{ByteCount, limits::SECTOR_SIZE};
use holdfast_ring::{BlockDevice, Completion, Kind, Operation, Waker};
use parking_lot::{Condvar, Mutex};

/// Bytes a device writes in one piece at least.
const ATOM_SIZE: usize = 512;

type SectorBytes = Arc<[u8; SECTOR_SIZE]>;

/// A small random number generator (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is above zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True `percent` times of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// One sector in the cache of the disk.
#[derive(Debug, Clone)]
pub struct Unflushed {
    /// Which sector.
    pub sector: u64,
    bytes: SectorBytes,
    /// Completed before this many flushes had been submitted.
    completed_at: u64,
}

/// What survives a power cut of that which was not flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// The first so many sectors, in the order they were written.
    Prefix(usize),
    /// Everything but one sector.
    AllBut(usize),
    /// One sector.
    Only(usize),
    /// Two sectors.
    Pair(usize, usize),
    /// Each sector or not, by chance.
    Random(u64),
    /// Each piece of 512 bytes or not, by chance.
    Torn(u64),
}

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

/// Something that goes wrong once, or from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Writes fail with this error number from the n-th on (0 is the next).
    WriteFails(u64, i32),
    /// The n-th flush fails with `EIO`; its writes may be gone. Later flushes succeed.
    FlushFails(u64),
    /// Reads fail with this error number from the n-th on.
    ReadFails(u64, i32),
    /// The n-th write is acknowledged and never done.
    WriteLost(u64),
    /// The n-th write goes to the place of another one, so many sectors further.
    WriteMisdirected(u64, u64),
    /// From the n-th operation on nothing completes any more.
    Hangs(u64),
    /// From the n-th operation on everything moves zero bytes.
    Vanishes(u64),
}

#[derive(Debug, Clone, Default)]
struct Disk {
    capacity: u64,
    durable: HashMap<u64, SectorBytes>,
    unflushed: Vec<Unflushed>,
    /// Power cuts so far: connections of before are dead.
    cuts: u64,
    flushes_submitted: u64,
    /// Operations executed: reads, writes, flushes, all.
    reads: u64,
    writes: u64,
    flushes: u64,
    operations: u64,
    faults: Vec<Fault>,
    /// Writes submitted and not executed; they may be kept by a power cut. By connection and slot.
    in_flight: Vec<(u64, u64, Vec<SectorBytes>)>,
    next_in_flight: u64,
    history: Option<Vec<Step>>,
}

/// What happened to the disk, for going through every crash afterwards.
#[derive(Debug, Clone)]
pub enum Step {
    /// A sector reached the cache.
    Cached(Unflushed),
    /// A flush made durable what had completed before flush number so-and-so was submitted.
    Flushed(u64),
}

/// A disk in memory. Clones are the same disk; [`FaultDisk::copy`] makes another one.
#[derive(Clone)]
pub struct FaultDisk {
    disk: Arc<Mutex<Disk>>,
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.disk.lock();
        f.debug_struct("FaultDisk")
            .field("unflushed", &disk.unflushed.len())
            .field("operations", &disk.operations)
            .field("cuts", &disk.cuts)
            .field("faults", &disk.faults)
            .finish_non_exhaustive()
    }
}

impl FaultDisk {
    /// A blank disk of `capacity`.
    #[must_use]
    pub fn new(capacity: ByteCount) -> Self {
        let disk = Disk { capacity: capacity.get(), ..Disk::default() };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Another disk with the same contents.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { disk: Arc::new(Mutex::new(self.disk.lock().clone())) }
    }

    /// Arranges for something to go wrong.
    pub fn arrange(&self, fault: Fault) {
        let mut disk = self.disk.lock();
        let (reads, writes, flushes, operations) = (disk.reads, disk.writes, disk.flushes, disk.operations);
        disk.faults.push(match fault {
            Fault::WriteFails(n, errno) => Fault::WriteFails(writes + n, errno),
            Fault::FlushFails(n) => Fault::FlushFails(flushes + n),
            Fault::ReadFails(n, errno) => Fault::ReadFails(reads + n, errno),
            Fault::WriteLost(n) => Fault::WriteLost(writes + n),
            Fault::WriteMisdirected(n, by) => Fault::WriteMisdirected(writes + n, by),
            Fault::Hangs(n) => Fault::Hangs(operations + n),
            Fault::Vanishes(n) => Fault::Vanishes(operations + n),
        });
    }

    /// Puts everything right again.
    pub fn heal(&self) {
        self.disk.lock().faults.clear();
    }

    /// Turns bits of one byte, in the durable image and in the cache.
    pub fn rot(&self, offset: u64, mask: u8) {
        let mut disk = self.disk.lock();
        let (sector, at) = (offset / SECTOR_SIZE as u64, (offset % SECTOR_SIZE as u64) as usize);
        let mut bytes = *disk.read_sector(sector);
        bytes[at] ^= mask;
        for write in disk.unflushed.iter_mut().filter(|w| w.sector == sector) {
            write.bytes = Arc::new(bytes);
        }
        disk.durable.insert(sector, Arc::new(bytes));
    }

    /// What a read would give, `length` bytes from `offset` on; whole sectors.
    #[must_use]
    pub fn peek(&self, offset: u64, length: usize) -> Vec<u8> {
        let disk = self.disk.lock();
        let first = offset / SECTOR_SIZE as u64;
        (0..(length / SECTOR_SIZE) as u64).flat_map(|i| *disk.read_sector(first + i)).collect()
    }

    /// Overwrites whole sectors from `offset` on, in the durable image.
    pub fn poke(&self, offset: u64, bytes: &[u8]) {
        let mut disk = self.disk.lock();
        for (sector, bytes) in (offset / SECTOR_SIZE as u64..).zip(bytes.chunks_exact(SECTOR_SIZE)) {
            disk.durable.insert(sector, Arc::new(bytes.try_into().expect("chunks of one sector")));
        }
    }

    /// Sectors in the cache, and those on their way into it.
    #[must_use]
    pub fn unflushed(&self) -> usize {
        let disk = self.disk.lock();
        disk.unflushed.len() + disk.in_flight.iter().map(|(_, _, sectors)| sectors.len()).sum::<usize>()
    }

    /// The power goes and comes back. What was not flushed survives as `cut` says; old connections are dead.
    pub fn cut_power(&self, cut: Cut) {
        let mut disk = self.disk.lock();
        disk.cuts += 1;
        let in_flight = std::mem::take(&mut disk.in_flight);
        let mut unflushed = std::mem::take(&mut disk.unflushed);
        for (_, first, sectors) in in_flight {
            let cached =
                (first..).zip(sectors).map(|(sector, bytes)| Unflushed { sector, bytes, completed_at: 0 });
            unflushed.extend(cached);
        }
        disk.keep(&unflushed, cut);
    }

    /// Starts writing down what happens, to go through every crash later.
    pub fn record_history(&self) {
        self.disk.lock().history = Some(Vec::new());
    }

    /// What happened since [`Self::record_history`].
    #[must_use]
    pub fn history(&self) -> Vec<Step> {
        self.disk.lock().history.clone().unwrap_or_default()
    }

    /// Steps so far.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.disk.lock().history.as_ref().map_or(0, Vec::len)
    }

    /// Does again what another disk noted.
    pub fn replay(&self, step: &Step) {
        let mut disk = self.disk.lock();
        match step {
            Step::Cached(write) => disk.unflushed.push(write.clone()),
            Step::Flushed(submitted) => disk.flush(*submitted),
        }
    }

    /// A connection. `seed` decides what `manners` leave to chance.
    #[must_use]
    pub fn connect(&self, seed: u64, manners: Manners) -> FaultDevice {
        let cuts = self.disk.lock().cuts;
        FaultDevice {
            disk: self.clone(),
            cuts,
            random: Random::new(seed),
            manners,
            pending: Vec::new(),
            wake: Arc::new((Mutex::new(false), Condvar::new())),
        }
    }
}

impl Disk {
    fn read_sector(&self, sector: u64) -> SectorBytes {
        let cached = self.unflushed.iter().rev().find(|w| w.sector == sector).map(|w| &w.bytes);
        cached.or_else(|| self.durable.get(&sector)).cloned().unwrap_or_else(|| Arc::new([0; SECTOR_SIZE]))
    }

    /// Writes those of `writes` that `cut` keeps to the durable image.
    fn keep(&mut self, writes: &[Unflushed], cut: Cut) {
        let mut random = match cut {
            Cut::Random(seed) | Cut::Torn(seed) => Random::new(seed),
            _ => Random::new(0),
        };
        for (i, write) in writes.iter().enumerate() {
            let kept = match cut {
                Cut::None => false,
                Cut::All => true,
                Cut::Prefix(count) => i < count,
                Cut::AllBut(which) => i != which,
                Cut::Only(which) => i == which,
                Cut::Pair(a, b) => i == a || i == b,
                Cut::Random(_) => random.chance(50),
                Cut::Torn(_) => {
                    let old = self
                        .durable
                        .get(&write.sector)
                        .cloned()
                        .unwrap_or_else(|| Arc::new([0; SECTOR_SIZE]));
                    let mut mixed = *old;
                    for at in (0..SECTOR_SIZE).step_by(ATOM_SIZE) {
                        if random.chance(70) {
                            mixed[at..at + ATOM_SIZE].copy_from_slice(&write.bytes[at..at + ATOM_SIZE]);
                        }
                    }
                    self.durable.insert(write.sector, Arc::new(mixed));
                    continue;
                }
            };
            if kept {
                self.durable.insert(write.sector, Arc::clone(&write.bytes));
            }
        }
    }

    fn note(&mut self, step: impl FnOnce() -> Step) {
        if let Some(history) = &mut self.history {
            history.push(step());
        }
    }

    fn flush(&mut self, submitted: u64) {
        let (covered, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unflushed).into_iter().partition(|w| w.completed_at < submitted);
        self.unflushed = rest;
        // A later write of the same sector may be left in the cache: it stays the one that is read.
        self.keep(&covered, Cut::All);
        self.note(|| Step::Flushed(submitted));
    }
}

/// One operation the device holds.
#[derive(Debug)]
struct Pending {
    operation: Operation,
    /// Number of this write among those in flight, or of this flush.
    number: u64,
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

impl FaultDevice {
    fn execute(&mut self, Pending { mut operation, number }: Pending) -> Option<Completion> {
        let mut disk = self.disk.disk.lock();
        let errno = |code| Err(io::Error::from_raw_os_error(code));
        if disk.cuts != self.cuts {
            return Some(operation.complete(errno(libc::ENODEV)));
        }
        let done = disk.operations;
        disk.operations += 1;
        let faults = disk.faults.clone();
        if faults.iter().any(|f| matches!(f, Fault::Vanishes(n) if done >= *n)) {
            disk.in_flight.retain(|(n, _, _)| *n != number || operation.kind() != Kind::Write);
            let answer = if operation.kind() == Kind::Flush { errno(libc::ENODEV) } else { Ok(0) };
            return Some(operation.complete(answer));
        }
        let whole = operation.length() / SECTOR_SIZE;
        let first = operation.offset() / SECTOR_SIZE as u64;
        let outcome = match operation.kind() {
            Kind::Read => {
                let n = disk.reads;
                disk.reads += 1;
                let failure = faults.iter().find_map(|f| match f {
                    Fault::ReadFails(from, code) if n >= *from => Some(*code),
                    _ => None,
                });
                if let Some(code) = failure {
                    errno(code)
                } else if self.random.chance(self.manners.again) {
                    errno(libc::EAGAIN)
                } else {
                    let inside = (disk.capacity / SECTOR_SIZE as u64).saturating_sub(first).min(whole as u64);
                    let mut count = usize::try_from(inside).expect("no more than was asked for");
                    if count > 1 && self.random.chance(self.manners.short) {
                        count = 1 + self.random.below(count as u64 - 1) as usize;
                    }
                    let bytes = operation.bytes_mut();
                    for (i, sector) in bytes.chunks_exact_mut(SECTOR_SIZE).take(count).enumerate() {
                        sector.copy_from_slice(&disk.read_sector(first + i as u64)[..]);
                    }
                    Ok(count * SECTOR_SIZE)
                }
            }
            Kind::Write => {
                let n = disk.writes;
                disk.writes += 1;
                disk.in_flight.retain(|(in_flight, _, _)| *in_flight != number);
                let failure = faults.iter().find_map(|f| match f {
                    Fault::WriteFails(from, code) if n >= *from => Some(*code),
                    _ => None,
                });
                let inside = (disk.capacity / SECTOR_SIZE as u64).saturating_sub(first).min(whole as u64);
                let mut count = usize::try_from(inside).expect("no more than was asked for");
                if let Some(code) = failure {
                    errno(code)
                } else if count < whole {
                    errno(libc::ENOSPC)
                } else if self.random.chance(self.manners.again) {
                    errno(libc::EAGAIN)
                } else {
                    if count > 1 && self.random.chance(self.manners.short) {
                        count = 1 + self.random.below(count as u64 - 1) as usize;
                    }
                    let lost = faults.contains(&Fault::WriteLost(n));
                    let shift = faults.iter().find_map(|f| match f {
                        Fault::WriteMisdirected(which, by) if *which == n => Some(*by),
                        _ => None,
                    });
                    let first = first + shift.unwrap_or(0);
                    let completed_at = disk.flushes_submitted;
                    for (i, bytes) in operation.bytes().chunks_exact(SECTOR_SIZE).take(count).enumerate() {
                        let bytes = Arc::new(bytes.try_into().expect("chunks of one sector"));
                        let write = Unflushed { sector: first + i as u64, bytes, completed_at };
                        if !lost {
                            disk.note(|| Step::Cached(write.clone()));
                            disk.unflushed.push(write);
                        }
                    }
                    Ok(count * SECTOR_SIZE)
                }
            }
            Kind::Flush => {
                let n = disk.flushes;
                disk.flushes += 1;
                if faults.contains(&Fault::FlushFails(n)) {
                    // The cache may have dropped what it could not write.
                    let random = &mut self.random;
                    disk.unflushed.retain(|_| random.chance(50));
                    errno(libc::EIO)
                } else {
                    disk.flush(number);
                    Ok(0)
                }
            }
        };
        Some(operation.complete(outcome))
    }

    fn hangs(&self) -> bool {
        let disk = self.disk.disk.lock();
        disk.cuts == self.cuts
            && disk.faults.iter().any(|f| matches!(f, Fault::Hangs(n) if disk.operations >= *n))
    }
}

impl BlockDevice for FaultDevice {
    fn capacity(&self) -> ByteCount {
        ByteCount::new(self.disk.disk.lock().capacity)
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
        let mut disk = self.disk.disk.lock();
        let number = match operation.kind() {
            Kind::Read => 0,
            Kind::Write => {
                disk.next_in_flight += 1;
                let number = disk.next_in_flight;
                if disk.cuts == self.cuts {
                    let sectors = operation.bytes().chunks_exact(SECTOR_SIZE);
                    let sectors =
                        sectors.map(|s| Arc::new(s.try_into().expect("chunks of one sector"))).collect();
                    disk.in_flight.push((number, operation.offset() / SECTOR_SIZE as u64, sectors));
                }
                number
            }
            Kind::Flush => {
                disk.flushes_submitted += 1;
                disk.flushes_submitted
            }
        };
        drop(disk);
        self.pending.push(Pending { operation, number });
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
                let pending = self.pending.remove(usize::try_from(which).expect("a small number"));
                completions.extend(self.execute(pending));
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
