//! Buckets as websites: what a browser is answered, and what nobody but the bucket's owner decides.

use holdfast_model::config::NewBuckets;
use http::Method;

use crate::support::{
    DOMAIN, Server,
    client::{Answer, Client},
};

const BUCKET: &str = "site";
const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*",
    "Action":"s3:GetObject","Resource":"arn:aws:s3:::site/*"}]}"#;

/// A site that everybody may read, and a browser at its address.
async fn site() -> (Server, Client, Client) {
    let server = Server::start_with(NewBuckets::Lists).await;
    let owner = server.client();
    owner.put("/site", b"").await.ok();
    owner.call(Method::PUT, "/site", "policy=", &[], POLICY.as_bytes()).await.ok();
    for (key, body) in
        [("index.html", "home"), ("docs/index.html", "docs"), ("docs/a b.txt", "text"), ("404.html", "lost")]
    {
        let path = format!("/site/{}", key.replace(' ', "%20"));
        owner.call(Method::PUT, &path, "", &[("content-type", "text/html")], body.as_bytes()).await.ok();
    }
    let mut browser = owner.clone();
    browser.anonymous = true;
    browser.host = format!("{BUCKET}.website.{DOMAIN}");
    (server, owner, browser)
}

async fn configure(owner: &Client, inner: &str) -> Answer {
    let document = format!("<WebsiteConfiguration>{inner}</WebsiteConfiguration>");
    owner.call(Method::PUT, "/site", "website=", &[], document.as_bytes()).await
}

const INDEX: &str = "<IndexDocument><Suffix>index.html</Suffix></IndexDocument>";
const ERROR: &str = "<ErrorDocument><Key>404.html</Key></ErrorDocument>";

fn page(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(answer.header("x-amz-error-code"), code);
    assert!(answer.text().contains(&format!("<li>Code: {code}</li>")), "{}", answer.text());
}

fn sent(answer: &Answer, status: u16, location: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("location")), (status, location), "{}", answer.text());
}

#[tokio::test]
async fn a_configuration_is_kept_shown_and_removed() {
    let (server, owner, browser) = site().await;
    page(&browser.get("/").await, 404, "NoSuchWebsiteConfiguration");
    let rule = "<RoutingRules><RoutingRule><Condition><KeyPrefixEquals>old/</KeyPrefixEquals></Condition>\
                <Redirect><ReplaceKeyPrefixWith>docs/</ReplaceKeyPrefixWith><HttpRedirectCode>302</HttpRedirectCode>\
                </Redirect></RoutingRule></RoutingRules>";
    configure(&owner, &format!("{INDEX}{ERROR}{rule}")).await.ok();
    let shown = owner.call(Method::GET, "/site", "website=", &[], b"").await.ok();
    for (name, value) in [
        ("Suffix", "index.html"),
        ("Key", "404.html"),
        ("KeyPrefixEquals", "old/"),
        ("ReplaceKeyPrefixWith", "docs/"),
        ("HttpRedirectCode", "302"),
    ] {
        assert_eq!(shown.element(name).as_deref(), Some(value), "{}", shown.text());
    }
    for (inner, code) in [
        (ERROR.to_owned(), "InvalidArgument"),
        ("<IndexDocument><Suffix>a/b</Suffix></IndexDocument>".to_owned(), "InvalidArgument"),
        (
            format!("{INDEX}<RedirectAllRequestsTo><HostName>x.test</HostName></RedirectAllRequestsTo>"),
            "InvalidRequest",
        ),
        (format!("{INDEX}{}", rule.replace("302", "200")), "InvalidRequest"),
        (format!("{INDEX}{}", rule.replace("302", "many")), "MalformedXML"),
    ] {
        assert_eq!(configure(&owner, &inner).await.error(), (400, code.to_owned()), "{inner}");
    }
    assert_eq!(browser.call(Method::PUT, "/", "website=", &[], b"").await.status, 405);
    owner.call(Method::DELETE, "/site", "website=", &[], b"").await.ok();
    let gone = owner.call(Method::GET, "/site", "website=", &[], b"").await;
    assert_eq!(gone.error(), (404, "NoSuchWebsiteConfiguration".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn index_documents_error_documents_and_directories() {
    let (server, owner, browser) = site().await;
    configure(&owner, INDEX).await.ok();
    for (path, body) in
        [("/", "home"), ("/docs/", "docs"), ("/docs/a%20b.txt", "text"), ("/index.html?x=1&acl", "home")]
    {
        let answer = browser
            .call(
                Method::GET,
                path.split('?').next().unwrap(),
                path.split('?').nth(1).unwrap_or(""),
                &[],
                b"",
            )
            .await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, body), "{path}");
        assert_eq!(answer.header("content-type"), "text/html");
    }
    sent(&browser.get("/docs").await, 302, &format!("https://{BUCKET}.website.{DOMAIN}/docs/"));
    // Nobody was allowed to list: what is not there is denied, as on any other way.
    page(&browser.get("/gone").await, 403, "AccessDenied");
    let list = POLICY.replace(
        r#""s3:GetObject","Resource":"arn:aws:s3:::site/*""#,
        r#"["s3:GetObject","s3:ListBucket"],"Resource":["arn:aws:s3:::site/*","arn:aws:s3:::site"]"#,
    );
    owner.call(Method::PUT, "/site", "policy=", &[], list.as_bytes()).await.ok();
    page(&browser.get("/gone").await, 404, "NoSuchKey");
    let head = browser.call(Method::HEAD, "/gone", "", &[], b"").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (404, 0));
    page(&browser.call(Method::POST, "/gone", "", &[], b"x").await, 405, "MethodNotAllowed");

    let etag = browser.get("/").await.header("etag").to_owned();
    let same = browser.call(Method::GET, "/", "", &[("if-none-match", &etag)], b"").await;
    assert_eq!((same.status.as_u16(), same.header("etag")), (304, etag.as_str()));
    let part = browser.call(Method::GET, "/", "", &[("range", "bytes=1-2")], b"").await;
    assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "om"));

    configure(&owner, &format!("{INDEX}{ERROR}")).await.ok();
    let lost = browser.get("/gone").await;
    assert_eq!((lost.status.as_u16(), lost.text().as_str()), (404, "lost"));
    assert_eq!((lost.header("x-amz-error-code"), lost.header("etag")), ("NoSuchKey", ""));
    owner.delete("/site/404.html").await.ok();
    let lost = browser.get("/gone").await;
    page(&lost, 404, "NoSuchKey");
    assert!(lost.text().contains("Custom Error Document"), "{}", lost.text());
    server.stop().await;
}

