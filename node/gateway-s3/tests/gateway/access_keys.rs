//! Access keys that end, and access keys that may do less than whom they are of.

use crate::support::{
    KEY, Server,
    client::{Answer, Client, full, sha256},
};
use http::{Method, Request};

/// Reads below `mine/in/`, lists there, and may write below `mine/out/`.
const POLICY: &str = r#"{"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::mine/in/*"},
    {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::mine/out/*"},
    {"Effect": "Deny", "Action": "*", "Resource": "arn:aws:s3:::mine/in/secret"}]}"#;

async fn asked(client: &Client, service: &str, action: &str) -> Answer {
    let mut client = client.clone();
    client.service = service.to_owned();
    let body = format!("Action={action}");
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let (head, _) = client.head(&Method::POST, "/", "", &headers, &sha256(body.as_bytes()));
    client.send(head.body(full(body.as_bytes())).expect("a request")).await.expect("an answer")
}

async fn filled(server: &Server) -> Client {
    let client = server.client();
    client.put("/mine", b"").await.ok();
    for key in ["in/a", "in/secret", "out/a"] {
        client.put(&format!("/mine/{key}"), b"content").await.ok();
    }
    client
}

fn assert_denied(answer: &Answer) {
    assert_eq!(answer.error(), (403, "AccessDenied".to_owned()), "{}", answer.text());
}

#[tokio::test]
async fn a_policy_of_a_key_binds_even_the_root_user() {
    let server = Server::start().await;
    let client = filled(&server).await;
    server.bound(KEY, None, Some(POLICY));
    assert_eq!(client.get("/mine/in/a").await.ok().body, "content");
    client.put("/mine/out/b", b"more").await.ok();
    for denied in [
        client.get("/mine/in/secret").await,
        client.get("/mine/out/a").await,
        client.put("/mine/in/b", b"x").await,
        client.delete("/mine/out/a").await,
        client.get("/mine").await,
        client.get("/").await,
        client.put("/another", b"").await,
        // Nor does it free itself.
        client.call(Method::PUT, "/mine", "policy", &[], b"{}").await,
        client.call(Method::DELETE, "/mine", "policy", &[], b"").await,
        asked(&client, "iam", "CreateAccessKey&Version=2010-05-08").await,
    ] {
        assert_denied(&denied);
    }
    server.bound(KEY, None, None);
    client.get("/mine/in/secret").await.ok();
    assert!(!server.holds("mine", "in/b"));
    server.stop().await;
}

#[tokio::test]
async fn a_session_is_bound_and_ends_as_the_key_that_began_it() {
    let server = Server::start().await;
    let client = filled(&server).await;
    let begun = asked(&client, "sts", "GetSessionToken&Version=2011-06-15").await.ok();
    let element = |name: &str| begun.element(name).expect(name);
    let mut session = client.clone();
    session.access_key = element("AccessKeyId");
    session.secret = element("SecretAccessKey");
    let token = element("SessionToken");
    let get = async |path: &str| {
        session.call(Method::GET, path, "", &[("x-amz-security-token", token.as_str())], b"").await
    };
    get("/mine/out/a").await.ok();
    server.bound(KEY, None, Some(POLICY));
    get("/mine/in/a").await.ok();
    assert_denied(&get("/mine/out/a").await);
    server.bound(KEY, Some(1_000), None);
    assert_eq!(get("/mine/in/a").await.error(), (400, "InvalidToken".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_key_ends_at_its_time_with_what_it_signed_before() {
    let server = Server::start().await;
    let client = filled(&server).await;
    let signed = client.presign(&Method::GET, "/mine/in/a", "", "3600", &[]);
    let follow = async || {
        let request = Request::get(&signed).header("host", &client.host).body(full(b"")).expect("a request");
        client.send(request).await.expect("an answer")
    };
    let later = u64::try_from(i64::MAX).expect("positive");
    server.bound(KEY, Some(later), None);
    client.get("/mine/in/a").await.ok();
    follow().await.ok();
    server.bound(KEY, Some(86_400_000), None);
    for answer in [client.get("/mine/in/a").await, follow().await, client.put("/mine/in/b", b"x").await] {
        assert_eq!(answer.error(), (403, "InvalidAccessKeyId".to_owned()));
        assert!(
            answer.text().contains("The access key expired at 1970-01-02T00:00:00Z."),
            "{}",
            answer.text()
        );
    }
    assert!(!server.holds("mine", "in/b"));
    server.stop().await;
}
