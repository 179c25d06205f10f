//! Identities of tenants as gateways see them: a snapshot of the control group's state with secrets opened,
//! and changes proposed to it.
//!
//! A tenant has a first account from the beginning: its number and canonical id are made of the tenant's id,
//! so that every node knows it before it is written down, which the first change of it does.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use holdfast_access::{
    iam::{Change, KeyChange, RowChange, Then},
    identity::{AccessKey, Account, AccountInfo, Kind, Row, Rows, Snapshot, Tenant},
    policy::Policy,
    text::{AccountNumber, CanonicalId},
};
use holdfast_control::{
    AccessKeyRecord, Command, ControlView, IdentityChange, IdentityWrite, KeyWrite, NewAccount, NodeState,
    Refusal, TenantRecord, TenantState,
};
use holdfast_crypt::CommandCipher;
use holdfast_gateway_s3::identities::{ChangeError, Identities, NotNow};
use holdfast_keyservice::{Client, KeyError};
use holdfast_model::{TenantId, UnixMillis};
use parking_lot::RwLock;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::{
    control::{Control, now},
    external_keys,
    tenants::{fresh_access_key, secret_name},
};

/// Name under which sessions are sealed.
const SESSION_PURPOSE: &str = "s3 session";

/// How long a change waits to be seen by this node's gateways.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// Kinds of identities as the control group keeps them.
const KINDS: [(Kind, u8); 4] = [(Kind::User, 0), (Kind::Group, 1), (Kind::Role, 2), (Kind::Policy, 3)];

/// This node's view of identities.
pub struct NodeIdentities {
    control: Control,
    keyring: Arc<Client>,
    now: RwLock<Arc<Snapshot>>,
    /// Entries of the control group below this are in the snapshot.
    seen: watch::Sender<u64>,
}

impl std::fmt::Debug for NodeIdentities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeIdentities")
    }
}

/// The number of a tenant's first account.
fn first_number(tenant: TenantId) -> AccountNumber {
    let mut low = [0; 8];
    low.copy_from_slice(&tenant.as_bytes()[..8]);
    // Zero is nobody's.
    AccountNumber::new(u64::from_le_bytes(low).max(1) % (AccountNumber::LIMIT - 1) + 1)
}

/// The canonical id of a tenant's first account.
fn first_canonical(tenant: TenantId) -> CanonicalId {
    let mut id = [0; 32];
    id[..16].copy_from_slice(tenant.as_bytes());
    id[16..].copy_from_slice(tenant.as_bytes());
    CanonicalId::from_bytes(id)
}

fn first_account(tenant: TenantId, name: &str) -> AccountInfo {
    AccountInfo {
        number: first_number(tenant),
        canonical: first_canonical(tenant),
        name: name.to_owned(),
        email: format!("root@{name}.invalid"),
    }
}

/// What an identity's document is bound to: it is that of no other, nor of another version of it.
fn document_name(account: u64, kind: u8, name: &str, version: u64) -> String {
    format!("identity {account}/{kind}/{version}/{name}")
}

/// What the policy of an access key is bound to.
pub(crate) fn policy_name(access_key: &str) -> String {
    format!("access key policy {access_key}")
}

/// What seals documents about a tenant's identities. Needs no external key.
///
/// # Errors
/// As [`Client::tenant_metadata`].
pub(crate) fn documents_of(keyring: &Client, tenant: &TenantRecord) -> Result<CommandCipher, KeyError> {
    let metadata = keyring.tenant_metadata(tenant.tenant, &tenant.wrapped_key)?;
    Ok(metadata.metadata_key().documents())
}

fn rows<T: serde::de::DeserializeOwned>(
    view: &ControlView,
    documents: &CommandCipher,
    account: AccountNumber,
    kind: Kind,
) -> Rows<T> {
    let number = KINDS.iter().find(|(known, _)| *known == kind).map_or(u8::MAX, |(_, number)| *number);
    let of = (account.get(), number, String::new())..=(account.get(), number, char::MAX.to_string());
    let mut rows = BTreeMap::new();
    for ((_, _, name), record) in view.identities.range(of) {
        let version = record.version;
        let context = document_name(account.get(), number, name, version);
        let read = documents.open(context.as_bytes(), &record.body).map_err(|error| error.to_string());
        match read.and_then(|plain| serde_json::from_slice(&plain).map_err(|error| error.to_string())) {
            Ok(value) => {
                rows.insert(name.clone(), Row { version, value });
            }
            // It allows nothing that way.
            Err(error) => tracing::error!(%account, ?kind, name, error, "identity cannot be read"),
        }
    }
    rows
}

