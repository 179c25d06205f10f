//! The query API of IAM, decided: parameters and an account in, an answer and a change out.
//!
//! Pure: randomness and the clock are arguments, and what a call changes is a [`Change`] that names the
//! versions of what it was decided on. Whether the caller may is decided before, by policies, on [`target`].
//!
//! Source: AWS, "IAM API reference", version 2010-05-08.

mod entities;
mod groups;
mod managed;
mod permissions;
mod policies;
mod roles;
mod users;
mod xml;

pub use managed::aws_managed;
pub use xml::{Xml, encoded};

use crate::{
    identity::{Account, Caller, KeyInfo, Kind, Who},
    policy::{IDENTITY_POLICY_SIZE_MAX, Policy},
    text::AccountNumber,
};

/// Items of one page, unless asked otherwise (AWS).
const PAGE_DEFAULT: usize = 100;
/// Items of one page at most (AWS).
const PAGE_MAX: usize = 1000;
/// Access keys of one user at most (AWS).
pub const KEYS_MAX: usize = 2;
/// Inline policies, attached policies and groups of one holder at most.
const ATTACHED_MAX: usize = 20;
/// Tags of one user or role at most (AWS).
const TAGS_MAX: usize = 50;
/// Versions of one managed policy at most (AWS).
const POLICY_VERSIONS_MAX: usize = 5;

/// An answer of IAM that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct IamError {
    pub code: &'static str,
    pub status: u16,
    pub message: String,
}

impl IamError {
    /// Any error.
    #[must_use]
    pub fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into() }
    }

    fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationError", 400, message)
    }

    fn no_such(message: impl Into<String>) -> Self {
        Self::new("NoSuchEntity", 404, message)
    }

    fn exists(message: impl Into<String>) -> Self {
        Self::new("EntityAlreadyExists", 409, message)
    }

    fn conflict(message: impl Into<String>) -> Self {
        Self::new("DeleteConflict", 409, message)
    }

    fn limit(what: &str, most: usize) -> Self {
        Self::new("LimitExceeded", 409, format!("Cannot exceed quota for {what}: {most}"))
    }
}

/// Parameters of a call.
#[derive(Debug, Clone, Copy)]
pub struct Params<'a>(pub &'a [(String, String)]);

impl<'a> Params<'a> {
    /// A parameter.
    #[must_use]
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// A parameter that must be there.
    ///
    /// # Errors
    /// `ValidationError`.
    pub fn required(self, name: &str) -> Result<&'a str, IamError> {
        self.get(name).filter(|value| !value.is_empty()).ok_or_else(|| {
            IamError::validation(format!(
                "1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"
            ))
        })
    }

    /// A name: letters, digits and `+=,.@_-`.
    fn name(self, parameter: &str, most: usize) -> Result<&'a str, IamError> {
        let name = self.required(parameter)?;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte);
        if name.len() <= most && name.bytes().all(good) {
            return Ok(name);
        }
        Err(IamError::validation(format!(
            "The specified value for {parameter} is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_- and at most {most} characters"
        )))
    }

    /// A path: `/`, or segments between slashes.
    fn path(self) -> Result<&'a str, IamError> {
        let path = self.get("Path").unwrap_or("/");
        let good = path.len() <= 512
            && path.starts_with('/')
            && path.ends_with('/')
            && !path.contains("//")
            && path.bytes().all(|byte| (0x21..0x7f).contains(&byte));
        if good {
            return Ok(path);
        }
        Err(IamError::validation(
            "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.",
        ))
    }

    /// `Tags.member.N.Key` and `.Value`.
    fn tags(self) -> Result<std::collections::BTreeMap<String, String>, IamError> {
        let mut tags = std::collections::BTreeMap::new();
        for number in 1..=TAGS_MAX {
            let Some(key) = self.get(&format!("Tags.member.{number}.Key")) else { break };
            let value = self.get(&format!("Tags.member.{number}.Value")).unwrap_or_default();
            if key.is_empty() || key.chars().count() > 128 || value.chars().count() > 256 {
                return Err(IamError::validation(
                    "A tag's key has 1 to 128 characters, its value at most 256.",
                ));
            }
            if tags.insert(key.to_owned(), value.to_owned()).is_some() {
                return Err(IamError::new("InvalidInput", 400, "Duplicate tag keys found."));
            }
        }
        Ok(tags)
    }

    fn document(self, parameter: &str) -> Result<(&'a str, Policy), IamError> {
        let text = self.required(parameter)?;
        let malformed = |text: String| IamError::new("MalformedPolicyDocument", 400, text);
        if text.len() > IDENTITY_POLICY_SIZE_MAX {
            return Err(IamError::new(
                "LimitExceeded",
                409,
                format!("Maximum policy size of {IDENTITY_POLICY_SIZE_MAX} bytes exceeded"),
            ));
        }
        let policy = Policy::parse(text.as_bytes()).map_err(|error| malformed(error.0))?;
        Ok((text, policy))
    }

    /// A document to attach to somebody.
    fn identity_policy(self) -> Result<&'a str, IamError> {
        let (text, policy) = self.document("PolicyDocument")?;
        policy
            .validate(crate::policy::Kind::Identity)
            .map_err(|error| IamError::new("MalformedPolicyDocument", 400, error.0))?;
        Ok(text)
    }
}

