//! Access logs: set up as AWS allows it, and every line in the target by the time the gateway has ended.

use futures::TryStreamExt;
use holdfast_model::{TenantId, config::S3Settings};
use holdfast_object::api::{ListQuery, ObjectGateway, RangeChoice};
use http::Method;

use crate::support::{
    Server,
    client::{Answer, Client},
    memory::canonical,
};

/// No test takes so long that lines are delivered before the gateway ends.
const LONG_DAY_SECONDS: u64 = 1_000_000_000;

async fn world() -> (Server, Client) {
    let settings = S3Settings { day_seconds: LONG_DAY_SECONDS, ..S3Settings::default() };
    let server = Server::start_as(&settings).await;
    let client = server.client();
    for bucket in ["/source", "/logs"] {
        client.put(bucket, b"").await.ok();
    }
    (server, client)
}

async fn log_to(client: &Client, inner: &str) -> Answer {
    let document = format!("<BucketLoggingStatus>{inner}</BucketLoggingStatus>");
    client.call(Method::PUT, "/source", "logging=", &[], document.as_bytes()).await
}

fn enabled(target: &str, prefix: &str, more: &str) -> String {
    format!(
        "<LoggingEnabled><TargetBucket>{target}</TargetBucket><TargetPrefix>{prefix}</TargetPrefix>{more}</LoggingEnabled>"
    )
}

/// Keys and lines of all log objects.
async fn delivered(server: &Server) -> (Vec<String>, Vec<String>) {
    let objects = server.objects.open(TenantId::from_bytes([1; 16]));
    let query = ListQuery { limit: 1000, ..ListQuery::default() };
    let keys: Vec<String> =
        objects.list("logs", query).await.expect("a listing").objects.into_iter().map(|o| o.key).collect();
    let mut lines = Vec::new();
    for key in &keys {
        let (_, _, body) = objects.get("logs", key, None, RangeChoice::All).await.expect("an object");
        let pieces: Vec<bytes::Bytes> = body.try_collect().await.expect("its content");
        let text = String::from_utf8(pieces.concat()).expect("text");
        lines.extend(text.lines().map(str::to_owned));
    }
    (keys, lines)
}

#[tokio::test]
async fn every_request_about_the_bucket_is_a_line_in_the_target_when_the_gateway_has_ended() {
    let (mut server, client) = world().await;
    log_to(&client, &enabled("logs", "of-source/", "")).await.ok();
    client.put("/source/a%20b", b"content").await.ok();
    let got =
        client.call(Method::GET, "/source/a%20b", "", &[("user-agent", "a \"reader\"")], b"").await.ok();
    client.call(Method::GET, "/source/a%20b", "", &[("range", "bytes=0-2")], b"").await.ok();
    client.get("/source/gone").await;
    let mut stranger = client.clone();
    stranger.anonymous = true;
    stranger.get("/source/a%20b").await;
    client.delete("/source/a%20b").await.ok();
    client.put("/logs/not-logged", b"").await.ok();
    server.end().await;

    let (keys, lines) = delivered(&server).await;
    let logs: Vec<&String> = keys.iter().filter(|key| key.as_str() != "not-logged").collect();
    assert_eq!(logs.len(), 1, "{keys:?}");
    assert!(
        logs[0].starts_with("of-source/2") && logs[0].len() == "of-source/2026-01-31-23-59-59-".len() + 16,
        "{keys:?}"
    );
    let owner = canonical(1).to_string();
    let id = got.header("x-amz-request-id");
    let expected = [
        format!(" {owner} "),
        " REST.PUT.OBJECT a%20b \"PUT /source/a%20b HTTP/1.1\" 200 - - 7 ".to_owned(),
        format!(" 127.0.0.1 {owner} {id} REST.GET.OBJECT a%20b \"GET /source/a%20b HTTP/1.1\" 200 - 7 7 "),
        " \"a %22reader%22\" - - SigV4 TLS_".to_owned(),
        " 206 - 3 7 ".to_owned(),
        " REST.GET.OBJECT gone \"GET /source/gone HTTP/1.1\" 404 NoSuchKey ".to_owned(),
        " REST.GET.OBJECT a%20b \"GET /source/a%20b HTTP/1.1\" 403 AccessDenied ".to_owned(),
        " REST.DELETE.OBJECT a%20b ".to_owned(),
    ];
    for part in expected {
        assert!(lines.iter().any(|line| line.contains(&part)), "{part} is not in {lines:#?}");
    }
    for line in &lines {
        assert!(line.starts_with(&format!("{owner} source [")), "{line}");
        assert!(line.ends_with(" TLSv1.3 - -"), "{line}");
    }
    let denied = lines.iter().find(|line| line.contains("AccessDenied")).expect("its line");
    assert!(denied.contains("] 127.0.0.1 - ") && denied.contains(" - - - TLS_"), "{denied}");
}

#[tokio::test]
async fn what_is_set_is_shown_and_what_aws_refuses_is_refused() {
    let (server, client) = world().await;
    let shown = || async { client.call(Method::GET, "/source", "logging=", &[], b"").await.ok() };
    assert!(shown().await.element("TargetBucket").is_none());
    let dated = "<TargetObjectKeyFormat><PartitionedPrefix><PartitionDateSource>EventTime</PartitionDateSource>\
                 </PartitionedPrefix></TargetObjectKeyFormat>";
    log_to(&client, &enabled("logs", "p/", dated)).await.ok();
    let found = shown().await;
    assert_eq!(found.element("TargetBucket").as_deref(), Some("logs"));
    assert_eq!(found.element("TargetPrefix").as_deref(), Some("p/"));
    assert_eq!(found.element("PartitionDateSource").as_deref(), Some("EventTime"));

    let mut other = client.clone();
    other.access_key = format!("{}-alt", crate::support::KEY);
    other.put("/of-another", b"").await.ok();
    let grants = "<TargetGrants><Grant><Permission>READ</Permission></Grant></TargetGrants>";
    for (inner, status, code) in [
        (enabled("no-bucket", "", ""), 400, "InvalidTargetBucketForLogging"),
        (enabled("of-another", "", ""), 403, "AccessDenied"),
        (enabled("logs", &"p".repeat(1000), ""), 400, "InvalidArgument"),
        (enabled("logs", "", &dated.replace("EventTime", "Someday")), 400, "MalformedXML"),
        (enabled("logs", "", grants), 501, "NotImplemented"),
    ] {
        let answer = log_to(&client, &inner).await;
        // A grant without a grantee may be refused as a document already.
        let malformed = inner.contains("TargetGrants") && answer.error() == (400, "MalformedXML".to_owned());
        assert!(malformed || answer.error() == (status, code.to_owned()), "{inner}: {}", answer.text());
    }
    log_to(&client, "").await.ok();
    assert!(shown().await.element("TargetBucket").is_none());
    server.stop().await;
}
