//! Whether a bucket policy makes a bucket public, as block public access means it: a statement that allows
//! anyone, unless conditions on a fixed set of keys bind it to fixed values.
//!
//! Source: AWS, "Blocking public access to your Amazon S3 storage", "The meaning of public".

use std::net::IpAddr;

use super::{Condition, Operator, Policy, Principal, Statement};

/// Keys whose fixed values bind a statement to somebody.
const BINDING: &[&str] = &[
    "aws:sourcearn",
    "aws:sourcevpc",
    "aws:sourcevpce",
    "aws:sourceowner",
    "aws:sourceaccount",
    "aws:principalorgid",
    "aws:principalorgpaths",
    "aws:principalaccount",
    "aws:principalarn",
    "aws:userid",
    "s3:x-amz-server-side-encryption-aws-kms-key-id",
    "s3:dataaccesspointaccount",
    "s3:dataaccesspointarn",
];

impl Policy {
    /// See the module.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.statements.iter().any(Statement::is_public)
    }
}

impl Statement {
    fn is_public(&self) -> bool {
        let anyone = self
            .principals
            .as_ref()
            .is_some_and(|principals| principals.not || principals.of.contains(&Principal::Anyone));
        self.allow && anyone && !self.conditions.iter().any(binds)
    }
}

fn binds(condition: &Condition) -> bool {
    if condition.negated || condition.if_exists || condition.operator == Operator::Null {
        return false;
    }
    let fixed = |value: &String| !value.contains(['*', '?']) && !value.contains("${");
    match condition.key.as_str() {
        "aws:sourceip" if condition.operator == Operator::IpAddress => {
            condition.values.iter().all(|value| narrow(value))
        }
        key if BINDING.contains(&key) => match key {
            "aws:principalarn" | "aws:sourcearn" | "s3:dataaccesspointarn" => {
                condition.values.iter().all(|value| {
                    value
                        .split(':')
                        .nth(4)
                        .is_some_and(|account| !account.is_empty() && !account.contains(['*', '?']))
                })
            }
            _ => condition.values.iter().all(fixed),
        },
        _ => false,
    }
}

/// AWS calls networks as wide as /8 (IPv4) and /32 (IPv6) or narrower not public.
fn narrow(value: &str) -> bool {
    let (address, length) = value.split_once('/').unwrap_or((value, "128"));
    let Ok(length) = length.parse::<u32>() else { return false };
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => length >= 8,
        Ok(IpAddr::V6(_)) => length >= 32,
        Err(_) => false,
    }
}
