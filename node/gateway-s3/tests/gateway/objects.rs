//! Buckets and objects through a real TLS connection: what is put comes back, and only that.

use crate::support::{DOMAIN, OTHER_KEY, OTHER_SECRET, Server, client::encode};
use http::Method;

#[tokio::test]
async fn a_bucket_and_an_object_go_in_come_back_and_go_away() {
    let server = Server::start().await;
    for http2 in [false, true] {
        let mut client = server.client();
        client.http2 = http2;
        client.put("/first-bucket", b"").await.ok();
        let put = client.put("/first-bucket/hello.txt", b"hello world").await.ok();
        assert_eq!(put.header("etag"), "\"5eb63bbbe01eeed093cb22bb8f5acdc3\"");
        assert_eq!(put.header("x-amz-server-side-encryption"), "AES256");
        assert_eq!(put.header("x-amz-request-id").len(), 16);

        let got = client.get("/first-bucket/hello.txt").await.ok();
        assert_eq!(&got.body[..], b"hello world");
        assert_eq!(got.header("content-type"), "binary/octet-stream");
        assert_eq!(got.header("content-length"), "11");
        let head = client.call(Method::HEAD, "/first-bucket/hello.txt", "", &[], b"").await.ok();
        assert_eq!((head.header("content-length"), head.body.len()), ("11", 0));

        assert_eq!(client.get("/").await.ok().elements("Name"), ["first-bucket"]);
        assert_eq!(client.delete("/first-bucket").await.error(), (409, "BucketNotEmpty".to_owned()));
        assert_eq!(client.delete("/first-bucket/hello.txt").await.status, 204);
        assert_eq!(client.delete("/first-bucket/hello.txt").await.status, 204);
        assert_eq!(client.get("/first-bucket/hello.txt").await.error(), (404, "NoSuchKey".to_owned()));
        assert_eq!(client.delete("/first-bucket").await.status, 204);
    }
    server.stop().await;
}

#[tokio::test]
async fn keys_with_awkward_bytes_are_kept_byte_for_byte() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    let keys = [
        "..",
        "../../etc/passwd",
        "a/../b",
        "./.",
        "/leading",
        "a//b",
        "//",
        "trailing/",
        "a b+c",
        "%2e%2e",
        "a%2Fb",
        "ü/é",
        "🦀",
        "~!@#$%^&*()_+-={}[]|\\:;\"'<>,?",
        "quote'\"",
        "line\nbreak",
        "tab\t",
    ];
    for (at, key) in keys.iter().enumerate() {
        let path = format!("/bucket/{}", encode(key, true));
        client.put(&path, format!("content {at}").as_bytes()).await.ok();
    }
    for (at, key) in keys.iter().enumerate() {
        let got = client.get(&format!("/bucket/{}", encode(key, true))).await.ok();
        assert_eq!(got.text(), format!("content {at}"), "{key:?}");
    }
    let listed = client.call(Method::GET, "/bucket", "encoding-type=url&list-type=2", &[], b"").await.ok();
    let mut shown: Vec<String> =
        listed.elements("Key").iter().map(|key| urlencoding::decode(key).unwrap().into_owned()).collect();
    let mut expected: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    expected.sort();
    assert!(shown.is_sorted(), "S3 order is byte order");
    shown.sort();
    assert_eq!(shown, expected);

    assert_eq!(client.put("/bucket/nul%00", b"x").await.error(), (400, "InvalidURI".to_owned()));
    let longest = "k".repeat(1024);
    client.put(&format!("/bucket/{longest}"), b"x").await.ok();
    assert_eq!(
        client.put(&format!("/bucket/{longest}k"), b"x").await.error(),
        (400, "KeyTooLongError".to_owned())
    );
    server.stop().await;
}

#[tokio::test]
async fn a_host_below_the_domain_names_the_bucket() {
    let server = Server::start().await;
    let mut client = server.client();
    client.put("/my-bucket", b"").await.ok();
    client.host = format!("my-bucket.{DOMAIN}:{}", server.address.port());
    client.put("/a/key", b"virtual").await.ok();
    assert!(server.holds("my-bucket", "a/key"));
    assert_eq!(client.get("/").await.ok().elements("Key"), ["a/key"]);
    client.host = DOMAIN.to_owned();
    assert_eq!(client.get("/my-bucket/a/key").await.ok().text(), "virtual");
    server.stop().await;
}

