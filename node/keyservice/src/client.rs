//! Asks the key service, and keeps at hand what is no secret: which roots are there, how shares stand.
//!
//! Calls block: an answer takes some tens of microseconds, those of [`Core::takes_long`] longer.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use holdfast_crypt::{
    BodyContext, BodyUse, CryptError, CustodyError, ExternalKek, OuterKey, TenantCustody, TenantMetadata,
};
use holdfast_keyring::{ExternalSealing, HeldShare, certificate::Destruction};
use holdfast_model::{ClusterId, KeyId, NodeId, RootEpoch, SplitId, TenantId};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::{
    Core,
    protocol::{
        BodyPlace, Confinement, Derived, Hidden, Issued, KeyError, KeyState, Opening, Purpose, Reply,
        Request, Rolled, RootName, Standing,
    },
    supervisor::{OpeningOf, Supervisor},
};

/// Secrets asked for at once.
const SECRETS_AT_ONCE: usize = 512;

/// Bytes of sealed secrets after which no more are opened with one question.
const SECRETS_SIZE_AT_ONCE: usize = 4 * 1024 * 1024;

/// What is known of the service, and when that changed.
#[derive(Debug)]
pub(crate) struct Known {
    state: RwLock<KeyState>,
    /// How often the service was started.
    starts: AtomicU64,
    changes: watch::Sender<u64>,
}

impl Known {
    fn new() -> Arc<Self> {
        let (changes, _) = watch::channel(0);
        Arc::new(Self { state: RwLock::default(), starts: AtomicU64::new(0), changes })
    }

    /// A service was started, and says this of itself.
    pub(crate) fn begin(&self, state: KeyState) {
        *self.state.write() = state;
        self.starts.fetch_add(1, Ordering::AcqRel);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Takes what the service says of itself, unless it is older than what is known, or of one that has ended.
    pub(crate) fn learn(&self, state: KeyState) {
        let changed = {
            let mut known = self.state.write();
            if state.number < known.number || state.confinement.pid != known.confinement.pid {
                return;
            }
            let changed = known.roots != state.roots;
            *known = state;
            changed
        };
        if changed {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The service ended: nothing is open any more.
    pub(crate) fn forget(&self) {
        let mut state = self.state.write();
        let protection = std::mem::take(&mut state.protection);
        *state = KeyState { protection, ..KeyState::default() };
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
    }
}

/// Where requests go.
enum Line {
    /// To a process.
    Process(Arc<Supervisor>),
    /// To a service in this process: tests and tools.
    Here(Box<Core>),
}

impl Line {
    fn ask(&self, request: Request) -> Result<Reply, KeyError> {
        match self {
            Self::Process(supervisor) => supervisor.ask(&request),
            Self::Here(core) => core.handle(request),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Self::Process(supervisor) = self {
            supervisor.stop();
        }
    }
}

/// The keys of a running node, by way of its key service.
pub struct Client {
    cluster: ClusterId,
    line: Arc<Line>,
    known: Arc<Known>,
    tenants: Mutex<HashMap<TenantId, Arc<RemoteTenant>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("epochs", &self.epochs()).finish_non_exhaustive()
    }
}

/// What another answer than was asked for is.
fn odd(reply: &Reply) -> KeyError {
    KeyError::Misused(format!("it answered {:?}", std::mem::discriminant(reply)))
}

impl Client {
    /// Starts the service as a process of its own. This program must know the subcommand: see
    /// [`crate::process::run`]. `opening` is asked each time it is started: a passphrase is not kept.
    ///
    /// # Errors
    /// What the service could not open; `Away` when it cannot be started.
    pub fn start(cluster: ClusterId, opening: OpeningOf) -> Result<Self, KeyError> {
        let known = Known::new();
        let supervisor = Supervisor::start(opening, Arc::clone(&known))?;
        Ok(Self { cluster, line: Arc::new(Line::Process(supervisor)), known, tenants: Mutex::default() })
    }

    /// The service in this process, for tests: no node runs so.
    ///
    /// # Errors
    /// As [`Core::open`].
    pub fn here(opening: &Opening, dir: &Path) -> Result<Self, KeyError> {
        let core = Core::open(opening, dir, Confinement::default())?;
        let known = Known::new();
        known.begin(core.state());
        let line = Arc::new(Line::Here(Box::new(core)));
        Ok(Self { cluster: opening.cluster, line, known, tenants: Mutex::default() })
    }

    /// The cluster whose keys these are.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What is known of the keys.
    #[must_use]
    pub fn state(&self) -> KeyState {
        self.known.state.read().clone()
    }

    /// Asks for what is known of the keys, uses counted to this moment.
    #[must_use]
    pub fn fresh_state(&self) -> KeyState {
        self.change(Request::State).map_or_else(|_| self.state(), |()| self.state())
    }

    /// Changes with every root that comes or goes, and every start and end of the service.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.known.changes.subscribe()
    }

    /// How often the service was started: what was put together while this changed may lack something.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.known.starts.load(Ordering::Acquire)
    }

    /// Epochs of the roots that are here.
    #[must_use]
    pub fn epochs(&self) -> Vec<RootEpoch> {
        self.known.state.read().roots.iter().map(|(epoch, _)| *epoch).collect()
    }

    /// Whether the root of an epoch is here, by its name.
    #[must_use]
    pub fn has(&self, epoch: RootEpoch, root: KeyId) -> bool {
        self.known.state.read().roots.contains(&(epoch, root))
    }

    /// Whether no root is here.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.known.state.read().roots.is_empty()
    }

