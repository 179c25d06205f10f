//! TLS of the service listeners, as an ordinary client sees it.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::{sync::Arc, time::SystemTime};

use holdfast_peer::pki::{Ca, NodeKey, PkiError, ServiceCertificate, service_server_config};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName},
    version::{TLS12, TLS13},
};
use support::ca;
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn trusting(ca: &Ca, version: &'static SupportedProtocolVersion, alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.certificate().der().to_vec())).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// One handshake in memory: what protocol was agreed on and what leaf the client saw.
async fn shake(
    acceptor: &TlsAcceptor,
    connector: &TlsConnector,
    name: &'static str,
) -> Result<(Option<Vec<u8>>, Vec<u8>), String> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let serve = acceptor.accept(theirs);
    let name = ServerName::try_from(name).unwrap();
    let (client, _server) = tokio::join!(connector.connect(name, ours), serve);
    let client = client.map_err(|e| e.to_string())?;
    let session = client.get_ref().1;
    let leaf = session.peer_certificates().unwrap()[0].to_vec();
    Ok((session.alpn_protocol().map(<[u8]>::to_vec), leaf))
}

#[tokio::test]
async fn clients_that_trust_the_ca_reach_a_service_by_its_names_only() {
    let ca = ca();
    let key = NodeKey::generate().unwrap();
    let names = ["s3.example".to_owned(), "*.s3.example".to_owned(), "127.0.0.1".to_owned()];
    let certificate = ca.issue_service(key.request(), &names, SystemTime::now()).unwrap();
    let config = service_server_config(&certificate, key.private_key()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    for version in [&TLS12, &TLS13] {
        for name in ["s3.example", "bucket.s3.example", "127.0.0.1"] {
            let h2 = trusting(&ca, version, &[b"h2", b"http/1.1"]);
            let (protocol, leaf) = shake(&acceptor, &h2, name).await.unwrap();
            assert_eq!(protocol.as_deref(), Some(b"h2".as_slice()), "{name}");
            assert_eq!(leaf, certificate.der());
        }
        let old = trusting(&ca, version, &[b"http/1.1"]);
        assert_eq!(
            shake(&acceptor, &old, "s3.example").await.unwrap().0.as_deref(),
            Some(b"http/1.1".as_slice())
        );
        assert!(shake(&acceptor, &old, "other.example").await.is_err());
        assert!(shake(&acceptor, &old, "127.0.0.2").await.is_err());
        let stranger = support::ca();
        assert!(shake(&acceptor, &trusting(&stranger, version, &[]), "s3.example").await.is_err());
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let ca = ca();
    let issue = || {
        let key = NodeKey::generate().unwrap();
        let certificate =
            ca.issue_service(key.request(), &["s3.example".to_owned()], SystemTime::now()).unwrap();
        (certificate, key)
    };
    let ((first, first_key), (second, second_key)) = (issue(), issue());
    let shown = ServiceCertificate::new(&first, first_key.private_key()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(shown.server_config()));
    let connector = trusting(&ca, &TLS13, &[]);
    assert_eq!(shake(&acceptor, &connector, "s3.example").await.unwrap().1, first.der());
    let mismatch = shown.replace(&second, first_key.private_key());
    assert!(matches!(mismatch, Err(PkiError::KeyMismatch(_))));
    assert_eq!(shake(&acceptor, &connector, "s3.example").await.unwrap().1, first.der());
    shown.replace(&second, second_key.private_key()).unwrap();
    assert_eq!(shake(&acceptor, &connector, "s3.example").await.unwrap().1, second.der());
}
