//! Conditions: operators, their quantifiers, and what each makes of a request's values.

use std::net::IpAddr;

use crate::text::{instant_millis, matches};

/// How a key's values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operator {
    StringEquals,
    StringEqualsIgnoreCase,
    StringLike,
    NumericEquals,
    NumericLess,
    NumericLessEquals,
    NumericGreater,
    NumericGreaterEquals,
    DateEquals,
    DateLess,
    DateLessEquals,
    DateGreater,
    DateGreaterEquals,
    Bool,
    BinaryEquals,
    IpAddress,
    ArnLike,
    Null,
}

/// How several values of a request are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantifier {
    /// No prefix: the request has one value, or any of them.
    Plain,
    /// `ForAnyValue:`: some value of the request; false when there is none.
    Any,
    /// `ForAllValues:`: every value of the request; true when there is none.
    All,
}

/// One key's condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The comparison, without `Not`.
    pub operator: Operator,
    /// The `Not...` form.
    pub negated: bool,
    /// See [`Quantifier`].
    pub quantifier: Quantifier,
    /// `...IfExists`: holds when the request has no such value.
    pub if_exists: bool,
    /// The key, in lower case up to the slash of keys that carry a name (`s3:existingobjecttag/Name`).
    pub key: String,
    /// The policy's values.
    pub values: Vec<String>,
}

/// Prefixes of keys that exist; others are refused in bucket policies.
const VENDORS: &[&str] =
    &["aws:", "s3:", "sts:", "iam:", "saml:", "cognito-identity:", "accounts.google.com:"];

/// # Errors
/// What is wrong, in AWS's words.
pub fn parse(operator: &str, key: &str, values: Vec<String>) -> Result<Condition, String> {
    let (quantifier, rest) = match operator.split_once(':') {
        Some(("ForAnyValue", rest)) => (Quantifier::Any, rest),
        Some(("ForAllValues", rest)) => (Quantifier::All, rest),
        Some(_) => return Err(format!("Invalid Condition type : {operator}")),
        None => (Quantifier::Plain, operator),
    };
    let (name, if_exists) = rest.strip_suffix("IfExists").map_or((rest, false), |name| (name, true));
    let (found, negated) = match name {
        "StringEquals" => (Operator::StringEquals, false),
        "StringNotEquals" => (Operator::StringEquals, true),
        "StringEqualsIgnoreCase" => (Operator::StringEqualsIgnoreCase, false),
        "StringNotEqualsIgnoreCase" => (Operator::StringEqualsIgnoreCase, true),
        "StringLike" => (Operator::StringLike, false),
        "StringNotLike" => (Operator::StringLike, true),
        "NumericEquals" => (Operator::NumericEquals, false),
        "NumericNotEquals" => (Operator::NumericEquals, true),
        "NumericLessThan" => (Operator::NumericLess, false),
        "NumericLessThanEquals" => (Operator::NumericLessEquals, false),
        "NumericGreaterThan" => (Operator::NumericGreater, false),
        "NumericGreaterThanEquals" => (Operator::NumericGreaterEquals, false),
        "DateEquals" => (Operator::DateEquals, false),
        "DateNotEquals" => (Operator::DateEquals, true),
        "DateLessThan" => (Operator::DateLess, false),
        "DateLessThanEquals" => (Operator::DateLessEquals, false),
        "DateGreaterThan" => (Operator::DateGreater, false),
        "DateGreaterThanEquals" => (Operator::DateGreaterEquals, false),
        "Bool" => (Operator::Bool, false),
        "BinaryEquals" => (Operator::BinaryEquals, false),
        "IpAddress" => (Operator::IpAddress, false),
        "NotIpAddress" => (Operator::IpAddress, true),
        "ArnEquals" | "ArnLike" => (Operator::ArnLike, false),
        "ArnNotEquals" | "ArnNotLike" => (Operator::ArnLike, true),
        "Null" => (Operator::Null, false),
        _ => return Err(format!("Invalid Condition type : {operator}")),
    };
    let lower = key.to_ascii_lowercase();
    if !VENDORS.iter().any(|vendor| lower.starts_with(vendor)) {
        return Err(format!("Policy has an invalid condition key: {key}"));
    }
    let valid = |value: &String| match found {
        Operator::IpAddress => network(value).is_some(),
        Operator::Bool | Operator::Null => matches!(value.to_ascii_lowercase().as_str(), "true" | "false"),
        _ => true,
    };
    if let Some(wrong) = values.iter().find(|value| !value.contains("${") && !valid(value)) {
        return Err(format!("Invalid value {wrong:?} for condition {operator}"));
    }
    Ok(Condition { operator: found, negated, quantifier, if_exists, key: normal_key(key), values })
}

