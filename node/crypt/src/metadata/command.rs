//! Commands of a tenant, and documents about its identities, sealed by their proposer.
//!
//! | offset | size | field      | meaning                                              |
//! |-------:|-----:|------------|------------------------------------------------------|
//! |      0 |   24 | nonce      | random                                               |
//! |     24 |    n | ciphertext |                                                      |
//! |   24+n |   16 | tag        | over ciphertext and the caller's associated data     |

use zeroize::Zeroizing;

use super::xaes::{self, NONCE_SIZE, TAG_SIZE, Xaes};
use crate::{
    CryptError,
    derive::derive,
    secret::{MetadataKey, random_array},
};

const PURPOSE: &str = "catalog command";

/// Seals and opens the commands, or the documents, of one tenant under one version of its key.
pub struct CommandCipher(Xaes);

impl std::fmt::Debug for CommandCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CommandCipher(..)")
    }
}

impl MetadataKey {
    /// What seals commands under this key.
    #[must_use]
    pub fn commands(&self) -> CommandCipher {
        CommandCipher(Xaes::new(&derive(self.expose(), b"", &[b"holdfast catalog command v1"])))
    }

    /// What seals documents about a tenant's identities, in the control state, under this key: users, groups, roles,
    /// policies. They name buckets and objects.
    #[must_use]
    pub fn documents(&self) -> CommandCipher {
        CommandCipher(Xaes::new(&derive(self.expose(), b"", &[b"holdfast identity document v1"])))
    }
}

impl CommandCipher {
    /// Bytes that sealing a command adds.
    pub const OVERHEAD: usize = NONCE_SIZE + TAG_SIZE;

    /// Seals a command, bound to `context`.
    #[must_use]
    pub fn seal(&self, context: &[u8], command: &[u8]) -> Vec<u8> {
        self.seal_with(random_array(), context, command)
    }

    fn seal_with(&self, nonce: [u8; NONCE_SIZE], context: &[u8], command: &[u8]) -> Vec<u8> {
        let (prefix, rest) = xaes::halves(&nonce);
        let mut sealed = Vec::with_capacity(command.len() + Self::OVERHEAD);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(command);
        let tag = xaes::seal(&self.0.derived(&prefix), rest, context, &mut sealed[NONCE_SIZE..]);
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// Opens what [`CommandCipher::seal`] made with the same context.
    ///
    /// # Errors
    /// `Malformed` or `Refused`.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        let (nonce, ciphertext) = sealed
            .split_first_chunk::<NONCE_SIZE>()
            .filter(|(_, rest)| rest.len() >= TAG_SIZE)
            .ok_or(CryptError::Malformed(PURPOSE))?;
        let (prefix, rest) = xaes::halves(nonce);
        let mut bytes = Zeroizing::new(ciphertext.to_vec());
        if !xaes::open(&self.0.derived(&prefix), rest, context, &mut bytes) {
            return Err(CryptError::Refused(PURPOSE));
        }
        bytes.truncate(ciphertext.len() - TAG_SIZE);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(seed: u8) -> CommandCipher {
        MetadataKey::from_bytes([seed; 32]).commands()
    }

    #[test]
    fn a_command_opens_only_as_it_was_sealed() {
        let sealed = cipher(1).seal(b"here", b"a command");
        assert_eq!(sealed.len(), 9 + CommandCipher::OVERHEAD);
        assert_eq!(cipher(1).open(b"here", &sealed).unwrap().as_slice(), b"a command");
        assert!(cipher(1).open(b"there", &sealed).is_err());
        assert!(cipher(2).open(b"here", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(cipher(1).open(b"here", &changed).is_err(), "byte {at}");
            assert!(cipher(1).open(b"here", &sealed[..at]).is_err(), "cut at {at}");
        }
        assert_ne!(cipher(1).seal(b"here", b"a command"), sealed, "nonces are fresh");
    }

    #[test]
    fn version_1_commands_stay_readable() {
        let sealed = cipher(5).seal_with([7; NONCE_SIZE], b"context", b"golden");
        assert_eq!(hex::encode(&sealed[NONCE_SIZE..]), "5ed5ea44a8cd5313ff388502a77490416870567b0b66");
        let documents = MetadataKey::from_bytes([5; 32]).documents();
        let document = documents.seal_with([7; NONCE_SIZE], b"context", b"golden");
        assert_eq!(hex::encode(&document[NONCE_SIZE..]), "b71acfdb695ecb1752177e9fc67a8d475480d371b101");
        assert!(documents.open(b"context", &sealed).is_err(), "a command is no document");
    }
}
