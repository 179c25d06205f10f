//! Does what is asked: keys, shares, policy and record put together. The only place where a tenant's key, a cluster
//! key or a root is in memory.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use holdfast_crypt::{BodyContext, ClusterKey, ExternalKek, Root, TenantKey};
use holdfast_keyring::{Gathering, HeldShare, Keyring, Protector, Seal, ShareStore, deal, recovery};
use holdfast_model::{ClusterId, NodeId, RootEpoch, SplitId, TenantId};
use holdfast_tpm::Tpm;
use parking_lot::{Mutex, RwLock};

use crate::{
    policy,
    protocol::{
        BodyPlace, Closed, Confinement, Derived, Hidden, Issued, KeyError, KeyState, Opening, Protect,
        Purpose, Reply, Request, Rolled, RootName, Standing,
    },
    uses::{Act, Outcome, Use, Uses},
};

/// The first root's epoch.
const FIRST_ROOT: RootEpoch = RootEpoch::new(1);

type Answer = Result<Reply, KeyError>;

/// The service without its process.
pub struct Core {
    cluster: ClusterId,
    keyring: Keyring,
    store: ShareStore,
    /// A root that was begun and is not in force: its shares are being dealt.
    begun: Mutex<Option<Root>>,
    standings: RwLock<HashMap<TenantId, Standing>>,
    /// Tenants' keys as they were wrapped when they were opened last.
    tenants: RwLock<HashMap<TenantId, Arc<Vec<u8>>>>,
    uses: Mutex<Uses>,
    /// Uses and refusals.
    counts: Mutex<BTreeMap<Purpose, (u64, u64)>>,
    confinement: Confinement,
    states: AtomicU64,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("keyring", &self.keyring).finish_non_exhaustive()
    }
}

fn kek_of(bytes: &Hidden) -> Result<ExternalKek, KeyError> {
    let bytes: [u8; 32] =
        bytes.expose().try_into().map_err(|_| KeyError::Misused("a key of another length".to_owned()))?;
    Ok(ExternalKek::from_bytes(bytes))
}

fn name_of(root: &Root) -> RootName {
    (root.epoch(), root.id())
}

impl Core {
    /// Opens what is in `dir`, as `opening` says it is protected; locked at first.
    ///
    /// # Errors
    /// When the shares, or the record of uses, cannot be read. Shares that stay closed are no error.
    pub fn open(opening: &Opening, dir: &Path, confinement: Confinement) -> Result<Self, KeyError> {
        let protector = match &opening.protect {
            Protect::File | Protect::Passphrase(None) => None,
            Protect::Passphrase(Some(passphrase)) => Some(Protector::Passphrase(passphrase.expose())),
            Protect::Tpm(device) => Some(Protector::Tpm(Tpm::at(device))),
        };
        let store = ShareStore::open_in(dir, opening.cluster, protector)?;
        let uses =
            Uses::open(dir).map_err(|error| KeyError::Store(format!("the record of uses: {error}")))?;
        Ok(Self {
            cluster: opening.cluster,
            keyring: Keyring::locked(opening.cluster),
            store,
            begun: Mutex::default(),
            standings: RwLock::default(),
            tenants: RwLock::default(),
            uses: Mutex::new(uses),
            counts: Mutex::default(),
            confinement,
            states: AtomicU64::new(1),
        })
    }

    /// Whether a request may take long: a hash of a passphrase, a flush, a chip.
    pub(crate) const fn takes_long(request: &Request) -> bool {
        !matches!(
            request,
            Request::State
                | Request::Remembers(_)
                | Request::WrapBody { .. }
                | Request::UnwrapBody { .. }
                | Request::NamedKey { .. }
                | Request::SealSecret { .. }
        )
    }

