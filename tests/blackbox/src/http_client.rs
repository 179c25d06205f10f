//! HTTPS as a strict client: one trust anchor, names verified, connections kept for reuse.
//!
//! [`Trust::fetching`] is the one exception: a harness that just made a virtual machine takes its CA
//! certificate over an unverified connection once, and verifies everything afterwards.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{
    ClientConfig, RootCertStore,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A node that is cut off in the middle of a request must not hold a test for ever.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const IDLE_CONNECTIONS_MAX: usize = 64;
/// How long a connection is kept without a request: well below the minute that our servers allow.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// A request body of any kind.
pub type Body = BoxBody<Bytes, io::Error>;

/// A body that is in memory.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Whom to believe.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trust")
    }
}

impl Trust {
    /// Believes servers whose chain ends in this CA certificate.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub fn ca_file(path: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in
            CertificateDer::pem_file_iter(path).with_context(|| format!("CA file {}", path.display()))?
        {
            roots.add(certificate?).with_context(|| format!("CA file {}", path.display()))?;
        }
        if roots.is_empty() {
            bail!("{} holds no certificate", path.display());
        }
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// Believes anyone: only to fetch the CA certificate of a machine this harness has just made.
    ///
    /// # Errors
    /// When the TLS library refuses its own defaults.
    pub fn fetching() -> Result<Self> {
        let provider = provider();
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// An answer with its body in memory.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The body as text, bytes that are not UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, when it is there and is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// One server. Clones share their idle connections.
#[derive(Debug, Clone)]
pub struct Https {
    authority: Arc<str>,
    address: SocketAddr,
    server_name: ServerName<'static>,
    trust: Trust,
    idle: Arc<Mutex<Vec<(Instant, http1::SendRequest<Body>)>>>,
    answer_limit: Duration,
}

impl Https {
    /// A client of `https://host:port`; nothing is connected yet.
    ///
    /// # Errors
    /// When the URL is not of that form or its host does not resolve.
    pub fn new(url: &str, trust: Trust) -> Result<Self> {
        let authority = url
            .strip_prefix("https://")
            .map(|rest| rest.split('/').next().unwrap_or(rest))
            .with_context(|| format!("{url:?} is not an https URL"))?;
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
        let address = authority
            .to_socket_addrs()
            .with_context(|| format!("resolving {authority}"))?
            .next()
            .with_context(|| format!("{authority} has no address"))?;
        let server_name =
            ServerName::try_from(host.to_owned()).with_context(|| format!("host name {host:?}"))?;
        Ok(Self {
            authority: authority.into(),
            address,
            server_name,
            trust,
            idle: Arc::default(),
            answer_limit: ANSWER_LIMIT,
        })
    }

    /// The same, waiting so long for the beginning of an answer.
    #[must_use]
    pub fn patient(&self, answer_limit: Duration) -> Self {
        Self { answer_limit, ..self.clone() }
    }

    /// `host:port`, as it belongs into the Host header.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A fresh TLS connection, for what no HTTP library would send.
    ///
    /// # Errors
    /// When the server cannot be reached in ten seconds or its certificate is not trusted.
    pub async fn connect_tls(&self) -> Result<TlsStream<TcpStream>> {
        let establish = async {
            let tcp = TcpStream::connect(self.address).await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(Arc::clone(&self.trust.0)).connect(self.server_name.clone(), tcp).await
        };
        timeout(CONNECT_LIMIT, establish)
            .await
            .map_err(|_| anyhow!("no connection to {} in {CONNECT_LIMIT:?}", self.authority))?
            .with_context(|| format!("connecting to {}", self.authority))
    }

    /// A fresh HTTP connection.
    ///
    /// # Errors
    /// As [`Https::connect_tls`].
    pub async fn connect(&self) -> Result<http1::SendRequest<Body>> {
        let tls = self.connect_tls().await?;
        let (sender, connection) =
            http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(tls)).await?;
        tokio::spawn(async move {
            // The request that was under way reports the error; the connection is then simply gone.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// Sends one request and returns the answer with its body still on the way. The connection is
    /// kept for reuse only by [`Https::send`].
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn start(
        &self,
        request: Request<Body>,
    ) -> Result<(Response<Incoming>, http1::SendRequest<Body>)> {
        let mut sender = loop {
            let kept = self.idle.lock().pop();
            match kept {
                Some((since, mut kept)) => {
                    // Servers close what is idle for long, possibly at the moment it is used again.
                    if since.elapsed() < IDLE_MAX && kept.ready().await.is_ok() {
                        break kept;
                    }
                }
                None => break self.connect().await?,
            }
        };
        let what = format!("{} {} to {}", request.method(), request.uri(), self.authority);
        let response = timeout(self.answer_limit, sender.send_request(request))
            .await
            .map_err(|_| anyhow!("{what}: no answer in {:?}", self.answer_limit))?
            .context(what)?;
        Ok((response, sender))
    }

    /// Sends one request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn send(&self, request: Request<Body>) -> Result<Answer> {
        let (response, sender) = self.start(request).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.with_context(|| format!("answer of {}", self.authority))?.to_bytes();
        self.keep(sender);
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// Keeps a connection whose answer was read to its end.
    pub fn keep(&self, sender: http1::SendRequest<Body>) {
        let mut idle = self.idle.lock();
        if !sender.is_closed() && idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push((Instant::now(), sender));
        }
    }
}
