//! The listener: TLS, HTTP/1.1 and HTTP/2, and every bound on a connection's life.

use std::{convert::Infallible, future::Future, net::IpAddr, sync::Arc};

use http::Request;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    io::BufReader,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch as signal},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    front::{Front, Peer},
    limits::{
        CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HEAD_SIZE_MAX, HEAD_TIMEOUT, HEADERS_MAX, SHUTDOWN_GRACE,
        SOCKET_BUFFER_SIZE, STREAMS_PER_CONNECTION_MAX, WATCH_INTERVAL,
    },
    logs::Tls,
    observer::{Cut, Observer},
    watch::Watch,
};

const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Flow-control windows of HTTP/2, in bytes: what a client may send before it is asked for more.
const STREAM_WINDOW_SIZE: u32 = 1024 * 1024;
const CONNECTION_WINDOW_SIZE: u32 = 4 * 1024 * 1024;

type Stream = TlsStream<BufReader<TcpStream>>;

/// Accepts until `shutdown` completes; then lets requests in progress end, within [`SHUTDOWN_GRACE`].
pub(crate) async fn serve(
    front: Arc<Front>,
    observer: Arc<dyn Observer>,
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let acceptor = TlsAcceptor::from(with_protocols(tls));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopping) = signal::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        let Some((socket, peer, slot)) = accepted else { continue };
        let (acceptor, front, stopping) = (acceptor.clone(), Arc::clone(&front), stopping.clone());
        let observer = Arc::clone(&observer);
        connections.spawn(async move {
            observer.connection_opened();
            let cut = connection((socket, peer), acceptor, front, stopping).await;
            observer.connection_closed(cut);
            drop(slot);
        });
    }
    drop(listener);
    // Fails only when no connection is left to hear it.
    let _ = stop.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_GRACE, all).await.is_err() {
        tracing::warn!("requests still in progress after the grace period are cut");
    }
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, IpAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((socket, peer)) => Some((socket, peer.ip(), slot)),
        Err(error) => {
            // Out of descriptors, or a connection that was gone before it was taken: both pass.
            tracing::warn!(%error, "accepting a connection failed");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            None
        }
    }
}

/// Offers both protocols unless the configuration chose.
fn with_protocols(tls: Arc<ServerConfig>) -> Arc<ServerConfig> {
    if !tls.alpn_protocols.is_empty() {
        return tls;
    }
    let mut tls = ServerConfig::clone(&tls);
    tls.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    Arc::new(tls)
}

async fn connection(
    (socket, peer): (TcpStream, IpAddr),
    acceptor: TlsAcceptor,
    front: Arc<Front>,
    stopping: signal::Receiver<bool>,
) -> Option<Cut> {
    // Answers are written whole; waiting to fill a segment only delays their tails.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    let socket = BufReader::with_capacity(SOCKET_BUFFER_SIZE, socket);
    let stream = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return Some(Cut::Handshake);
        }
        Err(_) => return Some(Cut::HandshakeTimeout),
    };
    let watch = Arc::new(Watch::new());
    let agreed = &stream.get_ref().1;
    let tls = Tls {
        version: agreed.protocol_version().and_then(|version| tls_name(version.as_str()?)),
        cipher: agreed.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).map(cipher_name),
    };
    let peer = Peer { ip: peer, tls };
    if stream.get_ref().1.alpn_protocol() == Some(HTTP_2) {
        http2((stream, peer), front, watch, stopping).await
    } else {
        http1((stream, peer), front, watch, stopping).await
    }
}

/// As access logs name a version.
fn tls_name(version: &str) -> Option<&'static str> {
    match version {
        "TLSv1_2" => Some("TLSv1.2"),
        "TLSv1_3" => Some("TLSv1.3"),
        _ => None,
    }
}

/// As RFC 8446, appendix B.4, names a suite.
fn cipher_name(suite: &'static str) -> &'static str {
    match suite {
        "TLS13_AES_128_GCM_SHA256" => "TLS_AES_128_GCM_SHA256",
        "TLS13_AES_256_GCM_SHA384" => "TLS_AES_256_GCM_SHA384",
        "TLS13_CHACHA20_POLY1305_SHA256" => "TLS_CHACHA20_POLY1305_SHA256",
        other => other,
    }
}

macro_rules! drive {
    ($connection:ident, $watch:ident, $stopping:ident) => {{
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        tokio::pin!($connection);
        let mut told = false;
        loop {
            tokio::select! {
                ended = $connection.as_mut() => {
                    break ended.err().map(|error| {
                        tracing::debug!(%error, "connection ended");
                        Cut::Other
                    });
                }
                _ = ticks.tick() => {
                    if $watch.is_not_reading() {
                        break Some(Cut::NotReading);
                    }
                    if !told && $watch.is_idle_for(HEAD_TIMEOUT) {
                        told = true;
                        $connection.as_mut().graceful_shutdown();
                    }
                }
                asked = $stopping.wait_for(|stop| *stop), if !told => {
                    told = true;
                    // The sender is gone only when the server itself is.
                    let _ = asked;
                    $connection.as_mut().graceful_shutdown();
                }
            }
        }
    }};
}

async fn http1(
    (stream, peer): (Stream, Peer),
    front: Arc<Front>,
    watch: Arc<Watch>,
    mut stopping: signal::Receiver<bool>,
) -> Option<Cut> {
    let seen = Arc::clone(&watch);
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, watch) = (Arc::clone(&front), Arc::clone(&seen));
        async move {
            Ok::<_, Infallible>(
                front.answer(request, peer, &watch).await.unwrap_or_else(|never| match never {}),
            )
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        // A client that ends its side in the middle of a body still reads what was wrong with it.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    drive!(connection, watch, stopping)
}

async fn http2(
    (stream, peer): (Stream, Peer),
    front: Arc<Front>,
    watch: Arc<Watch>,
    mut stopping: signal::Receiver<bool>,
) -> Option<Cut> {
    let seen = Arc::clone(&watch);
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, watch) = (Arc::clone(&front), Arc::clone(&seen));
        async move {
            Ok::<_, Infallible>(
                front.answer(request, peer, &watch).await.unwrap_or_else(|never| match never {}),
            )
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(u32::try_from(HEAD_SIZE_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_SIZE)
        .initial_connection_window_size(CONNECTION_WINDOW_SIZE)
        .serve_connection(TokioIo::new(stream), service);
    drive!(connection, watch, stopping)
}
