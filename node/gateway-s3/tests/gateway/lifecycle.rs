//! Lifecycle rules, storage classes and what answers say of them. Carrying rules out is the object layer's.

use crate::support::{Server, client::Client};
use http::Method;

async fn start() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    (server, client)
}

fn rules(inner: &str) -> String {
    format!("<LifecycleConfiguration>{inner}</LifecycleConfiguration>")
}

async fn put_rules(client: &Client, inner: &str) -> (u16, String) {
    client.call(Method::PUT, "/bucket", "lifecycle", &[], rules(inner).as_bytes()).await.error()
}

#[tokio::test]
async fn rules_come_back_as_they_were_put_and_go() {
    let (server, client) = start().await;
    let get = || client.call(Method::GET, "/bucket", "lifecycle", &[], b"");
    assert_eq!(get().await.error(), (404, "NoSuchLifecycleConfiguration".into()));
    let put = "<Rule><ID>a</ID><Prefix>old/</Prefix><Status>Enabled</Status><Expiration><Days>3</Days></Expiration></Rule>\
               <Rule><Filter><And><Prefix>x</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></And></Filter><Status>Disabled</Status>\
               <NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays><NewerNoncurrentVersions>4</NewerNoncurrentVersions></NoncurrentVersionExpiration></Rule>";
    assert_eq!(put_rules(&client, put).await.0, 200);
    let got = get().await.ok();
    assert_eq!(got.elements("Status"), ["Enabled", "Disabled"]);
    assert_eq!(got.elements("Prefix"), ["old/", "x"]);
    assert_eq!(got.element("NewerNoncurrentVersions").as_deref(), Some("4"));
    assert_eq!(got.elements("ID")[0], "a");
    assert!(!got.elements("ID")[1].is_empty());
    let gone = client.call(Method::DELETE, "/bucket", "lifecycle", &[], b"").await;
    assert_eq!(gone.status, 204);
    assert_eq!(get().await.error().0, 404);
    server.stop().await;
}

#[tokio::test]
async fn rules_that_cannot_be_carried_out_are_refused() {
    let (server, client) = start().await;
    let rule = |id: &str, status: &str, days: &str| {
        format!(
            "<Rule><ID>{id}</ID><Prefix/><Status>{status}</Status><Expiration><Days>{days}</Days></Expiration></Rule>"
        )
    };
    let refused = |code: &str| (400, code.to_owned());
    let twice = rule("a", "Enabled", "1").repeat(2);
    assert_eq!(put_rules(&client, &twice).await, refused("InvalidArgument"));
    assert_eq!(put_rules(&client, &rule("a", "enabled", "1")).await, refused("MalformedXML"));
    assert_eq!(put_rules(&client, &rule("a", "Enabled", "0")).await, refused("InvalidArgument"));
    assert_eq!(put_rules(&client, &rule(&"i".repeat(256), "Enabled", "1")).await, refused("InvalidArgument"));
    let glacier = "<Rule><Prefix/><Status>Enabled</Status><Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition></Rule>";
    assert_eq!(put_rules(&client, glacier).await, (501, "NotImplemented".into()));
    server.stop().await;
}

#[tokio::test]
async fn answers_say_when_an_object_expires_and_by_which_rule() {
    let (server, client) = start().await;
    let rule = "<Rule><ID>my rule</ID><Filter><And><Prefix>l/</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></And></Filter><Status>Enabled</Status><Expiration><Days>2</Days></Expiration></Rule>";
    assert_eq!(put_rules(&client, rule).await.0, 200);
    let tagged = [("x-amz-tagging", "k=v")];
    let put = client.call(Method::PUT, "/bucket/l/x", "", &tagged, b"x").await.ok();
    let head = client.call(Method::HEAD, "/bucket/l/x", "", &[], b"").await.ok();
    let get = client.get("/bucket/l/x").await.ok();
    for answer in [&put, &head, &get] {
        let said = answer.header("x-amz-expiration");
        assert!(said.starts_with("expiry-date=\""), "{said}");
        assert!(said.ends_with(" 00:00:00 GMT\", rule-id=\"my%20rule\""), "{said}");
    }
    let other = client.put("/bucket/l/y", b"x").await.ok();
    assert_eq!(other.header("x-amz-expiration"), "", "it has no such tag");
    server.stop().await;
}

