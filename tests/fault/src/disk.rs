//! The disk: a durable image, the writes that are not flushed yet, and the orders for what is to go wrong.
//!
//! Front ends ask it sector by sector what happens; what they leave to chance comes from their own seed.

use std::{
    collections::{BTreeSet, HashMap},
    fmt, io,
    sync::Arc,
    time::Duration,
};

use holdfast_model::{ByteCount, limits::SECTOR_SIZE};
use parking_lot::{Mutex, MutexGuard};

use crate::Random;

/// Bytes a device writes in one piece at least.
const ATOM_SIZE: usize = 512;

pub(crate) type SectorBytes = Arc<[u8; SECTOR_SIZE]>;

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
    /// Every operation takes this long from now on.
    Slow(Duration),
}

/// Why a connection gets no answer from the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Absent {
    /// The power went after the connection was made.
    Cut,
    /// The device is not there any more.
    Vanished,
}

/// What becomes of a write that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fate {
    lost: bool,
    shift: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) capacity: u64,
    durable: HashMap<u64, SectorBytes>,
    unflushed: Vec<Unflushed>,
    /// The newest unflushed content of each sector: what a read gives.
    cached: HashMap<u64, SectorBytes>,
    /// Power cuts so far: connections of before are dead.
    pub(crate) cuts: u64,
    flushes_submitted: u64,
    /// Operations executed: reads, writes, flushes, all.
    reads: u64,
    writes: u64,
    flushes: u64,
    operations: u64,
    faults: Vec<Fault>,
    /// Sectors that cannot be read until they are written.
    unreadable: BTreeSet<u64>,
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

    /// Its size.
    #[must_use]
    pub fn capacity(&self) -> ByteCount {
        ByteCount::new(self.disk.lock().capacity)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock()
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
            Fault::Slow(each) => Fault::Slow(each),
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
        disk.index_cache();
    }

    /// The sector at `offset` cannot be read until it is written: a latent sector error.
    pub fn wear_out(&self, offset: u64) {
        self.disk.lock().unreadable.insert(offset / SECTOR_SIZE as u64);
    }

    /// Where the sectors lie that hold something, in order.
    #[must_use]
    pub fn used(&self) -> Vec<u64> {
        let disk = self.disk.lock();
        let mut sectors: Vec<u64> = disk.durable.keys().chain(disk.cached.keys()).copied().collect();
        sectors.sort_unstable();
        sectors.dedup();
        sectors.retain(|sector| disk.read_sector(*sector).iter().any(|byte| *byte != 0));
        sectors.into_iter().map(|sector| sector * SECTOR_SIZE as u64).collect()
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
        disk.cached.clear();
        for (_, first, sectors) in in_flight {
            let cached =
                (first..).zip(sectors).map(|(sector, bytes)| Unflushed { sector, bytes, completed_at: 0 });
            unflushed.extend(cached);
        }
        disk.keep(&unflushed, cut);
    }

    /// Holds what another disk holds, as if it had been put in its place while the power was off: old connections are dead.
    pub fn put_back(&self, image: &Self) {
        let content = {
            let image = image.disk.lock();
            let mut content = image.durable.clone();
            content.extend(image.cached.iter().map(|(sector, bytes)| (*sector, Arc::clone(bytes))));
            content
        };
        self.cut_power(Cut::None);
        self.disk.lock().durable = content;
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
            Step::Cached(write) => disk.push(write.clone()),
            Step::Flushed(submitted) => disk.flush(*submitted),
        }
    }
}

impl Disk {
    pub(crate) fn read_sector(&self, sector: u64) -> SectorBytes {
        let newest = self.cached.get(&sector).or_else(|| self.durable.get(&sector));
        newest.cloned().unwrap_or_else(|| Arc::new([0; SECTOR_SIZE]))
    }

    /// Counts an operation of a connection that was made after so many power cuts.
    pub(crate) fn admit(&mut self, cuts: u64) -> Result<(), Absent> {
        if self.cuts != cuts {
            return Err(Absent::Cut);
        }
        let done = self.operations;
        self.operations += 1;
        match self.faults.iter().any(|f| matches!(f, Fault::Vanishes(n) if done >= *n)) {
            true => Err(Absent::Vanished),
            false => Ok(()),
        }
    }

    /// Whether the next operation of such a connection never completes.
    pub(crate) fn hangs(&self, cuts: u64) -> bool {
        self.cuts == cuts && self.faults.iter().any(|f| matches!(f, Fault::Hangs(n) if self.operations >= *n))
    }

