//! The gateway before an object layer in memory, to try clients by hand.
//!
//! `cargo run -p holdfast-gateway-s3 --example memory -- 127.0.0.1:9443 /tmp/ca.pem` writes the
//! certificate to trust; the key is `demo`, the secret `demosecret`, the region `us-east-1`.

#[path = "../tests/gateway/support/memory.rs"]
#[allow(dead_code, reason = "tests use the rest")]
mod memory;

use std::sync::Arc;

use holdfast_gateway_s3::S3Gateway;
use holdfast_model::config::S3Settings;
use rustls::{ServerConfig, pki_types::PrivateKeyDer};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9443".to_owned());
    let certificate = arguments.next().unwrap_or_else(|| "ca.pem".to_owned());
    let names = ["localhost", "127.0.0.1", "s3.localhost", "*.s3.localhost"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    std::fs::write(&certificate, made.cert.pem())?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())?;
    let tls =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)?;
    let objects = memory::MemoryGateway::new(&[("demo", "demosecret"), ("other", "othersecret")]);
    let gateway = S3Gateway::new(
        objects.clone(),
        objects.identities.clone(),
        vec!["s3.localhost".to_owned()],
        &S3Settings::default(),
        Arc::new(()),
    );
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("https://{address} with {certificate}");
    gateway.serve(listener, Arc::new(tls), std::future::pending()).await;
    Ok(())
}
