//! Asks the services of all tenants that have one, again and again, and tells the keyring what came of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use holdfast_control::ControlView;
use holdfast_crypt::{ExternalKek, external_context, random_array};
use holdfast_external_keys::{ExternalKeyService, ServiceError};
use holdfast_keyring::ExternalSealing;
use holdfast_keyservice::{Client, KeyError};
use holdfast_model::{TenantId, UnixMillis};
use holdfast_object::events::Network;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Kept, kept,
    standing::{Action, Patience, Standing, State},
};
use crate::{
    control::{Control, now},
    events,
};

/// How often it is looked at who is to be asked.
const TICK: Duration = Duration::from_millis(500);

/// What is known of one tenant's service, for people.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The service's key.
    pub description: String,
    /// How the service stands with this node.
    pub state: State,
    /// Whether the tenant's key is in this node's memory.
    pub open: bool,
    /// When the service was last asked.
    pub asked: Option<UnixMillis>,
    /// Why it is not allowed, or did not answer.
    pub why: Option<String>,
    /// Since when there has been no answer.
    pub silent_since: Option<Instant>,
    /// Questions that were answered with the key.
    pub allowed: u64,
    /// Questions that were refused.
    pub refused: u64,
    /// Questions without an answer.
    pub failed: u64,
}

/// The services of all tenants.
#[derive(Debug)]
pub struct ExternalKeys {
    keyring: Arc<Client>,
    control: Control,
    shown: Mutex<BTreeMap<TenantId, Shown>>,
}

/// One tenant's service while it is watched.
struct Watched {
    wrapped: Vec<u8>,
    sealing: ExternalSealing,
    kept: Option<Kept>,
    networks: Vec<Network>,
    service: Option<Arc<dyn ExternalKeyService>>,
    patience: Patience,
    standing: Standing,
    busy: bool,
}

type Heard = (TenantId, Vec<u8>, Result<ExternalKek, ServiceError>);

impl ExternalKeys {
    /// Asks nobody yet.
    pub fn new(keyring: Arc<Client>, control: Control) -> Arc<Self> {
        Arc::new(Self { keyring, control, shown: Mutex::default() })
    }

    /// What is known of a tenant's service; `None` when it has none, or this node has not looked yet.
    pub fn of(&self, tenant: TenantId) -> Option<Shown> {
        self.shown.lock().get(&tenant).cloned()
    }

    /// What is known of all of them.
    pub fn all(&self) -> Vec<(TenantId, Shown)> {
        self.shown.lock().iter().map(|(tenant, shown)| (*tenant, shown.clone())).collect()
    }

