//! A bucket as a static website: what its configuration may say, and where it sends who asks.
//!
//! Pure: names keys and places; the gateway reads the objects.
//!
//! Source: AWS, "Hosting a static website using Amazon S3", "WebsiteConfiguration", "RoutingRule".

use serde::{Deserialize, Serialize};

/// Routing rules of one website at most (AWS).
pub const RULES_MAX: usize = 50;

/// Longest key of a document in bytes, as of any object.
const KEY_SIZE_MAX: usize = 1024;

/// Longest host name in bytes (RFC 1035, section 2.3.4).
const HOST_SIZE_MAX: usize = 255;

/// What a redirect without a code of its own answers.
pub const MOVED_PERMANENTLY: u16 = 301;

/// The configuration of a bucket; stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Website {
    /// What is added to the key of a directory.
    pub index: Option<String>,
    /// Key of the object that is answered in place of an error of the client.
    pub error: Option<String>,
    /// Where everything is sent.
    pub redirect_all: Option<Place>,
    pub rules: Vec<Rule>,
}

/// A host, and how it is spoken to; the request's protocol when `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Place {
    pub host: String,
    pub protocol: Option<String>,
}

/// When a rule holds, and what it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Rule {
    /// Only keys that begin so.
    pub prefix: Option<String>,
    /// Only when the object was answered with this status.
    pub status: Option<u16>,
    pub redirect: Redirect,
}

/// Where a rule sends who asks. What it does not say stays as it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Redirect {
    pub host: Option<String>,
    pub protocol: Option<String>,
    pub code: Option<u16>,
    /// In place of the key.
    pub key: Option<String>,
    /// In place of the prefix that the rule asks for.
    pub key_prefix: Option<String>,
}

/// What a website was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// `https`
    pub protocol: &'a str,
    /// With the port, if it was named.
    pub host: &'a str,
    /// The path without its first slash, decoded.
    pub key: &'a str,
}

/// What is wrong with a configuration, in AWS's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Outside the schema.
    Schema,
    /// `InvalidArgument`: a name, its value, and the words.
    Argument(&'static str, String, String),
    /// `InvalidRequest`
    Request(String),
}

impl Website {
    /// # Errors
    /// What AWS refuses.
    pub fn check(&self) -> Result<(), Fault> {
        if let Some(place) = &self.redirect_all {
            if self.index.is_some() || self.error.is_some() || !self.rules.is_empty() {
                let said =
                    "RedirectAllRequestsTo cannot be provided in conjunction with other Routing Rules.";
                return Err(Fault::Request(said.to_owned()));
            }
            check_host(&place.host)?;
            return check_protocol(place.protocol.as_deref());
        }
        let Some(index) = &self.index else {
            let said = "A value for IndexDocument Suffix must be provided if RedirectAllRequestsTo is empty";
            return Err(Fault::Argument("IndexDocument", "null".to_owned(), said.to_owned()));
        };
        if index.is_empty() || index.contains('/') || index.len() > KEY_SIZE_MAX {
            let said = "The IndexDocument Suffix is not well formed";
            return Err(Fault::Argument("IndexDocument", index.clone(), said.to_owned()));
        }
        if let Some(key) = self.error.as_ref().filter(|key| key.is_empty() || key.len() > KEY_SIZE_MAX) {
            let said = "The ErrorDocument Key is not well formed";
            return Err(Fault::Argument("ErrorDocument", key.clone(), said.to_owned()));
        }
        if self.rules.len() > RULES_MAX {
            return Err(Fault::Request(format!(
                "{} routing rules provided, the number of routing rules in a website configuration is limited to \
                 {RULES_MAX}.",
                self.rules.len()
            )));
        }
        self.rules.iter().try_for_each(Rule::check)
    }

    /// The key that is read for a path: that of its index document, when it names a directory.
    #[must_use]
    pub fn key_of(&self, path: &str) -> String {
        match &self.index {
            Some(index) if path.is_empty() || path.ends_with('/') => format!("{path}{index}"),
            _ => path.to_owned(),
        }
    }

    /// The key whose presence makes a path without a slash at its end a directory.
    #[must_use]
    pub fn index_below(&self, path: &str) -> Option<String> {
        let directory = !path.is_empty() && !path.ends_with('/');
        self.index.as_ref().filter(|_| directory).map(|index| format!("{path}/{index}"))
    }

