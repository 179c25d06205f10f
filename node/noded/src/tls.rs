//! The certificate of this node's services (S3, admin, metrics): issued by the cluster's CA, renewed
//! long before it ends, exchanged without a restart.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use holdfast_peer::pki::{Ca, Certificate, NodeKey, ServiceCertificate};
use tokio_util::sync::CancellationToken;

/// How often a fresh certificate is issued. Certificates live 30 days.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Issues the first certificate for `names` (DNS names and IP addresses).
///
/// # Errors
/// When the CA cannot sign for these names.
pub fn issue(ca: &Ca, names: &[String]) -> Result<ServiceCertificate> {
    let (certificate, key) = fresh(ca, names)?;
    ServiceCertificate::new(&certificate, key.private_key()).context("service certificate")
}

/// Renews until cancelled.
pub async fn keep_fresh(
    current: ServiceCertificate,
    ca: Arc<Ca>,
    names: Vec<String>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RENEWAL_INTERVAL) => {}
        }
        let renewed = fresh(&ca, &names).and_then(|(certificate, key)| {
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
    let certificate =
        ca.issue_service(key.request(), names, SystemTime::now()).context("issuing a service certificate")?;
    Ok((certificate, key))
}
