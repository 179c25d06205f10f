//! AWS Signature Version 4: what a request says about its signature, and the signatures of chunks.
//!
//! The protocol library verifies the signature of the head. This module refuses beforehand what it would
//! let pass or answer otherwise: version 2, another region or service, headers of `x-amz-` that were not
//! signed (whoever holds a presigned URL could add `x-amz-copy-source`), lives longer than a week.
//!
//! Source: AWS, "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API reference.

use http::{HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use s3s::dto::{Timestamp, TimestampFormat};

use crate::{errors::Refusal, limits::PRESIGNED_LIFE_MAX};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const VERSION_2_REFUSED: &str =
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";

/// What a request says about its signature. Nothing here is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Access key id.
    pub access_key: String,
    /// `DATE/REGION/s3/aws4_request`.
    pub scope: String,
    /// Region in the scope.
    pub region: String,
    /// Names of the signed headers, in lower case.
    pub headers: Vec<String>,
    /// The signature, hexadecimal.
    pub signature: String,
    /// In the query instead of the `Authorization` header.
    pub presigned: bool,
    /// In the fields of a form.
    pub form: bool,
    /// By version 2, which is taken of forms only.
    pub version_2: bool,
    /// Session token of temporary credentials.
    pub token: Option<String>,
}

/// Query parameters, decoded, in order.
pub type Query = [(String, String)];

fn query_value<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

fn malformed(presigned: bool, said: String) -> Refusal {
    let code = if presigned { "AuthorizationQueryParametersError" } else { "AuthorizationHeaderMalformed" };
    Refusal::because(code, said)
}

impl Signed {
    /// Reads the head and the query. `None` for an anonymous request.
    ///
    /// # Errors
    /// What AWS answers to a signature that is not version 4 or not of its form.
    pub fn parse(headers: &HeaderMap, query: &Query) -> Result<Option<Self>, Refusal> {
        let authorization = headers.get(http::header::AUTHORIZATION);
        if query.iter().any(|(name, _)| name == "Signature" || name == "AWSAccessKeyId") {
            return Err(Refusal::because("InvalidRequest", VERSION_2_REFUSED));
        }
        let presigned = query.iter().any(|(name, _)| name == "X-Amz-Signature" || name == "X-Amz-Algorithm");
        match (authorization, presigned) {
            (None, false) => Ok(None),
            (Some(_), true) => Err(Refusal::because(
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string \
                 parameter or the Authorization header should be specified",
            )),
            (Some(value), false) => {
                let text = value.to_str().map_err(|_| Refusal::new("AuthorizationHeaderMalformed"))?;
                let mut signed = Self::parse_header(text)?;
                let token = headers.get("x-amz-security-token");
                signed.token = token.map(|token| token.to_str().unwrap_or_default().to_owned());
                Ok(Some(signed))
            }
            (None, true) => Self::parse_query(query).map(Some),
        }
    }

    fn parse_header(text: &str) -> Result<Self, Refusal> {
        let (algorithm, rest) = text.split_once(' ').unwrap_or((text, ""));
        if algorithm == "AWS" {
            return Err(Refusal::because("InvalidRequest", VERSION_2_REFUSED));
        }
        if algorithm != ALGORITHM {
            return Err(Refusal::because("InvalidArgument", "Unsupported Authorization Type"));
        }
        let field = |name: &str| {
            let value = rest.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            value.map(str::to_owned).ok_or_else(|| {
                malformed(
                    false,
                    format!("The authorization header is malformed; it must contain a {name} field."),
                )
            })
        };
        Self::build(&field("Credential")?, &field("SignedHeaders")?, field("Signature")?, false)
    }

    fn parse_query(query: &Query) -> Result<Self, Refusal> {
        let field = |name: &str| {
            query_value(query, name).map(str::to_owned).ok_or_else(|| {
                malformed(
                    true,
                    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, \
                     X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
                        .to_owned(),
                )
            })
        };
        if field("X-Amz-Algorithm")? != ALGORITHM {
            return Err(malformed(true, format!("X-Amz-Algorithm only supports \"{ALGORITHM}\".")));
        }
        field("X-Amz-Date")?;
        let life = field("X-Amz-Expires")?;
        match life.parse::<u64>() {
            Ok(seconds) if seconds <= PRESIGNED_LIFE_MAX.as_secs() => {}
            Ok(_) => {
                let said = format!(
                    "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be \
                     less than {} seconds",
                    PRESIGNED_LIFE_MAX.as_secs()
                );
                return Err(malformed(true, said));
            }
            Err(_) if life.starts_with('-') => {
                return Err(malformed(true, "X-Amz-Expires must be non-negative".to_owned()));
            }
            Err(_) => return Err(malformed(true, "X-Amz-Expires should be a number".to_owned())),
        }
        let (credential, headers) = (field("X-Amz-Credential")?, field("X-Amz-SignedHeaders")?);
        let mut signed = Self::build(&credential, &headers, field("X-Amz-Signature")?, true)?;
        signed.token = query_value(query, "X-Amz-Security-Token").map(str::to_owned);
        Ok(signed)
    }

