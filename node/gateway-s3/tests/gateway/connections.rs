//! Connections: many at once, kept alive, refused early, ended in order.

use std::time::Duration;

use crate::support::{
    Server,
    client::{Body, full, sha256},
};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn idle_and_half_done_connections_do_not_disturb_others() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    let mut idle = Vec::new();
    for number in 0..60 {
        let mut stream = client.connect().await;
        if number % 2 == 0 {
            stream.write_all(b"PUT /bucket/k HTTP/1.1\r\nhost: localhost\r\nx-slow").await.unwrap();
        }
        idle.push(stream);
    }
    // Half a TLS record, then silence.
    let mut raw = tokio::net::TcpStream::connect(server.address).await.unwrap();
    raw.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    client.put("/bucket/k", b"content").await.ok();
    assert_eq!(client.get("/bucket/k").await.ok().text(), "content");
    drop((idle, raw));
    server.stop().await;
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(client.connect().await)).await.unwrap();
    tokio::spawn(connection);
    for number in 0..20 {
        let content = format!("content {number}");
        let (builder, _) = client.head(&Method::PUT, "/bucket/k", "", &[], &sha256(content.as_bytes()));
        let answer = sender.send_request(builder.body(full(content.as_bytes())).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.into_body().collect().await.unwrap();
        // A refusal in between does not end the connection.
        let (builder, _) = client.head(&Method::GET, "/bucket/gone", "", &[], &sha256(b""));
        let answer = sender.send_request(builder.body(full(b"")).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 404);
        answer.into_body().collect().await.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_expects_to_continue_is_refused_before_it_sends() {
    let server = Server::start().await;
    let client = server.client();
    let headers = [("expect", "100-continue"), ("content-length", "1000000")];
    let answer = |bucket: &'static str| {
        let client = client.clone();
        async move {
            let path = format!("/{bucket}/k");
            let (builder, _) = client.head(&Method::PUT, &path, "", &headers, "UNSIGNED-PAYLOAD");
            let request: Request<()> = builder.body(()).unwrap();
            let mut head = format!("PUT {path} HTTP/1.1\r\n");
            for (name, value) in request.headers() {
                head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
            }
            let mut stream = client.connect().await;
            stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
            let mut answer = vec![0; 4096];
            let read = stream.read(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer[..read]).into_owned()
        }
    };
    assert!(answer("no-bucket").await.starts_with("HTTP/1.1 404"));
    client.put("/bucket", b"").await.ok();
    assert!(answer("bucket").await.starts_with("HTTP/1.1 100"));
    server.stop().await;
}

#[tokio::test]
async fn a_request_in_progress_is_finished_when_the_server_stops() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    let (mut feed, fed) =
        futures::channel::mpsc::channel::<Result<http_body::Frame<Bytes>, std::io::Error>>(1);
    let (builder, _) =
        client.head(&Method::PUT, "/bucket/k", "", &[("content-length", "10")], "UNSIGNED-PAYLOAD");
    let request = builder.body(StreamBody::new(fed).boxed_unsync()).unwrap();
    let sending = tokio::spawn({
        let client = client.clone();
        async move { client.send(request).await }
    });
    feed.try_send(Ok(http_body::Frame::data(Bytes::from_static(b"01234")))).unwrap();
    let objects = server.objects.clone();
    until(async || objects.bodies_begun() == 1).await;
    let address = server.address;
    let stopping = tokio::spawn(server.stop());
    until(async || tokio::net::TcpStream::connect(address).await.is_err()).await;
    feed.try_send(Ok(http_body::Frame::data(Bytes::from_static(b"56789")))).unwrap();
    drop(feed);
    sending.await.unwrap().expect("an answer").ok();
    stopping.await.unwrap();
    assert!(objects.holds("bucket", "k"));
}

/// Waits for a condition that must come true.
async fn until(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("it comes true");
}

#[tokio::test]
async fn oversized_heads_and_documents_are_refused() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    let document = format!("<Delete><Object><Key>{}</Key></Object></Delete>", "k".repeat(9 * 1024 * 1024));
    let answer = client.call(Method::POST, "/bucket", "delete", &[], document.as_bytes()).await;
    assert_eq!(answer.error(), (400, "MaxMessageLengthExceeded".to_owned()));

    let mut stream = client.connect().await;
    let endless = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-filler: {}", "x".repeat(2 * 1024 * 1024));
    // The server stops reading and answers; writing on may fail.
    let _ = stream.write_all(endless.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .expect("cut off");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    client.get("/bucket").await.ok();
    server.stop().await;
}
