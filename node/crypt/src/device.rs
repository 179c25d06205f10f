//! The key of a node's shares when a device keeps it, a TPM for example.

use zeroize::Zeroizing;

use crate::{CryptError, envelope, labels, secret::random_array};

/// A random key that a device has sealed. It is in memory to keep shares with; on disk is only its sealed form,
/// which the caller has.
#[derive(Clone)]
pub struct DeviceKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceKey(..)")
    }
}

impl DeviceKey {
    /// A fresh key.
    #[must_use]
    pub fn generate() -> Self {
        Self(Zeroizing::new(random_array()))
    }

    /// A key that the device gave back.
    #[must_use]
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// The bytes, for the device.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Seals a node's shares: an envelope.
    #[must_use]
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        envelope::seal(&self.0, labels::SHARES, context, plain)
    }

    /// Opens what [`DeviceKey::seal`] made.
    ///
    /// # Errors
    /// `Refused`, `Malformed`.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        envelope::open(&self.0, labels::SHARES, context, sealed)
    }
}
