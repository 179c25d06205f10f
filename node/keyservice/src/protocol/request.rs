//! What is asked.

use holdfast_keyring::{ExternalSealing, HeldShare, certificate::Destruction};
use holdfast_model::{NodeId, RootEpoch, SplitId, TenantId};
use serde::{Deserialize, Serialize};

use super::{BodyPlace, Hidden, Opening, Purpose, RootName, Standing};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The first, and once.
    Open(Opening),
    /// What is known, no secret in it.
    State,
    /// Makes the first root of a cluster and keeps its only share.
    Found,
    /// Puts roots together from this node's shares and these. With names, only those roots.
    Gather {
        /// What other members handed over.
        shares: Vec<HeldShare>,
        /// Roots that the control state names.
        named: Vec<RootName>,
    },
    /// Opens the shares with a passphrase.
    Unseal(Hidden),
    /// Has the TPM open the shares.
    AskTpm,
    /// Begins an empty set of shares under another TPM.
    BeginAnew,
    /// Puts a root together from operators' shares. Only one of these roots.
    Recover {
        /// The shares as text.
        shares: Vec<Hidden>,
        /// Roots that the control state names.
        named: Vec<RootName>,
    },
    /// Lets shares of other splittings and other roots go.
    Settle {
        /// Splittings in force.
        splits: Vec<SplitId>,
        /// Epochs in force.
        epochs: Vec<RootEpoch>,
        /// The current one: newer ones stay.
        current: RootEpoch,
    },
    /// This node's shares, for a member.
    HandOut {
        /// The member.
        to: NodeId,
    },
    /// Keeps a share, durably.
    TakeShare {
        /// Who dealt it.
        from: NodeId,
        /// The share.
        share: HeldShare,
    },
    /// Makes a root that is to take the current one's place.
    BeginRoot(RootEpoch),
    /// Deals a root to members.
    Deal {
        /// The root: one that is here, or that was begun.
        epoch: RootEpoch,
        /// Number of the splitting.
        split: SplitId,
        /// The one before.
        replaces: Option<SplitId>,
        /// How many give the root.
        threshold: u8,
        /// How many there are.
        count: u8,
    },
    /// Wraps the cluster key and tenants' keys under the root that was begun, which is one of this node's from then on.
    Roll {
        /// Its epoch.
        epoch: RootEpoch,
        /// Tenants' keys as they are wrapped now.
        tenants: Vec<(TenantId, Vec<u8>)>,
    },
    /// Makes a cluster key under the current root.
    MakeClusterKey,
    /// The current root and the wrapped cluster key.
    Learn {
        /// Its epoch.
        current: RootEpoch,
        /// Its wrapped form.
        cluster_key: Vec<u8>,
    },
    /// How tenants stand. Keys of others are forgotten.
    Standings(Vec<(TenantId, Standing)>),
    /// Makes a tenant's key and wraps it.
    MakeTenantKey(TenantId),
    /// Adds a version to a tenant's key.
    RotateTenantKey {
        /// The tenant.
        tenant: TenantId,
        /// Its key as it is wrapped now.
        wrapped: Vec<u8>,
    },
    /// Opens a tenant's key, and keeps it for later requests.
    OpenTenant {
        /// The tenant.
        tenant: TenantId,
        /// Its key as it is wrapped.
        wrapped: Vec<u8>,
        /// What for: [`Purpose::Catalog`] or [`Purpose::Names`].
        purpose: Purpose,
    },
    /// Whether a tenant's key opens now: it may wait for the tenant's external key service.
    CheckTenant {
        /// The tenant.
        tenant: TenantId,
        /// Its key as it is wrapped.
        wrapped: Vec<u8>,
    },
    /// The key that a tenant's external service gave back.
    OfferExternal {
        /// The tenant.
        tenant: TenantId,
        /// What it was given back for.
        ciphertext: String,
        /// The key.
        kek: Hidden,
    },
    /// Whether that is here.
    HasExternal {
        /// The tenant.
        tenant: TenantId,
        /// What it was given back for.
        ciphertext: String,
    },
    /// Forgets it, and the key that it opened.
    DropExternal(TenantId),
    /// Seals a tenant's key under an external key.
    SealExternal {
        /// The tenant.
        tenant: TenantId,
        /// Its key as it is wrapped now.
        wrapped: Vec<u8>,
        /// The external key.
        kek: Hidden,
        /// What is kept of the service.
        sealing: ExternalSealing,
    },
    /// Wraps a tenant's key under the root alone.
    UnsealExternal {
        /// The tenant.
        tenant: TenantId,
        /// Its key as it is wrapped now.
        wrapped: Vec<u8>,
    },
    /// Whether a tenant's key is in memory.
    Remembers(TenantId),
    /// Wraps a body's key.
    WrapBody {
        /// What for.
        purpose: Purpose,
        /// The body.
        place: BodyPlace,
        /// The key, or that under an outer key.
        secret: Hidden,
    },
    /// Opens a body's key.
    UnwrapBody {
        /// What for.
        purpose: Purpose,
        /// The body.
        place: BodyPlace,
        /// What [`Request::WrapBody`] gave.
        wrapped: Vec<u8>,
    },
    /// A named key of a tenant.
    NamedKey {
        /// What for.
        purpose: Purpose,
        /// The tenant.
        tenant: TenantId,
        /// The name.
        id: String,
    },
    /// Seals a secret of the cluster's own.
    SealSecret {
        /// Its name.
        name: String,
        /// The secret.
        secret: Hidden,
    },
    /// Opens secrets of the cluster's own.
    OpenSecrets(Vec<(String, Vec<u8>)>),
    /// Seals under the root.
    SealRecord {
        /// Its name.
        name: String,
        /// The record.
        plain: Hidden,
    },
    /// Opens what was sealed under a root.
    OpenRecord {
        /// Its name.
        name: String,
        /// The record.
        sealed: Vec<u8>,
    },
    /// Signs a certificate of destruction.
    Certify(Destruction),
    /// Splits the current root for operators.
    IssueRecovery {
        /// How many give the root.
        threshold: u8,
        /// How many there are.
        count: u8,
    },
}
