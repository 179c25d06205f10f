//! Memory for reading, shared out so that no read waits for a read that waits for it.
//!
//! A read that held some of its buffers while waiting for the rest would, with enough others like it, wait
//! for ever; on two nodes at once, each for the other. So a read reserves everything it will hold before
//! it takes the first buffer, and four uses never share:
//!
//! | part of the pool | for                                     | held until                     |
//! |------------------|-----------------------------------------|--------------------------------|
//! | a half, or what is left | content on its way to clients    | the client has taken it        |
//! | an eighth        | what a write takes back of a stripe, because drives failed under it, shard by shard | it is copied |
//! | a quarter, [`REBUILD_MAX`] sectors at least | shards gathered to rebuild lost ones | these are rebuilt |
//! | an eighth        | shards read for peers, never reserved   | they are sent; waits for nobody |
//!
//! In a pool of [`POOL_MIN`] or more each part has room for the largest that can be asked of it. Where it had none, what
//! ran alone in its part held memory of another: two such at once, and content beside them, waited for each other for ever.
//!
//! Whoever holds one of them may wait only for those below it. A body that is copied (a client's copy, a content that
//! is cut anew) holds content while it writes: if what the write takes back came out of the same share, enough copies
//! that lose a drive at once would wait for each other for ever, and every client's read behind them.
//!
//! A copy also waits for memory to write with, and whoever holds that may be a copy that waits for content. So copies
//! are admitted only as far as all that they may hold at once fits into the content's part ([`ReadMemory::admit_copy`]):
//! then they wait only for clients, who take what is theirs or are cut off.
//!
//! Only content may be reserved, and held, by a future that nobody polls; whoever holds another share runs on its own,
//! so that it gives it back. The pool keeps its side: bytes that are free are to be had, also when they lie in pieces.
//!
//! Reservations are granted in the order they were asked for, so a large one is not starved by small ones.

use std::sync::Arc;

use holdfast_model::{
    ByteCount,
    limits::{DATA_SHARDS_MAX, SECTOR_SIZE, SHARD_SIZE_MAX},
};
use holdfast_ring::BufferPool;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Sectors that a buffer takes beside its payload: headroom and stagger.
const SECTORS_EXTRA: usize = 2;

/// Sectors of a buffer for the largest shard.
const SHARD_MAX: usize = SHARD_SIZE_MAX / SECTOR_SIZE + SECTORS_EXTRA;

/// Sectors of the content of the widest stripe.
const CONTENT_MAX: usize = DATA_SHARDS_MAX * SHARD_MAX;

/// Shards of one stripe that are rebuilt or moved together at most.
pub(crate) const MOVED_TOGETHER_MAX: usize = 4;

/// Sectors of the largest rebuild: what is gathered, and what is made of it.
const REBUILD_MAX: usize = CONTENT_MAX + MOVED_TOGETHER_MAX * SHARD_MAX;

/// Least memory for reading with which no read waits for ever.
pub const POOL_MIN: ByteCount = ByteCount::mib(28);

const _: () = {
    let total = POOL_MIN.get() as usize / SECTOR_SIZE;
    assert!(total / 8 >= SHARD_MAX);
    assert!(total - REBUILD_MAX - 2 * (total / 8) >= CONTENT_MAX);
};

/// The read pool and its shares.
#[derive(Debug, Clone)]
pub struct ReadMemory {
    pool: BufferPool,
    contents: Share,
    /// What admitted copies may hold of the contents' share.
    copies: Share,
    read_backs: Share,
    rebuilds: Share,
}

/// Counts sectors.
#[derive(Debug, Clone)]
struct Share {
    free: Arc<Semaphore>,
    total: u32,
}

/// The right to hold so many bytes of buffers; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    _sectors: OwnedSemaphorePermit,
}

impl ReadMemory {
    /// Shares out a pool.
    #[must_use]
    pub fn new(pool: BufferPool) -> Self {
        let sectors = usize::try_from(pool.budget().get()).unwrap_or(usize::MAX) / SECTOR_SIZE;
        let rebuilds = if pool.budget() < POOL_MIN { sectors / 4 } else { REBUILD_MAX.max(sectors / 4) };
        let contents = sectors - rebuilds - 2 * (sectors / 8);
        let [contents, copies, read_backs, rebuilds] =
            [contents, contents, sectors / 8, rebuilds].map(Share::new);
        Self { contents, copies, read_backs, rebuilds, pool }
    }

    pub(crate) fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// For buffers of these lengths that go to a client.
    pub(crate) async fn reserve_content(&self, lengths: impl Iterator<Item = usize>) -> Reservation {
        self.contents.reserve(lengths).await
    }

    /// Admits a copy that holds content in buffers of these lengths at most, while it waits for memory to write with. To
    /// be held until it has ended.
    pub async fn admit_copy(&self, lengths: impl Iterator<Item = usize>) -> Reservation {
        self.copies.reserve(lengths).await
    }

    /// For buffers of these lengths whose content a write takes back at once.
    pub(crate) async fn reserve_read_back(&self, lengths: impl Iterator<Item = usize>) -> Reservation {
        self.read_backs.reserve(lengths).await
    }

    /// For `count` shards of `length` gathered to rebuild another one.
    pub(crate) async fn reserve_rebuild(&self, count: usize, length: usize) -> Reservation {
        self.rebuilds.reserve(std::iter::repeat_n(length, count)).await
    }
}

