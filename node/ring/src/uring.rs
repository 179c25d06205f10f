//! [`RingDevice`]: a block device or preallocated file behind io_uring, opened `O_DIRECT`.
//!
//! One ring, one thread (`SINGLE_ISSUER`, `DEFER_TASKRUN`). The kernel enforces an allow-list on the ring:
//! reads, writes and fsync on the two registered files; no links, no other descriptor, no new registration.
//!
//! Invariants:
//! - a slot owns its operation, buffer included, from submission until its completion is reaped;
//! - waiting is always for one completion: waiting for N with `DEFER_TASKRUN` can sleep for ever;
//! - dropping the ring with operations in flight leaks their buffers rather than reuse them.

#![expect(unsafe_code, reason = "submissions carry raw pointers")]

use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom},
    marker::PhantomData,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, RawFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use holdfast_model::{ByteCount, limits::SECTOR_SIZE};
use io_uring::{IoUring, Probe, opcode, register::Restriction, squeue, types};

use crate::{BlockDevice, BufferPool, Completion, Kind, Operation, Waker, pool::STAGGER_SIZE, wake::Event};

/// Registered file of the device.
const DEVICE_FILE: types::Fixed = types::Fixed(0);

/// Registered file of the wake-up event.
const EVENT_FILE: types::Fixed = types::Fixed(1);

/// `user_data` of the read on the wake-up event; every other value is a slot.
const EVENT_DATA: u64 = u64::MAX;

/// How long a dropped ring waits for what is in flight before it leaks the buffers.
const DROP_GRACE: Duration = Duration::from_secs(2);

/// `io_uring_register` code of `unregister_files`, the only registration allowed once the ring runs.
const UNREGISTER_FILES: u8 = 3;

/// Largest piece of memory the kernel registers as one buffer, in bytes.
const REGISTERED_SIZE_MAX: usize = 1 << 30;

/// Most operations in flight on one ring.
const DEPTH_MAX: usize = 4096;

