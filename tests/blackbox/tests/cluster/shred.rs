//! One of two tenants is destroyed on three nodes, one of which is killed on the way, and then all. What was copied before, together
//! with every secret that there is afterwards, does not open it; with the secrets of before it does, which proves
//! the method.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_blackbox::{
    dev::DevCluster,
    paths,
    s3::{Client, Credentials},
    scan::scan,
    tree::noise,
};
use holdfast_control::{ControlMachine, ControlView};
use holdfast_crypt::{Root, TenantKey};
use holdfast_keyring::{Gathering, ShareStore};
use holdfast_model::{ClusterId, TenantId};
use http::StatusCode;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    keys::{issue, wait_lock},
    recovery::wait_for_bases,
    support::{BUCKET, cluster},
    tenancy::{other_client, shred_of_demo, wait_answer, wait_shredded},
};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// Within the catalog, one stripe, several.
const SIZES: [usize; 3] = [300, 90_000, 1_500_000];

#[tokio::test(flavor = "multi_thread")]
async fn a_destroyed_tenant_is_not_opened_by_old_copies_and_all_present_secrets() -> Result<()> {
    let mut cluster = cluster("shred", 3, 2).await?;
    let (demo, other) = (cluster.s3(0)?, other_client(&cluster, 1)?);
    other.create_bucket(BUCKET).await?;
    fill(&demo, 0).await?;
    fill(&other, 100).await?;
    issue(&cluster, 2, 3).await?;
    let admin = cluster.file().admin(0).await?;
    let keys = admin.get("/api/v1/keys").await?;
    let public = keys["certificate_key"].as_str().context("certificate_key")?.to_owned();
    wait_for_bases(&cluster).await?;

    // Everything that the nodes have is copied, drives and state, as of a quiet moment.
    cluster.stop()?;
    let saved = cluster.dir().join("saved");
    copy_nodes(cluster.dir(), &saved)?;
    let before = control_view(&saved.join("n1/state"), &cluster.dir().join("look-before"))?;
    let (tenant, wrapped) = wrapped_key(&before)?;
    for name in NODES {
        cluster.launch(name)?;
    }
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    cluster.wait_whole(0).await?;
    let drives: Vec<PathBuf> = NODES.iter().map(|name| cluster.dir().join(name).join("drives")).collect();
    let states: Vec<PathBuf> = NODES.iter().map(|name| cluster.dir().join(name).join("state")).collect();
    let needles = [wrapped.clone()];
    ensure!(!scan(&states, &needles)?.hits.is_empty(), "the search finds the wrapped key while it is there");

    // Destroyed, with a node killed in between: pending, and it says for whom it waits; then done.
    let admin = cluster.file().admin(0).await?;
    // Its catalog is being split: both halves go.
    admin.post("/api/v1/tenants/demo/partitions", &json!({})).await?;
    admin.post("/api/v1/tenants/demo/suspend", &json!({})).await?;
    wait_answer(&demo, "0/0", StatusCode::FORBIDDEN, "The tenant is suspended").await?;
    let begun = Instant::now();
    let status = admin.post("/api/v1/tenants/demo/shred", &json!({ "confirm": "demo" })).await?;
    ensure!(status["state"] == "pending", "{status}");
    sleep(Duration::from_millis(700)).await;
    cluster.kill("n3")?;
    sleep(Duration::from_secs(8)).await;
    let pending = shred_of_demo(&cluster.file().admin(0).await?).await?;
    println!("while n3 is down: {pending}");
    ensure!(pending["state"] == "pending" && pending["finished_unix_ms"].is_null(), "{pending}");
    // A power cut of all that is left, in the middle of it.
    cluster.kill("n1")?;
    cluster.kill("n2")?;
    for name in NODES {
        cluster.launch(name)?;
    }
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    let done = wait_shredded(&cluster).await?;
    println!(
        "done {:.1?} after it was decided, with n3 down for 8 s and all of them restarted: {done}",
        begun.elapsed()
    );
    ensure!(
        done["confirmed_by"] == json!(NODES) && done["keys"].as_array().is_some_and(|keys| keys.len() == 1)
    );

    // The certificate is what the cluster signed, and with one byte changed it is not.
    let admin = cluster.file().admin(2).await?;
    let certificate = admin.text(&format!("/api/v1/shreds/{tenant}/certificate")).await?;
    println!("{certificate}");
    certificate_verifies_as_it_is_only(&cluster, &certificate, &public)?;
    ensure!(certificate.contains("recovery-shares-to-destroy"), "those on paper open the old root");

    // The other tenant is as it was, through every node; the destroyed one is nobody.
    for node in 0..NODES.len() {
        check(&other_client(&cluster, node)?, 100).await?;
        wait_answer(&cluster.s3(node)?, "0/0", StatusCode::FORBIDDEN, "InvalidAccessKeyId").await?;
    }
    other.put(BUCKET, "afterwards", noise(5, 200_000)).await?;
    wait_until_freed(&cluster).await?;

    // The wrapped key is on no disk of any node, logs and drives included.
    cluster.stop()?;
    let found = scan(&[states.as_slice(), drives.as_slice()].concat(), &needles)?;
    ensure!(found.hits.is_empty(), "{:?}", found.hits);
    // Of all roots that all shares of all nodes give, none opens what was copied; those of before do.
    ensure!(
        open_with(&states, &before, tenant, &wrapped)?.is_none(),
        "a root of now opens the key of before"
    );
    let copied: Vec<PathBuf> = NODES.iter().map(|name| saved.join(name).join("state")).collect();
    let opened = open_with(&copied, &before, tenant, &wrapped)?.context("the roots of before open it")?;
    ensure!(before.tenants[&tenant].name == "demo" && opened.version() == 1);

    // The copies with the present secrets: a cluster that stays locked. With the secrets of before: all is there.
    let present = cluster.dir().join("present");
    for name in NODES {
        copy(&cluster.dir().join(name).join("state/keys"), &present.join(name))?;
    }
    put_back(&cluster, &saved)?;
    for name in NODES {
        let keys = cluster.dir().join(name).join("state/keys");
        fs::remove_dir_all(&keys)?;
        copy(&present.join(name), &keys)?;
        cluster.launch(name)?;
    }
    for node in 0..NODES.len() {
        wait_lock(&cluster, node, "locked").await?;
    }
    sleep(Duration::from_secs(5)).await;
    for node in 0..NODES.len() {
        wait_lock(&cluster, node, "locked").await?;
    }
    for name in NODES {
        cluster.kill(name)?;
    }
    put_back(&cluster, &saved)?;
    for name in NODES {
        cluster.launch(name)?;
    }
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    check(&cluster.s3(1)?, 0).await
}

