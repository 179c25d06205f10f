//! Who may come in: the identities of all tenants as this node knows them, and temporary credentials.
//!
//! A session token is sealed and holds all there is to know of a session: the cluster keeps nothing of it.
//! It ends when its time is up, and at once when the key that made it is deleted or switched off, or its
//! user or role is gone.

use std::sync::Arc;

use holdfast_access::{
    iam::Change,
    identity::{Caller, Snapshot, Who},
    policy::Policy,
    text::{AccountNumber, instant_text},
};
use holdfast_model::TenantId;
use serde::{Deserialize, Serialize};

use crate::errors::Refusal;

/// Why a change of identities was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// What it was decided on was changed meanwhile: decide again.
    #[error("changed meanwhile")]
    Conflict,
    /// A limit.
    #[error("{0}")]
    Limit(String),
    /// Not decided now.
    #[error("{0}")]
    Unavailable(String),
}

/// The node has no keys at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotNow;

/// What the gateway asks of the node.
#[async_trait::async_trait]
pub trait Identities: Send + Sync + 'static {
    /// All identities at this moment.
    fn snapshot(&self) -> Arc<Snapshot>;
    /// Makes a change; returns once [`Identities::snapshot`] shows it here.
    async fn change(
        &self,
        tenant: TenantId,
        account: AccountNumber,
        change: Change,
    ) -> Result<(), ChangeError>;
    /// Seals a session; `None` while the node is locked.
    fn seal(&self, session: &[u8]) -> Option<Vec<u8>>;
    /// Opens a sealed session; `None` when it is not of this cluster or was tampered with.
    ///
    /// # Errors
    /// [`NotNow`]: nothing is said of the session.
    fn open(&self, sealed: &[u8]) -> Result<Option<Vec<u8>>, NotNow>;
    /// The clock, in milliseconds since 1970.
    fn now_millis(&self) -> u64;
}

/// Whose signature a request carries, and the secret to verify it with.
#[derive(Clone)]
pub struct Signer {
    /// The tenant: the namespace of buckets.
    pub tenant: TenantId,
    /// The secret.
    pub secret: String,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// The long-lived key that signed, or that made the session.
    pub key: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("tenant", &self.tenant).field("key", &self.key).finish_non_exhaustive()
    }
}

/// First byte of a sealed session.
const SESSION_VERSION: u8 = 1;
/// First characters of temporary access keys.
pub const SESSION_KEY_PREFIX: &str = "ASIA";
/// Longest session token in bytes: two session policies of 2,048 bytes fit.
const TOKEN_SIZE_MAX: usize = 8 * 1024;

/// A session as its token holds it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The temporary access key.
    pub access_key: String,
    /// Its secret.
    pub secret: String,
    /// The key that made it.
    pub parent: String,
    /// Tenant.
    pub tenant: TenantId,
    /// Account acted in.
    pub account: AccountNumber,
    /// Role and session name; `None`: the user whose key made it.
    pub role: Option<(String, String)>,
    /// Id of the role: a role made anew under its name is another one.
    pub role_id: String,
    /// Session policies.
    pub policies: Vec<String>,
    /// End, in milliseconds since 1970.
    pub expires: u64,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("access_key", &self.access_key).finish_non_exhaustive()
    }
}

impl Session {
    /// The token; `None` while the node is locked.
    pub fn token(&self, identities: &dyn Identities) -> Option<String> {
        let plain = postcard::to_extend(self, vec![SESSION_VERSION]).ok()?;
        let sealed = identities.seal(&plain)?;
        Some(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, sealed))
    }

    fn open(token: &str, identities: &dyn Identities) -> Result<Option<Self>, NotNow> {
        if token.len() > TOKEN_SIZE_MAX {
            return Ok(None);
        }
        let Ok(sealed) = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, token) else {
            return Ok(None);
        };
        let opened = identities.open(&sealed)?;
        Ok(match opened.as_deref().and_then(<[u8]>::split_first) {
            Some((&SESSION_VERSION, rest)) => postcard::from_bytes(rest).ok(),
            _ => None,
        })
    }
}

