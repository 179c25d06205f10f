//! One row of the benchmark: so many clients, each with its own connection, one request after another.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures::StreamExt;
use holdfast_blackbox::{
    cluster_file::ClusterFile,
    http_client::{Https, Trust},
    s3::{Call, Client, Payload},
    tree::noise,
};
use holdfast_model::ByteCount;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::task::JoinSet;

use crate::body::Pieces;

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// PutObject
    Put,
    /// GetObject
    Get,
    /// DeleteObject of what PUT of the same row wrote
    Delete,
    /// ListObjectsV2: one page of 1,000 keys
    List,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Delete => "delete",
            Self::List => "list",
        })
    }
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What it does.
    pub operation: Operation,
    /// Object size.
    pub size: ByteCount,
    /// Clients at once.
    pub clients: usize,
}

impl Row {
    /// `put 4KiB x16`
    pub fn name(&self) -> String {
        match self.operation {
            Operation::List => format!("list {LISTED_KEYS} x{}", self.clients),
            operation => format!("{operation} {} x{}", self.size_name(), self.clients),
        }
    }

    /// `64MiB`
    pub fn size_name(&self) -> String {
        let kib = self.size.get() / 1024;
        if kib >= 1024 { format!("{}MiB", kib / 1024) } else { format!("{kib}KiB") }
    }
}

/// Where load goes.
#[derive(Debug, Clone)]
pub struct Target {
    nodes: Vec<(String, Client)>,
    trust: Trust,
    bucket: &'static str,
    signed: bool,
}

impl Target {
    /// All nodes of a cluster, in turn.
    pub fn new(cluster: &ClusterFile, bucket: &'static str, signed: bool) -> Result<Self> {
        let nodes = cluster
            .nodes
            .iter()
            .map(|node| Ok((node.s3.clone(), Client::of(cluster, node)?)))
            .collect::<Result<_>>()?;
        Ok(Self { nodes, trust: cluster.trust()?, bucket, signed })
    }

    /// The bucket, and a client of the first node.
    pub fn first(&self) -> Result<(&'static str, Client)> {
        Ok((self.bucket, self.nodes.first().context("the cluster has no nodes")?.1.clone()))
    }

    /// Makes the bucket.
    pub async fn prepare(&self) -> Result<()> {
        self.nodes.first().context("the cluster has no nodes")?.1.create_bucket(self.bucket).await
    }

    /// Writes the keys that listings list.
    pub async fn prepare_listing(&self) -> Result<()> {
        let client = &self.nodes.first().context("the cluster has no nodes")?.1;
        let writes = (0..LISTED_KEYS).map(|number| async move {
            let key = format!("{LISTED_PREFIX}{number:04}");
            client.put(self.bucket, &key, Bytes::from_static(b"x")).await
        });
        let mut writes = futures::stream::iter(writes).buffer_unordered(16);
        while let Some(written) = writes.next().await {
            written?;
        }
        Ok(())
    }

    /// A client with connections of its own; clients are spread over the nodes.
    fn client(&self, number: usize) -> Result<Client> {
        let (url, client) = &self.nodes[number % self.nodes.len()];
        Ok(Client::new(Https::new(url, self.trust.clone())?, client.credentials().clone()))
    }
}

/// What a row did.
#[derive(Debug)]
pub struct Run {
    /// Time of each request, sorted.
    pub latencies: Vec<Duration>,
    /// From the first request's start to the last one's end.
    pub elapsed: Duration,
}

impl Run {
    /// Finished requests.
    pub fn requests(&self) -> u64 {
        self.latencies.len() as u64
    }

    /// The latency that `percent` of the requests did not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((self.latencies.len() * percent / 100).min(last)).copied().unwrap_or_default()
    }
}

/// Runs a row until its time or its bytes are used up; requests under way are finished.
///
/// # Errors
/// When any request fails: a benchmark of errors measures nothing.
pub async fn run(target: &Target, row: Row, limit: Duration, bytes_max: ByteCount) -> Result<Run> {
    let requests_max = match row.operation {
        Operation::Delete => (row.clients * KEYS_A_CLIENT) as u64,
        Operation::List => u64::MAX,
        Operation::Put | Operation::Get => (bytes_max.get() / row.size.get()).max(row.clients as u64),
    };
    let started = Arc::new(AtomicU64::new(0));
    let body = Bytes::from(noise(row.size.get(), usize::try_from(row.size.get())?));
    let mut workers = JoinSet::new();
    let begun = Instant::now();
    for number in 0..row.clients {
        let client = target.client(number)?;
        let worker = Worker {
            client,
            bucket: target.bucket,
            row,
            number,
            body: body.clone(),
            payload: payload(target, &body),
        };
        let started = Arc::clone(&started);
        workers.spawn(async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < limit && started.fetch_add(1, Ordering::Relaxed) < requests_max {
                let request = Instant::now();
                worker.request(latencies.len()).await?;
                latencies.push(request.elapsed());
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(finished) = workers.join_next().await {
        latencies.extend(finished.context("a client panicked")??);
    }
    let elapsed = begun.elapsed();
    latencies.sort_unstable();
    Ok(Run { latencies, elapsed })
}

fn payload(target: &Target, body: &[u8]) -> Payload {
    if target.signed { Payload::signed(body) } else { Payload::Unsigned }
}

/// Keys on a page of a listing, and what they begin with.
const LISTED_KEYS: usize = 1000;
const LISTED_PREFIX: &str = "listed/";

/// Keys one client writes before it begins again, and reads from.
const KEYS_A_CLIENT: usize = 16;

struct Worker {
    client: Client,
    bucket: &'static str,
    row: Row,
    number: usize,
    body: Bytes,
    payload: Payload,
}

impl Worker {
    async fn request(&self, count: usize) -> Result<()> {
        match self.row.operation {
            Operation::Put => self.put(&self.key(count % KEYS_A_CLIENT)).await,
            // The writing row may have ended after one object of each client.
            Operation::Get => self.get(&self.key(0)).await,
            Operation::Delete => self.client.delete(self.bucket, &self.key(count % KEYS_A_CLIENT)).await,
            Operation::List => self.list().await,
        }
    }

    fn key(&self, turn: usize) -> String {
        format!("{}/{}/{}/{turn}", self.row.size_name(), self.row.clients, self.number)
    }

    async fn list(&self) -> Result<()> {
        let call =
            Call::new(Method::GET, self.bucket, "").query("list-type", 2).query("prefix", LISTED_PREFIX);
        let answer = self.client.expect(call, Bytes::new()).await?;
        let found = answer.text().matches("<Key>").count();
        ensure!(found == LISTED_KEYS, "{found} keys listed of {LISTED_KEYS}");
        Ok(())
    }

    async fn put(&self, key: &str) -> Result<()> {
        let call = Call::new(Method::PUT, self.bucket, key).payload(self.payload.clone());
        let request = self.client.request(call, Pieces(self.body.clone()).boxed())?;
        let answer = self.client.https().send(request).await?;
        ensure!(answer.status.is_success(), "PUT {key}: {} {}", answer.status, answer.text());
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<()> {
        let request =
            self.client.request(Call::new(Method::GET, self.bucket, key), Pieces(Bytes::new()).boxed())?;
        let (response, connection) = self.client.https().start(request).await?;
        if !response.status().is_success() {
            bail!("GET {key}: {}", response.status());
        }
        let mut body = response.into_body();
        let mut received = 0;
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else { break };
            received += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        ensure!(received == self.row.size.get(), "GET {key}: {received} bytes of {}", self.row.size);
        self.client.https().keep(connection);
        Ok(())
    }
}
