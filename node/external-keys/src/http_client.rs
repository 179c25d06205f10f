//! One request over HTTPS/1.1, bounded in time and size. Redirects are answers like any other, and no variable of the
//! environment names a proxy. The address is judged after it was resolved, and that address is the one connected to.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_events::is_refused;
use holdfast_object::events::Network;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::{
    ServiceError,
    settings::{Place, SettingsError, VaultSettings},
};

/// How long one request may take, connection and answer included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one address is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Addresses of a service that are tried, at most.
const ADDRESSES_MAX: usize = 4;

/// Largest answer that is read, head and body each, in bytes.
pub const ANSWER_SIZE_MAX: usize = 64 * 1024;

const USER_AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"));

/// A service, ready to be connected to.
#[derive(Debug)]
pub(crate) struct HttpClient {
    place: Place,
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    authority: HeaderValue,
    /// Networks that are connected to although such addresses are refused by themselves.
    networks: Vec<Network>,
}

/// An answer as it came.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub body: Zeroizing<Vec<u8>>,
}

fn unreachable(what: &str, error: &dyn std::fmt::Display) -> ServiceError {
    ServiceError::Unreachable(format!("{what}: {error}"))
}

impl HttpClient {
    pub fn new(settings: &VaultSettings, networks: Vec<Network>) -> Result<Self, SettingsError> {
        let place = settings.place()?;
        let name = ServerName::try_from(place.host.clone()).map_err(|_| SettingsError::Url)?;
        let authority = HeaderValue::from_str(&place.authority).map_err(|_| SettingsError::Url)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| SettingsError::Ca)?
            .with_root_certificates(settings.roots()?)
            .with_no_client_auth();
        Ok(Self { place, name, tls: Arc::new(tls), authority, networks })
    }

    /// Sends one request and reads the answer.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, ServiceError> {
        let asked = tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(method, path, headers, body)).await;
        let late = || {
            Err(ServiceError::Unreachable(format!("no answer within {} seconds", REQUEST_TIMEOUT.as_secs())))
        };
        asked.unwrap_or_else(|_| late())
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<Answer, ServiceError> {
        let stream = self.connect().await?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream =
            connector.connect(self.name.clone(), stream).await.map_err(|error| unreachable("TLS", &error))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(ANSWER_SIZE_MAX)
            .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable("HTTP", &error))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() =
            path.parse().map_err(|_| ServiceError::Protocol("an unusable path".to_owned()))?;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(header::HOST, self.authority.clone());
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| unreachable("HTTP", &error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_SIZE_MAX).collect().await;
            let body = body.map_err(|error| unreachable("the answer's body", &error))?.to_bytes();
            Ok(Answer { status, body: Zeroizing::new(body.to_vec()) })
        };
        tokio::pin!(exchange, connection);
        let mut ended = false;
        loop {
            tokio::select! {
                answer = &mut exchange => return answer,
                // Its error comes to the exchange as well.
                _ = &mut connection, if !ended => ended = true,
            }
        }
    }

    async fn connect(&self) -> Result<TcpStream, ServiceError> {
        let resolved = lookup_host((self.place.host.as_str(), self.place.port)).await;
        let resolved = resolved.map_err(|error| unreachable("its name was not resolved", &error))?;
        let is_allowed = |address: &SocketAddr| {
            !is_refused(address.ip()) || self.networks.iter().any(|network| network.contains(address.ip()))
        };
        let mut last = ServiceError::Unreachable(format!(
            "{:?} is at an address that nodes do not connect to: this machine, its links or a metadata service. \
             The cluster's event networks can allow it",
            self.place.host
        ));
        for address in resolved.filter(is_allowed).take(ADDRESSES_MAX) {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true).map_err(|error| unreachable("no connection", &error))?;
                    return Ok(stream);
                }
                Ok(Err(error)) => last = unreachable("no connection", &error),
                Err(_) => last = unreachable("no connection", &io::Error::from(io::ErrorKind::TimedOut)),
            }
        }
        Err(last)
    }
}
