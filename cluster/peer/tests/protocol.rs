//! What a peer that breaks the protocol meets: its connection ends, nothing else does.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod support;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use holdfast_peer::{
    Method,
    frame::{BODY_SIZE_MAX, Header, Kind, PAYLOAD_SIZE_MAX},
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use rustls::version::TLS13;
use support::{raw::*, *};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

fn node_certificate(pair: &Pair) -> Shown {
    let mut params = CertificateParams::default();
    let name = format!("holdfast://{CLUSTER}/node/3");
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    leaf(&pair.ca, params)
}

fn request(method: u16, body_len: u32, payload_len: u32) -> Header {
    Header { kind: Kind::Request, method, id: 1, status: 0, deadline_ms: 20_000, body_len, payload_len }
}

/// Frames but heartbeats that are in `bytes`.
fn frames(mut bytes: &[u8]) -> Vec<Header> {
    let mut found = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let header = Header::parse(header).unwrap();
        bytes = &rest[(header.body_len + header.payload_len) as usize..];
        if header.kind != Kind::Heartbeat {
            found.push(header);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_frames_end_their_connection_and_no_other() {
    let pair = pair().await;
    let address = pair.server.local_addr();
    let good = request(Method::NodeStatus.code(), 0, 0).encode();
    let with = |at: usize, value: &[u8]| {
        let mut bytes = good;
        bytes[at..at + value.len()].copy_from_slice(value);
        bytes.to_vec()
    };
    let over = |limit: usize| u32::try_from(limit + 1).unwrap().to_le_bytes();
    let reply = Header { kind: Kind::Reply, deadline_ms: 0, ..request(1, 0, 0) };
    let cases = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: node.example\r\n\r\n".repeat(4)),
        ("zeros", vec![0; 4096]),
        ("wrong version", with(4, &[9])),
        ("wrong kind", with(5, &[77])),
        ("reserved bytes", with(18, &[1])),
        ("no deadline", with(20, &[0; 4])),
        ("no id", with(8, &[0; 8])),
        ("body above its limit", with(24, &over(BODY_SIZE_MAX))),
        ("payload above its limit", with(28, &over(PAYLOAD_SIZE_MAX))),
        ("body of 4 GiB", with(24, &[0xff; 4])),
        ("an answer nobody asked for", reply.encode().to_vec()),
    ];
    let calls = pair.service.calls.load(Ordering::SeqCst);
    for (what, bytes) in cases {
        let mut stream = knock(address, Some(node_certificate(&pair)), PEER).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        assert!(frames(&read_to_end(&mut stream).await).is_empty(), "{what} was answered");
    }
    assert_eq!(pair.service.calls.load(Ordering::SeqCst), calls);
    // The same bytes unspoilt are answered, and the pair's own links were not touched.
    let mut stream = knock(address, Some(node_certificate(&pair)), PEER).await.unwrap();
    stream.write_all(&good).await.unwrap();
    let mut header = [0; Header::SIZE];
    let answer = loop {
        stream.read_exact(&mut header).await.unwrap();
        let header = Header::parse(&header).unwrap();
        if header.kind != Kind::Heartbeat {
            break header;
        }
    };
    assert_eq!((answer.kind, answer.id), (Kind::Reply, 1));
    pair.client.call(SERVER, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await.unwrap();
    assert_eq!(pair.client.counters()[0].1.connects, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_forbidden_methods_are_refused_and_their_bytes_skipped() {
    let pair = pair().await;
    let mut stream = knock(pair.server.local_addr(), Some(node_certificate(&pair)), PEER).await.unwrap();
    for method in [0xffff, 0, Method::Join.code()] {
        stream.write_all(&request(method, 10_000, 20_000).encode()).await.unwrap();
        stream.write_all(&vec![0xaa; 30_000]).await.unwrap();
    }
    stream.write_all(&request(Method::NodeStatus.code(), 0, 0).encode()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let mut header = [0; Header::SIZE];
        timeout(LONG, stream.read_exact(&mut header)).await.unwrap().unwrap();
        let header = Header::parse(&header).unwrap();
        let mut body = vec![0; header.body_len as usize];
        stream.read_exact(&mut body).await.unwrap();
        if header.kind != Kind::Heartbeat {
            seen.push(header.kind);
        }
    }
    assert_eq!(seen, [Kind::Refusal, Kind::Refusal, Kind::Refusal, Kind::Reply]);
    assert_eq!(pair.service.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_cut_short_reaches_no_service() {
    let pair = pair().await;
    let mut stream = knock(pair.server.local_addr(), Some(node_certificate(&pair)), PEER).await.unwrap();
    stream.write_all(&request(Method::ShardPut.code(), 3, 4096).encode()).await.unwrap();
    stream.write_all(b"cut").await.unwrap();
    stream.write_all(&[1; 4095]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(frames(&read_to_end(&mut stream).await).is_empty());
    assert_eq!(pair.service.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_cannot_take_all_connections() {
    let pair = pair().await;
    let address = pair.server.local_addr();
    let mut open = Vec::new();
    for _ in 0..holdfast_peer::CONNECTIONS_PER_NODE_MAX {
        open.push(knock(address, Some(node_certificate(&pair)), PEER).await.expect("there is room"));
    }
    assert!(knock(address, Some(node_certificate(&pair)), PEER).await.is_err());
    pair.client.call(SERVER, Method::NodeStatus, Bytes::new(), None, TIMEOUT).await.expect("others get in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_in_the_doorway_does_not_keep_nodes_out() {
    let pair = pair().await;
    let address = pair.server.local_addr();
    let mut crowd = Vec::new();
    for _ in 0..3 * holdfast_peer::STRANGERS_MAX {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    for _ in 0..10 {
        knock(address, Some(node_certificate(&pair)), PEER).await.expect("a node gets in");
    }
    // The first of the crowd were sent away.
    let mut byte = [0];
    let oldest = timeout(LONG, crowd[0].read(&mut byte)).await.unwrap();
    assert!(matches!(oldest, Ok(0) | Err(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn someone_without_a_certificate_can_call_nothing_but_join() {
    let pair = pair().await;
    let address = pair.server.local_addr();
    for method in Method::ALL.into_iter().filter(|m| *m != Method::Join) {
        let mut stream = connect(address, None, Some(JOIN), &TLS13).await.unwrap();
        stream.write_all(&request(method.code(), 4, 4096).encode()).await.unwrap();
        stream.write_all(&[1; 4100]).await.unwrap();
        let answers = frames(&read_to_end(&mut stream).await);
        assert!(matches!(answers.as_slice(), [Header { kind: Kind::Refusal, .. }] | []), "{method:?}");
    }
    // Too large for a request to join: not read, not answered.
    let mut stream = connect(address, None, Some(JOIN), &TLS13).await.unwrap();
    stream.write_all(&request(Method::Join.code(), 64 * 1024 + 1, 0).encode()).await.unwrap();
    assert!(read_to_end(&mut stream).await.is_empty());
    // Nonsense in a frame of the right kind.
    let mut stream = connect(address, None, Some(JOIN), &TLS13).await.unwrap();
    stream.write_all(&request(Method::Join.code(), 64, 0).encode()).await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    let answers = frames(&read_to_end(&mut stream).await);
    assert_eq!(answers.iter().map(|h| (h.kind, h.status)).collect::<Vec<_>>(), [(Kind::Refusal, 1)]);
    assert_eq!(pair.service.calls.load(Ordering::SeqCst), 0);
}
