//! Reed-Solomon over GF(2^8) behind one small interface.
//!
//! Two independent implementations of the same code (systematic Vandermonde, polynomial 0x11d, so the
//! shards are byte-identical): `rusty_erasure` on the data path, `reed-solomon-erasure` as its check.
//! A [`Code`] proves itself against the check when it is made, and [`Code::parity_agrees`] lets the
//! store compare running work (see `docs/decisions/0002-erasure-code.md`).
//!
//! Invariants: every shard of a call has the same length; any `data` shards of a stripe determine it.

#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use reed_solomon_erasure::galois_8::ReedSolomon;
use rusty_erasure::{Coder, compat::reed_solomon_erasure_matrix};

/// Bytes per shard in the proof that a [`Code`] passes before it may be used. Odd, to cover tails.
const PROOF_SHARD_SIZE: usize = 1021;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    /// No code of this shape exists.
    #[error("no Reed-Solomon code with {data} data and {parity} parity shards")]
    Shape {
        /// Data shards.
        data: u8,
        /// Parity shards.
        parity: u8,
    },
    /// Shards were missing from the call, or of different lengths.
    #[error("shards do not fit the code: {0}")]
    Shards(String),
    /// Fewer than `needed` shards are present.
    #[error("{present} shards present, {needed} needed")]
    TooFewShards {
        /// Shards present.
        present: usize,
        /// Shards needed.
        needed: usize,
    },
    /// The two implementations differ: this machine computes wrongly. Nothing may be encoded here.
    #[error("code {data}+{parity}: two implementations disagree on this machine; take it out of service")]
    Disagreement {
        /// Data shards.
        data: u8,
        /// Parity shards.
        parity: u8,
    },
}

/// One shape of code, `data + parity`, proven on this machine.
pub struct Code {
    data: u8,
    parity: u8,
    fast: Coder,
    check: ReedSolomon,
}

impl std::fmt::Debug for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Code({}+{})", self.data, self.parity)
    }
}

impl Code {
    /// The code of this shape; built and proven once per process.
    ///
    /// # Errors
    /// `Shape`, or `Disagreement` on a machine that fails the proof.
    pub fn of(data: u8, parity: u8) -> Result<Arc<Self>, ErasureError> {
        type Codes = Mutex<HashMap<(u8, u8), Arc<Code>>>;
        static CODES: OnceLock<Codes> = OnceLock::new();
        let codes = CODES.get_or_init(Mutex::default);
        let mut codes = codes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = codes.get(&(data, parity)) {
            return Ok(Arc::clone(code));
        }
        let code = Arc::new(Self::new(data, parity)?);
        codes.insert((data, parity), Arc::clone(&code));
        Ok(code)
    }

    fn new(data: u8, parity: u8) -> Result<Self, ErasureError> {
        let shape = ErasureError::Shape { data, parity };
        let (k, m) = (usize::from(data), usize::from(parity));
        let matrix = reed_solomon_erasure_matrix(k, m).map_err(|_| shape.clone())?;
        let fast = rusty_erasure::coder(matrix).map_err(|_| shape.clone())?;
        let check = ReedSolomon::new(k, m).map_err(|_| shape)?;
        let code = Self { data, parity, fast, check };
        code.prove()?;
        Ok(code)
    }

    /// Data shards.
    #[must_use]
    pub fn data(&self) -> u8 {
        self.data
    }

    /// Parity shards.
    #[must_use]
    pub fn parity(&self) -> u8 {
        self.parity
    }

