//! Join tokens as values and as text.
//!
//! `hf1-` + 136 hex digits: secret (32 bytes), CA fingerprint (32), and the first 4 bytes of the SHA-256
//! of a fixed prefix and both, so that a token cut short or mistyped is told from one that is not valid.

use std::{fmt, str::FromStr};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::pki::{Fingerprint, sha256};

const PREFIX: &str = "hf1-";
const CHECKSUM_SIZE: usize = 4;
const CHECKSUM_DOMAIN: &[u8] = b"holdfast join token 1";

/// A single-use right to join one cluster.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct JoinToken {
    secret: [u8; 32],
    #[zeroize(skip)]
    ca: Fingerprint,
}

/// Text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not the form of a token.
    #[error("a join token is `hf1-` and 136 hex digits; copy it whole")]
    Malformed,
    /// The checksum does not match.
    #[error("the join token has a typing error or was cut; copy it again")]
    Checksum,
    /// No randomness for a new one.
    #[error("the system gave no random bytes")]
    Random,
}

impl JoinToken {
    /// A new token for the cluster of the CA with fingerprint `ca`.
    ///
    /// # Errors
    /// `Random`.
    pub fn generate(ca: Fingerprint) -> Result<Self, TokenError> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|_| TokenError::Random)?;
        Ok(Self { secret, ca })
    }

    /// The CA that a member must show.
    #[must_use]
    pub fn ca(&self) -> Fingerprint {
        self.ca
    }

    /// SHA-256 of the secret: what the cluster stores to know the token again.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(&[&self.secret])
    }

    /// The text form, to be shown to the operator once.
    #[must_use]
    pub fn reveal(&self) -> String {
        let check = checksum(&self.secret, &self.ca);
        format!("{PREFIX}{}{}{}", hex::encode(self.secret), self.ca, hex::encode(check))
    }

    pub(super) fn secret(&self) -> [u8; 32] {
        self.secret
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("ca", &self.ca).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = text.trim().strip_prefix(PREFIX).ok_or(TokenError::Malformed)?;
        let mut bytes = [0; 64 + CHECKSUM_SIZE];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| TokenError::Malformed)?;
        let half = |at: usize| -> [u8; 32] { bytes[at..at + 32].try_into().expect("inside the array") };
        let token = Self { secret: half(0), ca: Fingerprint::from_bytes(half(32)) };
        if checksum(&token.secret, &token.ca) != bytes[64..] {
            return Err(TokenError::Checksum);
        }
        Ok(token)
    }
}

fn checksum(secret: &[u8; 32], ca: &Fingerprint) -> [u8; CHECKSUM_SIZE] {
    let digest = sha256(&[CHECKSUM_DOMAIN, secret, ca.as_bytes()]);
    *digest.first_chunk().expect("a digest is longer than the checksum")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_text_and_are_not_printed() {
        let token = JoinToken::generate(Fingerprint::of(b"ca")).unwrap();
        let text = token.reveal();
        assert_eq!(text.len(), 140);
        assert_eq!(format!(" {text}\n").parse::<JoinToken>(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&text[4..20]));
    }

    #[test]
    fn every_changed_digit_is_noticed() {
        let text = JoinToken::generate(Fingerprint::of(b"ca")).unwrap().reveal();
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed.parse::<JoinToken>().is_err(), "digit {at}");
        }
        for cut in 0..text.len() {
            assert_eq!(text[..cut].parse::<JoinToken>(), Err(TokenError::Malformed));
        }
    }
}
