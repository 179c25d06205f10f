//! Inventories: configured as AWS allows it, and made at once when they are due.

use std::{io::Read, time::Duration};

use flate2::read::GzDecoder;
use futures::TryStreamExt;
use holdfast_model::{TenantId, config::S3Settings};
use holdfast_object::api::{ListQuery, ObjectGateway, RangeChoice};
use http::Method;
use md5::{Digest, Md5};
use tokio::time::timeout;

use crate::support::{
    Server,
    client::{Answer, Client},
};

/// A day of the year 1970 in a test; names of manifests are told apart by minutes.
const DAY_SECONDS: u64 = 60;

async fn world() -> (Server, Client) {
    let settings = S3Settings { day_seconds: DAY_SECONDS, ..S3Settings::default() };
    let server = Server::start_as(&settings).await;
    let client = server.client();
    for bucket in ["/source", "/lists"] {
        client.put(bucket, b"").await.ok();
    }
    (server, client)
}

fn configuration(id: &str, bucket: &str, versions: &str, more: &str) -> String {
    format!(
        "<InventoryConfiguration><Destination><S3BucketDestination><Bucket>{bucket}</Bucket><Format>CSV</Format>\
         <Prefix>p</Prefix></S3BucketDestination></Destination><IsEnabled>true</IsEnabled><Id>{id}</Id>\
         <IncludedObjectVersions>{versions}</IncludedObjectVersions>{more}\
         <Schedule><Frequency>Daily</Frequency></Schedule></InventoryConfiguration>"
    )
}

async fn put(client: &Client, id: &str, document: &str) -> Answer {
    client.call(Method::PUT, "/source", &format!("id={id}&inventory="), &[], document.as_bytes()).await
}

async fn content(server: &Server, key: &str) -> Vec<u8> {
    let objects = server.objects.open(TenantId::from_bytes([1; 16]));
    let (_, _, body) = objects.get("lists", key, None, RangeChoice::All).await.expect("an object");
    let pieces: Vec<bytes::Bytes> = body.try_collect().await.expect("its content");
    pieces.concat()
}

/// Longest wait for an inventory.
const PATIENCE: Duration = Duration::from_secs(60);

async fn manifest(server: &Server, below: &str) -> serde_json::Value {
    timeout(PATIENCE, newest(server, below)).await.expect("a manifest")
}

