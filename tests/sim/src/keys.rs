//! How the key of the second tenant stands. What a node's key service does is done here by a [`Gate`]: it opens keys of
//! bodies for clients only while the tenant is active, for the node's own work also while it is suspended, and for nobody when
//! the key is destroyed. What clients are given in spite of that is a broken promise.

use std::sync::Arc;

use holdfast_crypt::{
    BodyContext, BodyUse, CustodyError, OuterKey, TenantCustody, TenantKey, TenantMetadata,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::plan::Ask;

/// How a tenant's key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum KeyState {
    /// It is served.
    #[default]
    Active,
    /// The tenant is suspended: no client is served, the node's own work goes on.
    Suspended,
    /// The key waits for the tenant's external key service: no body opens, metadata does.
    Waits,
    /// It is to be destroyed: the tenant is not there any more.
    Shredding,
    /// It is gone, and what it sealed is noise.
    Destroyed,
}

impl KeyState {
    /// Whether a client may get an answer to what it asked, all of it while the key stands so.
    #[must_use]
    pub fn serves(self, ask: &Ask) -> bool {
        match self {
            Self::Active => true,
            // Keys are listed and deleted by their names: whether clients may ask at all is what gateways look at.
            Self::Suspended | Self::Waits => matches!(ask, Ask::Delete { .. } | Ask::List),
            Self::Shredding | Self::Destroyed => false,
        }
    }
}

/// Keeps the key of a tenant on one node.
#[derive(Debug)]
pub struct Gate {
    key: Arc<TenantKey>,
    /// How the key stands as the node has heard, and how often that has changed.
    state: Mutex<(KeyState, u64)>,
}

impl Gate {
    /// A key that is served.
    #[must_use]
    pub fn new(key: Arc<TenantKey>) -> Arc<Self> {
        Arc::new(Self { key, state: Mutex::default() })
    }

    /// How the key stands, and how often that has changed.
    #[must_use]
    pub fn state(&self) -> (KeyState, u64) {
        *self.state.lock()
    }

    /// It stands otherwise from now on.
    pub fn set(&self, state: KeyState) {
        let mut held = self.state.lock();
        if held.0 != state {
            *held = (state, held.1 + 1);
        }
    }

    fn admit(&self, wanted: BodyUse) -> Result<(), CustodyError> {
        match (self.state().0, wanted) {
            (KeyState::Active, _) | (KeyState::Suspended, BodyUse::Background) => Ok(()),
            (state, _) => Err(CustodyError::Unavailable(format!("the key is {state:?}"))),
        }
    }
}

impl TenantCustody for Gate {
    fn wrap_body(
        &self,
        wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, CustodyError> {
        self.admit(wanted)?;
        self.key.wrap_body(wanted, context, name, secret)
    }

    fn unwrap_body(
        &self,
        wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        self.admit(wanted)?;
        self.key.unwrap_body(wanted, context, name, wrapped)
    }

    fn named_key(&self, wanted: BodyUse, id: &str) -> Result<OuterKey, CustodyError> {
        self.admit(wanted)?;
        TenantCustody::named_key(&*self.key, wanted, id)
    }

    fn metadata(&self) -> Arc<TenantMetadata> {
        TenantCustody::metadata(&*self.key)
    }
}
