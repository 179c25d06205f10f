//! Identities of a tenant: accounts, and in each its users, groups, roles, policies and access keys.
//!
//! What is stored of an entity is its JSON form: fields that a later release adds have defaults. The
//! control group keeps these rows without reading them; a change names the versions of the rows it was
//! decided on, and is refused when one of them changed meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use holdfast_model::{TenantId, TenantLimits};
use serde::{Deserialize, Serialize};

use crate::{
    policy::Policy,
    text::{AccountNumber, CanonicalId},
};

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountInfo {
    /// In ARNs.
    pub number: AccountNumber,
    /// In access control lists.
    pub canonical: CanonicalId,
    /// Shown beside the canonical id.
    pub name: String,
    /// Another way to name it in a grant; unique in its tenant.
    pub email: String,
}

/// The kinds of entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    User,
    Group,
    Role,
    Policy,
}

/// An access key of a user, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct KeyInfo {
    pub created: u64,
    pub active: bool,
}

/// What a user, group or role may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Permissions {
    /// Documents by name.
    pub inline: BTreeMap<String, String>,
    /// ARNs of managed policies.
    pub attached: BTreeSet<String>,
}

/// A user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct User {
    pub name: String,
    pub path: String,
    pub id: String,
    pub created: u64,
    pub permissions: Permissions,
    pub boundary: Option<String>,
    pub tags: BTreeMap<String, String>,
    /// Names of its groups, in lower case.
    pub groups: BTreeSet<String>,
    pub keys: BTreeMap<String, KeyInfo>,
}

/// A group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Group {
    pub name: String,
    pub path: String,
    pub id: String,
    pub created: u64,
    pub permissions: Permissions,
}

/// A role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Role {
    pub name: String,
    pub path: String,
    pub id: String,
    pub created: u64,
    pub permissions: Permissions,
    pub boundary: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub trust: String,
    pub description: String,
    pub max_session_seconds: u64,
}

/// A managed policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct ManagedPolicy {
    pub name: String,
    pub path: String,
    pub id: String,
    pub created: u64,
    pub updated: u64,
    pub description: String,
    pub versions: BTreeMap<u32, PolicyVersion>,
    pub default: u32,
    pub last: u32,
}

/// A version of a managed policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct PolicyVersion {
    pub document: String,
    pub created: u64,
}

/// A stored entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T> {
    /// Changes with every write of the row.
    pub version: u64,
    /// The entity.
    pub value: T,
}

/// Entities by their name in lower case: names differ by more than case (AWS).
pub type Rows<T> = BTreeMap<String, Row<T>>;

/// An account with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Account {
    pub info: Arc<AccountInfo>,
    pub users: Rows<User>,
    pub groups: Rows<Group>,
    pub roles: Rows<Role>,
    pub policies: Rows<ManagedPolicy>,
}

/// An access key.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct AccessKey {
    pub tenant: TenantId,
    pub account: AccountNumber,
    /// `None`: the account's root user.
    pub user: Option<String>,
    pub active: bool,
    pub created: u64,
    /// From then on it lets nobody in, in milliseconds since 1970.
    pub expires: Option<u64>,
    /// What it may be used for at most, whatever whoever it is of may do.
    pub bound: Option<Arc<Policy>>,
    pub secret: String,
}

impl std::fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKey")
            .field("tenant", &self.tenant)
            .field("account", &self.account)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A tenant: a namespace of buckets and the accounts that share it.
#[derive(Debug, Clone, Default)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// The account that owns what was there before accounts were.
    pub first: Option<AccountNumber>,
    /// Its accounts.
    pub accounts: BTreeMap<AccountNumber, Account>,
    /// Its clients are refused, whatever they ask.
    pub suspended: bool,
    /// What its key waits for, for people: until then its clients are told to come back.
    pub waits_for: Option<String>,
    /// What its clients may ask of this node: its part of the cluster's figures.
    pub limits: TenantLimits,
}

impl Tenant {
    /// An account by its canonical id.
    #[must_use]
    pub fn by_canonical(&self, id: CanonicalId) -> Option<&Arc<AccountInfo>> {
        self.accounts.values().map(|account| &account.info).find(|info| info.canonical == id)
    }

    /// An account by its e-mail address.
    #[must_use]
    pub fn by_email(&self, email: &str) -> Option<&Arc<AccountInfo>> {
        self.accounts
            .values()
            .map(|account| &account.info)
            .find(|info| info.email.eq_ignore_ascii_case(email))
    }

    /// The first account.
    #[must_use]
    pub fn first_account(&self) -> Option<&Arc<AccountInfo>> {
        self.accounts.get(&self.first?).map(|account| &account.info)
    }
}

/// All identities at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Tenants that are served.
    pub tenants: HashMap<TenantId, Tenant>,
    /// Their access keys.
    pub keys: HashMap<String, AccessKey>,
}

impl Snapshot {
    /// An account.
    #[must_use]
    pub fn account(&self, tenant: TenantId, number: AccountNumber) -> Option<&Account> {
        self.tenants.get(&tenant)?.accounts.get(&number)
    }
}

/// As whom a caller acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Did not sign.
    Anonymous,
    /// The account itself.
    Root,
    /// A user.
    User {
        /// `/division/name`
        path_and_name: String,
        /// `AIDA...`
        id: String,
    },
    /// A session of a role.
    Session {
        /// `/division/role`
        path_and_role: String,
        /// `AROA...`
        id: String,
        /// Chosen by who assumed it.
        name: String,
    },
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// `None`: anonymous.
    account: Option<Arc<AccountInfo>>,
    /// As whom.
    pub who: Who,
    /// Policies of the user and its groups, or of the role.
    pub policies: Vec<Arc<Policy>>,
    /// Each restrains: the boundary of the user or role, the session's policies (any of a group allows).
    pub bounds: Vec<Vec<Arc<Policy>>>,
    /// Tags of the user or role.
    pub tags: BTreeMap<String, String>,
    /// Whether it signs with temporary credentials.
    pub temporary: bool,
}

