//! Refusals: the S3 error that AWS gives, and nothing stored.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use holdfast_blackbox::{
    s3::{CHUNKED_TRAILER, Call, Client, Credentials, Moment, Payload, aws_chunked, encode, presign},
    tree::noise,
};
use http::{Method, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::support::{BUCKET, assert_refused, exists, send, single};

const MINUTE: u64 = 60;

fn put(key: &str) -> Call {
    Call::new(Method::PUT, BUCKET, key)
}

#[tokio::test]
async fn whoever_cannot_sign_is_refused_and_stores_nothing() -> Result<()> {
    let (_cluster, client) = single("errors-signature").await?;
    let known = client.credentials().clone();
    let wrong_secret = client.with_credentials(Credentials { secret_key: "x".repeat(40), ..known.clone() });
    let answer = send(&wrong_secret, put("wrong-secret"), "body").await?;
    assert_refused(&answer, 403, "SignatureDoesNotMatch");

    let stranger =
        client.with_credentials(Credentials { access_key: "AKIANOBODYKNOWSTHIS0".into(), ..known.clone() });
    assert_refused(&send(&stranger, put("stranger"), "body").await?, 403, "InvalidAccessKeyId");

    let late = send(&client, put("late").at(Moment::seconds_ago(16 * MINUTE)), "body").await?;
    assert_refused(&late, 403, "RequestTimeTooSkewed");

    // The signature covers the key: the same headers for another key do not pass.
    let mut moved = client.request(put("signed-key"), holdfast_blackbox::http_client::full("body"))?;
    *moved.uri_mut() = format!("/{BUCKET}/moved-key").parse()?;
    assert_refused(&client.https().send(moved).await?, 403, "SignatureDoesNotMatch");

    let anonymous = Request::put(format!("/{BUCKET}/anonymous")).header("host", client.https().authority());
    let anonymous =
        client.https().send(anonymous.body(holdfast_blackbox::http_client::full("body"))?).await?;
    assert_refused(&anonymous, 403, "AccessDenied");

    for key in ["wrong-secret", "stranger", "late", "signed-key", "moved-key", "anonymous"] {
        assert!(!exists(&client, key).await?, "{key} was stored");
    }
    assert_eq!(client.list_all(BUCKET, "").await?, []);
    Ok(())
}

#[tokio::test]
async fn a_presigned_url_works_until_it_expires() -> Result<()> {
    let (_cluster, client) = single("errors-presigned").await?;
    client.put(BUCKET, "shared", "content").await?;
    let fetch = async |moment: Moment| {
        let host = client.https().authority();
        let path = format!("/{BUCKET}/shared");
        let query = presign("GET", &path, host, 5 * MINUTE, client.credentials(), &moment);
        let query: Vec<_> = query.iter().map(|(k, v)| format!("{k}={}", encode(v, false))).collect();
        let request = Request::get(format!("{path}?{}", query.join("&"))).header("host", host);
        client.https().send(request.body(holdfast_blackbox::http_client::full(Bytes::new()))?).await
    };
    let answer = fetch(Moment::now()).await?;
    assert_eq!((answer.status.as_u16(), answer.body.as_ref()), (200, &b"content"[..]));
    assert_refused(&fetch(Moment::seconds_ago(6 * MINUTE)).await?, 403, "AccessDenied");
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_named() -> Result<()> {
    let (_cluster, client) = single("errors-absent").await?;
    let cases = [
        (Call::new(Method::GET, "absent-bucket", "key"), 404, "NoSuchBucket"),
        (Call::new(Method::GET, "absent-bucket", "").query("list-type", 2), 404, "NoSuchBucket"),
        (Call::new(Method::PUT, "absent-bucket", "key"), 404, "NoSuchBucket"),
        (Call::new(Method::DELETE, "absent-bucket", ""), 404, "NoSuchBucket"),
        (Call::new(Method::GET, BUCKET, "absent"), 404, "NoSuchKey"),
        (
            Call::new(Method::PUT, BUCKET, "copy").header("x-amz-copy-source", format!("/{BUCKET}/absent")),
            404,
            "NoSuchKey",
        ),
        (Call::new(Method::PUT, "Bad_Bucket", ""), 400, "InvalidBucketName"),
        (put(&"k".repeat(1025)), 400, "KeyTooLongError"),
        (
            Call::new(Method::PUT, BUCKET, "").header("x-amz-bucket-object-lock-enabled", "true"),
            409,
            "BucketAlreadyOwnedByYou",
        ),
    ];
    for (call, status, code) in cases {
        let what = format!("{call:?}");
        println!("{what}");
        assert_refused(&send(&client, call, Bytes::new()).await?, status, code);
    }
    client.put(BUCKET, "content", "content").await?;
    let answer = send(&client, Call::new(Method::DELETE, BUCKET, ""), Bytes::new()).await?;
    assert_refused(&answer, 409, "BucketNotEmpty");
    client.delete(BUCKET, "content").await?;
    client.delete(BUCKET, "content").await?;
    client.delete(BUCKET, "").await?;
    let answer = send(&client, Call::new(Method::GET, BUCKET, "content"), Bytes::new()).await?;
    assert_refused(&answer, 404, "NoSuchBucket");
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_not_what_was_declared_is_refused() -> Result<()> {
    let (_cluster, client) = single("errors-body").await?;
    // Small bodies live in the catalog, large ones in stripes: both ways must refuse.
    for size in [1000, 3 << 20] {
        let body = noise(1, size);
        let other = noise(2, size);
        let key = format!("refused-{size}");

        let answer = send(&client, put(&key).payload(Payload::signed(&other)), body.clone()).await?;
        assert_refused(&answer, 400, "XAmzContentSHA256Mismatch");

        let md5 = "AAAAAAAAAAAAAAAAAAAAAA==";
        let answer = send(&client, put(&key).header("content-md5", md5), body.clone()).await?;
        assert_refused(&answer, 400, "BadDigest");

        let answer =
            send(&client, put(&key).header("x-amz-checksum-crc32", "AAAAAA=="), body.clone()).await?;
        assert_refused(&answer, 400, "BadDigest");

        // Whole as HTTP, short as S3: fewer bytes in the chunks than declared for the object.
        let call = put(&key)
            .payload(Payload::Chunked)
            .header("content-encoding", "aws-chunked")
            .header("x-amz-trailer", CHUNKED_TRAILER)
            .header("x-amz-decoded-content-length", size + 500);
        let answer = send(&client, call, aws_chunked(&body)).await?;
        assert_refused(&answer, 400, "IncompleteBody");
        assert!(!exists(&client, &key).await?, "{key} was stored");
    }
    let answer = send(&client, put("refused-md5").header("content-md5", "not base64"), "x").await?;
    assert_refused(&answer, 400, "InvalidDigest");
    assert_eq!(client.list_all(BUCKET, "").await?, []);
    Ok(())
}

#[tokio::test]
async fn a_body_cut_off_by_the_connection_is_not_stored() -> Result<()> {
    let (_cluster, client) = single("errors-cut").await?;
    client.put(BUCKET, "kept-1000", "as it was").await?;
    client.put(BUCKET, "kept-3145728", "as it was").await?;
    for size in [1000_usize, 3 << 20] {
        for key in [format!("cut-{size}"), format!("kept-{size}")] {
            let answer = send_half(&client, &key, &noise(3, size)).await?;
            // The server may answer or hang up; it may not say that the object is stored.
            assert!(!answer.starts_with("HTTP/1.1 2"), "{key}: {answer}");
            if !answer.is_empty() {
                assert!(answer.contains("400") && answer.contains("IncompleteBody"), "{key}: {answer}");
            }
        }
        sleep(Duration::from_millis(500)).await;
        assert!(!exists(&client, &format!("cut-{size}")).await?);
        assert_eq!(client.get(BUCKET, &format!("kept-{size}")).await?, "as it was");
    }
    Ok(())
}

/// Declares the whole body, sends half of it, ends the connection's sending side.
async fn send_half(client: &Client, key: &str, body: &[u8]) -> Result<String> {
    let request = client.request(put(key), holdfast_blackbox::http_client::full(Bytes::new()))?;
    let mut head = format!("PUT {} HTTP/1.1\r\ncontent-length: {}\r\n", request.uri(), body.len());
    for (name, value) in request.headers().iter().filter(|(name, _)| *name != "content-length") {
        head.push_str(&format!("{name}: {}\r\n", value.to_str()?));
    }
    let mut stream = client.https().connect_tls().await?;
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    stream.write_all(&body[..body.len() / 2]).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    // Hanging up without a word is an answer too.
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