#[tokio::test]
async fn ranges_are_answered_as_the_rfc_says() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    client.put("/bucket/k", b"0123456789").await.ok();
    for (range, content, shown) in [
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=7-100", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
        ("bytes=-100", "0123456789", "bytes 0-9/10"),
    ] {
        let got = client.call(Method::GET, "/bucket/k", "", &[("range", range)], b"").await;
        assert_eq!(
            (got.status.as_u16(), got.text().as_str(), got.header("content-range")),
            (206, content, shown),
            "{range}"
        );
        let head = client.call(Method::HEAD, "/bucket/k", "", &[("range", range)], b"").await;
        assert_eq!((head.status.as_u16(), head.header("content-range")), (206, shown), "{range}");
    }
    for range in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
        let got = client.call(Method::GET, "/bucket/k", "", &[("range", range)], b"").await;
        assert_eq!(got.error(), (416, "InvalidRange".to_owned()), "{range}");
        assert_eq!(got.header("content-range"), "bytes */10");
    }
    // RFC 9110, section 14.2: what is not understood is ignored. AWS does the same with several ranges.
    for range in ["bytes=5-3", "items=0-1", "bytes=0-1,3-4", "nonsense"] {
        let got = client.call(Method::GET, "/bucket/k", "", &[("range", range)], b"").await;
        assert_eq!((got.status.as_u16(), got.text().as_str()), (200, "0123456789"), "{range}");
    }
    server.stop().await;
}

#[tokio::test]
async fn conditions_on_reads_are_judged_and_304_carries_what_the_rfc_wants() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    let etag = client.put("/bucket/k", b"content").await.ok().header("etag").to_owned();
    let modified = client.get("/bucket/k").await.header("last-modified").to_owned();
    let ask = |headers: Vec<(&'static str, String)>| {
        let client = client.clone();
        async move {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            client.call(Method::GET, "/bucket/k", "", &headers, b"").await
        }
    };
    assert_eq!(ask(vec![("if-match", etag.clone())]).await.status, 200);
    assert_eq!(
        ask(vec![("if-match", "\"other\"".to_owned())]).await.error(),
        (412, "PreconditionFailed".to_owned())
    );
    assert_eq!(ask(vec![("if-none-match", "\"other\"".to_owned())]).await.status, 200);
    let not_modified = ask(vec![("if-none-match", etag.clone())]).await;
    assert_eq!((not_modified.status.as_u16(), not_modified.body.len()), (304, 0));
    assert_eq!(
        (not_modified.header("etag"), not_modified.header("last-modified")),
        (etag.as_str(), modified.as_str())
    );
    assert_eq!(ask(vec![("if-modified-since", modified.clone())]).await.status, 304);
    assert_eq!(ask(vec![("if-unmodified-since", modified.clone())]).await.status, 200);
    let past = "Sat, 01 Jan 2000 00:00:00 GMT".to_owned();
    assert_eq!(ask(vec![("if-unmodified-since", past.clone())]).await.status, 412);
    assert_eq!(ask(vec![("if-modified-since", past.clone())]).await.status, 200);
    assert_eq!(
        ask(vec![("if-none-match", etag.clone()), ("range", "bytes=100-".to_owned())]).await.status,
        304
    );
    assert_eq!(ask(vec![("if-modified-since", "not a date".to_owned())]).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn conditional_writes_are_decided_once() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    let put = |body: &'static [u8], headers: Vec<(&'static str, String)>| {
        let client = client.clone();
        async move {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            client.call(Method::PUT, "/bucket/k", "", &headers, body).await
        }
    };
    let first = put(b"one", vec![("if-none-match", "*".to_owned())]).await.ok();
    assert_eq!(
        put(b"two", vec![("if-none-match", "*".to_owned())]).await.error(),
        (412, "PreconditionFailed".to_owned())
    );
    assert_eq!(
        put(b"two", vec![("if-match", "\"other\"".to_owned())]).await.error(),
        (412, "PreconditionFailed".to_owned())
    );
    put(b"two", vec![("if-match", first.header("etag").to_owned())]).await.ok();
    assert_eq!(client.get("/bucket/k").await.text(), "two");
    put(b"two", vec![("if-match", "*".to_owned())]).await.ok();
    client.delete("/bucket/k").await.ok();
    assert_eq!(put(b"two", vec![("if-match", "*".to_owned())]).await.error(), (404, "NoSuchKey".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn attributes_come_back_and_response_headers_can_be_overridden() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    let headers = [
        ("content-type", "text/x-thing"),
        ("cache-control", "max-age=3"),
        ("content-disposition", "attachment"),
        ("content-encoding", "gzip"),
        ("content-language", "de"),
        ("expires", "Thu, 01 Dec 2044 16:00:00 GMT"),
        ("x-amz-meta-name", "value"),
        ("x-amz-meta-other-name", "other value"),
    ];
    client.call(Method::PUT, "/bucket/k", "", &headers, b"x").await.ok();
    let got = client.get("/bucket/k").await.ok();
    for (name, value) in headers {
        assert_eq!(got.header(name), value);
    }
    let query = "response-content-type=a%2Fb&response-expires=Thu%2C%2001%20Dec%202050%2016%3A00%3A00%20GMT";
    let got = client.call(Method::GET, "/bucket/k", query, &[], b"").await.ok();
    assert_eq!(got.header("content-type"), "a/b");
    assert_eq!(got.header("expires"), "Thu, 01 Dec 2050 16:00:00 GMT");
    server.stop().await;
}

#[tokio::test]
async fn copies_keep_or_replace_attributes_and_judge_their_source() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    client.call(Method::PUT, "/bucket/from%20here", "", &[("x-amz-meta-a", "1")], b"content").await.ok();
    let copy = |headers: Vec<(&'static str, &'static str)>| {
        let client = client.clone();
        async move { client.call(Method::PUT, "/bucket/to", "", &headers, b"").await }
    };
    let source = ("x-amz-copy-source", "/bucket/from%20here");
    let copied = copy(vec![source]).await.ok();
    assert_eq!(copied.element("ETag").as_deref(), Some("\"9a0364b9e99bb480dd25e1f0284c8555\""));
    let got = client.get("/bucket/to").await.ok();
    assert_eq!((got.text().as_str(), got.header("x-amz-meta-a")), ("content", "1"));
    copy(vec![source, ("x-amz-metadata-directive", "REPLACE"), ("x-amz-meta-b", "2")]).await.ok();
    let got = client.get("/bucket/to").await.ok();
    assert_eq!((got.header("x-amz-meta-a"), got.header("x-amz-meta-b")), ("", "2"));

    let refused = copy(vec![source, ("x-amz-copy-source-if-match", "\"other\"")]).await;
    assert_eq!(refused.error(), (412, "PreconditionFailed".to_owned()));
    assert_eq!(
        copy(vec![("x-amz-copy-source", "/bucket/to")]).await.error(),
        (400, "InvalidRequest".to_owned())
    );
    assert_eq!(
        copy(vec![("x-amz-copy-source", "/bucket/gone")]).await.error(),
        (404, "NoSuchKey".to_owned())
    );
    let checked = copy(vec![source, ("x-amz-checksum-algorithm", "CRC32")]).await.ok();
    assert!(checked.element("ChecksumCRC32").is_some());
    server.stop().await;
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    client.put("/bucket/k", b"mine").await.ok();
    let mut other = client.clone();
    (other.access_key, other.secret) = (OTHER_KEY.to_owned(), OTHER_SECRET.to_owned());
    assert_eq!(other.get("/bucket/k").await.error(), (404, "NoSuchBucket".to_owned()));
    assert!(other.get("/").await.ok().elements("Name").is_empty());
    let copy = [("x-amz-copy-source", "/bucket/k")];
    other.put("/theirs", b"").await.ok();
    assert_eq!(
        other.call(Method::PUT, "/theirs/k", "", &copy, b"").await.error(),
        (404, "NoSuchBucket".to_owned())
    );
    server.stop().await;
}