/// The newest manifest below a prefix, once there is one.
async fn newest(server: &Server, below: &str) -> serde_json::Value {
    let objects = server.objects.open(TenantId::from_bytes([1; 16]));
    loop {
        let query = ListQuery { prefix: below.to_owned(), limit: 1000, ..ListQuery::default() };
        let page = objects.list("lists", query).await.expect("a listing");
        if let Some(found) = page.objects.iter().rev().find(|found| found.key.ends_with("/manifest.json")) {
            let text = content(server, &found.key).await;
            let sum = content(server, &found.key.replace(".json", ".checksum")).await;
            assert_eq!(sum, hex::encode(Md5::digest(&text)).into_bytes());
            return serde_json::from_slice(&text).expect("JSON");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn rows(server: &Server, manifest: &serde_json::Value) -> Vec<String> {
    let mut rows = Vec::new();
    for file in manifest["files"].as_array().expect("files") {
        let bytes = content(server, file["key"].as_str().expect("a key")).await;
        assert_eq!(file["size"], bytes.len());
        assert_eq!(file["MD5checksum"], hex::encode(Md5::digest(&bytes)));
        let mut text = String::new();
        GzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("text");
        rows.extend(text.lines().map(str::to_owned));
    }
    rows
}

#[tokio::test]
async fn what_is_there_is_a_row_of_files_that_a_manifest_names() {
    let (server, client) = world().await;
    client.put("/source/kept/a%20%22b%22,c", b"content").await.ok();
    client.put("/source/kept/%C3%A4", b"").await.ok();
    client.put("/source/other", b"x").await.ok();
    let fields = "<OptionalFields><Field>Size</Field><Field>ETag</Field><Field>StorageClass</Field>\
                  <Field>IsMultipartUploaded</Field><Field>ChecksumAlgorithm</Field></OptionalFields>\
                  <Filter><Prefix>kept/</Prefix></Filter>";
    put(&client, "some", &configuration("some", "arn:aws:s3:::lists", "Current", fields)).await.ok();
    let found = manifest(&server, "p/source/some/").await;
    assert_eq!(found["sourceBucket"], "source");
    assert_eq!(found["destinationBucket"], "arn:aws:s3:::lists");
    assert_eq!(found["fileFormat"], "CSV");
    assert_eq!(
        found["fileSchema"],
        "Bucket, Key, Size, ETag, StorageClass, IsMultipartUploaded, ChecksumAlgorithm"
    );
    let (content, empty) = (hex::encode(Md5::digest(b"content")), hex::encode(Md5::digest(b"")));
    assert_eq!(
        rows(&server, &found).await,
        [
            format!(
                "\"source\",\"kept/a%20%22b%22%2Cc\",\"7\",\"{content}\",\"STANDARD\",\"false\",\"CRC64NVME\""
            ),
            format!("\"source\",\"kept/%C3%A4\",\"0\",\"{empty}\",\"STANDARD\",\"false\",\"CRC64NVME\""),
        ]
    );
}

#[tokio::test]
async fn all_versions_have_rows_when_they_are_asked_for() {
    let (server, client) = world().await;
    let on = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    client.call(Method::PUT, "/source", "versioning=", &[], on).await.ok();
    client.put("/source/k", b"one").await.ok();
    let two = client.put("/source/k", b"two").await.ok();
    client.delete("/source/k").await.ok();
    let fields = "<OptionalFields><Field>Size</Field></OptionalFields>";
    put(&client, "all", &configuration("all", "arn:aws:s3:::lists", "All", fields)).await.ok();
    let found = manifest(&server, "p/source/all/").await;
    assert_eq!(found["fileSchema"], "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size");
    let rows = rows(&server, &found).await;
    assert_eq!(rows.len(), 3, "{rows:#?}");
    assert!(
        rows[0].starts_with("\"source\",\"k\",\"") && rows[0].ends_with("\",\"true\",\"true\",\"\""),
        "{rows:#?}"
    );
    let id = two.header("x-amz-version-id");
    assert_eq!(rows[1], format!("\"source\",\"k\",\"{id}\",\"false\",\"false\",\"3\""));
}

#[tokio::test]
async fn what_is_set_is_shown_and_what_aws_refuses_is_refused() {
    let (server, client) = world().await;
    let get = |query: &'static str| client.call(Method::GET, "/source", query, &[], b"");
    assert_eq!(get("id=a&inventory=").await.error(), (404, "NoSuchConfiguration".to_owned()));
    for id in ["b", "a"] {
        put(&client, id, &configuration(id, "arn:aws:s3:::lists", "All", "")).await.ok();
    }
    let shown = get("id=a&inventory=").await.ok();
    assert_eq!(shown.element("Bucket").as_deref(), Some("arn:aws:s3:::lists"));
    assert_eq!(shown.element("IncludedObjectVersions").as_deref(), Some("All"));
    assert_eq!(shown.element("Frequency").as_deref(), Some("Daily"));
    let listed = get("inventory=").await.ok();
    let text = listed.text();
    assert!(text.find("<Id>a</Id>") < text.find("<Id>b</Id>") && text.contains("<Id>b</Id>"), "{text}");
    client.call(Method::DELETE, "/source", "id=a&inventory=", &[], b"").await.ok();
    assert_eq!(get("id=a&inventory=").await.error().0, 404);
    let again = client.call(Method::DELETE, "/source", "id=a&inventory=", &[], b"").await;
    assert_eq!(again.error(), (404, "NoSuchConfiguration".to_owned()));

    let mut other = server.client();
    other.access_key = format!("{}-alt", crate::support::KEY);
    other.put("/of-another", b"").await.ok();
    let to = "arn:aws:s3:::lists";
    let field = |name: &str| format!("<OptionalFields><Field>{name}</Field></OptionalFields>");
    for (id, document, status, code) in [
        ("x", configuration("y", to, "All", ""), 400, "InvalidArgument"),
        ("a%20b", configuration("a b", to, "All", ""), 400, "InvalidArgument"),
        ("x", configuration("x", "lists", "All", ""), 400, "InvalidS3DestinationBucket"),
        ("x", configuration("x", "arn:aws:s3:::no-bucket", "All", ""), 400, "InvalidS3DestinationBucket"),
        ("x", configuration("x", "arn:aws:s3:::of-another", "All", ""), 403, "AccessDenied"),
        ("x", configuration("x", to, "Some", ""), 400, "MalformedXML"),
        ("x", configuration("x", to, "All", &field("Colour")), 400, "MalformedXML"),
        ("x", configuration("x", to, "All", &field("EncryptionStatus")), 501, "NotImplemented"),
        ("x", configuration("x", to, "All", "").replace("CSV", "ORC"), 501, "NotImplemented"),
    ] {
        assert_eq!(put(&client, id, &document).await.error(), (status, code.to_owned()), "{document}");
    }
}
