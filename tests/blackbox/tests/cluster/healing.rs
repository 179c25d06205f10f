//! Raft logs that rot or are lost: the cluster goes on, and the nodes come back by themselves.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use holdfast_blackbox::{
    admin::{Admin, Group, Member},
    dev::DevCluster,
    ledger::Ledger,
    raft_log::{self, EntryPlace},
    s3::Call,
    tree::noise,
};
use http::Method;
use tokio::time::sleep;

use crate::{
    divergence,
    support::{BUCKET, cluster},
};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// Kept within the catalog, and large enough that most of the log is such bodies.
const SIZE: usize = 9_000;
/// An entry with a body in it; others are far smaller.
const ENTRY_MIN: u32 = 8_000;
const HEALED_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn rotten_entries_a_state_that_differs_and_a_lost_log_heal_without_an_operator_and_nothing_is_lost()
-> Result<()> {
    let mut cluster = cluster("healing", 3, 1).await?;
    let ledger = Ledger::default();
    write(&cluster, &ledger, 0, 30).await?;

    // One of three.
    cluster.kill("n2")?;
    let rotten = entry_with_body(&cluster, "n2", 15)?;
    rotten.flip()?;
    write_through(&cluster, &ledger, &[0, 2], 30, 5).await?;
    cluster.start("n2").await?;
    let begun = Instant::now();
    let log = cluster.dir().join("n2/console.log");
    until("n2 to begin the group anew", || async {
        Ok(std::fs::read_to_string(&log)?.contains("the group begins anew").then_some(()))
    })
    .await?;
    wait_healed(&cluster, 0, |members| members.len() == 3).await?;
    println!("group {} of n2 healed {:?} after its start", rotten.group, begun.elapsed());
    write(&cluster, &ledger, 40, 15).await?;
    verify(&cluster, &ledger, "one of three rotten").await?;

    // A state that differs, on one.
    cluster.kill("n2")?;
    let states: Vec<_> = ["n1", "n2", "n3"].map(|name| cluster.state_dir(name)).into();
    divergence::plant(&cluster.state_dir("n2"), &states)?;
    cluster.start("n2").await?;
    let before = cluster.s3(1)?.expect(Call::new(Method::GET, "", ""), Bytes::new()).await?;
    ensure!(before.text().contains(divergence::BUCKET), "n2 shows what only it has: {}", before.text());
    let begun = Instant::now();
    while !std::fs::read_to_string(&log)?.contains("is not that of nodes") {
        ensure!(begun.elapsed() < HEALED_LIMIT, "nobody noticed that n2's state differs");
        write_through(&cluster, &ledger, &[0, 2], 100, 20).await?;
    }
    until("n2 to be filled anew", || async {
        let after = cluster.s3(1)?.expect(Call::new(Method::GET, "", ""), Bytes::new()).await?;
        Ok((!after.text().contains(divergence::BUCKET)).then_some(()))
    })
    .await?;
    wait_healed(&cluster, 0, |members| members.len() == 3).await?;
    println!("a state that differs was found and healed {:?} after its node's start", begun.elapsed());
    verify(&cluster, &ledger, "one of three different").await?;

    // The whole log of one.
    let before = member(&cluster.file().admin(0).await?, "n3").await?;
    cluster.kill("n3")?;
    std::fs::remove_dir_all(cluster.state_dir("n3").join("raft"))?;
    cluster.start("n3").await?;
    let begun = Instant::now();
    wait_healed(&cluster, 0, |members| {
        members.iter().any(|member| member.name == "n3" && member.id != before.id && member.up)
    })
    .await?;
    println!("n3 lost its log and was a full member again {:?} after its start", begun.elapsed());
    write(&cluster, &ledger, 60, 15).await?;
    verify(&cluster, &ledger, "a log lost").await?;
    cluster.kill("n3")?;
    cluster.start("n3").await?;
    let after = member(&cluster.file().admin(2).await?, "n3").await?;
    ensure!(after.id > before.id, "{before:?} became {after:?}");

    // Two of three: what cannot be served is not served, is said, and is not thrown away.
    for name in NODES {
        cluster.kill(name)?;
    }
    let rotten = [entry_with_body(&cluster, "n1", 3)?, entry_with_body(&cluster, "n2", 3)?];
    let group = rotten[0].group;
    ensure!(rotten[1].group == group, "the tenant's partition is in one group: {rotten:?}");
    for place in &rotten {
        place.flip()?;
    }
    for name in NODES {
        cluster.launch(name)?;
    }
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    let admin = cluster.file().admin(2).await?;
    let said = until("two replicas to be reported", || async {
        let groups = admin.groups().await?;
        let reported = |found: &Group| found.id == group && found.ailing.len() == 2 && found.leader.is_none();
        Ok(groups.into_iter().find(reported))
    })
    .await?;
    ensure!(said.ailing.iter().all(|ailing| !ailing.heals), "{said:?}");
    println!("two of three: {said:?}");
    let refused = cluster.s3(2)?.put(BUCKET, "refused", noise(1, SIZE)).await;
    ensure!(refused.is_err(), "a write was accepted by one replica of three");
    for name in NODES {
        cluster.kill(name)?;
    }
    for place in &rotten {
        place.flip()?;
    }
    for name in NODES {
        cluster.launch(name)?;
    }
    for name in NODES {
        cluster.wait_ready(name).await?;
    }
    wait_healed(&cluster, 0, |members| members.len() == 3).await?;
    verify(&cluster, &ledger, "two of three rotten, and restored").await
}

