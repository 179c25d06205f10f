//! What is granted is granted: by lists, by policies, to users, to pages of other origins, by forms.

use crate::support::{
    SECRET, Server,
    client::{Answer, Client, full, sha256},
    memory::{ALT, canonical},
};
use holdfast_model::config::NewBuckets;
use http::{Method, Request};

const BUCKET: &str = "shared";

struct World {
    server: Server,
    main: Client,
    alt: Client,
    anonymous: Client,
}

impl World {
    async fn start() -> Self {
        Self::on(Server::start().await).await
    }

    async fn on(server: Server) -> Self {
        let main = server.client();
        let mut alt = main.clone();
        alt.access_key = format!("{}-alt", crate::support::KEY);
        alt.secret = SECRET.to_owned();
        let mut anonymous = main.clone();
        anonymous.anonymous = true;
        main.put(&format!("/{BUCKET}"), b"").await.ok();
        main.put(&format!("/{BUCKET}/k"), b"content").await.ok();
        Self { server, main, alt, anonymous }
    }

    /// Lists count and nothing is blocked from here on.
    async fn open(self) -> Self {
        let ownership = "<OwnershipControls><Rule><ObjectOwnership>ObjectWriter</ObjectOwnership></Rule></OwnershipControls>";
        put(&self.main, BUCKET, "ownershipControls=", &[], ownership.as_bytes()).await.ok();
        call(&self.main, &Method::DELETE, BUCKET, "publicAccessBlock=", &[], b"").await.ok();
        self
    }
}

async fn call(
    client: &Client,
    method: &Method,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let (head, _) = client.head(method, &format!("/{path}"), query, headers, &sha256(body));
    client.send(head.body(full(body)).expect("a request")).await.expect("an answer")
}

async fn put(client: &Client, path: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    call(client, &Method::PUT, path, query, headers, body).await
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.error(), (status, code.to_owned()), "{}", answer.text());
}

