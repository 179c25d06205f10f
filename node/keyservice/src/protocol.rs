//! What a node program and its key service say to each other, over a pair of connected sockets.
//!
//! A frame is its length (4 bytes, little-endian, of what follows), the number of the request (8, little-endian) and
//! postcard of [`Request`] or of a result of [`Reply`] and [`KeyError`]. Both ends are of one program: there are no
//! versions. Answers may come in another order than their requests.

use std::{
    fmt,
    io::{self, Read, Write},
    path::PathBuf,
};

use holdfast_crypt::{BodyUse, CryptError};
use holdfast_keyring::{ExternalSealing, HeldShare, KeyringError, StoreError, certificate::Destruction};
use holdfast_model::{BucketId, ClusterId, KeyId, NodeId, RootEpoch, SplitId, TenantId, VersionId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

/// Largest frame in bytes, its length aside: a rotation's tenants and a record of the second copy fit.
pub const FRAME_SIZE_MAX: usize = 64 * 1024 * 1024;

const NUMBER_SIZE: usize = 8;

/// Secret bytes as they travel: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<Vec<u8>>);

impl Hidden {
    /// Hides a copy of bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, still wiped when dropped.
    #[must_use]
    pub fn into_inner(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

impl Serialize for Hidden {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Vec::<u8>::deserialize(from).map(|bytes| Self(Zeroizing::new(bytes)))
    }
}

/// What protects the shares on this node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protect {
    /// The file's mode.
    File,
    /// A passphrase; `None`: an operator enters it.
    Passphrase(Option<Hidden>),
    /// The TPM behind a device.
    Tpm(PathBuf),
}

/// The first request, before the service gives its rights up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Whose keys.
    pub cluster: ClusterId,
    /// Where shares and the record of uses are: `keys` in the node's state directory.
    pub dir: PathBuf,
    /// What protects the shares.
    pub protect: Protect,
}

/// What a key is used for. Stated with each request, recorded with each use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// A client reads an object.
    ObjectRead,
    /// A client writes an object.
    ObjectWrite,
    /// The node's own work on objects.
    Background,
    /// Keys derived for the catalog.
    Catalog,
    /// A tenant's key is made, or gets a version.
    TenantKey,
    /// Everything is wrapped under a new root.
    Rotation,
    /// Public names of a tenant's keys, for the record of its destruction.
    Names,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::ObjectRead,
        Self::ObjectWrite,
        Self::Background,
        Self::Catalog,
        Self::TenantKey,
        Self::Rotation,
        Self::Names,
    ];

    /// In logs and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ObjectRead => "object_read",
            Self::ObjectWrite => "object_write",
            Self::Background => "background",
            Self::Catalog => "catalog",
            Self::TenantKey => "tenant_key",
            Self::Rotation => "rotation",
            Self::Names => "names",
        }
    }
}

impl From<BodyUse> for Purpose {
    fn from(wanted: BodyUse) -> Self {
        match wanted {
            BodyUse::Read => Self::ObjectRead,
            BodyUse::Write => Self::ObjectWrite,
            BodyUse::Background => Self::Background,
        }
    }
}

/// How a tenant stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Served.
    Active,
    /// Its clients are refused; work on its data goes on.
    Suspended,
    /// Being destroyed.
    Shredding,
    /// Its key is destroyed.
    Destroyed,
}

/// A body, by everything its key is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyPlace {
    /// The tenant.
    pub tenant: TenantId,
    /// The bucket.
    pub bucket: BucketId,
    /// The body.
    pub content: VersionId,
    /// The object key.
    pub name: String,
}

/// A root by its epoch and public name.
pub type RootName = (RootEpoch, KeyId);

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

/// Keys that a tenant's key gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derived {
    /// Public names of all versions.
    pub names: Vec<(u32, KeyId)>,
    /// Metadata keys of all versions, as [`holdfast_crypt::TenantMetadata`] is stored; `None` where only names were
    /// asked for.
    pub metadata: Option<Hidden>,
    /// How it is sealed, when not the root alone opens it.
    pub sealing: Option<ExternalSealing>,
}

/// What a new root wraps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolled {
    /// Its public name.
    pub root: KeyId,
    /// The cluster key.
    pub cluster_key: Vec<u8>,
    /// Tenants' keys.
    pub tenants: Vec<(TenantId, Vec<u8>)>,
}

