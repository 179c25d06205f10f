//! Multipart uploads and listings.

use crate::support::{
    Server,
    client::{Answer, Client},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use crc_fast::{CrcAlgorithm, checksum};
use http::Method;
use md5::{Digest, Md5};

/// As large as a part that is not the last has to be.
fn large(byte: u8) -> Vec<u8> {
    vec![byte; 5 << 20]
}

fn md5(content: &[u8]) -> Vec<u8> {
    Md5::digest(content).to_vec()
}

fn crc32(content: &[u8]) -> [u8; 4] {
    (checksum(CrcAlgorithm::Crc32IsoHdlc, content) as u32).to_be_bytes()
}

async fn start() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    (server, client)
}

async fn begin(client: &Client, headers: &[(&str, &str)]) -> String {
    client
        .call(Method::POST, "/bucket/k", "uploads", headers, b"")
        .await
        .ok()
        .element("UploadId")
        .expect("an id")
}

async fn part(client: &Client, upload: &str, number: u32, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    client
        .call(Method::PUT, "/bucket/k", &format!("partNumber={number}&uploadId={upload}"), headers, body)
        .await
}

async fn complete(client: &Client, upload: &str, parts: &[(u32, &str)], headers: &[(&str, &str)]) -> Answer {
    let parts: String = parts
        .iter()
        .map(|(number, etag)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"))
        .collect();
    let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    client.call(Method::POST, "/bucket/k", &format!("uploadId={upload}"), headers, document.as_bytes()).await
}

#[tokio::test]
async fn parts_become_an_object_with_the_etag_of_their_etags() {
    let (server, client) = start().await;
    let upload = begin(&client, &[("x-amz-meta-a", "1"), ("content-type", "text/plain")]).await;
    let first = part(&client, &upload, 1, &[], &large(b'1')).await.ok();
    let second = part(&client, &upload, 7, &[], b"second").await.ok();
    let listed =
        client.call(Method::GET, "/bucket/k", &format!("uploadId={upload}&max-parts=1"), &[], b"").await.ok();
    assert_eq!(
        (listed.elements("PartNumber"), listed.element("IsTruncated")),
        (vec!["1".to_owned()], Some("true".to_owned()))
    );
    assert_eq!(listed.element("NextPartNumberMarker").as_deref(), Some("1"));
    assert_eq!(
        client.call(Method::GET, "/bucket", "uploads", &[], b"").await.ok().elements("UploadId"),
        std::slice::from_ref(&upload)
    );
    assert!(!server.holds("bucket", "k"));
    let done =
        complete(&client, &upload, &[(1, first.header("etag")), (7, second.header("etag"))], &[]).await.ok();
    let of_etags = hex::encode(md5(&[md5(&large(b'1')), md5(b"second")].concat()));
    assert_eq!(done.element("ETag"), Some(format!("\"{of_etags}-2\"")));
    let got = client.get("/bucket/k").await.ok();
    assert!(*got.body == [large(b'1'), b"second".to_vec()].concat());
    assert_eq!((got.header("x-amz-meta-a"), got.header("content-type")), ("1", "text/plain"));
    // The answer was lost: the same completion again is the same success.
    let again =
        complete(&client, &upload, &[(1, first.header("etag")), (7, second.header("etag"))], &[]).await.ok();
    assert_eq!(again.element("ETag"), done.element("ETag"));
    assert_eq!(part(&client, &upload, 1, &[], b"x").await.error(), (404, "NoSuchUpload".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_list_of_parts_that_is_wrong_completes_nothing() {
    let (server, client) = start().await;
    let upload = begin(&client, &[]).await;
    let first = part(&client, &upload, 1, &[], b"1").await.ok().header("etag").to_owned();
    let second = part(&client, &upload, 2, &[], b"22222").await.ok().header("etag").to_owned();
    let cases: [(&[(u32, &str)], u16, &str); 6] = [
        (&[], 400, "MalformedXML"),
        (&[(2, &second), (1, &first)], 400, "InvalidPartOrder"),
        (&[(1, &first), (1, &first)], 400, "InvalidPartOrder"),
        (&[(1, &second)], 400, "InvalidPart"),
        (&[(1, &first), (3, &second)], 400, "InvalidPart"),
        (&[(1, &first), (2, &second)], 400, "EntityTooSmall"),
    ];
    for (parts, status, code) in cases {
        assert_eq!(
            complete(&client, &upload, parts, &[]).await.error(),
            (status, code.to_owned()),
            "{parts:?}"
        );
    }
    for number in [0, 10_001] {
        assert_eq!(
            part(&client, &upload, number, &[], b"x").await.error(),
            (400, "InvalidArgument".to_owned())
        );
    }
    let size = complete(&client, &upload, &[(2, &second)], &[("x-amz-mp-object-size", "6")]).await;
    assert_eq!(size.error(), (400, "InvalidRequest".to_owned()));
    assert!(!server.holds("bucket", "k"));
    let query = format!("uploadId={upload}");
    assert_eq!(client.call(Method::DELETE, "/bucket/k", &query, &[], b"").await.status, 204);
    assert_eq!(
        client.call(Method::DELETE, "/bucket/k", &query, &[], b"").await.error(),
        (404, "NoSuchUpload".to_owned())
    );
    assert_eq!(part(&client, &upload, 1, &[], b"x").await.error(), (404, "NoSuchUpload".to_owned()));
    assert_eq!(part(&client, "nonsense", 1, &[], b"x").await.error(), (404, "NoSuchUpload".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn checksums_of_parts_become_the_checksum_of_the_object() {
    // The composite is the CRC-32 of the two parts' values.
    let (server, client) = start().await;
    let one = large(b'1');
    let values = [crc32(&one), crc32(b"6789")];
    let encoded = values.map(|value| STANDARD.encode(value));
    let whole = STANDARD.encode(crc32(&[one.as_slice(), b"6789"].concat()));
    let composite = format!("{}-2", STANDARD.encode(crc32(&values.concat())));
    for (kind, expected) in [("FULL_OBJECT", whole), ("COMPOSITE", composite)] {
        let upload =
            begin(&client, &[("x-amz-checksum-algorithm", "CRC32"), ("x-amz-checksum-type", kind)]).await;
        let first = part(&client, &upload, 1, &[("x-amz-checksum-crc32", &encoded[0])], &one).await.ok();
        let second = part(&client, &upload, 2, &[("x-amz-checksum-crc32", &encoded[1])], b"6789").await.ok();
        let parts = [(1, first.header("etag")), (2, second.header("etag"))]
            .map(|(number, etag)| (number, etag.to_owned()));
        let parts: Vec<(u32, &str)> = parts.iter().map(|(number, etag)| (*number, etag.as_str())).collect();
        let wrong = complete(&client, &upload, &parts, &[("x-amz-checksum-crc32", "AAAAAA==")]).await;
        assert_eq!(wrong.error(), (400, "BadDigest".to_owned()));
        let done = complete(&client, &upload, &parts, &[]).await.ok();
        let value = done.element("ChecksumCRC32").unwrap();
        assert_eq!(value, expected, "{kind}");
        assert_eq!(done.element("ChecksumType").as_deref(), Some(kind));
        let head =
            client.call(Method::HEAD, "/bucket/k", "", &[("x-amz-checksum-mode", "ENABLED")], b"").await.ok();
        assert_eq!(
            (head.header("x-amz-checksum-crc32"), head.header("x-amz-checksum-type")),
            (value.as_str(), kind)
        );
    }
    let upload = begin(&client, &[("x-amz-checksum-algorithm", "CRC32")]).await;
    let bare = part(&client, &upload, 1, &[], b"12345").await.ok();
    assert_eq!(
        complete(&client, &upload, &[(1, bare.header("etag"))], &[]).await.error(),
        (400, "InvalidRequest".to_owned())
    );
    assert_eq!(
        part(&client, &upload, 1, &[("x-amz-checksum-crc32", "AAAAAA==")], b"12345").await.error(),
        (400, "BadDigest".to_owned())
    );
    server.stop().await;
}

#[tokio::test]
async fn parts_are_copied_from_ranges_of_objects() {
    let (server, client) = start().await;
    let source = [large(b'a'), b"56789".to_vec()].concat();
    client.put("/bucket/source", &source).await.ok();
    let upload = begin(&client, &[("x-amz-checksum-algorithm", "SHA256")]).await;
    let from = ("x-amz-copy-source", "/bucket/source");
    let first =
        part(&client, &upload, 1, &[from, ("x-amz-copy-source-range", "bytes=5-5242884")], b"").await.ok();
    assert!(first.element("ChecksumSHA256").is_some(), "an upload with checksums computes them for copies");
    let second = part(&client, &upload, 2, &[from], b"").await.ok();
    for (range, code) in [("bytes=5-5242885", "InvalidArgument"), ("bytes=-3", "InvalidArgument")] {
        let refused = part(&client, &upload, 3, &[from, ("x-amz-copy-source-range", range)], b"").await;
        assert_eq!(refused.error(), (400, code.to_owned()));
    }
    let etags = [first.element("ETag").unwrap(), second.element("ETag").unwrap()];
    complete(&client, &upload, &[(1, &etags[0]), (2, &etags[1])], &[]).await.ok();
    assert!(*client.get("/bucket/k").await.ok().body == [&source[5..], &source].concat());
    server.stop().await;
}

async fn list(client: &Client, query: &str) -> Answer {
    client.call(Method::GET, "/bucket", query, &[], b"").await
}

#[tokio::test]
async fn listings_page_group_and_resume() {
    let (server, client) = start().await;
    for key in ["a/1", "a/2", "b", "c/x/y", "c/z", "d"] {
        client.put(&format!("/bucket/{key}"), b"x").await.ok();
    }
    let all = list(&client, "list-type=2").await.ok();
    assert_eq!(all.elements("Key"), ["a/1", "a/2", "b", "c/x/y", "c/z", "d"]);
    assert_eq!(
        (all.element("KeyCount").as_deref(), all.element("IsTruncated").as_deref()),
        (Some("6"), Some("false"))
    );
    assert!(all.element("Owner").is_none());
    assert_eq!(list(&client, "fetch-owner=true&list-type=2").await.ok().elements("DisplayName").len(), 6);

    let (mut seen, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let resume = if token.is_empty() { String::new() } else { format!("continuation-token={token}&") };
        let page = list(&client, &format!("{resume}delimiter=%2F&list-type=2&max-keys=1")).await.ok();
        seen.extend(page.elements("Key"));
        seen.extend(page.elements("Prefix").into_iter().filter(|prefix| !prefix.is_empty()));
        pages += 1;
        match page.element("NextContinuationToken") {
            Some(next) => token = next,
            None => break,
        }
    }
    assert_eq!((seen, pages), (vec!["a/".to_owned(), "b".to_owned(), "c/".to_owned(), "d".to_owned()], 4));

    assert_eq!(list(&client, "list-type=2&start-after=b").await.ok().elements("Key"), ["c/x/y", "c/z", "d"]);
    assert_eq!(list(&client, "delimiter=%2F&list-type=2&prefix=c%2F").await.ok().elements("Key"), ["c/z"]);
    let empty = list(&client, "list-type=2&max-keys=0").await.ok();
    assert_eq!((empty.elements("Key").len(), empty.element("IsTruncated").as_deref()), (0, Some("false")));

    let old = list(&client, "delimiter=%2F&max-keys=2").await.ok();
    assert_eq!(
        (old.elements("Key"), old.element("NextMarker").as_deref()),
        (vec!["b".to_owned()], Some("b"))
    );
    let old = list(&client, "delimiter=%2F&marker=b").await.ok();
    assert_eq!(old.elements("Key"), ["d"]);
    assert!(
        list(&client, "max-keys=2").await.ok().element("NextMarker").is_none(),
        "only with a delimiter, as AWS"
    );

    let versions = list(&client, "max-keys=4&versions").await.ok();
    assert_eq!(versions.elements("VersionId"), ["null"; 4]);
    assert_eq!(versions.element("NextKeyMarker").as_deref(), Some("c/x/y"));

    for query in [
        "list-type=2&max-keys=-1",
        "encoding-type=rot13&list-type=2",
        "continuation-token=%21&list-type=2",
        "max-keys=many",
    ] {
        assert_eq!(list(&client, query).await.error(), (400, "InvalidArgument".to_owned()), "{query}");
    }
    server.stop().await;
}

#[tokio::test]
async fn uploads_are_listed_in_order_grouped_and_resumed() {
    let (server, client) = start().await;
    let mut uploads = Vec::new();
    for key in ["a/1", "a/2", "b", "b", "c/1"] {
        let begun = client.call(Method::POST, &format!("/bucket/{key}"), "uploads", &[], b"").await.ok();
        uploads.push(begun.element("UploadId").unwrap());
    }
    // Two of a key that began in the same millisecond are in the order of their ids.
    uploads[2..4].sort();
    assert_eq!(list(&client, "uploads").await.ok().elements("UploadId"), uploads);
    let grouped = list(&client, "delimiter=%2F&uploads").await.ok();
    assert_eq!(grouped.elements("UploadId"), uploads[2..4]);
    let prefixes: Vec<String> =
        grouped.elements("Prefix").into_iter().filter(|prefix| !prefix.is_empty()).collect();
    assert_eq!(prefixes, ["a/", "c/"]);

    let page = list(&client, "max-uploads=3&uploads").await.ok();
    assert_eq!(
        (page.elements("UploadId"), page.element("IsTruncated").as_deref()),
        (uploads[..3].to_vec(), Some("true"))
    );
    let (key, id) = (page.element("NextKeyMarker").unwrap(), page.element("NextUploadIdMarker").unwrap());
    let rest = list(&client, &format!("key-marker={key}&upload-id-marker={id}&uploads")).await.ok();
    assert_eq!(rest.elements("UploadId"), uploads[3..]);
    let page = list(&client, "delimiter=%2F&max-uploads=1&uploads").await.ok();
    assert_eq!(page.element("NextKeyMarker").as_deref(), Some("a/"));
    let rest = list(&client, "delimiter=%2F&key-marker=a%2F&uploads").await.ok();
    assert_eq!(rest.elements("UploadId"), uploads[2..4]);
    server.stop().await;
}

#[tokio::test]
async fn uploads_in_progress_go_with_their_bucket() {
    let (server, client) = start().await;
    for _ in 0..3 {
        let upload = begin(&client, &[]).await;
        part(&client, &upload, 1, &[], b"x").await.ok();
    }
    client.put("/bucket/other", b"x").await.ok();
    assert_eq!(client.delete("/bucket").await.error(), (409, "BucketNotEmpty".to_owned()));
    assert_eq!(list(&client, "uploads").await.ok().elements("UploadId").len(), 3);
    client.delete("/bucket/other").await;
    assert_eq!(client.delete("/bucket").await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn parts_of_an_object_are_read_and_listed_by_their_numbers() {
    let (server, client) = start().await;
    let upload = begin(&client, &[("x-amz-checksum-algorithm", "CRC32")]).await;
    let value = |content: &[u8]| STANDARD.encode(crc32(content));
    let (one, two) = (large(b'1'), b"second".to_vec());
    let mut etags = Vec::new();
    for (number, content) in [(2, &one), (5, &two)] {
        let sum = value(content);
        let answer = part(&client, &upload, number, &[("x-amz-checksum-crc32", &sum)], content).await.ok();
        etags.push(answer.header("etag").to_owned());
    }
    complete(&client, &upload, &[(2, &etags[0]), (5, &etags[1])], &[]).await.ok();
    let read = |query: &'static str, headers: Vec<(&'static str, &'static str)>| {
        let client = client.clone();
        async move { client.call(Method::GET, "/bucket/k", query, &headers, b"").await }
    };
    let second = read("partNumber=5", vec![("x-amz-checksum-mode", "ENABLED")]).await;
    assert_eq!((second.status.as_u16(), second.text().as_str()), (206, "second"));
    assert_eq!(second.header("content-range"), "bytes 5242880-5242885/5242886");
    assert_eq!(second.header("x-amz-mp-parts-count"), "2");
    assert_eq!(second.header("x-amz-checksum-crc32"), value(&two));
    let head = client.call(Method::HEAD, "/bucket/k", "partNumber=2", &[], b"").await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (206, "5242880"));
    assert_eq!(read("partNumber=1", vec![]).await.error(), (416, "InvalidPartNumber".to_owned()));
    assert_eq!(read("partNumber=0", vec![]).await.error(), (400, "InvalidArgument".to_owned()));
    let both = read("partNumber=2", vec![("range", "bytes=0-1")]).await;
    assert_eq!(both.error(), (400, "InvalidRequest".to_owned()));

    let ask = |headers: Vec<(&'static str, &'static str)>| read("attributes", headers);
    let all = ("x-amz-object-attributes", "ETag,ObjectParts,ObjectSize,Checksum");
    let page = ask(vec![all, ("x-amz-max-parts", "1")]).await.ok();
    assert_eq!(page.element("PartsCount").as_deref(), Some("2"));
    assert_eq!(page.element("IsTruncated").as_deref(), Some("true"));
    assert_eq!(page.element("NextPartNumberMarker").as_deref(), Some("2"));
    assert_eq!(page.elements("PartNumber"), ["2"]);
    let etag = client.call(Method::HEAD, "/bucket/k", "", &[], b"").await.header("etag").to_owned();
    assert_eq!(page.element("ETag").as_deref(), Some(etag.trim_matches('"')), "without its quotes");
    let rest = ask(vec![all, ("x-amz-part-number-marker", "2")]).await.ok();
    assert_eq!(rest.elements("PartNumber"), ["5"]);
    let wrong = ask(vec![("x-amz-object-attributes", "Colour")]).await;
    assert_eq!(wrong.error(), (400, "InvalidArgument".to_owned()));

    client.put("/bucket/k", b"whole").await.ok();
    let whole = read("partNumber=1", vec![]).await;
    assert_eq!((whole.status.as_u16(), whole.header("content-range")), (206, "bytes 0-4/5"));
    assert_eq!(whole.header("x-amz-mp-parts-count"), "");
    assert_eq!(read("partNumber=2", vec![]).await.error(), (416, "InvalidPartNumber".to_owned()));
    let other = read("", vec![("range", "bytes=0-0"), ("if-range", "\"other\"")]).await;
    assert_eq!((other.status.as_u16(), other.text().as_str()), (200, "whole"));
    server.stop().await;
}
