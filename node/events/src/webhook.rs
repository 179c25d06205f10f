//! Posts events over HTTP/1.1.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_object::events::{EventSender, EventSettings, Parcel, Undelivered, Webhook};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};
use tokio_rustls::TlsConnector;

use crate::{
    address::is_refused,
    message::message,
    target::{Target, TargetError},
};

/// How long it may take to send one event and hear the answer.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one address is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Addresses of a target that are tried, at most.
const ADDRESSES_MAX: usize = 4;

/// Largest answer that is read, head and body each, in bytes. What is in it is not looked at.
pub const ANSWER_SIZE_MAX: usize = 64 * 1024;

/// Targets that are kept ready, at most.
const READY_MAX: usize = 256;

/// How this program calls itself.
const USER_AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"));

/// Why a target did not take an event.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("{0}")]
    Target(#[from] TargetError),
    #[error("the name {0:?} was not resolved: {1}")]
    Resolve(String, #[source] io::Error),
    #[error(
        "{0:?} is at an address that events are not sent to: this machine, its links or a metadata service. The \
         cluster's event settings can allow its network"
    )]
    Refused(String),
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the target answered {0}")]
    Status(StatusCode),
    #[error("no answer within {} seconds", SEND_TIMEOUT.as_secs())]
    Late,
}

impl SendError {
    /// Whether the target answered that it does not take this event, and not that it cannot now.
    fn is_of_this_event(&self) -> bool {
        let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
        matches!(self, Self::Status(status) if status.is_client_error() && !later.contains(status))
    }
}

/// Sends events to webhooks.
#[derive(Debug, Default)]
pub struct WebhookSender {
    /// Targets as they were last checked, by what they are.
    ready: Mutex<HashMap<String, (Webhook, Arc<Target>)>>,
}

impl WebhookSender {
    fn target(&self, webhook: &Webhook) -> Result<Arc<Target>, TargetError> {
        let mut ready = self.ready.lock();
        if let Some((_, target)) = ready.get(&webhook.url).filter(|(known, _)| known == webhook) {
            return Ok(Arc::clone(target));
        }
        let target = Arc::new(Target::parse(webhook)?);
        if ready.len() >= READY_MAX {
            ready.clear();
        }
        ready.insert(webhook.url.clone(), (webhook.clone(), Arc::clone(&target)));
        Ok(target)
    }

    async fn post(&self, parcel: Parcel<'_>) -> Result<(), SendError> {
        let target = self.target(parcel.webhook)?;
        let body = message(parcel.event, parcel.no, parcel.region).to_string();
        let stream = connect(&target, parcel.settings).await?;
        let status = match &target.tls {
            None => exchange(stream, &target, body).await?,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await.map_err(SendError::Tls)?;
                exchange(stream, &target, body).await?
            }
        };
        // A redirect is an answer like any other: it could lead anywhere.
        if status.is_success() { Ok(()) } else { Err(SendError::Status(status)) }
    }
}

#[async_trait::async_trait]
impl EventSender for WebhookSender {
    async fn send(&self, parcel: Parcel<'_>) -> Result<(), Undelivered> {
        let sent = tokio::time::timeout(SEND_TIMEOUT, self.post(parcel)).await;
        sent.unwrap_or(Err(SendError::Late))
            .map_err(|error| Undelivered { why: error.to_string(), only_this: error.is_of_this_event() })
    }
}