/// One row that a change touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Of what kind.
    pub kind: Kind,
    /// Its name in lower case.
    pub name: String,
    /// The version it was decided on; `None`: it must not exist.
    pub expected: Option<u64>,
    /// What becomes of it.
    pub then: Then,
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// It stays as it is.
    Keep,
    /// It is written under a fresh version.
    Put(u64, Vec<u8>),
    /// It goes.
    Delete,
}

/// One access key that a change touches.
#[derive(Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum KeyChange {
    Create { access_key: String, user: Option<String>, secret: String },
    SetActive { access_key: String, active: bool },
    Delete { access_key: String },
}

impl std::fmt::Debug for KeyChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyChange")
    }
}

/// What a call changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Rows.
    pub rows: Vec<RowChange>,
    /// Access keys.
    pub keys: Vec<KeyChange>,
}

/// What a call comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Performed {
    /// To be made before the answer is sent.
    pub change: Change,
    /// Inside of the result element; `None`: the action has none.
    pub result: Option<String>,
}

impl Performed {
    fn answer(result: Xml) -> Self {
        Self { change: Change::default(), result: Some(result.done()) }
    }

    fn changed(row: RowChange) -> Self {
        Self { change: Change { rows: vec![row], keys: Vec::new() }, result: None }
    }

    fn with(mut self, result: Xml) -> Self {
        self.result = Some(result.done());
        self
    }
}

/// What a call needs beside its parameters.
pub struct Facts<'a> {
    /// The account.
    pub account: &'a Account,
    /// Who calls.
    pub caller: &'a Caller,
    /// Keys of the account's root user.
    pub root_keys: Vec<(String, KeyInfo)>,
    /// Milliseconds since 1970.
    pub now: u64,
    /// Fills with random bytes.
    pub random: &'a mut dyn FnMut(&mut [u8]),
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("account", &self.account.info.number).finish_non_exhaustive()
    }
}

impl Facts<'_> {
    fn number(&self) -> AccountNumber {
        self.account.info.number
    }

    fn version(&mut self) -> u64 {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes);
        // Stored as a signed column.
        u64::from_le_bytes(bytes) >> 1
    }

    /// `AIDA` and 17 letters and digits.
    fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}{}", self.text(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 17))
    }

    /// Characters drawn evenly from an alphabet whose size is a power of two.
    pub fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        debug_assert!(alphabet.len().is_power_of_two());
        let mut bytes = vec![0; length];
        (self.random)(&mut bytes);
        bytes.iter().map(|byte| char::from(alphabet[usize::from(*byte) % alphabet.len()])).collect()
    }

    /// The user a call is about: the one it names, or who calls. `None`: the root user.
    fn user_meant<'a>(&'a self, params: Params<'a>) -> Result<Option<&'a str>, IamError> {
        match (params.get("UserName"), &self.caller.who) {
            (Some(_), _) => params.name("UserName", 64).map(Some),
            (None, Who::Root) => Ok(None),
            (None, Who::User { path_and_name, .. }) => Ok(path_and_name.rsplit('/').next()),
            (None, _) => {
                Err(IamError::validation("Must specify userName when calling with non-User credentials"))
            }
        }
    }
}

type Call = fn(Params<'_>, &mut Facts<'_>) -> Result<Performed, IamError>;