/// The account an access key is of.
pub(crate) fn account_of(record: &AccessKeyRecord) -> AccountNumber {
    record.account.map_or_else(|| first_number(record.tenant), AccountNumber::new)
}

/// What a key may be used for at most, as it is written.
///
/// # Errors
/// When it does not open.
pub(crate) fn policy_text(
    documents: &CommandCipher,
    id: &str,
    record: &AccessKeyRecord,
) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let open = |sealed: &Vec<u8>| documents.open(policy_name(id).as_bytes(), sealed);
    record.bounds.policy.as_ref().map(open).transpose().map_err(|error| format!("its policy: {error}"))
}

fn access_key(
    documents: &CommandCipher,
    id: &str,
    record: &AccessKeyRecord,
    secret: Option<Zeroizing<Vec<u8>>>,
) -> Result<AccessKey, String> {
    let secret = secret.ok_or("its secret does not open")?;
    let policy = policy_text(documents, id, record)?.map(|text| Policy::parse(&text)).transpose();
    let policy = policy.map_err(|error| format!("its policy cannot be read: {}", error.0))?;
    Ok(AccessKey {
        tenant: record.tenant,
        account: account_of(record),
        user: record.user.clone(),
        active: record.active,
        created: record.created.get(),
        expires: record.bounds.expires.map(UnixMillis::get),
        bound: policy.map(Arc::new),
        secret: String::from_utf8(secret.to_vec()).map_err(|error| error.to_string())?,
    })
}

fn account(view: &ControlView, documents: &CommandCipher, info: AccountInfo) -> Account {
    let number = info.number;
    Account {
        info: Arc::new(info),
        users: rows(view, documents, number, Kind::User),
        groups: rows(view, documents, number, Kind::Group),
        roles: rows(view, documents, number, Kind::Role),
        policies: rows(view, documents, number, Kind::Policy),
    }
}

fn snapshot(view: &ControlView, keyring: &Client) -> Result<Snapshot, KeyError> {
    let mut snapshot = Snapshot::default();
    let mut ciphers = HashMap::new();
    // By the members, not by those that are up: a node that fails does not change what the others let in.
    let nodes = view.nodes.values().filter(|node| node.state == NodeState::Active).count();
    for tenant in view.tenants.values().filter(|tenant| tenant.state != TenantState::Shredding) {
        let documents = match documents_of(keyring, tenant) {
            Ok(documents) => documents,
            Err(error) if error.may_pass() => return Err(error),
            Err(error) => {
                tracing::error!(tenant = tenant.name, %error, "its identities do not open: not served");
                continue;
            }
        };
        let first = first_account(tenant.tenant, &tenant.name);
        let number = first.number;
        let mut accounts = BTreeMap::from([(number, account(view, &documents, first))]);
        let written = view.accounts.iter().filter(|(_, record)| record.tenant == tenant.tenant);
        for (number, record) in written {
            let info = AccountInfo {
                number: AccountNumber::new(*number),
                canonical: CanonicalId::from_bytes(record.canonical),
                name: record.name.clone(),
                email: record.email.clone(),
            };
            accounts.insert(info.number, account(view, &documents, info));
        }
        let name = tenant.name.clone();
        let suspended = tenant.state == TenantState::Suspended;
        let limits = tenant.limits.part_of(nodes);
        let waits_for = match keyring.check_open(tenant.tenant, &tenant.wrapped_key) {
            Err(KeyError::WaitsForExternal { .. }) => Some(external_keys::WAITS.to_owned()),
            _ => None,
        };
        let tenant_of = Tenant { name, first: Some(number), accounts, suspended, waits_for, limits };
        snapshot.tenants.insert(tenant.tenant, tenant_of);
        ciphers.insert(tenant.tenant, documents);
    }
    let served = view.access_keys.iter();
    let served: Vec<_> =
        served.filter_map(|(id, record)| Some((id, record, ciphers.get(&record.tenant)?))).collect();
    let sealed = served.iter().map(|(id, record, _)| (secret_name(id), record.sealed_secret.clone()));
    let opened = keyring.open_secrets(sealed.collect())?;
    for ((id, record, documents), secret) in served.into_iter().zip(opened) {
        match access_key(documents, id, record, secret) {
            Ok(key) => drop(snapshot.keys.insert(id.clone(), key)),
            Err(why) => tracing::error!(access_key = id, why, "access key not served"),
        }
    }
    Ok(snapshot)
}