    /// The rule that holds before anything is read, or once it was answered with an error of this status.
    #[must_use]
    pub fn rule(&self, key: &str, status: Option<u16>) -> Option<&Rule> {
        self.rules.iter().find(|rule| {
            rule.status == status
                && rule.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix.as_str()))
        })
    }
}

impl Place {
    /// The same path there.
    #[must_use]
    pub fn location(&self, asked: &Asked<'_>) -> String {
        Asked { protocol: self.protocol.as_deref().unwrap_or(asked.protocol), host: &self.host, ..*asked }
            .location()
    }
}

impl Asked<'_> {
    /// Its own address.
    #[must_use]
    pub fn location(&self) -> String {
        format!("{}://{}/{}", self.protocol, self.host, encoded(self.key, ASKED_FOR))
    }
}

impl Rule {
    fn check(&self) -> Result<(), Fault> {
        let Redirect { host, protocol, code, key, key_prefix } = &self.redirect;
        if host.is_none() && protocol.is_none() && code.is_none() && key.is_none() && key_prefix.is_none() {
            return Err(Fault::Schema);
        }
        if key.is_some() && key_prefix.is_some() {
            let said = "You can only define ReplaceKeyPrefix or ReplaceKey but not both.";
            return Err(Fault::Request(said.to_owned()));
        }
        if let Some(status) = self.status.filter(|status| !(400..600).contains(status)) {
            return Err(Fault::Request(format!(
                "The provided HTTP error code ({status}) is not valid. Valid codes are 4XX or 5XX."
            )));
        }
        if let Some(code) = code.filter(|code| !(301..400).contains(code)) {
            return Err(Fault::Request(format!(
                "The provided HTTP redirect code ({code}) is not valid. Valid codes are 3XX except 300."
            )));
        }
        check_protocol(protocol.as_deref())?;
        host.as_deref().map_or(Ok(()), check_host)
    }

    /// Where it sends who asked.
    #[must_use]
    pub fn location(&self, asked: &Asked<'_>) -> String {
        let to = &self.redirect;
        let (new, kept) = match (&to.key, &to.key_prefix) {
            (Some(key), _) => (key.as_str(), ""),
            (None, Some(begin)) => {
                let prefix = self.prefix.as_deref().unwrap_or_default();
                (begin.as_str(), asked.key.strip_prefix(prefix).unwrap_or(asked.key))
            }
            (None, None) => ("", asked.key),
        };
        let protocol = to.protocol.as_deref().unwrap_or(asked.protocol);
        let host = to.host.as_deref().unwrap_or(asked.host);
        format!("{protocol}://{host}/{}{}", encoded(new, CONFIGURED), encoded(kept, ASKED_FOR))
    }

    /// The status it answers.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.redirect.code.unwrap_or(MOVED_PERMANENTLY)
    }
}

fn check_protocol(protocol: Option<&str>) -> Result<(), Fault> {
    match protocol {
        None | Some("http" | "https") => Ok(()),
        Some(_) => {
            let said = "Invalid protocol, protocol can be http or https. If not defined the protocol will be \
                        selected automatically.";
            Err(Fault::Request(said.to_owned()))
        }
    }
}

/// A host name with or without a port; what else it held would become part of an address.
fn check_host(host: &str) -> Result<(), Fault> {
    let fits =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    // AWS takes a path behind the name as well, and so do those that were set up there.
    let name = host.split('/').next().unwrap_or_default();
    let printable = host.bytes().all(|byte| byte.is_ascii_graphic());
    if name.is_empty() || host.len() > HOST_SIZE_MAX || !name.bytes().all(fits) || !printable {
        return Err(Fault::Request(format!("The provided host name ({host}) is not valid.")));
    }
    Ok(())
}

/// Bytes beside the unreserved ones (RFC 3986, section 2.3) that stay as they are in a key that was asked for.
const ASKED_FOR: &[u8] = b"/";

/// The same in a key of a rule: such redirects are written to reach a query or a fragment.
const CONFIGURED: &[u8] = b"/?#&=!:%";

