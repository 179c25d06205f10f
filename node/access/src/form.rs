//! Policy documents of browser forms: when they end, and what every field of the form must be.
//!
//! Source: AWS, "Creating a POST policy", Amazon S3 API reference.

use serde_json::Value;

use crate::text::instant_millis;

/// Largest document in bytes, before base64.
pub const SIZE_MAX: usize = 64 * 1024;

/// A form's policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormPolicy {
    expires_millis: i64,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    /// The field, without `$`, in lower case, is exactly this.
    Equals(String, String),
    /// The field begins so.
    StartsWith(String, String),
    /// The file's bytes, both ends included.
    Length(u64, u64),
}

/// Why a form is refused. The first member is the error code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormError(pub &'static str, pub String);

/// Fields that no condition needs to mention.
const FREE: &[&str] =
    &["x-amz-signature", "x-amz-security-token", "file", "policy", "awsaccesskeyid", "signature"];

fn invalid<T>(text: &str) -> Result<T, FormError> {
    Err(FormError("InvalidPolicyDocument", format!("Invalid Policy: {text}.")))
}

fn denied(text: impl std::fmt::Display) -> FormError {
    FormError("AccessDenied", format!("Invalid according to Policy: {text}"))
}

impl FormPolicy {
    /// Reads the JSON document.
    ///
    /// # Errors
    /// `InvalidPolicyDocument`.
    pub fn parse(text: &[u8]) -> Result<Self, FormError> {
        if text.len() > SIZE_MAX {
            return invalid("the document is too long");
        }
        let Ok(Value::Object(document)) = serde_json::from_slice(text) else {
            return invalid("Invalid JSON");
        };
        if let Some(name) = document.keys().find(|name| !matches!(name.as_str(), "expiration" | "conditions"))
        {
            return invalid(&format!("Unexpected: '{name}'"));
        }
        let Some(expiration) = document.get("expiration") else {
            return invalid("Policy missing expiration");
        };
        let Some(expires_millis) =
            expiration.as_str().filter(|text| text.contains('T')).and_then(instant_millis)
        else {
            return invalid("Invalid 'expiration' value");
        };
        let conditions = match document.get("conditions") {
            Some(Value::Array(list)) => list,
            Some(_) => return invalid("Invalid 'conditions' value: must be a List"),
            None => return invalid("Policy missing conditions"),
        };
        let mut found = Vec::new();
        for condition in conditions {
            match condition {
                Value::Object(fields) if !fields.is_empty() => {
                    for (name, value) in fields {
                        let Some(value) = scalar(value) else {
                            return invalid("Invalid Simple-Condition: value must be a string");
                        };
                        found.push(Condition::Equals(name.to_lowercase(), value));
                    }
                }
                Value::Array(list) => found.push(listed(list)?),
                _ => return invalid("Invalid condition"),
            }
        }
        Ok(Self { expires_millis, conditions: found })
    }

    /// Checks a form's fields (names in lower case, in their order) at a moment.
    ///
    /// # Errors
    /// `AccessDenied`.
    pub fn check(&self, fields: &[(String, String)], now_millis: u64) -> Result<(), FormError> {
        if i64::try_from(now_millis).unwrap_or(i64::MAX) >= self.expires_millis {
            return Err(denied("Policy expired."));
        }
        let value_of = |wanted: &str| {
            fields.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_str())
        };
        for condition in &self.conditions {
            let holds = match condition {
                Condition::Equals(name, wanted) => value_of(name) == wanted,
                Condition::StartsWith(name, prefix) if name == "content-type" => {
                    // Several types, each of which must fit.
                    value_of(name).split(',').all(|one| one.trim().starts_with(prefix.as_str()))
                }
                Condition::StartsWith(name, prefix) => value_of(name).starts_with(prefix.as_str()),
                Condition::Length(..) => true,
            };
            if !holds {
                return Err(denied(format_args!("Policy Condition failed: {}", condition.shown())));
            }
        }
        for (name, _) in fields {
            let covered = self.conditions.iter().any(|condition| match condition {
                Condition::Equals(field, _) | Condition::StartsWith(field, _) => field == name,
                Condition::Length(..) => false,
            });
            if !covered
                && !FREE.contains(&name.as_str())
                && !name.starts_with("x-ignore-")
                && name != "bucket"
            {
                return Err(denied(format_args!("Extra input fields: {name}")));
            }
        }
        Ok(())
    }

    /// The file's least and largest size in bytes.
    #[must_use]
    pub fn length(&self) -> Option<(u64, u64)> {
        let lengths = self.conditions.iter().filter_map(|condition| match condition {
            Condition::Length(least, most) => Some((*least, *most)),
            _ => None,
        });
        lengths.reduce(|a, b| (a.0.max(b.0), a.1.min(b.1)))
    }
}

