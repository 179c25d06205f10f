//! IAM policy documents: one parser for bucket policies, identity policies, trust policies and session
//! policies; what each kind must and must not hold is checked by [`Policy::validate`].
//!
//! Source: AWS, "IAM JSON policy elements reference" and "Policy evaluation logic".

mod condition;
mod evaluate;
mod parse;
mod public;

pub use condition::{Condition, Operator, Quantifier};
pub use evaluate::{Context, Effects, Matched, Question};
pub use parse::{Kind, PolicyError};

#[cfg(test)]
mod tests;

use crate::text::{AccountNumber, CanonicalId};

/// Largest bucket policy in bytes (AWS: 20 KB).
pub const BUCKET_POLICY_SIZE_MAX: usize = 20 * 1024;
/// Largest identity or trust policy in bytes (AWS: 10,240 for a role's inline policies).
pub const IDENTITY_POLICY_SIZE_MAX: usize = 10_240;
/// Largest session policy in bytes (AWS: 2,048).
pub const SESSION_POLICY_SIZE_MAX: usize = 2048;
/// Statements of one policy at most.
pub const STATEMENTS_MAX: usize = 256;
/// Values of one list (actions, resources, principals, condition values) at most.
pub const VALUES_MAX: usize = 1024;

/// A policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// `2012-10-17`: variables are replaced. `2008-10-17`, the default: they are not.
    pub variables: bool,
    /// In the order of the document.
    pub statements: Vec<Statement>,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// `Sid`.
    pub sid: Option<String>,
    /// `Effect`.
    pub allow: bool,
    /// `Principal` or `NotPrincipal`; none in identity policies.
    pub principals: Option<Selection<Principal>>,
    /// `Action` or `NotAction`.
    pub actions: Selection<String>,
    /// `Resource` or `NotResource`; none in trust policies.
    pub resources: Option<Selection<String>>,
    /// All must hold.
    pub conditions: Vec<Condition>,
}

/// What an element names, or with `not` everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection<T> {
    /// The `Not...` form.
    pub not: bool,
    /// Any of these.
    pub of: Vec<T>,
}

/// Who a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// `*`
    Anyone,
    /// An account: its number, or `arn:aws:iam::NUMBER:root`.
    Account(AccountNumber),
    /// A user, role or role session by ARN.
    Arn(String),
    /// An account by its canonical id.
    Canonical(CanonicalId),
    /// A service or an identity provider. None exists here: matches nobody.
    Nobody(String),
}

/// Reads `arn:aws:iam::NUMBER:KIND/PATH/NAME` and `arn:aws:sts::NUMBER:assumed-role/ROLE/SESSION`.
#[must_use]
pub fn parse_principal_arn(text: &str) -> Option<(AccountNumber, &str)> {
    let rest = text.strip_prefix("arn:aws:iam::").or_else(|| text.strip_prefix("arn:aws:sts::"))?;
    let (account, resource) = rest.split_once(':')?;
    Some((AccountNumber::parse(account)?, resource))
}
