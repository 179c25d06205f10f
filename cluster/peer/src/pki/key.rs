//! Keys, certificates and fingerprints as values: what they are stored, sent and compared as.

use std::{fmt, str::FromStr};

use base64::Engine as _;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{DER_SIZE_MAX, PkiError};

/// A certificate as DER. Its content is checked where it is used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Certificate(Vec<u8>);

impl Certificate {
    /// Takes the bytes as they are.
    #[must_use]
    pub fn from_der(der: Vec<u8>) -> Self {
        Self(der)
    }

    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map(|der| Self(der.to_vec()))
            .map_err(|e| PkiError::Malformed { what: "certificate", cause: e.to_string() })
    }

    /// The bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// As PEM text, for a `ca.pem` given to clients.
    #[must_use]
    pub fn pem(&self) -> String {
        let body = base64::engine::general_purpose::STANDARD.encode(&self.0);
        let lines: Vec<_> = body
            .as_bytes()
            .chunks(64)
            .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
            .collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    }

    /// SHA-256 of the DER.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.0)
    }

    pub(crate) fn to_rustls(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.0.clone())
    }

    pub(crate) fn parse(&self) -> Result<x509_parser::certificate::X509Certificate<'_>, PkiError> {
        parse_x509(&self.0)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint())
    }
}

pub(crate) fn parse_x509(der: &[u8]) -> Result<x509_parser::certificate::X509Certificate<'_>, PkiError> {
    let wrong = |cause: String| PkiError::Malformed { what: "certificate", cause };
    if der.len() > DER_SIZE_MAX {
        return Err(wrong(format!("{} bytes, at most {DER_SIZE_MAX} are read", der.len())));
    }
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok((rest, _)) => Err(wrong(format!("{} bytes follow it", rest.len()))),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// A private key as PKCS #8 DER (RFC 5208). Wiped when dropped, never printed.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<Vec<u8>>);

impl PrivateKey {
    /// Takes the bytes as they are; checked where the key is used.
    #[must_use]
    pub fn from_der(der: Vec<u8>) -> Self {
        Self(Zeroizing::new(der))
    }

    /// Reads a `PRIVATE KEY` block.
    ///
    /// # Errors
    /// `Malformed`.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map(|key| Self::from_der(key.secret_pkcs8_der().to_vec()))
            .map_err(|e| PkiError::Malformed { what: "private key", cause: e.to_string() })
    }

    /// The bytes, to be sealed by whoever stores them.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.to_vec()))
    }

    pub(crate) fn to_pair(&self, what: &'static str) -> Result<KeyPair, PkiError> {
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(self.der()), &PKCS_ECDSA_P256_SHA256)
            .map_err(|e| PkiError::Malformed { what, cause: e.to_string() })
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// A P-256 key pair made on this node, with the request that carries its public half to the CA.
#[derive(Debug, Clone)]
pub struct NodeKey {
    key: PrivateKey,
    request: Vec<u8>,
}

impl NodeKey {
    /// A fresh key.
    ///
    /// # Errors
    /// `Crypto` when the system's random source fails.
    pub fn generate() -> Result<Self, PkiError> {
        let wrong = |what, e: rcgen::Error| PkiError::Crypto { what, cause: e.to_string() };
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| wrong("key generation", e))?;
        let mut params = CertificateParams::default();
        // The issuer takes nothing but the public key from a request: nothing else is said in it.
        params.distinguished_name = DistinguishedName::new();
        let request =
            params.serialize_request(&pair).map_err(|e| wrong("signing a certificate request", e))?;
        Ok(Self { key: PrivateKey::from_der(pair.serialize_der()), request: request.der().to_vec() })
    }

    /// The certificate request (RFC 2986) as DER: self-signed, which proves possession of the key.
    #[must_use]
    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// The private half.
    #[must_use]
    pub fn private_key(&self) -> &PrivateKey {
        &self.key
    }
}

/// SHA-256 of a certificate's DER. Prints as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of `der`.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        Self(sha256(&[der]))
    }

    /// Takes 32 bytes as they are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

impl FromStr for Fingerprint {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map(|()| Self(bytes))
            .map_err(|e| PkiError::Malformed { what: "fingerprint", cause: e.to_string() })
    }
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_keys_are_never_printed() {
        let key = NodeKey::generate().unwrap();
        let printed = format!("{key:?}");
        assert!(printed.contains("PrivateKey(..)"));
        assert!(!printed.contains(&format!("{:?}", key.private_key().der())));
    }

    #[test]
    fn fingerprints_survive_text() {
        let print = Fingerprint::of(b"certificate");
        assert_eq!(print.to_string().parse::<Fingerprint>(), Ok(print));
        assert!("00".parse::<Fingerprint>().is_err());
    }
}