fn unknown(access_key: &str) -> Refusal {
    Refusal::new("InvalidAccessKeyId").with("AWSAccessKeyId", access_key)
}

/// Finds whoever an access key is of.
///
/// # Errors
/// `InvalidAccessKeyId`, `InvalidToken`, `ExpiredToken`, `ServiceUnavailable`.
pub fn signer(identities: &dyn Identities, access_key: &str, token: Option<&str>) -> Result<Signer, Refusal> {
    let snapshot = identities.snapshot();
    match token {
        Some(token) => session_signer(identities, &snapshot, access_key, token),
        None => {
            let caller =
                long_lived(&snapshot, access_key, identities.now_millis()).map_err(|why| match why {
                    NoEntry::Unknown => unknown(access_key),
                    NoEntry::Expired(at) => expired(access_key, at),
                })?;
            let key = &snapshot.keys[access_key];
            Ok(Signer {
                tenant: key.tenant,
                secret: key.secret.clone(),
                caller: Arc::new(caller),
                key: access_key.to_owned(),
            })
        }
    }
}

/// Says more than that it is unknown: whoever has the key should learn why it stopped, and it is too long to be
/// guessed.
fn expired(access_key: &str, at: u64) -> Refusal {
    let said = format!("The access key expired at {}.", instant_text(at));
    Refusal::because("InvalidAccessKeyId", said).with("AWSAccessKeyId", access_key)
}

/// Why a long-lived key lets nobody in.
enum NoEntry {
    /// There is none, it is switched off, or whoever it was of is gone.
    Unknown,
    /// Its time is up, since then.
    Expired(u64),
}

/// Whoever a key that works at `now` is of, bounded by what the key may be used for.
fn long_lived(snapshot: &Snapshot, access_key: &str, now: u64) -> Result<Caller, NoEntry> {
    let key = snapshot.keys.get(access_key).filter(|key| key.active).ok_or(NoEntry::Unknown)?;
    if let Some(at) = key.expires.filter(|at| *at <= now) {
        return Err(NoEntry::Expired(at));
    }
    let account = snapshot.account(key.tenant, key.account).ok_or(NoEntry::Unknown)?;
    let mut caller = match &key.user {
        None => Caller::of(Arc::clone(&account.info), Who::Root),
        Some(user) => Caller::user(account, user).ok_or(NoEntry::Unknown)?,
    };
    caller.bounds.extend(key.bound.iter().map(|policy| vec![Arc::clone(policy)]));
    Ok(caller)
}

fn session_signer(
    identities: &dyn Identities,
    snapshot: &Snapshot,
    access_key: &str,
    token: &str,
) -> Result<Signer, Refusal> {
    let invalid = || Refusal::new("InvalidToken").with("Token-0", token);
    let opened = Session::open(token, identities)
        .map_err(|NotNow| Refusal::because("ServiceUnavailable", "This node has no keys at the moment."))?;
    let session = opened.ok_or_else(invalid)?;
    if session.access_key != access_key {
        return Err(unknown(access_key));
    }
    if session.expires <= identities.now_millis() {
        return Err(Refusal::new("ExpiredToken").with("Token-0", token));
    }
    // Revoked with the key that made it, at that key's end, or with its role.
    let parent = long_lived(snapshot, &session.parent, identities.now_millis()).map_err(|_| invalid())?;
    let mut caller = match &session.role {
        None => parent,
        Some((role, name)) => {
            let account = snapshot.account(session.tenant, session.account).ok_or_else(invalid)?;
            let same =
                account.roles.get(&role.to_lowercase()).is_some_and(|row| row.value.id == session.role_id);
            Caller::session(account, role, name).filter(|_| same).ok_or_else(invalid)?
        }
    };
    caller.temporary = true;
    if !session.policies.is_empty() {
        let parsed: Result<Vec<_>, _> =
            session.policies.iter().map(|text| Policy::parse(text.as_bytes()).map(Arc::new)).collect();
        caller.bounds.push(parsed.map_err(|_| invalid())?);
    }
    Ok(Signer {
        tenant: session.tenant,
        secret: session.secret.clone(),
        caller: Arc::new(caller),
        key: session.parent,
    })
}
