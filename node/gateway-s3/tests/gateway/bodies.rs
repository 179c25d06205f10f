//! A body that is not what was declared stores nothing, however it was declared.

use std::time::Duration;

use crate::support::{
    Server,
    client::{Answer, Body, Client, Signing, full, sha256},
};
use bytes::Bytes;
use futures::StreamExt;
use http::Method;
use http_body_util::{BodyExt, StreamBody};
use ring::{digest, hmac};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CONTENT: &[u8] = b"123456789";
const CRC32: &str = "y/Q5Jg==";

async fn send(client: &Client, headers: &[(&str, &str)], payload: &str, body: &[u8]) -> Answer {
    let (builder, _) = client.head(&Method::PUT, "/bucket/k", "", headers, payload);
    client.send(builder.body(full(body)).expect("a request")).await.expect("an answer")
}

async fn start() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    (server, client)
}

#[track_caller]
fn refused(server: &Server, answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.error(), (status, code.to_owned()), "{}", answer.text());
    assert!(!server.holds("bucket", "k"), "something was stored");
}

#[tokio::test]
async fn hashes_in_headers_are_verified() {
    let (server, client) = start().await;
    let right = sha256(CONTENT);
    refused(&server, &send(&client, &[], &sha256(b"other"), CONTENT).await, 400, "XAmzContentSHA256Mismatch");
    refused(
        &server,
        &send(&client, &[("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")], &right, CONTENT).await,
        400,
        "BadDigest",
    );
    refused(
        &server,
        &send(&client, &[("content-md5", "nonsense")], &right, CONTENT).await,
        400,
        "InvalidDigest",
    );
    let wrong = [
        ("x-amz-checksum-crc32", "AAAAAA=="),
        ("x-amz-checksum-crc32c", "AAAAAA=="),
        ("x-amz-checksum-crc64nvme", "AAAAAAAAAAA="),
        ("x-amz-checksum-sha1", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        ("x-amz-checksum-sha256", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ];
    for header in wrong {
        refused(&server, &send(&client, &[header], &right, CONTENT).await, 400, "BadDigest");
        refused(&server, &send(&client, &[header], "UNSIGNED-PAYLOAD", CONTENT).await, 400, "BadDigest");
        refused(&server, &send(&client, &[(header.0, "!")], &right, CONTENT).await, 400, "InvalidRequest");
    }
    for header in [
        ("x-amz-checksum-crc32", CRC32),
        ("x-amz-checksum-crc32c", "4waSgw=="),
        ("x-amz-checksum-crc64nvme", "rosUhgp5mIg="),
        ("x-amz-checksum-sha1", "98O8HYCOBHMq32eZZczDTKeuNEE="),
        ("x-amz-checksum-sha256", "FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="),
    ] {
        let put = send(&client, &[header], &right, CONTENT).await.ok();
        assert_eq!((put.header(header.0), put.header("x-amz-checksum-type")), (header.1, "FULL_OBJECT"));
        let got =
            client.call(Method::HEAD, "/bucket/k", "", &[("x-amz-checksum-mode", "ENABLED")], b"").await.ok();
        assert_eq!(got.header(header.0), header.1);
        assert_eq!(client.get("/bucket/k").await.header(header.0), "", "only when asked for");
    }
    server.stop().await;
}

#[tokio::test]
async fn trailers_are_verified() {
    let (server, client) = start().await;
    let mode = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
    let headers = [
        ("x-amz-decoded-content-length", "9"),
        ("x-amz-trailer", "x-amz-checksum-crc32"),
        ("content-encoding", "aws-chunked"),
        ("x-amz-sdk-checksum-algorithm", "CRC32"),
    ];
    let body = |content: &str, trailer: &str| {
        format!("{:x}\r\n{content}\r\n0\r\n{trailer}\r\n", content.len()).into_bytes()
    };
    let good = format!("x-amz-checksum-crc32:{CRC32}\r\n");
    for (content, trailer, status, code) in [
        ("123456789", "x-amz-checksum-crc32:AAAAAA==\r\n", 400, "BadDigest"),
        ("123456780", good.as_str(), 400, "BadDigest"),
        ("123456789", "", 400, "MalformedTrailerError"),
        ("123456789", "x-amz-checksum-sha1:AAAA\r\n", 400, "MalformedTrailerError"),
        ("12345678", good.as_str(), 400, "IncompleteBody"),
        ("1234567890", good.as_str(), 400, "IncompleteBody"),
    ] {
        refused(&server, &send(&client, &headers, mode, &body(content, trailer)).await, status, code);
    }
    refused(&server, &send(&client, &headers, mode, b"9\r\n123456789\r\n").await, 400, "InvalidRequest");
    refused(
        &server,
        &send(&client, &headers[1..], mode, &body("123456789", &good)).await,
        411,
        "MissingContentLength",
    );
    let put = send(&client, &headers, mode, &body("123456789", &good)).await.ok();
    assert_eq!(put.header("x-amz-checksum-crc32"), CRC32);
    let got =
        client.call(Method::GET, "/bucket/k", "", &[("x-amz-checksum-mode", "ENABLED")], b"").await.ok();
    assert_eq!(
        (&got.body[..], got.header("x-amz-checksum-crc32"), got.header("content-encoding")),
        (CONTENT, CRC32, "")
    );
    server.stop().await;
}

/// A signed chunked body of three chunks, and its trailers if any.
fn signed(signing: &Signing, content: &[u8], trailer: Option<&str>) -> Vec<u8> {
    let empty = sha256(b"");
    let mut previous = signing.signature.clone();
    let mut wire = Vec::new();
    let (first, second) = content.split_at(content.len() / 2);
    for chunk in [first, second, b""] {
        let text = format!(
            "AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{previous}\n{empty}\n{}",
            signing.date,
            signing.scope,
            sha256(chunk)
        );
        previous = signing.sign(&text);
        wire.extend_from_slice(format!("{:x};chunk-signature={previous}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        if !chunk.is_empty() {
            wire.extend_from_slice(b"\r\n");
        }
    }
    if let Some(trailer) = trailer {
        let hash = sha256(format!("{trailer}\n").as_bytes());
        let text =
            format!("AWS4-HMAC-SHA256-TRAILER\n{}\n{}\n{previous}\n{hash}", signing.date, signing.scope);
        wire.extend_from_slice(
            format!("{trailer}\r\nx-amz-trailer-signature:{}\r\n", signing.sign(&text)).as_bytes(),
        );
    }
    wire.extend_from_slice(b"\r\n");
    wire
}

#[tokio::test]
async fn chunk_signatures_are_verified() {
    let (server, client) = start().await;
    let trailer = format!("x-amz-checksum-crc32:{CRC32}");
    for (mode, trailer) in [
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", None),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", Some(trailer.as_str())),
    ] {
        let mut headers = vec![("x-amz-decoded-content-length", "9")];
        if trailer.is_some() {
            headers.push(("x-amz-trailer", "x-amz-checksum-crc32"));
        }
        let send = |change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
            let (builder, signing) = client.head(&Method::PUT, "/bucket/k", "", &headers, mode);
            let (client, request) =
                (client.clone(), builder.body(full(&change(signed(&signing, CONTENT, trailer)))).unwrap());
            async move { client.send(request).await.expect("an answer") }
        };
        let flip = |wire: Vec<u8>| {
            wire.iter().map(|byte| if *byte == b'3' { b'3' } else { *byte }).collect::<Vec<u8>>()
        };
        let changed = |mut wire: Vec<u8>| {
            let at = wire.windows(4).position(|window| window == b"1234").unwrap();
            wire[at] = b'X';
            wire
        };
        refused(&server, &send(&changed).await, 403, "SignatureDoesNotMatch");
        let unsigned = |_: Vec<u8>| b"9\r\n123456789\r\n0\r\n\r\n".to_vec();
        refused(&server, &send(&unsigned).await, 400, "InvalidRequest");
        let cut = |mut wire: Vec<u8>| {
            let at = wire.windows(3).position(|window| window == b"\r\n0").unwrap();
            wire.truncate(at + 2);
            wire
        };
        refused(&server, &send(&cut).await, 400, "InvalidRequest");
        send(&flip).await.ok();
        assert_eq!(&client.get("/bucket/k").await.ok().body[..], CONTENT);
        client.delete("/bucket/k").await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_trailer_changed_after_signing_is_refused() {
    let (server, client) = start().await;
    let headers = [("x-amz-decoded-content-length", "9"), ("x-amz-trailer", "x-amz-checksum-crc32")];
    let mode = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
    let (builder, signing) = client.head(&Method::PUT, "/bucket/k", "", &headers, mode);
    let wire = signed(&signing, CONTENT, Some("x-amz-checksum-crc32:AAAAAA=="));
    let wire = String::from_utf8(wire).unwrap().replace("AAAAAA==", CRC32);
    let answer = client.send(builder.body(full(wire.as_bytes())).unwrap()).await.unwrap();
    refused(&server, &answer, 403, "SignatureDoesNotMatch");
    server.stop().await;
}

#[tokio::test]
async fn a_body_cut_off_stores_nothing() {
    let (server, client) = start().await;
    let mut stream = client.connect().await;
    let (builder, _) =
        client.head(&Method::PUT, "/bucket/k", "", &[("content-length", "100")], "UNSIGNED-PAYLOAD");
    let request = builder.body(()).unwrap();
    let mut head = format!("PUT {} HTTP/1.1\r\n", request.uri());
    for (name, value) in request.headers() {
        head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    stream.write_all(format!("{head}\r\nonly a few bytes").as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // The server may end TCP without ending TLS first; what was answered until then counts.
    let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("IncompleteBody"), "{answer}");
    assert!(!server.holds("bucket", "k"));
    let records = server.records.clone();
    server.stop().await;
    assert!(records.0.lock().iter().all(|record| record.operation != "PutObject" || record.status != 200));
}

#[tokio::test]
async fn a_body_without_a_length_is_refused() {
    let (server, client) = start().await;
    let (builder, _) = client.head(&Method::PUT, "/bucket/k", "", &[], "UNSIGNED-PAYLOAD");
    let pieces =
        futures::stream::iter([Ok::<_, std::io::Error>(http_body::Frame::data(Bytes::from_static(CONTENT)))]);
    let body: Body = StreamBody::new(pieces).boxed_unsync();
    refused(&server, &client.send(builder.body(body).unwrap()).await.unwrap(), 411, "MissingContentLength");
    server.stop().await;
}

#[tokio::test]
async fn one_huge_chunk_streams_and_comes_back_whole() {
    const SIZE: usize = 48 * 1024 * 1024;
    let (server, client) = start().await;
    let piece = Bytes::from((0..64 * 1024u32).map(|i| (i % 251) as u8).collect::<Vec<u8>>());
    let pieces = SIZE / piece.len();
    let mut hash = digest::Context::new(&digest::SHA256);
    (0..pieces).for_each(|_| hash.update(&piece));
    let expected = hash.finish();
    let headers =
        [("x-amz-decoded-content-length", &*SIZE.to_string()), ("x-amz-trailer", "x-amz-checksum-sha256")]
            .map(|(n, v)| (n, v.to_owned()));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (builder, _) =
        client.head(&Method::PUT, "/bucket/k", "", &headers, "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    use base64::Engine;
    let checksum = base64::engine::general_purpose::STANDARD.encode(expected.as_ref());
    let before = futures::stream::iter([Bytes::from(format!("{SIZE:x}\r\n"))]);
    let after =
        futures::stream::iter([Bytes::from(format!("\r\n0\r\nx-amz-checksum-sha256:{checksum}\r\n\r\n"))]);
    let content = futures::stream::iter((0..pieces).map(move |_| piece.clone()));
    let wire = before
        .chain(content)
        .chain(after)
        .map(|bytes| Ok::<_, std::io::Error>(http_body::Frame::data(bytes)));
    let body: Body = StreamBody::new(wire).boxed_unsync();
    client.send(builder.body(body).unwrap()).await.unwrap().ok();

    let got = client.get("/bucket/k").await.ok();
    assert_eq!(sha256(&got.body), hex::encode(expected.as_ref()));
    server.stop().await;
}

/// The signing code under test is not the client's: this one is checked against AWS's published key.
#[test]
fn the_clients_signing_key_is_that_of_the_documentation() {
    let mut key = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_vec();
    for piece in ["20120215", "us-east-1", "iam", "aws4_request"] {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), piece.as_bytes()).as_ref().to_vec();
    }
    assert_eq!(hex::encode(key), "f4780e2d9f65fa895f9c67b32ce1baf0b0d8a43505a000a1a9e090d414db404d");
}
