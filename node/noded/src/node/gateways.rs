//! Certificates, and what clients, operators and monitoring connect to: last, when what they need answers.

use std::sync::Arc;

use anyhow::Result;
use holdfast_gateway_s3::S3Gateway;

use super::{
    addresses::service_names, base::Base, cluster::Cluster, links::Links, listen, objects::Objects,
    replicas::Replicas, storage::Storage,
};
use crate::{admin::Admin, key_admin::Keys, metrics, tls};

/// Opens them.
///
/// # Errors
/// When a certificate cannot be issued, or an address cannot be had.
pub async fn open_gateways(
    base: &mut Base,
    links: &Links,
    replicas: &Replicas,
    storage: &Storage,
    cluster: Cluster,
    objects: Objects,
) -> Result<()> {
    let Cluster { ca, session_key } = cluster;
    let Objects { objects, identities, external_keys, key_steward, counters } = objects;
    let (config, stop) = (base.config.clone(), base.stop.clone());
    let names = service_names(&config);
    let peer_certificate = tls::PeerCertificate {
        credentials: base.credentials.clone(),
        state_dir: config.state_dir.clone(),
        server: Arc::clone(&links.server),
        client: links.peers.clone(),
        ca: Arc::clone(&ca),
    };
    base.tasks.spawn(peer_certificate.keep_fresh(stop.clone()));
    let certificate = tls::issue(&ca, &names, &config.state_dir)?;
    let tls_config = Arc::new(certificate.server_config());
    let state_dir = config.state_dir.clone();
    base.tasks.spawn(tls::keep_fresh(certificate, Arc::clone(&ca), names, state_dir, stop.clone()));
    let monitor = metrics::monitor(metrics::Parts {
        shards: Arc::clone(&storage.shards),
        health: Arc::clone(&replicas.health),
        keeper: Arc::clone(&storage.keeper),
        consensus: Arc::clone(&replicas.consensus),
        groups: Arc::clone(&replicas.groups),
        comparison: Arc::clone(&replicas.comparison),
        peers: links.peers.clone(),
        journal: Arc::clone(&replicas.journal),
        counters,
        pools: base.pools.clone(),
        objects: Arc::clone(&objects),
        unlocker: Arc::clone(&replicas.unlocker),
        external_keys: Arc::clone(&external_keys),
    });
    let keys = Keys {
        steward: key_steward,
        unlocker: Arc::clone(&replicas.unlocker),
        health: Arc::clone(&replicas.health),
    };
    let admin = Arc::new(Admin {
        name: base.name(),
        control: replicas.control.clone(),
        consensus: Arc::clone(&replicas.consensus),
        health: Arc::clone(&replicas.health),
        ward: Arc::clone(&replicas.ward),
        comparison: Arc::clone(&replicas.comparison),
        keyring: Arc::clone(&base.keyring),
        ca,
        session_key,
        objects: Arc::clone(&objects),
        keys,
        external_keys,
        identities: Arc::clone(&identities),
        peers: links.peers.clone(),
        keeper: Arc::clone(&storage.keeper),
        own: base.own(),
    });
    let admin_listener = listen(config.listen.admin, "admin").await?;
    let metrics_listener = listen(config.listen.metrics, "metrics").await?;
    let s3_listener = listen(config.listen.s3, "S3").await?;
    let shutdown = || stop.clone().cancelled_owned();
    base.tasks.spawn(holdfast_admin_api::serve(
        admin_listener,
        Arc::clone(&tls_config),
        holdfast_admin_api::router(admin),
        shutdown(),
    ));
    let render = Arc::clone(&monitor);
    base.tasks.spawn(holdfast_admin_api::serve_metrics(
        metrics_listener,
        Arc::clone(&tls_config),
        Arc::new(move || render.render()),
        shutdown(),
    ));
    let gateway = S3Gateway::new(
        Arc::new(objects),
        identities,
        config.s3_domains.clone(),
        &config.s3,
        Arc::new(metrics::S3Observer(monitor)),
    );
    base.tasks.spawn(gateway.serve(s3_listener, tls_config, shutdown()));
    Ok(())
}
