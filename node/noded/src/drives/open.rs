//! Opening, formatting and erasing devices. All of it blocks.

use std::{path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail};
use holdfast_crypt::random_array;
use holdfast_drive::{
    Drive, DriveOptions, FormatDriveError, FormatParams, OpenError, Probe, ProbeError, erase, format, probe,
};
use holdfast_model::{ClusterId, DriveId, NodeId};
use holdfast_ring::DeviceError;

/// A node that was killed is gone before its drives are free: the kernel takes its rings apart
/// afterwards, in its own time, and only then lets go of their files.
pub const FREE_WITHIN: Duration = Duration::from_secs(30);
const FREE_POLL: Duration = Duration::from_millis(100);

/// Does something with a device, again and again while it is still in use, for at most `patience`.
///
/// # Errors
/// What `attempt` says last.
pub fn when_free<T>(patience: Duration, attempt: impl Fn() -> Result<T>) -> Result<T> {
    let begun = std::time::Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && begun.elapsed() < patience => thread::sleep(FREE_POLL),
            outcome => return outcome,
        }
    }
}

/// Whether a device could not be used because someone has it open.
pub fn is_busy(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let device = cause.downcast_ref::<DeviceError>();
        let probing = cause.downcast_ref::<ProbeError>().and_then(|error| match error {
            ProbeError::Device(device) => Some(device),
            ProbeError::Read { .. } => None,
        });
        let opening = cause.downcast_ref::<OpenError>().and_then(|error| match error {
            OpenError::Device(device) => Some(device),
            _ => None,
        });
        let formatting = cause.downcast_ref::<FormatDriveError>().and_then(|error| match error {
            FormatDriveError::Probe(ProbeError::Device(device)) => Some(device),
            _ => None,
        });
        let device = device.or(probing).or(opening).or(formatting);
        matches!(device, Some(DeviceError::Busy { .. }))
    })
}

/// What is on a device.
///
/// # Errors
/// When it cannot be read, or someone has it open.
pub fn look(path: &Path) -> Result<Probe> {
    probe(path).context("probing")
}

/// Opens a drive that has been judged.
///
/// # Errors
/// When it does not open.
pub fn open(path: &Path, cluster: ClusterId, options: &DriveOptions) -> Result<Drive> {
    let (drive, report) = Drive::open(path, cluster, options.clone()).context("opening")?;
    tracing::info!(path = %path.display(), drive = %drive.id(), ?report, "drive open");
    Ok(drive)
}

/// Makes a drive of a blank device and opens it. `erased`: what is on it goes first.
///
/// # Errors
/// When it holds something and is not to be erased, or cannot be written.
pub fn adopt(
    path: &Path,
    cluster: ClusterId,
    node: NodeId,
    erased: bool,
    options: &DriveOptions,
) -> Result<Drive> {
    if erased {
        erase(path).context("erasing")?;
    }
    let params = FormatParams { cluster, drive: DriveId::from_bytes(random_array()), node };
    let id = format(path, &params).context("formatting")?;
    tracing::info!(path = %path.display(), drive = %id, erased, "device formatted");
    // What formatted it lets go of it in the kernel's own time.
    when_free(FREE_WITHIN, || open(path, cluster, options))
}

/// Opens a drive that belongs to `cluster` already; formats nothing.
///
/// # Errors
/// When it is blank, another cluster's or damaged, or does not open.
pub fn open_existing(path: &Path, cluster: ClusterId, options: &DriveOptions) -> Result<Drive> {
    match probe(path).context("probing")? {
        Probe::Blank => bail!("it is blank"),
        Probe::Ours(identity) if identity.cluster != cluster => {
            bail!("it belongs to cluster {}, this node to {cluster}", identity.cluster)
        }
        Probe::Ours(_) => Ok(Drive::open(path, cluster, options.clone()).context("opening")?.0),
        Probe::Foreign { what } => bail!("it holds {what}; wipe it first if it is to be used here"),
        Probe::Damaged { what } => bail!("its label is damaged: {what}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_in_use_is_told_from_one_that_is_broken() {
        let busy = || DeviceError::Busy { path: "d1".into() };
        assert!(is_busy(&anyhow::Error::new(ProbeError::Device(busy())).context("probing")));
        assert!(is_busy(&anyhow::Error::new(OpenError::Device(busy())).context("opening")));
        let formatting = FormatDriveError::Probe(ProbeError::Device(busy()));
        assert!(is_busy(&anyhow::Error::new(formatting).context("formatting")));
        let absent = DeviceError::Open { path: "d1".into(), source: std::io::ErrorKind::NotFound.into() };
        assert!(!is_busy(&anyhow::Error::new(OpenError::Device(absent)).context("opening")));
    }
}
