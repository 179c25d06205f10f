//! Certificates of this node: the one its services show (S3, admin, metrics) and the one it shows to
//! peers. Both are issued by the cluster's CA, renewed long before they end, and exchanged without a
//! restart.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use holdfast_peer::{
    PeerClient, PeerServer,
    pki::{Ca, Certificate, NodeKey, PeerIdentity, PrivateKey, ServiceCertificate},
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::identity::{Credentials, write_durably};

/// Certificate and private key (PKCS#8) that this node's services showed last, DER each, as a postcard pair.
const SERVICE_FILE: &str = "identity/service.pair";

/// How often certificates are looked at. Service certificates live 30 days and are renewed each time.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// A peer certificate (90 days) is renewed when it has less than this left.
const PEER_RENEWAL_BEFORE: Duration = Duration::from_secs(45 * 24 * 3600);

/// Issues the first certificate for `names` (DNS names and IP addresses) and keeps it in `state_dir`.
///
/// # Errors
/// When the CA cannot sign for these names.
pub fn issue(ca: &Ca, names: &[String], state_dir: &Path) -> Result<ServiceCertificate> {
    let (certificate, key) = fresh(ca, names)?;
    keep(state_dir, &certificate, &key)?;
    ServiceCertificate::new(&certificate, key.private_key()).context("service certificate")
}

/// The certificate this node's services showed last, for when the CA's key is locked; before they showed
/// any, the peer certificate.
///
/// # Errors
/// When neither can be used.
pub fn last_shown(credentials: &Credentials, state_dir: &Path) -> Result<ServiceCertificate> {
    let kept = std::fs::read(state_dir.join(SERVICE_FILE)).map(Zeroizing::new).ok();
    let pair: Option<(Vec<u8>, Vec<u8>)> = kept.and_then(|bytes| postcard::from_bytes(&bytes).ok());
    let service = pair.and_then(|(certificate, key)| {
        ServiceCertificate::new(&Certificate::from_der(certificate), &PrivateKey::from_der(key)).ok()
    });
    match service {
        Some(service) => Ok(service),
        None => ServiceCertificate::new(&credentials.certificate, &credentials.key)
            .context("the peer certificate as a service certificate"),
    }
}

fn keep(state_dir: &Path, certificate: &Certificate, key: &NodeKey) -> Result<()> {
    let pair = Zeroizing::new(postcard::to_stdvec(&(certificate.der(), key.private_key().der()))?);
    write_durably(&state_dir.join(SERVICE_FILE), &pair, 0o600)
}

/// Renews until cancelled.
pub async fn keep_fresh(
    current: ServiceCertificate,
    ca: Arc<Ca>,
    names: Vec<String>,
    state_dir: PathBuf,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RENEWAL_INTERVAL) => {}
        }
        let renewed = fresh(&ca, &names).and_then(|(certificate, key)| {
            keep(&state_dir, &certificate, &key)?;
            current.replace(&certificate, key.private_key()).context("service certificate")
        });
        if let Err(error) = renewed {
            tracing::error!(
                error = format!("{error:#}"),
                "service certificate not renewed; will be tried again tomorrow"
            );
        }
    }
}

fn fresh(ca: &Ca, names: &[String]) -> Result<(Certificate, NodeKey)> {
    let key = NodeKey::generate().context("making a service key")?;
    let certificate = ca
        .issue_service(key.request(), names, holdfast_clock::system_time())
        .context("issuing a service certificate")?;
    Ok((certificate, key))
}

/// What a node shows to its peers, where it is kept and where it is shown.
#[derive(Debug)]
pub struct PeerCertificate {
    /// As it is on disk.
    pub credentials: Credentials,
    /// Where it is on disk.
    pub state_dir: PathBuf,
    /// This node's listener.
    pub server: Arc<PeerServer>,
    /// This node's links.
    pub client: PeerClient,
    /// Signs the next one.
    pub ca: Arc<Ca>,
}

impl PeerCertificate {
    /// Renews when it is time, until cancelled.
    pub async fn keep_fresh(mut self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.renew_if_due() {
                tracing::error!(
                    error = format!("{error:#}"),
                    "peer certificate not renewed; will be tried again tomorrow"
                );
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RENEWAL_INTERVAL) => {}
            }
        }
    }

    fn renew_if_due(&mut self) -> Result<()> {
        let Credentials { identity, ca, certificate, key } = &self.credentials;
        let now = holdfast_clock::system_time();
        let current = PeerIdentity::new(ca.clone(), certificate.clone(), key.clone())?;
        if !is_due(now, current.expires()) {
            return Ok(());
        }
        let fresh = NodeKey::generate()?;
        let next = Credentials {
            identity: identity.clone(),
            ca: ca.clone(),
            certificate: self.ca.issue_peer(fresh.request(), identity.node, now)?,
            key: fresh.private_key().clone(),
        };
        let shown = PeerIdentity::new(next.ca.clone(), next.certificate.clone(), next.key.clone())?;
        next.store(&self.state_dir)?;
        self.server.set_identity(&shown)?;
        self.client.set_identity(shown);
        self.credentials = next;
        tracing::info!("peer certificate renewed");
        Ok(())
    }
}

fn is_due(now: SystemTime, expires: SystemTime) -> bool {
    expires.duration_since(now).map_or(true, |left| left < PEER_RENEWAL_BEFORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_certificates_are_renewed_at_half_their_life_and_after_their_end() {
        let now = SystemTime::now();
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        assert!(!is_due(now, now + days(90)));
        assert!(!is_due(now, now + days(46)));
        assert!(is_due(now, now + days(44)));
        assert!(is_due(now, now - days(1)));
    }
}
