//! A bounded pool of I/O buffers, and the buffer.
//!
//! Memory of a buffer: one sector of headroom for a record header, then the payload, padded with zeros to
//! whole sectors. Header and payload are contiguous, so a record is one write and nothing is copied.
//!
//! ```text
//! | headroom, 4096 B | payload, `len` B | zeros to a sector |
//!  ^ multiple of 512                     `framed()` covers all three
//! ```
//!
//! The buffers of one [`BufferPool::acquire_many`] start 512 bytes further into a page each: the streams
//! of an erasure code then do not fight for the same cache sets (1.3 times the encoding rate, measured).
//! Devices take memory aligned to 512 bytes; [`crate::RingDevice`] refuses one that does not.
//!
//! A request waits only while fewer bytes are free than it needs. Where they are free in pieces, a buffer gets memory
//! [of its own](Room::Apart) for as long as it lives: who shares a pool out by bytes must be able to rely on them, and
//! a large buffer that waited for a hole would wait for whoever holds the small ones around it, and all others behind it.
//!
//! Invariants: buffers never overlap; waiters are served in the order they came, and all the buffers of
//! a request at once, so that nobody holds some while waiting for others.

#![expect(unsafe_code, reason = "turns ranges of the arena into slices")]

use std::{
    collections::VecDeque,
    fmt, io,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::Arc,
};

use holdfast_model::{
    ByteCount,
    limits::{DATA_SHARDS_MAX, PARITY_SHARDS_MAX, RECORD_PAYLOAD_MAX, SECTOR_SIZE, SHARD_SIZE_MAX},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{arena::Arena, room::Room, space::Space};

/// Step in bytes by which buffers of one request are staggered; also the alignment of every buffer.
pub(crate) const STAGGER_SIZE: usize = 512;

/// Distinct starts inside a sector.
const STAGGER_STEPS: usize = SECTOR_SIZE / STAGGER_SIZE;

/// Sectors of a buffer for the largest shard: headroom, payload, and one that the stagger may spill into.
const SHARD_SECTORS_MAX: usize = 1 + SHARD_SIZE_MAX / SECTOR_SIZE + 1;

/// Most buffers of one request: one stripe.
const REQUEST_BUFFERS_MAX: usize = DATA_SHARDS_MAX + PARITY_SHARDS_MAX;

/// Why a pool cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Less than two of the largest shards.
    #[error("a buffer pool needs at least {min}, got {budget}; raise `buffer_memory`")]
    TooSmall {
        /// What was asked for.
        budget: ByteCount,
        /// The least that works.
        min: ByteCount,
    },
    /// The kernel gave no memory.
    #[error("could not map {budget} for buffers; lower `buffer_memory` or add memory")]
    Memory {
        /// What was asked for.
        budget: ByteCount,
        /// The system's answer.
        source: io::Error,
    },
}

/// A bounded pool of buffers. Clones share one budget.
#[derive(Clone)]
pub struct BufferPool {
    inner: Arc<Inner>,
}

struct Inner {
    arena: Arena,
    state: Mutex<State>,
}

struct State {
    space: Space,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    count: usize,
    payload_len: usize,
    reply: oneshot::Sender<Vec<Buffer>>,
}

/// Sectors a buffer of `payload_len` takes when it starts `stagger` steps into its first sector.
fn sectors_of(payload_len: usize, stagger: usize) -> usize {
    1 + payload_len.div_ceil(SECTOR_SIZE) + usize::from(stagger > 0)
}

impl BufferPool {
    /// Least budget: two of the largest shards, or one of the largest records.
    pub const BUDGET_MIN: ByteCount = ByteCount::new((2 * SHARD_SECTORS_MAX * SECTOR_SIZE) as u64);

