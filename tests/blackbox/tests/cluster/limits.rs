//! A tenant's limits of requests and bandwidth: it is slowed down, as clients understand it, and no other is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use holdfast_blackbox::{
    http_client::Answer,
    metrics::Samples,
    s3::{Call, Client, Payload},
    tree::noise,
};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    support::{BUCKET, assert_refused, single},
    tenancy::other_client,
};

const LIMITS: &str = "/api/v1/tenants/demo/limits";
/// Far longer than it takes until a limit is in force, or lifted.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Requests sent together: many times what the limit lets in.
const TOGETHER: usize = 40;
const BODY_SIZE: usize = 6_000_000;
/// Time at the limit that a tenant has in advance (`BURST` of the gateway), in seconds.
const BURST_SECONDS: f64 = 1.0;
/// How much slower a body is made than the unlimited tenant's, and how much slower it must at least have been: the
/// burst, and the last piece, which nobody waits for, are in between.
const SLOWED: f64 = 8.0;
const SLOWED_MIN: f64 = 4.0;
/// A body that took less is taken for one that took so long: the other tenant's, beside the slow one, may hang a while.
const FREE_MIN: Duration = Duration::from_millis(300);

async fn together(client: &Client) -> Result<Vec<Answer>> {
    try_join_all((0..TOGETHER).map(|_| client.send(Call::new(Method::GET, BUCKET, "small"), Bytes::new())))
        .await
}

/// Sends them together until one is refused, or none is, and returns what was answered then.
async fn until_refused(client: &Client, refused: bool) -> Result<Vec<Answer>> {
    let begun = Instant::now();
    loop {
        let answers = together(client).await?;
        if answers.iter().any(|answer| answer.status != StatusCode::OK) == refused {
            return Ok(answers);
        }
        ensure!(begun.elapsed() < PATIENCE, "refused is not {refused} after {PATIENCE:?}");
        sleep(POLL).await;
    }
}

/// As SDKs do it: what is refused with `SlowDown` is sent again. Returns how long the answer took that was none.
async fn with_retries(client: &Client, call: impl Fn() -> Call, body: &Bytes) -> Result<(Answer, Duration)> {
    let begun = Instant::now();
    loop {
        let sent = Instant::now();
        let answer = client.send(call(), body.clone()).await?;
        if answer.status == StatusCode::OK {
            return Ok((answer, sent.elapsed()));
        }
        assert_refused(&answer, 503, "SlowDown");
        ensure!(begun.elapsed() < PATIENCE, "still refused after {PATIENCE:?}");
        sleep(POLL).await;
    }
}

/// A body there and back, and how long each way took.
async fn transfer(client: &Client, key: &'static str, body: &Bytes) -> Result<[Duration; 2]> {
    let put = || Call::new(Method::PUT, BUCKET, key).payload(Payload::signed(body));
    let (_, sent) = with_retries(client, put, body).await?;
    let (answer, received) =
        with_retries(client, || Call::new(Method::GET, BUCKET, key), &Bytes::new()).await?;
    ensure!(answer.body == *body, "{key}: other bytes");
    Ok([sent, received])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limited_tenant_is_slowed_down_and_no_other() -> Result<()> {
    let (cluster, client) = single("limits").await?;
    let admin = cluster.file().admin(0).await?;
    let other = other_client(&cluster, 0)?;
    other.create_bucket(BUCKET).await?;
    for tenant in [&client, &other] {
        tenant.put(BUCKET, "small", "small").await?;
    }
    let refused = admin.post(LIMITS, &json!({ "requests_per_second": 0 })).await.unwrap_err();
    ensure!(format!("{refused:#}").contains("requests_per_second must be 1 or more"), "{refused:#}");

    // Requests in a second: beyond them `SlowDown`, and what is sent again is let in.
    let limits = json!({ "requests_per_second": 1, "requests_at_once": null,
        "in_bytes_per_second": null, "out_bytes_per_second": null });
    admin.post(LIMITS, &limits).await?;
    ensure!(admin.get(LIMITS).await? == limits);
    let answers = until_refused(&client, true).await?;
    let served = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    answers.iter().filter(|a| a.status != StatusCode::OK).for_each(|a| assert_refused(a, 503, "SlowDown"));
    println!("of {TOGETHER} requests sent together {served} were served");
    ensure!(together(&other).await?.iter().all(|answer| answer.status == StatusCode::OK), "another tenant");
    with_retries(&client, || Call::new(Method::GET, BUCKET, "small"), &Bytes::new()).await?;
    let samples = Samples::fetch(&cluster.file().nodes[0].metrics, cluster.file().trust()?).await?;
    let counted = samples.sum("holdfast_s3_limited_total").unwrap_or(0.0);
    ensure!(counted >= (TOGETHER - served) as f64, "{counted} counted");

    // Bandwidth: by how much is measured against the tenant beside it, whatever this machine does.
    let body = Bytes::from(noise(1, BODY_SIZE));
    transfer(&other, "warm", &body).await?;
    let [sent, received] = transfer(&other, "body", &body).await?;
    let rate = |free: Duration| {
        let free = free.max(FREE_MIN).as_secs_f64();
        (BODY_SIZE as f64 / (BURST_SECONDS + SLOWED * free)) as u64
    };
    // The limit of requests comes and goes with those of bandwidth: when it is felt, they are in force.
    let limits = json!({ "requests_per_second": 1, "in_bytes_per_second": rate(sent).max(64 * 1024),
        "out_bytes_per_second": rate(received).max(64 * 1024) });
    admin.post(LIMITS, &json!({})).await?;
    until_refused(&client, false).await?;
    admin.post(LIMITS, &limits).await?;
    until_refused(&client, true).await?;
    let (slow, beside) =
        tokio::try_join!(transfer(&client, "body", &body), transfer(&other, "beside", &body))?;
    let [slow_sent, slow_received] = slow;
    println!(
        "{limits}: sent {sent:?}, limited {slow_sent:?}; received {received:?}, limited {slow_received:?}"
    );
    for (free, slow) in [(sent, slow_sent), (received, slow_received)] {
        ensure!(slow >= free.mul_f64(SLOWED_MIN), "{slow:?} beside {free:?}");
    }
    ensure!(
        beside.iter().sum::<Duration>() < slow.iter().sum::<Duration>(),
        "the other too: {beside:?} beside {slow:?}"
    );
    let samples = Samples::fetch(&cluster.file().nodes[0].metrics, cluster.file().trust()?).await?;
    let waited = samples.sum("holdfast_s3_paced_milliseconds_total").unwrap_or(0.0);
    ensure!(waited > 0.0, "no body is said to have waited");

    // Lifted: as before.
    admin.post(LIMITS, &json!({})).await?;
    until_refused(&client, false).await?;
    Ok(())
}