    /// The root that wraps.
    ///
    /// # Errors
    /// `Locked`.
    pub fn current(&self) -> Result<RootName, KeyError> {
        self.known.state.read().current.ok_or(KeyError::Locked { epoch: RootEpoch::default() })
    }

    /// Whether the cluster key is here.
    #[must_use]
    pub fn has_cluster_key(&self) -> bool {
        self.known.state.read().cluster_key.is_some()
    }

    /// The public name of the cluster key; `None` until it is known.
    #[must_use]
    pub fn cluster_key_id(&self) -> Option<KeyId> {
        self.known.state.read().cluster_key.as_ref().map(|(id, _)| *id)
    }

    /// The public key that certificates are verified with.
    ///
    /// # Errors
    /// `NoClusterKey`.
    pub fn certificate_key(&self) -> Result<[u8; 32], KeyError> {
        let state = self.known.state.read();
        let key = state.cluster_key.as_ref().and_then(|(_, key)| key.as_slice().try_into().ok());
        key.ok_or(KeyError::NoClusterKey)
    }

    fn ask(&self, request: Request) -> Result<Reply, KeyError> {
        self.line.ask(request)
    }

    fn change(&self, request: Request) -> Result<(), KeyError> {
        match self.ask(request)? {
            Reply::State(state) => {
                self.known.learn(*state);
                Ok(())
            }
            other => Err(odd(&other)),
        }
    }

    fn sealed(&self, request: Request) -> Result<Vec<u8>, KeyError> {
        match self.ask(request)? {
            Reply::Sealed(bytes) => Ok(bytes),
            other => Err(odd(&other)),
        }
    }

    fn shares_for(&self, request: Request) -> Result<Vec<HeldShare>, KeyError> {
        match self.ask(request)? {
            Reply::Shares(shares) => Ok(shares),
            other => Err(odd(&other)),
        }
    }

    /// Makes the first root of a cluster; its only share is durable when this returns.
    ///
    /// # Errors
    /// `Store`, `Away`.
    pub fn found(&self) -> Result<(), KeyError> {
        self.change(Request::Found)
    }

    /// Puts roots together from this node's shares and these; with names, only those. Returns how many shares are
    /// there and how many are needed, of the splitting nearest to its end.
    ///
    /// # Errors
    /// `Away`.
    pub fn gather(&self, shares: Vec<HeldShare>, named: Vec<RootName>) -> Result<Option<(u8, u8)>, KeyError> {
        match self.ask(Request::Gather { shares, named })? {
            Reply::Gathered { progress, state } => {
                self.known.learn(*state);
                Ok(progress)
            }
            other => Err(odd(&other)),
        }
    }

    /// Opens the shares with a passphrase.
    ///
    /// # Errors
    /// `WrongPassphrase`, `Store`, `Away`.
    pub fn unseal(&self, passphrase: &[u8]) -> Result<(), KeyError> {
        self.change(Request::Unseal(Hidden::of(passphrase)))
    }

    /// Has the TPM open the shares.
    ///
    /// # Errors
    /// `Store`, `Away`.
    pub fn ask_tpm(&self) -> Result<(), KeyError> {
        self.change(Request::AskTpm)
    }