/// How to open a device.
#[derive(Debug, Clone)]
pub struct RingOptions {
    /// Operations in flight at most, 1 to 4096.
    pub depth: usize,
    /// Refuse writes: the descriptor is opened read-only and the ring knows no write opcode.
    pub read_only: bool,
    /// Memory to pin and register with the kernel. Saves CPU on small operations, but the whole budget
    /// becomes resident at once. Where the kernel refuses (`RLIMIT_MEMLOCK`), the ring works without.
    pub register: Option<BufferPool>,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { depth: 128, read_only: false, register: None }
    }
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// It could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another process, or another part of this one, has it.
    #[error("{} is in use by another process", path.display())]
    Busy {
        /// The device.
        path: PathBuf,
    },
    /// It is neither a block device nor a regular file.
    #[error("{} is neither a block device nor a regular file", path.display())]
    WrongType {
        /// The device.
        path: PathBuf,
    },
    /// No direct I/O: a flush would then promise what the page cache holds.
    #[error("{} refuses O_DIRECT; use a block device, or a file on ext4 or XFS", path.display())]
    NoDirectIo {
        /// The device.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Direct I/O needs coarser alignment than buffers and sectors have.
    #[error(
        "{} needs direct I/O aligned to {memory} B in memory and {offset} B on the device; \
         buffers have {STAGGER_SIZE} B and sectors {SECTOR_SIZE} B",
        path.display()
    )]
    Alignment {
        /// The device.
        path: PathBuf,
        /// Memory alignment it needs, in bytes.
        memory: u32,
        /// Offset alignment it needs, in bytes.
        offset: u32,
    },
    /// The kernel gives no ring.
    #[error("cannot set up io_uring for {}: {step}", path.display())]
    Ring {
        /// The device.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// A device behind a ring. Bound to the thread that opened it.
pub struct RingDevice {
    path: PathBuf,
    /// Keeps the descriptor, and with it the exclusive lock.
    file: File,
    capacity: ByteCount,
    ring: IoUring,
    slots: Vec<Option<Operation>>,
    vacant: Vec<usize>,
    event: Event,
    /// Where the kernel writes the event's counter. Boxed: its address is fixed while a read is armed.
    event_counter: Box<[u8; 8]>,
    event_armed: bool,
    /// Address ranges registered with the kernel; the position is the buffer index.
    registered: Vec<std::ops::Range<usize>>,
    /// `SINGLE_ISSUER`: neither `Send` nor `Sync`.
    _thread: PhantomData<*const ()>,
}

impl RingDevice {
    /// Opens `path` for exclusive use by this thread.
    ///
    /// # Errors
    /// [`DeviceError`] says which step was refused.
    pub fn open(path: &Path, options: &RingOptions) -> Result<Self, DeviceError> {
        let depth = options.depth.clamp(1, DEPTH_MAX);
        let (mut file, capacity) = open_direct(path, options.read_only)?;
        check_alignment(path, &file)?;
        let capacity = match capacity {
            Some(capacity) => capacity,
            None => file
                .seek(SeekFrom::End(0))
                .map_err(|source| DeviceError::Open { path: path.to_owned(), source })?,
        };
        let failed = |step| move |source| DeviceError::Ring { path: path.to_owned(), step, source };
        let event = Event::new().map_err(failed("event descriptor"))?;
        // One entry more than operations: the read of the event.
        let entries = u32::try_from((depth + 1).next_power_of_two()).expect("depth is at most 4096");
        let ring: IoUring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .dontfork()
            .build(entries)
            .map_err(failed("ring (kernel 6.1 or newer is needed, and io_uring not disabled)"))?;
        if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
            return Err(failed("features EXT_ARG and NODROP")(io::ErrorKind::Unsupported.into()));
        }
        let files = [file.as_raw_fd(), event.descriptor().as_raw_fd()];
        let registered = prepare(&ring, &files, options).map_err(|(step, e)| failed(step)(e))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            capacity: ByteCount::new(capacity),
            ring,
            slots: (0..depth).map(|_| None).collect(),
            vacant: (0..depth).rev().collect(),
            event,
            event_counter: Box::new([0; 8]),
            event_armed: false,
            registered,
            _thread: PhantomData,
        })
    }

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether buffer memory is registered with the kernel.
    #[must_use]
    pub fn has_registered_memory(&self) -> bool {
        !self.registered.is_empty()
    }

    fn entry(registered: &[std::ops::Range<usize>], operation: &mut Operation, slot: usize) -> squeue::Entry {
        let (offset, kind) = (operation.offset(), operation.kind());
        let bytes = operation.bytes_mut();
        let length = u32::try_from(bytes.len()).expect("a buffer is far below 4 GiB");
        let address = bytes.as_mut_ptr();
        let range = address as usize..address as usize + bytes.len();
        let index = registered.iter().position(|r| r.start <= range.start && range.end <= r.end);
        let index = index.map(|i| u16::try_from(i).expect("at most a few registered ranges"));
        let entry = match (kind, index) {
            (Kind::Read, None) => opcode::Read::new(DEVICE_FILE, address, length).offset(offset).build(),
            (Kind::Read, Some(i)) => {
                opcode::ReadFixed::new(DEVICE_FILE, address, length, i).offset(offset).build()
            }
            (Kind::Write, None) => opcode::Write::new(DEVICE_FILE, address, length).offset(offset).build(),
            (Kind::Write, Some(i)) => {
                opcode::WriteFixed::new(DEVICE_FILE, address, length, i).offset(offset).build()
            }
            (Kind::Flush, _) => opcode::Fsync::new(DEVICE_FILE).flags(types::FsyncFlags::DATASYNC).build(),
        };
        entry.user_data(slot as u64)
    }

    fn arm_event(&mut self) {
        if self.event_armed {
            return;
        }
        let entry = opcode::Read::new(EVENT_FILE, self.event_counter.as_mut_ptr(), 8);
        let entry = entry.build().user_data(EVENT_DATA);
        // SAFETY: `event_counter` is boxed, so its address is fixed, and it is read by nobody. While the read
        // is armed it stays in `self`; `drop` leaks it when the read cannot be reaped.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // The queue has one entry more than slots, so it is never full here; if it were, the next wait arms.
        self.event_armed = pushed.is_ok();
    }

    /// Submits what is queued and waits for one completion, or only polls when `timeout` is zero.
    fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let result = match timeout {
            Some(Duration::ZERO) => self.ring.submit(),
            None => self.ring.submit_and_wait(1),
            Some(timeout) => {
                let limit = types::Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&limit))
            }
        };
        match result {
            Ok(_) => Ok(()),
            // Interrupted, out of time, or short of memory for a moment: the caller comes again.
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            if entry.user_data() == EVENT_DATA {
                self.event_armed = false;
                continue;
            }
            let slot = usize::try_from(entry.user_data()).expect("user data of a slot is its index");
            let operation = self.slots[slot].take().expect("a completion belongs to an occupied slot");
            self.vacant.push(slot);
            let outcome = match entry.result() {
                error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
                count => Ok(usize::try_from(count).expect("not negative")),
            };
            completions.push(operation.complete(outcome));
        }
    }
}