    /// Reads a `Credential` for the service `s3`.
    ///
    /// # Errors
    /// What AWS answers to one that is not of its form.
    pub fn build(
        credential: &str,
        headers: &str,
        signature: String,
        presigned: bool,
    ) -> Result<Self, Refusal> {
        let wrong = |said: &str| malformed(presigned, format!("The Credential is mal-formed; {said}."));
        let mut pieces = credential.rsplitn(5, '/');
        let (Some(terminal), Some(service), Some(region), Some(date), Some(access_key)) =
            (pieces.next(), pieces.next(), pieces.next(), pieces.next(), pieces.next())
        else {
            return Err(wrong("expecting \"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request\""));
        };
        if terminal != "aws4_request" {
            return Err(wrong(&format!(
                "incorrect terminal {terminal:?}. This endpoint uses \"aws4_request\""
            )));
        }
        if service != "s3" {
            return Err(wrong(&format!("incorrect service {service:?}. This endpoint belongs to \"s3\"")));
        }
        if date.len() != 8 || !date.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong(&format!(
                "incorrect date format {date:?}. This date must be in the format \"yyyyMMdd\""
            )));
        }
        Ok(Self {
            access_key: access_key.to_owned(),
            scope: format!("{date}/{region}/{service}/{terminal}"),
            region: region.to_owned(),
            headers: headers.split(';').map(str::to_ascii_lowercase).collect(),
            signature,
            presigned,
            form: false,
            version_2: false,
            token: None,
        })
    }

    /// What a form says that version 2 signed.
    #[must_use]
    pub fn of_form_version_2(access_key: &str, signature: &str, region: &str, token: Option<String>) -> Self {
        Self {
            access_key: access_key.to_owned(),
            scope: String::new(),
            region: region.to_owned(),
            headers: Vec::new(),
            signature: signature.to_owned(),
            presigned: false,
            form: true,
            version_2: true,
            token,
        }
    }

    /// # Errors
    /// When the scope names another region than this cluster's.
    pub fn check_region(&self, expected: &str) -> Result<(), Refusal> {
        if self.region == expected {
            return Ok(());
        }
        let what = if self.presigned {
            "Error parsing the X-Amz-Credential parameter"
        } else {
            "The authorization header is malformed"
        };
        let said = format!("{what}; the region '{}' is wrong; expecting '{expected}'", self.region);
        Err(malformed(self.presigned, said).with("Region", expected))
    }

    /// The moment of signing may stand in `Date`, when that was signed, in place of `x-amz-date`: puts it there, where
    /// it is looked for.
    pub fn take_date(&self, headers: &mut HeaderMap) {
        let signed = self.headers.iter().any(|name| name == "date");
        if headers.contains_key(AMZ_DATE) || !signed {
            return;
        }
        let Some(date) = headers.get(http::header::DATE).and_then(|value| value.to_str().ok()) else {
            return;
        };
        let Ok(date) = Timestamp::parse(TimestampFormat::HttpDate, date) else { return };
        let at = time::OffsetDateTime::from(date).to_offset(time::UtcOffset::UTC);
        let basic = format!(
            "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        );
        if let Ok(value) = HeaderValue::from_str(&basic) {
            headers.insert(AMZ_DATE, value);
        }
    }

    /// # Errors
    /// When `Host`, or a header that S3 acts on, was not signed.
    pub fn check_signed_headers(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let signed = |name: &str| self.headers.iter().any(|signed| signed == name);
        if !signed("host") {
            let said = "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.".to_owned();
            return Err(malformed(self.presigned, said));
        }
        let acted_on =
            |name: &&HeaderName| name.as_str().starts_with("x-amz-") && *name != "x-amz-content-sha256";
        let unsigned: Vec<&str> =
            headers.keys().filter(acted_on).map(HeaderName::as_str).filter(|name| !signed(name)).collect();
        if unsigned.is_empty() {
            return Ok(());
        }
        let refusal = Refusal::because(
            "AccessDenied",
            "There were headers present in the request which were not signed",
        );
        Err(refusal.with("HeadersNotSigned", unsigned.join(", ")))
    }
}

/// Verifies the chain of signatures of an aws-chunked body: each covers the one before it.
pub struct ChunkSigner {
    key: hmac::Key,
    date_and_scope: String,
    previous: String,
}

impl std::fmt::Debug for ChunkSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChunkSigner")
    }
}

impl ChunkSigner {
    /// `seed` is the signature of the head; `date` is `x-amz-date`; `scope` is [`Signed::scope`].
    #[must_use]
    pub fn new(secret: &str, date: &str, scope: &str, seed: &str) -> Self {
        Self {
            key: signing_key(secret, scope),
            date_and_scope: format!("{date}\n{scope}"),
            previous: seed.to_owned(),
        }
    }

