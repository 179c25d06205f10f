//! The bare parts of a PUT and a GET on this machine, one thread each, nothing around them: what the row's bytes
//! would cost if the node did only what cannot be left out.
//!
//! | part | PUT | GET |
//! |---|---|---|
//! | TLS | opens records | seals records |
//! | hash | MD5 (the ETag) and CRC64NVME (the checksum every object gets) | |
//! | seal | AES-256-GCM of all cells, and 4+2 parity | AES-256-GCM of all cells |
//! | frame | CRC-32C of all shards | CRC-32C of the data shards |

use std::{
    io::{Read, Write},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use holdfast_crypt::{BodyContext, BodySealer};
use holdfast_erasure::Code;
use holdfast_model::{BucketId, ClusterId, TenantId, VersionId};
use holdfast_stripe::{Layout, open_cells, seal_and_encode};
use md5::{Digest, Md5};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    pki_types::{PrivateKeyDer, ServerName},
};
use serde::Serialize;

const DATA: u8 = 4;
const PARITY: u8 = 2;
/// What each part is given in one turn, in bytes: a stripe.
const TURN: usize = 2 * 1024 * 1024;
/// How long each part is measured.
const TIME: Duration = Duration::from_millis(400);
const GB: f64 = 1e9;

/// Seconds of one core for a gigabyte of content.
#[derive(Debug, Clone, Copy, Serialize)]
#[allow(missing_docs)]
pub struct Bare {
    pub tls_open: f64,
    pub tls_seal: f64,
    pub md5: f64,
    pub crc64: f64,
    pub seal_and_encode: f64,
    pub open: f64,
    pub crc32c: f64,
}

impl Bare {
    /// Measures all of it.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn measure() -> Result<Self> {
        let content = vec![0x5a; TURN];
        let (tls_seal, tls_open) = tls(&content)?;
        let (seal_and_encode, open, shards) = stripes(&content)?;
        Ok(Self {
            tls_open,
            tls_seal,
            md5: per_gb(TURN, || {
                std::hint::black_box(Md5::digest(&content));
            }),
            crc64: per_gb(TURN, || {
                std::hint::black_box(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, &content));
            }),
            seal_and_encode,
            open,
            crc32c: per_gb(TURN, || {
                for shard in shards.iter().take(usize::from(DATA)) {
                    std::hint::black_box(crc32c::crc32c(shard));
                }
            }),
        })
    }

    /// All of a PUT's parts. Parity is framed like data.
    pub fn put(&self) -> f64 {
        let framed = f64::from(DATA + PARITY) / f64::from(DATA);
        self.tls_open + self.md5 + self.crc64 + self.seal_and_encode + self.crc32c * framed
    }

    /// All of a GET's parts.
    pub fn get(&self) -> f64 {
        self.tls_seal + self.open + self.crc32c
    }
}

/// Runs `work` on `bytes` for a while; seconds for a gigabyte.
fn per_gb(bytes: usize, mut work: impl FnMut()) -> f64 {
    let (begun, mut turns) = (Instant::now(), 0_u32);
    while begun.elapsed() < TIME {
        work();
        turns += 1;
    }
    begun.elapsed().as_secs_f64() / (f64::from(turns) * bytes as f64) * GB
}

type Shards = Vec<Vec<u8>>;

fn stripes(content: &[u8]) -> Result<(f64, f64, Shards)> {
    let body = BodySealer::begin(BodyContext {
        cluster: ClusterId::from_bytes([1; 16]),
        tenant: TenantId::from_bytes([2; 16]),
        bucket: BucketId::from_bytes([3; 16]),
        content: VersionId::from_bytes([4; 16]),
    });
    let len = content.len().min(Layout::capacity(DATA));
    let layout = Layout::new(DATA, PARITY, len).context("a layout")?;
    let code = Code::of(DATA, PARITY)?;
    let mut shards = vec![vec![0; layout.shard_len()]; usize::from(DATA + PARITY)];
    let seal = |shards: &mut Shards| {
        let sealer = body.stripe().expect("far fewer than 2^32 stripes");
        let number = sealer.number();
        let mut slices: Vec<&mut [u8]> = shards.iter_mut().map(Vec::as_mut_slice).collect();
        seal_and_encode(&layout, &code, sealer, false, &mut slices).map(|()| number)
    };
    let sealing = per_gb(len, || {
        seal(&mut shards).expect("shards fit their layout");
    });
    // A sealed cell opens once; the copy that is opened each time is part of the figure.
    let mut sealed = vec![vec![0; layout.shard_len()]; usize::from(DATA + PARITY)];
    let number = seal(&mut sealed)?;
    let spans = layout.plan(0..len);
    let opening = per_gb(len, || {
        for span in &spans {
            let mut bytes = sealed[span.shard][span.bytes.clone()].to_vec();
            open_cells(&layout, body.key(), number, false, &span.cells, span.bytes.start, &mut bytes)
                .expect("what was sealed opens");
        }
    });
    Ok((sealing, opening, sealed))
}

/// Seals on one side and opens on the other, in memory; seconds for a gigabyte of each.
fn tls(content: &[u8]) -> Result<(f64, f64)> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let server =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key)?;
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone())?;
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let mut sender = ServerConnection::new(Arc::new(server))?;
    let mut receiver = ClientConnection::new(Arc::new(client), ServerName::try_from("localhost")?)?;
    let mut wire = Vec::new();
    while sender.is_handshaking() || receiver.is_handshaking() {
        wire.clear();
        while receiver.wants_write() {
            receiver.write_tls(&mut wire)?;
        }
        let mut bytes = &wire[..];
        while !bytes.is_empty() {
            sender.read_tls(&mut bytes)?;
            sender.process_new_packets()?;
        }
        wire.clear();
        while sender.wants_write() {
            sender.write_tls(&mut wire)?;
        }
        let mut bytes = &wire[..];
        while !bytes.is_empty() {
            receiver.read_tls(&mut bytes)?;
            receiver.process_new_packets()?;
        }
    }
    let (mut sealing, mut opening, mut bytes_done) = (Duration::ZERO, Duration::ZERO, 0_usize);
    let mut plain = vec![0; content.len()];
    sender.set_buffer_limit(None);
    while sealing + opening < 2 * TIME {
        wire.clear();
        let begun = Instant::now();
        sender.writer().write_all(content)?;
        while sender.wants_write() {
            sender.write_tls(&mut wire)?;
        }
        sealing += begun.elapsed();
        let begun = Instant::now();
        let mut bytes = &wire[..];
        while !bytes.is_empty() {
            receiver.read_tls(&mut bytes)?;
            let waiting = receiver.process_new_packets()?.plaintext_bytes_to_read();
            receiver.reader().read_exact(&mut plain[..waiting.min(content.len())])?;
        }
        opening += begun.elapsed();
        bytes_done += content.len();
    }
    let per_gb = |spent: Duration| spent.as_secs_f64() / bytes_done as f64 * GB;
    Ok((per_gb(sealing), per_gb(opening)))
}
