//! Which devices are there: named ones, files in a directory, or whole block devices of the appliance.
//!
//! Looked at again and again, for the same reason on all of them: an announcement can be lost, and a look costs
//! a directory.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use holdfast_appliance::SYS;
use holdfast_model::{ByteCount, config::DriveSelection};

/// A device that is a drive, or may become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Printed on it, or its place. A file's is its name.
    pub serial: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub size: ByteCount,
    /// Differs from that of any other device that was, or will be, at the same path.
    pub token: (u64, u64),
}

/// Devices that are there now, in a stable order.
pub fn devices(selection: &DriveSelection) -> Vec<Device> {
    match selection {
        DriveSelection::Paths(paths) => paths.iter().filter_map(|path| named(path)).collect(),
        DriveSelection::Directory(directory) => {
            let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
            let mut paths: Vec<PathBuf> = entries
                .filter_map(|entry| Some(entry.ok()?.path()))
                .filter(|path| !is_hidden(path))
                .collect();
            paths.sort();
            paths.iter().filter_map(|path| named(path)).collect()
        }
        DriveSelection::AllBlank => {
            let drives = holdfast_appliance::inspect_devices(Path::new(SYS)).into_iter();
            drives
                .map(|drive| Device {
                    serial: drive.serial,
                    path: drive.path,
                    size: ByteCount::new(drive.size),
                    token: (drive.sequence, drive.size),
                })
                .collect()
        }
    }
}

/// A file that is being copied there has a dot in front until it is whole.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
}

fn named(path: &Path) -> Option<Device> {
    let found = fs::metadata(path).ok()?;
    let block = found.file_type().is_block_device();
    if !block && !found.is_file() {
        return None;
    }
    Some(Device {
        serial: path.file_name()?.to_string_lossy().into_owned(),
        path: path.to_owned(),
        // A block device tells its size only when it is opened; nobody is asked to approve of a named one.
        size: ByteCount::new(if block { 0 } else { found.len() }),
        token: if block { (found.rdev(), 0) } else { (found.ino(), found.dev()) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go_and_another_file_under_the_same_name_is_another_device() {
        let dir = tempfile::tempdir().unwrap();
        let selection = DriveSelection::Directory(dir.path().to_owned());
        assert!(devices(&selection).is_empty());
        fs::write(dir.path().join("d2"), [0; 10]).unwrap();
        fs::write(dir.path().join("d1"), [0; 20]).unwrap();
        fs::write(dir.path().join(".d3"), []).unwrap();
        fs::create_dir(dir.path().join("d4")).unwrap();
        let first = devices(&selection);
        let seen: Vec<_> = first.iter().map(|device| (device.serial.as_str(), device.size.get())).collect();
        assert_eq!(seen, [("d1", 20), ("d2", 10)]);
        assert_eq!(devices(&selection), first);
        fs::write(dir.path().join(".other"), [0; 20]).unwrap();
        fs::rename(dir.path().join(".other"), dir.path().join("d1")).unwrap();
        let then = devices(&selection);
        assert_ne!(then[0].token, first[0].token);
        assert_eq!(then[1], first[1]);
        let named = DriveSelection::Paths(vec![dir.path().join("gone"), dir.path().join("d2")]);
        assert_eq!(devices(&named), [first[1].clone()]);
    }
}