    /// A pool of `budget` bytes, headroom and padding included. Memory is touched when first used.
    ///
    /// # Errors
    /// [`PoolError::TooSmall`] below [`Self::BUDGET_MIN`]; [`PoolError::Memory`] when the kernel refuses.
    pub fn new(budget: ByteCount) -> Result<Self, PoolError> {
        if budget < Self::BUDGET_MIN {
            return Err(PoolError::TooSmall { budget, min: Self::BUDGET_MIN });
        }
        let memory = |source| PoolError::Memory { budget, source };
        let size = usize::try_from(budget.get()).map_err(|_| memory(io::ErrorKind::InvalidInput.into()))?;
        let arena = Arena::new(size).map_err(memory)?;
        // The arena is whole huge pages; the budget is kept as asked, to the sector.
        let state = Mutex::new(State { space: Space::new(size / SECTOR_SIZE), waiting: VecDeque::new() });
        Ok(Self { inner: Arc::new(Inner { arena, state }) })
    }

    /// One buffer of `payload_len` bytes; waits its turn while the pool is exhausted. The payload holds
    /// what its last user left there; the padding after it is zero.
    ///
    /// # Panics
    /// When `payload_len` is above `RECORD_PAYLOAD_MAX`, which no record has.
    pub async fn acquire(&self, payload_len: usize) -> Buffer {
        let mut buffers = self.acquire_many(1, payload_len).await;
        buffers.pop().expect("a request for one buffer is answered with one")
    }

    /// `count` buffers at once: holds none while waiting for the rest. For the shards of one stripe.
    ///
    /// # Panics
    /// When the request could never be met: `payload_len` above `RECORD_PAYLOAD_MAX`, more buffers than the
    /// widest stripe has shards, or more than the whole budget holds ([`Self::holds`] tells).
    pub async fn acquire_many(&self, count: usize, payload_len: usize) -> Vec<Buffer> {
        assert!(payload_len <= RECORD_PAYLOAD_MAX, "payload of {payload_len} B is larger than any record's");
        assert!(count <= REQUEST_BUFFERS_MAX, "{count} buffers are more than any stripe has shards");
        assert!(self.holds(count, payload_len), "{count} x {payload_len} B exceed the pool's whole budget");
        if count == 0 {
            return Vec::new();
        }
        let answer = {
            let mut state = self.inner.state.lock();
            if state.waiting.is_empty()
                && let Some(buffers) = self.take(&mut state.space, count, payload_len)
            {
                return buffers;
            }
            let (reply, answer) = oneshot::channel();
            state.waiting.push_back(Waiter { count, payload_len, reply });
            answer
        };
        // Dropped after what is awaited: a cancelled waiter drops `answer`, and who stood behind it is served. Buffers
        // sent to it come back through their own drop.
        let _next = ServesNext(self);
        answer.await.expect("the pool lives as long as `self` and answers every waiter")
    }

    /// One buffer if there is room now and nobody is waiting.
    ///
    /// # Panics
    /// When `payload_len` is above `RECORD_PAYLOAD_MAX`.
    #[must_use]
    pub fn try_acquire(&self, payload_len: usize) -> Option<Buffer> {
        assert!(payload_len <= RECORD_PAYLOAD_MAX, "payload of {payload_len} B is larger than any record's");
        let mut state = self.inner.state.lock();
        if !state.waiting.is_empty() {
            return None;
        }
        self.take(&mut state.space, 1, payload_len)?.pop()
    }

    /// Whether an empty pool could meet a request for `count` buffers of `payload_len`.
    #[must_use]
    pub fn holds(&self, count: usize, payload_len: usize) -> bool {
        let total = self.inner.state.lock().space.total();
        (0..count).map(|i| sectors_of(payload_len, i % STAGGER_STEPS)).sum::<usize>() <= total
    }

    /// Bytes not in use.
    #[must_use]
    pub fn available(&self) -> ByteCount {
        ByteCount::new((self.inner.state.lock().space.free() * SECTOR_SIZE) as u64)
    }

    /// Bytes the pool may use.
    #[must_use]
    pub fn budget(&self) -> ByteCount {
        ByteCount::new((self.inner.state.lock().space.total() * SECTOR_SIZE) as u64)
    }

