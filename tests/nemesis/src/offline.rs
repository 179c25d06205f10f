//! What must hold of what a stopped cluster left: on its drives, in its catalogs, and of what can be had from the drives alone.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use holdfast_audit::{
    keys::TenantKeys,
    placement::{Drives, audit},
    replicas::Replicas,
};
use holdfast_blackbox::scan::scan;
use holdfast_model::NodeId;

use crate::{
    bodies::CANARY,
    hand::{drive_file, name},
};

/// Files with what clients wrote that are told of, when there are any.
const SHOWN: usize = 10;

/// Every drive of the stopped cluster. Those in `hurt` may hold what was done to them.
///
/// # Errors
/// When a drive that nobody touched is not sound.
pub fn drives_are_sound(
    dir: &Path,
    nodes: usize,
    drives: u16,
    hurt: &BTreeSet<(usize, u16)>,
) -> Result<usize> {
    let mut sound = 0;
    for node in 0..nodes {
        for drive in 1..=drives {
            let path = drive_file(dir, node, drive);
            let report = holdfast_drive::inspect::inspect(&path)
                .with_context(|| format!("inspecting {}", path.display()))?;
            ensure!(
                report.is_sound() || hurt.contains(&(node, drive)),
                "d{drive} of n{} was left alone and is not sound:\n{report}",
                node + 1
            );
            sound += usize::from(report.is_sound());
        }
    }
    Ok(sound)
}

/// Nothing that clients wrote lies anywhere in the clear. Returns how many bytes were searched.
///
/// # Errors
/// When it does, or a file cannot be read.
pub fn nothing_is_in_the_clear(dir: &Path) -> Result<u64> {
    let found = scan(&[dir.to_path_buf()], &[CANARY.to_vec()])?;
    let files: Vec<_> = found.hits.iter().take(SHOWN).map(|hit| hit.file.display().to_string()).collect();
    ensure!(files.is_empty(), "what clients wrote lies in the clear in {}", files.join(", "));
    Ok(found.bytes)
}

/// Opens the catalogs of every node, compares replicas, and looks on the drives for every shard that they place. Says what
/// was looked at.
///
/// # Errors
/// When replicas differ, none could be compared, a shard is not where it is placed, or something cannot be read.
pub fn catalogs_agree_with_drives(dir: &Path, nodes: usize, drives: u16) -> Result<Vec<String>> {
    let states: Vec<PathBuf> = (0..nodes).map(|node| state_dir(dir, node)).collect();
    let (keys, view) = TenantKeys::gather(states.first().context("no node")?, &states)?;
    let replicas = Replicas::open(&states, &keys)?;
    let compared = replicas.compare();
    ensure!(compared.differ.is_empty(), "{}", compared.differ.join("; "));
    ensure!(compared.same > 1, "of {} replicas no two are after the same entry", compared.replicas);

    let mut inspected = Drives::default();
    for (node, state) in states.iter().enumerate() {
        let id = node_id(state)?;
        for drive in 1..=drives {
            inspected.inspect(id, &drive_file(dir, node, drive))?;
        }
    }
    let level = view.cluster.as_ref().context("the control state names no cluster")?.level;
    let placement = audit(replicas.newest().map(|replica| &replica.reader), &inspected, level)?;
    ensure!(placement.findings.is_empty(), "{}", placement.findings.join("\n"));
    ensure!(placement.stripes > 0, "the catalogs know no stripe");
    Ok(vec![
        format!(
            "{} of {} replicas of catalogs after the same entry as another, with the same rows",
            compared.same, compared.replicas
        ),
        format!(
            "{} shards of {} stripes on the drives where the catalogs place them, as {level} asks; besides, {} of garbage to be swept, {} of writes \
             that were never finished, and {} records of the second copy",
            placement.shards,
            placement.stripes,
            placement.garbage,
            placement.unfinished,
            placement.second_copy
        ),
    ])
}

/// Reads catalog and control state from the drives alone, without writing them: as many objects must come back as there are.
/// Drives are mounted by that.
///
/// # Errors
/// When something is missing.
pub fn drives_alone_suffice(noded: &Path, dir: &Path, nodes: usize, objects: usize) -> Result<String> {
    let mut recover = Command::new(noded);
    recover.args(["recover", "--dry-run"]);
    for node in 0..nodes {
        recover.arg("--config").arg(dir.join(name(node)).join("config.json"));
    }
    let output = recover.output().with_context(|| format!("starting {}", noded.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let whole = output.status.success()
        && said.contains(&format!(" {objects} objects, "))
        && said.contains("degraded   0 objects")
        && said.contains("result     whole");
    ensure!(
        whole,
        "from the drives alone, where {objects} objects are to be:\n{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(format!("{objects} objects, none without all its shards, recovered from the drives alone"))
}

fn state_dir(dir: &Path, node: usize) -> PathBuf {
    dir.join(name(node)).join("state")
}

/// The number of the node whose state this is.
fn node_id(state: &Path) -> Result<NodeId> {
    let path = state.join("identity.json");
    let identity: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).with_context(|| format!("reading {}", path.display()))?)?;
    Ok(serde_json::from_value(identity["node"].clone())?)
}
