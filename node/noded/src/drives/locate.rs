//! Makes the light of a drive blink, so that the right one is pulled.
//!
//! By the light of its slot, when the enclosure has one that Linux can switch. Otherwise by reading it in a
//! rhythm, half a second on and half a second off, which the activity lights of most drives show. The reads
//! are few and small: at most [`BLINK_READS`] of [`READ_SIZE`] bytes each second, 1 MiB/s.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use holdfast_appliance::SYS;
use holdfast_model::UnixMillis;
use nix::fcntl::OFlag;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::source::Device;
use crate::control::now;

/// The longest time a light blinks, in minutes: by then somebody has found it or gone home.
pub const LOCATE_MINUTES_MAX: u32 = 24 * 60;

/// Length of one read, and what it is aligned to, in bytes.
const READ_SIZE: usize = 64 * 1024;

/// Reads of one blink.
const BLINK_READS: u64 = 16;

/// Time between two reads of a blink.
const READ_INTERVAL: Duration = Duration::from_millis(31);

/// Time between two blinks.
const DARK: Duration = Duration::from_millis(500);

const MINUTE_MILLIS: u64 = 60_000;

#[derive(Debug)]
struct Blinking {
    until: UnixMillis,
    stop: CancellationToken,
}

/// Which devices blink, and until when.
#[derive(Debug, Default)]
pub struct Locator(Mutex<BTreeMap<PathBuf, Blinking>>);

impl Locator {
    /// Until when the device at `path` blinks, if it does.
    pub fn until(&self, path: &Path) -> Option<UnixMillis> {
        self.0.lock().get(path).map(|blinking| blinking.until).filter(|until| *until > now())
    }

    /// Has a device blink for so many minutes from now, or, with 0, no longer.
    pub fn blink(self: &Arc<Self>, device: &Device, minutes: u32, ended: &CancellationToken) {
        let minutes = minutes.min(LOCATE_MINUTES_MAX);
        let mut blinking = self.0.lock();
        if let Some(before) = blinking.remove(&device.path) {
            before.stop.cancel();
        }
        if minutes == 0 {
            return;
        }
        let until = UnixMillis::new(now().get() + u64::from(minutes) * MINUTE_MILLIS);
        let stop = ended.child_token();
        blinking.insert(device.path.clone(), Blinking { until, stop: stop.clone() });
        let (locator, path, size) = (Arc::clone(self), device.path.clone(), device.size.get());
        tokio::spawn(async move {
            let light = holdfast_appliance::locate_light(Path::new(SYS), &path);
            let lasts = Duration::from_millis(u64::from(minutes) * MINUTE_MILLIS);
            let blinked = async {
                match light {
                    Some(light) => shine(&light, lasts, &stop).await,
                    None => read_in_a_rhythm(&path, size, lasts, &stop).await,
                }
            };
            if let Err(error) = blinked.await {
                tracing::warn!(path = %path.display(), %error, "the drive cannot be made to blink");
            }
            let mut blinking = locator.0.lock();
            // Another call may have begun to blink it anew.
            if blinking.get(&path).is_some_and(|known| known.until == until) {
                blinking.remove(&path);
            }
        });
    }
}

async fn shine(light: &Path, lasts: Duration, stop: &CancellationToken) -> io::Result<()> {
    fs::write(light, "1")?;
    let _ = tokio::time::timeout(lasts, stop.cancelled()).await;
    fs::write(light, "0")
}

async fn read_in_a_rhythm(
    path: &Path,
    size: u64,
    lasts: Duration,
    stop: &CancellationToken,
) -> io::Result<()> {
    let pieces = (size / READ_SIZE as u64).max(1);
    let mut next = 0;
    let blinking = async {
        loop {
            let (path, from) = (path.to_owned(), next);
            tokio::task::spawn_blocking(move || blink_once(&path, from, pieces))
                .await
                .map_err(io::Error::other)??;
            next = (next + BLINK_READS) % pieces;
            tokio::time::sleep(DARK).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = tokio::time::timeout(lasts, blinking) => ended.unwrap_or(Ok(())),
    }
}

/// Reads a few pieces past the page cache, which would answer without the drive.
fn blink_once(path: &Path, from: u64, pieces: u64) -> io::Result<()> {
    let direct = OFlag::O_DIRECT.bits() | OFlag::O_CLOEXEC.bits();
    let file = OpenOptions::new().read(true).custom_flags(direct).open(path)?;
    let mut memory = vec![0; 2 * READ_SIZE];
    let start = memory.as_ptr().align_offset(READ_SIZE).min(READ_SIZE);
    for piece in from..from + BLINK_READS {
        file.read_at(&mut memory[start..start + READ_SIZE], piece % pieces * READ_SIZE as u64)?;
        std::thread::sleep(READ_INTERVAL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use holdfast_model::ByteCount;

    use super::*;

    fn device(dir: &Path) -> Device {
        let path = dir.join("d1");
        fs::write(&path, vec![0; 4 * READ_SIZE]).unwrap();
        Device { serial: "d1".into(), path, size: ByteCount::new(4 * READ_SIZE as u64), token: (1, 1) }
    }

    #[tokio::test]
    async fn a_device_blinks_until_it_is_told_to_stop() {
        let dir = tempfile::tempdir_in(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")).unwrap();
        let (device, locator, ended) =
            (device(dir.path()), Arc::new(Locator::default()), CancellationToken::new());
        assert_eq!(locator.until(&device.path), None);
        locator.blink(&device, 5, &ended);
        let left = locator.until(&device.path).unwrap().get() - now().get();
        assert!((4 * MINUTE_MILLIS..=5 * MINUTE_MILLIS).contains(&left), "{left} ms");
        locator.blink(&device, 0, &ended);
        assert_eq!(locator.until(&device.path), None);
        blink_once(&device.path, 3, 4).unwrap();
    }
}