/// An account just made.
#[derive(Debug)]
pub struct CreatedAccount {
    /// It.
    pub info: AccountInfo,
    /// Id of its root user's access key.
    pub access_key: String,
    /// The secret of that key.
    pub secret: String,
}

impl NodeIdentities {
    /// Knows nobody until the first [`NodeIdentities::update`].
    #[must_use]
    pub fn new(control: Control, keyring: Arc<Client>) -> Self {
        Self { control, keyring, now: RwLock::default(), seen: watch::channel(0).0 }
    }

    /// Opens what a view holds; `None` when the key service does not open it now.
    pub fn prepare(&self, view: &ControlView) -> Option<Snapshot> {
        snapshot(view, &self.keyring)
            .inspect_err(|error| tracing::warn!(%error, "identities not refreshed"))
            .ok()
    }

    /// Puts what was prepared from a newer view in place.
    pub fn update(&self, view: &ControlView, prepared: Option<Snapshot>) {
        let Some(prepared) = prepared else { return };
        *self.now.write() = Arc::new(prepared);
        self.seen.send_replace(view.next_index);
    }

    /// Adds an account to a tenant, with an access key of its root user.
    ///
    /// # Errors
    /// `Ok(Err(..))` when the control group refuses; `Err` when it does not decide.
    pub async fn create_account(
        &self,
        tenant: TenantId,
        name: &str,
        email: &str,
    ) -> Result<Result<CreatedAccount, Refusal>> {
        let view = self.control.view().await?;
        let Some(record) = view.tenants.get(&tenant) else {
            return Ok(Err(Refusal::NotFound { what: "tenant".to_owned(), name: tenant.to_string() }));
        };
        let first = first_account(tenant, &record.name);
        if name == first.name || email.eq_ignore_ascii_case(&first.email) {
            return Ok(Err(Refusal::NameTaken { what: "account".to_owned(), name: name.to_owned() }));
        }
        let canonical: [u8; 32] = holdfast_crypt::random_array();
        let mut low = [0; 8];
        low.copy_from_slice(&canonical[..8]);
        let number = AccountNumber::new(u64::from_le_bytes(low) % (AccountNumber::LIMIT - 1) + 1);
        let (access_key, secret) = fresh_access_key();
        let new = NewAccount {
            tenant,
            account: number.get(),
            canonical,
            name: name.to_owned(),
            email: email.to_lowercase(),
            first: false,
            access_key: Some((access_key.clone(), self.seal_secret(&access_key, &secret)?)),
            at: now(),
        };
        let info = AccountInfo {
            number,
            canonical: CanonicalId::from_bytes(canonical),
            name: new.name.clone(),
            email: new.email.clone(),
        };
        let outcome = self.propose(&Command::CreateAccount(new)).await?;
        Ok(outcome.map(|()| CreatedAccount { info, access_key, secret }))
    }

    fn seal_secret(&self, access_key: &str, secret: &str) -> Result<Vec<u8>> {
        Ok(self.keyring.seal_secret(&secret_name(access_key), secret.as_bytes())?)
    }

    /// Proposes, and waits until this node's gateways see what was decided.
    async fn propose(&self, command: &Command) -> Result<Result<(), Refusal>> {
        let outcome = self.control.propose(command).await?;
        if outcome.is_ok() {
            let decided = self.control.barrier().await?;
            let mut seen = self.seen.subscribe();
            let waited = tokio::time::timeout(SEEN_WITHIN, seen.wait_for(|seen| *seen >= decided)).await;
            if waited.is_err() {
                tracing::warn!("a change of identities was made and is not seen on this node yet");
            }
        }
        Ok(outcome.map(drop))
    }

