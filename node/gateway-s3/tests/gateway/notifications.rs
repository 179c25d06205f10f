//! What buckets ask to be told, and that their changes are queued with who made them. Sending is the object layer's.

use holdfast_object::events::{EventKind, WrittenBy};
use http::Method;

use crate::support::{Server, client::Client};

const ARN: &str = "arn:holdfast:sqs::hook:webhook";

async fn start() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    (server, client)
}

fn queue(arn: &str, event: &str, filter: &str) -> String {
    format!(
        "<QueueConfiguration><Queue>{arn}</Queue><Event>{event}</Event><Filter><S3Key>{filter}</S3Key></Filter>\
         </QueueConfiguration>"
    )
}

fn rule(name: &str, value: &str) -> String {
    format!("<FilterRule><Name>{name}</Name><Value>{value}</Value></FilterRule>")
}

async fn put(client: &Client, inner: &str) -> (u16, String) {
    let text = format!("<NotificationConfiguration>{inner}</NotificationConfiguration>");
    client.call(Method::PUT, "/bucket", "notification", &[], text.as_bytes()).await.error()
}

#[tokio::test]
async fn what_is_asked_for_comes_back_as_it_was_put_and_goes() {
    let (server, client) = start().await;
    let get = || client.call(Method::GET, "/bucket", "notification", &[], b"");
    assert!(get().await.ok().elements("Event").is_empty());
    let topic = "<TopicConfiguration><Id>t</Id><Topic>arn:holdfast:sns::hook:webhook</Topic>\
                 <Event>s3:ObjectRemoved:*</Event></TopicConfiguration>";
    let filter = rule("Prefix", "in/") + &rule("suffix", ".jpg");
    let both = topic.to_owned() + &queue(ARN, "s3:ObjectCreated:*", &filter);
    assert_eq!(put(&client, &both).await.0, 200);
    let got = get().await.ok();
    assert_eq!(got.elements("Event"), ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]);
    assert_eq!(
        (got.element("Queue").as_deref(), got.elements("Value")),
        (Some(ARN), vec!["in/".into(), ".jpg".into()])
    );
    assert!(got.elements("Id").iter().all(|id| !id.is_empty()));
    assert_eq!(put(&client, "").await.0, 200);
    assert!(get().await.ok().elements("Event").is_empty());
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_told_is_refused() {
    let (server, client) = start().await;
    let created = "s3:ObjectCreated:*";
    let overlap = queue(ARN, created, "") + &queue(ARN, "s3:ObjectCreated:Put", &rule("prefix", "x"));
    let lambda = "<CloudFunctionConfiguration><CloudFunction>arn:aws:lambda:a:1:function:f</CloudFunction>\
                  <Event>s3:ObjectCreated:*</Event></CloudFunctionConfiguration>";
    for (inner, status, code) in [
        (queue("arn:holdfast:sqs::other:webhook", created, ""), 400, "InvalidArgument"),
        (queue("junk", created, ""), 400, "InvalidArgument"),
        (queue(ARN, "s3:Nothing", ""), 400, "InvalidArgument"),
        (queue(ARN, "s3:ObjectRestore:Post", ""), 501, "NotImplemented"),
        (queue(ARN, created, &rule("infix", "x")), 400, "InvalidArgument"),
        (queue(ARN, created, &(rule("prefix", "x") + &rule("Prefix", "y"))), 400, "InvalidArgument"),
        (queue(ARN, created, &rule("prefix", &"x".repeat(1025))), 400, "InvalidArgument"),
        (overlap, 400, "InvalidArgument"),
        (lambda.to_owned(), 501, "NotImplemented"),
        ("<EventBridgeConfiguration/>".to_owned(), 501, "NotImplemented"),
    ] {
        assert_eq!(put(&client, &inner).await, (status, code.to_owned()), "{inner}");
    }
    server.stop().await;
}

#[tokio::test]
async fn changes_are_queued_with_who_made_them() {
    let (server, client) = start().await;
    client.put("/bucket/before", b"x").await.ok();
    assert_eq!(put(&client, &queue(ARN, "s3:ObjectCreated:*", "")).await.0, 200);
    client.put("/bucket/a", b"content").await.ok();
    let copy = [("x-amz-copy-source", "/bucket/a")];
    client.call(Method::PUT, "/bucket/b", "", &copy, b"").await.ok();
    client.delete("/bucket/b").await;
    let events = server.events("hook");
    let kinds: Vec<EventKind> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Test, EventKind::Put, EventKind::Copy]);
    let (put, copy) = (&events[1], &events[2]);
    assert_eq!((put.key.as_str(), put.size, copy.key.as_str()), ("a", Some(7), "b"));
    assert_eq!((put.origin.by, copy.origin.by), (WrittenBy::Put, WrittenBy::Copy));
    assert!(put.origin.principal.len() > 4 && put.origin.address == "127.0.0.1" && !put.owner.is_empty());
    assert!(!put.origin.request.is_empty() && put.origin.request != copy.origin.request);
    server.stop().await;
}
