//! Listings of a bucket of very many keys, page by page through the gateway: what a page of each kind takes.
//!
//! Keys lie in directories of [`KEYS_A_DIRECTORY`], written in no order. Each kind of page is asked for from places all
//! over the bucket, so that no page is measured because it was just read.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_blackbox::s3::{Call, Client};
use http::Method;

use crate::load::Target;

/// What a page may take in the middle of all (the budget of `docs/s3.md`).
const PAGE_TIME_MAX: Duration = Duration::from_millis(20);
const KEYS_A_DIRECTORY: u64 = 1000;
const KEYS_A_PAGE: u64 = 1000;
const WRITERS: usize = 128;
/// Pages of each kind.
const PAGES: u64 = 201;
/// Keys between two lines about the progress of writing.
const PROGRESS: u64 = 100_000;
/// Steps through the keys in an order that has nothing to do with theirs: a prime above any count of keys.
const STRIDE: u64 = 2_147_483_647;

/// A kind of page.
struct Kind {
    name: &'static str,
    /// The call for the page that begins near this directory.
    call: fn(&'static str, u64) -> Call,
    /// What each answer holds so many of.
    element: &'static str,
    /// Whether a page has fewer entries near the end of the bucket.
    shrinks: bool,
}

const KINDS: [Kind; 6] = [
    Kind {
        name: "keys, from anywhere",
        call: |bucket, directory| listed(bucket).query("start-after", directory_name(directory)),
        element: "<Key>",
        shrinks: true,
    },
    Kind {
        name: "keys of one prefix",
        call: |bucket, directory| listed(bucket).query("prefix", directory_name(directory)),
        element: "<Key>",
        shrinks: false,
    },
    Kind {
        name: "keys of one prefix, delimiter",
        call: |bucket, directory| {
            listed(bucket).query("prefix", directory_name(directory)).query("delimiter", "/")
        },
        element: "<Key>",
        shrinks: false,
    },
    Kind {
        name: "prefixes by delimiter, from anywhere",
        call: |bucket, directory| {
            listed(bucket).query("delimiter", "/").query("start-after", directory_name(directory))
        },
        element: "<CommonPrefixes>",
        shrinks: true,
    },
    Kind {
        name: "prefixes by delimiter, all",
        call: |bucket, _| listed(bucket).query("delimiter", "/"),
        element: "<CommonPrefixes>",
        shrinks: false,
    },
    Kind {
        name: "versions of one prefix, delimiter",
        call: |bucket, directory| {
            Call::new(Method::GET, bucket, "")
                .query("versions", "")
                .query("prefix", directory_name(directory))
                .query("delimiter", "/")
        },
        element: "<Version>",
        shrinks: false,
    },
];

fn listed(bucket: &'static str) -> Call {
    Call::new(Method::GET, bucket, "").query("list-type", 2)
}

fn directory_name(directory: u64) -> String {
    format!("{directory:06}/")
}

fn key(number: u64) -> String {
    format!("{}{:04}", directory_name(number / KEYS_A_DIRECTORY), number % KEYS_A_DIRECTORY)
}

/// Writes the keys, lists them all once, then measures each kind of page.
///
/// # Errors
/// When a request fails, a listing is not what was written, or a page takes longer than it may.
pub async fn run(target: &Target, keys: u64) -> Result<()> {
    let keys = keys.next_multiple_of(KEYS_A_DIRECTORY);
    let directories = keys / KEYS_A_DIRECTORY;
    let (bucket, client) = target.first()?;
    write(bucket, &client, keys).await?;
    walk(bucket, &client, keys).await?;

    println!(
        "\n  {:<38} {:>7} {:>9} {:>10} {:>10} {:>10}",
        "page", "pages", "entries", "p50 ms", "p99 ms", "max ms"
    );
    let mut slow = Vec::new();
    for kind in &KINDS {
        let mut times = Vec::new();
        let mut entries = 0;
        for page in 0..PAGES {
            let directory = page * STRIDE % directories;
            let call = (kind.call)(bucket, directory);
            let begun = Instant::now();
            let answer = client.expect(call, Bytes::new()).await?;
            times.push(begun.elapsed());
            let found = answer.text().matches(kind.element).count() as u64;
            let whole =
                if kind.element == "<CommonPrefixes>" { directories.min(KEYS_A_PAGE) } else { KEYS_A_PAGE };
            ensure!(
                found == whole || (kind.shrinks && found < whole),
                "{}: {found} entries of {whole}",
                kind.name
            );
            entries = entries.max(found);
        }
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "  {:<38} {PAGES:>7} {entries:>9} {:>10.2} {:>10.2} {:>10.2}",
            kind.name,
            millis(at(50)),
            millis(at(99)),
            millis(at(100))
        );
        if at(50) >= PAGE_TIME_MAX {
            slow.push(kind.name);
        }
    }
    ensure!(slow.is_empty(), "pages that take longer than {PAGE_TIME_MAX:?}: {slow:?}");
    println!("\n  the median of every kind of page is below {PAGE_TIME_MAX:?}");
    Ok(())
}

async fn write(bucket: &str, client: &Client, keys: u64) -> Result<()> {
    let begun = Instant::now();
    let mut writes = stream::iter((0..keys).map(|turn| async move {
        client.put(bucket, &key(turn * STRIDE % keys), Bytes::from_static(b"x")).await
    }))
    .buffer_unordered(WRITERS);
    let mut written = 0;
    while let Some(()) = writes.try_next().await?.map(drop) {
        written += 1;
        if written % PROGRESS == 0 {
            println!(
                "  {written} keys of {keys}, {:.0} a second",
                written as f64 / begun.elapsed().as_secs_f64()
            );
        }
    }
    Ok(())
}

/// Every key once, in order, from the first page to the last.
async fn walk(bucket: &'static str, client: &Client, keys: u64) -> Result<()> {
    let begun = Instant::now();
    let (mut expected, mut pages, mut slowest) = (0, 0u32, Duration::ZERO);
    let mut token: Option<String> = None;
    loop {
        let mut call = Call::new(Method::GET, bucket, "");
        if let Some(token) = &token {
            call = call.query("continuation-token", token);
        }
        let request = Instant::now();
        let page = client.list_page(call).await?;
        slowest = slowest.max(request.elapsed());
        pages += 1;
        for found in page.keys {
            ensure!(found == key(expected), "{found} is listed where {} should be", key(expected));
            expected += 1;
        }
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    ensure!(expected == keys, "{expected} keys are listed of {keys}");
    println!(
        "  all {keys} keys in order in {pages} pages: {:.1} s, {:.2} ms a page, the slowest {:.2} ms",
        begun.elapsed().as_secs_f64(),
        begun.elapsed().as_secs_f64() * 1e3 / f64::from(pages),
        slowest.as_secs_f64() * 1e3
    );
    Ok(())
}