    /// Start and size of the arena, for registration with a ring.
    pub(crate) fn memory(&self) -> (NonNull<u8>, usize) {
        (self.inner.arena.base(), self.inner.arena.size())
    }

    fn take(&self, space: &mut Space, count: usize, payload_len: usize) -> Option<Vec<Buffer>> {
        let mut rooms = Vec::with_capacity(count);
        for i in 0..count {
            match Room::take(space, sectors_of(payload_len, i % STAGGER_STEPS)) {
                Some(room) => rooms.push(room),
                None => {
                    rooms.into_iter().for_each(|room| room.give_back(space));
                    return None;
                }
            }
        }
        let buffers = rooms.into_iter().enumerate().map(|(i, room)| {
            Buffer::new(Arc::clone(&self.inner), room, (i % STAGGER_STEPS) * STAGGER_SIZE, payload_len)
        });
        Some(buffers.collect())
    }

    fn put_back(&self, room: Room) {
        room.give_back(&mut self.inner.state.lock().space);
        self.serve();
    }

    /// Gives those who wait what there is for them, in the order they came.
    fn serve(&self) {
        let mut state = self.inner.state.lock();
        // Buffers for waiters that went away are dropped after the lock: their drop comes here again.
        let mut unwanted = Vec::new();
        while let Some(first) = state.waiting.front() {
            let (count, payload_len) = (first.count, first.payload_len);
            if first.reply.is_closed() {
                state.waiting.pop_front();
                continue;
            }
            let Some(buffers) = self.take(&mut state.space, count, payload_len) else { break };
            let Some(waiter) = state.waiting.pop_front() else { break };
            if let Err(buffers) = waiter.reply.send(buffers) {
                unwanted.push(buffers);
            }
        }
        drop(state);
        drop(unwanted);
    }
}

/// When a waiter has been given up, those behind it are served, for whom there may have been room.
struct ServesNext<'a>(&'a BufferPool);

impl Drop for ServesNext<'_> {
    fn drop(&mut self) {
        self.0.serve();
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("budget", &self.budget())
            .field("available", &self.available())
            .finish()
    }
}

/// A buffer: owns its range of the pool's memory and returns it when dropped. Dereferences to the payload.
pub struct Buffer {
    pool: Arc<Inner>,
    /// First byte of the headroom.
    base: NonNull<u8>,
    /// Payload bytes.
    len: usize,
    /// Payload bytes there is room for; whole sectors.
    capacity: usize,
    /// Its memory; there until it is dropped.
    room: Option<Room>,
}

