//! Where content lies in a stripe.
//!
//! Content is cut into cells; a cell is sealed to `cell_size` bytes (plaintext plus tag) and lies whole
//! in one data shard, shard after shard, so a small range touches one shard. The layout follows from
//! the stripe's shape and length alone, so nothing about it is stored:
//!
//! - cells per shard `c = ceil(len / (k * 65520))`, at most 8;
//! - cell size = `ceil(len / (k * c))` plus the tag, rounded up to sectors, at most 64 KiB.
//!
//! ```text
//!  k = 4, c = 2:   shard 0    shard 1    shard 2    shard 3    parity 0   parity 1
//!                 [cell 0]   [cell 2]   [cell 4]   [cell 6]   [      ]   [      ]
//!                 [cell 1]   [cell 3]   [cell 5]   [zeros ]   [      ]   [      ]
//! ```
//!
//! Invariants: the cells' plaintext adds up to `len`; every cell but the last is full; what lies behind
//! the last cell is zero.

use std::ops::Range;

use holdfast_model::limits::{CELL_SIZE_MAX, CELL_TAG_SIZE, CELLS_PER_SHARD_MAX, SECTOR_SIZE};

/// Shape and length of one stripe, and all that follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    data: usize,
    parity: usize,
    len: usize,
    cells_per_shard: usize,
    cell_size: usize,
}

/// One cell, as a plan sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellSpan {
    /// Number of the cell in the stripe.
    pub cell: u32,
    /// Data shard it lies in.
    pub shard: usize,
    /// Its sealed bytes in the shard.
    pub sealed: Range<usize>,
    /// The plaintext it holds, in bytes of the stripe's content.
    pub content: Range<usize>,
}

/// A range of one data shard that a plan reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSpan {
    /// Data shard.
    pub shard: usize,
    /// Bytes of the shard, whole cells.
    pub bytes: Range<usize>,
    /// The cells in it, in order.
    pub cells: Vec<CellSpan>,
}

impl Layout {
    /// The layout of a stripe of `data + parity` shards that holds `len` bytes, or `None` when `len`
    /// is zero or more than [`Layout::capacity`].
    #[must_use]
    pub fn new(data: u8, parity: u8, len: usize) -> Option<Self> {
        let (data, parity) = (usize::from(data), usize::from(parity));
        if data == 0 || len == 0 || len > Self::capacity_of(data) {
            return None;
        }
        let cells_per_shard = len.div_ceil(data * (CELL_SIZE_MAX - CELL_TAG_SIZE));
        let plain = len.div_ceil(data * cells_per_shard);
        let cell_size = (plain + CELL_TAG_SIZE).next_multiple_of(SECTOR_SIZE).min(CELL_SIZE_MAX);
        Some(Self { data, parity, len, cells_per_shard, cell_size })
    }

    /// The most content a stripe of `data` data shards holds, in bytes.
    #[must_use]
    pub fn capacity(data: u8) -> usize {
        Self::capacity_of(usize::from(data))
    }

    const fn capacity_of(data: usize) -> usize {
        data * CELLS_PER_SHARD_MAX * (CELL_SIZE_MAX - CELL_TAG_SIZE)
    }

    /// Data shards.
    #[must_use]
    pub fn data(&self) -> usize {
        self.data
    }

    /// Parity shards.
    #[must_use]
    pub fn parity(&self) -> usize {
        self.parity
    }

    /// Content in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a layout of nothing does not exist")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of each shard.
    #[must_use]
    pub fn shard_len(&self) -> usize {
        self.cells_per_shard * self.cell_size
    }