/// Lower case, but for a name behind the slash.
pub(super) fn normal_key(key: &str) -> String {
    match key.split_once('/') {
        Some((vendor, name)) => format!("{}/{name}", vendor.to_ascii_lowercase()),
        None => key.to_ascii_lowercase(),
    }
}

impl Condition {
    /// Whether it holds. `found` is what the request has under the key; `values` are the policy's values
    /// with variables replaced, where a variable without a value has made its entry `None`.
    pub(super) fn holds(&self, found: Option<&[String]>, values: &[Option<String>]) -> bool {
        if self.operator == Operator::Null {
            let absent = found.is_none_or(<[String]>::is_empty);
            return values.iter().flatten().any(|value| value.eq_ignore_ascii_case("true") == absent);
        }
        let found = match found {
            Some(found) if !found.is_empty() => found,
            // A key that is missing: `IfExists` and `ForAllValues` hold, negated operators hold, others do not.
            _ => {
                return self.if_exists
                    || self.quantifier == Quantifier::All
                    || (self.negated && self.quantifier == Quantifier::Plain);
            }
        };
        let one = |value: &String| {
            let equal = values.iter().flatten().any(|wanted| self.compare(value, wanted));
            equal != self.negated
        };
        match self.quantifier {
            Quantifier::All => found.iter().all(one),
            Quantifier::Any => found.iter().any(one),
            Quantifier::Plain if self.negated => found.iter().all(one),
            Quantifier::Plain => found.iter().any(one),
        }
    }

    fn compare(&self, value: &str, wanted: &str) -> bool {
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let numbers = || Some((number(value)?, number(wanted)?));
        let instants = || Some((instant_millis(value)?, instant_millis(wanted)?));
        match self.operator {
            Operator::StringEquals | Operator::BinaryEquals => value == wanted,
            Operator::StringEqualsIgnoreCase => value.to_lowercase() == wanted.to_lowercase(),
            Operator::StringLike => matches(wanted, value),
            #[expect(clippy::float_cmp, reason = "both were written by people; equal text is equal numbers")]
            Operator::NumericEquals => numbers().is_some_and(|(a, b)| a == b),
            Operator::NumericLess => numbers().is_some_and(|(a, b)| a < b),
            Operator::NumericLessEquals => numbers().is_some_and(|(a, b)| a <= b),
            Operator::NumericGreater => numbers().is_some_and(|(a, b)| a > b),
            Operator::NumericGreaterEquals => numbers().is_some_and(|(a, b)| a >= b),
            Operator::DateEquals => instants().is_some_and(|(a, b)| a == b),
            Operator::DateLess => instants().is_some_and(|(a, b)| a < b),
            Operator::DateLessEquals => instants().is_some_and(|(a, b)| a <= b),
            Operator::DateGreater => instants().is_some_and(|(a, b)| a > b),
            Operator::DateGreaterEquals => instants().is_some_and(|(a, b)| a >= b),
            Operator::Bool => value.eq_ignore_ascii_case(wanted),
            Operator::IpAddress => {
                let address = value.parse::<IpAddr>().ok();
                address.zip(network(wanted)).is_some_and(|(address, network)| contains(network, address))
            }
            Operator::ArnLike => arn_matches(wanted, value),
            Operator::Null => false,
        }
    }
}

/// Each of the six parts separately: a star does not reach over a colon of the first five.
fn arn_matches(pattern: &str, arn: &str) -> bool {
    let (pattern, arn): (Vec<&str>, Vec<&str>) =
        (pattern.splitn(6, ':').collect(), arn.splitn(6, ':').collect());
    if pattern.len() == 1 {
        return pattern[0] == "*";
    }
    pattern.len() == arn.len() && pattern.iter().zip(&arn).all(|(pattern, part)| matches(pattern, part))
}

/// `10.0.0.0/8`, `2001:db8::/32`, or one address.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(bits);
    (length <= bits).then_some((address, length))
}

fn contains((network, length): (IpAddr, u32), address: IpAddr) -> bool {
    let same = |a: u128, b: u128, bits: u32| length == 0 || (a ^ b) >> (bits - length) == 0;
    match (network, address.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}
