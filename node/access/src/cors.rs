//! Cross-origin rules of a bucket: which rule answers a browser.
//!
//! Source: AWS, "Elements of a CORS configuration"; Fetch standard, section 3.2 (CORS protocol).

use serde::{Deserialize, Serialize};

use crate::text::matches;

/// Rules of one bucket at most (AWS).
pub const RULES_MAX: usize = 100;

/// Methods that a rule may name.
pub const METHODS: &[&str] = &["GET", "PUT", "POST", "DELETE", "HEAD"];

/// All rules of a bucket; stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Cors {
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Rule {
    pub id: Option<String>,
    pub origins: Vec<String>,
    pub methods: Vec<String>,
    pub headers: Vec<String>,
    pub expose: Vec<String>,
    pub max_age_seconds: Option<i32>,
}

/// What a rule answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// `*` when the rule is for every origin, else the origin that asked.
    pub origin: &'a str,
}

impl Answer<'_> {
    /// Whether the browser may send credentials.
    #[must_use]
    pub fn credentials(&self) -> bool {
        self.origin != "*"
    }
}

impl Cors {
    /// # Errors
    /// What is wrong, in AWS's words.
    pub fn check(&self) -> Result<(), String> {
        if self.rules.is_empty() || self.rules.len() > RULES_MAX {
            return Err(format!(
                "The number of CORS rules should not exceed allowed limit of {RULES_MAX} rules."
            ));
        }
        for rule in &self.rules {
            if let Some(method) = rule.methods.iter().find(|method| !METHODS.contains(&method.as_str())) {
                return Err(format!(
                    "Found unsupported HTTP method in CORS config. Unsupported method is {method}"
                ));
            }
            let stars = |text: &&String| text.matches('*').count() > 1;
            if let Some(origin) = rule.origins.iter().find(stars) {
                return Err(format!("AllowedOrigin \"{origin}\" can not have more than one wildcard."));
            }
            if let Some(header) = rule.headers.iter().find(stars) {
                return Err(format!("AllowedHeader \"{header}\" can not have more than one wildcard."));
            }
            if let Some(header) = rule.expose.iter().find(|header| header.contains('*')) {
                return Err(format!(
                    "ExposeHeader \"{header}\" contains wildcard. We currently do not support wildcard for ExposeHeader."
                ));
            }
        }
        Ok(())
    }

    /// The first rule for this origin and method that allows all of `headers`.
    #[must_use]
    pub fn find<'a>(&'a self, origin: &'a str, method: &str, headers: &[&str]) -> Option<Answer<'a>> {
        self.rules.iter().find_map(|rule| {
            let allowed = rule.origins.iter().find(|pattern| matches(pattern, origin))?;
            let fits = rule.methods.iter().any(|one| one == method)
                && headers.iter().all(|header| {
                    let header = header.to_ascii_lowercase();
                    rule.headers.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), &header))
                });
            fits.then_some(Answer { rule, origin: if allowed == "*" { "*" } else { origin } })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(origins: &[&str], methods: &[&str], headers: &[&str]) -> Rule {
        let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        Rule { origins: owned(origins), methods: owned(methods), headers: owned(headers), ..Rule::default() }
    }

    #[test]
    fn the_first_rule_that_fits_answers() {
        let cors = Cors {
            rules: vec![
                rule(&["http://*.example.com"], &["GET"], &["x-amz-*"]),
                rule(&["*"], &["GET", "PUT"], &[]),
            ],
        };
        let found = |origin, method, headers: &[&str]| {
            cors.find(origin, method, headers).map(|answer| answer.origin.to_owned())
        };
        assert_eq!(
            found("http://a.example.com", "GET", &["X-Amz-Date"]).as_deref(),
            Some("http://a.example.com")
        );
        assert_eq!(found("http://a.example.com", "PUT", &[]).as_deref(), Some("*"));
        assert_eq!(found("http://other", "GET", &["x-amz-date"]), None);
        assert_eq!(found("http://other", "DELETE", &[]), None);
    }

    #[test]
    fn rules_outside_the_schema_are_refused() {
        assert!(Cors::default().check().is_err());
        assert!(Cors { rules: vec![rule(&["*"], &["PATCH"], &[])] }.check().is_err());
        assert!(Cors { rules: vec![rule(&["http://*.*"], &["GET"], &[])] }.check().is_err());
        assert!(Cors { rules: vec![rule(&["http://*"], &["GET"], &["*"])] }.check().is_ok());
    }
}
