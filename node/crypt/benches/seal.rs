//! Sealing a cell in place against the bare cipher on the same bytes, in turns so that both see the same
//! machine. Ends with status 1 below the budget: 90 % of the cipher's throughput at 64 KiB.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use holdfast_crypt::{BodyContext, BodySealer, random_array};
use holdfast_model::{
    BucketId, ClusterId, TenantId, VersionId,
    limits::{CELL_SIZE_MAX, CELL_TAG_SIZE},
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Least share of the bare cipher's throughput.
const BUDGET: f64 = 0.90;
const ROUNDS: usize = 41;
const CELLS_A_ROUND: u32 = 512;

fn main() -> ExitCode {
    let body = BodySealer::begin(BodyContext {
        cluster: ClusterId::from_bytes([1; 16]),
        tenant: TenantId::from_bytes([2; 16]),
        bucket: BucketId::from_bytes([3; 16]),
        content: VersionId::from_bytes([4; 16]),
    });
    let bare = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &random_array::<32>()).expect("32 bytes"));
    let mut cell = vec![7; CELL_SIZE_MAX];
    let plain = CELL_SIZE_MAX - CELL_TAG_SIZE;
    let mut count = 0u64;
    let mut ratios = Vec::new();
    let (mut sealed_best, mut bare_best) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut stripe = body.stripe().expect("far fewer than 2^32 stripes");
        for _ in 0..CELLS_A_ROUND {
            stripe.seal_next(false, &mut cell);
        }
        let sealing = begun.elapsed();
        let begun = Instant::now();
        for _ in 0..CELLS_A_ROUND {
            count += 1;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&count.to_be_bytes());
            let tag = bare
                .seal_in_place_separate_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::empty(),
                    &mut cell[..plain],
                )
                .expect("64 KiB");
            std::hint::black_box(tag.as_ref());
        }
        let bare = begun.elapsed();
        ratios.push(bare.as_secs_f64() / sealing.as_secs_f64());
        sealed_best = sealed_best.min(sealing);
        bare_best = bare_best.min(bare);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ROUNDS / 2];
    let rate = |time: Duration| f64::from(CELLS_A_ROUND) * plain as f64 / time.as_secs_f64() / 1e9;
    println!(
        "cells of 64 KiB   sealed in place {:.2} GB/s   bare cipher {:.2} GB/s",
        rate(sealed_best),
        rate(bare_best)
    );
    println!("median of {ROUNDS} pairs: {:.1} % (budget {:.0} %)", median * 100.0, BUDGET * 100.0);
    if median >= BUDGET { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