/// Operators' shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Of which root.
    pub root: RootName,
    /// Tag of the set.
    pub set: [u8; 4],
    /// The shares as text.
    pub shares: Vec<Hidden>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// How things stand now: to what changes them.
    State(Box<KeyState>),
    /// Shares that are here of the splitting nearest to its end and those needed, and how things stand now.
    Gathered {
        /// Shares that are there, and how many are needed.
        progress: Option<(u8, u8)>,
        /// How things stand.
        state: Box<KeyState>,
    },
    /// A set of shares was begun, and how things stand now.
    Anew(bool, Box<KeyState>),
    /// Shares for members.
    Shares(Vec<HeldShare>),
    /// A root was rolled, and how things stand now.
    Rolled(Rolled, Box<KeyState>),
    /// Wrapped or sealed.
    Sealed(Vec<u8>),
    /// The root that wrapped, and what it wrapped.
    SealedBy(RootName, Vec<u8>),
    /// A tenant's key with one more version.
    Rotated {
        /// Wrapped.
        wrapped: Vec<u8>,
        /// The version.
        version: u32,
    },
    /// What a tenant's key gives.
    Derived(Derived),
    /// Opened.
    Opened(Hidden),
    /// Secrets in the order asked, those that open.
    Secrets(Vec<Option<Hidden>>),
    /// Yes or no.
    Is(bool),
    /// A certificate.
    Certificate(String),
    /// Operators' shares.
    Issued(Issued),
}

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

/// What keeps shares closed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Closed {
    /// A passphrase that has not been entered.
    Passphrase,
    /// A TPM that did not open them.
    Tpm {
        /// What it said.
        why: String,
        /// Whether it is another one than theirs.
        is_other: bool,
    },
}

/// What the service says of how it is shut in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Its process; 0 where it is none of its own.
    pub pid: u32,
    /// Why its memory is not locked; `None` when it is.
    pub memory_unlocked: Option<String>,
    /// Why it has no user of its own; `None` when it has.
    pub shares_user: Option<String>,
    /// Why it has no network namespace of its own; `None` when it has.
    pub shares_network: Option<String>,
}

/// What is known of the keys, no secret in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyState {
    /// Rises with each answer: of two, the one with the higher number is the newer.
    pub number: u64,
    /// Roots that are here, in rising order.
    pub roots: Vec<RootName>,
    /// The root that wraps.
    pub current: Option<RootName>,
    /// Public name of the cluster key, and the key that signs certificates.
    pub cluster_key: Option<(KeyId, Vec<u8>)>,
    /// Shares that are open: splitting and epoch of each.
    pub shares: Option<Vec<(SplitId, RootEpoch)>>,
    /// What protects them.
    pub protection: String,
    /// What keeps them closed.
    pub closed: Option<Closed>,
    /// Uses of tenants' keys since the service started, and how many of them were refused.
    pub uses: Vec<(Purpose, u64, u64)>,
    /// How it is shut in.
    pub confinement: Confinement,
}

/// Writes one frame.
///
/// # Errors
/// I/O; `InvalidInput` when it is larger than [`FRAME_SIZE_MAX`].
pub fn send(to: &mut impl Write, number: u64, message: &impl Serialize) -> io::Result<()> {
    let mut head = Zeroizing::new(vec![0; 4]);
    head.extend_from_slice(&number.to_le_bytes());
    // Serialized once for its size, so that no growing buffer leaves secrets behind.
    let size = postcard::experimental::serialized_size(message).map_err(io::Error::other)?;
    let mut frame = Zeroizing::new(vec![0; 4 + NUMBER_SIZE + size]);
    if NUMBER_SIZE + size > FRAME_SIZE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a frame past its limit"));
    }
    let length = u32::try_from(NUMBER_SIZE + size).map_err(io::Error::other)?;
    frame[..4 + NUMBER_SIZE].copy_from_slice(&head);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    postcard::to_slice(message, &mut frame[4 + NUMBER_SIZE..]).map_err(io::Error::other)?;
    to.write_all(&frame)
}

/// Reads one frame; `None` at the end of the stream.
///
/// # Errors
/// I/O; `InvalidData` for what is no frame.
pub fn receive<T: for<'de> Deserialize<'de>>(from: &mut impl Read) -> io::Result<Option<(u64, T)>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        outcome => outcome?,
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if !(NUMBER_SIZE..=FRAME_SIZE_MAX).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut frame = Zeroizing::new(vec![0; length]);
    from.read_exact(&mut frame)?;
    let (number, body) = frame.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
    let message = postcard::from_bytes(body)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(Some((u64::from_le_bytes(*number), message)))
}

/// Wipes text that was a secret.
pub(crate) fn wipe(mut text: String) {
    text.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_as_they_went_and_what_is_none_is_refused() {
        let mut line = Vec::new();
        let request = Request::Unseal(Hidden::of(b"correct horse"));
        send(&mut line, 7, &request).unwrap();
        send(&mut line, 8, &Request::State).unwrap();
        let mut from = line.as_slice();
        assert_eq!(receive::<Request>(&mut from).unwrap(), Some((7, request.clone())));
        assert_eq!(receive::<Request>(&mut from).unwrap(), Some((8, Request::State)));
        assert_eq!(receive::<Request>(&mut from).unwrap(), None);
        assert!(!format!("{request:?}").contains("horse") && !format!("{request:?}").contains("99"));
        for bad in [&[0xff; 16][..], &[3, 0, 0, 0, 1, 2, 3], &[9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99]] {
            assert!(receive::<Request>(&mut &bad[..]).is_err());
        }
    }
}
