//! One line of an access log. Pure.
//!
//! Fields in their order, a space between them, `-` for what is not known; new ones may only come at the end.
//!
//! Source: AWS, "Amazon S3 server access log format".

use std::fmt::Write as _;

use holdfast_access::text::instant_text;
use http::{HeaderMap, HeaderValue, Method, Uri, Version, header, request::Parts};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What a connection agreed on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tls {
    /// `TLSv1.3`
    pub version: Option<&'static str>,
    /// `TLS_AES_128_GCM_SHA256`
    pub cipher: Option<&'static str>,
}

/// What of a request's head a line shows.
#[derive(Debug)]
pub(crate) struct Head {
    pub method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    referer: Option<HeaderValue>,
    agent: Option<HeaderValue>,
    tls: Tls,
}

impl Head {
    pub(crate) fn new(parts: &Parts, tls: Tls) -> Self {
        let header = |name| HeaderMap::get(&parts.headers, name).cloned();
        Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            host: header(header::HOST)
                .or_else(|| HeaderValue::from_str(parts.uri.authority()?.as_str()).ok()),
            referer: header(header::REFERER),
            agent: header(header::USER_AGENT),
            tls,
        }
    }
}

/// Everything that a line says.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub owner: String,
    pub bucket: &'a str,
    /// When the request came, in milliseconds since 1970.
    pub at: u64,
    pub peer: String,
    pub requester: &'a str,
    pub id: &'a str,
    pub operation: String,
    pub key: Option<&'a str>,
    pub head: &'a Head,
    pub status: u16,
    pub error: Option<&'static str>,
    pub sent: u64,
    pub object_size: Option<u64>,
    pub total_millis: u128,
    pub turn_around_millis: u128,
    pub version_id: Option<&'a str>,
    /// `AuthHeader` or `QueryString`; `None`: it was not signed.
    pub signed: Option<&'static str>,
    /// By version 2 rather than 4.
    pub version_2: bool,
}

impl Entry<'_> {
    /// The line, with its end.
    pub(crate) fn line(&self) -> String {
        let head = self.head;
        let version = match head.version {
            Version::HTTP_2 => "HTTP/2.0",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let mut line = String::with_capacity(512);
        // Writing to a string does not fail.
        let _ = write!(
            line,
            "{} {} [{}] {} {} {} {} {} \"{} {} {version}\" {} {} {} {} {} {} ",
            self.owner,
            self.bucket,
            time(self.at),
            self.peer,
            self.requester.replace(' ', "%20"),
            self.id,
            self.operation,
            self.key.map_or_else(|| "-".to_owned(), encoded),
            head.method,
            quoted(path),
            self.status,
            self.error.unwrap_or("-"),
            number(Some(self.sent).filter(|sent| *sent > 0)),
            number(self.object_size),
            self.total_millis,
            self.turn_around_millis,
        );
        let _ = writeln!(
            line,
            "\"{}\" \"{}\" {} - {} {} {} {} {} - -",
            text(head.referer.as_ref()),
            text(head.agent.as_ref()),
            self.version_id.unwrap_or("-"),
            self.signed.map_or("-", |_| if self.version_2 { "SigV2" } else { "SigV4" }),
            head.tls.cipher.unwrap_or("-"),
            self.signed.unwrap_or("-"),
            head.host
                .as_ref()
                .and_then(|host| host.to_str().ok())
                .map_or_else(|| "-".to_owned(), encoded_host),
            head.tls.version.unwrap_or("-"),
        );
        line
    }
}

/// `06/Feb/2019:00:00:38 +0000`
fn time(millis: u64) -> String {
    let text = instant_text(millis);
    let piece = |from: usize, to: usize| text.get(from..to).unwrap_or("00");
    let month = piece(5, 7).parse::<usize>().unwrap_or(1);
    let month = MONTHS.get(month.saturating_sub(1)).unwrap_or(&"Jan");
    format!("{}/{month}/{}:{} +0000", piece(8, 10), piece(0, 4), piece(11, 19))
}

/// A header between quotes: nothing in it ends them, or the line.
fn text(value: Option<&HeaderValue>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| quoted(&String::from_utf8_lossy(value.as_bytes())))
}

fn quoted(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' => kept.push_str("%22"),
            control if control.is_control() => kept.push('?'),
            other => kept.push(other),
        }
    }
    kept
}

/// A key, encoded as in a path: a space would end the field.
fn encoded(key: &str) -> String {
    urlencoding::encode(key).replace("%2F", "/")
}

fn encoded_host(host: &str) -> String {
    host.replace(' ', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, agent: &str) -> Head {
        let request = http::Request::builder()
            .uri(uri)
            .header("user-agent", agent)
            .header("host", "b.s3.test")
            .body(())
            .unwrap();
        Head::new(
            &request.into_parts().0,
            Tls { version: Some("TLSv1.3"), cipher: Some("TLS_AES_128_GCM_SHA256") },
        )
    }

    fn entry(head: &Head) -> Entry<'_> {
        Entry {
            owner: "79a5".to_owned(),
            bucket: "b",
            at: 1_549_411_238_000,
            peer: "192.0.2.3".to_owned(),
            requester: "79a5",
            id: "3E57427F33A59F07",
            operation: "REST.GET.OBJECT".to_owned(),
            key: Some("a b/c"),
            head,
            status: 200,
            error: None,
            sent: 113,
            object_size: Some(113),
            total_millis: 7,
            turn_around_millis: 6,
            version_id: None,
            signed: Some("AuthHeader"),
            version_2: false,
        }
    }

    #[test]
    fn a_line_is_as_amazon_documents_it() {
        let head = head("/a%20b/c?x=1", "S3Console/0.4");
        assert_eq!(
            entry(&head).line(),
            "79a5 b [06/Feb/2019:00:00:38 +0000] 192.0.2.3 79a5 3E57427F33A59F07 REST.GET.OBJECT a%20b/c \
             \"GET /a%20b/c?x=1 HTTP/1.1\" 200 - 113 113 7 6 \"-\" \"S3Console/0.4\" - - SigV4 \
             TLS_AES_128_GCM_SHA256 AuthHeader b.s3.test TLSv1.3 - -\n"
        );
    }

    #[test]
    fn a_form_signed_by_version_2_says_so() {
        let head = head("/b", "browser");
        let mut entry = entry(&head);
        (entry.signed, entry.version_2) = (Some("-"), true);
        assert!(entry.line().contains(" SigV2 TLS_AES_128_GCM_SHA256 - "), "{}", entry.line());
    }

    #[test]
    fn what_clients_send_stays_in_its_field() {
        let head = head("/k", "a\" 200 \"b");
        let mut entry = entry(&head);
        (entry.key, entry.error, entry.signed) = (Some("k\"\n"), Some("NoSuchKey"), None);
        let line = entry.line();
        assert_eq!((line.matches('"').count(), line.matches('\n').count()), (6, 1), "{line}");
        assert!(
            line.contains(" k%22%0A ") && line.contains(" NoSuchKey ") && line.contains(" - TLS_AES"),
            "{line}"
        );
    }
}
