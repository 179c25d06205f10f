//! Sealing and encoding of a stripe in place, opening and rebuilding of what was read.

use std::ops::Range;

use holdfast_crypt::{BodyKey, CellAddress, CryptError, StripeSealer};
use holdfast_erasure::{Code, ErasureError};

use crate::layout::{CellSpan, Layout};

/// Why a stripe could not be encoded or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StripeError {
    /// A cell does not open: its bytes are not what was sealed here.
    #[error(transparent)]
    Cell(#[from] CryptError),
    /// Shards do not fit, or too few are there.
    #[error(transparent)]
    Erasure(#[from] ErasureError),
}

/// Seals all cells in place and computes parity on the ciphertext.
///
/// `shards` are `data` shards with the plaintext already at its [`Layout::slot`]s and zeros behind the
/// last cell, then `parity` shards that receive the parity; each [`Layout::shard_len`] bytes.
/// `sealer` is spent on this stripe; `last` says whether it ends the body.
///
/// # Errors
/// `Erasure` when the shards do not fit the layout.
pub fn seal_and_encode(
    layout: &Layout,
    code: &Code,
    mut sealer: StripeSealer<'_>,
    last: bool,
    shards: &mut [&mut [u8]],
) -> Result<(), StripeError> {
    let cells = layout.cells();
    for number in 0..cells {
        let span = layout.cell(number);
        let at = sealer.seal_next(last && number + 1 == cells, &mut shards[span.shard][span.sealed]);
        debug_assert_eq!(at.cell, span.cell, "cells are sealed in their order");
    }
    let (data, parity) = shards.split_at_mut(layout.data());
    let data: Vec<&[u8]> = data.iter().map(|shard| &**shard).collect();
    code.encode(&data, parity)?;
    Ok(())
}

/// Opens cells in place. `shard` holds the shard's bytes from `start` on; afterwards the plaintext of
/// each cell stands where its sealed bytes begin.
///
/// # Errors
/// `Cell` at the first cell that does not open; nothing of `shard` may be used then.
pub fn open_cells(
    layout: &Layout,
    key: &BodyKey,
    stripe: u32,
    last: bool,
    cells: &[CellSpan],
    start: usize,
    shard: &mut [u8],
) -> Result<(), StripeError> {
    for span in cells {
        let at =
            CellAddress { stripe, cell: span.cell, last: last && span.cell as usize + 1 == layout.cells() };
        let sealed: Range<usize> = span.sealed.start - start..span.sealed.end - start;
        key.open_cell(at, &mut shard[sealed])?;
    }
    Ok(())
}

/// Rebuilds one range of one data shard from the same range of any `data` other shards.
///
/// # Errors
/// `Erasure` when too few are present.
pub fn rebuild_range(
    code: &Code,
    present: &[Option<&[u8]>],
    wanted: usize,
    out: &mut [u8],
) -> Result<(), StripeError> {
    code.rebuild(present, &[wanted], &mut [out])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_crypt::{BodyContext, BodySealer};
    use holdfast_model::{BucketId, ClusterId, TenantId, VersionId};
    use proptest::prelude::*;

    use super::*;

    fn body() -> BodySealer {
        BodySealer::begin(BodyContext {
            cluster: ClusterId::from_bytes([1; 16]),
            tenant: TenantId::from_bytes([2; 16]),
            bucket: BucketId::from_bytes([3; 16]),
            content: VersionId::from_bytes([4; 16]),
        })
    }

    /// The sealer of stripe `number`, in a body of which nothing was sealed yet.
    fn nth(body: &BodySealer, number: u32) -> StripeSealer<'_> {
        let mut drawn = body.stripe().unwrap();
        while drawn.number() < number {
            drawn = body.stripe().unwrap();
        }
        drawn
    }

    fn write(layout: &Layout, content: &[u8]) -> Vec<Vec<u8>> {
        let mut shards = vec![vec![0; layout.shard_len()]; layout.data() + layout.parity()];
        let mut position = 0;
        while position < content.len() {
            let (shard, offset, room) = layout.slot(position);
            shards[shard][offset..offset + room].copy_from_slice(&content[position..position + room]);
            position += room;
        }
        shards
    }

    fn refs(shards: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
        shards.iter_mut().map(Vec::as_mut_slice).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn any_range_reads_back_with_any_loss_up_to_the_parity(
            shape in prop::sample::select(vec![(4u8, 2u8), (2, 2), (1, 2), (6, 4)]),
            len in 1..900_000usize,
            cut in (0.0..1.0f64, 0.0..1.0f64),
            losses: u32,
            stripe in 0..3u32,
            last: bool,
        ) {
            let (k, m) = shape;
            let layout = Layout::new(k, m, len.min(Layout::capacity(k))).unwrap();
            let len = layout.len();
            let content: Vec<u8> = (0..len).map(|i| (i * 131 + i / 251) as u8).collect();
            let code = Code::of(k, m).unwrap();
            let body = body();
            let key = body.key();
            let mut shards = write(&layout, &content);
            seal_and_encode(&layout, &code, nth(&body, stripe), last, &mut refs(&mut shards)).unwrap();

            let n = usize::from(k + m);
            let mut lost: Vec<usize> = Vec::new();
            for i in 0..usize::from(m) {
                let candidate = (losses as usize >> (i * 4)) % n;
                if !lost.contains(&candidate) {
                    lost.push(candidate);
                }
            }
            let start = ((len - 1) as f64 * cut.0.min(cut.1)) as usize;
            let end = (((len - 1) as f64 * cut.0.max(cut.1)) as usize + 1).max(start + 1);
            let mut read = Vec::new();
            for span in layout.plan(start..end) {
                let mut bytes = shards[span.shard][span.bytes.clone()].to_vec();
                if lost.contains(&span.shard) {
                    bytes.fill(0xee);
                    let present: Vec<Option<&[u8]>> =
                        (0..n).map(|i| (!lost.contains(&i)).then(|| &shards[i][span.bytes.clone()])).collect();
                    rebuild_range(&code, &present, span.shard, &mut bytes).unwrap();
                }
                open_cells(&layout, key, stripe, last, &span.cells, span.bytes.start, &mut bytes).unwrap();
                for cell in &span.cells {
                    let from = cell.sealed.start - span.bytes.start;
                    read.extend_from_slice(&bytes[from..from + cell.content.len()]);
                }
            }
            let first = layout.plan(start..end)[0].cells[0].content.start;
            prop_assert_eq!(&read[start - first..end - first], &content[start..end]);
        }
    }

    #[test]
    fn a_cut_or_moved_stripe_does_not_open() {
        let layout = Layout::new(4, 2, 300_000).unwrap();
        let code = Code::of(4, 2).unwrap();
        let body = body();
        let key = body.key();
        let mut shards = write(&layout, &vec![7; 300_000]);
        seal_and_encode(&layout, &code, nth(&body, 1), true, &mut refs(&mut shards)).unwrap();
        let spans = layout.plan(0..300_000);
        let tail = spans.last().unwrap();
        for (stripe, last, fits) in [(1, true, true), (2, true, false), (1, false, false)] {
            let mut bytes = shards[tail.shard][tail.bytes.clone()].to_vec();
            let opened = open_cells(&layout, key, stripe, last, &tail.cells, tail.bytes.start, &mut bytes);
            assert_eq!(opened.is_ok(), fits, "stripe {stripe} last {last}");
        }
    }
}
