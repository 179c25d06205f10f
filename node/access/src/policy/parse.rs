//! From JSON to a [`Policy`], with AWS's words for what is wrong.

use serde_json::{Map, Value};

use super::{
    Condition, Policy, Principal, STATEMENTS_MAX, Selection, Statement, VALUES_MAX, condition,
    parse_principal_arn,
};
use crate::text::{AccountNumber, CanonicalId, matches};

/// Why a document is no policy (`MalformedPolicy`, `MalformedPolicyDocument`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PolicyError(pub String);

/// What a policy is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// The policy of this bucket.
    Bucket(&'a str),
    /// Attached to a user, group or role, or given with a session.
    Identity,
    /// Who may assume a role.
    Trust,
}

fn fault<T>(text: impl Into<String>) -> Result<T, PolicyError> {
    Err(PolicyError(text.into()))
}

impl Policy {
    /// Reads a document. The caller has bounded its size; depth is bounded by the JSON parser (128).
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(text: &[u8]) -> Result<Self, PolicyError> {
        if text.first() != Some(&b'{') {
            return fault("Policies must be valid JSON and the first byte must be '{'");
        }
        let value: Value = serde_json::from_slice(text)
            .map_err(|_| PolicyError("This policy contains invalid Json".to_owned()))?;
        let Value::Object(document) = value else { return fault("This policy contains invalid Json") };
        for name in document.keys() {
            if !matches!(name.as_str(), "Version" | "Id" | "Statement") {
                return fault(format!("Unknown field {name}"));
            }
        }
        let variables = match document.get("Version") {
            None => false,
            Some(Value::String(text)) if text == "2008-10-17" => false,
            Some(Value::String(text)) if text == "2012-10-17" => true,
            Some(_) => {
                return fault("The policy must contain a valid version string: 2012-10-17 or 2008-10-17");
            }
        };
        if document.get("Id").is_some_and(|id| !id.is_string()) {
            return fault("Id must be a string");
        }
        let statements = match document.get("Statement") {
            Some(Value::Array(list)) if list.len() <= STATEMENTS_MAX => {
                list.iter().map(statement).collect::<Result<Vec<_>, _>>()?
            }
            Some(Value::Array(_)) => return fault(format!("More than {STATEMENTS_MAX} statements")),
            Some(one @ Value::Object(_)) => vec![statement(one)?],
            Some(_) => return fault("Statement must be an object or a list of objects"),
            None => return fault("Missing required field Statement"),
        };
        if statements.is_empty() {
            return fault("Could not parse the policy: Statement is empty!");
        }
        Ok(Self { variables, statements })
    }

    /// Whether the document is one of its kind.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn validate(&self, kind: Kind<'_>) -> Result<(), PolicyError> {
        let mut sids: Vec<&str> =
            self.statements.iter().filter_map(|statement| statement.sid.as_deref()).collect();
        sids.sort_unstable();
        if sids.windows(2).any(|pair| pair[0] == pair[1]) {
            return fault("Statement IDs (SID) in a single policy must be unique");
        }
        self.statements.iter().try_for_each(|statement| match kind {
            Kind::Bucket(bucket) => statement.check_of_bucket(bucket),
            Kind::Identity => statement.check_of_identity(),
            Kind::Trust => statement.check_of_trust(),
        })
    }

    /// Accounts and ARNs that its principals name.
    pub fn principals(&self) -> impl Iterator<Item = &Principal> {
        self.statements.iter().filter_map(|statement| statement.principals.as_ref()).flat_map(|s| &s.of)
    }
}