impl Condition {
    fn shown(&self) -> String {
        match self {
            Self::Equals(name, value) => format!("[\"eq\", \"${name}\", \"{value}\"]"),
            Self::StartsWith(name, value) => format!("[\"starts-with\", \"${name}\", \"{value}\"]"),
            Self::Length(least, most) => format!("[\"content-length-range\", {least}, {most}]"),
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn listed(list: &[Value]) -> Result<Condition, FormError> {
    let [operator, first, second] = list else {
        return invalid("Invalid Condition: wrong number of arguments");
    };
    let operator = operator.as_str().map(str::to_lowercase).unwrap_or_default();
    if operator == "content-length-range" {
        let size = |value: &Value| match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) => text.parse().ok(),
            _ => None,
        };
        return match (size(first), size(second)) {
            (Some(least), Some(most)) if least <= most => Ok(Condition::Length(least, most)),
            _ => invalid("Invalid content-length-range: expecting two numbers"),
        };
    }
    let (Some(field), Some(value)) = (first.as_str(), scalar(second)) else {
        return invalid("Invalid Condition: arguments must be strings");
    };
    let Some(field) = field.strip_prefix('$') else {
        return invalid("Invalid Condition: the first operand must start with '$'");
    };
    match operator.as_str() {
        "eq" => Ok(Condition::Equals(field.to_lowercase(), value)),
        "starts-with" => Ok(Condition::StartsWith(field.to_lowercase(), value)),
        other => invalid(&format!("Unknown Condition operator: '{other}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"{"expiration":"2030-01-01T00:00:00Z","conditions":[{"bucket":"b"},
        ["starts-with","$key","user/"],["content-length-range",1,1024],{"ACL":"private"},["EQ","$x-amz-meta-a","1"]]}"#;

    fn fields(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_condition_must_hold_and_every_field_be_mentioned() {
        let policy = FormPolicy::parse(POLICY.as_bytes()).unwrap();
        let good =
            [("bucket", "b"), ("key", "user/a"), ("acl", "private"), ("x-amz-meta-a", "1"), ("policy", "x")];
        assert_eq!(policy.check(&fields(&good), 0), Ok(()));
        assert_eq!(policy.length(), Some((1, 1024)));
        for (at, value) in [(0, "c"), (1, "other"), (2, "public-read"), (3, "2")] {
            let mut bad = good;
            bad[at].1 = value;
            assert_eq!(policy.check(&fields(&bad), 0).unwrap_err().0, "AccessDenied", "{bad:?}");
        }
        let extra = [&good[..], &[("x-amz-meta-b", "1")]].concat();
        assert_eq!(policy.check(&fields(&extra), 0).unwrap_err().0, "AccessDenied");
        let ignored = [&good[..], &[("x-ignore-b", "1")]].concat();
        assert_eq!(policy.check(&fields(&ignored), 0), Ok(()));
        assert_eq!(policy.check(&fields(&good), 4_000_000_000_000).unwrap_err().0, "AccessDenied");
    }

    #[test]
    fn documents_outside_the_schema_are_refused() {
        for text in [
            "",
            "[]",
            r#"{"conditions":[]}"#,
            r#"{"expiration":"2030-01-01T00:00:00Z"}"#,
            r#"{"expiration":"soon","conditions":[]}"#,
            r#"{"expiration":"2030-01-01T00:00:00Z","conditions":{}}"#,
            r#"{"expiration":"2030-01-01T00:00:00Z","conditions":[["starts-with","key","a"]]}"#,
            r#"{"expiration":"2030-01-01T00:00:00Z","conditions":[["content-length-range",5,1]]}"#,
            r#"{"expiration":"2030-01-01T00:00:00Z","conditions":[["content-length-range",5]]}"#,
            r#"{"expiration":"2030-01-01T00:00:00Z","conditions":[["like","$key","a"]]}"#,
        ] {
            assert_eq!(FormPolicy::parse(text.as_bytes()).unwrap_err().0, "InvalidPolicyDocument", "{text}");
        }
    }
}