    /// How things stand.
    #[must_use]
    pub fn state(&self) -> KeyState {
        // Drawn before anything is looked at: what changed before it was drawn is in it.
        let number = self.states.fetch_add(1, Ordering::AcqRel);
        let signer = self.keyring.certificate_signer().ok();
        let roots = self.keyring.epochs();
        let shares = self.store.shares().ok();
        let counts = self.counts.lock();
        KeyState {
            number,
            roots: roots
                .iter()
                .filter_map(|epoch| self.keyring.root(*epoch).ok())
                .map(|r| name_of(&r))
                .collect(),
            current: self.keyring.current().ok().map(|root| name_of(&root)),
            cluster_key: self.keyring.cluster_key_id().zip(signer.map(|signer| signer.public().to_vec())),
            shares: shares.map(|set| set.shares().iter().map(|share| (share.split, share.epoch)).collect()),
            protection: self.store.protection().name().to_owned(),
            closed: self.store.seal().map(|seal| match seal {
                Seal::Passphrase => Closed::Passphrase,
                Seal::Tpm { why, is_other } => Closed::Tpm { why, is_other },
            }),
            uses: counts.iter().map(|(purpose, (uses, refused))| (*purpose, *uses, *refused)).collect(),
            confinement: self.confinement.clone(),
        }
    }

    fn changed(&self) -> Reply {
        Reply::State(Box::new(self.state()))
    }

