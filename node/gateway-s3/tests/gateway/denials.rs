//! The negative catalogue: every operation of the table, by everybody who may not, on every kind of path.
//! Nobody gets through, and nothing is told beyond that it is denied or not there.

use crate::support::{
    OTHER_KEY, OTHER_SECRET, SECRET, Server,
    client::{Answer, Client, full, sha256},
};
use holdfast_gateway_s3::operations::{OPERATIONS, On, Operation, Support};
use http::Method;

const BUCKET: &str = "mine";
const KEY: &str = "object";

/// Everybody who has no business in the first account's bucket.
async fn strangers(server: &Server, owner: &Client) -> Vec<(&'static str, Client)> {
    let with = |access_key: &str, secret: &str| {
        let mut client = owner.clone();
        client.access_key = access_key.to_owned();
        client.secret = secret.to_owned();
        client
    };
    let mut anonymous = owner.clone();
    anonymous.anonymous = true;
    let user = iam(owner, "CreateUser", "UserName=nobody").await.ok();
    assert!(user.text().contains("<UserName>nobody</UserName>"), "{}", user.text());
    let key = iam(owner, "CreateAccessKey", "UserName=nobody").await.ok();
    let user = with(
        &key.element("AccessKeyId").expect("AccessKeyId"),
        &key.element("SecretAccessKey").expect("SecretAccessKey"),
    );
    let _ = server;
    vec![
        ("another account of the tenant", with(&format!("{}-alt", crate::support::KEY), SECRET)),
        ("another tenant", with(OTHER_KEY, OTHER_SECRET)),
        ("an account of another tenant", with(&format!("{OTHER_KEY}-alt"), OTHER_SECRET)),
        ("a user without policies", user),
        ("nobody", anonymous),
    ]
}

async fn iam(client: &Client, action: &str, parameters: &str) -> Answer {
    let mut client = client.clone();
    client.service = "iam".to_owned();
    let body = format!("Action={action}&Version=2010-05-08&{parameters}");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let (head, _) = client.head(&Method::POST, "/", "", &headers, &sha256(body.as_bytes()));
    client.send(head.body(full(body.as_bytes())).expect("a request")).await.expect("an answer")
}

/// A request that is this operation.
async fn attempt(client: &Client, operation: &Operation, bucket: &str, key: &str) -> Answer {
    let path = match operation.on {
        On::Service => "/".to_owned(),
        On::Bucket => format!("/{bucket}"),
        On::Object => format!("/{bucket}/{key}"),
    };
    let value = |marker: &str| match marker {
        "list-type" => "2",
        "partNumber" => "1",
        "uploadId" => "019f0000-0000-7000-8000-000000000000",
        "id" => "x",
        _ => "",
    };
    let query: Vec<String> =
        operation.markers.iter().map(|marker| format!("{marker}={}", value(marker))).collect();
    let source = format!("/{bucket}/{key}");
    let mut headers = Vec::new();
    if operation.name.contains("Copy") {
        headers.push(("x-amz-copy-source", source.as_str()));
    }
    let (head, _) = client.head(&operation.method, &path, &query.join("&"), &headers, &sha256(b""));
    let head = if operation.method == Method::GET { head } else { head.header("content-length", "0") };
    client.send(head.body(full(b"")).expect("a request")).await.expect("an answer")
}

#[tokio::test]
async fn whoever_has_no_business_in_a_bucket_gets_nothing_from_any_operation() {
    let server = Server::start().await;
    let owner = server.client();
    owner.put(&format!("/{BUCKET}"), b"").await.ok();
    owner.put(&format!("/{BUCKET}/{KEY}"), b"secret content").await.ok();
    let strangers = strangers(&server, &owner).await;
    let paths = [(BUCKET, KEY), (BUCKET, "missing"), (BUCKET, "../object"), ("absent-bucket", KEY)];
    let mut cases = 0;
    for operation in OPERATIONS {
        // Making buckets and listing one's own is everybody's own business; so is asking for what is not there.
        if matches!(operation.name, "ListBuckets" | "CreateBucket" | "PostObject") {
            continue;
        }
        for (who, client) in &strangers {
            for (bucket, key) in paths {
                let answer = attempt(client, operation, bucket, key).await;
                let what = format!("{} by {who} on {bucket}/{key}: {}", operation.name, answer.text());
                cases += 1;
                let allowed: &[u16] = match operation.support {
                    Support::No(_) => &[501],
                    _ => &[403, 404],
                };
                let status = answer.status.as_u16();
                // A document that is empty is refused before anybody is asked who they are.
                assert!(allowed.contains(&status) || operation.name == "DeleteObjects", "{status} {what}");
                assert!(!answer.text().contains("secret content"), "{what}");
                if bucket == BUCKET && status == 404 {
                    assert!(who.contains("tenant") && !who.contains("of the tenant"), "{what}");
                }
            }
        }
    }
    println!("{cases} cases");
    assert!(cases >= 300, "{cases}");
    assert!(server.holds(BUCKET, KEY));
    assert_eq!(owner.get(&format!("/{BUCKET}/{KEY}")).await.ok().text(), "secret content");
    server.stop().await;
}

#[tokio::test]
async fn a_list_of_deletions_deletes_nothing_of_a_strangers() {
    let server = Server::start().await;
    let owner = server.client();
    owner.put(&format!("/{BUCKET}"), b"").await.ok();
    owner.put(&format!("/{BUCKET}/{KEY}"), b"content").await.ok();
    let body = format!("<Delete><Object><Key>{KEY}</Key></Object></Delete>");
    for (who, client) in strangers(&server, &owner).await {
        let (head, _) =
            client.head(&Method::POST, &format!("/{BUCKET}"), "delete=", &[], &sha256(body.as_bytes()));
        let answer =
            client.send(head.body(full(body.as_bytes())).expect("a request")).await.expect("an answer");
        let denied = answer.text().contains("<Code>AccessDenied</Code>")
            || answer.text().contains("<Code>NoSuchBucket</Code>");
        assert!(denied && !answer.text().contains("<Deleted>"), "{who}: {}", answer.text());
        assert!(server.holds(BUCKET, KEY), "{who}");
    }
    server.stop().await;
}

#[tokio::test]
async fn buckets_of_others_are_neither_listed_nor_made_again() {
    let server = Server::start().await;
    let owner = server.client();
    owner.put(&format!("/{BUCKET}"), b"").await.ok();
    let mut alt = owner.clone();
    alt.access_key = format!("{}-alt", crate::support::KEY);
    assert_eq!(alt.put(&format!("/{BUCKET}"), b"").await.error(), (409, "BucketAlreadyExists".to_owned()));
    assert!(!alt.get("/").await.ok().text().contains(BUCKET));
    assert!(owner.get("/").await.ok().text().contains(BUCKET));
    let mut other = owner.clone();
    other.access_key = OTHER_KEY.to_owned();
    other.secret = OTHER_SECRET.to_owned();
    other.put(&format!("/{BUCKET}"), b"").await.ok();
    assert_eq!(other.get(&format!("/{BUCKET}/{KEY}")).await.status, 404, "a namespace of its own");
    server.stop().await;
}
