//! Serves the console and the API over a made-up cluster, to look at pages and to try clients on.
//!
//! `cargo run -p holdfast-admin-api --example console -- [healthy|troubled] [port]`, then
//! `https://127.0.0.1:8443` as `admin` (or `watcher`, who may only look), password `correct horse`.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::Arc;

use holdfast_admin_api::{router, serve};
use parking_lot::Mutex;
use support::Example;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let mut arguments = std::env::args().skip(1);
    let scene = match arguments.next().as_deref() {
        None | Some("healthy") => support::healthy,
        Some("troubled") => support::troubled,
        Some(other) => return Err(format!("unknown scene {other:?}: healthy or troubled").into()),
    };
    let port: u16 = arguments.next().map_or(Ok(8443), |port| port.parse())?;

    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der())?;
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;

    let backend = Example { cluster: Mutex::new(Box::new(scene)), ..Example::default() };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("https://127.0.0.1:{port}  user admin or watcher, password {:?}", support::PASSWORD);
    let interrupted = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    serve(listener, Arc::new(tls), router(Arc::new(backend)), interrupted).await;
    Ok(())
}