impl BlockDevice for RingDevice {
    fn capacity(&self) -> ByteCount {
        self.capacity
    }

    fn depth(&self) -> usize {
        self.slots.len()
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    fn submit(&mut self, mut operation: Operation) -> Result<(), Operation> {
        let Some(slot) = self.vacant.pop() else { return Err(operation) };
        let entry = Self::entry(&self.registered, &mut operation, slot);
        // SAFETY: the entry points into the buffer that `operation` owns (or at nothing, for a flush). The
        // operation goes into `slots[slot]` below and stays there, unread and unmoved in memory, until the
        // completion with this slot's number is reaped: the memory outlives the operation, unaliased.
        // `drop` leaks the operation when no completion comes.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            self.vacant.push(slot);
            return Err(operation);
        }
        self.slots[slot] = Some(operation);
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>, completions: &mut Vec<Completion>) -> io::Result<()> {
        let before = completions.len();
        self.reap(completions);
        let timeout = if completions.len() > before { Some(Duration::ZERO) } else { timeout };
        if timeout != Some(Duration::ZERO) {
            self.arm_event();
        }
        self.enter(timeout)?;
        self.reap(completions);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.event.waker()
    }
}

impl Drop for RingDevice {
    fn drop(&mut self) {
        let limit = Instant::now() + DROP_GRACE;
        let mut completions = Vec::new();
        while (self.in_flight() > 0 || self.event_armed) && Instant::now() < limit {
            if self.event_armed {
                self.waker().wake();
            }
            if self.enter(Some(Duration::from_millis(20))).is_err() {
                break;
            }
            self.reap(&mut completions);
        }
        if self.in_flight() == 0 && !self.event_armed {
            // The kernel takes a closed ring apart later; the device must be free for its next owner now.
            drop(self.ring.submitter().unregister_files());
            drop(self.file.unlock());
        }
        // The kernel may still write there, whatever becomes of the ring: never reuse this memory.
        for operation in self.slots.iter_mut().filter_map(Option::take) {
            std::mem::forget(operation);
        }
        if self.event_armed {
            std::mem::forget(std::mem::replace(&mut self.event_counter, Box::new([0; 8])));
        }
    }
}

impl fmt::Debug for RingDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingDevice")
            .field("path", &self.path)
            .field("capacity", &self.capacity)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// Opens with `O_DIRECT` and takes the lock. The capacity is known for a regular file only.
fn open_direct(path: &Path, read_only: bool) -> Result<(File, Option<u64>), DeviceError> {
    let open = |source| DeviceError::Open { path: path.to_owned(), source };
    let kind = std::fs::metadata(path).map_err(open)?;
    let block = kind.file_type().is_block_device();
    if !block && !kind.is_file() {
        return Err(DeviceError::WrongType { path: path.to_owned() });
    }
    // O_EXCL on a block device: fails while a file system or another holder has it.
    let exclusive = if block && !read_only { libc::O_EXCL } else { 0 };
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        .custom_flags(libc::O_DIRECT | libc::O_CLOEXEC | exclusive)
        .open(path)
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL) => DeviceError::NoDirectIo { path: path.to_owned(), source },
            Some(libc::EBUSY) => DeviceError::Busy { path: path.to_owned() },
            _ => open(source),
        })?;
    let lock = if read_only { file.try_lock_shared() } else { file.try_lock() };
    match lock {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(DeviceError::Busy { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => return Err(open(source)),
    }
    Ok((file, (!block).then_some(kind.len())))
}

/// Asks the kernel what alignment direct I/O needs here (statx, since Linux 6.1).
fn check_alignment(path: &Path, file: &File) -> Result<(), DeviceError> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the descriptor is open, the path is an empty C string as AT_EMPTY_PATH wants, and the kernel
    // writes at most one `statx` into `stat`.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            stat.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(DeviceError::Open { path: path.to_owned(), source: io::Error::last_os_error() });
    }
    // SAFETY: zeroed above, which is a valid `statx`, and filled in by the kernel.
    let stat = unsafe { stat.assume_init() };
    if stat.stx_mask & libc::STATX_DIOALIGN == 0 {
        // The file system does not say; O_DIRECT was accepted, and a wrong guess is EINVAL at first use.
        return Ok(());
    }
    let (memory, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    if memory == 0 || offset == 0 {
        let source = io::ErrorKind::Unsupported.into();
        return Err(DeviceError::NoDirectIo { path: path.to_owned(), source });
    }
    if memory as usize > STAGGER_SIZE || offset as usize > SECTOR_SIZE {
        return Err(DeviceError::Alignment { path: path.to_owned(), memory, offset });
    }
    Ok(())
}

