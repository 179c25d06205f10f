//! The record of uses of body keys and named keys, of which there are thousands a second: files `uses-N` beside the
//! shares, written by the key service, each use hashed together with the one before.
//!
//! A file is 112 bytes a record; the first is its head. Integers are little-endian.
//!
//! | offset | size | head                     | record                                                        |
//! |-------:|-----:|--------------------------|---------------------------------------------------------------|
//! |      0 |    8 | `HFUSES` 0 1             | number, from 1                                                |
//! |      8 |    8 | number of the next       | when, in milliseconds since 1970                              |
//! |     16 |    1 | zero                     | purpose, as numbered in [`Purpose::ALL`]                      |
//! |     17 |    1 | zero                     | act, see [`Act`]                                              |
//! |     18 |    1 | zero                     | outcome, see [`Outcome`]                                      |
//! |     19 |    1 | zero                     | zero                                                          |
//! |     20 |    4 | zero                     | uses before this one that could not be written                |
//! |     24 |    8 | zero                     | zero                                                          |
//! |     32 |   48 | zero                     | tenant, bucket, content; zero where there is none             |
//! |     80 |   32 | hash before the next     | SHA-256 of the hash before and of bytes 0..80                 |
//!
//! What is changed, left out or put in is found by [`verify`], from the oldest file that is kept to the newest. Who
//! may write the files may write a whole chain anew: to notice that, keep the last hash elsewhere. A file that is
//! full is followed by another, and the oldest goes. What a crash cut off is taken away when the service starts.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use holdfast_model::{BucketId, TenantId, VersionId};
use sha2::{Digest, Sha256};

use crate::protocol::Purpose;

const RECORD_SIZE: usize = 112;
const HASHED: usize = 80;
const MAGIC: &[u8; 8] = b"HFUSES\0\x01";

/// Records of one file at most: about 16 MiB.
pub const RECORDS_MAX: u64 = 150_000;

/// Files kept at most: 1.2 million uses.
pub const FILES_MAX: u64 = 8;

type Hash = [u8; 32];

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A body's key was wrapped.
    Wrap = 1,
    /// A body's key was opened.
    Unwrap = 2,
    /// A named key was derived.
    Name = 3,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done.
    Done = 1,
    /// Against the policy.
    Refused = 2,
    /// It did not open.
    Failed = 3,
}

/// One use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// What for.
    pub purpose: Purpose,
    /// What.
    pub act: Act,
    /// How it went.
    pub outcome: Outcome,
    /// Whose key.
    pub tenant: TenantId,
    /// The body, where it is one.
    pub body: Option<(BucketId, VersionId)>,
}

/// A use as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Its number.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Uses before it that are not on record.
    pub lost: u32,
    /// It.
    pub used: Use,
}

/// What a check of the whole record found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Number of the oldest use on record.
    pub first: u64,
    /// Number of the newest; below `first` when there is none.
    pub last: u64,
    /// Uses that could not be written.
    pub lost: u64,
    /// The last hash.
    pub hash: Hash,
}

/// Why a record of uses is not as it was written.
#[derive(Debug, thiserror::Error)]
pub enum UsesError {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The chain breaks.
    #[error("{path}: the chain breaks at use {number}: something was changed, left out or put in")]
    Broken {
        /// Where.
        path: PathBuf,
        /// Number of the use that should be there.
        number: u64,
    },
}

/// Writes uses down.
#[derive(Debug)]
pub struct Uses {
    dir: PathBuf,
    file: Option<File>,
    /// Number of the file.
    segment: u64,
    /// Records in it.
    records: u64,
    next: u64,
    hash: Hash,
    lost: u32,
}

fn path_of(dir: &Path, segment: u64) -> PathBuf {
    dir.join(format!("uses-{segment:08}"))
}

fn segments(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("uses-")).map(str::parse::<u64>);
        found.extend(number.and_then(Result::ok));
    }
    found.sort_unstable();
    Ok(found)
}

fn hash_of(before: &Hash, record: &[u8]) -> Hash {
    let mut digest = Sha256::new();
    digest.update(before);
    digest.update(&record[..HASHED]);
    digest.finalize().into()
}