async fn fill(client: &Client, seed: u64) -> Result<()> {
    for (n, (key, size)) in (seed..).zip(objects()) {
        client.put(BUCKET, &key, noise(n, size)).await?;
    }
    Ok(())
}

async fn check(client: &Client, seed: u64) -> Result<()> {
    for (n, (key, size)) in (seed..).zip(objects()) {
        let credentials: &Credentials = client.credentials();
        ensure!(client.get(BUCKET, &key).await? == noise(n, size), "{key} of {}", credentials.access_key);
    }
    Ok(())
}

fn objects() -> BTreeMap<String, usize> {
    (0..24).map(|n| (format!("{}/{n}", n % 3), SIZES[n % SIZES.len()])).collect()
}

/// Copies a directory; holes stay holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("no parent")?)?;
    let done = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status()?;
    ensure!(done.success(), "copying {}", from.display());
    Ok(())
}

fn copy_nodes(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for name in NODES {
        for part in ["drives", "state"] {
            copy(&from.join(name).join(part), &to.join(name).join(part))?;
        }
    }
    Ok(())
}

fn put_back(cluster: &DevCluster, saved: &Path) -> Result<()> {
    for name in NODES {
        for part in ["drives", "state"] {
            fs::remove_dir_all(cluster.dir().join(name).join(part))?;
        }
    }
    copy_nodes(saved, cluster.dir())
}

/// The control state in a state directory, read from a copy.
pub(crate) fn control_view(state: &Path, scratch: &Path) -> Result<ControlView> {
    copy(&state.join("control"), scratch)?;
    let (_machine, reader) = ControlMachine::open(scratch, [0; 16])?;
    Ok(reader.view()?)
}

pub(crate) fn wrapped_key(view: &ControlView) -> Result<(TenantId, Vec<u8>)> {
    let demo = view.tenants.values().find(|tenant| tenant.name == "demo").context("no tenant demo")?;
    Ok((demo.tenant, demo.wrapped_key.clone()))
}

/// The tenant's key, if any root opens it that the shares in these state directories give.
pub(crate) fn open_with(
    states: &[PathBuf],
    view: &ControlView,
    tenant: TenantId,
    wrapped: &[u8],
) -> Result<Option<TenantKey>> {
    let cluster: ClusterId = view.cluster.as_ref().context("no cluster")?.id;
    let mut gathering = Gathering::default();
    for state in states {
        for share in ShareStore::open(state, cluster, None)?.shares()?.shares() {
            gathering.add(share.clone());
        }
    }
    let roots: Vec<Root> = gathering.roots(cluster);
    ensure!(!roots.is_empty(), "the shares give no root at all: that proves nothing");
    Ok(roots.iter().find_map(|root| root.unwrap_tenant(tenant, wrapped).ok()))
}

fn certificate_verifies_as_it_is_only(cluster: &DevCluster, text: &str, public: &str) -> Result<()> {
    let file = cluster.dir().join("certificate.txt");
    let verify = |bytes: &[u8], key: &str| -> Result<(bool, String)> {
        fs::write(&file, bytes)?;
        let mut command = Command::new(paths::noded());
        let output = command.args(["keys", "verify-certificate"]).arg(&file).args(["--key", key]).output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (verified, said) = verify(text.as_bytes(), public)?;
    ensure!(verified && said.contains("VERIFIED") && said.contains("destroyed-key version 1"), "{said}");
    for at in [3, text.len() / 2, text.len() - 2] {
        let mut changed = text.as_bytes().to_vec();
        changed[at] ^= 1;
        let (verified, said) = verify(&changed, public)?;
        ensure!(!verified, "byte {at} changed: {said}");
    }
    let (verified, said) = verify(text.as_bytes(), &"ab".repeat(32))?;
    ensure!(!verified && said.contains("another key"), "{said}");
    Ok(())
}

/// Waits until drives hold about what the other tenant has: the destroyed one had as much.
async fn wait_until_freed(cluster: &DevCluster) -> Result<()> {
    let begun = Instant::now();
    loop {
        let mut freed = true;
        for name in NODES {
            freed &= fs::read_to_string(cluster.dir().join(name).join("console.log"))?
                .contains("shards of destroyed tenants deleted");
        }
        if freed {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "shards of the destroyed tenant are not deleted");
        sleep(Duration::from_millis(500)).await;
    }
}
