//! Awkward names, both ways to address a bucket, and every node.

use anyhow::Result;
use bytes::Bytes;
use holdfast_blackbox::{
    dev::S3_DOMAIN,
    s3::{Call, fields},
    tree::noise,
};
use http::Method;

use crate::support::{BUCKET, cluster, single};

const AWKWARD: [&str; 18] = [
    "plain",
    "a/b/c",
    "ends/with/slash/",
    "//double//slash",
    "./dot/../dots",
    "space in it",
    "plus+and%25percent%2Fencoded",
    "ümläut/日本語/🗄",
    "e\u{301} is not \u{e9}",
    "quote\"apostrophe'less<more>amp&",
    "question?mark=1&two#hash",
    "tab\tand\u{7f}",
    "semi;colon:comma,at@dollar$bang!star*paren()tilde~",
    "back\\slash^caret`tick{brace}|pipe[bracket]",
    "=equals",
    "-dash",
    ".hidden",
    "\u{ffff}last",
];

#[tokio::test]
async fn awkward_keys_are_stored_listed_read_and_deleted_as_they_are() -> Result<()> {
    let (_cluster, client) = single("names").await?;
    for key in AWKWARD {
        client.put(BUCKET, key, format!("body of {key}")).await?;
    }
    let long = "k".repeat(1024);
    client.put(BUCKET, &long, "long").await?;
    let mut wanted: Vec<_> = AWKWARD.iter().map(|&key| key.to_owned()).chain([long]).collect();
    wanted.sort_unstable();
    let listed: Vec<_> = client.list_all(BUCKET, "").await?.into_iter().map(|(key, _)| key).collect();
    assert_eq!(listed, wanted, "in byte order, each as it was put");
    for key in AWKWARD {
        assert_eq!(client.get(BUCKET, key).await?, format!("body of {key}"));
        client.delete(BUCKET, key).await?;
    }
    assert_eq!(client.list_all(BUCKET, "").await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_bucket_in_the_host_name_is_the_bucket_in_the_path() -> Result<()> {
    let (_cluster, client) = single("virtual-host").await?;
    let hosted = |method, key: &str| Call::new(method, BUCKET, key).virtual_host(S3_DOMAIN);
    client.expect(hosted(Method::PUT, "dir/by host"), "body").await?;
    assert_eq!(client.get(BUCKET, "dir/by host").await?, "body");
    client.put(BUCKET, "by path", "path").await?;
    assert_eq!(client.expect(hosted(Method::GET, "by path"), Bytes::new()).await?.body, "path");
    let page = client.list_page(hosted(Method::GET, "").query("prefix", "by")).await?;
    assert_eq!(page.keys, ["by path"]);
    let other = Call::new(Method::PUT, "hosted-bucket", "").virtual_host(S3_DOMAIN);
    client.expect(other, Bytes::new()).await?;
    let buckets = client.expect(Call::new(Method::GET, "", ""), Bytes::new()).await?.text();
    assert_eq!(fields(&buckets, "Name"), [BUCKET, "hosted-bucket"]);
    Ok(())
}

#[tokio::test]
async fn any_node_serves_any_request() -> Result<()> {
    let cluster = cluster("any-node", 3, 2).await?;
    let nodes = [cluster.s3(0)?, cluster.s3(1)?, cluster.s3(2)?];
    for (writer, node) in nodes.iter().enumerate() {
        let bucket = format!("made-by-{writer}");
        node.create_bucket(&bucket).await?;
        for size in [0, 100, 20_000, 700_000, 9_000_000] {
            let body = noise(size as u64 + writer as u64, size);
            let key = format!("{writer}/{size}");
            node.put(&bucket, &key, body.clone()).await?;
            // Read at once through the others: what was acknowledged is there everywhere.
            for reader in &nodes {
                assert!(reader.get(&bucket, &key).await? == body, "{key} read elsewhere");
            }
            nodes[(writer + 1) % 3].put(&bucket, &key, "overwritten").await?;
            for reader in &nodes {
                assert_eq!(reader.get(&bucket, &key).await?, "overwritten", "{key}");
            }
        }
        nodes[(writer + 2) % 3].delete(&bucket, &format!("{writer}/100")).await?;
        for reader in &nodes {
            let keys = reader.list_all(&bucket, "").await?;
            assert_eq!(keys.len(), 4, "{keys:?}");
        }
    }
    Ok(())
}
