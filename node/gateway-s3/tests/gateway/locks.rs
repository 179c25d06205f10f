//! Object lock and tags, over the real catalog and its clock.

use crate::support::{
    Server,
    client::{Answer, Client},
};
use http::Method;

const BYPASS: (&str, &str) = ("x-amz-bypass-governance-retention", "true");
const FAR: &str = "2100-01-01T00:00:00Z";

async fn start() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    let lock = [("x-amz-bucket-object-lock-enabled", "true")];
    client.call(Method::PUT, "/bucket", "", &lock, b"").await.ok();
    client.put("/plain", b"").await.ok();
    (server, client)
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    client.call(method, path, query, headers, body.as_bytes()).await
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn retention(mode: &str, until: &str) -> String {
    format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>")
}

async fn retain(client: &Client, headers: &[(&str, &str)], document: &str) -> Answer {
    send(client, Method::PUT, "/bucket/k", "retention", headers, document).await
}

async fn remove(client: &Client, version: &str, headers: &[(&str, &str)]) -> Answer {
    send(client, Method::DELETE, "/bucket/k", &format!("versionId={version}"), headers, "").await
}

#[tokio::test]
async fn a_governance_retention_yields_to_a_bypass_and_a_compliance_to_nobody() {
    let (server, client) = start().await;
    let lock = [("x-amz-object-lock-mode", "GOVERNANCE"), ("x-amz-object-lock-retain-until-date", FAR)];
    let put = send(&client, Method::PUT, "/bucket/k", "", &lock, "x").await.ok();
    let version = put.header("x-amz-version-id").to_owned();
    let head = send(&client, Method::HEAD, "/bucket/k", "", &[], "").await.ok();
    assert_eq!(head.header("x-amz-object-lock-mode"), "GOVERNANCE");
    assert!(head.header("x-amz-object-lock-retain-until-date").starts_with("2100-01-01T00:00:00"));
    assert_eq!(remove(&client, &version, &[]).await.error(), refused(403, "AccessDenied"));
    // A delete marker takes nothing away.
    assert_eq!(client.delete("/bucket/k").await.status, 204);
    let marker = send(&client, Method::GET, "/bucket", "versions", &[], "").await.ok();
    assert_eq!(marker.elements("DeleteMarker").len(), 1);
    assert_eq!(remove(&client, &version, &[BYPASS]).await.status, 204);

    let put = client.put("/bucket/k", b"y").await.ok();
    let version = put.header("x-amz-version-id").to_owned();
    let none = send(&client, Method::GET, "/bucket/k", "retention", &[], "").await;
    assert_eq!(none.error(), refused(404, "NoSuchObjectLockConfiguration"));
    retain(&client, &[], &retention("GOVERNANCE", FAR)).await.ok();
    let shorter = retention("GOVERNANCE", "2090-01-01T00:00:00Z");
    assert_eq!(retain(&client, &[], &shorter).await.error(), refused(403, "AccessDenied"));
    assert_eq!(
        retain(&client, &[], &retention("COMPLIANCE", FAR)).await.error(),
        refused(403, "AccessDenied"),
        "another mode is a change as well"
    );
    retain(&client, &[BYPASS], &shorter).await.ok();
    retain(&client, &[BYPASS], "<Retention></Retention>").await.ok();
    retain(&client, &[], &retention("COMPLIANCE", FAR)).await.ok();
    for document in [&shorter, &retention("COMPLIANCE", "2090-01-01T00:00:00Z"), "<Retention></Retention>"] {
        assert_eq!(retain(&client, &[BYPASS], document).await.error(), refused(403, "AccessDenied"));
    }
    assert_eq!(remove(&client, &version, &[BYPASS]).await.error(), refused(403, "AccessDenied"));
    let shown = send(&client, Method::GET, "/bucket/k", "retention", &[], "").await.ok();
    assert_eq!(shown.element("Mode").as_deref(), Some("COMPLIANCE"));
    server.stop().await;
}

#[tokio::test]
async fn a_retention_ends_by_a_clock_that_does_not_go_back() {
    let (server, client) = start().await;
    let day = 24 * 3600 * 1000;
    let document = "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>\
        <DefaultRetention><Mode>COMPLIANCE</Mode><Days>2</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    send(&client, Method::PUT, "/bucket", "object-lock", &[], document).await.ok();
    let old = client.put("/bucket/k", b"old").await.ok().header("x-amz-version-id").to_owned();
    server.objects.set_clock_ahead(day);
    let new = client.put("/bucket/k", b"new").await.ok().header("x-amz-version-id").to_owned();
    assert_eq!(remove(&client, &old, &[]).await.error(), refused(403, "AccessDenied"));
    server.objects.set_clock_ahead(2 * day + day / 2);
    assert_eq!(remove(&client, &old, &[]).await.status, 204);
    // The proposer's clock is turned back by two days and a half: what is retained for half a day more stays
    // so, and a new object is retained from the latest moment seen, not from the turned-back one.
    server.objects.set_clock_ahead(0);
    assert_eq!(remove(&client, &new, &[]).await.error(), refused(403, "AccessDenied"));
    let third = client.put("/bucket/k", b"third").await.ok().header("x-amz-version-id").to_owned();
    server.objects.set_clock_ahead(3 * day + day / 2);
    assert_eq!(remove(&client, &new, &[]).await.status, 204);
    assert_eq!(remove(&client, &third, &[]).await.error(), refused(403, "AccessDenied"));
    server.stop().await;
}

