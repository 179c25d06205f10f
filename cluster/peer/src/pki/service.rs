//! TLS of the listeners that clients reach: S3, admin, metrics.
//!
//! A service certificate lives 30 days; [`ServiceCertificate::replace`] changes it under running
//! listeners: new connections get the new one, those that are open keep theirs.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use super::{Certificate, PkiError, PrivateKey, provider};

/// The certificate a node's services show, replaceable while they run.
#[derive(Debug, Clone)]
pub struct ServiceCertificate {
    current: Arc<RwLock<Arc<CertifiedKey>>>,
}

impl ServiceCertificate {
    /// Starts with one certificate and its key.
    ///
    /// # Errors
    /// `Malformed` or `KeyMismatch`.
    pub fn new(certificate: &Certificate, key: &PrivateKey) -> Result<Self, PkiError> {
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(certified(certificate, key)?))) })
    }

    /// Shows another certificate from now on.
    ///
    /// # Errors
    /// As [`ServiceCertificate::new`]; the one in use stays.
    pub fn replace(&self, certificate: &Certificate, key: &PrivateKey) -> Result<(), PkiError> {
        let next = Arc::new(certified(certificate, key)?);
        *self.current.write() = next;
        Ok(())
    }

    /// A listener's configuration: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, no client certificates.
    ///
    /// # Panics
    /// Never: the provider supports both versions.
    #[must_use]
    pub fn server_config(&self) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("the provider supports TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

/// [`ServiceCertificate::server_config`] for a certificate that is not replaced.
///
/// # Errors
/// `Malformed` or `KeyMismatch`.
pub fn service_server_config(certificate: &Certificate, key: &PrivateKey) -> Result<ServerConfig, PkiError> {
    Ok(ServiceCertificate::new(certificate, key)?.server_config())
}

#[derive(Debug)]
struct Resolver(ServiceCertificate);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.read()))
    }
}

pub(super) fn certified(certificate: &Certificate, key: &PrivateKey) -> Result<CertifiedKey, PkiError> {
    CertifiedKey::from_der(vec![certificate.to_rustls()], key.to_rustls(), &provider()).map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => PkiError::KeyMismatch("service"),
        other => PkiError::Malformed { what: "service certificate", cause: other.to_string() },
    })
}
