//! A disk in memory that keeps only what was flushed, and fails on request. For tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use super::disk::{Disk, Segment};

/// A sector is written whole or not at all.
const SECTOR: usize = 512;

#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    visible: Vec<u8>,
    /// Sectors that a failed flush left in memory as if they were on disk: they read back, and no flush writes them.
    forgotten: BTreeSet<usize>,
}

impl Content {
    fn sectors(&self) -> impl Iterator<Item = (usize, &[u8], &[u8])> {
        let pairs = self.durable.chunks(SECTOR).zip(self.visible.chunks(SECTOR)).enumerate();
        pairs.map(|(at, (durable, visible))| (at, durable, visible))
    }

    fn flush(&mut self) {
        let kept: Vec<(usize, Vec<u8>)> = self
            .sectors()
            .filter(|(at, ..)| self.forgotten.contains(at))
            .map(|(at, durable, _)| (at, durable.to_vec()))
            .collect();
        self.durable = self.visible.clone();
        for (at, old) in kept {
            self.durable[at * SECTOR..][..old.len()].copy_from_slice(&old);
        }
    }
}

type Segments = BTreeMap<u64, Arc<LiarSegment>>;

/// Clones share the disk.
#[derive(Clone, Default)]
pub(crate) struct LiarDisk {
    segments: Arc<Mutex<Segments>>,
    faults: Arc<Faults>,
}

#[derive(Default)]
struct Faults {
    /// Held for reading while something changes on disk, so that a power cut sees one moment.
    moment: Arc<RwLock<()>>,
    fail_flush: AtomicBool,
    /// What a failed flush should have made durable stays in memory.
    remembers: AtomicBool,
    fail_write: AtomicBool,
    fail_create: AtomicBool,
    lie: AtomicBool,
    writes: AtomicU64,
    cut: Mutex<Cut>,
}

/// A power cut that is to come in the middle of what the log does.
#[derive(Default)]
enum Cut {
    #[default]
    None,
    /// After so many more moments, of which each operation has two: before it and after it.
    In(u64, Box<dyn FnOnce() + Send>),
    /// Nothing is done any more.
    Off,
}

impl Faults {
    /// One moment passes. An error when the power is off.
    fn moment_passes(&self) -> io::Result<()> {
        let mut cut = self.cut.lock();
        *cut = match std::mem::take(&mut *cut) {
            Cut::In(0, tell) => {
                tell();
                Cut::Off
            }
            Cut::In(left, tell) => Cut::In(left - 1, tell),
            other => other,
        };
        if matches!(*cut, Cut::Off) { Err(io::Error::other("the power is off")) } else { Ok(()) }
    }
}

pub(crate) struct LiarSegment {
    content: Mutex<Content>,
    faults: Arc<Faults>,
}

impl LiarDisk {
    /// The disk after a power cut: of what was not flushed, each sector for which `keep` says so.
    pub(crate) fn after_power_cut(&self, mut keep: impl FnMut() -> bool) -> Self {
        let disk = Self::default();
        for (&number, segment) in &*self.segments.lock() {
            let old = segment.content.lock();
            let mut content = old.durable.clone();
            for (at, durable, visible) in old.sectors() {
                if durable != visible && !old.forgotten.contains(&at) && keep() {
                    content[at * SECTOR..][..visible.len()].copy_from_slice(visible);
                }
            }
            disk.put(number, content);
        }
        disk
    }

    /// The disk after the program that used it ended and the machine did not: what is in memory stays there.
    pub(crate) fn after_process_end(&self) -> Self {
        let disk = Self::default();
        for (&number, segment) in &*self.segments.lock() {
            let content = segment.content.lock();
            let put = disk.put(number, content.durable.clone());
            let mut kept = put.content.lock();
            (kept.visible, kept.forgotten) = (content.visible.clone(), content.forgotten.clone());
        }
        disk
    }

    /// A disk that shares the moment of a power cut with other state of its node.
    pub(crate) fn with_moment(mut self, moment: Arc<RwLock<()>>) -> Self {
        let segments = self.image();
        self.segments = Arc::default();
        self.faults = Arc::new(Faults { moment, ..Faults::default() });
        for (number, content) in segments {
            self.put(number, content);
        }
        self
    }

    fn put(&self, number: u64, content: Vec<u8>) -> Arc<LiarSegment> {
        let forgotten = BTreeSet::new();
        let content = Mutex::new(Content { durable: content.clone(), visible: content, forgotten });
        let segment = Arc::new(LiarSegment { content, faults: Arc::clone(&self.faults) });
        self.segments.lock().insert(number, Arc::clone(&segment));
        segment
    }