impl Statement {
    fn check_of_bucket(&self, bucket: &str) -> Result<(), PolicyError> {
        if self.principals.is_none() {
            return fault("Missing required field Principal");
        }
        let Some(resources) = &self.resources else { return fault("Missing required field Resource") };
        let prefix = format!("arn:aws:s3:::{bucket}");
        let of_bucket = |resource: &String| {
            resource
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                || resource.strip_prefix("arn:aws:s3:::").is_some_and(|pattern| {
                    let name = pattern.split('/').next().unwrap_or("");
                    (name.contains('*') || name.contains('?')) && matches(name, bucket)
                })
        };
        if !resources.of.iter().all(of_bucket) {
            return fault("Policy has invalid resource");
        }
        for action in &self.actions.of {
            let lower = action.to_ascii_lowercase();
            let name = lower.strip_prefix("s3:");
            if lower != "*" && name.is_none_or(|name| !crate::decide::is_action_pattern(name)) {
                return fault("Policy has invalid action");
            }
        }
        if !self.actions.not && !resources.not && !self.applies() {
            return fault("Action does not apply to any resource(s) in statement");
        }
        Ok(())
    }

    /// Whether some action is about some resource: actions on buckets need a bucket's ARN, those on
    /// objects one with a slash, or a wildcard that may stand for one.
    fn applies(&self) -> bool {
        let Some(resources) = &self.resources else { return true };
        let bucket = resources.of.iter().any(|resource| !resource.contains('/'));
        let object = resources.of.iter().any(|resource| resource.contains('/') || resource.contains('*'));
        self.actions.of.iter().all(|action| {
            let lower = action.to_ascii_lowercase();
            let Some(name) = lower.strip_prefix("s3:") else { return true };
            let (on_bucket, on_object) = crate::decide::subjects_of(name);
            (bucket && on_bucket) || (object && on_object)
        })
    }

    fn check_of_identity(&self) -> Result<(), PolicyError> {
        if self.principals.is_some() {
            return fault("Policy document should not specify a principal.");
        }
        if self.resources.is_none() {
            return fault("Policy statement must contain resources.");
        }
        for action in &self.actions.of {
            let vendor = action.split_once(':').map(|(vendor, _)| vendor);
            if action != "*" && vendor.is_none_or(str::is_empty) {
                return fault("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.");
            }
        }
        for resource in self.resources.iter().flat_map(|resources| &resources.of) {
            if resource != "*" && !resource.starts_with("arn:") && !resource.starts_with('*') {
                return fault(format!("Resource {resource} must be in ARN format or \"*\"."));
            }
        }
        Ok(())
    }

    fn check_of_trust(&self) -> Result<(), PolicyError> {
        if self.principals.is_none() {
            return fault("Policy document should specify a principal.");
        }
        if self.resources.is_some() {
            return fault("Has prohibited field Resource");
        }
        if self
            .actions
            .of
            .iter()
            .any(|action| !action.to_ascii_lowercase().starts_with("sts:") && action != "*")
        {
            return fault("AssumeRole policy may only specify STS AssumeRole actions.");
        }
        Ok(())
    }
}

fn statement(value: &Value) -> Result<Statement, PolicyError> {
    let Value::Object(map) = value else { return fault("Statement must be an object") };
    for name in map.keys() {
        if !matches!(
            name.as_str(),
            "Sid"
                | "Effect"
                | "Principal"
                | "NotPrincipal"
                | "Action"
                | "NotAction"
                | "Resource"
                | "NotResource"
                | "Condition"
        ) {
            return fault(format!("Unknown field {name}"));
        }
    }
    let sid = match map.get("Sid") {
        None => None,
        Some(Value::String(sid)) => Some(sid.clone()).filter(|sid| !sid.is_empty()),
        Some(_) => return fault("Sid must be a string"),
    };
    let allow = match map.get("Effect") {
        Some(Value::String(effect)) if effect == "Allow" => true,
        Some(Value::String(effect)) if effect == "Deny" => false,
        Some(Value::String(effect)) => return fault(format!("Invalid effect: {effect}")),
        Some(_) => return fault("Invalid effect"),
        None => return fault("Missing required field Effect"),
    };
    let principals = match selected(map, "Principal", "NotPrincipal")? {
        None => None,
        Some((not, value)) => Some(Selection { not, of: principals(value)? }),
    };
    if principals.as_ref().is_some_and(|principals| principals.not && allow) {
        return fault("Allow with NotPrincipal is not allowed");
    }
    let Some((not, value)) = selected(map, "Action", "NotAction")? else {
        return fault("Missing required field Action");
    };
    let actions = Selection { not, of: texts("Action", value)? };
    let resources = match selected(map, "Resource", "NotResource")? {
        None => None,
        Some((not, value)) => Some(Selection { not, of: texts("Resource", value)? }),
    };
    let conditions = match map.get("Condition") {
        None => Vec::new(),
        Some(Value::Object(operators)) => conditions(operators)?,
        Some(_) => return fault("Condition must be an object"),
    };
    Ok(Statement { sid, allow, principals, actions, resources, conditions })
}