fn number_at(record: &[u8; RECORD_SIZE], at: usize) -> u64 {
    record[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn hash_in(record: &[u8; RECORD_SIZE]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(&record[HASHED..]);
    hash
}

impl Uses {
    /// Goes on where the files in `dir` end.
    ///
    /// # Errors
    /// I/O.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let mut uses = Self {
            dir: dir.to_path_buf(),
            file: None,
            segment: 0,
            records: 0,
            next: 1,
            hash: [0; 32],
            lost: 0,
        };
        for segment in segments(dir)?.into_iter().rev() {
            uses.segment = uses.segment.max(segment);
            let path = path_of(dir, segment);
            let bytes = fs::read(&path)?;
            let (records, rest) = bytes.as_chunks::<RECORD_SIZE>();
            let Some((head, records)) = records.split_first() else {
                // It was just begun: the one before it ends where it would have.
                fs::remove_file(&path)?;
                continue;
            };
            let last = records.last();
            uses.next = last.map_or_else(|| number_at(head, 8), |last| number_at(last, 0) + 1);
            uses.hash = hash_in(last.unwrap_or(head));
            uses.records = records.len() as u64;
            uses.segment = segment;
            let file = OpenOptions::new().append(true).open(&path)?;
            if !rest.is_empty() {
                file.set_len((bytes.len() - rest.len()) as u64)?;
            }
            uses.file = Some(file);
            break;
        }
        Ok(uses)
    }

    /// Writes one down. What cannot be written is counted, and told with the next that can.
    pub fn note(&mut self, used: &Use) {
        if let Err(error) = self.write(used) {
            if self.lost == 0 {
                tracing::error!(target: "audit", %error, "a use of a key is not on record");
            }
            self.lost = self.lost.saturating_add(1);
            // Whatever is half written is behind: another file begins.
            self.file = None;
        }
    }

    fn write(&mut self, used: &Use) -> io::Result<()> {
        if self.file.is_none() || self.records >= RECORDS_MAX {
            self.begin_file()?;
        }
        let mut record = [0; RECORD_SIZE];
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        record[..8].copy_from_slice(&self.next.to_le_bytes());
        record[8..16].copy_from_slice(&u64::try_from(at).unwrap_or(u64::MAX).to_le_bytes());
        let purpose = Purpose::ALL.iter().position(|known| *known == used.purpose).unwrap_or_default();
        record[16] = u8::try_from(purpose).unwrap_or(u8::MAX);
        record[17] = used.act as u8;
        record[18] = used.outcome as u8;
        record[20..24].copy_from_slice(&self.lost.to_le_bytes());
        record[32..48].copy_from_slice(used.tenant.as_bytes());
        if let Some((bucket, content)) = used.body {
            record[48..64].copy_from_slice(bucket.as_bytes());
            record[64..80].copy_from_slice(content.as_bytes());
        }
        let hash = hash_of(&self.hash, &record);
        record[HASHED..].copy_from_slice(&hash);
        let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        file.write_all(&record)?;
        (self.hash, self.lost) = (hash, 0);
        self.next += 1;
        self.records += 1;
        Ok(())
    }

    fn begin_file(&mut self) -> io::Result<()> {
        let segment = self.segment + 1;
        let mut head = [0; RECORD_SIZE];
        head[..8].copy_from_slice(MAGIC);
        head[8..16].copy_from_slice(&self.next.to_le_bytes());
        head[HASHED..].copy_from_slice(&self.hash);
        let path = path_of(&self.dir, segment);
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        file.set_len(0)?;
        file.write_all(&head)?;
        (self.file, self.segment, self.records) = (Some(file), segment, 0);
        for old in segments(&self.dir)?.into_iter().filter(|old| old + FILES_MAX <= segment) {
            fs::remove_file(path_of(&self.dir, old))?;
        }
        Ok(())
    }
}

