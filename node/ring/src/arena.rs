//! One anonymous mapping, aligned to huge pages and advised to use them.
//!
//! Fewer, larger physical segments per request are worth more than any choice of library: 1.2 to 2 times
//! the throughput, measured. Pages are touched on first use, so an idle arena costs address space only. What is
//! for a single buffer is [small pages](Arena::apart): it is gone after it.

#![expect(unsafe_code, reason = "maps and unmaps memory")]

use std::{io, ptr::NonNull};

/// Size and alignment of a huge page in bytes (x86-64).
pub(crate) const HUGE_PAGE_SIZE: usize = 2 * 1024 * 1024;

/// Not reserved: most of an arena is never touched. Miri knows the first two flags only.
const MAPPING_FLAGS: libc::c_int =
    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | if cfg!(miri) { 0 } else { libc::MAP_NORESERVE };

/// The mapping. Zero-filled by the kernel, readable and writable, private to this process.
#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<u8>,
    size: usize,
    mapping: NonNull<libc::c_void>,
    mapping_size: usize,
}

// SAFETY: the arena owns its mapping and hands out only addresses; access to what lies there is governed
// by `Buffer`, whose ranges never overlap. Nothing in the arena is tied to a thread.
unsafe impl Send for Arena {}
// SAFETY: as above; `&Arena` gives out the base address and the size, both fixed for its life.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps at least `size` bytes, rounded up to whole huge pages.
    pub(crate) fn new(size: usize) -> io::Result<Self> {
        let too_large = || io::Error::from(io::ErrorKind::InvalidInput);
        let size = size.max(1).checked_next_multiple_of(HUGE_PAGE_SIZE).ok_or_else(too_large)?;
        // One huge page more than needed, so that an aligned range of `size` lies inside.
        let mapping_size = size.checked_add(HUGE_PAGE_SIZE).ok_or_else(too_large)?;
        let mapping = map(mapping_size)?;
        let skip = mapping.as_ptr().align_offset(HUGE_PAGE_SIZE);
        // SAFETY: `skip` is below HUGE_PAGE_SIZE and the mapping is that much longer than `size`, so the
        // result and the `size` bytes after it lie inside the mapping.
        let base = unsafe { mapping.cast::<u8>().add(skip) };
        // Miri has no madvise, and no use for advice.
        #[cfg(not(miri))]
        // SAFETY: the range lies inside the mapping made above. Advice: when it is refused (kernel without
        // transparent huge pages) the arena works with small pages, so the result is not needed.
        // A core dump would otherwise carry payloads of tenants.
        unsafe {
            libc::madvise(base.as_ptr().cast(), size, libc::MADV_HUGEPAGE);
            libc::madvise(base.as_ptr().cast(), size, libc::MADV_DONTDUMP);
        }
        Ok(Self { base, size, mapping, mapping_size })
    }

    /// Maps `size` bytes, whole pages, and nothing beside them.
    pub(crate) fn apart(size: usize) -> io::Result<Self> {
        let mapping = map(size)?;
        // Miri has no madvise, and no use for advice.
        #[cfg(not(miri))]
        // SAFETY: the range is the mapping made above. As for `new`, it is advice.
        unsafe {
            libc::madvise(mapping.as_ptr(), size, libc::MADV_DONTDUMP);
        }
        Ok(Self { base: mapping.cast(), size, mapping, mapping_size: size })
    }

    /// First byte.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Usable bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }
}

/// A fresh mapping of `size` bytes.
fn map(size: usize) -> io::Result<NonNull<libc::c_void>> {
    // SAFETY: a fresh private anonymous mapping at an address of the kernel's choice; it aliases nothing.
    let mapping = unsafe {
        libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, MAPPING_FLAGS, -1, 0)
    };
    if mapping == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(mapping).ok_or_else(|| io::Error::other("mmap returned address zero"))
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what was mapped for it. Every `Buffer` holds a reference to the pool that owns
        // this arena, so no buffer is left; a device that still writes leaks its buffers, hence the arena.
        unsafe { libc::munmap(self.mapping.as_ptr(), self.mapping_size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arenas_are_whole_aligned_huge_pages() {
        for size in [1, HUGE_PAGE_SIZE, HUGE_PAGE_SIZE + 1] {
            let arena = Arena::new(size).unwrap();
            assert_eq!(arena.base().as_ptr().align_offset(HUGE_PAGE_SIZE), 0);
            assert!(arena.size() >= size && arena.size().is_multiple_of(HUGE_PAGE_SIZE));
        }
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert!(Arena::new(usize::MAX).is_err());
        assert!(Arena::new(usize::MAX - HUGE_PAGE_SIZE).is_err());
    }
}