    /// All segments and their content.
    pub(crate) fn image(&self) -> BTreeMap<u64, Vec<u8>> {
        self.segments
            .lock()
            .iter()
            .map(|(number, segment)| (*number, segment.content.lock().visible.clone()))
            .collect()
    }

    /// A disk with exactly these segments.
    pub(crate) fn from_image(image: BTreeMap<u64, Vec<u8>>) -> Self {
        let disk = Self::default();
        for (number, content) in image {
            disk.put(number, content);
        }
        disk
    }

    /// The next flush fails; what it should have made durable is lost, and later flushes say nothing.
    pub(crate) fn fail_one_flush(&self) {
        self.faults.remembers.store(false, Ordering::SeqCst);
        self.faults.fail_flush.store(true, Ordering::SeqCst);
    }

    /// As [`LiarDisk::fail_one_flush`], but what is lost reads back until the power is cut, as from Linux's page cache.
    pub(crate) fn fail_one_flush_unseen(&self) {
        self.faults.remembers.store(true, Ordering::SeqCst);
        self.faults.fail_flush.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fail_one_write(&self) {
        self.faults.fail_write.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fail_one_create(&self) {
        self.faults.fail_create.store(true, Ordering::SeqCst);
    }

    /// Cuts the power after `moments` more moments, and calls `tell` then. What follows is not done and
    /// fails; what was is for [`LiarDisk::after_power_cut`].
    pub(crate) fn cut_power_in(&self, moments: u64, tell: impl FnOnce() + Send + 'static) {
        *self.faults.cut.lock() = Cut::In(moments, Box::new(tell));
    }

    /// From now on flushes are acknowledged and do nothing.
    pub(crate) fn lie(&self) {
        self.faults.lie.store(true, Ordering::SeqCst);
    }

    pub(crate) fn writes(&self) -> u64 {
        self.faults.writes.load(Ordering::SeqCst)
    }
}

impl Disk for LiarDisk {
    fn segments(&self) -> io::Result<Vec<u64>> {
        Ok(self.segments.lock().keys().copied().collect())
    }

    fn open(&self, number: u64) -> io::Result<Arc<dyn Segment>> {
        let segment = self.segments.lock().get(&number).cloned();
        Ok(segment.ok_or(io::ErrorKind::NotFound)?)
    }

    fn create(&self, number: u64, size: u64, header: &[u8]) -> io::Result<Arc<dyn Segment>> {
        let _moment = self.faults.moment.read();
        if self.faults.fail_create.swap(false, Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.faults.moment_passes()?;
        let mut content = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        content[..header.len()].copy_from_slice(header);
        let segment = self.put(number, content);
        self.faults.moment_passes()?;
        Ok(segment)
    }

    fn cut(&self, number: u64, length: u64) -> io::Result<()> {
        self.faults.moment_passes()?;
        let segment = self.segments.lock().get(&number).cloned().ok_or(io::ErrorKind::NotFound)?;
        let mut content = segment.content.lock();
        let length = usize::try_from(length).map_err(io::Error::other)?;
        content.visible.truncate(length);
        content.durable.truncate(length);
        content.forgotten.retain(|at| at * SECTOR < length);
        Ok(())
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        let _moment = self.faults.moment.read();
        self.faults.moment_passes()?;
        self.segments.lock().remove(&number).ok_or(io::ErrorKind::NotFound)?;
        self.faults.moment_passes()
    }
}

impl Segment for LiarSegment {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        Ok(self.content.lock().visible.clone())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let content = self.content.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = content.visible.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _moment = self.faults.moment.read();
        self.faults.writes.fetch_add(1, Ordering::SeqCst);
        if self.faults.fail_write.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("injected write error"));
        }
        self.faults.moment_passes()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let mut content = self.content.lock();
        content.visible[start..start + bytes.len()].copy_from_slice(bytes);
        content.forgotten.retain(|at| at * SECTOR + SECTOR <= start || start + bytes.len() <= at * SECTOR);
        drop(content);
        self.faults.moment_passes()
    }

    fn flush(&self) -> io::Result<()> {
        let _moment = self.faults.moment.read();
        self.faults.moment_passes()?;
        let mut content = self.content.lock();
        if self.faults.fail_flush.swap(false, Ordering::SeqCst) {
            if self.faults.remembers.load(Ordering::SeqCst) {
                let lost: Vec<usize> =
                    content.sectors().filter(|(_, old, new)| old != new).map(|(at, ..)| at).collect();
                content.forgotten.extend(lost);
            } else {
                content.visible = content.durable.clone();
            }
            return Err(io::Error::other("injected flush error"));
        }
        if !self.faults.lie.load(Ordering::SeqCst) {
            content.flush();
        }
        drop(content);
        self.faults.moment_passes()
    }
}