/// Every action, what it is about, and what does it.
pub const ACTIONS: &[(&str, Target, Call)] = &[
    ("AddUserToGroup", Target::Group, groups::add_user),
    ("AttachGroupPolicy", Target::Group, permissions::attach_to_group),
    ("AttachRolePolicy", Target::Role, permissions::attach_to_role),
    ("AttachUserPolicy", Target::User, permissions::attach_to_user),
    ("CreateAccessKey", Target::User, users::create_key),
    ("CreateGroup", Target::Group, groups::create),
    ("CreatePolicy", Target::Policy, policies::create),
    ("CreatePolicyVersion", Target::Policy, policies::create_version),
    ("CreateRole", Target::Role, roles::create),
    ("CreateUser", Target::User, users::create),
    ("DeleteAccessKey", Target::User, users::delete_key),
    ("DeleteGroup", Target::Group, groups::delete),
    ("DeleteGroupPolicy", Target::Group, permissions::delete_of_group),
    ("DeletePolicy", Target::Policy, policies::delete),
    ("DeletePolicyVersion", Target::Policy, policies::delete_version),
    ("DeleteRole", Target::Role, roles::delete),
    ("DeleteRolePolicy", Target::Role, permissions::delete_of_role),
    ("DeleteUser", Target::User, users::delete),
    ("DeleteUserPolicy", Target::User, permissions::delete_of_user),
    ("DetachGroupPolicy", Target::Group, permissions::detach_from_group),
    ("DetachRolePolicy", Target::Role, permissions::detach_from_role),
    ("DetachUserPolicy", Target::User, permissions::detach_from_user),
    ("GetAccessKeyLastUsed", Target::User, users::key_last_used),
    ("GetAccountSummary", Target::All, users::summary),
    ("GetGroup", Target::Group, groups::get),
    ("GetGroupPolicy", Target::Group, permissions::get_of_group),
    ("GetPolicy", Target::Policy, policies::get),
    ("GetPolicyVersion", Target::Policy, policies::get_version),
    ("GetRole", Target::Role, roles::get),
    ("GetRolePolicy", Target::Role, permissions::get_of_role),
    ("GetUser", Target::User, users::get),
    ("GetUserPolicy", Target::User, permissions::get_of_user),
    ("ListAccessKeys", Target::User, users::list_keys),
    ("ListAccountAliases", Target::All, users::aliases),
    ("ListAttachedGroupPolicies", Target::Group, permissions::attached_to_group),
    ("ListAttachedRolePolicies", Target::Role, permissions::attached_to_role),
    ("ListAttachedUserPolicies", Target::User, permissions::attached_to_user),
    ("ListEntitiesForPolicy", Target::Policy, policies::entities),
    ("ListGroupPolicies", Target::Group, permissions::list_of_group),
    ("ListGroups", Target::All, groups::list),
    ("ListGroupsForUser", Target::User, groups::of_user),
    ("ListOpenIDConnectProviders", Target::All, users::providers),
    ("ListPolicies", Target::All, policies::list),
    ("ListPolicyVersions", Target::Policy, policies::list_versions),
    ("ListRolePolicies", Target::Role, permissions::list_of_role),
    ("ListRoleTags", Target::Role, roles::tags),
    ("ListRoles", Target::All, roles::list),
    ("ListUserPolicies", Target::User, permissions::list_of_user),
    ("ListUserTags", Target::User, users::tags),
    ("ListUsers", Target::All, users::list),
    ("PutGroupPolicy", Target::Group, permissions::put_of_group),
    ("PutRolePolicy", Target::Role, permissions::put_of_role),
    ("PutUserPolicy", Target::User, permissions::put_of_user),
    ("RemoveUserFromGroup", Target::Group, groups::remove_user),
    ("SetDefaultPolicyVersion", Target::Policy, policies::set_default),
    ("TagRole", Target::Role, roles::tag),
    ("TagUser", Target::User, users::tag),
    ("UntagRole", Target::Role, roles::untag),
    ("UntagUser", Target::User, users::untag),
    ("UpdateAccessKey", Target::User, users::update_key),
    ("UpdateAssumeRolePolicy", Target::Role, roles::update_trust),
    ("UpdateGroup", Target::Group, groups::update),
    ("UpdateRole", Target::Role, roles::update),
    ("UpdateUser", Target::User, users::update),
];

/// What an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Target {
    User,
    Group,
    Role,
    Policy,
    All,
}

fn find(action: &str) -> Option<&'static (&'static str, Target, Call)> {
    ACTIONS.binary_search_by_key(&action, |row| row.0).ok().map(|at| &ACTIONS[at])
}

/// The ARN that a policy has to allow the action on; `None` when there is no such action.
#[must_use]
pub fn target(action: &str, params: Params<'_>, account: &Account, caller: &Caller) -> Option<String> {
    let (_, target, _) = find(action)?;
    let number = account.info.number;
    let of = |kind: &str, name: Option<&str>, path: Option<&String>| {
        let path = path.map_or_else(|| params.get("Path").unwrap_or("/"), String::as_str);
        name.map_or_else(|| "*".to_owned(), |name| format!("arn:aws:iam::{number}:{kind}{path}{name}"))
    };
    Some(match target {
        Target::User => match params.get("UserName") {
            Some(name) => {
                let path = account.users.get(&name.to_lowercase()).map(|row| &row.value.path);
                of("user", Some(name), path)
            }
            None => caller.arns().next().unwrap_or_else(|| "*".to_owned()),
        },
        Target::Group => {
            let name = params.get("GroupName");
            let row = name.and_then(|name| account.groups.get(&name.to_lowercase()));
            of("group", name, row.map(|row| &row.value.path))
        }
        Target::Role => {
            let name = params.get("RoleName");
            let row = name.and_then(|name| account.roles.get(&name.to_lowercase()));
            of("role", name, row.map(|row| &row.value.path))
        }
        Target::Policy => match params.get("PolicyArn") {
            Some(arn) => arn.to_owned(),
            None => of("policy", params.get("PolicyName"), None),
        },
        Target::All => "*".to_owned(),
    })
}

/// Decides a call.
///
/// # Errors
/// What IAM answers.
pub fn perform(action: &str, params: Params<'_>, facts: &mut Facts<'_>) -> Result<Performed, IamError> {
    let Some((_, _, call)) = find(action) else {
        return Err(IamError::new(
            "InvalidAction",
            400,
            format!("Could not find operation {action} for version 2010-05-08"),
        ));
    };
    call(params, facts)
}

#[cfg(test)]
mod tests;