/// Reads all that is on record, oldest first, and checks the chain.
///
/// # Errors
/// `Io`; `Broken` at the first use that is not as it was written.
pub fn verify(dir: &Path, mut each: impl FnMut(&Recorded)) -> Result<Verified, UsesError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| UsesError::Io { path, source }
    };
    let mut found: Option<Verified> = None;
    for segment in segments(dir).map_err(io(dir))? {
        let path = path_of(dir, segment);
        let mut bytes = Vec::new();
        File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(io(&path))?;
        let (records, _) = bytes.as_chunks::<RECORD_SIZE>();
        // One that was just begun, or being written.
        let Some((head, records)) = records.split_first() else { continue };
        let next = number_at(head, 8);
        let known = found.get_or_insert(Verified {
            first: next,
            last: next.wrapping_sub(1),
            lost: 0,
            hash: hash_in(head),
        });
        let broken = |number| UsesError::Broken { path: path.clone(), number };
        if head[..8] != *MAGIC || next != known.last.wrapping_add(1) || hash_in(head) != known.hash {
            return Err(broken(known.last.wrapping_add(1)));
        }
        for record in records {
            let number = known.last.wrapping_add(1);
            let hash = hash_of(&known.hash, record);
            let parsed = parse(record).filter(|parsed| parsed.number == number && hash == hash_in(record));
            let parsed = parsed.ok_or_else(|| broken(number))?;
            known.lost += u64::from(parsed.lost);
            (known.last, known.hash) = (number, hash);
            each(&parsed);
        }
    }
    Ok(found.unwrap_or(Verified { first: 1, last: 0, lost: 0, hash: [0; 32] }))
}

fn parse(record: &[u8; RECORD_SIZE]) -> Option<Recorded> {
    let id = |at: usize| record[at..].first_chunk::<16>().copied();
    let act = [Act::Wrap, Act::Unwrap, Act::Name].into_iter().find(|act| *act as u8 == record[17])?;
    let outcomes = [Outcome::Done, Outcome::Refused, Outcome::Failed];
    let outcome = outcomes.into_iter().find(|outcome| *outcome as u8 == record[18])?;
    let body = (BucketId::from_bytes(id(48)?), VersionId::from_bytes(id(64)?));
    Some(Recorded {
        number: number_at(record, 0),
        at: number_at(record, 8),
        lost: u32::from_le_bytes(*record[20..].first_chunk()?),
        used: Use {
            purpose: *Purpose::ALL.get(usize::from(record[16]))?,
            act,
            outcome,
            tenant: TenantId::from_bytes(id(32)?),
            body: (act != Act::Name).then_some(body),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(n: u8) -> Use {
        Use {
            purpose: Purpose::ObjectRead,
            act: Act::Unwrap,
            outcome: Outcome::Done,
            tenant: TenantId::from_bytes([n; 16]),
            body: Some((BucketId::from_bytes([2; 16]), VersionId::from_bytes([n; 16]))),
        }
    }

    #[test]
    fn uses_are_read_as_they_were_written_over_crashes_and_files() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..3 {
            let mut uses = Uses::open(dir.path()).unwrap();
            for n in 0..10 {
                uses.note(&used(round * 10 + n));
            }
            uses.records = if round == 1 { RECORDS_MAX } else { uses.records };
            if round == 1 {
                uses.note(&used(99));
            }
            // Cut off in the middle of a record.
            let newest = path_of(dir.path(), *segments(dir.path()).unwrap().last().unwrap());
            OpenOptions::new().append(true).open(newest).unwrap().write_all(&[7; 50]).unwrap();
        }
        let mut read = Vec::new();
        let found = verify(dir.path(), |recorded| read.push(*recorded)).unwrap();
        assert_eq!((found.first, found.last, found.lost), (1, 31, 0));
        assert_eq!(read[20].used, used(99));
        assert_eq!(segments(dir.path()).unwrap(), [1, 2]);
    }

    #[test]
    fn no_bit_can_be_changed_and_no_use_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut uses = Uses::open(dir.path()).unwrap();
        (0..4).for_each(|n| uses.note(&used(n)));
        let path = path_of(dir.path(), 1);
        let whole = fs::read(&path).unwrap();
        for at in RECORD_SIZE..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 4;
            fs::write(&path, &changed).unwrap();
            assert!(matches!(verify(dir.path(), |_| ()), Err(UsesError::Broken { .. })), "byte {at}");
        }
        let without = [&whole[..2 * RECORD_SIZE], &whole[3 * RECORD_SIZE..]].concat();
        fs::write(&path, without).unwrap();
        assert!(matches!(verify(dir.path(), |_| ()), Err(UsesError::Broken { number: 2, .. })));
        fs::write(&path, &whole).unwrap();
        assert_eq!(verify(dir.path(), |_| ()).unwrap().last, 4);
    }

    #[test]
    fn the_oldest_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut uses = Uses::open(dir.path()).unwrap();
        for n in 0..=FILES_MAX as u8 {
            uses.note(&used(n));
            uses.records = RECORDS_MAX;
        }
        let found = verify(dir.path(), |_| ()).unwrap();
        assert_eq!((found.first, found.last), (2, FILES_MAX + 1));
    }
}
