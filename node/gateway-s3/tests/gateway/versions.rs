//! Versions, delete markers, tags and locks, over the real catalog.

use crate::support::{
    Server,
    client::{Answer, Client},
};
use http::Method;

const ENABLED: &[u8] = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
const SUSPENDED: &[u8] = b"<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";

async fn start(versioning: &[u8]) -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    set_versioning(&client, versioning).await;
    (server, client)
}

async fn set_versioning(client: &Client, document: &[u8]) {
    client.call(Method::PUT, "/bucket", "versioning", &[], document).await.ok();
}

async fn at(client: &Client, method: Method, version: &str) -> Answer {
    client.call(method, "/bucket/k", &format!("versionId={version}"), &[], b"").await
}

async fn put(client: &Client, body: &[u8]) -> String {
    client.put("/bucket/k", body).await.ok().header("x-amz-version-id").to_owned()
}

#[tokio::test]
async fn versions_are_kept_named_and_uncovered() {
    let (server, client) = start(ENABLED).await;
    let status = client.call(Method::GET, "/bucket", "versioning", &[], b"").await.ok();
    assert_eq!(status.element("Status").as_deref(), Some("Enabled"));
    let (first, second) = (put(&client, b"one").await, put(&client, b"two").await);
    assert!(first != second && first.len() == 32);
    let got = client.get("/bucket/k").await.ok();
    assert_eq!((got.text().as_str(), got.header("x-amz-version-id")), ("two", second.as_str()));
    assert_eq!(at(&client, Method::GET, &first).await.ok().text(), "one");

    let marked = client.delete("/bucket/k").await;
    assert_eq!((marked.status.as_u16(), marked.header("x-amz-delete-marker")), (204, "true"));
    let marker = marked.header("x-amz-version-id").to_owned();
    let gone = client.get("/bucket/k").await;
    assert_eq!(gone.error(), (404, "NoSuchKey".to_owned()));
    assert_eq!(
        (gone.header("x-amz-delete-marker"), gone.header("x-amz-version-id")),
        ("true", marker.as_str())
    );
    for method in [Method::GET, Method::HEAD] {
        let named = at(&client, method, &marker).await;
        assert_eq!((named.status.as_u16(), named.header("allow")), (405, "DELETE"));
        assert!(!named.header("last-modified").is_empty());
    }
    assert_eq!(client.delete("/bucket").await.error(), (409, "BucketNotEmpty".to_owned()));
    let removed = at(&client, Method::DELETE, &marker).await;
    assert_eq!(
        (removed.header("x-amz-delete-marker"), removed.header("x-amz-version-id")),
        ("true", marker.as_str())
    );
    assert_eq!(client.get("/bucket/k").await.ok().text(), "two");
    at(&client, Method::DELETE, &second).await.ok();
    assert_eq!(client.get("/bucket/k").await.ok().text(), "one");
    assert_eq!(at(&client, Method::GET, &second).await.error(), (404, "NoSuchVersion".to_owned()));
    assert_eq!(at(&client, Method::GET, "nonsense").await.error(), (400, "InvalidArgument".to_owned()));
    assert_eq!(at(&client, Method::GET, "").await.error(), (400, "InvalidArgument".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn the_null_version_is_replaced_while_versioning_is_suspended() {
    let (server, client) = start(ENABLED).await;
    let kept = put(&client, b"kept").await;
    set_versioning(&client, SUSPENDED).await;
    assert_eq!(put(&client, b"null one").await, "", "what has no id is told none");
    assert_eq!(put(&client, b"null two").await, "");
    assert_eq!(client.get("/bucket/k").await.ok().header("x-amz-version-id"), "null");
    assert_eq!(at(&client, Method::GET, "null").await.ok().text(), "null two");
    let marked = client.delete("/bucket/k").await;
    assert_eq!((marked.header("x-amz-delete-marker"), marked.header("x-amz-version-id")), ("true", "null"));
    let listed = client.call(Method::GET, "/bucket", "versions", &[], b"").await.ok();
    assert_eq!(listed.elements("DeleteMarker").len(), 1);
    let mut named = listed.elements("VersionId");
    named.sort();
    assert_eq!(named, [kept.as_str(), "null"]);
    at(&client, Method::DELETE, "null").await.ok();
    assert_eq!(client.get("/bucket/k").await.ok().text(), "kept");
    server.stop().await;
}

#[tokio::test]
async fn a_bucket_that_never_was_versioned_names_no_versions() {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    assert_eq!(put(&client, b"one").await, "");
    assert_eq!(client.get("/bucket/k").await.ok().header("x-amz-version-id"), "");
    assert_eq!(at(&client, Method::GET, "null").await.ok().text(), "one");
    let status = client.call(Method::GET, "/bucket", "versioning", &[], b"").await.ok();
    assert!(status.element("Status").is_none());
    let refused = client
        .call(
            Method::PUT,
            "/bucket",
            "versioning",
            &[],
            b"<VersioningConfiguration></VersioningConfiguration>",
        )
        .await;
    assert_eq!(refused.error(), (400, "IllegalVersioningConfigurationException".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn versions_are_listed_newest_first_and_paged() {
    let (server, client) = start(ENABLED).await;
    let mut expected = Vec::new();
    for key in ["a", "b/1", "b/2", "c"] {
        let path = format!("/bucket/{key}");
        let mut of_key = Vec::new();
        for body in [b"1", b"2", b"3"] {
            of_key.push(client.put(&path, body).await.ok().header("x-amz-version-id").to_owned());
        }
        expected.extend(of_key.into_iter().rev());
    }
    let all = client.call(Method::GET, "/bucket", "versions", &[], b"").await.ok();
    assert_eq!(all.elements("VersionId"), expected);
    assert_eq!(all.elements("IsLatest").iter().filter(|latest| *latest == "true").count(), 4);
    let (mut seen, mut from) = (Vec::new(), String::new());
    loop {
        let page = client.call(Method::GET, "/bucket", &format!("max-keys=2&versions{from}"), &[], b"").await;
        let page = page.ok();
        seen.extend(page.elements("VersionId"));
        if page.element("IsTruncated").as_deref() != Some("true") {
            break;
        }
        let (key, version) = (page.element("NextKeyMarker"), page.element("NextVersionIdMarker"));
        let key = crate::support::client::encode(&key.unwrap(), false);
        from = format!("&key-marker={key}&version-id-marker={}", version.unwrap());
    }
    assert_eq!(seen, expected);
    let grouped = client.call(Method::GET, "/bucket", "delimiter=%2F&versions", &[], b"").await.ok();
    assert_eq!(grouped.elements("VersionId").len(), 6);
    assert!(grouped.elements("Prefix").contains(&"b/".to_owned()));
    let refused = client.call(Method::GET, "/bucket", "version-id-marker=x&versions", &[], b"").await;
    assert_eq!(refused.error(), (400, "InvalidArgument".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn many_versions_are_deleted_at_once() {
    let (server, client) = start(ENABLED).await;
    let first = put(&client, b"one").await;
    let document = format!(
        "<Delete><Object><Key>k</Key></Object><Object><Key>k</Key><VersionId>{first}</VersionId></Object></Delete>"
    );
    let answer = client.call(Method::POST, "/bucket", "delete", &[], document.as_bytes()).await.ok();
    let marker = answer.element("DeleteMarkerVersionId").expect("a marker was made");
    assert_eq!(answer.element("VersionId").as_deref(), Some(first.as_str()));
    let document = format!("<Delete><Object><Key>k</Key><VersionId>{marker}</VersionId></Object></Delete>");
    let answer = client.call(Method::POST, "/bucket", "delete", &[], document.as_bytes()).await.ok();
    assert_eq!(answer.element("DeleteMarkerVersionId"), Some(marker));
    assert_eq!(client.delete("/bucket").await.status, 204);
    server.stop().await;
}

#[tokio::test]
async fn a_copy_names_the_version_it_read_and_restores_it() {
    let (server, client) = start(ENABLED).await;
    let first = put(&client, b"one").await;
    let second = put(&client, b"two").await;
    let source = format!("/bucket/k?versionId={first}");
    let copied = client.call(Method::PUT, "/bucket/k", "", &[("x-amz-copy-source", &source)], b"").await.ok();
    assert_eq!(copied.header("x-amz-copy-source-version-id"), first);
    assert!(![first.as_str(), &second].contains(&copied.header("x-amz-version-id")));
    assert_eq!(client.get("/bucket/k").await.ok().text(), "one");
    let marked = client.delete("/bucket/k").await;
    let source = format!("/bucket/k?versionId={}", marked.header("x-amz-version-id"));
    let refused = client.call(Method::PUT, "/bucket/to", "", &[("x-amz-copy-source", &source)], b"").await;
    assert_eq!(refused.error(), (400, "InvalidRequest".to_owned()));
    let refused =
        client.call(Method::PUT, "/bucket/to", "", &[("x-amz-copy-source", "/bucket/k")], b"").await;
    assert_eq!(refused.error(), (404, "NoSuchKey".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_listing_goes_on_where_it_was_although_what_it_showed_is_gone() {
    let (server, client) = start(ENABLED).await;
    let old = put(&client, b"old").await;
    set_versioning(&client, SUSPENDED).await;
    assert_eq!(put(&client, b"null").await, "");
    let list = |from: String| {
        let client = client.clone();
        async move { client.call(Method::GET, "/bucket", &format!("{from}max-keys=1&versions"), &[], b"").await }
    };
    let page = list(String::new()).await.ok();
    assert_eq!(page.elements("VersionId"), ["null"]);
    let version = page.element("NextVersionIdMarker").unwrap();
    at(&client, Method::DELETE, "null").await.ok();
    for marker in [version.as_str(), "null"] {
        let from = format!("key-marker=k&version-id-marker={marker}&");
        let rest = list(from).await.ok();
        assert_eq!(rest.elements("VersionId"), std::slice::from_ref(&old), "{marker}");
    }
    server.stop().await;
}
