//! Customer's keys, named keys and default encryption, over the real catalog. That a body cannot be opened
//! without its key is shown in `holdfast-crypt`; here it is who is let near it.

use crate::support::{
    Server,
    client::{Answer, Client},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::Method;
use md5::{Digest, Md5};

const ALGORITHM: &str = "x-amz-server-side-encryption";
const KEY_ID: &str = "x-amz-server-side-encryption-aws-kms-key-id";

/// The three headers of a customer's key, with or without the prefix of a copy's source.
fn key(prefix: &str, byte: u8) -> Vec<(String, String)> {
    let bytes = [byte; 32];
    let name = |end: &str| format!("x-amz-{prefix}server-side-encryption-customer-{end}");
    vec![
        (name("algorithm"), "AES256".to_owned()),
        (name("key"), BASE64.encode(bytes)),
        (name("key-md5"), BASE64.encode(Md5::digest(bytes))),
    ]
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    query: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Answer {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    client.call(method, path, query, &headers, body).await
}

async fn start() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    (server, client)
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn an_object_under_a_customers_key_is_answered_to_who_sends_that_key() {
    let (server, client) = start().await;
    let put = send(&client, Method::PUT, "/bucket/k", "", &key("", 1), b"secret").await.ok();
    assert_eq!(put.header("x-amz-server-side-encryption-customer-algorithm"), "AES256");
    assert_eq!(put.header("x-amz-server-side-encryption-customer-key-md5"), key("", 1)[2].1);
    assert_eq!(put.header(ALGORITHM), "");
    assert_ne!(put.header("etag").trim_matches('"'), hex::encode(Md5::digest(b"secret")));

    let get = |headers: Vec<(String, String)>| {
        let client = client.clone();
        async move { send(&client, Method::GET, "/bucket/k", "", &headers, b"").await }
    };
    let whole = get(key("", 1)).await.ok();
    assert_eq!((whole.text(), whole.header("content-length")), ("secret".into(), "6"));
    assert_eq!(get(Vec::new()).await.error(), refused(400, "InvalidRequest"));
    assert_eq!(get(key("", 2)).await.error(), refused(403, "AccessDenied"));
    let head = |headers: Vec<(String, String)>| {
        let client = client.clone();
        async move { send(&client, Method::HEAD, "/bucket/k", "", &headers, b"").await.status.as_u16() }
    };
    assert_eq!(head(key("", 1)).await, 200);
    assert_eq!(head(Vec::new()).await, 400);
    assert_eq!(head(key("", 2)).await, 403);

    // What has no such key is not opened by one, and who sends half a key sends none.
    client.put("/bucket/plain", b"x").await.ok();
    let answer = send(&client, Method::GET, "/bucket/plain", "", &key("", 1), b"").await;
    assert_eq!(answer.error(), refused(400, "InvalidRequest"));
    let answer = send(&client, Method::PUT, "/bucket/half", "", &key("", 1)[..2], b"x").await;
    assert_eq!(answer.error(), refused(400, "InvalidArgument"));
    assert!(!server.objects.holds("bucket", "half"));
    server.stop().await;
}

#[tokio::test]
async fn copies_open_with_one_key_and_seal_with_another() {
    let (server, client) = start().await;
    send(&client, Method::PUT, "/bucket/k", "", &key("", 1), b"secret").await.ok();
    let source = ("x-amz-copy-source".to_owned(), "/bucket/k".to_owned());
    let copy = |to: &'static str, mut headers: Vec<(String, String)>| {
        let (client, source) = (client.clone(), source.clone());
        async move {
            headers.push(source);
            send(&client, Method::PUT, to, "", &headers, b"").await
        }
    };
    assert_eq!(copy("/bucket/c", Vec::new()).await.error(), refused(400, "InvalidRequest"));
    let wrong = copy("/bucket/c", key("copy-source-", 2)).await;
    assert_eq!(wrong.error(), refused(403, "AccessDenied"));
    copy("/bucket/c", [key("copy-source-", 1), key("", 3)].concat()).await.ok();
    let read = send(&client, Method::GET, "/bucket/c", "", &key("", 3), b"").await.ok();
    assert_eq!(read.text(), "secret");
    // Without a key of its own the copy is sealed as everything is.
    copy("/bucket/open", key("copy-source-", 1)).await.ok();
    let open = client.get("/bucket/open").await.ok();
    assert_eq!((open.text(), open.header(ALGORITHM)), ("secret".into(), "AES256"));
    // Onto itself, to be sealed anew.
    copy("/bucket/k", [key("copy-source-", 1), key("", 4)].concat()).await.ok();
    send(&client, Method::GET, "/bucket/k", "", &key("", 4), b"").await.ok();
    server.stop().await;
}

#[tokio::test]
async fn parts_come_with_the_key_their_upload_was_begun_with() {
    let (server, client) = start().await;
    let begun = send(&client, Method::POST, "/bucket/m", "uploads", &key("", 1), b"").await.ok();
    let upload = begun.element("UploadId").unwrap();
    let part = |headers: Vec<(String, String)>| {
        let (client, query) = (client.clone(), format!("partNumber=1&uploadId={upload}"));
        async move { send(&client, Method::PUT, "/bucket/m", &query, &headers, b"part").await }
    };
    assert_eq!(part(Vec::new()).await.error(), refused(400, "InvalidRequest"));
    assert_eq!(part(key("", 2)).await.error(), refused(400, "InvalidRequest"));
    let etag = part(key("", 1)).await.ok().header("etag").to_owned();
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let query = format!("uploadId={upload}");
    send(&client, Method::POST, "/bucket/m", &query, &[], list.as_bytes()).await.ok();
    assert_eq!(client.get("/bucket/m").await.error(), refused(400, "InvalidRequest"));
    let read = send(&client, Method::GET, "/bucket/m", "", &key("", 1), b"").await.ok();
    assert_eq!(read.text(), "part");
    server.stop().await;
}

#[tokio::test]
async fn named_keys_are_named_in_answers_and_unknown_ones_refused() {
    let (server, client) = start().await;
    let kms =
        |id: &str| vec![(ALGORITHM.to_owned(), "aws:kms".to_owned()), (KEY_ID.to_owned(), id.to_owned())];
    let unknown = send(&client, Method::PUT, "/bucket/k", "", &kms("no-such-key"), b"x").await;
    assert_eq!(unknown.error(), refused(400, "KMS.NotFoundException"));
    for answer in [
        send(&client, Method::PUT, "/bucket/k", "", &kms("demo-key"), b"x").await.ok(),
        client.get("/bucket/k").await.ok(),
        client.call(Method::HEAD, "/bucket/k", "", &[], b"").await.ok(),
    ] {
        assert_eq!((answer.header(ALGORITHM), answer.header(KEY_ID)), ("aws:kms", "demo-key"));
    }
    let asked = send(&client, Method::GET, "/bucket/k", "", &kms("demo-key"), b"").await;
    assert_eq!(asked.error(), refused(400, "InvalidArgument"));

    // A part may repeat what its upload was begun with, and choose nothing else.
    let begun = send(&client, Method::POST, "/bucket/m", "uploads", &kms("demo-key"), b"").await.ok();
    let query = format!("partNumber=1&uploadId={}", begun.element("UploadId").unwrap());
    send(&client, Method::PUT, "/bucket/m", &query, &kms("demo-key"), b"x").await.ok();
    let other = send(&client, Method::PUT, "/bucket/m", &query, &kms("alias/aws/s3"), b"x").await;
    assert_eq!(other.error(), refused(400, "InvalidArgument"));

    // A bucket's default is for who does not say otherwise.
    let document = "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault><SSEAlgorithm>aws:kms</SSEAlgorithm><KMSMasterKeyID>demo-key</KMSMasterKeyID></ApplyServerSideEncryptionByDefault><BucketKeyEnabled>true</BucketKeyEnabled></Rule></ServerSideEncryptionConfiguration>";
    let before = client.call(Method::GET, "/bucket", "encryption", &[], b"").await.ok();
    assert_eq!(before.element("SSEAlgorithm").as_deref(), Some("AES256"));
    client.call(Method::PUT, "/bucket", "encryption", &[], document.as_bytes()).await.ok();
    let after = client.call(Method::GET, "/bucket", "encryption", &[], b"").await.ok();
    assert_eq!(after.element("KMSMasterKeyID").as_deref(), Some("demo-key"));
    let put = client.put("/bucket/d", b"x").await.ok();
    assert_eq!((put.header(ALGORITHM), put.header(KEY_ID)), ("aws:kms", "demo-key"));
    assert_eq!(put.header("x-amz-server-side-encryption-bucket-key-enabled"), "true");
    let own = vec![(ALGORITHM.to_owned(), "AES256".to_owned())];
    let put = send(&client, Method::PUT, "/bucket/o", "", &own, b"x").await.ok();
    assert_eq!(put.header(ALGORITHM), "AES256");
    client.call(Method::DELETE, "/bucket", "encryption", &[], b"").await.ok();
    assert_eq!(client.put("/bucket/d", b"x").await.ok().header(ALGORITHM), "AES256");
    server.stop().await;
}