    /// Begins an empty set of shares where another TPM holds what was there; whether that was so.
    ///
    /// # Errors
    /// `Store`, `Away`.
    pub fn begin_anew(&self) -> Result<bool, KeyError> {
        match self.ask(Request::BeginAnew)? {
            Reply::Anew(begun, state) => {
                self.known.learn(*state);
                Ok(begun)
            }
            other => Err(odd(&other)),
        }
    }

    /// Puts a root together from operators' shares: one of those named.
    ///
    /// # Errors
    /// `Unfit`, `Away`.
    pub fn recover(&self, shares: &[impl AsRef<str>], named: Vec<RootName>) -> Result<(), KeyError> {
        let shares = shares.iter().map(|share| Hidden::of(share.as_ref().as_bytes())).collect();
        self.change(Request::Recover { shares, named })
    }

    /// Lets shares and roots go that were replaced. Roots newer than `current` stay.
    ///
    /// # Errors
    /// `Store`, `Away`.
    pub fn settle(
        &self,
        splits: Vec<SplitId>,
        epochs: Vec<RootEpoch>,
        current: RootEpoch,
    ) -> Result<(), KeyError> {
        self.change(Request::Settle { splits, epochs, current })
    }

    /// This node's shares, for a member.
    ///
    /// # Errors
    /// `Sealed`, `Away`.
    pub fn hand_out(&self, to: NodeId) -> Result<Vec<HeldShare>, KeyError> {
        self.shares_for(Request::HandOut { to })
    }

    /// Keeps a share; it is durable when this returns.
    ///
    /// # Errors
    /// `Unfit`, `Sealed`, `Store`, `Away`.
    pub fn take_share(&self, from: NodeId, share: HeldShare) -> Result<(), KeyError> {
        self.change(Request::TakeShare { from, share })
    }

    /// Makes a root that is to take the current one's place.
    ///
    /// # Errors
    /// `Away`.
    pub fn begin_root(&self, epoch: RootEpoch) -> Result<RootName, KeyError> {
        match self.ask(Request::BeginRoot(epoch))? {
            Reply::SealedBy(name, _) => Ok(name),
            other => Err(odd(&other)),
        }
    }

    /// Deals a root, one that is here or was begun, to members.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Away`.
    pub fn deal(
        &self,
        epoch: RootEpoch,
        split: SplitId,
        replaces: Option<SplitId>,
        threshold: u8,
        count: u8,
    ) -> Result<Vec<HeldShare>, KeyError> {
        self.shares_for(Request::Deal { epoch, split, replaces, threshold, count })
    }

    /// Wraps everything under the root that was begun.
    ///
    /// # Errors
    /// `Locked`, `NoClusterKey`, `Crypt`, `Refused`, `Away`.
    pub fn roll(&self, epoch: RootEpoch, tenants: Vec<(TenantId, Vec<u8>)>) -> Result<Rolled, KeyError> {
        match self.ask(Request::Roll { epoch, tenants })? {
            Reply::Rolled(rolled, state) => {
                self.known.learn(*state);
                Ok(rolled)
            }
            other => Err(odd(&other)),
        }
    }

    /// Makes a cluster key, wrapped under the current root.
    ///
    /// # Errors
    /// `Locked`, `Away`.
    pub fn make_cluster_key(&self) -> Result<(RootName, Vec<u8>), KeyError> {
        match self.ask(Request::MakeClusterKey)? {
            Reply::SealedBy(name, wrapped) => Ok((name, wrapped)),
            other => Err(odd(&other)),
        }
    }

    /// Tells the service what the control state says: the current epoch and the wrapped cluster key.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Away`.
    pub fn learn(&self, current: RootEpoch, wrapped: &[u8]) -> Result<(), KeyError> {
        self.change(Request::Learn { current, cluster_key: wrapped.to_vec() })
    }

    /// Tells the service how tenants stand. Keys of others are forgotten.
    ///
    /// # Errors
    /// `Away`.
    pub fn set_standings(&self, standings: Vec<(TenantId, Standing)>) -> Result<(), KeyError> {
        let lives = |tenant: TenantId| {
            standings.iter().any(|(known, standing)| *known == tenant && *standing != Standing::Destroyed)
        };
        self.tenants.lock().retain(|tenant, _| lives(*tenant));
        self.change(Request::Standings(standings))
    }

    /// Makes a tenant's key, wrapped under the current root.
    ///
    /// # Errors
    /// `Locked`, `Refused`, `Away`.
    pub fn make_tenant_key(&self, tenant: TenantId) -> Result<Vec<u8>, KeyError> {
        self.sealed(Request::MakeTenantKey(tenant))
    }

