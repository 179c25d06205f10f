//! Operators' recovery shares: a splitting of the root of its own, on paper.
//!
//! | offset | size | field     | meaning                                      |
//! |-------:|-----:|-----------|----------------------------------------------|
//! |      0 |    1 | version   | 1                                            |
//! |      1 |    1 | threshold | how many are needed                          |
//! |      2 |    1 | x         | which share                                  |
//! |      3 |    4 | epoch     | version of the root, big-endian              |
//! |      7 |    8 | root      | first half of the root's public name         |
//! |     15 |    4 | set       | random: shares of one set belong together    |
//! |     19 |   32 | y         | the share                                    |
//! |     51 |    4 | checksum  | CRC-32C of all before, big-endian            |
//!
//! Written in base 32 (RFC 4648, section 6) without padding, in groups: `HFR1-ABCDEFGH-...`, 88 characters.

use std::{fmt, str::FromStr};

use holdfast_crypt::{Root, RootKey, Share, combine, random_array};
use holdfast_model::{ClusterId, RootEpoch};
use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const PREFIX: &str = "HFR1";
const GROUP: usize = 8;
const VERSION: u8 = 1;
const SIZE: usize = 55;
const BODY_SIZE: usize = SIZE - 4;

/// Recovery shares at most.
pub const RECOVERY_SHARES_MAX: u8 = 32;

/// One recovery share.
#[derive(Clone)]
pub struct RecoveryShare {
    /// How many are needed.
    pub threshold: u8,
    /// Version of the root.
    pub epoch: RootEpoch,
    /// First half of the root's public name.
    pub root: [u8; 8],
    /// Which set it belongs to.
    pub set: [u8; 4],
    share: Share,
}

impl fmt::Debug for RecoveryShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecoveryShare")
            .field("epoch", &self.epoch)
            .field("x", &self.share.x())
            .finish_non_exhaustive()
    }
}

/// Why recovery shares do not give a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// Not one of ours, or mistyped.
    #[error("share {0} is not a recovery share, or was mistyped: its checksum does not fit")]
    Unreadable(usize),
    /// Shares of several sets or roots.
    #[error("share {0} belongs to another set than the first")]
    OtherSet(usize),
    /// The same share twice.
    #[error("share {0} was given before")]
    Twice(usize),
    /// Not enough.
    #[error("{have} of the {need} shares needed")]
    TooFew {
        /// Given.
        have: usize,
        /// Needed.
        need: usize,
    },
    /// Together they give another key than the one they name.
    #[error("together these shares do not give the root they name: one of them is forged")]
    Wrong,
}

/// Splits a root for `count` operators; any `threshold` of them have it.
///
/// # Errors
/// As [`Root::split`].
pub fn issue(
    root: &Root,
    threshold: u8,
    count: u8,
) -> Result<Vec<RecoveryShare>, holdfast_crypt::CryptError> {
    let (set, id) = (random_array(), root.id());
    let mut name = [0; 8];
    name.copy_from_slice(&id.as_bytes()[..8]);
    let shares = root.split(threshold, count)?;
    Ok(shares
        .into_iter()
        .map(|share| RecoveryShare { threshold, epoch: root.epoch(), root: name, set, share })
        .collect())
}

/// Puts the root together.
///
/// # Errors
/// Which share does not fit, counted from 1.
pub fn recover(cluster: ClusterId, texts: &[impl AsRef<str>]) -> Result<Root, RecoveryError> {
    let mut shares: Vec<RecoveryShare> = Vec::new();
    for (number, text) in (1..).zip(texts) {
        let share: RecoveryShare = text.as_ref().parse().map_err(|()| RecoveryError::Unreadable(number))?;
        if let Some(first) = shares.first()
            && (first.set, first.root, first.threshold, first.epoch)
                != (share.set, share.root, share.threshold, share.epoch)
        {
            return Err(RecoveryError::OtherSet(number));
        }
        if shares.iter().any(|other| other.share.x() == share.share.x()) {
            return Err(RecoveryError::Twice(number));
        }
        shares.push(share);
    }
    let need = shares.first().map_or(1, |share| usize::from(share.threshold));
    let Some(first) = shares.first().filter(|_| shares.len() >= need) else {
        return Err(RecoveryError::TooFew { have: shares.len(), need });
    };
    let points: Vec<Share> = shares.iter().map(|share| share.share.clone()).collect();
    let key = combine(&points).map_err(|_| RecoveryError::Wrong)?;
    let root = Root::new(cluster, first.epoch, RootKey::from_bytes(*key));
    if root.id().as_bytes()[..8] == first.root { Ok(root) } else { Err(RecoveryError::Wrong) }
}