    /// How long every operation takes.
    pub(crate) fn delay(&self) -> Option<Duration> {
        self.faults.iter().find_map(|f| match f {
            Fault::Slow(each) => Some(*each),
            _ => None,
        })
    }

    /// Counts a read of `sectors` sectors from `first` on and says whether it fails.
    pub(crate) fn read_fault(&mut self, first: u64, sectors: u64) -> io::Result<()> {
        let n = self.reads;
        self.reads += 1;
        let failure = self.faults.iter().find_map(|f| match f {
            Fault::ReadFails(from, code) if n >= *from => Some(*code),
            _ => None,
        });
        let worn = self.unreadable.range(first..first.saturating_add(sectors)).next().map(|_| libc::EIO);
        failure.or(worn).map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
    }

    /// Counts a write of `sectors` sectors from `first` on and says what becomes of it.
    pub(crate) fn write_fault(&mut self, first: u64, sectors: u64) -> io::Result<Fate> {
        let n = self.writes;
        self.writes += 1;
        let failure = self.faults.iter().find_map(|f| match f {
            Fault::WriteFails(from, code) if n >= *from => Some(*code),
            _ => None,
        });
        let outside = first.saturating_add(sectors) > self.capacity / SECTOR_SIZE as u64;
        if let Some(code) = failure.or(outside.then_some(libc::ENOSPC)) {
            return Err(io::Error::from_raw_os_error(code));
        }
        let shift = self.faults.iter().find_map(|f| match f {
            Fault::WriteMisdirected(which, by) if *which == n => Some(*by),
            _ => None,
        });
        Ok(Fate { lost: self.faults.contains(&Fault::WriteLost(n)), shift: shift.unwrap_or(0) })
    }

    /// Takes a sector into the cache, or wherever `fate` wants it.
    pub(crate) fn write_sector(&mut self, sector: u64, bytes: SectorBytes, fate: Fate) {
        if fate.lost {
            return;
        }
        let completed_at = self.flushes_submitted;
        let write = Unflushed { sector: sector + fate.shift, bytes, completed_at };
        self.note(|| Step::Cached(write.clone()));
        self.push(write);
    }

    fn push(&mut self, write: Unflushed) {
        self.unreadable.remove(&write.sector);
        self.cached.insert(write.sector, Arc::clone(&write.bytes));
        self.unflushed.push(write);
    }

    fn index_cache(&mut self) {
        self.cached = self.unflushed.iter().map(|w| (w.sector, Arc::clone(&w.bytes))).collect();
    }

    /// A write that is on its way; returns its number.
    pub(crate) fn write_submitted(&mut self, cuts: u64, first: u64, bytes: &[u8]) -> u64 {
        self.next_in_flight += 1;
        if cuts == self.cuts {
            let sectors = bytes.chunks_exact(SECTOR_SIZE);
            let sectors = sectors.map(|s| Arc::new(s.try_into().expect("chunks of one sector"))).collect();
            self.in_flight.push((self.next_in_flight, first, sectors));
        }
        self.next_in_flight
    }

    /// A write is on its way no more.
    pub(crate) fn write_arrived(&mut self, number: u64) {
        self.in_flight.retain(|(in_flight, _, _)| *in_flight != number);
    }

    /// A flush is on its way; returns its number.
    pub(crate) fn flush_submitted(&mut self) -> u64 {
        self.flushes_submitted += 1;
        self.flushes_submitted
    }

    /// Does the flush that was submitted under this number.
    pub(crate) fn flush_arrived(&mut self, submitted: u64, random: &mut Random) -> io::Result<()> {
        let n = self.flushes;
        self.flushes += 1;
        if self.faults.contains(&Fault::FlushFails(n)) {
            // The cache may have dropped what it could not write.
            self.unflushed.retain(|_| random.chance(50));
            self.index_cache();
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.flush(submitted);
        Ok(())
    }

    /// Makes one sector durable, past everything else in the cache: a write with FUA.
    pub(crate) fn force(&mut self, sector: u64) {
        if let Some(bytes) = self.cached.remove(&sector) {
            self.durable.insert(sector, bytes);
            self.unflushed.retain(|w| w.sector != sector);
        }
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
        self.index_cache();
        // A later write of the same sector may be left in the cache: it stays the one that is read.
        self.keep(&covered, Cut::All);
        self.note(|| Step::Flushed(submitted));
    }
}