/// Registers files, memory and restrictions, then enables the ring.
fn prepare(
    ring: &IoUring,
    files: &[RawFd; 2],
    options: &RingOptions,
) -> Result<Vec<std::ops::Range<usize>>, (&'static str, io::Error)> {
    let submitter = ring.submitter();
    let mut allowed = vec![opcode::Read::CODE, opcode::ReadFixed::CODE];
    if !options.read_only {
        allowed.extend([opcode::Write::CODE, opcode::WriteFixed::CODE, opcode::Fsync::CODE]);
    }
    let mut probe = Probe::new();
    submitter.register_probe(&mut probe).map_err(|e| ("probe", e))?;
    if allowed.iter().any(|code| !probe.is_supported(*code)) {
        return Err(("probe: the kernel lacks an opcode", io::ErrorKind::Unsupported.into()));
    }
    submitter.register_files(files).map_err(|e| ("register files", e))?;
    let registered = options.register.as_ref().map_or_else(Vec::new, |pool| register_memory(ring, pool));
    let fixed_file = squeue::Flags::FIXED_FILE.bits();
    let mut restrictions: Vec<Restriction> = allowed.into_iter().map(Restriction::sqe_op).collect();
    restrictions.push(Restriction::register_op(UNREGISTER_FILES));
    restrictions.push(Restriction::sqe_flags_allowed(fixed_file));
    restrictions.push(Restriction::sqe_flags_required(fixed_file));
    submitter.register_restrictions(&mut restrictions).map_err(|e| ("restrictions", e))?;
    submitter.register_enable_rings().map_err(|e| ("enable", e))?;
    Ok(registered)
}