#[tokio::test]
async fn redirects_of_all_by_rules_and_by_objects() {
    let (server, owner, browser) = site().await;
    let own = format!("https://{BUCKET}.website.{DOMAIN}");
    configure(&owner, "<RedirectAllRequestsTo><HostName>other.test</HostName><Protocol>http</Protocol></RedirectAllRequestsTo>").await.ok();
    sent(&browser.get("/a%20b").await, 301, "http://other.test/a%20b");
    let rules = "<RoutingRules>\
        <RoutingRule><Condition><KeyPrefixEquals>old/</KeyPrefixEquals></Condition>\
          <Redirect><ReplaceKeyPrefixWith>docs/</ReplaceKeyPrefixWith></Redirect></RoutingRule>\
        <RoutingRule><Condition><HttpErrorCodeReturnedEquals>403</HttpErrorCodeReturnedEquals></Condition>\
          <Redirect><HostName>help.test</HostName><HttpRedirectCode>307</HttpRedirectCode>\
          <ReplaceKeyPrefixWith>#!/</ReplaceKeyPrefixWith></Redirect></RoutingRule></RoutingRules>";
    configure(&owner, &format!("{INDEX}{rules}")).await.ok();
    sent(&browser.get("/old/x").await, 301, &format!("{own}/docs/x"));
    sent(&browser.get("/gone").await, 307, "https://help.test/#!/gone");
    assert_eq!(browser.get("/").await.text(), "home");
    owner
        .call(Method::PUT, "/site/moved", "", &[("x-amz-website-redirect-location", "/docs/")], b"")
        .await
        .ok();
    sent(&browser.get("/moved").await, 301, "/docs/");
    assert_eq!(owner.get("/site/moved").await.ok().header("x-amz-website-redirect-location"), "/docs/");
    server.stop().await;
}

#[tokio::test]
async fn a_website_shows_only_what_everybody_may_read() {
    let (server, owner, browser) = site().await;
    configure(&owner, &format!("{INDEX}{ERROR}")).await.ok();
    owner.call(Method::DELETE, "/site", "policy=", &[], b"").await.ok();
    let denied = browser.get("/").await;
    page(&denied, 403, "AccessDenied");
    assert!(!denied.text().contains("home"), "{}", denied.text());
    // A signature changes nothing: it is nobody's address.
    let mut signer = owner.clone();
    signer.host.clone_from(&browser.host);
    page(&signer.get("/").await, 403, "AccessDenied");
    let mut stranger = browser.clone();
    stranger.host = format!("unknown.website.{DOMAIN}");
    page(&stranger.get("/").await, 404, "NoSuchBucket");
    server.stop().await;
}
