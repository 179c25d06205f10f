//! ListObjectsV2 and DeleteObjects.

use anyhow::Result;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use holdfast_blackbox::s3::{Call, fields};
use http::Method;

use crate::support::{BUCKET, single};

const PUTS_AT_ONCE: usize = 16;

#[tokio::test]
async fn pages_prefixes_and_delimiters_are_those_of_s3() -> Result<()> {
    let (_cluster, client) = single("listing").await?;
    let mut keys: Vec<String> = (0..1100).map(|n| format!("mail/{:02}/{n:04}", n % 11)).collect();
    keys.extend(["a".into(), "mail".into(), "mail-old/1".into(), "z/y/x".into(), "z/y/w".into()]);
    stream::iter(&keys)
        .map(|key| client.put(BUCKET, key, "x"))
        .buffer_unordered(PUTS_AT_ONCE)
        .try_collect::<Vec<_>>()
        .await?;
    keys.sort_unstable();

    let all: Vec<_> = client.list_all(BUCKET, "").await?.into_iter().map(|(key, _)| key).collect();
    assert_eq!(all, keys, "two pages, in order");
    let list = || Call::new(Method::GET, BUCKET, "");

    let top = client.list_page(list().query("delimiter", "/")).await?;
    assert_eq!(
        (top.keys, top.common_prefixes),
        (vec!["a".into(), "mail".into()], vec!["mail-old/".to_owned(), "mail/".into(), "z/".into()])
    );

    let below = client.list_page(list().query("delimiter", "/").query("prefix", "mail/")).await?;
    assert_eq!((below.keys.len(), below.common_prefixes.len()), (0, 11));

    // Pages of three over keys and prefixes together: nothing twice, nothing missing.
    let mut seen = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let mut call = list().query("delimiter", "/").query("prefix", "mail/").query("max-keys", 3);
        if let Some(token) = &token {
            call = call.query("continuation-token", token);
        }
        let page = client.list_page(call).await?;
        assert!(page.keys.len() + page.common_prefixes.len() <= 3);
        seen.extend(page.common_prefixes);
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(seen, below.common_prefixes);

    let after = client.list_page(list().query("start-after", "mail/10/1099").query("max-keys", 5)).await?;
    assert_eq!(after.keys, ["z/y/w", "z/y/x"]);
    Ok(())
}

#[tokio::test]
async fn many_objects_are_deleted_at_once() -> Result<()> {
    let (_cluster, client) = single("delete-objects").await?;
    for number in 0..20 {
        client.put(BUCKET, &format!("key {number}"), "x").await?;
    }
    let list: String =
        (0..21).filter(|n| n % 2 == 0).map(|n| format!("<Object><Key>key {n}</Key></Object>")).collect();
    let body = format!("<Delete>{list}</Delete>");
    let call = Call::new(Method::POST, BUCKET, "").query("delete", "").header("content-md5", md5(&body));
    let answer = client.expect(call, body).await?.text();
    assert_eq!(fields(&answer, "Deleted").len(), 11, "an absent key counts as deleted: {answer}");
    assert_eq!(client.list_all(BUCKET, "").await?.len(), 10);
    let none = client
        .expect(Call::new(Method::GET, BUCKET, "").query("list-type", 2).query("prefix", "x"), Bytes::new());
    assert!(none.await?.text().contains("<KeyCount>0</KeyCount>"));
    Ok(())
}

fn md5(text: &str) -> String {
    use base64::Engine as _;
    use md5::Digest as _;
    base64::engine::general_purpose::STANDARD.encode(md5::Md5::digest(text.as_bytes()))
}
