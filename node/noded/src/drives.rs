//! This node's drives: found, formatted when blank, opened.
//!
//! Nothing that is not blank is ever formatted. A drive of another cluster, or one that holds something
//! else, is left alone and named in the log.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use holdfast_crypt::random_array;
use holdfast_drive::{Drive, DriveOptions, FormatParams, OpenError, Probe, ProbeError, format, probe};
use holdfast_model::{ClusterId, DriveId, NodeId, config::DriveSelection};
use holdfast_ring::DeviceError;

/// A node that was killed is gone before its drives are free: the kernel takes its rings apart
/// afterwards, in its own time, and only then lets go of their files.
const FREE_WITHIN: Duration = Duration::from_secs(30);
const FREE_POLL: Duration = Duration::from_millis(100);

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
        match open_when_free(&path, cluster, node, options) {
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

/// Opens a drive, waiting a while when it is still in use.
fn open_when_free(path: &Path, cluster: ClusterId, node: NodeId, options: &DriveOptions) -> Result<Drive> {
    let begun = Instant::now();
    loop {
        match open_drive(path, cluster, node, options) {
            Err(error) if is_busy(&error) && begun.elapsed() < FREE_WITHIN => thread::sleep(FREE_POLL),
            outcome => return outcome,
        }
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    let device = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(ProbeError::Device(device)), _) | (_, Some(OpenError::Device(device))) => device,
        _ => return false,
    };
    matches!(device, DeviceError::Busy { .. })
}

fn open_drive(path: &Path, cluster: ClusterId, node: NodeId, options: &DriveOptions) -> Result<Drive> {
    match probe(path).context("probing")? {
        Probe::Blank => {
            let params = FormatParams { cluster, drive: DriveId::from_bytes(random_array()), node };
            let id = format(path, &params).context("formatting")?;
            tracing::info!(path = %path.display(), drive = %id, "blank drive formatted");
        }
        other => refuse_strange(&other, cluster)?,
    }
    let (drive, report) = Drive::open(path, cluster, options.clone()).context("opening")?;
    tracing::info!(path = %path.display(), drive = %drive.id(), ?report, "drive open");
    Ok(drive)
}

fn refuse_strange(probe: &Probe, cluster: ClusterId) -> Result<()> {
    match probe {
        Probe::Blank => anyhow::bail!("it is blank"),
        Probe::Ours(identity) if identity.cluster != cluster => {
            anyhow::bail!("it belongs to cluster {}, this node to {cluster}", identity.cluster)
        }
        Probe::Ours(_) => Ok(()),
        Probe::Foreign { what } => anyhow::bail!("it holds {what}; wipe it first if it is to be used here"),
        Probe::Damaged { what } => anyhow::bail!("its label is damaged: {what}"),
    }
}

/// Opens a drive that belongs to `cluster` already; formats nothing. Blocking.
///
/// # Errors
/// When it is blank, another cluster's or damaged, or does not open.
pub fn open_existing(path: &Path, cluster: ClusterId, options: &DriveOptions) -> Result<Drive> {
    refuse_strange(&probe(path).context("probing")?, cluster)?;
    Ok(Drive::open(path, cluster, options.clone()).context("opening")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_in_use_is_told_from_one_that_is_broken() {
        let busy = || DeviceError::Busy { path: "d1".into() };
        assert!(is_busy(&anyhow::Error::new(ProbeError::Device(busy())).context("probing")));
        assert!(is_busy(&anyhow::Error::new(OpenError::Device(busy())).context("opening")));
        let absent = DeviceError::Open { path: "d1".into(), source: std::io::ErrorKind::NotFound.into() };
        assert!(!is_busy(&anyhow::Error::new(OpenError::Device(absent)).context("opening")));
    }
}
