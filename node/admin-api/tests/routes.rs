//! The service as a client meets it: who is let in, what is answered, what is kept from caches and logs.

mod support;

use std::sync::Arc;

use axum::body::Body;
use holdfast_admin_api::Role;
use holdfast_admin_api::routes::{self, Access};
use http::{Request, StatusCode, header};
use serde_json::{Value, json};
use support::{Client, Example, PASSWORD};

fn path(template: &str) -> String {
    template
        .replace("{name}", "demo")
        .replace("{webhook}", "hook")
        .replace("{key}", "HFDEMO0000000001")
        .replace("{tenant}", &"03".repeat(16))
}

#[tokio::test]
async fn every_route_that_asks_for_a_session_refuses_without_one() {
    let client = Client::new(Example::default());
    for route in routes::all().filter(|route| route.access != Access::Anyone) {
        let request = Request::builder().method(route.method.name()).uri(path(route.path));
        let answer = client.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", route.id);
        assert_eq!(answer.problem(), "session-required");
        let answer = client.call(route.method.name(), &path(route.path), "hf1.e30.AAAA", &Value::Null).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{} with a forged token", route.id);
    }
}

#[tokio::test]
async fn a_viewer_reads_and_is_refused_whatever_needs_an_operator() {
    let client = Client::new(Example::default());
    let token = client.token("watcher").await;
    for route in routes::all().filter(|route| route.id != "logout" && route.access != Access::Anyone) {
        let answer = client.call(route.method.name(), &path(route.path), &token, &Value::Null).await;
        if route.access == Access::Session(Role::Operator) {
            assert_eq!(answer.problem(), "forbidden", "{}", route.id);
        } else {
            assert_eq!(answer.status, StatusCode::OK, "{}: {}", route.id, answer.text);
        }
    }
}

#[tokio::test]
async fn open_routes_say_one_word() {
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let client = Client::new(Example::default());
    assert_eq!(client.send(get("/healthz")).await.text, "ok\n");
    assert_eq!(client.send(get("/readyz")).await.text, "ready\n");
    let starting = Client::new(Example { hangs: true, ..Example::default() });
    let answer = starting.send(get("/readyz")).await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"));
}

