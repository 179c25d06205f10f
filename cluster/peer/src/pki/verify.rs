//! Mutual TLS between nodes: what each side checks before a byte of a request is read.
//!
//! Invariants:
//! - TLS 1.3 only; no session resumption, so that every connection is checked anew;
//! - a chain is the leaf and the cluster CA, nothing between; the CA is known beforehand (peers) or by
//!   its fingerprint (joiners), never taken from the other side's word;
//! - the leaf names one node of this cluster, and the dialled one when dialling.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use holdfast_model::{ClusterId, NodeId};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error as TlsError, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::TLS13,
};
use x509_parser::extensions::GeneralName;

use super::{Certificate, Fingerprint, PeerName, PkiError, PrivateKey, ca::cluster_of_ca, key, provider};
use crate::{ALPN_JOIN, ALPN_PEER};

/// What a node shows to its peers and what it believes of them.
#[derive(Clone)]
pub struct PeerIdentity {
    name: PeerName,
    ca: Certificate,
    certificate: Certificate,
    key: PrivateKey,
    roots: Arc<RootCertStore>,
}

impl fmt::Debug for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerIdentity").field("name", &self.name).field("ca", &self.ca).finish_non_exhaustive()
    }
}

impl PeerIdentity {
    /// Puts together what bootstrap or join gave, checking that the parts belong together. Whether the
    /// certificate is valid now is for its peers to judge, by their clocks.
    ///
    /// # Errors
    /// `Malformed`, `NotACa`, `NotAPeer`, `OtherCluster`, `Untrusted` (not signed by this CA) or `KeyMismatch`.
    pub fn new(ca: Certificate, certificate: Certificate, key: PrivateKey) -> Result<Self, PkiError> {
        let cluster = cluster_of_ca(&ca.parse()?)?;
        let name = peer_name_of(certificate.der())?;
        if name.cluster != cluster {
            return Err(PkiError::OtherCluster { found: name, expected: cluster });
        }
        let parsed = certificate.parse()?;
        let pair = key.to_pair("peer key")?;
        if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
            return Err(PkiError::KeyMismatch("peer"));
        }
        let roots = roots(&ca)?;
        // At a moment when it is valid: the signature and the usages are in question here, not this clock.
        let within = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0) + 1;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(within));
        verify_chain(certificate.der(), &roots, at).map_err(|e| PkiError::Untrusted(e.to_string()))?;
        Ok(Self { name, ca, certificate, key, roots })
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.name.cluster
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.name.node
    }

    /// The CA certificate.
    #[must_use]
    pub fn ca(&self) -> &Certificate {
        &self.ca
    }

    /// This node's peer certificate.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// This node's private key, to be sealed by whoever stores it.
    #[must_use]
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// When the certificate ends: it must be renewed before.
    ///
    /// # Panics
    /// Never: the certificate was parsed when this value was made.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        let parsed = self.certificate.parse().expect("the certificate was parsed before");
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Leaf, then CA: a joiner looks for the CA it was told of among them.
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.to_rustls(), self.ca.to_rustls()]
    }
}

fn roots(ca: &Certificate) -> Result<Arc<RootCertStore>, PkiError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(ca.to_rustls())
        .map_err(|e| PkiError::Malformed { what: "CA certificate", cause: e.to_string() })?;
    Ok(Arc::new(roots))
}

/// The one name of a peer certificate.
///
/// # Errors
/// `Malformed`, or `NotAPeer` when it has no name, another kind of name, or more than one.
pub(crate) fn peer_name_of(der: &[u8]) -> Result<PeerName, PkiError> {
    let parsed = key::parse_x509(der)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|e| PkiError::Malformed { what: "certificate", cause: e.to_string() })?;
    match names.map(|extension| extension.value.general_names.as_slice()) {
        Some([GeneralName::URI(uri)]) => uri.parse(),
        Some(others) => Err(PkiError::NotAPeer(format!("it has {} names, none a node's", others.len()))),
        None => Err(PkiError::NotAPeer("it has no name".to_owned())),
    }
}

/// How long the certificate is still valid, by this node's clock. A connection ends with it.
pub(crate) fn valid_for(der: &[u8]) -> Duration {
    let until = key::parse_x509(der).map(|parsed| parsed.validity().not_after.timestamp());
    let until = Duration::from_secs(until.ok().and_then(|s| u64::try_from(s).ok()).unwrap_or(0));
    (SystemTime::UNIX_EPOCH + until).duration_since(SystemTime::now()).unwrap_or_default()
}

/// Checks that `der` is signed by one of `roots` directly, is valid at `now` and may serve TLS.
fn verify_chain(der: &[u8], roots: &RootCertStore, now: UnixTime) -> Result<(), TlsError> {
    let der = CertificateDer::from(der);
    let parsed = ParsedCertificate::try_from(&der)?;
    let algorithms = provider().signature_verification_algorithms;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, &[], now, algorithms.all)
}