    /// Computes all parity shards.
    ///
    /// # Errors
    /// `Shards` when counts or lengths do not fit.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) -> Result<(), ErasureError> {
        self.fast.encode(data, parity).map_err(|e| ErasureError::Shards(e.to_string()))
    }

    /// Rebuilds the shards named in `wanted` (ascending) from any `data` of those present.
    ///
    /// `present` has `data + parity` slots. All slices have one length; they may be the same sub-range
    /// of every shard, since the code works byte column by byte column.
    ///
    /// # Errors
    /// `TooFewShards`, or `Shards` when counts or lengths do not fit.
    pub fn rebuild(
        &self,
        present: &[Option<&[u8]>],
        wanted: &[usize],
        out: &mut [&mut [u8]],
    ) -> Result<(), ErasureError> {
        let count = present.iter().flatten().count();
        let needed = usize::from(self.data);
        if count < needed {
            return Err(ErasureError::TooFewShards { present: count, needed });
        }
        if wanted.is_empty() {
            return Ok(());
        }
        self.fast.recover(present, wanted, out).map_err(|e| ErasureError::Shards(e.to_string()))
    }

    /// Whether the second implementation computes the same parity. As slow as it is independent:
    /// meant for a sample of stripes.
    ///
    /// # Errors
    /// `Shards` when counts or lengths do not fit.
    pub fn parity_agrees(&self, data: &[&[u8]], parity: &[&[u8]]) -> Result<bool, ErasureError> {
        let shards: Vec<&[u8]> = data.iter().chain(parity).copied().collect();
        self.check.verify(&shards).map_err(|e| ErasureError::Shards(e.to_string()))
    }

    /// Encodes a fixed pattern, compares with the check, and rebuilds it from its last shards.
    fn prove(&self) -> Result<(), ErasureError> {
        let wrong = ErasureError::Disagreement { data: self.data, parity: self.parity };
        let (k, m) = (usize::from(self.data), usize::from(self.parity));
        let data: Vec<Vec<u8>> = (0..k)
            .map(|s| (0..PROOF_SHARD_SIZE).map(|i| (i * 31 + s * 97 + (i >> 3) * s) as u8).collect())
            .collect();
        let mut parity = vec![vec![0; PROOF_SHARD_SIZE]; m];
        let data_refs: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        self.encode(&data_refs, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>())?;
        let parity_refs: Vec<&[u8]> = parity.iter().map(Vec::as_slice).collect();
        if !self.parity_agrees(&data_refs, &parity_refs)? {
            return Err(wrong);
        }
        let lost: Vec<usize> = (0..m.min(k)).collect();
        let present: Vec<Option<&[u8]>> = (0..k + m)
            .map(|i| (!lost.contains(&i)).then(|| if i < k { data_refs[i] } else { parity_refs[i - k] }))
            .collect();
        let mut rebuilt = vec![vec![0; PROOF_SHARD_SIZE]; lost.len()];
        self.rebuild(&present, &lost, &mut rebuilt.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>())?;
        if lost.iter().any(|i| rebuilt[*i] != data[*i]) { Err(wrong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripe(k: u8, m: u8, len: usize) -> Vec<Vec<u8>> {
        let code = Code::of(k, m).unwrap();
        let mut shards: Vec<Vec<u8>> =
            (0..k).map(|s| (0..len).map(|i| (i * 7 + usize::from(s) * 13) as u8).collect()).collect();
        let mut parity = vec![vec![0; len]; usize::from(m)];
        code.encode(
            &shards.iter().map(Vec::as_slice).collect::<Vec<_>>(),
            &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
        )
        .unwrap();
        shards.extend(parity);
        shards
    }

    #[test]
    fn every_loss_of_up_to_the_parity_is_rebuilt() {
        for (k, m) in [(4u8, 2u8), (2, 2), (1, 2), (1, 1), (6, 4), (15, 3)] {
            let code = Code::of(k, m).unwrap();
            let shards = stripe(k, m, 333);
            let n = usize::from(k + m);
            for pattern in 0u32..(1 << n) {
                if pattern.count_ones() > u32::from(m) || (n > 12 && pattern % 7 != 0) {
                    continue;
                }
                let lost: Vec<usize> = (0..n).filter(|i| pattern >> i & 1 == 1).collect();
                let present: Vec<Option<&[u8]>> =
                    (0..n).map(|i| (pattern >> i & 1 == 0).then(|| shards[i].as_slice())).collect();
                let mut out = vec![vec![0; 333]; lost.len()];
                code.rebuild(&present, &lost, &mut out.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>())
                    .unwrap();
                for (i, rebuilt) in lost.iter().zip(&out) {
                    assert_eq!(rebuilt, &shards[*i], "{k}+{m} pattern {pattern:b}");
                }
            }
        }
    }

    #[test]
    fn one_loss_too_many_is_refused() {
        let code = Code::of(4, 2).unwrap();
        let shards = stripe(4, 2, 64);
        let present: Vec<Option<&[u8]>> = (0..6).map(|i| (i > 2).then(|| shards[i].as_slice())).collect();
        let mut out = vec![0; 64];
        assert_eq!(
            code.rebuild(&present, &[0], &mut [&mut out]),
            Err(ErasureError::TooFewShards { present: 3, needed: 4 })
        );
    }

    #[test]
    fn a_flipped_parity_bit_is_noticed_by_the_check() {
        let code = Code::of(4, 2).unwrap();
        let mut shards = stripe(4, 2, 64);
        let refs = |s: &Vec<Vec<u8>>| -> bool {
            let all: Vec<&[u8]> = s.iter().map(Vec::as_slice).collect();
            code.parity_agrees(&all[..4], &all[4..]).unwrap()
        };
        assert!(refs(&shards));
        shards[5][63] ^= 1;
        assert!(!refs(&shards));
    }

    #[test]
    fn shapes_that_cannot_exist_are_refused() {
        assert!(Code::of(0, 2).is_err() && Code::of(4, 0).is_err() && Code::of(200, 100).is_err());
    }
}