impl Caller {
    /// Somebody who did not sign.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            account: None,
            who: Who::Anonymous,
            policies: Vec::new(),
            bounds: Vec::new(),
            tags: BTreeMap::new(),
            temporary: false,
        }
    }

    /// Somebody of an account.
    #[must_use]
    pub fn of(account: Arc<AccountInfo>, who: Who) -> Self {
        Self { account: Some(account), who, ..Self::anonymous() }
    }

    /// A user of an account with what its policies say; `None` when there is no such user.
    #[must_use]
    pub fn user(account: &Account, name: &str) -> Option<Self> {
        let user = &account.users.get(&name.to_lowercase())?.value;
        let who = Who::User { path_and_name: format!("{}{}", user.path, user.name), id: user.id.clone() };
        let mut caller = Self::of(Arc::clone(&account.info), who);
        caller.policies = account.policies_of(&user.permissions);
        for group in &user.groups {
            if let Some(group) = account.groups.get(group) {
                caller.policies.extend(account.policies_of(&group.value.permissions));
            }
        }
        caller.bounds.extend(user.boundary.as_deref().map(|arn| account.boundary(arn)));
        caller.tags.clone_from(&user.tags);
        Some(caller)
    }

    /// A session of a role; `None` when there is no such role.
    #[must_use]
    pub fn session(account: &Account, role: &str, name: &str) -> Option<Self> {
        let role = &account.roles.get(&role.to_lowercase())?.value;
        let who = Who::Session {
            path_and_role: format!("{}{}", role.path, role.name),
            id: role.id.clone(),
            name: name.to_owned(),
        };
        let mut caller = Self::of(Arc::clone(&account.info), who);
        caller.policies = account.policies_of(&role.permissions);
        caller.bounds.extend(role.boundary.as_deref().map(|arn| account.boundary(arn)));
        caller.tags.clone_from(&role.tags);
        caller.temporary = true;
        Some(caller)
    }

    /// Its account.
    #[must_use]
    pub fn account(&self) -> Option<&Arc<AccountInfo>> {
        self.account.as_ref()
    }

    /// Its account's canonical id.
    #[must_use]
    pub fn canonical(&self) -> Option<CanonicalId> {
        self.account.as_ref().map(|account| account.canonical)
    }

    /// The ARN that `GetCallerIdentity` shows.
    #[must_use]
    pub fn arn(&self) -> Option<String> {
        self.arns().last()
    }

    /// `aws:userid`
    #[must_use]
    pub fn user_id(&self) -> String {
        match (&self.who, &self.account) {
            (Who::User { id, .. }, _) => id.clone(),
            (Who::Session { id, name, .. }, _) => format!("{id}:{name}"),
            (_, Some(account)) => account.number.to_string(),
            (_, None) => "anonymous".to_owned(),
        }
    }

    /// ARNs by which a policy may name it: for a session the role's, then its own.
    pub fn arns(&self) -> impl Iterator<Item = String> {
        let number = self.account.as_ref().map(|account| account.number);
        let arns = match (number, &self.who) {
            (None, _) | (_, Who::Anonymous) => [None, None],
            (Some(number), Who::Root) => [None, Some(format!("arn:aws:iam::{number}:root"))],
            (Some(number), Who::User { path_and_name, .. }) => {
                [None, Some(format!("arn:aws:iam::{number}:user{path_and_name}"))]
            }
            (Some(number), Who::Session { path_and_role, name, .. }) => {
                let role = path_and_role.rsplit('/').next().unwrap_or_default();
                [
                    Some(format!("arn:aws:iam::{number}:role{path_and_role}")),
                    Some(format!("arn:aws:sts::{number}:assumed-role/{role}/{name}")),
                ]
            }
        };
        arns.into_iter().flatten()
    }
}

impl Account {
    /// The documents of a holder of permissions. One that cannot be read allows nothing and denies all.
    #[must_use]
    pub fn policies_of(&self, permissions: &Permissions) -> Vec<Arc<Policy>> {
        let attached = permissions.attached.iter().filter_map(|arn| self.document(arn));
        let inline = permissions.inline.values().map(String::as_str);
        inline.map(parsed).chain(attached.map(|text| parsed(&text))).collect()
    }

    fn boundary(&self, arn: &str) -> Vec<Arc<Policy>> {
        self.document(arn).map(|text| parsed(&text)).into_iter().collect()
    }

    /// The default version of a managed policy, of this account or one that AWS manages.
    #[must_use]
    pub fn document(&self, arn: &str) -> Option<String> {
        if let Some(name) = arn.strip_prefix("arn:aws:iam::aws:policy/") {
            return crate::iam::aws_managed(name).map(|(_, document)| document.to_owned());
        }
        let name = arn.rsplit('/').next()?.to_lowercase();
        let policy = &self.policies.get(&name)?.value;
        policy.versions.get(&policy.default).map(|version| version.document.clone())
    }
}

fn parsed(text: &str) -> Arc<Policy> {
    const DENY_ALL: &str = r#"{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}"#;
    let policy = Policy::parse(text.as_bytes()).or_else(|_| Policy::parse(DENY_ALL.as_bytes()));
    Arc::new(policy.unwrap_or(Policy { variables: false, statements: Vec::new() }))
}