impl RecoveryShare {
    /// As it is printed. Secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut bytes = Zeroizing::new(Vec::with_capacity(SIZE));
        bytes.extend_from_slice(&[VERSION, self.threshold, self.share.x()]);
        bytes.extend_from_slice(&self.epoch.get().to_be_bytes());
        bytes.extend_from_slice(&self.root);
        bytes.extend_from_slice(&self.set);
        bytes.extend_from_slice(self.share.expose());
        let checksum = crc32c::crc32c(&bytes).to_be_bytes();
        bytes.extend_from_slice(&checksum);
        let mut text = PREFIX.to_owned();
        for (i, character) in base32(&bytes).chars().enumerate() {
            if i % GROUP == 0 {
                text.push('-');
            }
            text.push(character);
        }
        text
    }
}

impl FromStr for RecoveryShare {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text: String = text
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-')
            .map(|c| c.to_ascii_uppercase())
            .collect();
        let bytes = Zeroizing::new(unbase32(text.strip_prefix(PREFIX).ok_or(())?).ok_or(())?);
        if bytes.len() != SIZE || bytes[0] != VERSION {
            return Err(());
        }
        let (body, checksum) = bytes.split_at(BODY_SIZE);
        if crc32c::crc32c(body).to_be_bytes() != checksum {
            return Err(());
        }
        let part = |range: std::ops::Range<usize>| body[range].to_vec();
        let epoch = u32::from_be_bytes(part(3..7).try_into().map_err(drop)?);
        Ok(Self {
            threshold: body[1],
            epoch: RootEpoch::new(epoch),
            root: part(7..15).try_into().map_err(drop)?,
            set: part(15..19).try_into().map_err(drop)?,
            share: Share::new(body[2], part(19..51).try_into().map_err(drop)?).ok_or(())?,
        })
    }
}

fn base32(bytes: &[u8]) -> String {
    let mut text = String::new();
    let (mut held, mut bits) = (0u32, 0);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xffff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(held >> bits & 31) as usize]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(held << (5 - bits) & 31) as usize]));
    }
    text
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0u32, 0);
    for character in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == character)?;
        held = (held << 5 | u32::try_from(value).ok()?) & 0xffff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 0xff) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    fn issued() -> (Root, Vec<String>) {
        let root = Root::generate(CLUSTER, RootEpoch::new(3));
        let shares = issue(&root, 3, 5).unwrap();
        (root, shares.iter().map(RecoveryShare::reveal).collect())
    }

    #[test]
    fn a_threshold_of_shares_as_people_type_them_gives_the_root() {
        let (root, texts) = issued();
        assert_eq!(texts[0].len(), 4 + 11 * 9);
        let typed = [texts[4].to_lowercase(), texts[0].replace('-', " "), texts[2].clone()];
        let back = recover(CLUSTER, &typed).unwrap();
        assert_eq!((back.id(), back.epoch()), (root.id(), root.epoch()));
        assert!(recover(CLUSTER, &texts).is_ok(), "more than needed");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let (_, texts) = issued();
        let (_, others) = issued();
        assert_eq!(recover(CLUSTER, &texts[..2]).unwrap_err(), RecoveryError::TooFew { have: 2, need: 3 });
        let none: [&str; 0] = [];
        assert_eq!(recover(CLUSTER, &none).unwrap_err(), RecoveryError::TooFew { have: 0, need: 1 });
        let mixed = [&texts[0], &others[1], &texts[2]];
        assert_eq!(recover(CLUSTER, &mixed).unwrap_err(), RecoveryError::OtherSet(2));
        let twice = [&texts[0], &texts[1], &texts[0]];
        assert_eq!(recover(CLUSTER, &twice).unwrap_err(), RecoveryError::Twice(3));
        for i in 0..texts[1].len() {
            let mut typed: Vec<u8> = texts[1].clone().into_bytes();
            typed[i] = if typed[i] == b'A' { b'B' } else { b'A' };
            let typed = String::from_utf8(typed).unwrap();
            // A hyphen that becomes a letter makes the share too long; everything else fails the checksum.
            let given = [texts[0].clone(), typed, texts[2].clone()];
            assert_eq!(recover(CLUSTER, &given).unwrap_err(), RecoveryError::Unreadable(2), "character {i}");
        }
    }
}
