//! Every limit of the gateway, with its unit, in one place.
//!
//! Limits of the protocol that other layers share (key and part sizes, page lengths) are in
//! `holdfast_model::limits`.

use std::time::Duration;

/// Connections served at once. One more waits in the kernel's backlog until another ends.
pub const CONNECTIONS_MAX: usize = 4096;

/// Requests in progress at once, over all connections. One more is answered 503 `SlowDown`.
pub const REQUESTS_MAX: usize = 1024;

/// Requests in progress at once on one HTTP/2 connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 128;

/// Buffer between the socket and TLS, in bytes. Larger reads from the socket: 1.2x on large PUTs.
pub const SOCKET_BUFFER_SIZE: usize = 256 * 1024;

/// How long a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may take to send a request head; also how long a connection may stay idle.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a body may stand still before the connection is given up.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Slowest body accepted in bytes per second, up or down, once [`BODY_IDLE_TIMEOUT`] has been used up.
pub const BODY_RATE_MIN: u64 = 4 * 1024;

/// How often a connection is checked for a client that has stopped reading.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// How long requests in progress may go on after a shutdown was asked for.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// Body bytes read and thrown away so that a refused client sees its answer and not a reset: an ordinary part of an
/// upload fits.
pub const DRAIN_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// How long that may take.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Largest request head on HTTP/2, in bytes. On HTTP/1.1 the HTTP library's read buffer bounds it (400 KiB).
pub const HEAD_SIZE_MAX: usize = 64 * 1024;

/// Headers of one request.
pub const HEADERS_MAX: usize = 128;

/// Largest XML body in bytes: 10,000 parts with a checksum each, or 1,000 escaped keys, fit.
pub const XML_BODY_SIZE_MAX: usize = 8 * 1024 * 1024;

/// Longest `size;chunk-signature=...` line of an aws-chunked body, in bytes.
pub const CHUNK_LINE_SIZE_MAX: usize = 256;

/// Trailers of an aws-chunked body, in bytes.
pub const TRAILERS_SIZE_MAX: usize = 4096;

/// Largest single chunk an aws-chunked body may declare, in bytes. Chunks are not buffered.
pub const CHUNK_SIZE_MAX: u64 = holdfast_model::limits::PUT_SIZE_MAX;

/// How far a request's date may be from this node's clock (AWS: 15 minutes).
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// Longest life of a presigned URL (AWS: 7 days).
pub const PRESIGNED_LIFE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

const _: () = assert!(CHUNK_LINE_SIZE_MAX < TRAILERS_SIZE_MAX);
const _: () = assert!(TRAILERS_SIZE_MAX < SOCKET_BUFFER_SIZE);
const _: () = assert!(REQUESTS_MAX <= CONNECTIONS_MAX);

/// Fields of a form before its file, in bytes (AWS: 20 KB without the policy).
pub const FORM_FIELDS_SIZE_MAX: usize = 96 * 1024;

/// Fields of a form before its file.
pub const FORM_FIELDS_MAX: usize = 256;

/// Largest body of a call to IAM or STS, in bytes: a policy of 10,240 bytes, encoded, fits.
pub const QUERY_BODY_SIZE_MAX: usize = 128 * 1024;
