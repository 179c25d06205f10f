//! The auditor of stopped clusters finds nothing wrong where nothing is, and what is missing where something is.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use holdfast_audit::{
    keys::TenantKeys,
    placement::{Drives, audit},
    replicas::Replicas,
};
use holdfast_blackbox::{dev::DevCluster, tree::noise};
use holdfast_model::{Level, NodeId};

use crate::support::{BUCKET, cluster};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const DRIVES: u16 = 4;

#[tokio::test(flavor = "multi_thread")]
async fn every_shard_is_found_where_it_is_placed_and_one_that_is_not_is_named() -> Result<()> {
    let mut cluster = cluster("audit", 3, DRIVES).await?;
    let client = cluster.s3(0)?;
    for number in 0..12 {
        client.put(BUCKET, &format!("object/{number}"), noise(number, 300_000)).await?;
    }
    cluster.stop()?;

    let states: Vec<PathBuf> = NODES.iter().map(|name| cluster.state_dir(name)).collect();
    let (keys, view) = TenantKeys::gather(&states[0], &states)?;
    let level = view.cluster.context("no cluster")?.level;
    let replicas = Replicas::open(&states, &keys)?;
    let compared = replicas.compare();
    ensure!(compared.differ.is_empty() && compared.same > 1, "{compared:?}");
    let partitions: Vec<_> = replicas.newest().map(|replica| &replica.reader).collect();
    let at = |drives: &Drives, level: Level| audit(partitions.iter().copied(), drives, level);

    let whole = at(&drives(&cluster, &[1, 2, 3], None)?, level)?;
    assert_eq!(whole.findings, Vec::<String>::new());
    assert!(whole.stripes >= 12 && whole.shards > 2 * whole.stripes, "{whole:?}");

    let without = at(&drives(&cluster, &[1, 2, 3], Some(("n2", 1)))?, level)?;
    let [missing] = without.findings.as_slice() else { panic!("{without:?}") };
    assert!(missing.contains("is not there") && missing.contains("object/"), "{missing}");
    // Drives that were put into another node are there, and not where they are placed.
    let exchanged = at(&drives(&cluster, &[2, 1, 3], None)?, level)?;
    assert!(exchanged.findings.iter().any(|found| found.contains("lies in node")), "{exchanged:?}");
    // What lies well for one level lies wrong for a higher one.
    let higher = at(&drives(&cluster, &[1, 2, 3], None)?, Level::PLUS_4D_2N)?;
    assert!(higher.findings.iter().any(|found| found.contains("stripes lie wrong")), "{higher:?}");
    Ok(())
}

/// All drives but one, as if they lay in the nodes of these numbers.
fn drives(cluster: &DevCluster, numbers: &[u64; 3], but: Option<(&str, u16)>) -> Result<Drives> {
    let mut drives = Drives::default();
    for (name, number) in NODES.into_iter().zip(numbers) {
        for drive in (1..=DRIVES).filter(|drive| but != Some((name, *drive))) {
            let path = cluster.dir().join(name).join("drives").join(format!("d{drive}"));
            let found = drives.inspect(NodeId::new(*number), &path)?;
            ensure!(found.is_sound(), "{found}");
        }
    }
    Ok(drives)
}
