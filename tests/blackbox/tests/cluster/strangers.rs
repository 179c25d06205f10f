//! What one tenant has is not there for another: every S3 operation and every admin route of the program's own tables,
//! with the other's credentials and the first one's names and ids.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_admin_api::routes::{self, Access};
use holdfast_blackbox::{
    dev::DevCluster,
    http_client::{Answer, Https, full},
    s3::{Call, Client, first},
};
use holdfast_gateway_s3::operations::{OPERATIONS, On, Operation, Support};
use http::{Method, Request};
use serde_json::json;

use crate::{
    support::{BUCKET, single},
    tenancy::other_client,
};

const KEY: &str = "a/key of demo";
const CONTENT: &str = "content that is demo's alone";
const TAG: &str = "tag-of-demo";
/// A bucket that both tenants have, each its own.
const SAME: &str = "same-name";

/// What the first tenant has, by the names and ids that lead to it.
struct Known {
    version: String,
    upload: String,
}

async fn fill(client: &Client) -> Result<Known> {
    client.create_bucket(SAME).await?;
    let on = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
    for bucket in [BUCKET, SAME] {
        client.expect(Call::new(Method::PUT, bucket, "").query("versioning", ""), on).await?;
        let put = Call::new(Method::PUT, bucket, KEY).header("x-amz-tagging", format!("t={TAG}"));
        client.expect(put.header("x-amz-meta-said", TAG), CONTENT).await?;
    }
    let head = client.expect(Call::new(Method::HEAD, SAME, KEY), Bytes::new()).await?;
    let version = head.header("x-amz-version-id").context("no version")?.to_owned();
    let begun = client.expect(Call::new(Method::POST, SAME, KEY).query("uploads", ""), Bytes::new()).await?;
    let upload = first(&begun.text(), "UploadId").context("no UploadId")?;
    let part = Call::new(Method::PUT, SAME, KEY).query("partNumber", 1).query("uploadId", &upload);
    client.expect(part, CONTENT).await?;
    Ok(Known { version, upload })
}

/// Everything of the first tenant that a change would show in.
async fn picture(client: &Client, known: &Known) -> Result<BTreeMap<String, String>> {
    let mut seen = BTreeMap::new();
    for bucket in [BUCKET, SAME] {
        for query in ["versions", "policy", "cors", "lifecycle", "tagging", "acl", "encryption", "versioning"]
        {
            let answer =
                client.send(Call::new(Method::GET, bucket, "").query(query, ""), Bytes::new()).await?;
            seen.insert(format!("{bucket}?{query}"), without_request(&answer));
        }
        for query in ["tagging", "acl"] {
            let answer =
                client.send(Call::new(Method::GET, bucket, KEY).query(query, ""), Bytes::new()).await?;
            seen.insert(format!("{bucket}/{KEY}?{query}"), without_request(&answer));
        }
        seen.insert(format!("{bucket}/{KEY}"), String::from_utf8(client.get(bucket, KEY).await?.to_vec())?);
    }
    let parts = Call::new(Method::GET, SAME, KEY).query("uploadId", &known.upload);
    seen.insert("parts".into(), client.expect(parts, Bytes::new()).await?.text());
    Ok(seen)
}

/// Errors name the request, which differs.
fn without_request(answer: &Answer) -> String {
    let text = answer.text();
    text.split("<RequestId>").next().unwrap_or_default().to_owned()
}

/// A request that is this operation, with the first tenant's ids wherever it takes one.
fn attempt(operation: &Operation, bucket: &str, source: &str, known: &Known, versioned: bool) -> Call {
    let (bucket, key) = match operation.on {
        On::Service => ("", ""),
        On::Bucket => (bucket, ""),
        On::Object => (bucket, KEY),
    };
    let mut call = Call::new(operation.method.clone(), bucket, key);
    for marker in operation.markers {
        call = match *marker {
            "list-type" => call.query(marker, 2),
            "partNumber" => call.query(marker, 1),
            "uploadId" => call.query(marker, &known.upload),
            "id" => call.query(marker, "x"),
            _ => call.query(marker, ""),
        };
    }
    if versioned && operation.params.contains(&"versionId") {
        call = call.query("versionId", &known.version);
    }
    if operation.name.contains("Copy") {
        call = call.header("x-amz-copy-source", format!("/{source}/a/key%20of%20demo"));
    }
    call
}

