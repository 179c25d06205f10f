//! The cluster's certificate authority: made once at bootstrap, its key sealed by the keyring, used by
//! whichever node admits a joiner or renews a certificate.

use std::{fmt, net::IpAddr, time::SystemTime};

use holdfast_model::{ClusterId, NodeId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    SerialNumber,
};
use rustls::pki_types::CertificateSigningRequestDer;

use super::{
    BACKDATE, CA_VALIDITY, Certificate, DER_SIZE_MAX, Fingerprint, PEER_VALIDITY, PeerName, PkiError,
    PrivateKey, SERVICE_NAMES_MAX, SERVICE_VALIDITY,
};

const COMMON_NAME: &str = "Holdfast cluster CA";
const ORGANISATION_PREFIX: &str = "holdfast cluster ";

/// A cluster's CA with its private key.
pub struct Ca {
    cluster: ClusterId,
    certificate: Certificate,
    not_after: SystemTime,
    key: PrivateKey,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("cluster", &self.cluster)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// A new CA for `cluster`.
    ///
    /// # Errors
    /// `Crypto` when the system's random source fails.
    pub fn generate(cluster: ClusterId, now: SystemTime) -> Result<Self, PkiError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|e| PkiError::Crypto { what: "key generation", cause: e.to_string() })?;
        let mut params = params(cluster, COMMON_NAME, now, now + CA_VALIDITY)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = false;
        let certificate = params
            .self_signed(&pair)
            .map_err(|e| PkiError::Crypto { what: "signing the CA certificate", cause: e.to_string() })?;
        Self::from_der(
            Certificate::from_der(certificate.der().to_vec()),
            PrivateKey::from_der(pair.serialize_der()),
        )
    }

    /// A CA that was stored.
    ///
    /// # Errors
    /// `Malformed`, `NotACa` or `KeyMismatch`.
    pub fn from_der(certificate: Certificate, key: PrivateKey) -> Result<Self, PkiError> {
        let pair = key.to_pair("CA key")?;
        let (cluster, not_after) = {
            let parsed = certificate.parse()?;
            if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
                return Err(PkiError::KeyMismatch("CA"));
            }
            (cluster_of_ca(&parsed)?, time_of(parsed.validity().not_after.timestamp()))
        };
        let issuer = Issuer::from_ca_cert_der(&certificate.to_rustls(), pair)
            .map_err(|e| PkiError::Malformed { what: "CA certificate", cause: e.to_string() })?;
        Ok(Self { cluster, certificate, not_after, key, issuer })
    }

    /// As [`Ca::from_der`], from PEM texts.
    ///
    /// # Errors
    /// As there.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, PkiError> {
        Self::from_der(Certificate::from_pem(certificate)?, PrivateKey::from_pem(key)?)
    }

    /// The cluster this is the authority of.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The CA certificate, which every node and client trusts.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The private key, to be sealed by the caller.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// SHA-256 of the certificate's DER, as join tokens carry it.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.certificate.fingerprint()
    }

    /// A peer certificate for `node`, for the key of `request`.
    ///
    /// # Errors
    /// `Malformed` when the request does not parse, is not signed by its key, or is not for a P-256 key.
    pub fn issue_peer(&self, request: &[u8], node: NodeId, now: SystemTime) -> Result<Certificate, PkiError> {
        let name = PeerName { cluster: self.cluster, node };
        let uri = name.to_string().try_into().expect("a peer's name is ASCII");
        let mut params =
            params(self.cluster, &node.to_string(), now, (now + PEER_VALIDITY).min(self.not_after))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, request)
    }

    /// A service certificate under `names` (DNS names and IP addresses), for the key of `request`.
    ///
    /// # Errors
    /// `NameCount`, `BadName`, or `Malformed` as for [`Ca::issue_peer`].
    pub fn issue_service(
        &self,
        request: &[u8],
        names: &[String],
        now: SystemTime,
    ) -> Result<Certificate, PkiError> {
        let first = match names {
            [first, ..] if names.len() <= SERVICE_NAMES_MAX => first,
            _ => return Err(PkiError::NameCount(names.len())),
        };
        let mut params = params(self.cluster, first, now, (now + SERVICE_VALIDITY).min(self.not_after))?;
        params.subject_alt_names = names.iter().map(|n| service_name(n)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, request)
    }

    fn sign(&self, mut params: CertificateParams, request: &[u8]) -> Result<Certificate, PkiError> {
        let wrong = |cause: String| PkiError::Malformed { what: "certificate request", cause };
        if request.len() > DER_SIZE_MAX {
            return Err(wrong(format!("{} bytes, at most {DER_SIZE_MAX} are read", request.len())));
        }
        let parsed = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|e| wrong(e.to_string()))?;
        if parsed.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(wrong("its key is not P-256".to_owned()));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params
            .signed_by(&parsed.public_key, &self.issuer)
            .map(|certificate| Certificate::from_der(certificate.der().to_vec()))
            .map_err(|e| PkiError::Crypto { what: "signing a certificate", cause: e.to_string() })
    }
}

fn params(
    cluster: ClusterId,
    common_name: &str,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<CertificateParams, PkiError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)
        .map_err(|e| PkiError::Crypto { what: "reading random bytes", cause: e.to_string() })?;
    // A serial number is a positive integer of at most 20 octets (RFC 5280, section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (now - BACKDATE).into();
    params.not_after = not_after.into();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, format!("{ORGANISATION_PREFIX}{cluster}"));
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    Ok(params)
}

fn service_name(name: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let host = name.strip_prefix("*.").unwrap_or(name);
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    if name.len() > 253 || !host.split('.').all(label) {
        return Err(PkiError::BadName(name.to_owned()));
    }
    name.to_owned().try_into().map(SanType::DnsName).map_err(|_| PkiError::BadName(name.to_owned()))
}

/// The cluster whose CA `certificate` is.
pub(super) fn cluster_of_ca(
    certificate: &x509_parser::certificate::X509Certificate<'_>,
) -> Result<ClusterId, PkiError> {
    let signs = matches!(certificate.key_usage(), Ok(Some(usage)) if usage.value.key_cert_sign());
    if !certificate.is_ca() || !signs {
        return Err(PkiError::NotACa("it may not sign certificates"));
    }
    if certificate.subject() != certificate.issuer() {
        return Err(PkiError::NotACa("it is not self-signed"));
    }
    let mut organisations = certificate.subject().iter_organization();
    let text = match (organisations.next(), organisations.next()) {
        (Some(one), None) => one.as_str().ok(),
        _ => None,
    };
    text.and_then(|t| t.strip_prefix(ORGANISATION_PREFIX))
        .and_then(|t| t.parse().ok())
        .ok_or(PkiError::NotACa("its organisation names no cluster"))
}

fn time_of(unix_seconds: i64) -> SystemTime {
    let seconds = std::time::Duration::from_secs(unix_seconds.unsigned_abs());
    if unix_seconds < 0 { SystemTime::UNIX_EPOCH - seconds } else { SystemTime::UNIX_EPOCH + seconds }
}