#[tokio::test]
async fn classes_are_kept_shown_and_not_taken_over_by_copies() {
    let (server, client) = start().await;
    let class = |name: &'static str| [("x-amz-storage-class", name)];
    client.call(Method::PUT, "/bucket/k", "", &class("STANDARD_IA"), b"x").await.ok();
    client.put("/bucket/s", b"x").await.ok();
    let header = |answer: &crate::support::client::Answer| answer.header("x-amz-storage-class").to_owned();
    assert_eq!(header(&client.get("/bucket/k").await.ok()), "STANDARD_IA");
    assert_eq!(header(&client.get("/bucket/s").await.ok()), "");
    let listed = client.call(Method::GET, "/bucket", "list-type=2", &[], b"").await.ok();
    assert_eq!(listed.elements("StorageClass"), ["STANDARD_IA", "STANDARD"]);
    assert_eq!(listed.elements("ChecksumAlgorithm"), ["CRC64NVME", "CRC64NVME"]);
    let listed = client.call(Method::GET, "/bucket", "versions", &[], b"").await.ok();
    assert_eq!(listed.elements("StorageClass"), ["STANDARD_IA", "STANDARD"]);
    assert_eq!(listed.elements("ChecksumType"), ["FULL_OBJECT", "FULL_OBJECT"]);
    client.call(Method::PUT, "/bucket/c", "", &[("x-amz-copy-source", "/bucket/k")], b"").await.ok();
    assert_eq!(header(&client.get("/bucket/c").await.ok()), "");
    let onto_itself = [("x-amz-copy-source", "/bucket/c"), ("x-amz-storage-class", "ONEZONE_IA")];
    client.call(Method::PUT, "/bucket/c", "", &onto_itself, b"").await.ok();
    assert_eq!(header(&client.get("/bucket/c").await.ok()), "ONEZONE_IA");
    let cheap = client.call(Method::PUT, "/bucket/n", "", &class("CHEAP"), b"x").await;
    assert_eq!(cheap.error(), (400, "InvalidStorageClass".into()));
    let glacier = client.call(Method::PUT, "/bucket/n", "", &class("GLACIER"), b"x").await;
    assert_eq!(glacier.error(), (501, "NotImplemented".into()));
    server.stop().await;
}

#[tokio::test]
async fn an_object_sent_without_a_checksum_gets_one() {
    let (server, client) = start().await;
    let put = client.put("/bucket/k", b"123456789").await.ok();
    assert_eq!(put.header("x-amz-checksum-crc64nvme"), "rosUhgp5mIg=");
    assert_eq!(put.header("x-amz-checksum-type"), "FULL_OBJECT");
    let mode = [("x-amz-checksum-mode", "ENABLED")];
    let head = client.call(Method::HEAD, "/bucket/k", "", &mode, b"").await.ok();
    assert_eq!(head.header("x-amz-checksum-crc64nvme"), "rosUhgp5mIg=");
    // An upload begun without an algorithm, in two parts of which the first is the whole minimum.
    let upload = client.call(Method::POST, "/bucket/m", "uploads", &[], b"").await.ok().element("UploadId");
    let upload = upload.unwrap();
    let query = format!("partNumber=1&uploadId={upload}");
    let part = client.call(Method::PUT, "/bucket/m", &query, &[], b"123456789").await.ok();
    let list = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{}</ETag></Part></CompleteMultipartUpload>",
        part.header("etag")
    );
    let query = format!("uploadId={upload}");
    let done = client.call(Method::POST, "/bucket/m", &query, &[], list.as_bytes()).await.ok();
    assert_eq!(done.element("ChecksumCRC64NVME").as_deref(), Some("rosUhgp5mIg="));
    assert_eq!(done.element("ChecksumType").as_deref(), Some("FULL_OBJECT"));
    server.stop().await;
}