fn refused(error: PkiError) -> TlsError {
    TlsError::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Configuration of the listener for peers and joiners.
pub(crate) fn serve_config(identity: &PeerIdentity) -> Result<Arc<ServerConfig>, PkiError> {
    let wrong = |cause: String| PkiError::Crypto { what: "TLS configuration", cause };
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::clone(&identity.roots), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|e| wrong(e.to_string()))?;
    let verifier = PeerClientVerifier { cluster: identity.cluster(), chain };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| wrong(e.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(identity.chain(), identity.key.to_rustls())
        .map_err(|e| wrong(e.to_string()))?;
    config.alpn_protocols = vec![ALPN_PEER.to_vec(), ALPN_JOIN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Configuration to dial `node` with.
pub(crate) fn dial_config(identity: &PeerIdentity, node: NodeId) -> Result<Arc<ClientConfig>, PkiError> {
    let expected = PeerName { cluster: identity.cluster(), node };
    let verifier = PeerServerVerifier { expected, roots: Arc::clone(&identity.roots) };
    let mut config = client_builder(Arc::new(verifier))?
        .with_client_auth_cert(identity.chain(), identity.key.to_rustls())
        .map_err(|e| PkiError::Crypto { what: "TLS configuration", cause: e.to_string() })?;
    config.alpn_protocols = vec![ALPN_PEER.to_vec()];
    finish(&mut config);
    Ok(Arc::new(config))
}

fn client_builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, PkiError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| PkiError::Crypto { what: "TLS configuration", cause: e.to_string() })?
        .dangerous()
        .with_custom_certificate_verifier(verifier))
}

fn finish(config: &mut ClientConfig) {
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
}

/// The server's check of a peer: chain by webpki, then the name.
#[derive(Debug)]
struct PeerClientVerifier {
    cluster: ClusterId,
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for PeerClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        // A joiner has no certificate yet. What it may do is decided by `Role::permits`.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        let verified = self.chain.verify_client_cert(end_entity, &[], now)?;
        let found = peer_name_of(end_entity).map_err(refused)?;
        if found.cluster != self.cluster {
            return Err(refused(PkiError::OtherCluster { found, expected: self.cluster }));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// The dialling node's check: chain, then the name of the node that was dialled.
#[derive(Debug)]
struct PeerServerVerifier {
    expected: PeerName,
    roots: Arc<RootCertStore>,
}

/// A joiner's check: the CA is the one of the token, and signed a peer certificate of its cluster.
#[derive(Debug)]
pub(crate) struct PinnedCa(pub(crate) Fingerprint);

impl PinnedCa {
    /// Configuration to ask for admission with.
    pub(crate) fn config(self) -> Result<Arc<ClientConfig>, PkiError> {
        let mut config = client_builder(Arc::new(self))?.with_no_client_auth();
        config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
        finish(&mut config);
        Ok(Arc::new(config))
    }

    fn check(&self, leaf: &[u8], chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), TlsError> {
        let ca = chain
            .iter()
            .find(|der| Fingerprint::of(der) == self.0)
            .map(|der| Certificate::from_der(der.to_vec()))
            .ok_or_else(|| refused(PkiError::OtherFingerprint { expected: self.0 }))?;
        let cluster = ca.parse().and_then(|parsed| cluster_of_ca(&parsed)).map_err(refused)?;
        verify_chain(leaf, &*roots(&ca).map_err(refused)?, now)?;
        let found = peer_name_of(leaf).map_err(refused)?;
        if found.cluster != cluster {
            return Err(refused(PkiError::OtherCluster { found, expected: cluster }));
        }
        Ok(())
    }
}

macro_rules! verifies_servers {
    ($name:ty, $check:expr) => {
        impl ServerCertVerifier for $name {
            fn verify_server_cert(
                &self,
                end_entity: &CertificateDer<'_>,
                intermediates: &[CertificateDer<'_>],
                _: &ServerName<'_>,
                _: &[u8],
                now: UnixTime,
            ) -> Result<ServerCertVerified, TlsError> {
                let check: fn(&Self, &[u8], &[CertificateDer<'_>], UnixTime) -> Result<(), TlsError> = $check;
                check(self, end_entity, intermediates, now).map(|()| ServerCertVerified::assertion())
            }

            fn verify_tls12_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, TlsError> {
                verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
            }

            fn verify_tls13_signature(
                &self,
                message: &[u8],
                cert: &CertificateDer<'_>,
                dss: &DigitallySignedStruct,
            ) -> Result<HandshakeSignatureValid, TlsError> {
                verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
            }

            fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                provider().signature_verification_algorithms.supported_schemes()
            }
        }
    };
}

verifies_servers!(PinnedCa, PinnedCa::check);
verifies_servers!(PeerServerVerifier, |this, leaf, _, now| {
    verify_chain(leaf, &this.roots, now)?;
    let found = peer_name_of(leaf).map_err(refused)?;
    if found == this.expected {
        Ok(())
    } else if found.cluster == this.expected.cluster {
        Err(refused(PkiError::OtherNode { found, expected: this.expected }))
    } else {
        Err(refused(PkiError::OtherCluster { found, expected: this.expected.cluster }))
    }
});
