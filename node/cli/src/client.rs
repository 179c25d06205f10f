//! The admin API over HTTPS: one connection, one request after the other. Trusts the cluster's CA and nobody else.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long an answer may take: a password check on a busy node takes its time.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Largest answer, in bytes: a cluster of 252 nodes with all their drives is a few MiB.
const ANSWER_SIZE_MAX: usize = 64 * 1024 * 1024;

/// What the node refused, and why.
#[derive(Debug, thiserror::Error)]
#[error("{status}: {detail}")]
pub struct Refused {
    /// The HTTP status.
    pub status: StatusCode,
    /// The node's sentence.
    pub detail: String,
}

/// Where a node answers, and whom to believe.
#[derive(Debug, Clone)]
pub struct Client {
    host: String,
    port: u16,
    trust: Arc<ClientConfig>,
    token: Option<String>,
}

impl Client {
    /// A client of the node at `server`, `https://HOST:PORT`, whose certificate is of the CA in `ca`.
    ///
    /// # Errors
    /// When the address or the file is not of that kind.
    pub fn new(server: &str, ca: &Path) -> Result<Self> {
        let uri: Uri = server.parse().with_context(|| format!("{server:?} is not a URL"))?;
        if uri.scheme_str() != Some("https") {
            bail!("{server:?}: the admin API is HTTPS only; write https://HOST:PORT");
        }
        let host = uri.host().with_context(|| format!("{server:?} names no host"))?;
        let mut roots = RootCertStore::empty();
        let certificates =
            CertificateDer::pem_file_iter(ca).with_context(|| format!("reading {}", ca.display()))?;
        for certificate in certificates {
            roots
                .add(certificate?)
                .with_context(|| format!("{} holds another kind of certificate", ca.display()))?;
        }
        if roots.is_empty() {
            bail!("{} holds no certificate", ca.display());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // An IPv6 address stands in brackets in a URL, and without them everywhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(443), trust: Arc::new(trust), token: None })
    }

    /// The node's address as a key to remember it by.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The same, in a session.
    #[must_use]
    pub fn with_token(self, token: String) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// [`Refused`], or when the node cannot be reached.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// Has something done.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        self.call(Method::POST, path, body).await
    }

    /// Ends something.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let what = format!("{method} {path} at {}", self.authority());
        let answered = timeout(ANSWER_WITHIN, self.exchange(method, path, body)).await;
        answered.map_err(|_| anyhow!("{what}: no answer in {ANSWER_WITHIN:?}"))?.context(what)
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let connecting = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            let name = ServerName::try_from(self.host.clone())?;
            anyhow::Ok(TlsConnector::from(Arc::clone(&self.trust)).connect(name, tcp).await?)
        };
        let tls = timeout(CONNECT_WITHIN, connecting)
            .await
            .map_err(|_| anyhow!("no connection in {CONNECT_WITHIN:?}"))?
            .context("connecting")?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        let driving = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, self.authority());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = match body {
            Some(value) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(serde_json::to_vec(value)?)
            }
            None => Bytes::new(),
        };
        let (head, body) = sender.send_request(request.body(Full::new(bytes))?).await?.into_parts();
        let body = Limited::new(body, ANSWER_SIZE_MAX).collect().await.map_err(|error| anyhow!("{error}"))?;
        let body = body.to_bytes();
        driving.abort();
        if !head.status.is_success() {
            let detail = serde_json::from_slice::<Value>(&body).ok();
            let detail = detail.and_then(|problem| Some(problem["detail"].as_str()?.to_owned()));
            let detail = detail.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
            return Err(Refused { status: head.status, detail }.into());
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body).context("the answer is not JSON")
    }
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(segment("n1"), "n1");
        assert_eq!(segment("a/../b?c"), "a%2F..%2Fb%3Fc");
    }

    #[test]
    fn only_https_is_spoken_and_only_with_a_ca() {
        let missing = Path::new("/nonexistent/ca.pem");
        assert!(Client::new("http://127.0.0.1:8443", missing).unwrap_err().to_string().contains("HTTPS"));
        assert!(Client::new("https://127.0.0.1:8443", missing).unwrap_err().to_string().contains("reading"));
    }
}
