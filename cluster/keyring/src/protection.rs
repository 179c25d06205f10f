//! What keeps a node's shares from whoever holds its state disk, and what it may refuse for.

use std::{io, path::PathBuf};

use holdfast_crypt::{CryptError, DeviceKey, PassphraseKey};
use holdfast_model::ClusterId;
use holdfast_tpm::{Tpm, TpmError, sealed::SealedKey};

/// What keeps a node's shares from whoever holds its state disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// The file's mode only: who holds the disk holds this node's share.
    File,
    /// A passphrase, by argon2id.
    Passphrase,
    /// The TPM of the machine.
    Tpm,
}

/// What is at hand to protect shares with, and to open protected ones.
#[derive(Debug)]
pub enum Protector<'a> {
    /// A passphrase.
    Passphrase(&'a [u8]),
    /// A TPM.
    Tpm(Tpm),
}

impl Protection {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Passphrase => 2,
            Self::Tpm => 3,
        }
    }

    /// As people read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Passphrase => "passphrase",
            Self::Tpm => "tpm",
        }
    }
}

/// Why the shares of a node are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read or written.
    #[error("share file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not what this program wrote.
    #[error("share file {0} is damaged or foreign: move it away, and this node unlocks from its peers")]
    Damaged(PathBuf),
    /// The file belongs to another cluster.
    #[error("share file {path} belongs to cluster {found}, this node is in {expected}")]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// Cluster named in the file.
        found: ClusterId,
        /// Cluster of the node.
        expected: ClusterId,
    },
    /// What protects the shares is not there yet.
    #[error(
        "the shares of this node are sealed: its passphrase has not been entered, or its TPM does not open them"
    )]
    Sealed,
    /// The TPM does not seal or open.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The passphrase is wrong.
    #[error("this is not the passphrase of this node's shares")]
    WrongPassphrase,
    /// Anything else about the seal.
    #[error(transparent)]
    Crypt(#[from] CryptError),
}

/// What keeps shares closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seal {
    /// A passphrase that has not been entered.
    Passphrase,
    /// A TPM that did not open them.
    Tpm {
        /// What it said.
        why: String,
        /// Whether it is another TPM than the one they were sealed to, so that they stay closed for good.
        is_other: bool,
    },
}

/// What an open set is written under.
pub(crate) enum Key {
    File,
    Passphrase(PassphraseKey),
    Tpm(DeviceKey, SealedKey),
}

impl Key {
    pub(crate) const fn protection(&self) -> Protection {
        match self {
            Self::File => Protection::File,
            Self::Passphrase(_) => Protection::Passphrase,
            Self::Tpm(..) => Protection::Tpm,
        }
    }

    /// A fresh key that the TPM has sealed.
    pub(crate) fn sealed_to(tpm: &Tpm) -> Result<Self, TpmError> {
        let key = DeviceKey::generate();
        let sealed = tpm.seal(key.expose())?;
        Ok(Self::Tpm(key, sealed))
    }
}