/// Connects to the first address of a target that may be sent to and answers. What is resolved is what is connected
/// to: nobody can change it in between.
async fn connect(target: &Target, settings: &EventSettings) -> Result<TcpStream, SendError> {
    let resolved = lookup_host((target.host.as_str(), target.port)).await;
    let resolved = resolved.map_err(|error| SendError::Resolve(target.host.clone(), error))?;
    let is_allowed = |address: &SocketAddr| {
        !is_refused(address.ip()) || settings.networks.iter().any(|network| network.contains(address.ip()))
    };
    let mut last = SendError::Refused(target.host.clone());
    for address in resolved.filter(is_allowed).take(ADDRESSES_MAX) {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).map_err(SendError::Connect)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = SendError::Connect(error),
            Err(_) => last = SendError::Connect(io::ErrorKind::TimedOut.into()),
        }
    }
    Err(last)
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    target: &Target,
    body: String,
) -> Result<StatusCode, SendError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(ANSWER_SIZE_MAX)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await?;
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path.parse().map_err(|_| TargetError::Url)?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, target.authority.clone());
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    if let Some(authorization) = &target.authorization {
        headers.insert(header::AUTHORIZATION, authorization.clone());
    }
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        // Read so that the other side is not cut off; how it ends changes nothing.
        let _ = Limited::new(answer.into_body(), ANSWER_SIZE_MAX).collect().await;
        Ok(status)
    };
    tokio::pin!(exchange, connection);
    let mut ended = false;
    loop {
        tokio::select! {
            status = &mut exchange => return status,
            // Its error comes to the exchange as well.
            _ = &mut connection, if !ended => ended = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_model::UnixMillis;
    use holdfast_object::events::{Event, EventKind, Network, Origin};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        sync::mpsc,
    };
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn event() -> Event {
        Event {
            kind: EventKind::Put,
            at: UnixMillis::new(0),
            bucket: "b".into(),
            owner: String::new(),
            key: "k".into(),
            version: None,
            size: Some(1),
            etag: None,
            rule: "r".into(),
            origin: Origin::default(),
        }
    }

    async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let read = stream.read(&mut buffer).await.unwrap();
            text.extend_from_slice(&buffer[..read]);
            if read == 0 || text.ends_with(b"}]}") {
                return String::from_utf8(text).unwrap();
            }
        }
    }

    /// Answers every connection so; gives back the requests.
    async fn receiver(answer: String, tls: Option<TlsAcceptor>) -> (u16, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = match &tls {
                    None => {
                        let request = read_request(&mut stream).await;
                        stream.write_all(answer.as_bytes()).await.ok();
                        request
                    }
                    Some(acceptor) => {
                        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                        let request = read_request(&mut stream).await;
                        stream.write_all(answer.as_bytes()).await.ok();
                        stream.shutdown().await.ok();
                        request
                    }
                };
                sender.send(request).ok();
            }
        });
        (port, requests)
    }

    async fn send(webhook: &Webhook, networks: &[&str]) -> Result<(), Undelivered> {
        let networks: Vec<Network> = networks.iter().map(|network| network.parse().unwrap()).collect();
        let settings = EventSettings { networks };
        let event = event();
        let parcel = Parcel { webhook, settings: &settings, region: "local", no: 1, event: &event };
        WebhookSender::default().send(parcel).await
    }

    fn plain(port: u16) -> Webhook {
        Webhook { url: format!("http://127.0.0.1:{port}/hook?x=1"), bearer: None, ca_pem: None }
    }

    fn answer(status: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\nlocation: http://192.0.2.1/\r\n\r\nok")
    }

    #[tokio::test]
    async fn an_event_is_posted_and_only_a_success_counts() {
        let (port, mut requests) = receiver(answer("204 No Content"), None).await;
        send(&plain(port), &["127.0.0.0/8"]).await.unwrap();
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\"eventName\":\"ObjectCreated:Put\""), "{request}");
        let answers = ["302 Found", "404 Not Found", "429 Too Many Requests", "500 Internal Server Error"];
        for status in answers {
            let (port, mut requests) = receiver(answer(status), None).await;
            let error = send(&plain(port), &["127.0.0.0/8"]).await.unwrap_err();
            assert!(error.why.contains(&status[..3]), "{error}");
            assert_eq!(error.only_this, status.starts_with("404"), "{status}");
            requests.recv().await.unwrap();
        }
    }

    #[tokio::test]
    async fn this_machine_is_not_sent_to_unless_the_settings_say_so() {
        let (port, mut requests) = receiver(answer("200 OK"), None).await;
        let by_name = Webhook { url: format!("http://localhost:{port}/"), bearer: None, ca_pem: None };
        let mapped =
            Webhook { url: format!("http://[::ffff:127.0.0.1]:{port}/"), bearer: None, ca_pem: None };
        for webhook in [&plain(port), &by_name, &mapped] {
            let error = send(webhook, &["10.0.0.0/8"]).await.unwrap_err();
            assert!(error.why.contains("not sent to"), "{error}");
        }
        assert!(requests.try_recv().is_err());
        send(&mapped, &["127.0.0.0/8"]).await.unwrap();
    }

    #[tokio::test]
    async fn who_does_not_answer_http_or_at_all_is_an_error() {
        let (port, _requests) = receiver("junk\r\n\r\n".to_owned(), None).await;
        assert!(send(&plain(port), &["127.0.0.0/8"]).await.unwrap_err().why.contains("HTTP"));
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(2 * ANSWER_SIZE_MAX));
        let (port, _requests) = receiver(long, None).await;
        assert!(send(&plain(port), &["127.0.0.0/8"]).await.unwrap_err().why.contains("HTTP"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = listener.local_addr().unwrap().port();
        drop(listener);
        assert!(send(&plain(closed), &["127.0.0.0/8"]).await.unwrap_err().why.contains("no connection"));
    }

    #[tokio::test]
    async fn a_tls_target_is_known_by_its_authority_and_hears_the_secret() {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let (port, mut requests) = receiver(answer("200 OK"), Some(Arc::new(config).into())).await;
        let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let webhook = |ca: String| Webhook {
            url: format!("https://127.0.0.1:{port}/"),
            bearer: Some("geheim".to_owned()),
            ca_pem: Some(ca),
        };
        let error = send(&webhook(other.cert.pem()), &["127.0.0.0/8"]).await.unwrap_err();
        assert!(error.why.contains("TLS"), "{error}");
        send(&webhook(made.cert.pem()), &["127.0.0.0/8"]).await.unwrap();
        let request = requests.recv().await.unwrap();
        assert!(request.contains("authorization: Bearer geheim\r\n"), "{request}");
    }
}