    /// Writes a tenant's first account down, if nobody did.
    async fn write_first(&self, tenant: TenantId) -> Result<Result<(), Refusal>> {
        let snapshot = self.snapshot();
        let Some(first) = snapshot.tenants.get(&tenant).and_then(Tenant::first_account) else {
            return Ok(Err(Refusal::NotFound { what: "tenant".to_owned(), name: tenant.to_string() }));
        };
        let new = NewAccount {
            tenant,
            account: first.number.get(),
            canonical: *first.canonical.as_bytes(),
            name: first.name.clone(),
            email: first.email.clone(),
            first: true,
            access_key: None,
            at: now(),
        };
        Ok(self.control.propose(&Command::CreateAccount(new)).await?.map(drop))
    }

    async fn command(&self, tenant: TenantId, account: AccountNumber, change: Change) -> Result<Command> {
        let view = self.control.view().await?;
        let record = view.tenants.get(&tenant).context("there is no such tenant any more")?;
        let documents = documents_of(&self.keyring, record).context("sealing identities")?;
        let row_write = |row: RowChange| {
            let kind =
                KINDS.iter().find(|(kind, _)| *kind == row.kind).map_or(u8::MAX, |(_, number)| *number);
            let then = match row.then {
                Then::Keep => holdfast_control::Then::Keep,
                Then::Put(version, document) => {
                    let name = document_name(account.get(), kind, &row.name, version);
                    let body = documents.seal(name.as_bytes(), &document);
                    holdfast_control::Then::Put { version, body }
                }
                Then::Delete => holdfast_control::Then::Delete,
            };
            IdentityWrite { kind, name: row.name, expected: row.expected, then }
        };
        let key_write = |key| {
            Ok(match key {
                KeyChange::Create { access_key, user, secret } => {
                    let sealed_secret = self.seal_secret(&access_key, &secret)?;
                    KeyWrite::Create { sealed_secret, access_key, user }
                }
                KeyChange::SetActive { access_key, active } => KeyWrite::SetActive { access_key, active },
                KeyChange::Delete { access_key } => KeyWrite::Delete { access_key },
            })
        };
        Ok(Command::ChangeIdentities(IdentityChange {
            tenant,
            account: account.get(),
            rows: change.rows.into_iter().map(row_write).collect(),
            keys: change.keys.into_iter().map(key_write).collect::<Result<_>>()?,
            at: now(),
        }))
    }
}

#[async_trait::async_trait]
impl Identities for NodeIdentities {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.now.read())
    }

    async fn change(
        &self,
        tenant: TenantId,
        account: AccountNumber,
        change: Change,
    ) -> Result<(), ChangeError> {
        let unavailable = |error: anyhow::Error| ChangeError::Unavailable(format!("{error:#}"));
        let command = self.command(tenant, account, change).await.map_err(unavailable)?;
        let mut outcome = self.propose(&command).await.map_err(unavailable)?;
        if matches!(&outcome, Err(Refusal::NotFound { what, .. }) if what == "account")
            && account == first_number(tenant)
        {
            let written = self.write_first(tenant).await.map_err(unavailable)?;
            written.map_err(|refusal| ChangeError::Unavailable(refusal.to_string()))?;
            outcome = self.propose(&command).await.map_err(unavailable)?;
        }
        outcome.map_err(|refusal| match refusal {
            Refusal::Changed(_) => ChangeError::Conflict,
            Refusal::TooLarge { .. } => ChangeError::Limit(refusal.to_string()),
            other => ChangeError::Unavailable(other.to_string()),
        })
    }

    fn seal(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.keyring.seal_secret(SESSION_PURPOSE, session).ok()
    }

    fn open(&self, sealed: &[u8]) -> Result<Option<Vec<u8>>, NotNow> {
        match self.keyring.open_secret(SESSION_PURPOSE, sealed) {
            Ok(session) => Ok(Some(session)),
            Err(error) if error.may_pass() => Err(NotNow),
            Err(_) => Ok(None),
        }
    }

    fn now_millis(&self) -> u64 {
        now().get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenant_has_a_first_account_of_its_own() {
        let (a, b) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        assert_ne!(first_number(a), first_number(b));
        assert_eq!(first_canonical(a).to_string(), "01".repeat(32));
        assert_ne!(first_number(TenantId::from_bytes([0; 16])).get(), 0);
    }
}