    /// Whether `signature` is that of the next chunk, whose content hashes to `hash`.
    pub fn verify_chunk(&mut self, hash: &[u8], signature: &str) -> bool {
        let text = format!(
            "{ALGORITHM}-PAYLOAD\n{}\n{}\n{EMPTY_SHA256}\n{}",
            self.date_and_scope,
            self.previous,
            hex::encode(hash)
        );
        self.verify(&text, signature)
    }

    /// Whether `signature` is that of the trailers in canonical form (`name:value\n`, sorted).
    pub fn verify_trailers(&mut self, canonical: &[u8], signature: &str) -> bool {
        let hash = ring::digest::digest(&ring::digest::SHA256, canonical);
        let text = format!(
            "{ALGORITHM}-TRAILER\n{}\n{}\n{}",
            self.date_and_scope,
            self.previous,
            hex::encode(hash.as_ref())
        );
        self.verify(&text, signature)
    }

    fn verify(&mut self, text: &str, signature: &str) -> bool {
        // Compared in constant time by ring.
        let Ok(given) = hex::decode(signature) else { return false };
        let matches = hmac::verify(&self.key, text.as_bytes(), &given).is_ok();
        if matches {
            self.previous = signature.to_ascii_lowercase();
        }
        matches
    }
}

/// `HMAC(HMAC(HMAC(HMAC("AWS4" + secret, date), region), service), "aws4_request")`.
pub(crate) fn signing_key(secret: &str, scope: &str) -> hmac::Key {
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    for piece in scope.split('/') {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, piece.as_bytes()).as_ref());
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "AWS4-HMAC-SHA256 Credential=AK/20250101/us-east-1/s3/aws4_request, \
                          SignedHeaders=host;x-amz-date, Signature=00ff";

    fn header(value: &str) -> Result<Option<Signed>, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", value.parse().unwrap());
        Signed::parse(&headers, &[])
    }

    #[test]
    fn a_header_is_read_with_and_without_spaces() {
        for text in [HEADER.to_owned(), HEADER.replace(", ", ",")] {
            let signed = header(&text).unwrap().unwrap();
            assert_eq!((signed.access_key.as_str(), signed.region.as_str()), ("AK", "us-east-1"));
            assert_eq!(signed.scope, "20250101/us-east-1/s3/aws4_request");
            assert_eq!(signed.headers, ["host", "x-amz-date"]);
        }
    }

    #[test]
    fn other_mechanisms_are_refused_with_the_code_of_aws() {
        for (text, code) in [
            ("AWS AK:c2ln", "InvalidRequest"),
            ("Bearer token", "InvalidArgument"),
            ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
            (
                "AWS4-HMAC-SHA256 Credential=AK/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=00",
                "AuthorizationHeaderMalformed",
            ),
            (&HEADER.replace("/s3/", "/sts/"), "AuthorizationHeaderMalformed"),
            (&HEADER.replace("20250101", "2025-1-1"), "AuthorizationHeaderMalformed"),
        ] {
            assert_eq!(header(text).unwrap_err().code, code, "{text}");
        }
        let query = |name: &str| vec![(name.to_owned(), "x".to_owned())];
        assert_eq!(Signed::parse(&HeaderMap::new(), &query("Signature")).unwrap_err().code, "InvalidRequest");
        assert_eq!(
            Signed::parse(&HeaderMap::new(), &query("X-Amz-Signature")).unwrap_err().code,
            "AuthorizationQueryParametersError"
        );
    }

    #[test]
    fn a_date_that_was_signed_stands_for_the_other_header() {
        let dated = |signed: &str, more: Option<&str>| {
            let signed = header(&HEADER.replace("host;x-amz-date", signed)).unwrap().unwrap();
            let mut headers = HeaderMap::new();
            headers.insert("date", "Fri, 24 May 2013 00:00:00 GMT".parse().unwrap());
            if let Some(date) = more {
                headers.insert("x-amz-date", date.parse().unwrap());
            }
            signed.take_date(&mut headers);
            headers.get("x-amz-date").map(|date| date.to_str().unwrap().to_owned())
        };
        assert_eq!(dated("date;host", None).as_deref(), Some("20130524T000000Z"));
        assert_eq!(dated("host", None), None, "nobody signed it");
        assert_eq!(
            dated("date;host;x-amz-date", Some("20250101T000000Z")).as_deref(),
            Some("20250101T000000Z")
        );
    }

    #[test]
    fn a_header_added_after_signing_is_refused() {
        let signed = header(HEADER).unwrap().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-date", "d".parse().unwrap());
        headers.insert("content-type", "t".parse().unwrap());
        assert_eq!(signed.check_signed_headers(&headers), Ok(()));
        headers.insert("x-amz-copy-source", "/other/secret".parse().unwrap());
        assert_eq!(signed.check_signed_headers(&headers).unwrap_err().code, "AccessDenied");
    }
}