// SAFETY: a buffer is the only owner of its range of an arena, which is not tied to a thread.
unsafe impl Send for Buffer {}
// SAFETY: through `&Buffer` the memory is only read.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn new(pool: Arc<Inner>, room: Room, stagger: usize, len: usize) -> Self {
        let capacity = len.next_multiple_of(SECTOR_SIZE);
        let (arena, offset, size) = room.lies_in(&pool.arena);
        assert!(offset + size <= arena.size(), "a buffer lies inside its arena");
        assert!(stagger + SECTOR_SIZE + capacity <= size, "headroom and payload fit their range");
        // SAFETY: by the assertions the offset is inside the arena's mapping.
        let base = unsafe { arena.base().add(offset + stagger) };
        let mut buffer = Self { pool, base, len, capacity, room: Some(room) };
        buffer.set_len(len);
        buffer
    }

    /// Largest payload this buffer can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Changes the length of the payload and makes the padding up to the next sector zero.
    ///
    /// # Panics
    /// When `len` exceeds [`Self::capacity`].
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "payload of {len} B in a buffer for {} B", self.capacity);
        self.len = len;
        let pad = len.next_multiple_of(SECTOR_SIZE);
        self.framed_mut()[SECTOR_SIZE + len..SECTOR_SIZE + pad].fill(0);
    }

    /// The sector before the payload.
    #[must_use]
    pub fn headroom(&self) -> &[u8; SECTOR_SIZE] {
        self.framed().first_chunk().expect("a frame begins with one sector of headroom")
    }

    /// The sector before the payload, for the record header.
    #[must_use]
    pub fn headroom_mut(&mut self) -> &mut [u8; SECTOR_SIZE] {
        self.framed_mut().first_chunk_mut().expect("a frame begins with one sector of headroom")
    }

    /// Bytes of the frame: headroom, payload and padding; whole sectors.
    #[must_use]
    pub fn framed_len(&self) -> usize {
        SECTOR_SIZE + self.len.next_multiple_of(SECTOR_SIZE)
    }

    /// Headroom, payload and padding.
    #[must_use]
    pub fn framed(&self) -> &[u8] {
        // SAFETY: `new` checked that headroom and capacity lie inside the range this buffer owns alone, and
        // `set_len` that the length is within the capacity. The arena is zero-filled by the kernel, hence
        // initialised; it lives as long as `self.pool` or is in `self.room`. No `&mut` exists while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.framed_len()) }
    }

    /// Headroom, payload and padding.
    #[must_use]
    pub fn framed_mut(&mut self) -> &mut [u8] {
        let length = self.framed_len();
        // SAFETY: as for `framed`; `&mut self` makes this the only access. A device that works on the
        // memory owns the buffer meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), length) }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.framed()[SECTOR_SIZE..SECTOR_SIZE + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        &mut self.framed_mut()[SECTOR_SIZE..SECTOR_SIZE + len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(room) = self.room.take() {
            BufferPool { inner: Arc::clone(&self.pool) }.put_back(room);
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Payloads are tenants' data: never printed.
        f.debug_struct("Buffer")
            .field("len", &self.len)
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pool(mib: u64) -> BufferPool {
        BufferPool::new(ByteCount::mib(mib)).unwrap()
    }

    fn is_waiting<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        future.as_mut().poll(&mut context).is_pending()
    }

    #[test]
    fn pools_too_small_for_two_shards_are_refused() {
        assert!(matches!(BufferPool::new(ByteCount::mib(1)), Err(PoolError::TooSmall { .. })));
    }

    #[tokio::test]
    async fn payloads_have_headroom_alignment_and_zero_padding() {
        let pool = pool(16);
        for round in 0..2 {
            for buffer in &mut pool.acquire_many(9, 5000).await {
                assert_eq!(buffer.as_ptr().align_offset(STAGGER_SIZE), 0);
                assert_eq!((buffer.len(), buffer.framed_len(), buffer.capacity()), (5000, 3 * 4096, 8192));
                assert!(
                    buffer.framed()[4096 + 5000..].iter().all(|b| *b == 0),
                    "padding dirty in round {round}"
                );
                buffer.set_len(8192);
                buffer.fill(0xAA);
                buffer.headroom_mut().fill(0xBB);
                assert!(buffer[..].iter().all(|b| *b == 0xAA));
                buffer.set_len(8000);
                assert!(buffer.framed()[4096 + 8000..].iter().all(|b| *b == 0));
            }
        }
        assert_eq!(pool.available(), pool.budget());
    }

    #[tokio::test]
    async fn buffers_of_one_stripe_start_at_different_places_in_their_page() {
        let buffers = pool(16).acquire_many(8, 65536).await;
        let mut starts: Vec<_> = buffers.iter().map(|b| b.as_ptr() as usize % SECTOR_SIZE).collect();
        starts.sort_unstable();
        assert_eq!(starts, (0..8).map(|i| i * 512).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn waiters_are_served_in_order_and_whole() {
        let pool = pool(2);
        let first = pool.acquire_many(3, SHARD_SIZE_MAX).await;
        let mut large = Box::pin(pool.acquire_many(2, SHARD_SIZE_MAX));
        assert!(is_waiting(&mut large));
        // Room for a small one, but it must not overtake.
        let mut small = Box::pin(pool.acquire(10));
        assert!(is_waiting(&mut small));
        assert!(pool.try_acquire(10).is_none());
        drop(first);
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), large).await.unwrap().len(), 2);
        assert_eq!(tokio::time::timeout(Duration::from_secs(10), small).await.unwrap().len(), 10);
        assert_eq!(pool.available(), pool.budget());
    }

    #[test]
    fn a_large_buffer_waits_for_bytes_and_not_for_a_hole() {
        let pool = pool(16);
        let mut small: Vec<Buffer> = std::iter::from_fn(|| pool.try_acquire(100_000)).collect();
        for kept in (0..small.len() / 2).rev() {
            drop(small.swap_remove(2 * kept));
        }
        // Half of it is free, in pieces of 26 sectors.
        let mut large: Vec<Buffer> = std::iter::from_fn(|| pool.try_acquire(SHARD_SIZE_MAX)).collect();
        assert_eq!(large.len(), 15);
        assert!(pool.available() < ByteCount::new((SHARD_SECTORS_MAX * SECTOR_SIZE) as u64));
        for (i, buffer) in large.iter_mut().enumerate() {
            assert_eq!(buffer.as_ptr().align_offset(STAGGER_SIZE), 0);
            buffer.framed_mut().fill(u8::try_from(i).unwrap());
        }
        for (i, buffer) in large.iter().enumerate() {
            assert!(buffer.framed().iter().all(|b| usize::from(*b) == i));
        }
        drop((large, small));
        assert_eq!(pool.available(), pool.budget());
    }

    #[tokio::test]
    async fn a_cancelled_waiter_leaks_nothing_and_blocks_nobody() {
        let pool = pool(2);
        let held = pool.acquire_many(3, SHARD_SIZE_MAX).await;
        let mut cancelled = Box::pin(pool.acquire_many(3, SHARD_SIZE_MAX));
        assert!(is_waiting(&mut cancelled));
        let mut next = Box::pin(pool.acquire(SHARD_SIZE_MAX));
        assert!(is_waiting(&mut next));
        drop(cancelled);
        drop(held);
        drop(tokio::time::timeout(Duration::from_secs(10), next).await.unwrap());
        // There is room for the next one, and nothing comes back meanwhile.
        let held = pool.acquire_many(2, SHARD_SIZE_MAX).await;
        let mut cancelled = Box::pin(pool.acquire_many(3, SHARD_SIZE_MAX));
        assert!(is_waiting(&mut cancelled));
        let mut next = Box::pin(pool.acquire(SHARD_SIZE_MAX));
        assert!(is_waiting(&mut next));
        drop(cancelled);
        drop(tokio::time::timeout(Duration::from_secs(10), next).await.unwrap());
        drop(held);
        // Cancelled after it was served, before it looked.
        let held = pool.acquire_many(3, SHARD_SIZE_MAX).await;
        let mut served = Box::pin(pool.acquire_many(3, SHARD_SIZE_MAX));
        assert!(is_waiting(&mut served));
        drop(held);
        drop(served);
        assert_eq!(pool.available(), pool.budget());
    }

    #[test]
    fn many_threads_never_see_each_others_bytes() {
        let pool = pool(4);
        // Under Miri every byte costs a microsecond.
        let (rounds, size_max) = if cfg!(miri) { (12, 3000) } else { (400usize, 300_000) };
        std::thread::scope(|scope| {
            for id in 0..4u8 {
                let pool = pool.clone();
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        for i in 0..rounds {
                            let mut buffers = pool.acquire_many(1 + i % 3, 1 + (i * 7919) % size_max).await;
                            for buffer in &mut buffers {
                                buffer.fill(id);
                            }
                            tokio::task::yield_now().await;
                            assert!(buffers.iter().all(|b| b.iter().all(|byte| *byte == id)));
                        }
                    });
                });
            }
        });
        assert_eq!(pool.available(), pool.budget());
    }
}
