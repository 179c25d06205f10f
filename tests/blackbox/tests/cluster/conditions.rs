//! Conditional requests, decided where the catalog decides.

use anyhow::Result;
use bytes::Bytes;
use futures::future::join_all;
use holdfast_blackbox::s3::Call;
use http::{Method, StatusCode};

use crate::support::{BUCKET, assert_refused, cluster, send, single};

fn put(key: &str) -> Call {
    Call::new(Method::PUT, BUCKET, key)
}

#[tokio::test]
async fn writes_keep_to_their_conditions() -> Result<()> {
    let (_cluster, client) = single("conditions").await?;
    let first = client.put(BUCKET, "key", "first").await?;
    let answer = send(&client, put("key").header("if-none-match", "*"), "second").await?;
    assert_refused(&answer, 412, "PreconditionFailed");
    let answer =
        send(&client, put("key").header("if-match", "\"00000000000000000000000000000000\""), "second")
            .await?;
    assert_refused(&answer, 412, "PreconditionFailed");
    assert_eq!(client.get(BUCKET, "key").await?, "first");
    client.expect(put("key").header("if-match", format!("\"{first}\"")), "second").await?;
    client.expect(put("new").header("if-none-match", "*"), "new").await?;
    assert_eq!(client.get(BUCKET, "key").await?, "second");

    let etag = format!("\"{}\"", client.put(BUCKET, "read", "read").await?);
    let get = || Call::new(Method::GET, BUCKET, "read");
    assert_eq!(send(&client, get().header("if-none-match", &etag), Bytes::new()).await?.status, 304);
    assert_refused(
        &send(&client, get().header("if-match", "\"x\""), Bytes::new()).await?,
        412,
        "PreconditionFailed",
    );
    assert_eq!(send(&client, get().header("if-match", &etag), Bytes::new()).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn of_many_writers_who_want_to_be_first_one_is() -> Result<()> {
    let cluster = cluster("conditions-race", 3, 2).await?;
    let clients = [cluster.s3(0)?, cluster.s3(1)?, cluster.s3(2)?];
    for round in 0..5 {
        let key = format!("race-{round}");
        let writes = (0..12).map(|writer| {
            let call = put(&key).header("if-none-match", "*");
            let client = &clients[writer % clients.len()];
            async move { (writer, client.send(call, format!("writer {writer}")).await) }
        });
        let mut winners = Vec::new();
        for (writer, answer) in join_all(writes).await {
            let answer = answer?;
            match answer.status {
                StatusCode::OK => winners.push(writer),
                // AWS: 412 when another was first, 409 when another is at it.
                StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT => {}
                status => panic!("{status} {}", answer.text()),
            }
        }
        assert_eq!(winners.len(), 1, "{key}: {winners:?}");
        for client in &clients {
            assert_eq!(client.get(BUCKET, &key).await?, format!("writer {}", winners[0]));
        }
    }
    Ok(())
}
