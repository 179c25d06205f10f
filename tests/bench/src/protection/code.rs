//! Encoding and decoding on one core: what the data path uses against the bare crate under it.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use holdfast_erasure::Code;
use rusty_erasure::compat::reed_solomon_erasure_matrix;

/// Bytes of a shard: the largest.
const SHARD: usize = 512 * 1024;

/// One measurement takes about so long.
const SPAN: Duration = Duration::from_millis(200);

const SHAPES: [(u8, u8); 4] = [(4, 2), (6, 2), (8, 4), (16, 4)];

/// Prints a table.
pub fn measure() -> Result<()> {
    println!("GB/s of content on one core, shards of 512 KiB");
    println!(
        "{:<7} {:>10} {:>10} {:>6}   {:>14} {:>10} {:>6}",
        "shape", "encode", "bare", "", "decode of all", "bare", ""
    );
    for (data, parity) in SHAPES {
        let (k, m) = (usize::from(data), usize::from(parity));
        let content: Vec<Vec<u8>> =
            (0..k).map(|shard| (0..SHARD).map(|at| (at * 31 + shard * 7) as u8).collect()).collect();
        let slices: Vec<&[u8]> = content.iter().map(Vec::as_slice).collect();
        let mut out = vec![vec![0; SHARD]; m];
        let code = Code::of(data, parity)?;
        let matrix = reed_solomon_erasure_matrix(k, m).ok().context("a matrix of that shape")?;
        let bare = rusty_erasure::coder(matrix).ok().context("a coder of that shape")?;

        let encode = speed(k, || {
            let mut parity: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
            code.encode(&slices, &mut parity).map_err(anyhow::Error::from)
        })?;
        let bare_encode = speed(k, || {
            let mut parity: Vec<&mut [u8]> = out.iter_mut().map(Vec::as_mut_slice).collect();
            bare.encode(&slices, &mut parity).ok().context("bare encode")
        })?;
        // As many data shards missing as can be.
        let parity_shards = out.clone();
        let lost: Vec<usize> = (0..m.min(k)).collect();
        let present: Vec<Option<&[u8]>> = (0..k + m)
            .map(|i| match i {
                i if lost.contains(&i) => None,
                i if i < k => Some(slices[i]),
                i => Some(parity_shards[i - k].as_slice()),
            })
            .collect();
        let mut rebuilt = vec![vec![0; SHARD]; lost.len()];
        let decode = speed(k, || {
            let mut rebuilt: Vec<&mut [u8]> = rebuilt.iter_mut().map(Vec::as_mut_slice).collect();
            code.rebuild(&present, &lost, &mut rebuilt).map_err(anyhow::Error::from)
        })?;
        let bare_decode = speed(k, || {
            let mut rebuilt: Vec<&mut [u8]> = rebuilt.iter_mut().map(Vec::as_mut_slice).collect();
            bare.recover(&present, &lost, &mut rebuilt).ok().context("bare decode")
        })?;
        println!(
            "{data:>2}+{parity:<4} {encode:>10.2} {bare_encode:>10.2} {:>5.0}%   {decode:>14.2} {bare_decode:>10.2} {:>5.0}%",
            100.0 * encode / bare_encode,
            100.0 * decode / bare_decode
        );
    }
    Ok(())
}

/// GB of content a second.
fn speed(data: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let (begun, mut rounds) = (Instant::now(), 0u32);
    while begun.elapsed() < SPAN {
        black_box(work()?);
        rounds += 1;
    }
    Ok(f64::from(rounds) * (data * SHARD) as f64 / begun.elapsed().as_secs_f64() / 1e9)
}