/// A key as a piece of an address.
fn encoded(key: &str, kept: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Website {
        Website { index: Some("index.html".to_owned()), ..Website::default() }
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn with(rule: Rule) -> Website {
        Website { rules: vec![rule], ..site() }
    }

    const ASKED: Asked<'static> = Asked { protocol: "https", host: "b.website.test:1", key: "docs/a b" };

    #[test]
    fn a_directory_is_its_index_document() {
        for (path, key) in [("", "index.html"), ("a/", "a/index.html"), ("a", "a"), ("a/b.css", "a/b.css")] {
            assert_eq!(site().key_of(path), key);
        }
        assert_eq!(site().index_below("a").as_deref(), Some("a/index.html"));
        assert_eq!(site().index_below("a/"), None);
        assert_eq!(site().index_below(""), None);
    }

    #[test]
    fn rules_hold_before_or_after_an_error_and_the_first_that_fits_counts() {
        let before = Rule {
            prefix: some("docs/"),
            redirect: Redirect { key_prefix: some("documents/"), ..Redirect::default() },
            ..Rule::default()
        };
        let after = Rule {
            status: Some(404),
            redirect: Redirect {
                host: some("other.test"),
                protocol: some("http"),
                code: Some(302),
                ..Redirect::default()
            },
            ..Rule::default()
        };
        let all = Rule {
            redirect: Redirect { key: some("gone.html"), ..Redirect::default() },
            prefix: some("docs/a"),
            ..Rule::default()
        };
        let site = Website { rules: vec![before, after, all], ..site() };
        let rule = site.rule(ASKED.key, None).unwrap();
        assert_eq!(
            (rule.location(&ASKED).as_str(), rule.code()),
            ("https://b.website.test:1/documents/a%20b", 301)
        );
        let rule = site.rule(ASKED.key, Some(404)).unwrap();
        assert_eq!((rule.location(&ASKED).as_str(), rule.code()), ("http://other.test/docs/a%20b", 302));
        assert_eq!(site.rule(ASKED.key, Some(403)), None);
        assert_eq!(site.rule("other", None), None);
        assert_eq!(site.rules[2].location(&ASKED), "https://b.website.test:1/gone.html");
    }

    #[test]
    fn everything_can_be_sent_elsewhere() {
        let place = Place { host: "www.test".to_owned(), protocol: None };
        assert_eq!(place.location(&ASKED), "https://www.test/docs/a%20b");
        let site = Website { redirect_all: Some(place), ..Website::default() };
        assert_eq!(site.check(), Ok(()));
        let both = Website { index: some("i"), ..site };
        assert!(matches!(both.check(), Err(Fault::Request(_))));
    }

    #[test]
    fn what_aws_refuses_is_refused() {
        assert_eq!(site().check(), Ok(()));
        assert!(matches!(Website::default().check(), Err(Fault::Argument("IndexDocument", ..))));
        for index in ["", "a/b", "/"] {
            let site = Website { index: some(index), ..Website::default() };
            assert!(matches!(site.check(), Err(Fault::Argument("IndexDocument", ..))), "{index}");
        }
        let error = Website { error: some(""), ..site() };
        assert!(matches!(error.check(), Err(Fault::Argument("ErrorDocument", ..))));
        assert_eq!(with(Rule::default()).check(), Err(Fault::Schema));
        let refused = |redirect: Redirect, status: Option<u16>| {
            let rule = Rule { status, redirect, ..Rule::default() };
            matches!(with(rule).check(), Err(Fault::Request(_)))
        };
        let to = Redirect { key: some("k"), ..Redirect::default() };
        assert!(!refused(to.clone(), Some(404)));
        assert!(refused(to.clone(), Some(200)));
        assert!(refused(Redirect { key_prefix: some("p"), ..to.clone() }, None));
        assert!(refused(Redirect { code: Some(300), ..to.clone() }, None));
        assert!(refused(Redirect { code: Some(200), ..to.clone() }, None));
        assert!(refused(Redirect { protocol: some("ftp"), ..to.clone() }, None));
        assert!(refused(Redirect { host: some("a b"), ..to.clone() }, None));
        assert!(refused(Redirect { host: some("a\r\nset-cookie: b"), ..to.clone() }, None));
        let many = Website { rules: vec![Rule { redirect: to, ..Rule::default() }; RULES_MAX + 1], ..site() };
        assert!(matches!(many.check(), Err(Fault::Request(_))));
    }

    #[test]
    fn addresses_hold_nothing_that_would_end_a_header() {
        assert_eq!(encoded("a\r\nb/é?x=1", CONFIGURED), "a%0D%0Ab/%C3%A9?x=1");
        assert_eq!(encoded("a\r\nb/é?x=1", ASKED_FOR), "a%0D%0Ab/%C3%A9%3Fx%3D1");
    }
}