/// The `back`th entry from the end of a node's log that holds an object's body.
fn entry_with_body(cluster: &DevCluster, name: &str, back: usize) -> Result<EntryPlace> {
    let entries = raft_log::entries(&cluster.state_dir(name))?;
    let bodies: Vec<_> = entries.into_iter().filter(|entry| entry.length > ENTRY_MIN).collect();
    let at = bodies.len().checked_sub(back).with_context(|| format!("{} bodies in the log", bodies.len()))?;
    Ok(bodies[at].clone())
}

async fn write(cluster: &DevCluster, ledger: &Ledger, first: usize, count: usize) -> Result<()> {
    write_through(cluster, ledger, &[0, 1, 2], first, count).await
}

/// Writes, each until it is accepted: groups change their leaders in between.
async fn write_through(
    cluster: &DevCluster,
    ledger: &Ledger,
    nodes: &[usize],
    first: usize,
    count: usize,
) -> Result<()> {
    for number in first..first + count {
        let client = cluster.s3(nodes[number % nodes.len()])?;
        let begun = Instant::now();
        while !ledger.put(&client, BUCKET, &format!("object-{number}"), noise(number as u64, SIZE)).await? {
            ensure!(begun.elapsed() < HEALED_LIMIT, "object-{number} is still refused");
            sleep(POLL).await;
        }
    }
    Ok(())
}

async fn verify(cluster: &DevCluster, ledger: &Ledger, when: &str) -> Result<()> {
    for (at, name) in NODES.iter().enumerate() {
        let verdict = ledger.verify(&cluster.s3(at)?, BUCKET).await?;
        ensure!(verdict.broken.is_empty() && verdict.intact > 0, "{when}, through {name}: {verdict:?}");
    }
    Ok(())
}

async fn member(admin: &Admin, name: &str) -> Result<Member> {
    let members = admin.members().await?;
    members.into_iter().find(|member| member.name == name).with_context(|| format!("no member {name}"))
}

/// Waits until every replica of every group runs and votes, on the members that `fits` accepts.
async fn wait_healed(cluster: &DevCluster, index: usize, fits: impl Fn(&[Member]) -> bool) -> Result<()> {
    let admin = cluster.file().admin(index).await?;
    let admin = &admin;
    until("every group to be whole", || async {
        let (members, groups) = (admin.members().await?, admin.groups().await?);
        let ids: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
        let whole = |group: &Group| group.ailing.is_empty() && group.voters == ids && group.leader.is_some();
        let up = members.iter().all(|member| member.state == "up");
        Ok((fits(&members) && up && groups.iter().all(whole)).then_some(()))
    })
    .await
}

/// Looks again and again, errors included, until there is something.
async fn until<T, F: Future<Output = Result<Option<T>>>>(what: &str, look: impl Fn() -> F) -> Result<T> {
    let begun = Instant::now();
    loop {
        let outcome = look().await;
        if let Ok(Some(found)) = outcome {
            return Ok(found);
        }
        ensure!(begun.elapsed() < HEALED_LIMIT, "waited in vain for {what}: {:?}", outcome.err());
        sleep(POLL).await;
    }
}
