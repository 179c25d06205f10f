//! The admin API as an operator's program uses it: log in, hand out join tokens, make tenants, look.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    cluster_file::{AccountEntry, Operator, TenantEntry},
    http_client::{Answer, Https, Trust, full},
};

/// A session on one node.
#[derive(Debug, Clone)]
pub struct Admin {
    https: Https,
    token: String,
}

/// Tokens of this program's sessions, by password: every node of a cluster takes them. A password check takes an
/// emulated machine many seconds.
static SESSIONS: Mutex<Option<HashMap<String, String>>> = Mutex::new(None);

/// One node as the cluster sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// `up`, `down`, `joining`, `leaving`.
    pub state: String,
    /// Whether its peers reach it.
    pub up: bool,
    /// Whether it votes in the control group.
    pub voter: bool,
}

/// One Raft group.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Group {
    /// Its number.
    pub id: u32,
    /// Number of the node that leads it.
    pub leader: Option<u64>,
    /// Numbers of the nodes that vote.
    pub voters: BTreeSet<u64>,
    /// Replicas that do not run.
    pub ailing: Vec<Ailing>,
}

/// A replica that does not run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ailing {
    /// Number of its node.
    pub node: u64,
    /// What was found.
    pub what: String,
    /// Whether it is being mended.
    pub heals: bool,
}

/// Redundancy that is owed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Stripes with fewer readable shards than their level asks for.
    pub debt_stripes: u64,
    /// Of those, the ones that cannot be read.
    pub unreadable_stripes: u64,
    /// Shards on drives that are being emptied.
    pub draining_shards: u64,
    /// Whether all of it was counted.
    pub complete: bool,
}

/// How long nodes of a new cluster may take to tell each other what they can.
const EVENTS_KNOWN_WITHIN: Duration = Duration::from_secs(60);

/// How long a login may take: more than the node gives itself for one.
const LOGIN_LIMIT: Duration = Duration::from_secs(200);

/// How often something that is about to be there is looked for, 50 ms apart.
const LOOKS_MAX: usize = 100;

