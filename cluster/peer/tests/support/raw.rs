//! TLS and frames by hand: what a program would do that is not ours.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use holdfast_peer::frame::Header;
use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};

use holdfast_peer::pki::Ca;

pub const PEER: &[u8] = b"holdfast-peer/1";
pub const JOIN: &[u8] = b"holdfast-join/1";
/// Above every limit on silence: a test that waits this long has failed.
pub const LONG: Duration = Duration::from_secs(60);

/// A certificate with its key.
pub type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A leaf as `params` say, signed by `ca`.
pub fn leaf(ca: &Ca, params: CertificateParams) -> Shown {
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(
        &PrivatePkcs8KeyDer::from(ca.key().der()),
        &PKCS_ECDSA_P256_SHA256,
    );
    let issuer =
        Issuer::from_ca_cert_der(&CertificateDer::from(ca.certificate().der()), pair.unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let ca = CertificateDer::from(ca.certificate().der().to_vec());
    (vec![certificate.der().clone(), ca], key_of(key.serialize_der()))
}

pub fn key_of(der: Vec<u8>) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

/// Connects with whatever certificate, believing whoever answers.
pub async fn connect(
    address: SocketAddr,
    shown: Option<Shown>,
    protocol: Option<&[u8]>,
    version: &'static SupportedProtocolVersion,
) -> Result<TlsStream<TcpStream>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone));
    let mut config = match shown {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocol.into_iter().map(<[u8]>::to_vec).collect();
    let tcp = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::from(address.ip()), tcp)
        .await
        .map_err(|e| e.to_string())
}

/// Connects as [`connect`] and waits for the server's first frame, which says that it accepts.
pub async fn knock(
    address: SocketAddr,
    shown: Option<Shown>,
    protocol: &[u8],
) -> Result<TlsStream<TcpStream>, String> {
    let mut stream = connect(address, shown, Some(protocol), &TLS13).await?;
    let mut first = [0; Header::SIZE];
    match timeout(LONG, stream.read_exact(&mut first)).await.expect("an answer or an end in time") {
        Ok(_) => {
            assert_eq!(Header::parse(&first), Ok(Header::HEARTBEAT));
            Ok(stream)
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Reads until the other side closes; returns what it sent.
pub async fn read_to_end(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut all = Vec::new();
    let _closed = timeout(LONG, stream.read_to_end(&mut all)).await.expect("an end in time");
    all
}

/// A server that shows `shown`, sends one heartbeat to whoever comes, and then says nothing.
pub async fn impostor(shown: Shown, protocol: &'static [u8]) -> SocketAddr {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(shown.0, shown.1)
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(super::any_port()).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                let _gone = stream.write_all(&Header::HEARTBEAT.encode()).await;
                open.push(stream);
            }
        }
    });
    address
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
