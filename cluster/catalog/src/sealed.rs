//! A tenant's command as it enters the log: sealed by its proposer, opened by the state machine.
//!
//! | field      | meaning                                                                 |
//! |------------|-------------------------------------------------------------------------|
//! | version    | one byte, [`SEALED_VERSION`]: no version of a command in the clear has it |
//! | partition  | variable-length integer, as postcard writes it                          |
//! | key        | version of the tenant's key, likewise                                   |
//! | ciphertext | the encoded [`Command`], sealed; bound to all of the above              |
//!
//! Only the command that creates a partition is in the clear: it holds ids, and until it is applied nobody
//! knows whose the partition is.

use bytes::Bytes;
use holdfast_model::PartitionId;

use crate::{
    command::{Command, DecodeError},
    keys::{KeyVersion, MetadataSeal},
};

/// Version of the sealed form, the first byte.
pub const SEALED_VERSION: u8 = 0x81;

/// A sealed command, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed<'a> {
    pub(crate) partition: PartitionId,
    pub(crate) key: KeyVersion,
    header: &'a [u8],
    ciphertext: &'a [u8],
}

impl Command {
    /// The form in which the command is proposed, sealed for its tenant.
    #[must_use]
    pub fn seal(&self, seal: &MetadataSeal) -> Bytes {
        let mut out = postcard::to_extend(&(self.partition, seal.version), vec![SEALED_VERSION])
            .expect("writing two integers to a vector does not fail");
        let ciphertext = seal.commands.seal(&out, &self.encode());
        out.extend_from_slice(&ciphertext);
        out.into()
    }
}

impl<'a> Sealed<'a> {
    /// `None` when the command is in the clear.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Result<Self, DecodeError>> {
        let rest = bytes.strip_prefix(&[SEALED_VERSION])?;
        Some(match postcard::take_from_bytes::<(PartitionId, KeyVersion)>(rest) {
            Ok(((partition, key), ciphertext)) => {
                let header = &bytes[..bytes.len() - ciphertext.len()];
                Ok(Self { partition, key, header, ciphertext })
            }
            Err(error) => Err(DecodeError::Malformed(error.to_string())),
        })
    }

    pub(crate) fn open(&self, seal: &MetadataSeal) -> Result<Command, DecodeError> {
        let plain = seal
            .commands
            .open(self.header, self.ciphertext)
            .map_err(|error| DecodeError::Malformed(error.to_string()))?;
        let command = Command::decode(&plain)?;
        if command.partition != self.partition {
            return Err(DecodeError::Malformed("sealed for another partition than it is for".to_owned()));
        }
        Ok(command)
    }
}
