//! Why something was not done.

use holdfast_crypt::CryptError;
use holdfast_keyring::{KeyringError, StoreError};
use holdfast_model::RootEpoch;
use serde::{Deserialize, Serialize};

use super::Purpose;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum KeyError {
    /// The root is not here.
    #[error("the root key of epoch {} is not unlocked on this node", epoch.get())]
    Locked {
        /// Which.
        epoch: RootEpoch,
    },
    /// The cluster key is not here yet.
    #[error("the cluster key is not known yet on this node")]
    NoClusterKey,
    /// The tenant's key is sealed under a key of its external key service, which is not here.
    #[error("it waits for the tenant's external key service ({service})")]
    WaitsForExternal {
        /// The service's key, for people.
        service: String,
    },
    /// The tenant's key has not been opened since the service started.
    #[error("the tenant's key has not been opened yet")]
    NotOpened,
    /// Another key, another place, changed bytes, or past a limit.
    #[error("{0}")]
    Crypt(String),
    /// The policy does not allow it.
    #[error("the key service refuses {} for a tenant that is {standing}", purpose.name())]
    Refused {
        /// What it was wanted for.
        purpose: Purpose,
        /// How the tenant stands.
        standing: String,
    },
    /// The shares are sealed.
    #[error("{}", StoreError::Sealed)]
    Sealed,
    /// The passphrase is wrong.
    #[error("{}", StoreError::WrongPassphrase)]
    WrongPassphrase,
    /// What an operator gave does not fit.
    #[error("{0}")]
    Unfit(String),
    /// The share file, or the TPM.
    #[error("{0}")]
    Store(String),
    /// The service is not there, or does not answer. It is started again.
    #[error("the key service of this node does not answer; it is being started again")]
    Away,
    /// A request that makes no sense where it came.
    #[error("the key service was asked for what it cannot do: {0}")]
    Misused(String),
}

impl From<KeyringError> for KeyError {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Locked { epoch } => Self::Locked { epoch },
            KeyringError::NoClusterKey => Self::NoClusterKey,
            KeyringError::WaitsForExternal { service } => Self::WaitsForExternal { service },
            KeyringError::Crypt(error) => error.into(),
        }
    }
}

impl From<CryptError> for KeyError {
    fn from(error: CryptError) -> Self {
        Self::Crypt(error.to_string())
    }
}

impl From<StoreError> for KeyError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Sealed => Self::Sealed,
            StoreError::WrongPassphrase => Self::WrongPassphrase,
            other => Self::Store(other.to_string()),
        }
    }
}

impl KeyError {
    /// Whether it may pass by itself: nothing is said of what was to be opened.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Crypt(_) | Self::Unfit(_) | Self::WrongPassphrase)
    }
}
