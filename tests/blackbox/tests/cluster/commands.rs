//! The `holdfast` command against a cluster, as an operator types it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    dev::DevCluster,
    paths,
    transit::{KEY, ROLE, TransitServer},
};
use serde_json::Value;

use crate::{
    access_keys,
    support::{BUCKET, cluster},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// The command, pointed at a cluster.
pub struct Holdfast<'c> {
    cluster: &'c DevCluster,
    sessions: PathBuf,
}

impl Holdfast<'_> {
    fn output(&self, password: Option<&str>, line: &str) -> Result<Output> {
        let mut command = Command::new(paths::command());
        command
            .env_remove("HOLDFAST_PASSWORD")
            .env("HOLDFAST_SERVER", &self.cluster.file().nodes[0].admin)
            .env("HOLDFAST_CA", self.cluster.file().ca_path())
            .env("HOLDFAST_SESSION_DIR", &self.sessions)
            .stdin(std::process::Stdio::null())
            .args(line.split(' '));
        if let Some(password) = password {
            command.env("HOLDFAST_PASSWORD", password);
        }
        command.output().with_context(|| format!("running {}", paths::command().display()))
    }

    /// What it prints when it does what it is told.
    pub fn run(&self, line: &str) -> Result<String> {
        let output = self.output(None, line)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "holdfast {line}: {errors}");
        let text = String::from_utf8(output.stdout)?;
        println!("$ holdfast {line}\n{text}");
        Ok(text)
    }

    pub fn json(&self, line: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&format!("--json {line}"))?)?)
    }

    /// What it says when it is refused.
    pub fn refused(&self, password: Option<&str>, line: &str) -> Result<String> {
        let output = self.output(password, line)?;
        ensure!(output.status.code() == Some(1), "holdfast {line}: {:?}", output.status);
        let text = String::from_utf8(output.stderr)?;
        println!("$ holdfast {line}\n{text}");
        Ok(text)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_is_looked_at_and_changed_from_the_command_line() -> Result<()> {
    let cluster = cluster("commands", 3, 2).await?;
    let holdfast = Holdfast { cluster: &cluster, sessions: cluster.dir().join("sessions") };
    let password = cluster.file().operator.password.clone();

    // Nobody without a password, nor with a wrong one.
    ensure!(holdfast.refused(None, "status")?.contains("no password"));
    ensure!(holdfast.refused(Some("wrong"), "status")?.contains("401"));
    let file = cluster.dir().join("password");
    fs::write(&file, format!("{password}\n"))?;
    holdfast.run(&format!("--password-file {} login", file.display()))?;
    for kept in fs::read_dir(&holdfast.sessions)? {
        ensure!(kept?.metadata()?.permissions().mode() & 0o077 == 0, "others can read the session");
    }

    // Looking, in words and as the node says it.
    let status = holdfast.run("status")?;
    ensure!(status.contains("+2d:1n") && status.contains("n3") && status.contains("up"), "{status}");
    ensure!(holdfast.json("status")?["cluster"]["nodes"].as_array().map(Vec::len) == Some(3));
    ensure!(holdfast.run("node list")?.lines().count() == 4);
    ensure!(holdfast.run("drive list")?.lines().count() == 7);
    ensure!(holdfast.run("tenant list")?.contains("demo"));
    ensure!(holdfast.run("work list")?.contains("rebuild"));
    ensure!(holdfast.run("level show")?.contains("4+2"));

    // Changing.
    holdfast.run("work pause rebalance")?;
    holdfast.run("work impact scrub high")?;
    holdfast.run("work hours scrub 22 6")?;
    let begun = Instant::now();
    loop {
        let work = holdfast.json("work list")?;
        let orders = work["orders"].as_array().context("orders")?;
        let of = |kind: &str| orders.iter().find(|order| order["kind"] == kind);
        let paused = of("rebalance").is_some_and(|order| order["paused"] == true);
        let scrub =
            of("scrub").is_some_and(|order| order["impact"] == "high" && order["hours"]["from"] == 22);
        if paused && scrub {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "orders are not taken: {work:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    holdfast.run("work resume rebalance")?;
    holdfast.run(&format!("level set 3x --tenant demo --bucket {BUCKET}"))?;
    let begun = Instant::now();
    while !holdfast.run("level show demo")?.contains("3x") {
        ensure!(begun.elapsed() < PATIENCE, "the level of the bucket is not asked for");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    holdfast.run(&format!("level set inherit --tenant demo --bucket {BUCKET}"))?;
    holdfast.run("scrub start")?;
    holdfast.run("audit start")?;
    let begun = Instant::now();
    while holdfast.json("audit show")?["last"].is_null() {
        ensure!(begun.elapsed() < PATIENCE, "no audit");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let drives = holdfast.json("drive list")?;
    let id = drives["drives"][0]["drive"]["id"].as_str().context("an id")?;
    holdfast.run(&format!("drive locate n1 {id} --minutes 1"))?;
    holdfast.run(&format!("drive locate n1 {id} --minutes 0"))?;
    holdfast.run(&format!("drive drain {id}"))?;
    holdfast.run(&format!("drive keep {id}"))?;

    // Where events may be sent.
    let begun = Instant::now();
    while holdfast.json("event show")?["enabled"] != true {
        ensure!(begun.elapsed() < PATIENCE, "events are not known to all nodes");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    holdfast.run("webhook set demo hook http://events.example.net/in")?;
    let shown = holdfast.run("webhook list demo")?;
    ensure!(
        shown.contains("arn:holdfast:sqs::hook:webhook") && shown.contains("events.example.net"),
        "{shown}"
    );
    let secret = cluster.dir().join("bearer");
    fs::write(&secret, "geheim\n")?;
    let over_http =
        format!("webhook set demo hook http://events.example.net/ --bearer-file {}", secret.display());
    ensure!(holdfast.refused(None, &over_http)?.contains("read by anyone"));
    let ca = cluster.file().ca_path();
    holdfast.run(&format!(
        "webhook set demo hook https://events.example.net/ --bearer-file {} --ca-file {}",
        secret.display(),
        ca.display()
    ))?;
    let shown = holdfast.json("webhook list demo")?;
    ensure!(shown["webhooks"][0]["has_secret"] == true && !shown.to_string().contains("geheim"), "{shown}");
    holdfast.run("event networks 127.0.0.0/8 fd00::/8")?;
    ensure!(holdfast.run("event show")?.contains("127.0.0.0/8 fd00::/8"));
    ensure!(holdfast.refused(None, "event networks 10.0.0.1/8")?.contains("not a network"));
    holdfast.run("event networks")?;
    holdfast.run("webhook remove demo hook")?;
    ensure!(holdfast.refused(None, "webhook remove demo hook")?.contains("hook"));

    external_key(&cluster, &holdfast).await?;
    access_keys::check(&cluster, &holdfast).await?;

    // Refusals say why.
    ensure!(holdfast.refused(None, "node drain n9")?.contains("n9"));
    ensure!(holdfast.refused(None, "level set +4n")?.contains("cannot be kept"));
    ensure!(holdfast.refused(None, "drive adopt n1 nothing")?.contains("no device"));
    holdfast.run("logout")?;
    ensure!(holdfast.refused(None, "status")?.contains("no password"));
    Ok(())
}

/// A tenant's key under a key of its own service, and back.
async fn external_key(cluster: &DevCluster, holdfast: &Holdfast<'_>) -> Result<()> {
    let server = TransitServer::start().await?;
    let (ca, secret) = (cluster.dir().join("service.pem"), cluster.dir().join("secret-id"));
    fs::write(&ca, server.ca_pem())?;
    fs::write(&secret, format!("{}\n", ROLE.1))?;
    let set = |url: &str| {
        let (ca, secret) = (ca.display(), secret.display());
        let role = format!("--role-id {} --secret-id-file {secret}", ROLE.0);
        format!("external-key set demo {url} {KEY} --ca-file {ca} {role} --check-seconds 5")
    };
    ensure!(holdfast.json("external-key show demo")?["service"].is_null());
    ensure!(holdfast.refused(None, "external-key remove demo")?.contains("an external key"));
    ensure!(holdfast.refused(None, &set("http://vault.example"))?.contains("the URL is https://"));
    ensure!(holdfast.refused(None, &set(&server.url()))?.contains("event networks can allow it"));
    holdfast.run("event networks 127.0.0.0/8")?;
    holdfast.run(&set(&server.url()))?;
    let begun = Instant::now();
    while holdfast.json("external-key show demo")?["state"] != "allowed" {
        ensure!(begun.elapsed() < PATIENCE, "the service is not asked");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let shown = holdfast.run("external-key show demo")?;
    ensure!(shown.contains(&format!("transit key transit/{KEY}")) && !shown.contains(ROLE.1), "{shown}");
    holdfast.run("external-key rotate demo")?;
    holdfast.run("external-key remove demo")?;
    ensure!(server.asked().iter().any(|asked| asked.ends_with("login")), "{:?}", server.asked());
    holdfast.run("event networks")?;
    Ok(())
}
