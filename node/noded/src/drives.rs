//! This node's drives: found, formatted when blank, opened.
//!
//! Nothing that is not blank is ever formatted. A drive of another cluster, or one that holds something
//! else, is left alone and named in the log.

use std::path::Path;

use anyhow::{Context, Result};
use holdfast_crypt::random_array;
use holdfast_drive::{Drive, DriveOptions, FormatParams, Probe, format, probe};
use holdfast_model::{ClusterId, DriveId, NodeId, config::DriveSelection};

/// Opens all drives that are ours, formatting blank ones. Blocking.
///
/// # Errors
/// Only when none of several named paths can be used; a single bad drive is logged and left out.
pub fn open_drives(
    selection: &DriveSelection,
    cluster: ClusterId,
    node: NodeId,
    options: &DriveOptions,
) -> Result<Vec<Drive>> {
    let paths = match selection {
        DriveSelection::Paths(paths) => paths.clone(),
        DriveSelection::AllBlank => holdfast_appliance::data_drives(),
    };
    let mut drives: Vec<Drive> = Vec::new();
    for path in paths {
        match open_drive(&path, cluster, node, options) {
            Ok(drive) if drives.iter().any(|other| other.id() == drive.id()) => {
                tracing::error!(path = %path.display(), drive = %drive.id(), "two drives with one identity (a copy?); this one is left alone");
            }
            Ok(drive) => drives.push(drive),
            Err(error) => {
                tracing::error!(path = %path.display(), error = format!("{error:#}"), "drive not used");
            }
        }
    }
    tracing::info!(count = drives.len(), "drives open");
    Ok(drives)
}

fn open_drive(path: &Path, cluster: ClusterId, node: NodeId, options: &DriveOptions) -> Result<Drive> {
    match probe(path).context("probing")? {
        Probe::Blank => {
            let params = FormatParams { cluster, drive: DriveId::from_bytes(random_array()), node };
            let id = format(path, &params).context("formatting")?;
            tracing::info!(path = %path.display(), drive = %id, "blank drive formatted");
        }
        Probe::Ours(identity) if identity.cluster != cluster => {
            anyhow::bail!("it belongs to cluster {}, this node to {cluster}", identity.cluster);
        }
        Probe::Ours(_) => {}
        Probe::Foreign { what } => anyhow::bail!("it holds {what}; wipe it first if it is to be used here"),
        Probe::Damaged { what } => anyhow::bail!("its label is damaged: {what}"),
    }
    let (drive, report) = Drive::open(path, cluster, options.clone()).context("opening")?;
    tracing::info!(path = %path.display(), drive = %drive.id(), ?report, "drive open");
    Ok(drive)
}
