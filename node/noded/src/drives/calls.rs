//! What is told of devices, and what operators ask of them.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, bail};
use holdfast_model::UnixMillis;
use holdfast_store::{DeviceReport, DeviceStanding};

use super::keeper::{Keeper, Seen, Standing};

impl Keeper {
    /// Devices that are no drives of the cluster, or not yet, in the order of their paths.
    pub fn devices(&self) -> Vec<DeviceReport> {
        let seen = self.seen.lock();
        let report = |seen: &Seen| {
            let (standing, reason, drive) = match &seen.standing {
                Standing::New | Standing::Open(_) => return None,
                Standing::Waiting => (DeviceStanding::Waiting, String::new(), None),
                Standing::Adopting => (DeviceStanding::Adopting, String::new(), None),
                Standing::Refused(refused) => (refused.standing, refused.reason.clone(), refused.drive),
            };
            Some(DeviceReport {
                serial: seen.device.serial.clone(),
                path: seen.device.path.display().to_string(),
                size_bytes: seen.device.size.get(),
                standing,
                reason,
                drive,
                locate_until: self.locator.until(&seen.device.path),
            })
        };
        seen.values().filter_map(report).collect()
    }

    /// Serial number of the device at `path`, and until when it blinks.
    pub fn about(&self, path: &Path) -> (String, Option<UnixMillis>) {
        let serial = self.seen.lock().get(path).map(|seen| seen.device.serial.clone());
        (serial.unwrap_or_default(), self.locator.until(path))
    }

    /// Has a device made a drive. Answers when that has begun; the list of devices shows what becomes of it.
    ///
    /// # Errors
    /// When there is no such device, it is one already, or it is not blank and `erase` does not name it.
    pub fn adopt(self: &Arc<Self>, device: &str, erase: Option<&str>) -> Result<()> {
        let found = self.find(device)?;
        let erased = match &found.standing {
            Standing::Open(drive) => bail!("{device} is drive {drive} of the cluster already"),
            Standing::Adopting => bail!("{device} is being adopted already"),
            Standing::New => bail!("{device} has not been looked at yet; try again"),
            Standing::Waiting => false,
            Standing::Refused(refused) if !refused.standing.is_erasable() => {
                bail!("{device}: {}", refused.reason)
            }
            Standing::Refused(_) if erase == Some(found.device.serial.as_str()) => true,
            Standing::Refused(refused) => bail!(
                "{device} is not blank: {}. Its serial number is {:?}",
                refused.reason,
                found.device.serial
            ),
        };
        self.stand(&found.device.path, Standing::Adopting);
        let (keeper, path) = (Arc::clone(self), found.device.path.display().to_string());
        tracing::warn!(target: "audit", path, serial = found.device.serial, erased, "device is adopted");
        tokio::spawn(async move { keeper.adopt_now(&found.device, erased).await });
        Ok(())
    }

    /// Has a device blink for so many minutes, or, with 0, no longer.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn locate(&self, device: &str, minutes: u32) -> Result<()> {
        let found = self.find(device)?;
        self.locator.blink(&found.device, minutes, &self.stop);
        tracing::info!(path = %found.device.path.display(), serial = found.device.serial, minutes, "locating a drive");
        Ok(())
    }

    /// The device of that path, serial number, or drive.
    fn find(&self, device: &str) -> Result<Seen> {
        let seen = self.seen.lock();
        let is = |seen: &&Seen| {
            let drive = match &seen.standing {
                Standing::Open(drive) => Some(*drive),
                _ => None,
            };
            seen.device.serial == device
                || seen.device.path.as_os_str() == device
                || drive.is_some_and(|drive| drive.to_string() == device)
        };
        let mut found = seen.values().filter(is);
        let first = found.next().with_context(|| format!("no device {device:?} on this node"))?;
        if found.next().is_some() {
            bail!("several devices on this node are called {device:?}; name the path");
        }
        Ok(first.clone())
    }
}
