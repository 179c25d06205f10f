//! What is written about logins and changes, and what is not.
//!
//! Alone in its program: a subscriber of one thread is not told of events whose source another thread met
//! first without one.

mod support;

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use support::{Client, Example, PASSWORD};

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn logins_and_writes_are_audited_done_or_refused_and_reads_are_not() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    let _default = tracing::subscriber::set_default(subscriber);

    let client = Client::new(Example::default());
    let (admin, watcher) = (client.token("admin").await, client.token("watcher").await);
    client.login("admin", "a wrong guess").await;
    client.call("GET", "/api/v1/cluster", &admin, &Value::Null).await;
    client.call("POST", "/api/v1/tenants", &admin, &json!({ "name": "acme" })).await;
    client.call("POST", "/api/v1/tenants", &watcher, &json!({ "name": "other" })).await;
    client.call("POST", "/api/v1/tenants", "forged", &json!({ "name": "other" })).await;

    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    let events: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["target"] == "audit")
        .map(|event| {
            let field = |name: &str| event["fields"][name].as_str().unwrap().to_owned();
            [field("action"), field("outcome"), field("user"), field("on"), field("address")].join(" ")
        })
        .collect();
    assert_eq!(
        events,
        [
            "login done \"admin\" \"-\" 192.0.2.1",
            "login done \"watcher\" \"-\" 192.0.2.1",
            "login refused \"admin\" \"-\" 192.0.2.1",
            "create_tenant done \"admin\" \"acme\" 192.0.2.1",
            "create_tenant refused \"watcher\" \"-\" 192.0.2.1",
            "create_tenant refused \"-\" \"-\" 192.0.2.1",
        ]
    );
    for secret in [PASSWORD, "a wrong guess", "example-secret-shown-once", admin.as_str()] {
        assert!(!text.contains(secret), "{secret} in the log");
    }
}
