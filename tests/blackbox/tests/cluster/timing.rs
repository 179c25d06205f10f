//! How long a refusal takes does not say whether another tenant has what was asked for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use holdfast_blackbox::{
    http_client::{Answer, Https, full},
    s3::{Call, Client, first},
    tree::noise,
};
use http::{Method, Request};

use crate::{
    support::{BUCKET, single},
    tenancy::other_client,
};

/// As long as the name of the bucket that is there, and nobody's.
const NOBODYS: &str = "becket";
const KEY: &str = "there";
const NO_KEY: &str = "where";
const SIZE: usize = 4 << 20;
const PAIRS: usize = 300;

/// Medians this close are one class: of the shorter one, or in all, for what a busy machine adds.
const CLOSE: f64 = 0.15;
const CLOSE_IN_ALL: Duration = Duration::from_micros(50);
/// A difference that is there is seen each time; one that the machine made is not.
const LOOKS: usize = 3;

/// Medians of both, asked in turns so that both see the same machine.
async fn medians<Ask: AsyncFn(bool) -> Result<Answer>>(ask: Ask) -> Result<[Duration; 2]> {
    let mut times = [Vec::new(), Vec::new()];
    for pair in 0..PAIRS + 10 {
        for turn in [false, true] {
            let is_there = turn ^ pair.is_multiple_of(2);
            let begun = Instant::now();
            ask(is_there).await?;
            // The first ones open connections and fill caches.
            if pair >= 10 {
                times[usize::from(is_there)].push(begun.elapsed());
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    }))
}

fn is_one_class([absent, there]: [Duration; 2]) -> bool {
    let apart = absent.abs_diff(there);
    apart <= CLOSE_IN_ALL || apart.as_secs_f64() <= CLOSE * absent.min(there).as_secs_f64()
}

/// Fails when nobody's is told from the other's, each time it is looked at.
async fn cannot_be_told<Ask: AsyncFn(bool) -> Result<Answer>>(what: &str, ask: Ask) -> Result<()> {
    let mut seen = Vec::new();
    while seen.len() < LOOKS {
        let taken = medians(&ask).await?;
        println!("another tenant, {what}: nobody's {:?}, the other's {:?}", taken[0], taken[1]);
        if is_one_class(taken) {
            return Ok(());
        }
        seen.push(taken);
    }
    bail!("{what}: {seen:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_take_as_long_whether_another_tenant_has_it_or_nobody() -> Result<()> {
    let (cluster, demo) = single("timing").await?;
    let other: Client = other_client(&cluster, 0)?;
    demo.put(BUCKET, KEY, noise(1, SIZE)).await?;
    let begun = demo.expect(Call::new(Method::POST, BUCKET, KEY).query("uploads", ""), Bytes::new()).await?;
    let upload = first(&begun.text(), "UploadId").context("no UploadId")?;

    // The method sees a difference where there is one.
    let own = medians(async |is_there| {
        demo.send(Call::new(Method::GET, BUCKET, if is_there { KEY } else { NO_KEY }), Bytes::new()).await
    })
    .await?;
    println!("its own tenant, GET: {own:?}");
    ensure!(!is_one_class(own), "an object of {SIZE} bytes is told from none: {own:?}");

    let bucket = |is_there: bool| if is_there { BUCKET } else { NOBODYS };
    type Make<'a> = Box<dyn Fn(bool) -> Call + 'a>;
    let calls: [(&str, Make<'_>); 6] = [
        ("HEAD bucket", Box::new(|is_there| Call::new(Method::HEAD, bucket(is_there), ""))),
        ("list", Box::new(|is_there| Call::new(Method::GET, bucket(is_there), "").query("list-type", 2))),
        ("GET object", Box::new(|is_there| Call::new(Method::GET, bucket(is_there), KEY))),
        ("DELETE object", Box::new(|is_there| Call::new(Method::DELETE, bucket(is_there), KEY))),
        (
            "parts of an upload",
            Box::new(|is_there| Call::new(Method::GET, bucket(is_there), KEY).query("uploadId", &upload)),
        ),
        (
            "copy from it",
            Box::new(|is_there| {
                Call::new(Method::PUT, NOBODYS, KEY)
                    .header("x-amz-copy-source", format!("/{}/{KEY}", bucket(is_there)))
            }),
        ),
    ];
    for (what, make) in &calls {
        cannot_be_told(what, async |is_there| {
            let answer = other.send(make(is_there), Bytes::new()).await?;
            ensure!([403, 404].contains(&answer.status.as_u16()), "{what}: {}", answer.status);
            Ok(answer)
        })
        .await?;
    }

    let https = Https::new(&cluster.file().nodes[0].admin, cluster.file().trust()?)?;
    let authorization = format!("Bearer {}", other.credentials().secret_key);
    cannot_be_told("an admin route", async |is_there| {
        let request = Request::builder()
            .uri(if is_there { "/api/v1/tenants/demo/quota" } else { "/api/v1/tenants/dema/quota" })
            .header("host", https.authority())
            .header("authorization", &authorization)
            .body(full(Bytes::new()))?;
        let answer = https.send(request).await?;
        ensure!(answer.status.as_u16() == 401, "{}", answer.status);
        Ok(answer)
    })
    .await
}
