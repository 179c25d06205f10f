//! Hand-signed S3 requests over a fresh TLS connection each. Independent of the gateway's own signing
//! code, so that a mistake there is not made twice.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ring::{digest, hmac};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
    /// Content of the first element of this name.
    pub fn element(&self, name: &str) -> Option<String> {
        self.elements(name).into_iter().next()
    }
    pub fn elements(&self, name: &str) -> Vec<String> {
        let text = self.text();
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        text.split(&open).skip(1).filter_map(|rest| rest.split(&close).next().map(str::to_owned)).collect()
    }
    /// Status and error code.
    pub fn error(&self) -> (u16, String) {
        (self.status.as_u16(), self.element("Code").unwrap_or_default())
    }
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.status.is_success(), "{}: {}", self.status, self.text());
        self
    }
}

/// How a request is signed; the defaults are right, tests bend them.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    pub access_key: String,
    pub secret: String,
    pub region: String,
    pub service: String,
    pub host: String,
    pub skew_seconds: i64,
    pub http2: bool,
    pub anonymous: bool,
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

/// Percent-encodes all but unreserved characters; `/` as asked.
pub fn encode(text: &str, keep_slash: bool) -> String {
    let unreserved =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || byte == b'/' && keep_slash;
    text.bytes()
        .map(|byte| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Civil date of a Unix day (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn date(unix: u64) -> String {
    let (days, rest) = ((unix / 86400) as i64 + 719_468, unix % 86400);
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

/// A signature in the making.
pub struct Signing {
    pub date: String,
    pub scope: String,
    pub key: Vec<u8>,
    pub signature: String,
}

impl Signing {
    pub fn sign(&self, text: &str) -> String {
        hex::encode(mac(&self.key, text))
    }
}

impl Client {
    pub fn new(address: SocketAddr, tls: Arc<ClientConfig>, access_key: &str, secret: &str) -> Self {
        Self {
            address,
            tls,
            access_key: access_key.to_owned(),
            secret: secret.to_owned(),
            region: "us-east-1".to_owned(),
            service: "s3".to_owned(),
            host: format!("localhost:{}", address.port()),
            skew_seconds: 0,
            http2: false,
            anonymous: false,
        }
    }

    fn now(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        date(now.saturating_add_signed(self.skew_seconds))
    }

    fn canonical_query(query: &str) -> String {
        let mut pairs: Vec<(String, String)> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        pairs.sort();
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    }

    fn signing(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &[(String, String)],
        payload: &str,
        date: &str,
    ) -> (Signing, String) {
        let mut headers = headers.to_vec();
        headers.sort();
        let canonical: String =
            headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
        let names = headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
        let request =
            format!("{method}\n{path}\n{}\n{canonical}\n{names}\n{payload}", Self::canonical_query(query));
        let scope = format!("{}/{}/{}/aws4_request", &date[..8], self.region, self.service);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(request.as_bytes()));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for piece in scope.split('/') {
            key = mac(&key, piece);
        }
        let mut signing = Signing { date: date.to_owned(), scope, key, signature: String::new() };
        signing.signature = signing.sign(&text);
        (signing, names)
    }

    /// The head of a signed request; `payload` is the value of `x-amz-content-sha256`. `path` is encoded.
    pub fn head(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        payload: &str,
    ) -> (http::request::Builder, Signing) {
        let date = self.now();
        let mut signed: Vec<(String, String)> =
            headers.iter().map(|(name, value)| (name.to_lowercase(), (*value).to_owned())).collect();
        signed.push(("host".to_owned(), self.host.clone()));
        signed.push(("x-amz-date".to_owned(), date.clone()));
        signed.push(("x-amz-content-sha256".to_owned(), payload.to_owned()));
        let (signing, names) = self.signing(method, path, query, &signed, payload, &date);
        let uri = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let uri = if self.http2 { format!("https://{}{uri}", self.host) } else { uri };
        let mut builder = Request::builder().method(method.clone()).uri(uri);
        for (name, value) in &signed {
            if !(self.http2 && name == "host") {
                builder = builder.header(name, value);
            }
        }
        if !self.anonymous {
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={names}, Signature={}",
                self.access_key, signing.scope, signing.signature
            );
            builder = builder.header("authorization", authorization);
        }
        (builder, signing)
    }

    /// A presigned path and query.
    pub fn presign(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        expires: &str,
        headers: &[(&str, &str)],
    ) -> String {
        let date = self.now();
        let mut signed: Vec<(String, String)> =
            headers.iter().map(|(name, value)| (name.to_lowercase(), (*value).to_owned())).collect();
        signed.push(("host".to_owned(), self.host.clone()));
        signed.sort();
        let names = signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
        let credential =
            format!("{}/{}/{}/{}/aws4_request", self.access_key, &date[..8], self.region, self.service);
        let mut all = query.to_owned();
        for (name, value) in [
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &credential),
            ("X-Amz-Date", &date),
            ("X-Amz-Expires", expires),
            ("X-Amz-SignedHeaders", &names),
        ] {
            all.push_str(&format!(
                "{}{name}={}",
                if all.is_empty() { "" } else { "&" },
                encode(value, false)
            ));
        }
        let (signing, _) = self.signing(method, path, &all, &signed, "UNSIGNED-PAYLOAD", &date);
        format!("{path}?{all}&X-Amz-Signature={}", signing.signature)
    }

    pub async fn connect(&self) -> TlsStream<TcpStream> {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![if self.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let socket = TcpStream::connect(self.address).await.expect("a connection");
        let name = self.host.split(':').next().expect("a name").to_owned();
        let name = ServerName::try_from(name).expect("a server name");
        TlsConnector::from(Arc::new(tls)).connect(name, socket).await.expect("a handshake")
    }

    /// Sends and reads the whole answer.
    pub async fn send(&self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        let response = self.open(request).await?;
        let (parts, body) = response.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }

    /// Sends and leaves the body to the caller.
    pub async fn open(
        &self,
        request: Request<Body>,
    ) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
        let io = TokioIo::new(self.connect().await);
        if self.http2 {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            return sender.send_request(request).await;
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await
    }

    /// One signed request with a body in memory.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let (builder, _) = self.head(&method, path, query, headers, &sha256(body));
        let builder =
            if method == Method::PUT { builder.header("content-length", body.len()) } else { builder };
        let request = builder.body(full(body)).expect("a request");
        let answered = tokio::time::timeout(Duration::from_secs(60), self.send(request)).await;
        answered.expect("an answer in time").expect("an answer")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, "", &[], b"").await
    }
    pub async fn put(&self, path: &str, body: &[u8]) -> Answer {
        self.call(Method::PUT, path, "", &[], body).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, "", &[], b"").await
    }
}

pub fn full(body: &[u8]) -> Body {
    Full::new(Bytes::copy_from_slice(body)).map_err(|never| match never {}).boxed_unsync()
}