    /// Adds a version to a tenant's key: its new wrapped form, and the version.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Refused`, `Away`.
    pub fn rotate_tenant_key(&self, tenant: TenantId, wrapped: &[u8]) -> Result<(Vec<u8>, u32), KeyError> {
        match self.ask(Request::RotateTenantKey { tenant, wrapped: wrapped.to_vec() })? {
            Reply::Rotated { wrapped, version } => Ok((wrapped, version)),
            other => Err(odd(&other)),
        }
    }

    /// A tenant, by its wrapped key: remembered as long as that stays the same, also while the service is away.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Refused`, `Away`.
    pub fn tenant(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Arc<RemoteTenant>, KeyError> {
        if let Some(known) = self.tenants.lock().get(&tenant)
            && known.wrapped == wrapped
        {
            return Ok(Arc::clone(known));
        }
        let derived = open_tenant(&self.line, tenant, wrapped, Purpose::Catalog)?;
        let metadata = derived.metadata.ok_or_else(|| KeyError::Misused("it derived nothing".to_owned()))?;
        let metadata = Arc::new(TenantMetadata::from_bytes(metadata.expose())?);
        let sealing = derived.sealing;
        let line = Arc::clone(&self.line);
        let opened = Arc::new(RemoteTenant { line, tenant, wrapped: wrapped.to_vec(), metadata, sealing });
        self.tenants.lock().insert(tenant, Arc::clone(&opened));
        Ok(opened)
    }

    /// What a tenant's metadata is sealed under. Needs no external key.
    ///
    /// # Errors
    /// As [`Client::tenant`].
    pub fn tenant_metadata(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Arc<TenantMetadata>, KeyError> {
        Ok(Arc::clone(&self.tenant(tenant, wrapped)?.metadata))
    }

    /// How a tenant's key is sealed; `None` when the root alone opens it.
    ///
    /// # Errors
    /// As [`Client::tenant`].
    pub fn external_sealing(
        &self,
        tenant: TenantId,
        wrapped: &[u8],
    ) -> Result<Option<ExternalSealing>, KeyError> {
        Ok(self.tenant(tenant, wrapped)?.sealing.clone())
    }

    /// Whether a tenant's key opens now. One that the root alone opens does once it was opened.
    ///
    /// # Errors
    /// `WaitsForExternal`, and as [`Client::tenant`].
    pub fn check_open(&self, tenant: TenantId, wrapped: &[u8]) -> Result<(), KeyError> {
        if self.tenant(tenant, wrapped)?.sealing.is_some() {
            self.ask(Request::CheckTenant { tenant, wrapped: wrapped.to_vec() })?;
        }
        Ok(())
    }

    /// Hands in the key that a tenant's external service gave back for `ciphertext`. It is kept until it is dropped, or
    /// the key service ends.
    pub fn offer_external(&self, tenant: TenantId, ciphertext: &str, kek: &ExternalKek) {
        let kek = Hidden::of(kek.expose());
        let request = Request::OfferExternal { tenant, ciphertext: ciphertext.to_owned(), kek };
        if let Err(error) = self.ask(request) {
            tracing::warn!(%tenant, %error, "a tenant's external key is not taken");
        }
        self.known.changed();
    }

    /// Whether the key that a service gave back for `ciphertext` is here.
    #[must_use]
    pub fn has_external(&self, tenant: TenantId, ciphertext: &str) -> bool {
        let request = Request::HasExternal { tenant, ciphertext: ciphertext.to_owned() };
        matches!(self.ask(request), Ok(Reply::Is(true)))
    }

    /// Forgets a tenant's external key and the key it opened. Returns whether there was one. A key service that does not
    /// answer has forgotten both, or is ended.
    pub fn drop_external(&self, tenant: TenantId) -> bool {
        let had = matches!(self.ask(Request::DropExternal(tenant)), Ok(Reply::Is(true)));
        if had {
            self.known.changed();
        }
        had
    }

    /// Seals a tenant's key under an external key; its new wrapped form.
    ///
    /// # Errors
    /// `Locked`, `WaitsForExternal`, `Crypt`, `Refused`, `Away`.
    pub fn seal_external(
        &self,
        tenant: TenantId,
        wrapped: &[u8],
        kek: &ExternalKek,
        sealing: &ExternalSealing,
    ) -> Result<Vec<u8>, KeyError> {
        let (wrapped, kek, sealing) = (wrapped.to_vec(), Hidden::of(kek.expose()), sealing.clone());
        self.sealed(Request::SealExternal { tenant, wrapped, kek, sealing })
    }

    /// Wraps a tenant's key under the root alone; its new wrapped form.
    ///
    /// # Errors
    /// As [`Client::seal_external`].
    pub fn unseal_external(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sealed(Request::UnsealExternal { tenant, wrapped: wrapped.to_vec() })
    }

    /// Public names of all versions of a tenant's key.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Refused`, `Away`.
    pub fn tenant_key_names(&self, tenant: TenantId, wrapped: &[u8]) -> Result<Vec<(u32, KeyId)>, KeyError> {
        Ok(open_tenant(&self.line, tenant, wrapped, Purpose::Names)?.names)
    }

    /// Whether a tenant's key, or what is derived from it, is in the memory of this node.
    ///
    /// # Errors
    /// `Away`.
    pub fn remembers(&self, tenant: TenantId) -> Result<bool, KeyError> {
        let here = self.tenants.lock().contains_key(&tenant);
        match self.ask(Request::Remembers(tenant))? {
            Reply::Is(there) => Ok(here || there),
            other => Err(odd(&other)),
        }
    }

    /// Seals a secret of the cluster's own under its name.
    ///
    /// # Errors
    /// `NoClusterKey`, `Away`.
    pub fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sealed(Request::SealSecret { name: name.to_owned(), secret: Hidden::of(secret) })
    }

    /// Opens what [`Client::seal_secret`] made under the same name.
    ///
    /// # Errors
    /// `NoClusterKey`, `Crypt`, `Away`.
    pub fn open_secret(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        let opened = self.open_secrets(vec![(name.to_owned(), sealed.to_vec())])?.pop().flatten();
        opened.map(|secret| secret.to_vec()).ok_or_else(|| CryptError::Refused("cluster secret").into())
    }

    /// Opens many, in the order given; `None` for each that does not open.
    ///
    /// # Errors
    /// `NoClusterKey`, `Away`.
    pub fn open_secrets(
        &self,
        asked: Vec<(String, Vec<u8>)>,
    ) -> Result<Vec<Option<Zeroizing<Vec<u8>>>>, KeyError> {
        let mut opened = Vec::with_capacity(asked.len());
        let mut asked = asked.into_iter().peekable();
        while asked.peek().is_some() {
            let (mut some, mut size) = (Vec::new(), 0);
            // One that is too large for this goes alone.
            while some.len() < SECRETS_AT_ONCE && (some.is_empty() || size <= SECRETS_SIZE_AT_ONCE) {
                let Some((name, sealed)) = asked.next() else { break };
                size += name.len() + sealed.len();
                some.push((name, sealed));
            }
            let count = some.len();
            match self.ask(Request::OpenSecrets(some))? {
                Reply::Secrets(secrets) if secrets.len() == count => {
                    opened.extend(secrets.into_iter().map(|secret| secret.map(Hidden::into_inner)));
                }
                other => return Err(odd(&other)),
            }
        }
        Ok(opened)
    }

    /// Seals under the root itself what must open before the control state is there.
    ///
    /// # Errors
    /// `Locked`, `Away`.
    pub fn seal_record(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.sealed(Request::SealRecord { name: name.to_owned(), plain: Hidden::of(plain) })
    }

    /// Opens what [`Client::seal_record`] made under the same name.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Away`.
    pub fn open_record(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.ask(Request::OpenRecord { name: name.to_owned(), sealed: sealed.to_vec() })? {
            Reply::Opened(plain) => Ok(plain.expose().to_vec()),
            other => Err(odd(&other)),
        }
    }

    /// Signs a certificate of destruction.
    ///
    /// # Errors
    /// `NoClusterKey`, `Away`.
    pub fn certify(&self, destruction: Destruction) -> Result<String, KeyError> {
        match self.ask(Request::Certify(destruction))? {
            Reply::Certificate(text) => Ok(text),
            other => Err(odd(&other)),
        }
    }

    /// Splits the current root for operators.
    ///
    /// # Errors
    /// `Locked`, `Crypt`, `Away`.
    pub fn issue_recovery(&self, threshold: u8, count: u8) -> Result<Issued, KeyError> {
        match self.ask(Request::IssueRecovery { threshold, count })? {
            Reply::Issued(issued) => Ok(issued),
            other => Err(odd(&other)),
        }
    }
}

fn open_tenant(line: &Line, tenant: TenantId, wrapped: &[u8], purpose: Purpose) -> Result<Derived, KeyError> {
    match line.ask(Request::OpenTenant { tenant, wrapped: wrapped.to_vec(), purpose })? {
        Reply::Derived(derived) => Ok(derived),
        other => Err(odd(&other)),
    }
}

/// A tenant whose key the service holds.
pub struct RemoteTenant {
    line: Arc<Line>,
    tenant: TenantId,
    wrapped: Vec<u8>,
    metadata: Arc<TenantMetadata>,
    sealing: Option<ExternalSealing>,
}

impl fmt::Debug for RemoteTenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteTenant").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl RemoteTenant {
    /// Asks, and has a service that was started since open the tenant's key first.
    fn ask(&self, request: impl Fn() -> Request) -> Result<Reply, CustodyError> {
        let answer = match self.line.ask(request()) {
            Err(KeyError::NotOpened) => open_tenant(&self.line, self.tenant, &self.wrapped, Purpose::Catalog)
                .and_then(|_| self.line.ask(request())),
            answer => answer,
        };
        answer.map_err(|error| match error {
            KeyError::Crypt(_) => CustodyError::Crypt(CryptError::Refused("body key")),
            // Clients are told no service's name.
            KeyError::WaitsForExternal { .. } => {
                CustodyError::Unavailable("it waits for the tenant's external key service".to_owned())
            }
            other => CustodyError::Unavailable(other.to_string()),
        })
    }

