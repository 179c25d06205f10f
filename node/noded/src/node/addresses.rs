//! Where this node's services are, what they may be called by, and telling the cluster so.

use std::time::Duration;

use holdfast_control::{Command, ServiceAddresses};
use holdfast_model::{NodeId, config::NodeConfig};
use tokio_util::sync::CancellationToken;

use crate::control::Control;

/// How long after a failed attempt the next is made.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(1);

/// Addresses of this node's services.
pub(crate) fn services(config: &NodeConfig) -> ServiceAddresses {
    ServiceAddresses {
        s3: config.listen.s3.to_string(),
        admin: config.listen.admin.to_string(),
        metrics: config.listen.metrics.to_string(),
    }
}

/// Tells the control group where this node is, until it has taken it.
pub(super) async fn announce(control: Control, config: NodeConfig, own: NodeId, stop: CancellationToken) {
    loop {
        let outcome = async {
            let view = control.view().await?;
            let moved = view.nodes.get(&own).is_none_or(|record| {
                record.peer != config.advertise_peer || record.services != services(&config)
            });
            if moved {
                let update = Command::UpdateNode {
                    node: own,
                    peer: config.advertise_peer,
                    services: services(&config),
                };
                control.propose(&update).await?.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            }
            anyhow::Ok(())
        };
        match outcome.await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "not announced yet; will be tried again")
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(ANNOUNCE_AGAIN) => {}
        }
    }
}

/// Everything a client may call this node's services by.
pub(super) fn service_names(config: &NodeConfig) -> Vec<String> {
    let mut names: Vec<String> = vec![config.name.clone(), "localhost".to_owned()];
    names.push(config.advertise_peer.ip().to_string());
    names.extend(config.service_names.iter().cloned());
    for domain in &config.s3_domains {
        names.push(domain.clone());
        names.push(format!("*.{domain}"));
        names.push(format!("*.website.{domain}"));
    }
    names.sort();
    names.dedup();
    names
}
