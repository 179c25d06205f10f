//! What the cluster is filled with: each body is known by its number.

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_blackbox::{s3::Client, tree::noise};

pub const BUCKET: &str = "bench";

const SIZE: usize = 8 << 20;

/// Requests at once.
const PARALLEL: usize = 6;

/// Noise is costly: bodies are rotations of one.
struct Bodies(Bytes);

impl Bodies {
    fn new() -> Self {
        let mut twice = noise(1, SIZE);
        twice.extend_from_within(..);
        Self(twice.into())
    }

    fn body(&self, number: usize) -> Bytes {
        let from = (number * 4099) % SIZE;
        self.0.slice(from..from + SIZE)
    }
}

fn key(number: usize) -> String {
    format!("bulk/{number:06}")
}

/// Writes objects of 8 MiB; returns how many.
pub async fn fill(clients: &[Client], bytes: u64) -> Result<usize> {
    clients[0].create_bucket(BUCKET).await?;
    let (bodies, count) = (Bodies::new(), bytes.div_ceil(SIZE as u64) as usize);
    stream::iter(0..count)
        .map(|number| {
            let (client, body) = (&clients[number % clients.len()], bodies.body(number));
            async move { client.put(BUCKET, &key(number), body).await.map(drop) }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(count)
}

/// Reads all of them and compares every byte.
pub async fn verify(clients: &[Client], count: usize) -> Result<()> {
    let bodies = Bodies::new();
    stream::iter(0..count)
        .map(|number| {
            let (client, body) = (&clients[number % clients.len()], bodies.body(number));
            async move {
                let found = client.get(BUCKET, &key(number)).await?;
                ensure!(found == body, "{}: other bytes", key(number));
                Ok(())
            }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<()>>()
        .await
        .map(drop)
}
