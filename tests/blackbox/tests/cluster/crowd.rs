//! Connections that do nothing, and clients that drip, leave those that work alone.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use holdfast_blackbox::{s3::Client, tree::noise};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::sleep,
};

use crate::support::{BUCKET, cluster};

/// Set for the whole crowd for a whole minute; otherwise a fifth of it for some seconds.
const FULL: &str = "HOLDFAST_CROWD";
const IDLE: usize = 1000;
const SLOW: usize = 200;
const TIME: Duration = Duration::from_secs(60);
const SHARE: u32 = 5;

/// A working client's request may take so much longer beside the crowd; machines that run tests are busy.
const SLOWER_MAX: f64 = 4.0;
const SLACK: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn idle_and_slow_connections_leave_healthy_clients_alone() -> Result<()> {
    let share = if std::env::var_os(FULL).is_some() { 1 } else { SHARE };
    let cluster = cluster("crowd", 1, 4).await?;
    let client = cluster.s3(0)?;
    let body = noise(1, 100_000);
    client.put(BUCKET, "k", body.clone()).await?;
    let quiet = median(&client, &body, TIME / SHARE / 4).await?;

    let mut crowd = JoinSet::new();
    for number in 0..(IDLE + SLOW) / share as usize {
        let https = client.https().clone();
        let slow = number % ((IDLE + SLOW) / SLOW) == 0;
        crowd.spawn(async move {
            let mut stream = https.connect_tls().await?;
            if !slow {
                // Held open; the node may close it when it has been idle for long enough.
                let mut byte = [0];
                let _ = stream.read(&mut byte).await;
                return anyhow::Ok(());
            }
            // A head that never comes to its end, a byte at a time, until the node has had enough.
            for byte in b"GET /bucket/k HTTP/1.1\r\nhost: a\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
                if stream.write_all(&[*byte]).await.is_err() || stream.flush().await.is_err() {
                    return Ok(());
                }
                sleep(Duration::from_millis(500)).await;
            }
            Ok(())
        });
    }
    // All of them are there before it counts.
    sleep(Duration::from_secs(3)).await;
    let crowded = median(&client, &body, TIME / share).await?;
    println!(
        "{} idle and {} slow connections: {quiet:?} before, {crowded:?} beside them",
        IDLE / share as usize,
        SLOW / share as usize
    );
    crowd.abort_all();
    ensure!(crowded < quiet.mul_f64(SLOWER_MAX) + SLACK, "{quiet:?} became {crowded:?}");
    Ok(())
}

/// Half of the requests take no longer. Every one has to succeed.
async fn median(client: &Client, body: &[u8], time: Duration) -> Result<Duration> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let request = Instant::now();
        ensure!(client.get(BUCKET, "k").await? == body, "other bytes");
        client.put(BUCKET, "w", body.to_vec()).await?;
        took.push(request.elapsed());
    }
    took.sort_unstable();
    Ok(took[took.len() / 2])
}