#[tokio::test]
async fn a_legal_hold_keeps_a_version_until_it_is_lifted() {
    let (server, client) = start().await;
    let put =
        send(&client, Method::PUT, "/bucket/k", "", &[("x-amz-object-lock-legal-hold", "ON")], "x").await;
    let version = put.ok().header("x-amz-version-id").to_owned();
    assert_eq!(client.get("/bucket/k").await.ok().header("x-amz-object-lock-legal-hold"), "ON");
    assert_eq!(remove(&client, &version, &[BYPASS]).await.error(), refused(403, "AccessDenied"));
    let hold = |status: &'static str| {
        let client = client.clone();
        async move {
            let document = format!("<LegalHold><Status>{status}</Status></LegalHold>");
            send(&client, Method::PUT, "/bucket/k", "legal-hold", &[], &document).await
        }
    };
    assert_eq!(hold("PERHAPS").await.error(), refused(400, "MalformedXML"));
    hold("OFF").await.ok();
    let shown = send(&client, Method::GET, "/bucket/k", "legal-hold", &[], "").await.ok();
    assert_eq!(shown.element("Status").as_deref(), Some("OFF"));
    assert_eq!(remove(&client, &version, &[]).await.status, 204);
    client.put("/bucket/k", b"never held").await.ok();
    let none = send(&client, Method::GET, "/bucket/k", "legal-hold", &[], "").await;
    assert_eq!(none.error(), refused(404, "NoSuchObjectLockConfiguration"));
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_about_a_lock_is_said_as_aws_says_it() {
    let (server, client) = start().await;
    client.put("/bucket/k", b"x").await.ok();
    client.put("/plain/k", b"x").await.ok();
    let configuration = |rule: &str| {
        format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
             {rule}</DefaultRetention></Rule></ObjectLockConfiguration>"
        )
    };
    let governance = "<Mode>GOVERNANCE</Mode>";
    for (document, code) in [
        (configuration(&format!("{governance}<Days>1</Days><Years>1</Years>")), "MalformedXML"),
        (configuration(governance), "MalformedXML"),
        (configuration("<Mode>governance</Mode><Days>1</Days>"), "MalformedXML"),
        (configuration(&format!("{governance}<Days>0</Days>")), "InvalidRetentionPeriod"),
        (configuration(&format!("{governance}<Years>-1</Years>")), "InvalidRetentionPeriod"),
        (
            "<ObjectLockConfiguration><ObjectLockEnabled>Disabled</ObjectLockEnabled></ObjectLockConfiguration>"
                .to_owned(),
            "MalformedXML",
        ),
    ] {
        let answer = send(&client, Method::PUT, "/bucket", "object-lock", &[], &document).await;
        assert_eq!(answer.error(), refused(400, code), "{document}");
    }
    let good = configuration(&format!("{governance}<Years>1</Years>"));
    let answer = send(&client, Method::PUT, "/plain", "object-lock", &[], &good).await;
    assert_eq!(answer.error(), refused(409, "InvalidBucketState"));
    let answer = send(&client, Method::GET, "/plain", "object-lock", &[], "").await;
    assert_eq!(answer.error(), refused(404, "ObjectLockConfigurationNotFoundError"));
    send(&client, Method::PUT, "/bucket", "object-lock", &[], &good).await.ok();
    let shown = send(&client, Method::GET, "/bucket", "object-lock", &[], "").await.ok();
    assert_eq!(
        (shown.element("Mode").as_deref(), shown.element("Years").as_deref()),
        (Some("GOVERNANCE"), Some("1"))
    );

    assert_eq!(
        retain(&client, &[], &retention("GOVERNANCE", "2001-01-01T00:00:00Z")).await.error(),
        refused(400, "InvalidArgument")
    );
    assert_eq!(
        retain(&client, &[], &retention("governance", FAR)).await.error(),
        refused(400, "MalformedXML")
    );
    assert_eq!(
        retain(&client, &[], "<Retention><Mode>GOVERNANCE</Mode></Retention>").await.error(),
        refused(400, "MalformedXML")
    );
    for query in ["retention", "legal-hold"] {
        let answer = send(&client, Method::GET, "/plain/k", query, &[], "").await;
        assert_eq!(answer.error(), refused(400, "InvalidRequest"), "{query}");
    }
    let lock = [("x-amz-object-lock-mode", "GOVERNANCE"), ("x-amz-object-lock-retain-until-date", FAR)];
    assert_eq!(
        send(&client, Method::PUT, "/plain/k", "", &lock, "x").await.error(),
        refused(400, "InvalidRequest")
    );
    let suspended = "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>";
    let answer = send(&client, Method::PUT, "/bucket", "versioning", &[], suspended).await;
    assert_eq!(answer.error(), refused(409, "InvalidBucketState"));
    server.stop().await;
}