    /// Runs until cancelled.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut watched: HashMap<TenantId, Watched> = HashMap::new();
        let mut plain: HashMap<TenantId, Vec<u8>> = HashMap::new();
        let mut asked: JoinSet<Heard> = JoinSet::new();
        let mut changes = self.control.reader().changes();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut look = true;
        let mut starts = self.keyring.starts();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changes.changed() => match changed {
                    Ok(()) => look = true,
                    Err(_) => return,
                },
                Some(heard) = asked.join_next() => match heard {
                    Ok((tenant, wrapped, answer)) => self.heard(&mut watched, tenant, &wrapped, answer),
                    Err(error) => tracing::error!(%error, "a question to an external key service was cut off"),
                },
                _ = tick.tick() => {}
            }
            if self.keyring.is_locked() {
                continue;
            }
            // A key service that was started again has none of what services gave back.
            if self.keyring.starts() != starts {
                starts = self.keyring.starts();
                watched.values_mut().for_each(|one| one.standing.due = Instant::now());
                look = true;
            }
            if look {
                match self.control.view().await {
                    Ok(view) => look = !self.look(&view, &mut watched, &mut plain),
                    Err(error) => {
                        tracing::error!(error = format!("{error:#}"), "external keys not looked at");
                    }
                }
            }
            self.ask(&mut watched, &mut asked);
        }
    }

    /// Takes note of who has which service. Returns whether all is known.
    fn look(
        &self,
        view: &ControlView,
        watched: &mut HashMap<TenantId, Watched>,
        plain: &mut HashMap<TenantId, Vec<u8>>,
    ) -> bool {
        let mut complete = true;
        let networks = events::settings(view, &self.keyring).networks;
        plain.retain(|tenant, _| view.tenants.contains_key(tenant));
        for record in view.tenants.values() {
            let (tenant, wrapped) = (record.tenant, &record.wrapped_key);
            if plain.get(&tenant) == Some(wrapped) {
                continue;
            }
            let sealing = match watched.get(&tenant).filter(|known| known.wrapped == *wrapped) {
                Some(known) => known.sealing.clone(),
                None => match self.keyring.external_sealing(tenant, wrapped) {
                    Ok(Some(sealing)) => sealing,
                    Ok(None) => {
                        plain.insert(tenant, wrapped.clone());
                        continue;
                    }
                    // Its root is on its way.
                    Err(_) => {
                        complete = false;
                        continue;
                    }
                },
            };
            plain.remove(&tenant);
            let kept = kept(view, &self.keyring, tenant, sealing.service);
            if let Err(error) = &kept {
                let error = format!("{error:#}");
                tracing::error!(%tenant, error, "settings of an external key service cannot be used");
            }
            let (kept, networks) = (kept.ok(), networks.clone());
            let same_settings = watched.get(&tenant).is_some_and(|known| {
                (&known.kept, &known.networks, known.sealing.service) == (&kept, &networks, sealing.service)
            });
            let same_key = watched.get(&tenant).is_some_and(|known| known.sealing == sealing);
            match watched.get_mut(&tenant).filter(|_| same_settings && same_key) {
                // Another root wraps it, or it has one more version.
                Some(known) => known.wrapped.clone_from(wrapped),
                None => {
                    let begun = Watched::new(wrapped.clone(), sealing, kept, networks);
                    watched.insert(tenant, begun);
                }
            }
        }
        let ended = |tenant: &TenantId| plain.contains_key(tenant) || !view.tenants.contains_key(tenant);
        for tenant in watched.keys().copied().filter(ended).collect::<Vec<_>>() {
            watched.remove(&tenant);
            self.keyring.drop_external(tenant);
        }
        let mut shown = self.shown.lock();
        shown.retain(|tenant, _| watched.contains_key(tenant));
        for (tenant, watched) in watched {
            let fresh = || Shown::new(&watched.sealing);
            let shown = shown.entry(*tenant).or_insert_with(fresh);
            shown.description.clone_from(&watched.sealing.description);
            shown.open = self.keyring.check_open(*tenant, &watched.wrapped).is_ok();
        }
        complete
    }

    /// Puts the questions that are due.
    fn ask(&self, watched: &mut HashMap<TenantId, Watched>, asked: &mut JoinSet<Heard>) {
        let cluster = self.keyring.cluster();
        let at = Instant::now();
        for (tenant, watched) in watched.iter_mut().filter(|(_, one)| !one.busy && one.standing.due <= at) {
            watched.busy = true;
            let (tenant, wrapped) = (*tenant, watched.wrapped.clone());
            let (service, ciphertext) = (watched.service.clone(), watched.sealing.ciphertext.clone());
            asked.spawn(async move {
                let context = external_context(cluster, tenant);
                let answer = match service {
                    Some(service) => service.unwrap(&ciphertext, &context).await,
                    None => Err(ServiceError::Protocol("its settings cannot be used".to_owned())),
                };
                (tenant, wrapped, answer)
            });
        }
    }

    /// Does what follows from an answer.
    fn heard(
        &self,
        watched: &mut HashMap<TenantId, Watched>,
        tenant: TenantId,
        wrapped: &[u8],
        answer: Result<ExternalKek, ServiceError>,
    ) {
        // Whoever has other settings, or another key, since it was asked, is asked anew.
        let Some(one) = watched.get_mut(&tenant) else { return };
        one.busy = false;
        if one.wrapped != wrapped {
            return;
        }
        let answer = answer.and_then(|kek| self.take(tenant, one, kek));
        let before = one.standing.state.clone();
        let chance = u32::from_be_bytes(random_array());
        let action = one.standing.heard(Instant::now(), one.patience, chance, answer.as_ref().copied());
        let forgotten = action == Action::Forget && self.keyring.drop_external(tenant);
        let (state, service) = (&one.standing.state, &one.sealing.description);
        let why = one.standing.why.as_deref().unwrap_or_default();
        if forgotten {
            tracing::warn!(target: "audit", %tenant, service, why, "a tenant's key is forgotten: its external key is not given back");
        } else if before != *state && *state == State::Allowed {
            tracing::info!(target: "audit", %tenant, service, "an external key service gave a tenant's key back");
        } else if before != *state {
            tracing::warn!(target: "audit", %tenant, service, why, "an external key service does not give a tenant's key back");
        }
        let mut shown = self.shown.lock();
        let shown = shown.entry(tenant).or_insert_with(|| Shown::new(&one.sealing));
        shown.state = one.standing.state.clone();
        shown.open = self.keyring.check_open(tenant, &one.wrapped).is_ok();
        shown.asked = Some(now());
        shown.why.clone_from(&one.standing.why);
        shown.silent_since = one.standing.silent_since;
        match &answer {
            Ok(()) => shown.allowed += 1,
            Err(error) if error.is_refusal() => shown.refused += 1,
            Err(_) => shown.failed += 1,
        }
    }

    /// Hands the key that was given back to the keyring, unless it is there.
    fn take(&self, tenant: TenantId, one: &Watched, kek: ExternalKek) -> Result<(), ServiceError> {
        if !self.keyring.has_external(tenant, &one.sealing.ciphertext) {
            self.keyring.offer_external(tenant, &one.sealing.ciphertext, &kek);
        }
        match self.keyring.check_open(tenant, &one.wrapped) {
            Err(KeyError::Crypt(_)) => {
                self.keyring.drop_external(tenant);
                Err(ServiceError::Protocol("it gives back another key than it was given".to_owned()))
            }
            // Whatever else is missing comes from elsewhere.
            _ => Ok(()),
        }
    }
}

impl Watched {
    fn new(wrapped: Vec<u8>, sealing: ExternalSealing, kept: Option<Kept>, networks: Vec<Network>) -> Self {
        let seconds =
            |of: fn(&Kept) -> u32, usual| Duration::from_secs(u64::from(kept.as_ref().map_or(usual, of)));
        let patience = Patience {
            interval: seconds(|kept| kept.check_seconds, super::CHECK_SECONDS),
            grace: seconds(|kept| kept.grace_seconds, super::GRACE_SECONDS),
        };
        let service = kept.as_ref().and_then(|kept| kept.service(networks.clone()).ok());
        let service = service.map(|service| Arc::new(service) as Arc<dyn ExternalKeyService>);
        let standing = Standing::new(Instant::now());
        Self { wrapped, sealing, kept, networks, service, patience, standing, busy: false }
    }
}

impl Shown {
    fn new(sealing: &ExternalSealing) -> Self {
        Self {
            description: sealing.description.clone(),
            state: State::New,
            open: false,
            asked: None,
            why: None,
            silent_since: None,
            allowed: 0,
            refused: 0,
            failed: 0,
        }
    }
}
