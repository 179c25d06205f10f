//! Who may come in: every way of signing, and what AWS answers to those that are wrong.

use crate::support::{
    DOMAIN, Server,
    client::{Answer, Client, full, sha256},
};
use http::{Method, Request};

async fn with_object() -> (Server, Client) {
    let server = Server::start().await;
    let client = server.client();
    client.put("/bucket", b"").await.ok();
    client.put("/bucket/k", b"content").await.ok();
    (server, client)
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.error(), (status, code.to_owned()), "{}", answer.text());
    assert_eq!(answer.element("RequestId").as_deref(), Some(answer.header("x-amz-request-id")));
    assert!(answer.element("Message").is_some_and(|message| !message.is_empty()));
    assert_eq!(answer.header("content-type"), "application/xml");
}

#[tokio::test]
async fn what_is_wrong_with_a_signature_is_answered_as_aws_does() {
    let (server, right) = with_object().await;
    let bend = |act: &dyn Fn(&mut Client)| {
        let mut client = right.clone();
        act(&mut client);
        client
    };
    let cases: [(Client, u16, &str); 8] = [
        (bend(&|client| client.secret = "wrong".to_owned()), 403, "SignatureDoesNotMatch"),
        (bend(&|client| client.access_key = "AKIANOBODY".to_owned()), 403, "InvalidAccessKeyId"),
        (bend(&|client| client.region = "eu-central-1".to_owned()), 400, "AuthorizationHeaderMalformed"),
        (bend(&|client| client.service = "sts".to_owned()), 400, "AuthorizationHeaderMalformed"),
        (bend(&|client| client.skew_seconds = -1000), 403, "RequestTimeTooSkewed"),
        (bend(&|client| client.skew_seconds = 1000), 403, "RequestTimeTooSkewed"),
        (bend(&|client| client.anonymous = true), 403, "AccessDenied"),
        (
            bend(&|client| client.access_key = crate::support::OTHER_KEY.to_owned()),
            403,
            "SignatureDoesNotMatch",
        ),
    ];
    for (client, status, code) in &cases {
        refused(&client.get("/bucket/k").await, *status, code);
        refused(&client.put("/bucket/new", b"x").await, *status, code);
        refused(&client.delete("/bucket/k").await, *status, code);
    }
    assert!(server.holds("bucket", "k") && !server.holds("bucket", "new"));
    let region = bend(&|client| client.region = "eu-central-1".to_owned()).get("/bucket/k").await;
    assert_eq!(region.element("Region").as_deref(), Some("us-east-1"));
    server.stop().await;
}

#[tokio::test]
async fn version_2_is_refused_in_the_header_and_in_the_query() {
    let (server, client) = with_object().await;
    let ask = |uri: &str, authorization: Option<&str>| {
        let mut builder = Request::get(uri)
            .header("host", client.host.clone())
            .header("date", "Tue, 27 Mar 2007 19:36:42 +0000");
        if let Some(authorization) = authorization {
            builder = builder.header("authorization", authorization);
        }
        let (client, request) = (client.clone(), builder.body(full(b"")).unwrap());
        async move { client.send(request).await.unwrap() }
    };
    refused(&ask("/bucket/k", Some("AWS AKIATEST:c2lnbmF0dXJl")).await, 400, "InvalidRequest");
    refused(
        &ask("/bucket/k?AWSAccessKeyId=AKIATEST&Expires=9999999999&Signature=x", None).await,
        400,
        "InvalidRequest",
    );
    refused(&ask("/bucket/k", Some("Bearer token")).await, 400, "InvalidArgument");
    server.stop().await;
}

#[tokio::test]
async fn a_form_that_is_cut_off_is_refused() {
    let (server, client) = with_object().await;
    let (builder, _) = client.head(
        &Method::POST,
        "/bucket",
        "",
        &[("content-type", "multipart/form-data; boundary=b")],
        &sha256(b""),
    );
    let answer = client.send(builder.body(full(b"--b\r\n")).unwrap()).await.unwrap();
    refused(&answer, 400, "MalformedPOSTRequest");
    server.stop().await;
}