async fn eventually<T>(look: impl AsyncFn() -> Result<T>) -> Result<T> {
    for _ in 1..LOOKS_MAX {
        if let Ok(found) = look().await {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    look().await
}

impl Admin {
    /// Logs in at `url`.
    ///
    /// # Errors
    /// When the node cannot be reached or refuses.
    pub async fn login(url: &str, trust: Trust, operator: &Operator) -> Result<Self> {
        let https = Https::new(url, trust)?;
        let body = json!({ "user": operator.user, "password": operator.password });
        let patient = https.patient(LOGIN_LIMIT);
        let answer = call(&patient, Method::POST, "/api/v1/session", None, Some(&body)).await?;
        let token = text(&answer, "token")?;
        Ok(Self { https, token })
    }

    /// As [`Admin::login`], with the session that this program has already when it still holds. A node that
    /// does not say whether it does is not given a password to check as well.
    ///
    /// # Errors
    /// When the node cannot be reached or refuses.
    pub async fn resume(url: &str, trust: Trust, operator: &Operator) -> Result<Self> {
        let token = SESSIONS.lock().as_ref().and_then(|sessions| sessions.get(&operator.password).cloned());
        if let Some(token) = token {
            let session = Self { https: Https::new(url, trust.clone())?, token };
            if session.holds().await? {
                return Ok(session);
            }
        }
        let session = Self::login(url, trust, operator).await?;
        SESSIONS.lock().get_or_insert_default().insert(operator.password.clone(), session.token.clone());
        Ok(session)
    }

    /// Whether the node still takes this session.
    async fn holds(&self) -> Result<bool> {
        let path = "/api/v1/session";
        let request = Request::get(path)
            .header("host", self.https.authority())
            .header("authorization", format!("Bearer {}", self.token));
        let answer = self.https.send(request.body(full(Bytes::new()))?).await?;
        match answer.status {
            status if status.is_success() => Ok(true),
            StatusCode::UNAUTHORIZED => Ok(false),
            status => bail!("GET {path} at {}: {status} {}", self.https.authority(), answer.text()),
        }
    }

    /// A single-use join token.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn join_token(&self) -> Result<String> {
        let answer = self.call(Method::POST, "/api/v1/join-tokens", Some(&json!({}))).await?;
        text(&answer, "token")
    }

    /// Makes a tenant with an access key.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn create_tenant(&self, name: &str) -> Result<TenantEntry> {
        let answer = self.call(Method::POST, "/api/v1/tenants", Some(&json!({ "name": name }))).await?;
        let path = format!("/api/v1/tenants/{name}/accounts");
        // The answer came when the tenant was decided; this node may see it a moment later.
        let first = eventually(async || {
            let accounts = self.call(Method::GET, &path, None).await?;
            accounts["accounts"].get(0).cloned().context("no first account")
        })
        .await?;
        Ok(TenantEntry {
            name: name.to_owned(),
            region: text(&answer, "region")?,
            access_key: text(&answer, "access_key")?,
            secret_key: text(&answer, "secret_key")?,
            id: text(&first, "id")?,
            number: text(&first, "number")?,
            email: text(&first, "email")?,
            accounts: Vec::new(),
        })
    }

    /// Makes an account in a tenant, with an access key.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn create_account(&self, tenant: &str, name: &str, email: &str) -> Result<AccountEntry> {
        let path = format!("/api/v1/tenants/{tenant}/accounts");
        let answer = self.call(Method::POST, &path, Some(&json!({ "name": name, "email": email }))).await?;
        Ok(AccountEntry {
            name: name.to_owned(),
            id: text(&answer, "id")?,
            number: text(&answer, "number")?,
            email: text(&answer, "email")?,
            access_key: text(&answer, "access_key")?,
            secret_key: text(&answer, "secret_key")?,
        })
    }

    /// Makes what every new cluster of ours has: tenant `demo` with a second account, and a second tenant.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn create_usual_tenants(&self) -> Result<Vec<TenantEntry>> {
        let mut demo = self.create_tenant("demo").await?;
        demo.accounts.push(self.create_account("demo", "alt", "alt@demo.invalid").await?);
        Ok(vec![demo, self.create_tenant("other").await?])
    }

    /// Has a node leave the cluster.
    ///
    /// # Errors
    /// When that is refused; the answer says why.
    pub async fn remove_node(&self, name: &str, force: bool) -> Result<()> {
        let path = format!("/api/v1/nodes/{name}/removal");
        self.call(Method::POST, &path, Some(&json!({ "force": force }))).await.map(drop)
    }

    /// The Raft groups, as this node sees them.
    ///
    /// # Errors
    /// When the node refuses or its answer has another shape.
    pub async fn groups(&self) -> Result<Vec<Group>> {
        let cluster = self.cluster().await?;
        Ok(serde_json::from_value(cluster["groups"].clone())?)
    }

    /// The cluster document as it came.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn cluster(&self) -> Result<Value> {
        self.call(Method::GET, "/api/v1/cluster", None).await
    }

    /// Debt and background work of the whole cluster.
    ///
    /// # Errors
    /// When the node refuses or its answer has another shape.
    pub async fn work(&self) -> Result<Work> {
        let answer = self.work_document().await?;
        let number = |field: &str| answer[field].as_u64().with_context(|| format!("no {field} in {answer}"));
        Ok(Work {
            debt_stripes: number("debt_stripes")?,
            unreadable_stripes: number("unreadable_stripes")?,
            draining_shards: number("draining_shards")?,
            complete: answer["complete"].as_bool() == Some(true),
        })
    }

    /// The document of debt and background work as it came.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn work_document(&self) -> Result<Value> {
        self.call(Method::GET, "/api/v1/work", None).await
    }

    /// Changes what is asked of a kind of worker.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn set_worker(&self, kind: &str, change: &Value) -> Result<()> {
        self.call(Method::POST, &format!("/api/v1/work/{kind}"), Some(change)).await.map(drop)
    }

    /// Levels of a tenant and its buckets.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn levels(&self, tenant: &str) -> Result<Value> {
        self.call(Method::GET, &format!("/api/v1/tenants/{tenant}/levels"), None).await
    }

    /// Asks for a level for a bucket, or with `None` for its tenant's.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn set_bucket_level(&self, tenant: &str, bucket: &str, level: Option<&str>) -> Result<()> {
        let path = format!("/api/v1/tenants/{tenant}/buckets/{bucket}/level");
        self.call(Method::POST, &path, Some(&json!({ "level": level }))).await.map(drop)
    }

    /// Asks for a level for a tenant, or with `None` for the cluster's.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn set_tenant_level(&self, tenant: &str, level: Option<&str>) -> Result<()> {
        let path = format!("/api/v1/tenants/{tenant}/level");
        self.call(Method::POST, &path, Some(&json!({ "level": level }))).await.map(drop)
    }

    /// Has all drives of a node emptied.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn drain_node(&self, name: &str) -> Result<()> {
        self.call(Method::POST, &format!("/api/v1/nodes/{name}/drain"), None).await.map(drop)
    }

    /// Runs an audit on this node and returns what it found.
    ///
    /// # Errors
    /// When the node refuses, or the audit was given up.
    pub async fn audit(&self) -> Result<Value> {
        self.call(Method::POST, "/api/v1/audit", None).await?;
        loop {
            let status = self.call(Method::GET, "/api/v1/audit", None).await?;
            if status["running"] == false {
                let last = &status["last"];
                return if last.is_null() { bail!("the audit was given up") } else { Ok(last.clone()) };
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Has the drives of this node scrubbed.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn scrub(&self) -> Result<()> {
        self.call(Method::POST, "/api/v1/scrub", None).await.map(drop)
    }

    /// Has a drive emptied.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn drain(&self, drive: &str) -> Result<()> {
        self.call(Method::POST, &format!("/api/v1/drives/{drive}/drain"), None).await.map(drop)
    }

    /// The members of the cluster, as this node sees them.
    ///
    /// # Errors
    /// When the node refuses or its answer has another shape.
    pub async fn members(&self) -> Result<Vec<Member>> {
        members(&self.cluster().await?)
    }

    /// Has the cluster send events of the tenant `demo` to `url`, as its webhook `hook`, once all nodes can: those of a
    /// new cluster tell so within seconds.
    ///
    /// # Errors
    /// When the node cannot be reached or refuses, or not every node knows of events for too long.
    pub async fn define_hook(&self, url: &str) -> Result<()> {
        let begun = Instant::now();
        while self.get("/api/v1/cluster/events").await?["enabled"] != true {
            if begun.elapsed() > EVENTS_KNOWN_WITHIN {
                bail!("not every node knows of events");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let hook = json!({ "name": "hook", "url": url });
        self.post("/api/v1/tenants/demo/webhooks", &hook).await.map(drop)
    }

    /// Removes something.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    /// Any document of the API.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// Any action of the API.
    ///
    /// # Errors
    /// When the node refuses; the answer says why.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// A document that is text.
    ///
    /// # Errors
    /// When the node refuses; the answer says why.
    pub async fn text(&self, path: &str) -> Result<String> {
        let request = Request::get(path)
            .header("host", self.https.authority())
            .header("authorization", format!("Bearer {}", self.token));
        let answer = self.https.send(request.body(full(Bytes::new()))?).await?;
        if !answer.status.is_success() {
            bail!("{path}: {} {}", answer.status, answer.text());
        }
        Ok(answer.text())
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        call(&self.https, method, path, Some(&self.token), body).await
    }
}

/// Whether the node answers that it serves.
pub async fn is_ready(url: &str, trust: Trust) -> bool {
    match plain_get(url, trust, "/readyz").await {
        Ok(answer) => answer.status.is_success(),
        Err(_) => false,
    }
}

/// The cluster's CA certificate, taken once over an unverified connection from a node just made.
///
/// # Errors
/// When the node does not answer with one.
pub async fn fetch_ca(url: &str) -> Result<String> {
    let answer = plain_get(url, Trust::fetching()?, "/api/v1/ca.pem").await?;
    if !answer.status.is_success() || !answer.text().contains("BEGIN CERTIFICATE") {
        bail!("{url}/api/v1/ca.pem: {} {}", answer.status, answer.text());
    }
    Ok(answer.text())
}

/// A document that needs no session.
///
/// # Errors
/// When the node does not answer or refuses.
pub async fn open_get(url: &str, trust: Trust, path: &str) -> Result<Value> {
    call(&Https::new(url, trust)?, Method::GET, path, None, None).await
}

/// An action that needs no session.
///
/// # Errors
/// When the node does not answer or refuses; the answer says why.
pub async fn open_post(url: &str, trust: Trust, path: &str, body: &Value) -> Result<Value> {
    call(&Https::new(url, trust)?, Method::POST, path, None, Some(body)).await
}

async fn plain_get(url: &str, trust: Trust, path: &str) -> Result<Answer> {
    let https = Https::new(url, trust)?;
    let request = Request::get(path).header("host", https.authority()).body(full(Bytes::new()))?;
    https.send(request).await
}

async fn call(
    https: &Https,
    method: Method,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<Value> {
    let what = format!("{method} {path} at {}", https.authority());
    let mut request = Request::builder().method(method).uri(path).header("host", https.authority());
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let bytes = match body {
        Some(value) => {
            request = request.header("content-type", "application/json");
            Bytes::from(serde_json::to_vec(value)?)
        }
        None => Bytes::new(),
    };
    let answer = https.send(request.body(full(bytes))?).await?;
    if !answer.status.is_success() {
        bail!("{what}: {} {}", answer.status, answer.text());
    }
    if answer.body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&answer.body).with_context(|| format!("{what}: answer is not JSON"))
}

fn text(value: &Value, field: &str) -> Result<String> {
    Ok(value[field].as_str().with_context(|| format!("no text {field:?} in the answer"))?.to_owned())
}

/// Reads the members out of a cluster document: a voter is one that votes in group 0, the control group.
fn members(cluster: &Value) -> Result<Vec<Member>> {
    let list =
        |field: &str| cluster[field].as_array().with_context(|| format!("no list {field:?} in {cluster}"));
    let control = list("groups")?.iter().find(|group| group["id"] == 0);
    let voters =
        control.and_then(|group| group["voters"].as_array()).context("no voters of the control group")?;
    list("nodes")?
        .iter()
        .map(|node| {
            Ok(Member {
                id: node["id"].as_u64().context("a node without number")?,
                name: text(node, "name")?,
                state: text(&node["state"], "kind")?,
                up: text(&node["state"], "kind")? == "up",
                voter: voters.contains(&node["id"]),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_down_or_does_not_vote_is_told_from_a_whole_one() {
        let document = json!({
            "nodes": [
                { "id": 1, "name": "n1", "state": { "kind": "up" } },
                { "id": 2, "name": "n2", "state": { "kind": "down", "last_heard_unix_ms": 5 } },
                { "id": 3, "name": "n3", "state": { "kind": "up" } },
            ],
            "groups": [{ "id": 1, "voters": [3] }, { "id": 0, "voters": [1, 2] }],
        });
        let found: Vec<_> =
            members(&document).unwrap().into_iter().map(|node| (node.up, node.voter)).collect();
        assert_eq!(found, [(true, true), (false, true), (true, false)]);
        assert!(members(&json!({ "nodes": [] })).is_err());
    }
}