/// Registers the arena of `pool`; empty when the kernel refuses, for lack of lockable memory for example.
fn register_memory(ring: &IoUring, pool: &BufferPool) -> Vec<std::ops::Range<usize>> {
    let (base, size) = pool.memory();
    let pieces: Vec<libc::iovec> = (0..size)
        .step_by(REGISTERED_SIZE_MAX)
        .map(|start| libc::iovec {
            iov_base: base.as_ptr().wrapping_add(start).cast(),
            iov_len: (size - start).min(REGISTERED_SIZE_MAX),
        })
        .collect();
    // SAFETY: the pieces are the arena's own mapping. The kernel pins the pages; it accesses them only for
    // submissions, each of which owns its `Buffer` and thereby keeps the arena mapped.
    match unsafe { ring.submitter().register_buffers(&pieces) } {
        Ok(()) => pieces.iter().map(|p| p.iov_base as usize..p.iov_base as usize + p.iov_len).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `mib` in the target directory, which lies on a file system with O_DIRECT.
    fn device_file(mib: u64) -> tempfile::NamedTempFile {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/tmp");
        std::fs::create_dir_all(directory).unwrap();
        let file = tempfile::NamedTempFile::new_in(directory).unwrap();
        file.as_file().set_len(mib << 20).unwrap();
        file
    }

    fn run(device: &mut RingDevice, operation: Operation) -> Completion {
        device.submit(operation).unwrap();
        let mut completions = Vec::new();
        while completions.is_empty() {
            device.wait(None, &mut completions).unwrap();
        }
        completions.pop().unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_with_registered_memory_and_without() {
        for (register, in_pieces) in [(false, false), (true, false), (true, true)] {
            let file = device_file(4);
            let pool = BufferPool::new(ByteCount::mib(4)).unwrap();
            // Free is every other piece of 18 sectors: a larger buffer is not in registered memory.
            let all = std::iter::from_fn(|| pool.try_acquire(17 * 4096));
            let mut pieces: Vec<_> = all.take(if in_pieces { usize::MAX } else { 0 }).map(Some).collect();
            pieces.iter_mut().step_by(2).for_each(|piece| drop(piece.take()));
            let options = RingOptions { register: register.then(|| pool.clone()), ..RingOptions::default() };
            let mut device = RingDevice::open(file.path(), &options).unwrap();
            assert_eq!(device.capacity(), ByteCount::mib(4));
            let mut buffer = pool.try_acquire(100_000).unwrap();
            buffer.iter_mut().enumerate().for_each(|(i, b)| *b = (i % 251) as u8);
            buffer.headroom_mut().fill(7);
            let length = buffer.framed_len();
            let written = run(&mut device, Operation::write(1, 8192, buffer, 0, length));
            assert_eq!((written.token, written.kind, written.outcome.unwrap()), (1, Kind::Write, length));
            assert!(run(&mut device, Operation::flush(2)).outcome.is_ok());
            let mut back = written.buffer.unwrap();
            back.framed_mut().fill(0);
            let read = run(&mut device, Operation::read(3, 8192 + 4096, back, 4096, length - 4096));
            assert_eq!(read.outcome.unwrap(), length - 4096);
            let back = read.buffer.unwrap();
            assert!(back.iter().enumerate().all(|(i, b)| *b == (i % 251) as u8));
            assert!(back.headroom().iter().all(|b| *b == 0), "the headroom was not asked for");
            drop((device, back, pieces));
            assert_eq!(pool.available(), pool.budget());
        }
    }

    #[test]
    fn many_operations_complete_once_each_and_the_depth_is_kept() {
        let file = device_file(8);
        let pool = BufferPool::new(ByteCount::mib(8)).unwrap();
        let mut device =
            RingDevice::open(file.path(), &RingOptions { depth: 5, ..RingOptions::default() }).unwrap();
        let (mut next, mut done, mut completions) = (0u64, vec![false; 100], Vec::new());
        while done.iter().any(|d| !d) {
            while next < 100 {
                let buffer = pool.try_acquire(4096).unwrap();
                match device.submit(Operation::write(next, next * 8192, buffer, 0, 8192)) {
                    Ok(()) => next += 1,
                    Err(refused) => {
                        assert_eq!((device.in_flight(), refused.token()), (5, next));
                        break;
                    }
                }
            }
            device.wait(None, &mut completions).unwrap();
            for completion in completions.drain(..) {
                assert_eq!(completion.outcome.unwrap(), 8192);
                assert!(!std::mem::replace(&mut done[completion.token as usize], true));
            }
        }
    }

    #[test]
    fn a_waker_ends_a_wait_from_another_thread_every_time() {
        let file = device_file(1);
        let mut device = RingDevice::open(file.path(), &RingOptions::default()).unwrap();
        for _ in 0..3 {
            let waker = device.waker();
            let thread = std::thread::spawn(move || waker.wake());
            device.wait(None, &mut Vec::new()).unwrap();
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_read_only_ring_cannot_write() {
        let file = device_file(1);
        let pool = BufferPool::new(ByteCount::mib(2)).unwrap();
        let options = RingOptions { read_only: true, ..RingOptions::default() };
        let mut device = RingDevice::open(file.path(), &options).unwrap();
        let write = Operation::write(1, 0, pool.try_acquire(4096).unwrap(), 0, 4096);
        assert_eq!(run(&mut device, write).outcome.unwrap_err().raw_os_error(), Some(libc::EACCES));
        let read = Operation::read(1, 0, pool.try_acquire(4096).unwrap(), 0, 4096);
        assert_eq!(run(&mut device, read).outcome.unwrap(), 4096);
    }

    #[test]
    fn reads_past_the_end_are_short() {
        let file = device_file(1);
        let pool = BufferPool::new(ByteCount::mib(2)).unwrap();
        let mut device = RingDevice::open(file.path(), &RingOptions::default()).unwrap();
        let read = Operation::read(1, (1 << 20) - 4096, pool.try_acquire(4096).unwrap(), 0, 8192);
        assert_eq!(run(&mut device, read).outcome.unwrap(), 4096);
        let read = Operation::read(1, 1 << 20, pool.try_acquire(4096).unwrap(), 0, 8192);
        assert_eq!(run(&mut device, read).outcome.unwrap(), 0);
    }

    #[test]
    fn a_device_has_one_owner() {
        let file = device_file(1);
        let first = RingDevice::open(file.path(), &RingOptions::default()).unwrap();
        let second = RingDevice::open(file.path(), &RingOptions::default());
        assert!(matches!(second, Err(DeviceError::Busy { .. })));
        drop(first);
        assert!(RingDevice::open(file.path(), &RingOptions::default()).is_ok());
    }

    #[test]
    fn what_is_no_device_is_refused_with_its_reason() {
        let open = |path: &str| RingDevice::open(Path::new(path), &RingOptions::default());
        assert!(matches!(open("/dev/null"), Err(DeviceError::WrongType { .. })));
        assert!(matches!(open("/nonexistent/drive"), Err(DeviceError::Open { .. })));
        let proc = open("/proc/self/status").unwrap_err();
        assert!(!proc.to_string().is_empty());
    }
}