#[tokio::test]
async fn presigned_urls_read_and_write_until_they_expire() {
    let (server, client) = with_object().await;
    let send = |client: &Client, method: Method, uri: String, headers: &[(&str, &str)], body: &[u8]| {
        let mut builder = Request::builder().method(method).uri(uri).header("host", client.host.clone());
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        let (client, request) = (client.clone(), builder.body(full(body)).unwrap());
        async move { client.send(request).await.unwrap() }
    };
    let url = client.presign(&Method::GET, "/bucket/k", "response-content-type=a%2Fb", "60", &[]);
    let got = send(&client, Method::GET, url.clone(), &[], b"").await.ok();
    assert_eq!((got.text().as_str(), got.header("content-type")), ("content", "a/b"));
    refused(
        &send(&client, Method::GET, url.replace("/bucket/k", "/bucket/other"), &[], b"").await,
        403,
        "SignatureDoesNotMatch",
    );
    refused(&send(&client, Method::DELETE, url, &[], b"").await, 403, "SignatureDoesNotMatch");

    let url = client.presign(&Method::PUT, "/bucket/new", "", "60", &[]);
    send(&client, Method::PUT, url.clone(), &[], b"uploaded").await.ok();
    assert_eq!(client.get("/bucket/new").await.ok().text(), "uploaded");
    // Whoever holds the URL may not make it a copy of something else.
    refused(
        &send(&client, Method::PUT, url, &[("x-amz-copy-source", "/bucket/k")], b"").await,
        403,
        "AccessDenied",
    );
    assert_eq!(client.get("/bucket/new").await.ok().text(), "uploaded");

    let hoisted =
        client.presign(&Method::PUT, "/bucket/new", "x-amz-meta-a=1&x-amz-acl=public-read", "60", &[]);
    refused(&send(&client, Method::PUT, hoisted, &[], b"x").await, 400, "AccessControlListNotSupported");
    let hoisted = client.presign(&Method::PUT, "/bucket/new", "x-amz-meta-a=1", "60", &[]);
    send(&client, Method::PUT, hoisted, &[], b"x").await.ok();
    assert_eq!(client.get("/bucket/new").await.header("x-amz-meta-a"), "1");

    let mut early = client.clone();
    early.skew_seconds = -120;
    refused(
        &send(&client, Method::GET, early.presign(&Method::GET, "/bucket/k", "", "60", &[]), &[], b"").await,
        403,
        "AccessDenied",
    );
    for life in ["604801", "-1", "soon"] {
        let url = client.presign(&Method::GET, "/bucket/k", "", life, &[]);
        refused(&send(&client, Method::GET, url, &[], b"").await, 400, "AuthorizationQueryParametersError");
    }
    server.stop().await;
}