fn tag_set(tags: &[(&str, &str)]) -> String {
    let tags: String = tags
        .iter()
        .map(|(key, value)| format!("<Tag><Key>{key}</Key><Value>{value}</Value></Tag>"))
        .collect();
    format!("<Tagging><TagSet>{tags}</TagSet></Tagging>")
}

#[tokio::test]
async fn tags_are_kept_per_version_counted_and_limited() {
    let (server, client) = start().await;
    let tagged = [("x-amz-tagging", "a=1&b=2%20x")];
    let first = send(&client, Method::PUT, "/bucket/k", "", &tagged, "1").await.ok();
    let first = first.header("x-amz-version-id").to_owned();
    client.put("/bucket/k", b"2").await.ok();
    assert_eq!(client.get("/bucket/k").await.ok().header("x-amz-tagging-count"), "");
    let of_first = format!("versionId={first}");
    let head = send(&client, Method::HEAD, "/bucket/k", &of_first, &[], "").await.ok();
    assert_eq!(head.header("x-amz-tagging-count"), "2");
    let query = format!("tagging&{of_first}");
    let shown = send(&client, Method::GET, "/bucket/k", &query, &[], "").await.ok();
    assert_eq!(
        (shown.elements("Key"), shown.elements("Value")),
        (vec!["a".into(), "b".into()], vec!["1".into(), "2 x".into()])
    );
    assert_eq!(shown.header("x-amz-version-id"), first);
    send(&client, Method::PUT, "/bucket/k", "tagging", &[], &tag_set(&[("c", "")])).await.ok();
    assert_eq!(client.get("/bucket/k").await.ok().header("x-amz-tagging-count"), "1");

    let copy = |headers: Vec<(&'static str, &'static str)>| {
        let client = client.clone();
        async move {
            send(&client, Method::PUT, "/plain/copy", "", &headers, "").await.ok();
            send(&client, Method::GET, "/plain/copy", "tagging", &[], "").await.ok().elements("Key")
        }
    };
    let source = ("x-amz-copy-source", "/bucket/k");
    assert_eq!(copy(vec![source]).await, ["c"]);
    let replace = ("x-amz-tagging-directive", "REPLACE");
    assert_eq!(copy(vec![source, replace, ("x-amz-tagging", "d=4")]).await, ["d"]);
    assert_eq!(copy(vec![source, replace]).await, Vec::<String>::new());

    let gone = send(&client, Method::DELETE, "/bucket/k", &query, &[], "").await;
    assert_eq!((gone.status.as_u16(), gone.header("x-amz-version-id")), (204, first.as_str()));
    let many: Vec<(String, &str)> = (0..11).map(|n| (format!("k{n}"), "v")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    for (tags, code) in [
        (tag_set(&many), "BadRequest"),
        (tag_set(&[("a", "1"), ("a", "2")]), "InvalidTag"),
        (tag_set(&[(&"n".repeat(129), "1")]), "InvalidTag"),
        (tag_set(&[("a", &"v".repeat(257))]), "InvalidTag"),
        ("<Tagging></Tagging>".to_owned(), "MalformedXML"),
    ] {
        let answer = send(&client, Method::PUT, "/bucket/k", "tagging", &[], &tags).await;
        assert_eq!(answer.error(), refused(400, code));
    }
    let answer = send(&client, Method::GET, "/bucket/gone", "tagging", &[], "").await;
    assert_eq!(answer.error(), refused(404, "NoSuchKey"));

    let none = send(&client, Method::GET, "/bucket", "tagging", &[], "").await;
    assert_eq!(none.error(), refused(404, "NoSuchTagSet"));
    send(&client, Method::PUT, "/bucket", "tagging", &[], &tag_set(&[("z", "1"), ("y", "2")])).await.ok();
    let shown = send(&client, Method::GET, "/bucket", "tagging", &[], "").await.ok();
    assert_eq!(shown.elements("Key"), ["z", "y"]);
    assert_eq!(send(&client, Method::DELETE, "/bucket", "tagging", &[], "").await.status, 204);
    let none = send(&client, Method::GET, "/bucket", "tagging", &[], "").await;
    assert_eq!(none.error(), refused(404, "NoSuchTagSet"));
    server.stop().await;
}
