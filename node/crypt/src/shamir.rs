//! Shamir's secret sharing over GF(2^8) (Shamir, "How to share a secret", 1979), byte by byte.
//!
//! The field is that of AES (FIPS 197, section 4.2). Every coefficient but the secret is uniform over the
//! whole field, zero included: fewer shares than the threshold then say nothing at all. Multiplication
//! takes no branch and no table look-up on secret values.
//!
//! A wrong share gives wrong bytes, silently: who combines compares with the secret's public name.

use std::fmt;

use zeroize::Zeroizing;

use crate::{CryptError, secret::random_array};

/// Size of what is shared, in bytes.
pub const SECRET_SIZE: usize = 32;

/// One share. Worth as much as any other of its splitting.
#[derive(Clone)]
pub struct Share {
    x: u8,
    y: Zeroizing<[u8; SECRET_SIZE]>,
}

impl Share {
    /// Takes a share that was kept; `None` for `x` of 0, which would be the secret itself.
    #[must_use]
    pub fn new(x: u8, y: [u8; SECRET_SIZE]) -> Option<Self> {
        let y = Zeroizing::new(y);
        (x != 0).then_some(Self { x, y })
    }

    /// Which share of its splitting, from 1.
    #[must_use]
    pub fn x(&self) -> u8 {
        self.x
    }

    /// Its bytes, to be kept or handed over.
    #[must_use]
    pub fn expose(&self) -> &[u8; SECRET_SIZE] {
        &self.y
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("x", &self.x).finish_non_exhaustive()
    }
}

/// Splits `secret` into `count` shares, any `threshold` of which give it back.
///
/// # Errors
/// `Limit` unless 1 <= `threshold` <= `count`.
pub fn split(secret: &[u8; SECRET_SIZE], threshold: u8, count: u8) -> Result<Vec<Share>, CryptError> {
    if threshold == 0 || threshold > count {
        return Err(CryptError::Limit("threshold of shares"));
    }
    let coefficients: Zeroizing<Vec<[u8; SECRET_SIZE]>> =
        Zeroizing::new((1..threshold).map(|_| random_array()).collect());
    Ok(split_with(secret, &coefficients, count))
}

/// The points at 1 to `count` of the polynomials `secret + coefficients[0] x + coefficients[1] x^2 ...`
pub(crate) fn split_with(
    secret: &[u8; SECRET_SIZE],
    coefficients: &[[u8; SECRET_SIZE]],
    count: u8,
) -> Vec<Share> {
    let point = |x: u8| {
        // Horner's rule from the highest coefficient down to the secret.
        let mut y = Zeroizing::new([0; SECRET_SIZE]);
        for coefficient in coefficients.iter().rev() {
            for (y, c) in y.iter_mut().zip(coefficient) {
                *y = multiply(*y ^ c, x);
            }
        }
        for (y, s) in y.iter_mut().zip(secret) {
            *y ^= s;
        }
        Share { x, y }
    };
    (1..=count).map(point).collect()
}

/// The secret of `shares`: all of one splitting, as many as its threshold or more.
///
/// # Errors
/// `Malformed` when there is none, or two have the same `x`.
pub fn combine(shares: &[Share]) -> Result<Zeroizing<[u8; SECRET_SIZE]>, CryptError> {
    let distinct = shares.iter().enumerate().all(|(i, one)| shares[..i].iter().all(|other| other.x != one.x));
    if shares.is_empty() || !distinct {
        return Err(CryptError::Malformed("set of shares"));
    }
    let mut secret = Zeroizing::new([0; SECRET_SIZE]);
    for one in shares {
        // Lagrange's basis at 0: the product of x_j / (x_j - x_i); subtraction is XOR.
        let others = shares.iter().filter(|other| other.x != one.x);
        let basis =
            others.fold(1, |basis, other| multiply(basis, multiply(other.x, inverse(other.x ^ one.x))));
        for (s, y) in secret.iter_mut().zip(one.y.iter()) {
            *s ^= multiply(*y, basis);
        }
    }
    Ok(secret)
}

/// Product modulo x^8 + x^4 + x^3 + x + 1, with masks in place of branches.
fn multiply(mut a: u8, b: u8) -> u8 {
    let mut product = 0;
    for bit in 0..8 {
        product ^= a & 0u8.wrapping_sub((b >> bit) & 1);
        a = (a << 1) ^ (0x1b & 0u8.wrapping_sub(a >> 7));
    }
    product
}

/// `a` to the power of 254: the inverse, and 0 for 0.
fn inverse(a: u8) -> u8 {
    let mut power = a;
    let mut product = 1;
    for _ in 0..7 {
        power = multiply(power, power);
        product = multiply(product, power);
    }
    product
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_field_is_that_of_aes() {
        // FIPS 197, sections 4.2 and 4.2.1.
        assert_eq!(multiply(0x57, 0x83), 0xc1);
        assert_eq!(multiply(0x57, 0x13), 0xfe);
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a)), 1, "{a}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_threshold_of_shares_gives_the_secret_and_one_less_does_not(
            secret: [u8; SECRET_SIZE],
            (threshold, count) in (1..9u8).prop_flat_map(|t| (Just(t), t..12u8)),
            turn in 0..12usize,
        ) {
            let shares = split(&secret, threshold, count).unwrap();
            let mut drawn: Vec<Share> = shares.clone();
            drawn.rotate_left(turn % shares.len());
            drawn.truncate(usize::from(threshold));
            prop_assert_eq!(*combine(&drawn).unwrap(), secret);
            prop_assert_eq!(*combine(&shares).unwrap(), secret, "more than needed");
            if threshold > 1 {
                drawn.pop();
                prop_assert_ne!(*combine(&drawn).unwrap(), secret);
            }
        }
    }

    #[test]
    fn every_byte_of_a_share_below_the_threshold_is_uniform() {
        // 64,000 bytes over 256 values: chi-square with 255 degrees of freedom stays below 400 but once in
        // 10^8 runs, and coefficients that leave zero out (as RUSTSEC-2024-0398 describes) give 250 more.
        let mut counts = [0u32; 256];
        for _ in 0..2000 {
            for byte in split(&[0x5a; SECRET_SIZE], 2, 2).unwrap()[0].expose() {
                counts[usize::from(*byte)] += 1;
            }
        }
        let expected = 2000.0 * SECRET_SIZE as f64 / 256.0;
        let chi: f64 = counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
        assert!(chi < 400.0, "chi-square {chi}");
        assert!(counts[0x5a] > 0, "the coefficient zero is never drawn");
    }

    #[test]
    fn impossible_splittings_and_sets_are_refused() {
        let secret = [1; SECRET_SIZE];
        assert!(split(&secret, 0, 3).is_err() && split(&secret, 4, 3).is_err());
        let share = split(&secret, 2, 3).unwrap().remove(0);
        assert!(combine(&[]).is_err() && combine(&[share.clone(), share]).is_err());
        assert!(Share::new(0, secret).is_none());
    }
}