fn tells(text: &str, known: &Known, access_key: &str) -> bool {
    [CONTENT, TAG, access_key].iter().any(|secret| text.contains(secret))
        || text.contains(&format!("<VersionId>{}<", known.version))
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenant_gets_nothing_by_any_operation_or_admin_route() -> Result<()> {
    let (cluster, demo) = single("strangers").await?;
    let other = other_client(&cluster, 0)?;
    let known = fill(&demo).await?;
    other.create_bucket(SAME).await?;
    let before = picture(&demo, &known).await?;
    let access_key = demo.credentials().access_key.clone();

    // In a bucket that only the first has: not there, or denied, whatever is asked.
    let (mut strange, mut own) = (0, 0);
    // A name of its own for a bucket is everybody's to take: tenants have nothing in common.
    let about_others =
        |operation: &&Operation| operation.on != On::Service && operation.name != "CreateBucket";
    for operation in OPERATIONS.iter().filter(about_others) {
        for versioned in [false, true] {
            let call = attempt(operation, BUCKET, BUCKET, &known, versioned);
            let answer = other.send(call, Bytes::new()).await?;
            let (status, text) = (answer.status.as_u16(), answer.text());
            let allowed: &[u16] = match (operation.support, operation.name) {
                (Support::No(_), _) => &[501],
                // An empty document is refused before it is looked whose the bucket is.
                (_, "PostObject" | "DeleteObjects") => &[400, 403, 404, 411, 412],
                _ => &[403, 404],
            };
            ensure!(allowed.contains(&status), "{} of {BUCKET}: {status} {text}", operation.name);
            ensure!(!tells(&text, &known, &access_key), "{} of {BUCKET}: {text}", operation.name);
            strange += 1;
            // In its own bucket of the same name, with the first one's key, version, upload and source.
            let call = attempt(operation, SAME, BUCKET, &known, versioned);
            if operation.name == "DeleteBucket" {
                continue;
            }
            let answer = other.send(call, Bytes::new()).await?;
            let (status, text) = (answer.status.as_u16(), answer.text());
            ensure!(
                status != 500 && !tells(&text, &known, &access_key),
                "{} of {SAME}: {text}",
                operation.name
            );
            let named = operation.name.contains("Copy")
                || operation.markers.contains(&"uploadId")
                || (versioned
                    && operation.params.contains(&"versionId")
                    && operation.name.starts_with("Get"));
            let refused = (400..500).contains(&status) || status == 501;
            ensure!(!named || refused, "{} of {SAME}: {status} {text}", operation.name);
            own += 1;
        }
    }
    let listed = other.send(Call::new(Method::GET, "", ""), Bytes::new()).await?.text();
    ensure!(!listed.contains(&format!("<Name>{BUCKET}<")), "{listed}");
    ensure!(picture(&demo, &known).await? == before, "what the first tenant has was changed");

    let (routes, open) = admin_routes(&cluster, &other, &known, &access_key).await?;
    println!(
        "{strange} requests on the other's bucket, {own} on its own with the other's ids; \
         {routes} requests on admin routes, {open} on open ones"
    );
    Ok(())
}

/// There is no session for tenants: their keys open no route of the admin API, in whatever form they come.
async fn admin_routes(
    cluster: &DevCluster,
    other: &Client,
    known: &Known,
    access_key: &str,
) -> Result<(u32, u32)> {
    let https = Https::new(&cluster.file().nodes[0].admin, cluster.file().trust()?)?;
    let admin = cluster.file().admin(0).await?;
    let tenants = admin.get("/api/v1/tenants").await?;
    let id = tenants["tenants"][0]["id"].as_str().context("id")?.to_owned();
    let status = admin.get("/api/v1/cluster").await?;
    let drive = status["nodes"][0]["drives"][0]["id"].as_str().context("drive")?.to_owned();
    let (credentials, signer) =
        (other.credentials().clone(), Client::new(https.clone(), other.credentials().clone()));
    let (mut closed, mut open) = (0, 0);
    for route in routes::all() {
        let name = if route.path.contains("/nodes/") { "n1" } else { "demo" };
        let path = route
            .path
            .replace("{name}", name)
            .replace("{bucket}", BUCKET)
            .replace("{tenant}", &id)
            .replace("{id}", &drive)
            .replace("{kind}", "rebuild")
            .replace("{webhook}", "hook")
            .replace("{key}", &cluster.file().tenants[0].access_key);
        ensure!(!path.contains('{'), "{path}: a parameter that this test does not know");
        let method: Method = route.method.name().parse()?;
        let body = if method == Method::GET { Bytes::new() } else { Bytes::from(json!({}).to_string()) };
        let plain = |authorization: String| {
            Request::builder()
                .method(method.clone())
                .uri(&path)
                .header("host", https.authority())
                .header("content-type", "application/json")
                .header("content-length", body.len())
                .header("authorization", authorization)
                .body(full(body.clone()))
        };
        let mut requests = vec![
            plain(format!("Bearer {}", credentials.secret_key))?,
            plain(format!("Bearer {}:{}", credentials.access_key, credentials.secret_key))?,
        ];
        if let Some(rest) = path.strip_prefix("/api/") {
            let signed = Call::new(method.clone(), "api", rest).header("content-type", "application/json");
            requests.push(signer.request(signed, full(body.clone()))?);
        }
        for request in requests {
            let answer = https.send(request).await?;
            let text = answer.text();
            let told = tells(&text, known, access_key) || text.contains(&id);
            match route.access {
                Access::Session(_) => {
                    ensure!(answer.status.as_u16() == 401, "{}: {} {text}", route.id, answer.status);
                    closed += 1;
                }
                Access::Anyone => open += 1,
            }
            ensure!(!told, "{}: {text}", route.id);
        }
    }
    Ok((closed, open))
}
