//! What a request's head declares about its body, parsed once.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use holdfast_model::limits::PUT_SIZE_MAX;
use http::HeaderMap;

use super::checksum::Algorithm;
use crate::errors::Refusal;

/// How the content is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Framing {
    /// The body is the content.
    #[default]
    Plain,
    /// aws-chunked without chunk signatures.
    Unsigned,
    /// aws-chunked with chunk signatures.
    Signed,
}

/// A checksum named in the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredChecksum {
    /// Which.
    pub algorithm: Algorithm,
    /// Its value; `None` when a trailer brings it.
    pub value: Option<Vec<u8>>,
}

/// What is declared. The default declares nothing.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Framing of the body.
    pub framing: Framing,
    /// Length of the content in bytes.
    pub length: Option<u64>,
    /// SHA-256 of the content.
    pub payload_hash: Option<[u8; 32]>,
    /// `Content-MD5`, when this side checks it; content of objects is checked by the object layer.
    pub content_md5: Option<[u8; 16]>,
    /// `x-amz-checksum-*`.
    pub checksum: Option<DeclaredChecksum>,
    /// A checksum that is computed though nobody declared it.
    pub also: Option<Algorithm>,
    /// Most bytes taken, when that is less than S3 allows for content.
    pub size_max: Option<u64>,
    /// Names in `x-amz-trailer`, in lower case.
    pub trailers: Vec<String>,
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let parsed = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match parsed.and_then(|text| text.parse().ok()) {
        Some(number) => Ok(Some(number)),
        None => Err(Refusal::because("InvalidArgument", format!("{name} is not a number."))),
    }
}

/// `Content-MD5`, decoded.
///
/// # Errors
/// `InvalidDigest` when it is not one.
pub fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, Refusal> {
    let Some(value) = headers.get("content-md5") else { return Ok(None) };
    let decoded = BASE64.decode(value.as_bytes()).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    decoded.map(Some).ok_or_else(|| Refusal::new("InvalidDigest"))
}

impl Plan {
    /// Whether the head announces a body with signatures of its own.
    #[must_use]
    pub fn is_signed(headers: &HeaderMap) -> bool {
        text(headers, "x-amz-content-sha256").is_some_and(|value| value.starts_with("STREAMING-AWS4"))
    }

