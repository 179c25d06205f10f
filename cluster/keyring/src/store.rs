//! The file of a node's shares: `keys/shares` in its state directory.
//!
//! | offset | size | field     | meaning                                                |
//! |-------:|-----:|-----------|--------------------------------------------------------|
//! |      0 |    7 | magic     | `HFSHARE`                                              |
//! |      7 |    1 | version   | 1                                                      |
//! |      8 |    1 | protector | 1: file mode alone, 2: passphrase, 3: TPM              |
//! |      9 |    3 | reserved  | zero, verified                                         |
//! |     12 |   16 | cluster   | whose shares                                           |
//! |     28 |    n | shares    | postcard; sealed by the protector over bytes 0..28     |
//! |   28+n |    4 | checksum  | CRC-32C of all before, little-endian                   |
//!
//! Under a TPM, `shares` is the length of a sealed key (2, big-endian), that key as the TPM sealed it, and an envelope
//! under it over header, length and sealed key.
//!
//! Invariants: the file is whole or absent (written beside, flushed, renamed), mode 0600; a damaged one is
//! refused, never replaced; a share is durable before it is acknowledged to whoever dealt it.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use holdfast_crypt::{CryptError, DeviceKey, PassphraseKey};
use holdfast_model::{ClusterId, SplitId};
use holdfast_tpm::{Tpm, TpmError, sealed::SealedKey};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::{
    protection::{Key, Protection, Protector, Seal, StoreError},
    shares::{HeldShare, ShareSet},
};

const MAGIC: &[u8; 7] = b"HFSHARE";
/// Directory of a node's keys in its state directory.
pub const KEYS_DIR: &str = "keys";
const FILE: &str = "shares";
const VERSION: u8 = 1;
const HEADER_SIZE: usize = 28;
const CHECKSUM_SIZE: usize = 4;
/// Larger files are foreign.
const FILE_SIZE_MAX: u64 = 64 * 1024;

/// A node's shares, on disk and in memory.
pub struct ShareStore {
    path: PathBuf,
    cluster: ClusterId,
    tpm: Option<Tpm>,
    inner: Mutex<Inner>,
}

enum Inner {
    Sealed(Seal),
    Open { shares: ShareSet, key: Key },
}

impl fmt::Debug for ShareStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl ShareStore {
    /// Opens what is in `state_dir`, as far as that goes with what is at hand. With nothing there the store is
    /// new and empty, protected by `protector` when there is one, and written with its first share.
    ///
    /// # Errors
    /// `Io`, `Damaged`, `OtherCluster`; `Tpm` when a new store cannot be sealed. Shares that stay closed are no
    /// error: see [`ShareStore::seal`].
    pub fn open(
        state_dir: &Path,
        cluster: ClusterId,
        protector: Option<Protector<'_>>,
    ) -> Result<Self, StoreError> {
        Self::open_in(&state_dir.join(KEYS_DIR), cluster, protector)
    }

    /// As [`ShareStore::open`], of the directory itself: for who sees nothing above it.
    ///
    /// # Errors
    /// As [`ShareStore::open`].
    pub fn open_in(
        dir: &Path,
        cluster: ClusterId,
        protector: Option<Protector<'_>>,
    ) -> Result<Self, StoreError> {
        let (passphrase, tpm) = match protector {
            None => (None, None),
            Some(Protector::Passphrase(passphrase)) => (Some(passphrase), None),
            Some(Protector::Tpm(tpm)) => (None, Some(tpm)),
        };
        let inner = Mutex::new(Inner::Sealed(Seal::Passphrase));
        let store = Self { path: dir.join(FILE), cluster, tpm, inner };
        match store.read()? {
            None => {
                let key = match (passphrase, &store.tpm) {
                    (Some(passphrase), _) => Key::Passphrase(PassphraseKey::fresh(passphrase)?),
                    (None, Some(tpm)) => Key::sealed_to(tpm)?,
                    (None, None) => Key::File,
                };
                *store.inner.lock() = Inner::Open { shares: ShareSet::default(), key };
            }
            Some((Protection::File, _, body)) => {
                let shares =
                    postcard::from_bytes(&body).map_err(|_| StoreError::Damaged(store.path.clone()))?;
                *store.inner.lock() = Inner::Open { shares, key: Key::File };
            }
            Some((Protection::Passphrase, ..)) => {
                if let Some(passphrase) = passphrase {
                    store.unseal(passphrase)?;
                }
            }
            Some((Protection::Tpm, ..)) => {
                let seal = Seal::Tpm { why: "no TPM is configured".to_owned(), is_other: false };
                *store.inner.lock() = Inner::Sealed(seal);
                store.ask_tpm()?;
            }
        }
        Ok(store)
    }

