//! Reading parts of an object, and what is said about it.

use anyhow::Result;
use bytes::Bytes;
use holdfast_blackbox::{
    s3::{Call, Payload},
    tree::noise,
};
use http::Method;

use crate::support::{BUCKET, assert_refused, send, single};

#[tokio::test]
async fn every_range_of_small_and_large_objects_is_exact() -> Result<()> {
    let (_cluster, client) = single("ranges").await?;
    // Sizes around cells of 64 KiB, around stripes, and the empty object.
    for size in [1, 4096, 65_535, 65_536, 65_537, 1_000_000, 5_000_001] {
        let body = noise(size as u64, size);
        let key = format!("object-{size}");
        client.put(BUCKET, &key, body.clone()).await?;
        let last = size - 1;
        let ranges = [
            (format!("bytes=0-{last}"), 0..size),
            ("bytes=0-0".into(), 0..1),
            (format!("bytes={last}-"), last..size),
            ("bytes=-1".into(), last..size),
            (format!("bytes=-{}", size + 10), 0..size),
            (format!("bytes={}-{}", size / 3, size + 1000), size / 3..size),
            (
                format!("bytes={}-{}", size / 2, (size / 2 + 70_000).min(last)),
                size / 2..(size / 2 + 70_001).min(size),
            ),
        ];
        for (header, wanted) in ranges {
            let call = Call::new(Method::GET, BUCKET, &key).header("range", &header);
            let answer = send(&client, call, Bytes::new()).await?;
            assert_eq!(answer.status, 206, "{key} {header}: {}", answer.text());
            let content_range = format!("bytes {}-{}/{size}", wanted.start, wanted.end - 1);
            assert_eq!(answer.header("content-range"), Some(content_range.as_str()), "{key} {header}");
            assert!(answer.body == body[wanted.clone()], "{key} {header}: other bytes");
        }
        let beyond = Call::new(Method::GET, BUCKET, &key).header("range", format!("bytes={size}-"));
        assert_refused(&send(&client, beyond, Bytes::new()).await?, 416, "InvalidRange");
    }
    client.put(BUCKET, "empty", Bytes::new()).await?;
    assert_eq!(client.get(BUCKET, "empty").await?, Bytes::new());
    let call = Call::new(Method::GET, BUCKET, "empty").header("range", "bytes=0-");
    assert_refused(&send(&client, call, Bytes::new()).await?, 416, "InvalidRange");
    Ok(())
}

#[tokio::test]
async fn head_says_what_was_put() -> Result<()> {
    let (_cluster, client) = single("head").await?;
    let body = noise(7, 300_000);
    let call = Call::new(Method::PUT, BUCKET, "letter")
        .payload(Payload::signed(&body))
        .header("content-type", "message/rfc822")
        .header("cache-control", "no-store")
        .header("content-disposition", "attachment; filename=\"letter.eml\"")
        .header("x-amz-meta-sender", "ann");
    let etag = client.expect(call, body.clone()).await?.header("etag").map(str::to_owned);
    for method in [Method::HEAD, Method::GET] {
        let answer = client.expect(Call::new(method, BUCKET, "letter"), Bytes::new()).await?;
        assert_eq!(answer.header("content-length"), Some("300000"));
        assert_eq!(answer.header("content-type"), Some("message/rfc822"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"letter.eml\""));
        assert_eq!(answer.header("x-amz-meta-sender"), Some("ann"));
        assert_eq!(answer.header("accept-ranges"), Some("bytes"));
        assert_eq!(answer.header("etag").map(str::to_owned), etag);
        assert!(answer.header("last-modified").is_some());
    }

    let copy =
        Call::new(Method::PUT, BUCKET, "copy").header("x-amz-copy-source", format!("/{BUCKET}/letter"));
    client.expect(copy, Bytes::new()).await?;
    let answer = client.expect(Call::new(Method::GET, BUCKET, "copy"), Bytes::new()).await?;
    assert!(answer.body == body && answer.header("x-amz-meta-sender") == Some("ann"), "a copy is whole");
    Ok(())
}