#[tokio::test]
async fn both_addressing_styles_and_both_protocols_verify() {
    let (server, client) = with_object().await;
    for http2 in [false, true] {
        let mut client = client.clone();
        client.http2 = http2;
        assert_eq!(client.get("/bucket/k").await.ok().text(), "content");
        client.host = format!("bucket.{DOMAIN}:{}", server.address.port());
        assert_eq!(client.get("/k").await.ok().text(), "content");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_asks_for_a_missing_feature_is_refused_and_changes_nothing() {
    let (server, client) = with_object().await;
    let cases: [(Method, &str, &str, &[(&str, &str)], u16, &str); 9] = [
        (
            Method::PUT,
            "/bucket",
            "acl",
            &[("x-amz-acl", "public-read")],
            400,
            "AccessControlListNotSupported",
        ),
        (
            Method::PUT,
            "/bucket/k",
            "acl",
            &[("x-amz-grant-read", "id=x")],
            400,
            "AccessControlListNotSupported",
        ),
        (Method::PUT, "/bucket/k", "uploadId=x", &[], 501, "NotImplemented"),
        (Method::PUT, "/bucket/k", "somethingNew", &[], 501, "NotImplemented"),
        (Method::DELETE, "/bucket/k", "somethingNew", &[], 501, "NotImplemented"),
        (Method::DELETE, "/bucket", "somethingNew", &[], 501, "NotImplemented"),
        (Method::DELETE, "/bucket/k", "", &[("x-amz-if-match-size", "1")], 501, "NotImplemented"),
        (Method::PUT, "/bucket/k", "", &[("x-amz-acl", "public-read")], 400, "AccessControlListNotSupported"),
        (Method::PUT, "/bucket/k", "", &[("x-amz-storage-class", "GLACIER")], 501, "NotImplemented"),
    ];
    for (method, path, query, headers, status, code) in cases {
        let answer = client.call(method, path, query, headers, b"").await;
        assert_eq!(answer.error(), (status, code.to_owned()), "{path}?{query} {headers:?}");
    }
    assert_eq!(client.get("/bucket/k").await.ok().text(), "content");
    refused(&client.call(Method::PUT, "/made", "somethingNew", &[], b"").await, 501, "NotImplemented");
    refused(&client.get("/made").await, 404, "NoSuchBucket");
    server.stop().await;
}

#[tokio::test]
async fn the_one_acl_that_can_be_set_is_the_one_that_is_there() {
    let (server, client) = with_object().await;
    let there = client.call(Method::GET, "/bucket/k", "acl", &[], b"").await.ok().text();
    let set = |document: String| {
        let client = client.clone();
        async move { client.call(Method::PUT, "/bucket/k", "acl", &[], document.as_bytes()).await }
    };
    set(there.clone()).await.ok();
    refused(&set(there.replace("FULL_CONTROL", "READ")).await, 400, "AccessControlListNotSupported");
    let other = there.replacen("<ID>01", "<ID>ff", 2);
    refused(&set(other).await, 400, "AccessControlListNotSupported");
    let word = |word: &'static str| {
        let client = client.clone();
        async move { client.call(Method::PUT, "/bucket", "acl", &[("x-amz-acl", word)], b"").await }
    };
    word("bucket-owner-full-control").await.ok();
    refused(&word("private").await, 400, "AccessControlListNotSupported");
    refused(&client.call(Method::PUT, "/bucket", "acl", &[], b"").await, 400, "MissingSecurityHeader");
    server.stop().await;
}

#[tokio::test]
async fn settings_that_tools_read_are_answered_as_for_a_plain_bucket() {
    let (server, client) = with_object().await;
    let ask = |path: &'static str, query: &'static str| {
        let client = client.clone();
        async move { client.call(Method::GET, path, query, &[], b"").await }
    };
    for (query, code) in [
        ("policy", "NoSuchBucketPolicy"),
        ("policyStatus", "NoSuchBucketPolicy"),
        ("tagging", "NoSuchTagSet"),
        ("cors", "NoSuchCORSConfiguration"),
        ("lifecycle", "NoSuchLifecycleConfiguration"),
        ("object-lock", "ObjectLockConfigurationNotFoundError"),
        ("replication", "ReplicationConfigurationNotFoundError"),
        ("website", "NoSuchWebsiteConfiguration"),
    ] {
        refused(&ask("/bucket", query).await, 404, code);
        refused(&ask("/no-bucket", query).await, 404, "NoSuchBucket");
    }
    assert!(ask("/bucket", "versioning").await.ok().element("Status").is_none());
    assert!(ask("/bucket", "location").await.ok().text().contains("LocationConstraint"));
    assert_eq!(ask("/bucket", "acl").await.ok().elements("Permission"), ["FULL_CONTROL"]);
    assert_eq!(ask("/bucket", "encryption").await.ok().elements("SSEAlgorithm"), ["AES256"]);
    assert_eq!(ask("/bucket", "requestPayment").await.ok().elements("Payer"), ["BucketOwner"]);
    assert_eq!(
        ask("/bucket", "ownershipControls").await.ok().elements("ObjectOwnership"),
        ["BucketOwnerEnforced"]
    );
    assert_eq!(ask("/bucket", "publicAccessBlock").await.ok().elements("BlockPublicAcls"), ["true"]);
    for query in ["logging", "notification", "accelerate"] {
        ask("/bucket", query).await.ok();
    }
    assert_eq!(ask("/bucket/k", "acl").await.ok().elements("Permission"), ["FULL_CONTROL"]);
    assert!(ask("/bucket/k", "tagging").await.ok().elements("Tag").is_empty());
    refused(&ask("/bucket/k", "retention").await, 400, "InvalidRequest");
    refused(&ask("/bucket/gone", "tagging").await, 404, "NoSuchKey");
    server.stop().await;
}

#[tokio::test]
async fn buckets_are_created_where_the_cluster_is() {
    let (server, client) = with_object().await;
    let body = |region: &str| {
        format!(
            "<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
        )
    };
    refused(&client.put("/elsewhere", body("eu-west-1").as_bytes()).await, 400, "InvalidLocationConstraint");
    client.put("/here-it-is", body("us-east-1").as_bytes()).await.ok();
    // As AWS has it in this region, unless the bucket would be another one.
    client.put("/bucket", b"").await.ok();
    let lock = [("x-amz-bucket-object-lock-enabled", "true")];
    let again = client.call(Method::PUT, "/bucket", "", &lock, b"").await;
    refused(&again, 409, "BucketAlreadyOwnedByYou");
    refused(&client.put("/UPPER", b"").await, 400, "InvalidBucketName");
    server.stop().await;
}

#[tokio::test]
async fn the_observer_hears_of_every_request_once() {
    let (server, client) = with_object().await;
    client.get("/bucket/k").await.ok();
    client.get("/bucket/gone").await;
    let mut nobody = client.clone();
    nobody.anonymous = true;
    nobody.get("/bucket/k").await;
    let records = server.records.clone();
    server.stop().await;
    let seen: Vec<_> = records
        .0
        .lock()
        .iter()
        .map(|r| (r.operation, r.status, r.bytes_in, r.bytes_out > 0, r.whole, r.tenant.is_some()))
        .collect();
    assert_eq!(
        seen,
        [
            ("CreateBucket", 200, 0, false, true, true),
            ("PutObject", 200, 7, false, true, true),
            ("GetObject", 200, 0, true, true, true),
            ("GetObject", 404, 0, true, true, true),
            ("GetObject", 403, 0, true, true, false),
        ]
    );
}