    /// Reads the head. `body_checksums` says whether `x-amz-checksum-*` speaks of this request's body; when
    /// completing a multipart upload it speaks of the object.
    ///
    /// # Errors
    /// What AWS answers to a head that contradicts itself or declares what S3 does not know.
    pub fn parse(headers: &HeaderMap, body_checksums: bool) -> Result<Self, Refusal> {
        let mut plan = Self::default();
        match text(headers, "x-amz-content-sha256") {
            None | Some("UNSIGNED-PAYLOAD") => {}
            Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER") => plan.framing = Framing::Unsigned,
            Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD" | "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER") => {
                plan.framing = Framing::Signed;
            }
            Some(other) if other.starts_with("STREAMING-") => {
                return Err(Refusal::not_implemented("This kind of streaming signature"));
            }
            Some(hash) => {
                let decoded = hex::decode(hash).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
                plan.payload_hash = Some(decoded.ok_or_else(|| {
                    Refusal::because(
                        "InvalidArgument",
                        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- value or a valid sha256 value.",
                    )
                })?);
            }
        }
        plan.length = match plan.framing {
            Framing::Plain => number(headers, "content-length")?,
            Framing::Unsigned | Framing::Signed => Some(
                number(headers, "x-amz-decoded-content-length")?
                    .ok_or_else(|| Refusal::new("MissingContentLength"))?,
            ),
        };
        if plan.length.is_some_and(|length| length > PUT_SIZE_MAX) {
            return Err(Refusal::new("EntityTooLarge").with("MaxSizeAllowed", PUT_SIZE_MAX.to_string()));
        }
        if body_checksums {
            plan.parse_checksums(headers)?;
        }
        Ok(plan)
    }

    fn parse_checksums(&mut self, headers: &HeaderMap) -> Result<(), Refusal> {
        for algorithm in Algorithm::ALL {
            let mut values = headers.get_all(algorithm.header()).iter();
            let Some(value) = values.next() else { continue };
            let decoded = value.to_str().ok().and_then(|text| algorithm.decode(text));
            let Some(decoded) = decoded.filter(|_| values.next().is_none()) else {
                let said = format!("Value for {} header is invalid.", algorithm.header());
                return Err(Refusal::because("InvalidRequest", said));
            };
            self.declare(DeclaredChecksum { algorithm, value: Some(decoded) })?;
        }
        if let Some(names) = text(headers, "x-amz-trailer") {
            if self.framing == Framing::Plain {
                return Err(Refusal::because(
                    "InvalidRequest",
                    "x-amz-trailer needs a streaming x-amz-content-sha256.",
                ));
            }
            for name in
                names.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty())
            {
                let Some(algorithm) = Algorithm::by_header(&name) else {
                    return Err(Refusal::because(
                        "InvalidRequest",
                        "The value specified in the x-amz-trailer header is not supported",
                    ));
                };
                self.declare(DeclaredChecksum { algorithm, value: None })?;
                self.trailers.push(name);
            }
        }
        self.check_sdk_algorithm(headers)
    }

    fn declare(&mut self, declared: DeclaredChecksum) -> Result<(), Refusal> {
        if self.checksum.is_some() {
            return Err(Refusal::because(
                "InvalidRequest",
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ));
        }
        self.checksum = Some(declared);
        Ok(())
    }

    fn check_sdk_algorithm(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(name) = text(headers, "x-amz-sdk-checksum-algorithm") else { return Ok(()) };
        let Some(algorithm) = Algorithm::by_name(name) else {
            return Err(Refusal::because(
                "InvalidRequest",
                "Value for x-amz-sdk-checksum-algorithm header is invalid.",
            ));
        };
        match &self.checksum {
            Some(declared) if declared.algorithm == algorithm => Ok(()),
            Some(_) => Err(Refusal::because(
                "InvalidRequest",
                "Value for x-amz-sdk-checksum-algorithm header is invalid.",
            )),
            None => Err(Refusal::because(
                "InvalidRequest",
                "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&'static str, &'static str)]) -> Result<Plan, Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        Plan::parse(&headers, true)
    }

    #[test]
    fn a_trailing_checksum_is_declared_without_a_value() {
        let plan = parse(&[
            ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
            ("x-amz-decoded-content-length", "9"),
            ("x-amz-trailer", "X-Amz-Checksum-CRC32"),
            ("x-amz-sdk-checksum-algorithm", "CRC32"),
            ("content-length", "60"),
        ])
        .unwrap();
        assert_eq!((plan.framing, plan.length), (Framing::Unsigned, Some(9)));
        assert_eq!(plan.checksum, Some(DeclaredChecksum { algorithm: Algorithm::Crc32, value: None }));
        assert_eq!(plan.trailers, ["x-amz-checksum-crc32"]);
    }

    #[test]
    fn contradictions_are_refused_with_the_code_of_aws() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (&[("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")], "MissingContentLength"),
            (&[("x-amz-content-sha256", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD")], "NotImplemented"),
            (&[("x-amz-content-sha256", "abc")], "InvalidArgument"),
            (&[("content-length", "5368709121")], "EntityTooLarge"),
            (&[("x-amz-checksum-crc32", "AAAA")], "InvalidRequest"),
            (
                &[("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-checksum-crc32c", "AAAAAA==")],
                "InvalidRequest",
            ),
            (&[("x-amz-trailer", "x-amz-checksum-crc32")], "InvalidRequest"),
            (&[("x-amz-sdk-checksum-algorithm", "CRC32")], "InvalidRequest"),
            (
                &[("x-amz-sdk-checksum-algorithm", "MD4"), ("x-amz-checksum-crc32", "AAAAAA==")],
                "InvalidRequest",
            ),
        ];
        for (headers, code) in cases {
            let pairs: Vec<(&'static str, &'static str)> = headers.iter().map(|(n, v)| (*n, *v)).collect();
            assert_eq!(parse(&pairs).unwrap_err().code, *code, "{headers:?}");
        }
    }
}