#[tokio::test]
async fn the_cookie_opens_reads_and_writes_need_the_consoles_header_too() {
    let client = Client::new(Example::default());
    let login = client.login("admin", PASSWORD).await;
    let cookie = login.headers[header::SET_COOKIE].to_str().unwrap().to_owned();
    for attribute in ["__Host-holdfast=", "; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains("Domain"));
    let pair = cookie.split(';').next().unwrap();
    let read = Request::get("/api/v1/session").header("cookie", pair).body(Body::empty()).unwrap();
    let session = client.send(read).await;
    assert_eq!((&session.json["user"], &session.json["node"]), (&json!("admin"), &json!("n1")));

    let write = |extra: &[(&str, &str)]| {
        let mut request = support::json("POST", "/api/v1/join-tokens", &json!({})).header("cookie", pair);
        for (name, value) in extra {
            request = request.header(*name, *value);
        }
        request.body(Body::from("{}")).unwrap()
    };
    assert_eq!(client.send(write(&[])).await.problem(), "cross-site-request");
    let evil = [("x-holdfast-csrf", "1"), ("host", "n1:8443"), ("origin", "https://evil.example")];
    assert_eq!(client.send(write(&evil)).await.problem(), "cross-site-request");
    let ours = [("x-holdfast-csrf", "1"), ("host", "n1:8443"), ("origin", "https://n1:8443")];
    assert_eq!(client.send(write(&ours)).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn wrong_password_and_unknown_user_are_answered_alike_and_then_held_back() {
    let client = Client::new(Example::default());
    let wrong = client.login("admin", "wrong").await;
    let unknown = client.login("nobody", "wrong").await;
    assert_eq!(wrong.problem(), "login-refused");
    assert_eq!((wrong.status, &wrong.text), (unknown.status, &unknown.text));
    let mut tries = 0;
    let held_back = loop {
        let answer = client.login("admin", "wrong").await;
        tries += 1;
        assert!(tries < 10, "never held back");
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            break answer;
        }
    };
    assert!(held_back.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(
        client.login("admin", PASSWORD).await.status,
        StatusCode::TOO_MANY_REQUESTS,
        "the right one too"
    );
    assert_eq!(
        client.login("watcher", PASSWORD).await.status,
        StatusCode::CREATED,
        "others are not held back"
    );
}

#[tokio::test]
async fn a_session_is_good_on_every_node_of_its_cluster_and_on_no_other() {
    let token = Client::new(Example::default()).token("admin").await;
    let second = Client::new(Example { node: "n2", ..Example::default() });
    let other = Client::new(Example { key: [9; 32], ..Example::default() });
    let answer = second.call("GET", "/api/v1/session", &token, &Value::Null).await;
    assert_eq!(answer.json["node"], "n2");
    let answer = other.call("GET", "/api/v1/session", &token, &Value::Null).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn logout_ends_the_session_and_drops_the_cookie() {
    let client = Client::new(Example::default());
    let token = client.token("admin").await;
    let answer = client.call("DELETE", "/api/v1/session", &token, &Value::Null).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    assert!(answer.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    let answer = client.call("GET", "/api/v1/session", &token, &Value::Null).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_changed_password_or_a_removed_account_ends_its_sessions() {
    let example = Arc::new(Example::default());
    let client = Client {
        router: holdfast_admin_api::router(example.clone()),
        address: ([192, 0, 2, 1], 4000).into(),
    };
    let (admin, watcher) = (client.token("admin").await, client.token("watcher").await);
    example.operators.lock().retain(|operator| operator.user == "admin");
    example.operators.lock()[0].password_hash.push('A');
    for token in [admin, watcher] {
        let answer = client.call("GET", "/api/v1/cluster", &token, &Value::Null).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn tenants_are_made_once_and_their_secrets_are_not_stored_by_browsers() {
    let client = Client::new(Example::default());
    let token = client.token("admin").await;
    let post = |path: &'static str, body: Value| {
        let (client, token) = (&client, &token);
        async move { client.call("POST", path, token, &body).await }
    };
    let created = post("/api/v1/tenants", json!({ "name": "acme", "level": "+2d:1n" })).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.text);
    assert_eq!(created.json["secret_key"], "example-secret-shown-once");
    assert_eq!(created.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(post("/api/v1/tenants", json!({ "name": "acme" })).await.problem(), "conflict");
    assert_eq!(post("/api/v1/tenants", json!({ "name": "Acme!" })).await.problem(), "invalid-request");
    assert_eq!(
        post("/api/v1/tenants", json!({ "name": "x", "level": "+9n" })).await.problem(),
        "invalid-request"
    );
    assert_eq!(post("/api/v1/tenants", json!({ "name": "x", "nmae": 1 })).await.problem(), "invalid-request");
    assert_eq!(post("/api/v1/tenants/acme/access-keys", Value::Null).await.status, StatusCode::CREATED);
    assert_eq!(post("/api/v1/tenants/none/access-keys", Value::Null).await.problem(), "not-found");
    let key = |id: &str| json!({ "id": id });
    let keys = "/api/v1/tenants/acme/encryption-keys";
    assert_eq!(post(keys, key("backups")).await.status, StatusCode::CREATED);
    assert_eq!(post(keys, key("with a space")).await.problem(), "invalid-request");
    assert_eq!(post("/api/v1/tenants/none/encryption-keys", key("k")).await.problem(), "not-found");
    let account = serde_json::json!({ "name": "alt", "email": "alt@example.com" });
    let made = post("/api/v1/tenants/acme/accounts", account.clone()).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.json["id"].as_str().map(str::len), Some(64));
    assert_eq!(post("/api/v1/tenants/none/accounts", account).await.problem(), "not-found");
    let nameless = serde_json::json!({ "name": "", "email": "alt@example.com" });
    assert_eq!(post("/api/v1/tenants/acme/accounts", nameless).await.problem(), "invalid-request");
    let list = client.call("GET", "/api/v1/tenants", &token, &Value::Null).await;
    assert_eq!(list.json["tenants"][1]["access_keys"].as_array().unwrap().len(), 2);
    assert!(!list.text.contains("secret"), "{}", list.text);
}

#[tokio::test]
async fn a_tenant_is_destroyed_only_by_name_twice_and_with_a_reason_that_is_one() {
    let client = Client::new(Example::default());
    let token = client.token("admin").await;
    let path = "/api/v1/tenants/demo/shred";
    let other = client.call("POST", path, &token, &json!({ "confirm": "other" })).await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST, "{}", other.text);
    let empty = json!({ "confirm": "demo", "override_retention": " " });
    assert_eq!(client.call("POST", path, &token, &empty).await.status, StatusCode::BAD_REQUEST);
    let early = client.call("POST", path, &token, &json!({ "confirm": "demo" })).await;
    assert_eq!(early.status, StatusCode::CONFLICT, "it is not suspended");
    let watcher = client.token("watcher").await;
    for (path, body) in [(path, json!({ "confirm": "demo" })), ("/api/v1/tenants/demo/suspend", json!({}))] {
        assert_eq!(client.call("POST", path, &watcher, &body).await.status, StatusCode::FORBIDDEN);
    }
    client.call("POST", "/api/v1/tenants/demo/suspend", &token, &json!({})).await;
    let begun = client.call("POST", path, &token, &json!({ "confirm": "demo" })).await;
    assert_eq!((begun.status, &begun.json["by"]), (StatusCode::ACCEPTED, &json!("admin")), "{}", begun.text);
    let unknown = client.call("GET", "/api/v1/shreds/xyz/certificate", &watcher, &json!({})).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn levels_and_orders_to_workers_are_checked_before_they_are_passed_on() {
    let client = Client::new(Example::default());
    let token = client.token("admin").await;
    let post = |path: &'static str, body: Value| {
        let (client, token) = (&client, &token);
        async move {
            let answer = client.call("POST", path, token, &body).await;
            if answer.status == StatusCode::NO_CONTENT {
                "done".to_owned()
            } else {
                answer.problem().to_owned()
            }
        }
    };
    assert_eq!(post("/api/v1/tenants/demo/level", json!({ "level": "+1n" })).await, "done");
    assert_eq!(post("/api/v1/tenants/demo/level", json!({ "level": null })).await, "done");
    assert_eq!(post("/api/v1/tenants/demo/level", json!({ "level": "+7n" })).await, "invalid-request");
    assert_eq!(post("/api/v1/tenants/demo/level", json!({ "level": "8x" })).await, "conflict");
    assert_eq!(post("/api/v1/tenants/demo/buckets/none/level", json!({ "level": "2x" })).await, "not-found");
    assert_eq!(post("/api/v1/cluster/level", json!({ "level": null })).await, "invalid-request");

    let order = json!({ "paused": true, "impact": "low", "hours": { "from": 22, "until": 6 } });
    assert_eq!(post("/api/v1/work/rebuild", order).await, "done");
    assert_eq!(post("/api/v1/work/rebuild", json!({ "impact": "huge" })).await, "invalid-request");
    let late = json!({ "hours": { "from": 22, "until": 24 } });
    assert_eq!(post("/api/v1/work/rebuild", late).await, "invalid-request");
    assert_eq!(post("/api/v1/work/nothing", json!({})).await, "not-found");
    assert_eq!(post("/api/v1/nodes/n9/drain", Value::Null).await, "not-found");
}

#[tokio::test]
async fn join_tokens_live_as_long_as_asked_within_a_day() {
    let client = Client::new(Example::default());
    let token = client.token("admin").await;
    let ask = |body: Value| {
        let (client, token) = (&client, &token);
        async move { client.call("POST", "/api/v1/join-tokens", token, &body).await }
    };
    assert_eq!(ask(json!({})).await.json["expires_unix_ms"], 1_800_000_000_000_u64 + 900_000);
    assert_eq!(
        ask(json!({ "valid_for_seconds": 60 })).await.json["expires_unix_ms"],
        1_800_000_000_000_u64 + 60_000
    );
    assert_eq!(ask(json!({ "valid_for_seconds": 86_401 })).await.problem(), "invalid-request");
}

#[tokio::test]
async fn bodies_that_are_not_small_json_are_refused() {
    let client = Client::new(Example::default());
    let post = |kind: &'static str, body: String| {
        let request = Request::post("/api/v1/session").header("content-type", kind);
        client.send(request.body(Body::from(body)).unwrap())
    };
    assert_eq!(post("text/plain", "{}".into()).await.problem(), "unsupported-media-type");
    assert_eq!(post("application/json", "{".into()).await.problem(), "invalid-request");
    assert_eq!(post("application/json", " ".repeat(20_000)).await.problem(), "body-too-large");
}

#[tokio::test]
async fn the_cluster_its_nodes_and_drives_tell_the_same() {
    let client = Client::new(Example::default());
    let token = client.token("watcher").await;
    let get = |path: &'static str| {
        let (client, token) = (&client, &token);
        async move { client.call("GET", path, token, &Value::Null).await.json }
    };
    let (cluster, nodes, drives) =
        (get("/api/v1/cluster").await, get("/api/v1/nodes").await, get("/api/v1/drives").await);
    assert_eq!(cluster["level"]["requested"], "+2d:1n");
    assert_eq!(nodes["nodes"], cluster["nodes"]);
    assert_eq!(drives["drives"].as_array().unwrap().len(), 12);
    assert_eq!(drives["drives"][4]["node"], "n2");
    assert_eq!(drives["drives"][4]["drive"], cluster["nodes"][1]["drives"][0]);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let client = Client::new(Example::default());
    let requests = [
        Request::get("/").body(Body::empty()),
        Request::get("/assets/none.js").body(Body::empty()),
        Request::get("/api/v1/cluster").body(Body::empty()),
        Request::get("/api/none").body(Body::empty()),
        Request::put("/api/v1/session").body(Body::empty()),
        Request::get("/healthz").body(Body::empty()),
    ];
    for request in requests {
        let request = request.unwrap();
        let what = format!("{} {}", request.method(), request.uri());
        let answer = client.send(request).await;
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{what}: {policy}");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{what}");
        assert!(answer.headers.contains_key(header::STRICT_TRANSPORT_SECURITY), "{what}");
        assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN), "{what}");
        if what.contains("/api/") {
            assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store", "{what}");
            assert!(answer.status.is_client_error(), "{what}");
            answer.problem();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_costs_the_client_its_deadline_and_no_more() {
    let client = Client::new(Example { hangs: true, ..Example::default() });
    let token = client.token("admin").await;
    let begun = tokio::time::Instant::now();
    let answer = client.call("GET", "/api/v1/cluster", &token, &Value::Null).await;
    assert_eq!(answer.problem(), "deadline-exceeded");
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test]
async fn a_webhook_has_a_name_that_fits_an_arn() {
    let client = Client::new(Example::default());
    let token = client.token("admin").await;
    let set = async |name: &str| {
        let body = json!({ "name": name, "url": "https://example.net/", "bearer": "geheim" });
        client.call("POST", "/api/v1/tenants/demo/webhooks", &token, &body).await
    };
    assert_eq!(set("hook-1_a").await.status, StatusCode::NO_CONTENT);
    for name in ["", "a:b", "a/b", "a b", &"x".repeat(64)] {
        assert_eq!(set(name).await.problem(), "invalid-request", "{name}");
    }
    let shown = client.call("GET", "/api/v1/tenants/demo/webhooks", &token, &Value::Null).await;
    assert!(!shown.text.contains("bearer"), "{}", shown.text);
    let gone = client.call("DELETE", "/api/v1/tenants/demo/webhooks/other", &token, &Value::Null).await;
    assert_eq!(gone.problem(), "not-found");
}

#[tokio::test]
async fn access_keys_are_made_bounded_and_taken_away() {
    let client = Client::new(Example::default());
    let token = client.token("admin").await;
    let all = "/api/v1/tenants/demo/access-keys";
    let policy = json!({ "Version": "2012-10-17", "Statement": [] });
    let bounds = json!({ "expires_unix_ms": 9_000, "policy": policy });
    let made = client.call("POST", all, &token, &bounds).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    assert_eq!(made.headers[header::CACHE_CONTROL], "no-store");
    let key = made.json["access_key"].as_str().unwrap().to_owned();
    let shown = |listed: &Value| {
        let keys = listed["access_keys"].as_array().unwrap();
        keys.iter().find(|known| known["access_key"] == key.as_str()).cloned()
    };
    let listed = client.call("GET", all, &token, &Value::Null).await;
    let first = shown(&listed.json).unwrap();
    assert_eq!((&first["expires_unix_ms"], &first["policy"]), (&json!(9_000), &policy));
    assert!(!listed.text.contains("secret"));

    let one = format!("{all}/{key}");
    let freed = client.call("POST", &format!("{one}/bounds"), &token, &json!({})).await;
    assert_eq!(freed.status, StatusCode::NO_CONTENT, "{}", freed.text);
    let listed = client.call("GET", all, &token, &Value::Null).await;
    assert_eq!(shown(&listed.json).unwrap()["policy"], Value::Null);
    for wrong in [json!({ "expires": 1 }), json!({ "expires_unix_ms": -1 })] {
        let refused = client.call("POST", &format!("{one}/bounds"), &token, &wrong).await;
        assert_eq!(refused.problem(), "invalid-request", "{wrong}");
    }
    assert_eq!(client.call("DELETE", &one, &token, &Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(client.call("DELETE", &one, &token, &Value::Null).await.problem(), "not-found");
}

#[tokio::test]
async fn bounds_that_are_not_said_to_be_json_make_no_key_without_bounds() {
    let client = Client::new(Example::default());
    let token = client.token("admin").await;
    let request = Request::post("/api/v1/tenants/demo/access-keys")
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::from("{\"expires_unix_ms\":9000}"));
    assert_eq!(client.send(request.unwrap()).await.problem(), "unsupported-media-type");
}