fn selected<'a>(
    map: &'a Map<String, Value>,
    name: &str,
    not: &str,
) -> Result<Option<(bool, &'a Value)>, PolicyError> {
    match (map.get(name), map.get(not)) {
        (None, None) => Ok(None),
        (Some(value), None) => Ok(Some((false, value))),
        (None, Some(value)) => Ok(Some((true, value))),
        (Some(_), Some(_)) => fault(format!("Statement has both {name} and {not}")),
    }
}

/// A string or a list of strings, not empty.
fn texts(what: &str, value: &Value) -> Result<Vec<String>, PolicyError> {
    let wrong = || PolicyError(format!("{what} must be a string or a list of strings"));
    match value {
        Value::String(one) => Ok(vec![one.clone()]),
        Value::Array(list) if list.is_empty() => fault(format!("{what} must not be empty")),
        Value::Array(list) if list.len() > VALUES_MAX => {
            fault(format!("{what} has more than {VALUES_MAX} values"))
        }
        Value::Array(list) => {
            list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

fn principals(value: &Value) -> Result<Vec<Principal>, PolicyError> {
    let invalid = || PolicyError("Invalid principal in policy".to_owned());
    match value {
        Value::String(text) if text == "*" => Ok(vec![Principal::Anyone]),
        Value::Object(kinds) if !kinds.is_empty() => {
            let mut found = Vec::new();
            for (kind, value) in kinds {
                for text in texts("Principal", value)? {
                    found.push(match kind.as_str() {
                        "AWS" => aws_principal(&text).ok_or_else(invalid)?,
                        "CanonicalUser" => {
                            Principal::Canonical(CanonicalId::parse(&text).ok_or_else(invalid)?)
                        }
                        "Service" | "Federated" => Principal::Nobody(text),
                        _ => return Err(invalid()),
                    });
                }
            }
            Ok(found)
        }
        _ => Err(invalid()),
    }
}

fn aws_principal(text: &str) -> Option<Principal> {
    if text == "*" {
        return Some(Principal::Anyone);
    }
    if let Some(account) = AccountNumber::parse(text) {
        return Some(Principal::Account(account));
    }
    if let Some(id) = CanonicalId::parse(text) {
        return Some(Principal::Canonical(id));
    }
    let (account, resource) = parse_principal_arn(text)?;
    if resource == "root" {
        return Some(Principal::Account(account));
    }
    let (kind, name) = resource.split_once('/')?;
    let known = matches!(kind, "user" | "role" | "assumed-role");
    // Wildcards stand for everybody only as a whole.
    (known && !name.is_empty() && !name.contains('*')).then(|| Principal::Arn(text.to_owned()))
}

fn conditions(operators: &Map<String, Value>) -> Result<Vec<Condition>, PolicyError> {
    let mut found = Vec::new();
    for (operator, keys) in operators {
        let Value::Object(keys) = keys else { return fault("Condition must hold objects") };
        for (key, value) in keys {
            let values = match value {
                Value::Array(list) if list.len() > VALUES_MAX => {
                    return fault(format!("a condition has more than {VALUES_MAX} values"));
                }
                Value::Array(list) => list.iter().map(scalar).collect::<Result<Vec<_>, _>>()?,
                one => vec![scalar(one)?],
            };
            if values.is_empty() {
                return fault("a condition must have a value");
            }
            found.push(condition::parse(operator, key, values).map_err(PolicyError)?);
        }
    }
    Ok(found)
}

fn scalar(value: &Value) -> Result<String, PolicyError> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        _ => fault("a condition's value must be a string, a number or a boolean"),
    }
}