    /// Does what is asked.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn handle(&self, request: Request) -> Answer {
        match request {
            Request::Open(_) => Err(KeyError::Misused("opening what is open".to_owned())),
            Request::State => Ok(self.changed()),
            Request::Found => self.found(),
            Request::Gather { shares, named } => self.gather(shares, &named),
            Request::Unseal(passphrase) => {
                self.store.unseal(passphrase.expose())?;
                Ok(self.changed())
            }
            Request::AskTpm => {
                self.store.ask_tpm()?;
                Ok(self.changed())
            }
            Request::BeginAnew => {
                let begun = self.store.begin_anew()?;
                Ok(Reply::Anew(begun, Box::new(self.state())))
            }
            Request::Recover { shares, named } => self.recover(&shares, &named),
            Request::Settle { splits, epochs, current } => self.settle(&splits, &epochs, current),
            Request::HandOut { to } => self.hand_out(to),
            Request::TakeShare { from, share } => self.take(from, share),
            Request::BeginRoot(epoch) => {
                let root = Root::generate(self.cluster, epoch);
                let name = name_of(&root);
                *self.begun.lock() = Some(root);
                Ok(Reply::SealedBy(name, Vec::new()))
            }
            Request::Deal { epoch, split, replaces, threshold, count } => {
                self.deal(epoch, split, replaces, threshold, count)
            }
            Request::Roll { epoch, tenants } => self.roll(epoch, &tenants),
            Request::MakeClusterKey => {
                let root = self.keyring.current()?;
                Ok(Reply::SealedBy(name_of(&root), root.wrap_cluster_key(&ClusterKey::generate())))
            }
            Request::Learn { current, cluster_key } => {
                self.keyring.learn(current, &cluster_key)?;
                Ok(self.changed())
            }
            Request::Standings(standings) => {
                self.learn_standings(standings);
                Ok(self.changed())
            }
            Request::MakeTenantKey(tenant) => {
                self.admit(Purpose::TenantKey, tenant)?;
                let wrapped = self.keyring.wrap_tenant(tenant, &TenantKey::generate())?;
                tracing::info!(target: "audit", %tenant, "a tenant's key is made");
                Ok(Reply::Sealed(wrapped))
            }
            Request::RotateTenantKey { tenant, wrapped } => {
                self.admit(Purpose::TenantKey, tenant)?;
                let next = self.keyring.tenant(tenant, &wrapped)?.rotated()?;
                let version = next.version();
                let wrapped = self.keyring.wrap_tenant_as(tenant, &wrapped, &next)?;
                tracing::info!(target: "audit", %tenant, version, "a tenant's key is given one more version");
                Ok(Reply::Rotated { wrapped, version })
            }
            Request::OpenTenant { tenant, wrapped, purpose } => self.open_tenant(tenant, &wrapped, purpose),
            Request::CheckTenant { tenant, wrapped } => {
                self.keyring.tenant(tenant, &wrapped)?;
                Ok(Reply::Is(true))
            }
            Request::OfferExternal { tenant, ciphertext, kek } => {
                self.keyring.offer_external(tenant, &ciphertext, kek_of(&kek)?);
                tracing::info!(target: "audit", %tenant, "a tenant's external key is here");
                Ok(Reply::Is(true))
            }
            Request::HasExternal { tenant, ciphertext } => {
                Ok(Reply::Is(self.keyring.has_external(tenant, &ciphertext)))
            }
            Request::DropExternal(tenant) => {
                let had = self.keyring.drop_external(tenant);
                if had {
                    tracing::info!(target: "audit", %tenant, "a tenant's external key, and what it opened, is forgotten");
                }
                Ok(Reply::Is(had))
            }
            Request::SealExternal { tenant, wrapped, kek, sealing } => {
                self.admit(Purpose::TenantKey, tenant)?;
                let key = self.keyring.tenant(tenant, &wrapped)?;
                tracing::info!(target: "audit", %tenant, "a tenant's key is sealed under an external key");
                Ok(Reply::Sealed(self.keyring.wrap_external(tenant, &key, &kek_of(&kek)?, &sealing)?))
            }
            Request::UnsealExternal { tenant, wrapped } => {
                self.admit(Purpose::TenantKey, tenant)?;
                let key = self.keyring.tenant(tenant, &wrapped)?;
                tracing::info!(target: "audit", %tenant, "a tenant's key is wrapped under the root alone");
                Ok(Reply::Sealed(self.keyring.wrap_tenant(tenant, &key)?))
            }
            Request::Remembers(tenant) => {
                let here = self.tenants.read().contains_key(&tenant) || self.keyring.remembers(tenant);
                Ok(Reply::Is(here))
            }
            Request::WrapBody { purpose, place, secret } => self.wrap_body(purpose, &place, &secret),
            Request::UnwrapBody { purpose, place, wrapped } => self.unwrap_body(purpose, &place, &wrapped),
            Request::NamedKey { purpose, tenant, id } => self.used(purpose, Act::Name, tenant, None, |key| {
                Ok(Reply::Opened(Hidden::of(key.named(&id).expose())))
            }),
            Request::SealSecret { name, secret } => {
                Ok(Reply::Sealed(self.keyring.seal_secret(&name, secret.expose())?))
            }
            Request::OpenSecrets(asked) => self.open_secrets(&asked),
            Request::SealRecord { name, plain } => {
                Ok(Reply::Sealed(self.keyring.seal_record(&name, plain.expose())?))
            }
            Request::OpenRecord { name, sealed } => {
                let plain = zeroize::Zeroizing::new(self.keyring.open_record(&name, &sealed)?);
                Ok(Reply::Opened(Hidden::of(&plain)))
            }
            Request::Certify(destruction) => {
                let certificate = destruction.sign(&self.keyring.certificate_signer()?);
                tracing::info!(target: "audit", tenant = %destruction.tenant, "a certificate of destruction is signed");
                Ok(Reply::Certificate(certificate))
            }
            Request::IssueRecovery { threshold, count } => self.issue(threshold, count),
        }
    }

    fn found(&self) -> Answer {
        let root = Root::generate(self.cluster, FIRST_ROOT);
        let split = SplitId::from_bytes(holdfast_crypt::random_array());
        let share = deal(&root, split, None, 1, 1)?.pop();
        self.store.add(share.ok_or_else(|| KeyError::Misused("no share was dealt".to_owned()))?)?;
        self.keyring.add_root(root);
        tracing::info!(target: "audit", cluster = %self.cluster, "the first root is made");
        Ok(self.changed())
    }

    fn gather(&self, shares: Vec<HeldShare>, named: &[RootName]) -> Answer {
        let mut gathering = Gathering::default();
        if let Ok(own) = self.store.shares() {
            own.shares().iter().for_each(|share| gathering.add(share.clone()));
        }
        shares.into_iter().for_each(|share| gathering.add(share));
        for root in gathering.roots(self.cluster) {
            let wanted = named.is_empty() || named.contains(&name_of(&root));
            if wanted && !self.keyring.has(root.epoch(), root.id()) {
                tracing::info!(target: "audit", epoch = root.epoch().get(), "a root is put together from shares");
                self.keyring.add_root(root);
            }
        }
        let progress = gathering.progress().map(|progress| (progress.have, progress.need));
        Ok(Reply::Gathered { progress, state: Box::new(self.state()) })
    }

    fn recover(&self, shares: &[Hidden], named: &[RootName]) -> Answer {
        let texts: Result<Vec<&str>, _> =
            shares.iter().map(|share| std::str::from_utf8(share.expose())).collect();
        let texts = texts.map_err(|error| KeyError::Unfit(error.to_string()))?;
        let root =
            recovery::recover(self.cluster, &texts).map_err(|error| KeyError::Unfit(error.to_string()))?;
        if !named.contains(&name_of(&root)) {
            return Err(KeyError::Unfit(format!(
                "these are shares of root {} of epoch {}, which is not in force here",
                root.id(),
                root.epoch().get()
            )));
        }
        tracing::info!(target: "audit", epoch = root.epoch().get(), "a root is put together from operators' shares");
        self.keyring.add_root(root);
        Ok(self.changed())
    }

    fn settle(&self, splits: &[SplitId], epochs: &[RootEpoch], current: RootEpoch) -> Answer {
        match self.store.settle(splits) {
            Ok(()) | Err(holdfast_keyring::StoreError::Sealed) => {}
            Err(error) => return Err(error.into()),
        }
        self.keyring.retain_roots(|epoch| epochs.contains(&epoch) || epoch > current);
        let mut begun = self.begun.lock();
        if begun.as_ref().is_some_and(|root| root.epoch() <= current) {
            *begun = None;
        }
        drop(begun);
        Ok(self.changed())
    }

    fn hand_out(&self, to: NodeId) -> Answer {
        let shares = self.store.shares()?;
        tracing::info!(target: "audit", %to, shares = shares.shares().len(), "shares of the root handed to a member");
        Ok(Reply::Shares(shares.shares().to_vec()))
    }

    fn take(&self, from: NodeId, share: HeldShare) -> Answer {
        if share.threshold == 0 || share.threshold > share.count || share.x() == 0 {
            return Err(KeyError::Unfit("a share of a splitting that is none".to_owned()));
        }
        let (split, epoch) = (share.split, share.epoch);
        self.store.add(share)?;
        tracing::info!(target: "audit", %from, %split, epoch = epoch.get(), "share of the root taken");
        Ok(self.changed())
    }

    fn root_of(&self, epoch: RootEpoch) -> Result<Root, KeyError> {
        if let Some(root) = self.begun.lock().as_ref().filter(|root| root.epoch() == epoch) {
            return Ok(root.clone());
        }
        Ok(Root::clone(&*self.keyring.root(epoch)?))
    }

    fn deal(
        &self,
        epoch: RootEpoch,
        split: SplitId,
        replaces: Option<SplitId>,
        threshold: u8,
        count: u8,
    ) -> Answer {
        let shares = deal(&self.root_of(epoch)?, split, replaces, threshold, count)?;
        tracing::info!(target: "audit", epoch = epoch.get(), %split, threshold, count, "a root is split for members");
        Ok(Reply::Shares(shares))
    }

    fn roll(&self, epoch: RootEpoch, tenants: &[(TenantId, Vec<u8>)]) -> Answer {
        let begun = self.begun.lock().clone();
        let root = begun
            .filter(|root| root.epoch() == epoch)
            .ok_or_else(|| KeyError::Misused("rolling a root that was not begun".to_owned()))?;
        let mut rewrapped = Vec::with_capacity(tenants.len());
        for (tenant, wrapped) in tenants {
            self.admit(Purpose::Rotation, *tenant)?;
            rewrapped.push((*tenant, self.keyring.rewrap_tenant(*tenant, wrapped, &root)?));
        }
        let cluster_key = root.wrap_cluster_key(&self.keyring.cluster_key()?);
        let rolled = Rolled { root: root.id(), cluster_key, tenants: rewrapped };
        // Before anybody may need it; a root that never comes into force is replaced by the one that does.
        self.keyring.add_root(root);
        tracing::info!(target: "audit", epoch = epoch.get(), tenants = tenants.len(), "all keys are wrapped under a new root");
        Ok(Reply::Rolled(rolled, Box::new(self.state())))
    }

    fn learn_standings(&self, standings: Vec<(TenantId, Standing)>) {
        let standings: HashMap<TenantId, Standing> = standings.into_iter().collect();
        let lives = |tenant: &TenantId| {
            standings.get(tenant).is_some_and(|standing| *standing != Standing::Destroyed)
        };
        self.tenants.write().retain(|tenant, _| lives(tenant));
        self.keyring.retain_tenants(|tenant| lives(&tenant));
        *self.standings.write() = standings;
    }

    /// Counts a use, and refuses it where the policy does.
    fn admit(&self, purpose: Purpose, tenant: TenantId) -> Result<(), KeyError> {
        let standing = self.standings.read().get(&tenant).copied();
        let allowed = policy::allows(purpose, standing);
        let mut counts = self.counts.lock();
        let (uses, refused) = counts.entry(purpose).or_default();
        *uses += 1;
        if allowed {
            return Ok(());
        }
        *refused += 1;
        Err(KeyError::Refused { purpose, standing: policy::named(standing).to_owned() })
    }

    fn open_tenant(&self, tenant: TenantId, wrapped: &[u8], purpose: Purpose) -> Answer {
        if !matches!(purpose, Purpose::Catalog | Purpose::Names) {
            return Err(KeyError::Misused(format!("opening a tenant's key for {}", purpose.name())));
        }
        self.admit(purpose, tenant)?;
        // Needs no external key.
        let keys = self.keyring.tenant_metadata(tenant, wrapped)?;
        let sealing = self.keyring.external_sealing(tenant, wrapped)?;
        tracing::info!(target: "audit", %tenant, purpose = purpose.name(), version = keys.version(), "a tenant's key is opened");
        let metadata = (purpose == Purpose::Catalog).then(|| Hidden::of(&keys.to_bytes()));
        if purpose == Purpose::Catalog {
            self.tenants.write().insert(tenant, Arc::new(wrapped.to_vec()));
        }
        Ok(Reply::Derived(Derived { names: keys.ids(), metadata, sealing }))
    }

    /// One use of a tenant's key, with its record.
    fn used(
        &self,
        purpose: Purpose,
        act: Act,
        tenant: TenantId,
        place: Option<&BodyPlace>,
        with: impl FnOnce(&TenantKey) -> Answer,
    ) -> Answer {
        if !matches!(purpose, Purpose::ObjectRead | Purpose::ObjectWrite | Purpose::Background) {
            return Err(KeyError::Misused(format!("a body's key for {}", purpose.name())));
        }
        let answer = self.admit(purpose, tenant).and_then(|()| {
            let wrapped = self.tenants.read().get(&tenant).cloned().ok_or(KeyError::NotOpened)?;
            with(&*self.keyring.tenant(tenant, &wrapped)?)
        });
        let outcome = match &answer {
            Ok(_) => Outcome::Done,
            // Asked again at once, and recorded then.
            Err(KeyError::NotOpened) => return answer,
            Err(KeyError::Refused { .. }) => Outcome::Refused,
            Err(_) => Outcome::Failed,
        };
        let body = place.map(|place| (place.bucket, place.content));
        self.uses.lock().note(&Use { purpose, act, outcome, tenant, body });
        answer
    }

    fn context(&self, place: &BodyPlace) -> BodyContext {
        BodyContext {
            cluster: self.cluster,
            tenant: place.tenant,
            bucket: place.bucket,
            content: place.content,
        }
    }

    fn wrap_body(&self, purpose: Purpose, place: &BodyPlace, secret: &Hidden) -> Answer {
        self.used(purpose, Act::Wrap, place.tenant, Some(place), |key| {
            Ok(Reply::Sealed(key.wrap_body_secret(&self.context(place), &place.name, secret.expose())))
        })
    }

    fn unwrap_body(&self, purpose: Purpose, place: &BodyPlace, wrapped: &[u8]) -> Answer {
        self.used(purpose, Act::Unwrap, place.tenant, Some(place), |key| {
            let secret = key.unwrap_body_secret(&self.context(place), &place.name, wrapped)?;
            Ok(Reply::Opened(Hidden::of(&secret)))
        })
    }

    fn open_secrets(&self, asked: &[(String, Vec<u8>)]) -> Answer {
        let key = self.keyring.cluster_key()?;
        let open = |(name, sealed): &(String, Vec<u8>)| {
            key.open_secret(self.cluster, name, sealed).ok().map(|secret| Hidden::of(&secret))
        };
        Ok(Reply::Secrets(asked.iter().map(open).collect()))
    }

    fn issue(&self, threshold: u8, count: u8) -> Answer {
        let root = self.keyring.current()?;
        let issued = recovery::issue(&root, threshold, count)?;
        let set = issued.first().map(|share| share.set).unwrap_or_default();
        tracing::warn!(target: "audit", threshold, shares = count, epoch = root.epoch().get(), "the root is split for operators");
        let hide = |text: String| {
            let hidden = Hidden::of(text.as_bytes());
            crate::protocol::wipe(text);
            hidden
        };
        let shares = issued.iter().map(|share| hide(share.reveal())).collect();
        Ok(Reply::Issued(Issued { root: name_of(&root), set, shares }))
    }
}
