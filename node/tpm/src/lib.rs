//! Seals a key to this machine's TPM 2.0: what is sealed opens with the same chip and with no other.
//!
//! ```text
//! Tpm ── CreatePrimary ──> storage key of the owner hierarchy: always the same one on the same chip
//!   seal    session ── Create ──> sealed object, which only that storage key opens
//!   unseal  session ── Load, Unseal ──> the key
//! ```
//!
//! - [`Tpm`]: the device; every call opens it, and leaves nothing in the chip;
//! - [`sealed::SealedKey`]: what lies on the disk;
//! - [`answers`]: what a chip's answer is read as, for the fuzzer;
//! - `wire`, `session`, `commands`: as much of TPM 2.0 as that takes, and no more.
//!
//! Source: Trusted Platform Module Library, revision 1.59: Part 2 structures, Part 3 commands.
//!
//! Invariants:
//! - a secret crosses the bus encrypted, in a session whose salt only the storage key opens that was there when
//!   the key was sealed: whoever listens on the bus, or answers in the chip's place, learns nothing;
//! - bytes from the chip are parsed with bounds; no length in them leads to an allocation past
//!   [`RESPONSE_SIZE_MAX`].
//!
//! Left out on purpose: PCR policies (`docs/decisions/0027-tpm.md`), attestation, everything else.

#![forbid(unsafe_code)]

pub mod answers;
mod commands;
mod error;
pub mod sealed;
mod session;
mod transport;
mod wire;

use std::path::{Path, PathBuf};

pub use error::TpmError;
pub use transport::RESPONSE_SIZE_MAX;
use zeroize::Zeroizing;

use crate::{
    commands::{Chip, KEY_SIZE},
    sealed::SealedKey,
};

/// Where Linux has the TPM with its resource manager, which keeps its users apart.
pub const DEVICE: &str = "/dev/tpmrm0";

/// A TPM, by the path of its device. A socket is taken as well: an emulator's.
#[derive(Debug, Clone)]
pub struct Tpm {
    path: PathBuf,
}

impl Tpm {
    /// The TPM at `path`; whether there is one shows when it is used.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Whether there is a device at all.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.path.exists()
    }

    /// Seals a key to this TPM.
    ///
    /// # Errors
    /// `Absent`, `Io`, `Refused`, `Malformed`, `Tampered`.
    pub fn seal(&self, key: &[u8; KEY_SIZE]) -> Result<SealedKey, TpmError> {
        let mut chip = Chip::open(&self.path)?;
        let storage = chip.storage_key()?;
        let created = chip.session(&storage).and_then(|mut session| chip.create(&storage, &mut session, key));
        chip.flush(storage.handle);
        let (public, private) = created?;
        Ok(SealedKey { storage: storage.public, public, private })
    }

    /// Opens a key that was sealed to this TPM.
    ///
    /// # Errors
    /// `OtherTpm` when it was another one, or this one has been cleared since; otherwise as [`Tpm::seal`].
    pub fn unseal(&self, sealed: &SealedKey) -> Result<Zeroizing<[u8; KEY_SIZE]>, TpmError> {
        let mut chip = Chip::open(&self.path)?;
        let storage = chip.storage_key()?;
        let opened = if storage.public == sealed.storage {
            chip.open_sealed(&storage, sealed)
        } else {
            Err(TpmError::OtherTpm { path: self.path.clone() })
        };
        chip.flush(storage.handle);
        opened
    }
}