#[tokio::test]
async fn new_buckets_are_closed_as_aws_has_it_since_2023() {
    let world = World::start().await;
    let main = &world.main;
    let ownership = call(main, &Method::GET, BUCKET, "ownershipControls=", &[], b"").await.ok();
    assert_eq!(ownership.element("ObjectOwnership").as_deref(), Some("BucketOwnerEnforced"));
    let block = call(main, &Method::GET, BUCKET, "publicAccessBlock=", &[], b"").await.ok();
    assert_eq!(block.text().matches(">true<").count(), 4, "{}", block.text());
    refused(
        &put(main, BUCKET, "acl=", &[("x-amz-acl", "public-read")], b"").await,
        400,
        "AccessControlListNotSupported",
    );
    refused(
        &put(main, &format!("{BUCKET}/k"), "acl=", &[("x-amz-acl", "public-read")], b"").await,
        400,
        "AccessControlListNotSupported",
    );
    refused(
        &put(main, &format!("{BUCKET}/n"), "", &[("x-amz-acl", "public-read")], b"x").await,
        400,
        "AccessControlListNotSupported",
    );
    put(main, &format!("{BUCKET}/n"), "", &[("x-amz-acl", "bucket-owner-full-control")], b"x").await.ok();
    refused(
        &put(main, "with-acl", "", &[("x-amz-acl", "public-read")], b"").await,
        400,
        "InvalidBucketAclWithObjectOwnership",
    );
    let public = policy(r#""Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::shared/*""#);
    refused(&put(main, BUCKET, "policy=", &[], public.as_bytes()).await, 403, "AccessDenied");
    world.server.stop().await;
}

#[tokio::test]
async fn a_cluster_may_leave_lists_and_public_access_to_the_owners_of_new_buckets() {
    let world = World::on(Server::start_with(NewBuckets::Lists).await).await;
    let main = &world.main;
    refused(
        &call(&world.anonymous, &Method::GET, &format!("{BUCKET}/k"), "", &[], b"").await,
        403,
        "AccessDenied",
    );
    refused(&call(&world.alt, &Method::GET, &format!("{BUCKET}/k"), "", &[], b"").await, 403, "AccessDenied");
    put(main, &format!("{BUCKET}/k"), "acl=", &[("x-amz-acl", "public-read")], b"").await.ok();
    let read = call(&world.anonymous, &Method::GET, &format!("{BUCKET}/k"), "", &[], b"").await.ok();
    assert_eq!(read.text(), "content");
    let enforced = [("x-amz-object-ownership", "BucketOwnerEnforced")];
    put(main, "enforced", "", &enforced, b"").await.ok();
    refused(
        &put(main, "enforced", "acl=", &[("x-amz-acl", "public-read")], b"").await,
        400,
        "AccessControlListNotSupported",
    );
}

#[tokio::test]
async fn lists_open_objects_and_buckets_to_whom_they_name() {
    let world = World::start().await.open().await;
    let (main, alt, anonymous) = (&world.main, &world.alt, &world.anonymous);
    let object = format!("{BUCKET}/k");
    refused(&alt.get(&format!("/{object}")).await, 403, "AccessDenied");
    put(main, &object, "acl=", &[("x-amz-acl", "public-read")], b"").await.ok();
    assert_eq!(anonymous.get(&format!("/{object}")).await.ok().text(), "content");
    put(main, &object, "acl=", &[("x-amz-acl", "authenticated-read")], b"").await.ok();
    refused(&anonymous.get(&format!("/{object}")).await, 403, "AccessDenied");
    assert_eq!(alt.get(&format!("/{object}")).await.ok().text(), "content");
    let grant = format!("id=\"{}\"", canonical(1 + ALT));
    put(main, &object, "acl=", &[("x-amz-grant-read-acp", &grant)], b"").await.ok();
    refused(&alt.get(&format!("/{object}")).await, 403, "AccessDenied");
    let acl = call(alt, &Method::GET, &object, "acl=", &[], b"").await.ok();
    assert!(acl.text().contains("<Permission>READ_ACP</Permission>"), "{}", acl.text());
    // By address, in a document.
    let document = format!(
        "<AccessControlPolicy><Owner><ID>{}</ID></Owner><AccessControlList><Grant><Grantee \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xsi:type=\"AmazonCustomerByEmail\">\
         <EmailAddress>{}@example.com</EmailAddress></Grantee><Permission>FULL_CONTROL</Permission></Grant>\
         </AccessControlList></AccessControlPolicy>",
        canonical(1),
        1 + ALT
    );
    put(main, &object, "acl=", &[], document.as_bytes()).await.ok();
    assert_eq!(alt.get(&format!("/{object}")).await.ok().text(), "content");
    put(alt, &object, "acl=", &[("x-amz-acl", "private")], b"").await.ok();
    // A list of a missing key is not told apart from a denial unless one may list.
    refused(&alt.get(&format!("/{BUCKET}/missing")).await, 403, "AccessDenied");
    put(main, BUCKET, "acl=", &[("x-amz-acl", "public-read-write")], b"").await.ok();
    refused(&alt.get(&format!("/{BUCKET}/missing")).await, 404, "NoSuchKey");
    alt.put(&format!("/{BUCKET}/theirs"), b"x").await.ok();
    refused(&main.get(&format!("/{BUCKET}/theirs")).await, 403, "AccessDenied");
    let owner = call(alt, &Method::GET, &format!("{BUCKET}/theirs"), "acl=", &[], b"").await.ok();
    assert_eq!(owner.element("ID"), Some(canonical(1 + ALT).to_string()));
    main.delete(&format!("/{BUCKET}/theirs")).await.ok();
    world.server.stop().await;
}

fn policy(rest: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow",{rest}}}]}}"#)
}

#[tokio::test]
async fn policies_allow_across_accounts_and_deny_above_all() {
    let world = World::start().await.open().await;
    let (main, alt, anonymous) = (&world.main, &world.alt, &world.anonymous);
    let arn = format!("arn:aws:iam::{:012}:root", 1 + u64::from(ALT));
    let allow = policy(&format!(
        r#""Principal":{{"AWS":"{arn}"}},"Action":["s3:GetObject","s3:ListBucket"],"Resource":["arn:aws:s3:::{BUCKET}","arn:aws:s3:::{BUCKET}/*"]"#
    ));
    put(main, BUCKET, "policy=", &[], allow.as_bytes()).await.ok();
    assert_eq!(call(main, &Method::GET, BUCKET, "policy=", &[], b"").await.ok().text(), allow);
    assert_eq!(alt.get(&format!("/{BUCKET}/k")).await.ok().text(), "content");
    refused(&alt.get(&format!("/{BUCKET}/missing")).await, 404, "NoSuchKey");
    refused(&alt.put(&format!("/{BUCKET}/k"), b"x").await, 403, "AccessDenied");
    refused(&anonymous.get(&format!("/{BUCKET}/k")).await, 403, "AccessDenied");
    let status = call(main, &Method::GET, BUCKET, "policyStatus=", &[], b"").await.ok();
    assert!(status.text().contains(">false<"), "{}", status.text());
    let deny = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Deny","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::{BUCKET}/*","Condition":{{"StringNotEquals":{{"aws:UserAgent":"good"}}}}}},{{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::{BUCKET}/*"}}]}}"#
    );
    put(main, BUCKET, "policy=", &[], deny.as_bytes()).await.ok();
    refused(&main.get(&format!("/{BUCKET}/k")).await, 403, "AccessDenied");
    let good =
        call(anonymous, &Method::GET, &format!("{BUCKET}/k"), "", &[("user-agent", "good")], b"").await;
    assert_eq!(good.ok().text(), "content");
    call(main, &Method::DELETE, BUCKET, "policy=", &[], b"").await.ok();
    refused(&call(main, &Method::GET, BUCKET, "policy=", &[], b"").await, 404, "NoSuchBucketPolicy");
    for wrong in [
        "{".to_owned(),
        policy(r#""Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::other/*""#),
        policy(r#""Principal":"*","Action":"s3:Nothing","Resource":"arn:aws:s3:::shared/*""#),
        policy(
            r#""Principal":{"AWS":"arn:aws:iam::999999999999:root"},"Action":"s3:GetObject","Resource":"arn:aws:s3:::shared/*""#,
        ),
        policy(r#""Action":"s3:GetObject","Resource":"arn:aws:s3:::shared/*""#),
        policy(r#""Principal":"*","Action":"s3:ListBucket","Resource":"arn:aws:s3:::shared/*""#),
    ] {
        refused(&put(main, BUCKET, "policy=", &[], wrong.as_bytes()).await, 400, "MalformedPolicy");
    }
    world.server.stop().await;
}

async fn query(client: &Client, service: &str, parameters: &str) -> Answer {
    let mut client = client.clone();
    client.service = service.to_owned();
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let (head, _) = client.head(&Method::POST, "/", "", &headers, &sha256(parameters.as_bytes()));
    client.send(head.body(full(parameters.as_bytes())).expect("a request")).await.expect("an answer")
}

fn with_keys(client: &Client, answer: &Answer) -> Client {
    let mut client = client.clone();
    client.access_key = answer.element("AccessKeyId").expect("AccessKeyId");
    client.secret = answer.element("SecretAccessKey").expect("SecretAccessKey");
    client
}

fn form_encoded(text: &str) -> String {
    crate::support::client::encode(text, false)
}

#[tokio::test]
async fn users_have_what_their_policies_say_until_their_keys_go() {
    let world = World::start().await;
    let main = &world.main;
    query(main, "iam", "Action=CreateUser&UserName=ann").await.ok();
    let keys = query(main, "iam", "Action=CreateAccessKey&UserName=ann").await.ok();
    let ann = with_keys(main, &keys);
    let who = query(&ann, "sts", "Action=GetCallerIdentity").await.ok();
    assert_eq!(who.element("Arn").as_deref(), Some("arn:aws:iam::000000000001:user/ann"));
    refused(&ann.get(&format!("/{BUCKET}/k")).await, 403, "AccessDenied");
    let document = policy(&format!(
        r#""Action":["s3:GetObject","iam:GetUser"],"Resource":["arn:aws:s3:::{BUCKET}/${{aws:username}}/*","arn:aws:iam::000000000001:user/${{aws:username}}"]"#
    ));
    let body =
        format!("Action=PutUserPolicy&UserName=ann&PolicyName=p&PolicyDocument={}", form_encoded(&document));
    query(main, "iam", &body).await.ok();
    main.put(&format!("/{BUCKET}/ann/k"), b"hers").await.ok();
    assert_eq!(ann.get(&format!("/{BUCKET}/ann/k")).await.ok().text(), "hers");
    refused(&ann.get(&format!("/{BUCKET}/k")).await, 403, "AccessDenied");
    query(&ann, "iam", "Action=GetUser").await.ok();
    assert_eq!(query(&ann, "iam", "Action=ListUsers").await.error(), (403, "AccessDenied".to_owned()));
    // A session of hers has what she has, and ends with her key.
    let token = query(&ann, "sts", "Action=GetSessionToken").await.ok();
    let session = with_keys(main, &token);
    let token = token.element("SessionToken").expect("SessionToken");
    let header = [("x-amz-security-token", token.as_str())];
    let path = format!("{BUCKET}/ann/k");
    call(&session, &Method::GET, &path, "", &header, b"").await.ok();
    refused(&session.get(&format!("/{path}")).await, 403, "InvalidAccessKeyId");
    refused(
        &call(&session, &Method::GET, &path, "", &[("x-amz-security-token", "AAAA")], b"").await,
        400,
        "InvalidToken",
    );
    query(
        main,
        "iam",
        &format!("Action=UpdateAccessKey&UserName=ann&Status=Inactive&AccessKeyId={}", ann.access_key),
    )
    .await
    .ok();
    refused(&ann.get(&format!("/{path}")).await, 403, "InvalidAccessKeyId");
    refused(&call(&session, &Method::GET, &path, "", &header, b"").await, 400, "InvalidToken");
    let mut wrong = main.clone();
    wrong.secret = "wrong".to_owned();
    assert_eq!(
        query(&wrong, "iam", "Action=ListUsers").await.error(),
        (403, "SignatureDoesNotMatch".to_owned())
    );
    world.server.stop().await;
}

#[tokio::test]
async fn a_role_gives_its_policies_within_the_sessions() {
    let world = World::start().await;
    let (main, alt) = (&world.main, &world.alt);
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"000000000101"},"Action":"sts:AssumeRole"}]}"#;
    let body = format!("Action=CreateRole&RoleName=reader&AssumeRolePolicyDocument={}", form_encoded(trust));
    query(main, "iam", &body).await.ok();
    let body = "Action=AttachRolePolicy&RoleName=reader&PolicyArn=arn%3Aaws%3Aiam%3A%3Aaws%3Apolicy%2FAmazonS3FullAccess";
    query(main, "iam", body).await.ok();
    let arn = form_encoded("arn:aws:iam::000000000001:role/reader");
    let assumed =
        query(alt, "sts", &format!("Action=AssumeRole&RoleSessionName=se&RoleArn={arn}")).await.ok();
    assert_eq!(assumed.element("Arn").as_deref(), Some("arn:aws:sts::000000000001:assumed-role/reader/se"));
    let session = with_keys(alt, &assumed);
    let token = assumed.element("SessionToken").expect("SessionToken");
    let header = [("x-amz-security-token", token.as_str())];
    let path = format!("{BUCKET}/k");
    assert_eq!(call(&session, &Method::GET, &path, "", &header, b"").await.ok().text(), "content");
    put(&session, &path, "", &header, b"new").await.ok();
    let narrow = policy(r#""Action":"s3:GetObject","Resource":"*""#);
    let body = format!("Action=AssumeRole&RoleSessionName=se&RoleArn={arn}&Policy={}", form_encoded(&narrow));
    let assumed = query(alt, "sts", &body).await.ok();
    let session = with_keys(alt, &assumed);
    let token = assumed.element("SessionToken").expect("SessionToken");
    let header = [("x-amz-security-token", token.as_str())];
    assert_eq!(call(&session, &Method::GET, &path, "", &header, b"").await.ok().text(), "new");
    refused(&put(&session, &path, "", &header, b"x").await, 403, "AccessDenied");
    let other = form_encoded("arn:aws:iam::000000000001:role/none");
    let refusal = query(alt, "sts", &format!("Action=AssumeRole&RoleSessionName=se&RoleArn={other}")).await;
    assert_eq!(refusal.error(), (403, "AccessDenied".to_owned()));
    world.server.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_read_what_the_rules_let_them() {
    let world = World::start().await;
    let rules = "<CORSConfiguration><CORSRule><AllowedOrigin>https://*.example.com</AllowedOrigin>\
                 <AllowedMethod>PUT</AllowedMethod><AllowedMethod>GET</AllowedMethod><AllowedHeader>x-amz-*</AllowedHeader>\
                 <ExposeHeader>ETag</ExposeHeader><MaxAgeSeconds>60</MaxAgeSeconds></CORSRule></CORSConfiguration>";
    let main = &world.main;
    refused(&call(main, &Method::GET, BUCKET, "cors=", &[], b"").await, 404, "NoSuchCORSConfiguration");
    put(main, BUCKET, "cors=", &[], rules.as_bytes()).await.ok();
    let preflight = |origin: &str, method: &str, headers: &str| {
        let mut request = Request::builder().method(Method::OPTIONS).uri(format!("/{BUCKET}/k"));
        for (name, value) in [
            ("host", main.host.as_str()),
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", headers),
        ] {
            request = request.header(name, value);
        }
        let (main, request) = (main.clone(), request.body(full(b"")).unwrap());
        async move { main.send(request).await.unwrap() }
    };
    let allowed = preflight("https://a.example.com", "PUT", "x-amz-date").await.ok();
    assert_eq!(allowed.header("access-control-allow-origin"), "https://a.example.com");
    assert_eq!(allowed.header("access-control-allow-headers"), "x-amz-date");
    assert_eq!(allowed.header("access-control-max-age"), "60");
    refused(&preflight("https://evil.org", "PUT", "").await, 403, "AccessForbidden");
    refused(&preflight("https://a.example.com", "DELETE", "").await, 403, "AccessForbidden");
    refused(&preflight("https://a.example.com", "TRACE", "").await, 400, "BadRequest");
    let origin = [("origin", "https://a.example.com")];
    let read = call(main, &Method::GET, &format!("{BUCKET}/k"), "", &origin, b"").await.ok();
    assert_eq!(read.header("access-control-expose-headers"), "ETag");
    let refusal = call(&world.anonymous, &Method::GET, &format!("{BUCKET}/k"), "", &origin, b"").await;
    assert_eq!(refusal.header("access-control-allow-origin"), "https://a.example.com", "refusals too");
    call(main, &Method::DELETE, BUCKET, "cors=", &[], b"").await.ok();
    refused(&preflight("https://a.example.com", "PUT", "").await, 403, "AccessForbidden");
    world.server.stop().await;
}

/// Posts a form; `signed` are the conditions of its policy.
async fn post(client: &Client, conditions: Option<&str>, fields: &[(&str, &str)], file: &[u8]) -> Answer {
    let mut body = String::new();
    let mut add = |name: &str, value: &str| {
        body.push_str(&format!(
            "--bound\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    };
    for (name, value) in fields {
        add(name, value);
    }
    if let Some(conditions) = conditions {
        let credential = format!("{}/20260101/us-east-1/s3/aws4_request", client.access_key);
        let document = format!(
            r#"{{"expiration":"2099-01-01T00:00:00Z","conditions":[{conditions},{{"x-amz-credential":"{credential}"}},{{"x-amz-date":"20260101T000000Z"}},{{"x-amz-algorithm":"AWS4-HMAC-SHA256"}}]}}"#
        );
        let document = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, document);
        let mut key =
            ring::hmac::Key::new(ring::hmac::HMAC_SHA256, format!("AWS4{}", client.secret).as_bytes());
        for piece in ["20260101", "us-east-1", "s3", "aws4_request"] {
            key = ring::hmac::Key::new(
                ring::hmac::HMAC_SHA256,
                ring::hmac::sign(&key, piece.as_bytes()).as_ref(),
            );
        }
        add("x-amz-algorithm", "AWS4-HMAC-SHA256");
        add("x-amz-credential", &credential);
        add("x-amz-date", "20260101T000000Z");
        add("x-amz-signature", &hex::encode(ring::hmac::sign(&key, document.as_bytes())));
        add("policy", &document);
    }
    body.push_str("--bound\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\nContent-Type: text/plain\r\n\r\n");
    let body = [body.as_bytes(), file, b"\r\n--bound--\r\n"].concat();
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/{BUCKET}"))
        .header("host", client.host.clone())
        .header("content-type", "multipart/form-data; boundary=bound")
        .header("content-length", body.len().to_string());
    client.send(request.body(full(&body)).expect("a request")).await.expect("an answer")
}

#[tokio::test]
async fn a_form_stores_its_file_if_its_policy_holds() {
    let world = World::start().await;
    let (main, alt) = (&world.main, &world.alt);
    let conditions = r#"{"bucket":"shared"},["starts-with","$key","up/"],["content-length-range",1,1000],["eq","$success_action_status","201"],["starts-with","$x-amz-meta-who",""],["starts-with","$Content-Type","text/"]"#;
    let fields = [
        ("key", "up/${filename}"),
        ("success_action_status", "201"),
        ("x-amz-meta-who", "me"),
        ("Content-Type", "text/plain"),
    ];
    let made = post(main, Some(conditions), &fields, b"file content").await.ok();
    assert_eq!((made.status.as_u16(), made.element("Key").as_deref()), (201, Some("up/a.txt")));
    let read = main.get(&format!("/{BUCKET}/up/a.txt")).await.ok();
    assert_eq!((read.text().as_str(), read.header("content-type")), ("file content", "text/plain"));
    assert_eq!(read.header("x-amz-meta-who"), "me");
    refused(
        &post(main, Some(conditions), &[("key", "other/a"), fields[1], fields[2]], b"x").await,
        403,
        "AccessDenied",
    );
    refused(
        &post(main, Some(conditions), &[fields[0], fields[1], fields[2], ("x-amz-meta-extra", "1")], b"x")
            .await,
        403,
        "AccessDenied",
    );
    refused(&post(main, Some(conditions), &fields, &[b'x'; 1001]).await, 400, "EntityTooLarge");
    refused(&post(main, Some(conditions), &fields, b"").await, 400, "EntityTooSmall");
    refused(&post(main, Some(conditions), &[fields[1]], b"x").await, 400, "InvalidArgument");
    let mut forged = main.clone();
    forged.secret = "wrong".to_owned();
    refused(&post(&forged, Some(conditions), &fields, b"x").await, 403, "SignatureDoesNotMatch");
    refused(&post(alt, Some(conditions), &fields, b"x").await, 403, "AccessDenied");
    refused(&post(main, None, &fields, b"x").await, 403, "AccessDenied");
    let world = world.open().await;
    put(&world.main, BUCKET, "acl=", &[("x-amz-acl", "public-read-write")], b"").await.ok();
    // Everybody may write: half a signature of version 2 is refused all the same, and not taken for none.
    for old in [("AWSAccessKeyId", "AKIATEST"), ("signature", "c2ln")] {
        refused(&post(&world.main, None, &[("key", "old"), old], b"y").await, 400, "InvalidArgument");
    }
    assert!(!world.server.holds(BUCKET, "old"));
    let anonymous = post(&world.main, None, &[("key", "anyone")], b"y").await;
    assert_eq!(anonymous.status, 204, "{}", anonymous.text());
    assert!(world.server.holds(BUCKET, "anyone"));
    world.server.stop().await;
}

#[tokio::test]
async fn a_form_may_be_signed_by_version_2() {
    let world = World::start().await;
    let main = &world.main;
    let encode = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let policy = encode(
        br#"{"expiration":"2099-01-01T00:00:00Z","conditions":[{"bucket":"shared"},["starts-with","$key","up/"]]}"#,
    );
    let sign = |secret: &str| {
        let algorithm = ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
        let key = ring::hmac::Key::new(algorithm, secret.as_bytes());
        encode(ring::hmac::sign(&key, policy.as_bytes()).as_ref())
    };
    let signature = sign(&main.secret);
    let form = |key: &'static str, access_key: &str, signature: &str| {
        let fields = [
            ("key", key.to_owned()),
            ("AWSAccessKeyId", access_key.to_owned()),
            ("signature", signature.to_owned()),
            ("policy", policy.clone()),
        ];
        async move {
            let fields: Vec<(&str, &str)> =
                fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            post(main, None, &fields, b"old way").await
        }
    };
    assert_eq!(form("up/a", &main.access_key, &signature).await.status, 204);
    assert_eq!(main.get(&format!("/{BUCKET}/up/a")).await.ok().text(), "old way");
    refused(&form("other", &main.access_key, &signature).await, 403, "AccessDenied");
    refused(&form("up/b", &main.access_key, &sign("wrong")).await, 403, "SignatureDoesNotMatch");
    refused(&form("up/b", "AKIANOBODY", &signature).await, 403, "InvalidAccessKeyId");
    let alt = sign(&world.alt.secret);
    refused(&form("up/b", &world.alt.access_key, &alt).await, 403, "AccessDenied");
    assert!(!world.server.holds(BUCKET, "up/b"));
    world.server.stop().await;
}

#[tokio::test]
async fn where_requesters_pay_other_accounts_have_to_say_so_and_nobody_is_let_in() {
    let world = World::start().await;
    let (main, alt, anonymous) = (&world.main, &world.alt, &world.anonymous);
    call(main, &Method::DELETE, BUCKET, "publicAccessBlock=", &[], b"").await.ok();
    let policy = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*",
        "Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::shared/*"}]}"#;
    put(main, BUCKET, "policy=", &[], policy.as_bytes()).await.ok();
    let key = format!("{BUCKET}/k");
    let payer = |who: &str| {
        format!("<RequestPaymentConfiguration><Payer>{who}</Payer></RequestPaymentConfiguration>")
    };
    let read = |client: &Client, headers: &'static [(&'static str, &'static str)]| {
        let (client, key) = (client.clone(), key.clone());
        async move { call(&client, &Method::GET, &key, "", headers, b"").await }
    };
    const PAYS: &[(&str, &str)] = &[("x-amz-request-payer", "requester")];

    assert_eq!(read(alt, PAYS).await.ok().header("x-amz-request-charged"), "");
    refused(
        &put(main, BUCKET, "requestPayment=", &[], payer("Somebody").as_bytes()).await,
        400,
        "MalformedXML",
    );
    refused(
        &put(alt, BUCKET, "requestPayment=", &[], payer("Requester").as_bytes()).await,
        403,
        "AccessDenied",
    );
    put(main, BUCKET, "requestPayment=", &[], payer("Requester").as_bytes()).await.ok();
    let shown = call(main, &Method::GET, BUCKET, "requestPayment=", &[], b"").await.ok();
    assert_eq!(shown.element("Payer").as_deref(), Some("Requester"));

    assert_eq!(read(main, &[]).await.ok().header("x-amz-request-charged"), "");
    refused(&read(alt, &[]).await, 403, "AccessDenied");
    refused(&read(alt, &[("x-amz-request-payer", "somebody")]).await, 403, "AccessDenied");
    assert_eq!(read(alt, PAYS).await.ok().header("x-amz-request-charged"), "requester");
    refused(&read(anonymous, &[]).await, 403, "AccessDenied");
    refused(&read(anonymous, PAYS).await, 403, "AccessDenied");
    let link = alt.presign(&Method::GET, &format!("/{key}"), "x-amz-request-payer=requester", "60", &[]);
    let request =
        Request::builder().uri(link).header("host", alt.host.clone()).body(full(b"")).expect("a request");
    assert_eq!(alt.send(request).await.expect("an answer").ok().text(), "content");

    // The source of a copy asks the same.
    put(alt, "of-alt", "", &[], b"").await.ok();
    let source = ("x-amz-copy-source", "/shared/k");
    refused(&put(alt, "of-alt/copy", "", &[source], b"").await, 403, "AccessDenied");
    put(alt, "of-alt/copy", "", &[source, PAYS[0]], b"").await.ok();

    put(main, BUCKET, "requestPayment=", &[], payer("BucketOwner").as_bytes()).await.ok();
    read(alt, &[]).await.ok();
    read(anonymous, &[]).await.ok();
    world.server.stop().await;
}