#[tokio::test]
async fn many_objects_are_deleted_at_once_and_every_one_is_answered() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    for key in ["a", "b", "c"] {
        client.put(&format!("/bucket/{key}"), b"x").await.ok();
    }
    let document = |quiet: bool| {
        format!(
            "<Delete><Quiet>{quiet}</Quiet><Object><Key>a</Key></Object><Object><Key>missing</Key></Object>\
                 <Object><Key>b</Key><VersionId>other</VersionId></Object></Delete>"
        )
    };
    let answer = client.call(Method::POST, "/bucket", "delete", &[], document(false).as_bytes()).await.ok();
    assert_eq!(answer.elements("Key"), ["a", "missing", "b"]);
    assert_eq!(answer.elements("Code"), ["NoSuchVersion"]);
    assert!(!server.holds("bucket", "a") && server.holds("bucket", "b"));
    let answer = client.call(Method::POST, "/bucket", "delete", &[], document(true).as_bytes()).await.ok();
    assert!(answer.elements("Deleted").is_empty());

    let wrong = client
        .call(
            Method::POST,
            "/bucket",
            "delete",
            &[("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==")],
            document(true).as_bytes(),
        )
        .await;
    assert_eq!(wrong.error(), (400, "BadDigest".to_owned()));
    let wrong = client
        .call(
            Method::POST,
            "/bucket",
            "delete",
            &[("x-amz-checksum-crc32", "AAAAAA==")],
            document(true).as_bytes(),
        )
        .await;
    assert_eq!(wrong.error(), (400, "BadDigest".to_owned()));
    assert_eq!(
        client.call(Method::POST, "/bucket", "delete", &[], b"<Delete>").await.error(),
        (400, "MalformedXML".to_owned())
    );
    server.stop().await;
}