    fn place(&self, context: &BodyContext, name: &str) -> BodyPlace {
        BodyPlace {
            tenant: context.tenant,
            bucket: context.bucket,
            content: context.content,
            name: name.to_owned(),
        }
    }
}

impl TenantCustody for RemoteTenant {
    fn wrap_body(
        &self,
        wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        secret: &[u8],
    ) -> Result<Vec<u8>, CustodyError> {
        let request = || Request::WrapBody {
            purpose: wanted.into(),
            place: self.place(context, name),
            secret: Hidden::of(secret),
        };
        match self.ask(request)? {
            Reply::Sealed(bytes) => Ok(bytes),
            other => Err(CustodyError::Unavailable(odd(&other).to_string())),
        }
    }

    fn unwrap_body(
        &self,
        wanted: BodyUse,
        context: &BodyContext,
        name: &str,
        wrapped: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, CustodyError> {
        let request = || Request::UnwrapBody {
            purpose: wanted.into(),
            place: self.place(context, name),
            wrapped: wrapped.to_vec(),
        };
        match self.ask(request)? {
            Reply::Opened(secret) => Ok(secret.into_inner()),
            other => Err(CustodyError::Unavailable(odd(&other).to_string())),
        }
    }

    fn named_key(&self, wanted: BodyUse, id: &str) -> Result<OuterKey, CustodyError> {
        let request = || Request::NamedKey { purpose: wanted.into(), tenant: self.tenant, id: id.to_owned() };
        let odd = |reply: &Reply| CustodyError::Unavailable(odd(reply).to_string());
        match self.ask(request)? {
            Reply::Opened(key) => {
                let key: [u8; 32] =
                    key.expose().try_into().map_err(|_| CryptError::Malformed("named key"))?;
                Ok(OuterKey::from_bytes(key))
            }
            other => Err(odd(&other)),
        }
    }

    fn metadata(&self) -> Arc<TenantMetadata> {
        Arc::clone(&self.metadata)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_crypt::{BodyKey, BodySealer};
    use holdfast_model::{BucketId, VersionId};

    use super::*;
    use crate::{Protect, uses};

    const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
    const TENANT: TenantId = TenantId::from_bytes([2; 16]);
    const BUCKET: BucketId = BucketId::from_bytes([3; 16]);

    fn founded(dir: &Path) -> Client {
        let opening = Opening { cluster: CLUSTER, dir: dir.to_path_buf(), protect: Protect::File };
        let client = Client::here(&opening, dir).unwrap();
        if client.state().shares.is_some_and(|shares| shares.is_empty()) {
            client.found().unwrap();
        } else {
            client.gather(Vec::new(), Vec::new()).unwrap();
        }
        client
    }

    #[test]
    fn bodies_are_served_as_the_policy_says_and_every_use_is_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let client = founded(dir.path());
        let wrapped = client.make_tenant_key(TENANT).unwrap();
        let tenant = client.tenant(TENANT, &wrapped).unwrap();
        let context = BodyContext {
            cluster: CLUSTER,
            tenant: TENANT,
            bucket: BUCKET,
            content: VersionId::from_bytes([4; 16]),
        };
        let sealer = BodySealer::begin(context);
        let place = (CLUSTER, TENANT, BUCKET);
        let unknown = sealer.wrap_by(&*tenant, BodyUse::Write, "k", None);
        assert!(matches!(unknown, Err(CustodyError::Unavailable(_))));
        client.set_standings(vec![(TENANT, Standing::Active)]).unwrap();
        let tenant = client.tenant(TENANT, &wrapped).unwrap();
        let sealed = sealer.wrap_by(&*tenant, BodyUse::Write, "k", None).unwrap();
        let open = |tenant: &RemoteTenant, wanted, name: &str| {
            BodyKey::unwrap_by(&sealed, (tenant, wanted), place, name, None).map(drop)
        };
        open(&tenant, BodyUse::Read, "k").unwrap();
        assert!(matches!(open(&tenant, BodyUse::Read, "other"), Err(CustodyError::Crypt(_))));
        client.set_standings(vec![(TENANT, Standing::Suspended)]).unwrap();
        assert!(matches!(open(&tenant, BodyUse::Read, "k"), Err(CustodyError::Unavailable(_))));
        open(&tenant, BodyUse::Background, "k").unwrap();

        // Another service, over the same shares: it opens the tenant's key when it is asked.
        drop((client, tenant));
        let client = founded(dir.path());
        let tenant = client.tenant(TENANT, &wrapped).unwrap();
        client.set_standings(vec![(TENANT, Standing::Active)]).unwrap();
        open(&tenant, BodyUse::Read, "k").unwrap();
        client.set_standings(vec![(TENANT, Standing::Destroyed)]).unwrap();
        assert!(!client.remembers(TENANT).unwrap());
        assert!(client.tenant(TENANT, &wrapped).is_err());
        assert!(open(&tenant, BodyUse::Background, "k").is_err());

        let mut outcomes = Vec::new();
        let found = uses::verify(dir.path(), |recorded| outcomes.push(recorded.used.outcome)).unwrap();
        use uses::Outcome::{Done, Failed, Refused};
        assert_eq!(outcomes, [Refused, Done, Done, Failed, Refused, Done, Done, Refused]);
        assert_eq!((found.first, found.last), (1, 8));
        let counted = client.fresh_state().uses;
        assert!(counted.contains(&(Purpose::ObjectRead, 1, 0)), "{counted:?}");
    }

    #[test]
    fn a_root_is_begun_dealt_and_rolled_without_leaving_the_service() {
        let dir = tempfile::tempdir().unwrap();
        let client = founded(dir.path());
        let (first, cluster_key) = client.make_cluster_key().unwrap();
        client.learn(first.0, &cluster_key).unwrap();
        let wrapped = client.make_tenant_key(TENANT).unwrap();
        let names = |wrapped: &[u8]| client.tenant_key_names(TENANT, wrapped);
        client.set_standings(vec![(TENANT, Standing::Active)]).unwrap();
        let before = names(&wrapped).unwrap();
        let secret = client.seal_secret("s", b"x").unwrap();
        let next = RootEpoch::new(2);
        assert!(client.roll(next, Vec::new()).is_err(), "it was not begun");
        let begun = client.begin_root(next).unwrap();
        let split = SplitId::from_bytes([5; 16]);
        let shares = client.deal(next, split, None, 2, 3).unwrap();
        assert_eq!(shares.len(), 3);
        let rolled = client.roll(next, vec![(TENANT, wrapped)]).unwrap();
        assert_eq!(rolled.root, begun.1);
        client.learn(next, &rolled.cluster_key).unwrap();
        client.settle(vec![split], vec![next], next).unwrap();
        assert_eq!(client.epochs(), [next]);
        assert_eq!(names(&rolled.tenants[0].1).unwrap(), before);
        assert_eq!(client.open_secret("s", &secret).unwrap(), b"x");
        let (rotated, version) = client.rotate_tenant_key(TENANT, &rolled.tenants[0].1).unwrap();
        assert_eq!((version, names(&rotated).unwrap().len()), (2, 2));
    }
}