impl Share {
    fn new(sectors: usize) -> Self {
        let total = u32::try_from(sectors.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(total as usize)), total }
    }

    async fn reserve(&self, lengths: impl Iterator<Item = usize>) -> Reservation {
        let sectors: usize = lengths.map(|length| length.div_ceil(SECTOR_SIZE) + SECTORS_EXTRA).sum();
        // What is larger than the whole share takes all of it: it then runs alone.
        let sectors = u32::try_from(sectors).unwrap_or(u32::MAX).min(self.total);
        let permit = Arc::clone(&self.free).acquire_many_owned(sectors).await;
        Reservation { _sectors: permit.expect("the semaphore is never closed") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn contents_leave_half_of_the_pool_to_rebuilds_and_peers() {
        let pool = BufferPool::new(ByteCount::mib(16)).unwrap();
        let memory = ReadMemory::new(pool.clone());
        let mut held = Vec::new();
        while let Some(reservation) = memory.reserve_content([SHARD_SIZE_MAX; 4].into_iter()).now_or_never() {
            held.push((reservation, pool.acquire_many(4, SHARD_SIZE_MAX).now_or_never().unwrap()));
        }
        assert_eq!(held.len(), 3);
        assert!(pool.available() >= ByteCount::mib(8));
        let rebuild = memory.reserve_rebuild(4, SHARD_SIZE_MAX).now_or_never();
        assert!(rebuild.is_some() && pool.acquire_many(4, SHARD_SIZE_MAX).now_or_never().is_some());

        held.pop();
        assert!(memory.reserve_content([SHARD_SIZE_MAX; 4].into_iter()).now_or_never().is_some());
    }

    #[tokio::test]
    async fn the_largest_of_each_part_fit_the_smallest_pool_beside_each_other() {
        let pool = BufferPool::new(POOL_MIN).unwrap();
        let memory = ReadMemory::new(pool.clone());
        let shards = |count: usize| std::iter::repeat_n(SHARD_SIZE_MAX, count);
        let mut contents = Vec::new();
        // Content up to the last byte that is given out.
        for each in [DATA_SHARDS_MAX, 1] {
            while let Some(reservation) = memory.reserve_content(shards(each)).now_or_never() {
                contents.push((reservation, pool.acquire_many(each, SHARD_SIZE_MAX).now_or_never().unwrap()));
            }
        }
        assert!(!contents.is_empty());
        let mut backs = Vec::new();
        while let Some(reservation) = memory.reserve_read_back(shards(1)).now_or_never() {
            backs.push((reservation, pool.acquire(SHARD_SIZE_MAX).now_or_never().unwrap()));
        }
        assert!(!backs.is_empty());
        let held = DATA_SHARDS_MAX + MOVED_TOGETHER_MAX;
        let _rebuild = memory.reserve_rebuild(held, SHARD_SIZE_MAX).now_or_never().unwrap();
        let gathered = pool.acquire_many(DATA_SHARDS_MAX, SHARD_SIZE_MAX).now_or_never();
        let made = pool.acquire_many(MOVED_TOGETHER_MAX, SHARD_SIZE_MAX).now_or_never();
        assert!(gathered.is_some() && made.is_some());
        assert!(pool.available() >= ByteCount::mib(3), "and peers read");
    }

    #[tokio::test]
    async fn copies_that_hold_all_content_can_still_take_back_what_they_wrote() {
        let memory = ReadMemory::new(BufferPool::new(ByteCount::mib(16)).unwrap());
        let mut held = Vec::new();
        while let Some(reservation) = memory.reserve_content([SHARD_SIZE_MAX; 4].into_iter()).now_or_never() {
            held.push(reservation);
        }
        // Another copy waits in front of everybody.
        let mut next = Box::pin(memory.reserve_content([SHARD_SIZE_MAX; 4].into_iter()));
        assert!(next.as_mut().now_or_never().is_none());
        for _ in 0..3 {
            let back = memory.reserve_read_back([SHARD_SIZE_MAX; 2].into_iter()).now_or_never();
            assert!(back.is_some() && memory.reserve_rebuild(4, SHARD_SIZE_MAX).now_or_never().is_some());
        }
    }

    #[tokio::test]
    async fn copies_are_admitted_as_far_as_the_content_of_all_of_them_has_room() {
        let memory = ReadMemory::new(BufferPool::new(ByteCount::mib(16)).unwrap());
        let each = || [SHARD_SIZE_MAX; 4].into_iter();
        let mut admitted = Vec::new();
        while let Some(copy) = memory.admit_copy(each()).now_or_never() {
            admitted.push(copy);
        }
        // Each of them gets its content without any of them having ended.
        let held: Vec<_> =
            admitted.iter().filter_map(|_| memory.reserve_content(each()).now_or_never()).collect();
        assert!(!held.is_empty());
        assert_eq!(held.len(), admitted.len());
        drop(admitted.pop());
        assert!(memory.admit_copy(each()).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_is_larger_than_its_share_runs_alone_and_is_not_starved() {
        let memory = ReadMemory::new(BufferPool::new(ByteCount::mib(4)).unwrap());
        let small = memory.reserve_content([4096].into_iter()).await;
        let mut large = Box::pin(memory.reserve_content([SHARD_SIZE_MAX; 16].into_iter()));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(
            memory.reserve_content([4096].into_iter()).now_or_never().is_none(),
            "the large one comes first"
        );
        drop(small);
        large.await;
    }
}
