//! AWS Signature Version 4, in headers and in the query (presigned), as the S3 documentation writes it.
//!
//! Pure: the moment is an argument, so that a test can be late on purpose.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{digest, hmac};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SECONDS_A_DAY: u64 = 86_400;

/// Who signs, for which region.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
}

/// The service that signatures name unless another is meant.
pub(crate) const SERVICE: &str = "s3";

/// What is said about the body in `x-amz-content-sha256`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Its SHA-256 in hex.
    Sha256(String),
    /// `UNSIGNED-PAYLOAD`
    Unsigned,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`: chunked by S3's own framing, see [`aws_chunked`].
    Chunked,
}

impl Payload {
    /// The hash of these bytes.
    #[must_use]
    pub fn signed(body: &[u8]) -> Self {
        Self::Sha256(sha256_hex(body))
    }

    pub(crate) fn header(&self) -> &str {
        match self {
            Self::Sha256(hash) => hash,
            Self::Unsigned => "UNSIGNED-PAYLOAD",
            Self::Chunked => "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        }
    }
}

/// A moment as signatures write it: `20260102T030405Z`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment(String);

impl Moment {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self::at(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
    }

    /// So many seconds ago.
    #[must_use]
    pub fn seconds_ago(seconds: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        Self::at(now.saturating_sub(seconds))
    }

    /// Seconds after 1970-01-01 00:00:00 UTC.
    #[must_use]
    pub fn at(seconds: u64) -> Self {
        let (year, month, day) = civil_from_days(seconds / SECONDS_A_DAY);
        let second = seconds % SECONDS_A_DAY;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        Self(format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z"))
    }

    /// `20260102T030405Z`
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn day(&self) -> &str {
        &self.0[..8]
    }
}

/// Name of the trailer that [`aws_chunked`] sends; goes into the header `x-amz-trailer`.
pub const CHUNKED_TRAILER: &str = "x-amz-checksum-crc32c";

/// A body in S3's chunk framing: one chunk, the closing one, and its CRC-32C as trailer.
#[must_use]
pub fn aws_chunked(body: &[u8]) -> Vec<u8> {
    let checksum = BASE64_STANDARD.encode(crc32c::crc32c(body).to_be_bytes());
    let mut framed = format!("{:x}\r\n", body.len()).into_bytes();
    framed.extend_from_slice(body);
    framed.extend_from_slice(format!("\r\n0\r\n{CHUNKED_TRAILER}:{checksum}\r\n\r\n").as_bytes());
    framed
}

/// Year, month and day of a count of days after 1970-01-01 (proleptic Gregorian calendar), by the
/// usual method of 400-year eras that begin on 1 March.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// SHA-256 in lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// Percent-encodes as S3 wants it (RFC 3986 unreserved kept); `/` is kept in paths.
#[must_use]
pub fn encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slash => out.push('/'),
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// The query in canonical form: sorted, encoded.
pub(crate) fn canonical_query(query: &[(String, String)]) -> String {
    let mut pairs: Vec<_> =
        query.iter().map(|(name, value)| (encode(name, false), encode(value, false))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// What a signature covers.
#[derive(Debug)]
pub(crate) struct Signed<'a> {
    pub method: &'a str,
    /// Encoded path.
    pub path: &'a str,
    pub query: &'a [(String, String)],
    /// Lower-case names with their values, in any order.
    pub headers: &'a [(String, String)],
    pub payload: &'a str,
    /// `s3`, `iam`, `sts`.
    pub service: &'a str,
}

/// Value of the Authorization header.
pub(crate) fn authorization(request: &Signed<'_>, credentials: &Credentials, moment: &Moment) -> String {
    let (signature, names) = signature(request, credentials, moment);
    let scope = scope(credentials, moment, request.service);
    format!(
        "{ALGORITHM} Credential={}/{scope}, SignedHeaders={names}, Signature={signature}",
        credentials.access_key
    )
}

/// The query of a presigned URL for `method` on `path` at `host`, good for `seconds` from `moment`.
#[must_use]
pub fn presign(
    method: &str,
    path: &str,
    host: &str,
    seconds: u64,
    credentials: &Credentials,
    moment: &Moment,
) -> Vec<(String, String)> {
    let mut query: Vec<(String, String)> = [
        ("X-Amz-Algorithm", ALGORITHM.to_owned()),
        ("X-Amz-Credential", format!("{}/{}", credentials.access_key, scope(credentials, moment, SERVICE))),
        ("X-Amz-Date", moment.as_str().to_owned()),
        ("X-Amz-Expires", seconds.to_string()),
        ("X-Amz-SignedHeaders", "host".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let headers = [("host".to_owned(), host.to_owned())];
    let request = Signed {
        method,
        path,
        query: &query,
        headers: &headers,
        payload: Payload::Unsigned.header(),
        service: SERVICE,
    };
    let (signature, _) = signature(&request, credentials, moment);
    query.push(("X-Amz-Signature".to_owned(), signature));
    query
}

fn scope(credentials: &Credentials, moment: &Moment, service: &str) -> String {
    format!("{}/{}/{service}/aws4_request", moment.day(), credentials.region)
}

fn signature(request: &Signed<'_>, credentials: &Credentials, moment: &Moment) -> (String, String) {
    let mut headers: Vec<_> = request.headers.iter().collect();
    headers.sort();
    let names = headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!(
        "{}\n{}\n{}\n{lines}\n{names}\n{}",
        request.method,
        request.path,
        canonical_query(request.query),
        request.payload
    );
    let to_sign = format!(
        "{ALGORITHM}\n{}\n{}\n{}",
        moment.as_str(),
        scope(credentials, moment, request.service),
        sha256_hex(canonical.as_bytes())
    );
    let mut key = mac(format!("AWS4{}", credentials.secret_key).as_bytes(), moment.day());
    for step in [credentials.region.as_str(), request.service, "aws4_request"] {
        key = mac(key.as_ref(), step);
    }
    (hex::encode(mac(key.as_ref(), &to_sign)), names)
}

fn mac(key: &[u8], message: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of AWS's documentation, "Signature Calculations for the Authorization Header:
    /// Transferring Payload in a Single Chunk", GET Object.
    #[test]
    fn the_documented_example_gets_the_documented_signature() {
        let credentials = Credentials {
            access_key: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            region: "us-east-1".into(),
        };
        let empty = sha256_hex(b"");
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", &empty),
            ("x-amz-date", "20130524T000000Z"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let request = Signed {
            method: "GET",
            path: "/test.txt",
            query: &[],
            headers: &headers,
            payload: &empty,
            service: SERVICE,
        };
        let (signature, names) = signature(&request, &credentials, &Moment::at(1_369_353_600));
        assert_eq!(names, "host;range;x-amz-content-sha256;x-amz-date");
        assert_eq!(signature, "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    }

    #[test]
    fn moments_are_calendar_dates() {
        assert_eq!(Moment::at(0).as_str(), "19700101T000000Z");
        assert_eq!(Moment::at(951_827_696).as_str(), "20000229T123456Z");
        assert_eq!(Moment::at(1_798_761_599).as_str(), "20261231T235959Z");
    }
}