    /// Cells that hold content.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.len.div_ceil(self.cell_plain())
    }

    fn cell_plain(&self) -> usize {
        self.cell_size - CELL_TAG_SIZE
    }

    /// One cell.
    ///
    /// # Panics
    /// When there is no such cell: a bug of the caller.
    #[must_use]
    pub fn cell(&self, cell: usize) -> CellSpan {
        assert!(cell < self.cells(), "cell {cell} of {self:?}");
        let content = cell * self.cell_plain()..((cell + 1) * self.cell_plain()).min(self.len);
        let offset = (cell % self.cells_per_shard) * self.cell_size;
        CellSpan {
            cell: u32::try_from(cell).expect("a stripe has at most 16 * 8 cells"),
            shard: cell / self.cells_per_shard,
            sealed: offset..offset + content.len() + CELL_TAG_SIZE,
            content,
        }
    }

    /// The shard and the offset in it where the byte at `position` of the content goes, and how many
    /// bytes from there on stay in the same cell.
    #[must_use]
    pub fn slot(&self, position: usize) -> (usize, usize, usize) {
        let span = self.cell(position / self.cell_plain());
        let into = position - span.content.start;
        (span.shard, span.sealed.start + into, span.content.end - position)
    }

    /// What to read for a range of the content: one span for each data shard concerned.
    #[must_use]
    pub fn plan(&self, range: Range<usize>) -> Vec<ShardSpan> {
        let mut spans: Vec<ShardSpan> = Vec::new();
        if range.is_empty() || range.start >= self.len {
            return spans;
        }
        let last = (range.end.min(self.len) - 1) / self.cell_plain();
        for number in range.start / self.cell_plain()..=last {
            let cell = self.cell(number);
            match spans.last_mut() {
                Some(span) if span.shard == cell.shard => {
                    span.bytes.end = cell.sealed.end;
                    span.cells.push(cell);
                }
                _ => {
                    spans.push(ShardSpan { shard: cell.shard, bytes: cell.sealed.clone(), cells: vec![cell] })
                }
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cells_cover_the_content_once_and_stay_in_their_shard(data in 1..17u8, len in 1..8_400_000usize) {
            prop_assume!(len <= Layout::capacity(data));
            let layout = Layout::new(data, 2, len).unwrap();
            prop_assert!(layout.shard_len().is_multiple_of(SECTOR_SIZE));
            prop_assert!(layout.cells_per_shard <= CELLS_PER_SHARD_MAX && layout.cell_size <= CELL_SIZE_MAX);
            let mut position = 0;
            for number in 0..layout.cells() {
                let cell = layout.cell(number);
                prop_assert_eq!(cell.content.start, position);
                prop_assert!(cell.shard < usize::from(data) && cell.sealed.end <= layout.shard_len());
                position = cell.content.end;
            }
            prop_assert_eq!(position, len);
        }

        #[test]
        fn a_plan_reads_the_range_and_little_more(
            data in 1..17u8, len in 1..4_000_000usize, a in 0..4_000_000usize, b in 0..4_000_000usize,
        ) {
            prop_assume!(len <= Layout::capacity(data));
            let layout = Layout::new(data, 2, len).unwrap();
            let (start, end) = (a.min(b) % len, (a.max(b) % len) + 1);
            prop_assume!(start < end);
            let spans = layout.plan(start..end);
            let cells: Vec<&CellSpan> = spans.iter().flat_map(|s| &s.cells).collect();
            prop_assert!(cells[0].content.contains(&start));
            prop_assert!(cells[cells.len() - 1].content.contains(&(end - 1)));
            let read: usize = cells.iter().map(|c| c.content.len()).sum();
            prop_assert!(read <= end - start + 2 * CELL_SIZE_MAX);
            for pair in spans.windows(2) {
                prop_assert!(pair[0].shard < pair[1].shard);
            }
        }
    }

    #[test]
    fn small_content_costs_small_shards() {
        assert_eq!(Layout::new(4, 2, 100 * 1024).unwrap().shard_len(), 28 * 1024);
        assert_eq!(Layout::new(4, 2, 1).unwrap().shard_len(), 4096);
        assert_eq!(Layout::new(4, 2, Layout::capacity(4)).unwrap().shard_len(), 512 * 1024);
        assert!(Layout::new(4, 2, 0).is_none() && Layout::new(4, 2, Layout::capacity(4) + 1).is_none());
    }
}