    /// Whether shares were kept in `state_dir`.
    #[must_use]
    pub fn exists(state_dir: &Path) -> bool {
        path_in(state_dir).exists()
    }

    /// Removes the shares from `state_dir`: the node has left the cluster.
    ///
    /// # Errors
    /// I/O; nothing there is no error.
    pub fn remove(state_dir: &Path) -> io::Result<()> {
        match fs::remove_file(path_in(state_dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Opens sealed shares with the passphrase. Takes a while, on purpose.
    ///
    /// # Errors
    /// `WrongPassphrase`, `Io`, `Damaged`.
    pub fn unseal(&self, passphrase: &[u8]) -> Result<(), StoreError> {
        let Some((Protection::Passphrase, header, body)) = self.read()? else { return Ok(()) };
        let (key, plain) = PassphraseKey::open(passphrase, &header, &body).map_err(|error| match error {
            CryptError::Refused(_) => StoreError::WrongPassphrase,
            other => other.into(),
        })?;
        let shares = postcard::from_bytes(&plain).map_err(|_| StoreError::Damaged(self.path.clone()))?;
        *self.inner.lock() = Inner::Open { shares, key: Key::Passphrase(key) };
        Ok(())
    }

    /// Asks the TPM to open the shares that are sealed to it. Does nothing when they are open, or sealed otherwise.
    /// What it refuses for is kept, see [`ShareStore::seal`].
    ///
    /// # Errors
    /// `Io`, `Damaged`.
    pub fn ask_tpm(&self) -> Result<(), StoreError> {
        let Some(Seal::Tpm { .. }) = self.seal() else { return Ok(()) };
        let Some(tpm) = &self.tpm else { return Ok(()) };
        let Some((Protection::Tpm, header, body)) = self.read()? else { return Ok(()) };
        let damaged = || StoreError::Damaged(self.path.clone());
        let (sealed, envelope) = split_sealed(&body).ok_or_else(damaged)?;
        let context = [&header[..], &body[..body.len() - envelope.len()]].concat();
        let opened = SealedKey::parse(sealed).and_then(|sealed| Ok((tpm.unseal(&sealed)?, sealed)));
        let next = match opened {
            Ok((key, sealed)) => {
                let key = DeviceKey::from_bytes(key);
                let plain = key.open(&context, envelope)?;
                let shares = postcard::from_bytes(&plain).map_err(|_| damaged())?;
                Inner::Open { shares, key: Key::Tpm(key, sealed) }
            }
            Err(error) => {
                let is_other = matches!(error, TpmError::OtherTpm { .. });
                Inner::Sealed(Seal::Tpm { why: error.to_string(), is_other })
            }
        };
        *self.inner.lock() = next;
        Ok(())
    }

    /// Gives up shares that another TPM holds, and begins an empty set under this one: for a node that has the
    /// root from others, and is dealt a new share when it says that it has none. The file is replaced with the
    /// first share. Returns whether that was so.
    ///
    /// # Errors
    /// `Tpm`; then nothing changed.
    pub fn begin_anew(&self) -> Result<bool, StoreError> {
        let (Some(Seal::Tpm { is_other: true, .. }), Some(tpm)) = (self.seal(), &self.tpm) else {
            return Ok(false);
        };
        let key = Key::sealed_to(tpm)?;
        *self.inner.lock() = Inner::Open { shares: ShareSet::default(), key };
        Ok(true)
    }

    /// What protects the shares.
    #[must_use]
    pub fn protection(&self) -> Protection {
        match &*self.inner.lock() {
            Inner::Open { key, .. } => key.protection(),
            Inner::Sealed(Seal::Passphrase) => Protection::Passphrase,
            Inner::Sealed(Seal::Tpm { .. }) => Protection::Tpm,
        }
    }

    /// What keeps the shares closed; `None` when they are open.
    #[must_use]
    pub fn seal(&self) -> Option<Seal> {
        match &*self.inner.lock() {
            Inner::Open { .. } => None,
            Inner::Sealed(seal) => Some(seal.clone()),
        }
    }

    /// The shares.
    ///
    /// # Errors
    /// `Sealed`.
    pub fn shares(&self) -> Result<ShareSet, StoreError> {
        match &*self.inner.lock() {
            Inner::Open { shares, .. } => Ok(shares.clone()),
            Inner::Sealed(_) => Err(StoreError::Sealed),
        }
    }

    /// Takes a share in; it is durable when this returns.
    ///
    /// # Errors
    /// `Sealed` or `Io`; then nothing changed.
    pub fn add(&self, share: HeldShare) -> Result<(), StoreError> {
        self.change(|shares| {
            shares.add(share);
            true
        })
    }

    /// Lets go of what was replaced, see [`ShareSet::settle`].
    ///
    /// # Errors
    /// `Sealed` or `Io`; then nothing changed.
    pub fn settle(&self, in_force: &[SplitId]) -> Result<(), StoreError> {
        self.change(|shares| shares.settle(in_force))
    }

    fn change(&self, change: impl FnOnce(&mut ShareSet) -> bool) -> Result<(), StoreError> {
        let mut inner = self.inner.lock();
        let Inner::Open { shares, key } = &mut *inner else { return Err(StoreError::Sealed) };
        let mut next = shares.clone();
        if change(&mut next) {
            self.write(&next, key).map_err(|source| self.io(source))?;
            *shares = next;
        }
        Ok(())
    }

    fn io(&self, source: io::Error) -> StoreError {
        StoreError::Io { path: self.path.clone(), source }
    }

    fn header(&self, protection: Protection) -> [u8; HEADER_SIZE] {
        let mut header = [0; HEADER_SIZE];
        header[..7].copy_from_slice(MAGIC);
        header[7] = VERSION;
        header[8] = protection.code();
        header[12..].copy_from_slice(self.cluster.as_bytes());
        header
    }

    fn read(&self) -> Result<Option<(Protection, Vec<u8>, Zeroizing<Vec<u8>>)>, StoreError> {
        let damaged = || StoreError::Damaged(self.path.clone());
        match fs::metadata(&self.path) {
            Ok(found) if found.len() > FILE_SIZE_MAX => return Err(damaged()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let bytes = Zeroizing::new(fs::read(&self.path).map_err(|source| self.io(source))?);
        let (whole, checksum) = bytes.split_last_chunk::<CHECKSUM_SIZE>().ok_or_else(damaged)?;
        if whole.len() < HEADER_SIZE || crc32c::crc32c(whole).to_le_bytes() != *checksum {
            return Err(damaged());
        }
        let (header, body) = whole.split_at(HEADER_SIZE);
        let protection = [Protection::File, Protection::Passphrase, Protection::Tpm]
            .into_iter()
            .find(|protection| protection.code() == header[8])
            .ok_or_else(damaged)?;
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&header[12..]);
        let found = ClusterId::from_bytes(cluster);
        if header[..12] != self.header(protection)[..12] {
            return Err(damaged());
        }
        if found != self.cluster {
            return Err(StoreError::OtherCluster { path: self.path.clone(), found, expected: self.cluster });
        }
        Ok(Some((protection, header.to_vec(), Zeroizing::new(body.to_vec()))))
    }

    fn write(&self, shares: &ShareSet, key: &Key) -> io::Result<()> {
        let plain = Zeroizing::new(postcard::to_stdvec(shares).map_err(io::Error::other)?);
        let header = self.header(key.protection());
        let mut bytes = Zeroizing::new(header.to_vec());
        match key {
            Key::File => bytes.extend_from_slice(&plain),
            Key::Passphrase(key) => bytes.extend(key.seal(&header, &plain)),
            Key::Tpm(key, sealed) => {
                let sealed = sealed.encode();
                let length = u16::try_from(sealed.len()).map_err(io::Error::other)?;
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(&sealed);
                let envelope = key.seal(&bytes, &plain);
                bytes.extend(envelope);
            }
        }
        let checksum = crc32c::crc32c(&bytes).to_le_bytes();
        bytes.extend_from_slice(&checksum);
        let dir = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(dir)?;
        let beside = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(dir)?.sync_all()
    }
}

/// The sealed key and the envelope of shares under a TPM.
fn split_sealed(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = body.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join(KEYS_DIR).join(FILE)
}

#[cfg(test)]
mod tests {
    use holdfast_crypt::Root;
    use holdfast_model::RootEpoch;

    use super::*;
    use crate::shares::deal;

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);

    fn share() -> HeldShare {
        let root = Root::generate(CLUSTER, RootEpoch::new(1));
        deal(&root, SplitId::from_bytes([4; 16]), None, 2, 3).unwrap().remove(0)
    }

    #[test]
    fn shares_outlive_the_process_and_never_stand_open_under_a_passphrase() {
        for passphrase in [None, Some(b"correct horse".as_slice())] {
            let dir = tempfile::tempdir().unwrap();
            let store = ShareStore::open(dir.path(), CLUSTER, passphrase.map(Protector::Passphrase)).unwrap();
            assert!(store.shares().unwrap().shares().is_empty());
            let share = share();
            store.add(share.clone()).unwrap();
            let bytes = fs::read(dir.path().join("keys/shares")).unwrap();
            let in_clear = bytes.windows(32).any(|window| window == share.y.as_slice());
            assert_eq!(in_clear, passphrase.is_none());
            let again = ShareStore::open(dir.path(), CLUSTER, None).unwrap();
            assert_eq!(again.seal(), passphrase.map(|_| Seal::Passphrase));
            if let Some(passphrase) = passphrase {
                assert!(matches!(again.shares(), Err(StoreError::Sealed)));
                assert!(matches!(again.add(share.clone()), Err(StoreError::Sealed)));
                assert!(matches!(again.unseal(b"wrong"), Err(StoreError::WrongPassphrase)));
                again.unseal(passphrase).unwrap();
            }
            assert_eq!(again.shares().unwrap().shares(), std::slice::from_ref(&share));
            again.settle(&[share.split]).unwrap();
            assert!(again.shares().unwrap().has(share.split));
        }
    }

    #[test]
    fn damage_and_foreign_files_are_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        ShareStore::open(dir.path(), CLUSTER, None).unwrap().add(share()).unwrap();
        let other = ClusterId::from_bytes([9; 16]);
        assert!(matches!(ShareStore::open(dir.path(), other, None), Err(StoreError::OtherCluster { .. })));
        let path = dir.path().join("keys/shares");
        let whole = fs::read(&path).unwrap();
        for i in 0..whole.len() {
            let mut changed = whole.clone();
            changed[i] ^= 0x10;
            fs::write(&path, &changed).unwrap();
            let opened = ShareStore::open(dir.path(), CLUSTER, None);
            assert!(matches!(opened, Err(StoreError::Damaged(_))), "byte {i}");
        }
        assert!(path.exists());
    }
}
