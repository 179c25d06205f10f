//! What can go wrong with a TPM.

use std::{io, path::PathBuf};

use holdfast_crypt::CryptError;

/// Why a key was not sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// No device.
    #[error(
        "there is no TPM at {path}: switch it on in the firmware's settings, or choose another protection"
    )]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The device cannot be used.
    #[error("the TPM at {path} cannot be used: {source}")]
    Io {
        /// The device.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What is sealed was sealed to another TPM.
    #[error("the TPM at {path} is another one than the one it was sealed to, or was cleared since")]
    OtherTpm {
        /// The device.
        path: PathBuf,
    },
    /// The TPM refused a command.
    #[error("the TPM refused {command} with code {code:#05x} (TPM 2.0 Library, Part 2, section 6.6)")]
    Refused {
        /// The command, as the specification names it.
        command: &'static str,
        /// Its response code.
        code: u32,
    },
    /// An answer that is none.
    #[error("the TPM's answer to {command} is not one")]
    Malformed {
        /// The command.
        command: &'static str,
    },
    /// An answer that is not the TPM's.
    #[error("the answer to {command} was changed between the TPM and this program, or is not the TPM's")]
    Tampered {
        /// The command.
        command: &'static str,
    },
    /// What was kept is not a sealed key.
    #[error("this is not a key sealed to this TPM, or it was changed, or a newer release wrote it")]
    NotSealed,
    /// The agreement on a session's key failed.
    #[error(transparent)]
    Crypt(#[from] CryptError),
}
