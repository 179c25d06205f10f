//! Block devices, as sysfs shows them: where STATE is, and which drives are for data.
//!
//! Devices are known by what is on them and by their serial number, never by `vda` or `sdb`: kernel
//! names change with slots and probing order.

use std::{
    fs,
    path::{Path, PathBuf},
};

use holdfast_image_layout::names::{PARTITION_ESP, PARTITION_META, PARTITION_STATE};

/// Partitions of the system disk.
const OUR_PARTITIONS: [&str; 3] = [PARTITION_ESP, PARTITION_META, PARTITION_STATE];

/// Root of sysfs.
pub const SYS: &str = "/sys";

/// Kernel names of devices that are never drives of ours.
const NOT_DRIVES: &[&str] = &["loop", "ram", "zram", "fd", "sr", "dm-", "md", "nbd", "mtdblock"];

/// A whole block device that may hold data.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DataDrive {
    /// Serial number or, without one, the device's place on its bus. Sorts first: the order is stable.
    pub serial: String,
    /// Device node.
    pub path: PathBuf,
    /// Capacity in bytes.
    pub size: u64,
    /// Counts devices that came up since the machine started: one that was pulled and put back, or replaced by
    /// another under the same kernel name, has a new one.
    pub sequence: u64,
    /// It has a partition table, and none of its partitions is ours: it belongs to someone.
    pub partitioned: bool,
}

/// Whole block devices for data, in the stable order of their serial numbers.
///
/// Left out: the disk that holds STATE or another partition of ours, every disk with a partition table
/// (it belongs to someone), devices in use by another (device mapper, md), read-only and empty ones,
/// loop devices, RAM disks, floppies and optical drives. What is on a drive is not looked at: `drive`
/// decides from the label whether it is blank, ours, or foreign.
pub fn data_drives() -> Vec<PathBuf> {
    inspect_data_drives(Path::new(SYS)).into_iter().map(|drive| drive.path).collect()
}

/// As `data_drives`, with serial numbers and sizes, from the sysfs at `sys`.
pub fn inspect_data_drives(sys: &Path) -> Vec<DataDrive> {
    inspect_devices(sys).into_iter().filter(|drive| !drive.partitioned).collect()
}

/// As `inspect_data_drives`, and those with someone's partitions too, so that they can be shown.
pub fn inspect_devices(sys: &Path) -> Vec<DataDrive> {
    let mut drives: Vec<DataDrive> = devices(sys).iter().filter_map(|device| data_drive(device)).collect();
    drives.sort();
    drives
}

/// The file that switches the light of the slot in which the device at `path` sits, when its enclosure has one.
pub fn locate_light(sys: &Path, path: &Path) -> Option<PathBuf> {
    let name = path.strip_prefix("/dev").ok()?.to_str()?.replace('/', "!");
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    entries(&sys.join("class/enclosure"))
        .flat_map(|enclosure| entries(&enclosure.path()).map(|slot| slot.path()))
        .find(|slot| slot.join("locate").exists() && slot.join("device/block").join(&name).exists())
        .map(|slot| slot.join("locate"))
}

/// Device nodes of the partitions with a GPT name; more than one means that two system disks are attached.
pub fn partitions_named(sys: &Path, wanted: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = devices(sys)
        .iter()
        .filter(|device| partition_name(device).as_deref() == Some(wanted))
        .map(|device| node(device))
        .collect();
    found.sort();
    found
}

fn devices(sys: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(sys.join("class/block")) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn data_drive(device: &Path) -> Option<DataDrive> {
    let name = device.file_name()?.to_str()?;
    let excluded = NOT_DRIVES.iter().any(|prefix| name.starts_with(prefix))
        || device.join("partition").exists()
        || attribute(device, "ro").as_deref() != Some("0")
        || fs::read_dir(device.join("holders")).is_ok_and(|mut holders| holders.next().is_some());
    let partitions = partitions(device);
    let system = partitions.iter().any(|name| OUR_PARTITIONS.contains(&name.as_str()));
    let size = attribute(device, "size")?.parse::<u64>().ok()?.checked_mul(512)?;
    if excluded || system || size == 0 {
        return None;
    }
    Some(DataDrive {
        serial: serial(device),
        path: node(device),
        size,
        sequence: attribute(device, "diskseq").and_then(|text| text.parse().ok()).unwrap_or(0),
        partitioned: !partitions.is_empty(),
    })
}

/// Names of the partitions on a disk, empty for those without.
fn partitions(device: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(device) else { return Vec::new() };
    let entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let partitions = entries.filter(|entry| entry.join("partition").exists());
    partitions.map(|partition| partition_name(&partition).unwrap_or_default()).collect()
}

/// virtio keeps the serial number at the disk, NVMe at its controller, SCSI in the world-wide id.
fn serial(device: &Path) -> String {
    let from_attribute = ["serial", "device/serial", "device/wwid", "wwid"]
        .iter()
        .find_map(|name| attribute(device, name).filter(|value| !value.is_empty()));
    from_attribute.unwrap_or_else(|| {
        let place = fs::canonicalize(device).unwrap_or_else(|_| device.to_owned());
        place.to_string_lossy().into_owned()
    })
}

fn partition_name(device: &Path) -> Option<String> {
    let uevent = attribute(device, "uevent")?;
    uevent.lines().find_map(|line| Some(line.strip_prefix("PARTNAME=")?.to_owned()))
}

fn attribute(device: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(device.join(name)).ok()?.trim().to_owned())
}

fn node(device: &Path) -> PathBuf {
    // sysfs writes the slash of names like `cciss/c0d0` as an exclamation mark.
    let name = device.file_name().unwrap_or_default().to_string_lossy().replace('!', "/");
    Path::new("/dev").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct FakeSys(tempfile::TempDir);

    impl FakeSys {
        fn new() -> Self {
            let fake = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(fake.0.path().join("class/block")).unwrap();
            fake
        }

        fn disk(&self, name: &str, sectors: u64, serial: Option<&str>) -> PathBuf {
            let device = self.0.path().join("class/block").join(name);
            fs::create_dir_all(device.join("holders")).unwrap();
            fs::write(device.join("ro"), "0\n").unwrap();
            fs::write(device.join("size"), format!("{sectors}\n")).unwrap();
            fs::write(device.join("uevent"), format!("DEVNAME={name}\nDEVTYPE=disk\n")).unwrap();
            if let Some(serial) = serial {
                fs::write(device.join("serial"), format!("{serial}\n")).unwrap();
            }
            device
        }

        fn partition(&self, disk: &str, name: &str, label: &str) {
            let inside = self.0.path().join("class/block").join(disk).join(name);
            let device = self.0.path().join("class/block").join(name);
            for directory in [&inside, &device] {
                fs::create_dir_all(directory).unwrap();
                fs::write(directory.join("partition"), "1\n").unwrap();
                fs::write(directory.join("ro"), "0\n").unwrap();
                fs::write(directory.join("size"), "2048\n").unwrap();
                fs::write(directory.join("uevent"), format!("DEVTYPE=partition\nPARTNAME={label}\n"))
                    .unwrap();
            }
        }

        fn paths(&self) -> Vec<PathBuf> {
            inspect_data_drives(self.0.path()).into_iter().map(|drive| drive.path).collect()
        }
    }

    #[test]
    fn drives_come_in_the_order_of_their_serial_numbers() {
        let sys = FakeSys::new();
        sys.disk("vdb", 2048, Some("n1d3"));
        sys.disk("vdc", 2048, Some("n1d1"));
        sys.disk("vdd", 4096, Some("n1d2"));
        assert_eq!(sys.paths(), [Path::new("/dev/vdc"), Path::new("/dev/vdd"), Path::new("/dev/vdb")]);
        assert_eq!(inspect_data_drives(sys.0.path())[1].size, 4096 * 512);
    }

    #[test]
    fn nothing_but_whole_free_writable_disks_is_a_data_drive() {
        let sys = FakeSys::new();
        sys.disk("vdb", 2048, None);
        sys.disk("vda", 2048, None);
        sys.partition("vda", "vda3", PARTITION_STATE);
        sys.disk("sda", 2048, None);
        sys.partition("sda", "sda1", "someone's data");
        for name in ["loop0", "ram0", "fd0", "sr0", "dm-0", "md127", "zram0"] {
            sys.disk(name, 2048, None);
        }
        sys.disk("sdb", 0, None);
        fs::write(sys.disk("sdc", 2048, None).join("ro"), "1\n").unwrap();
        fs::write(sys.disk("sdd", 2048, None).join("holders/dm-0"), "").unwrap();
        assert_eq!(sys.paths(), [Path::new("/dev/vdb")]);
        // A disk of someone is shown, the system disk is not.
        let shown = inspect_devices(sys.0.path());
        let shown: Vec<_> = shown.iter().map(|drive| (drive.path.as_path(), drive.partitioned)).collect();
        assert_eq!(shown, [(Path::new("/dev/sda"), true), (Path::new("/dev/vdb"), false)]);
    }

    #[test]
    fn the_light_of_a_slot_is_found_by_the_device_in_it() {
        let sys = FakeSys::new();
        let slot = sys.0.path().join("class/enclosure/0:0:8:0/Slot 03");
        fs::create_dir_all(slot.join("device/block/sdc")).unwrap();
        assert_eq!(locate_light(sys.0.path(), Path::new("/dev/sdc")), None, "a slot without a light");
        fs::write(slot.join("locate"), "0").unwrap();
        assert_eq!(locate_light(sys.0.path(), Path::new("/dev/sdc")), Some(slot.join("locate")));
        assert_eq!(locate_light(sys.0.path(), Path::new("/dev/sdd")), None);
        assert_eq!(locate_light(sys.0.path(), Path::new("/tmp/d1")), None);
    }

    #[test]
    fn state_is_found_by_its_partition_name() {
        let sys = FakeSys::new();
        sys.disk("vda", 2048, None);
        sys.partition("vda", "vda1", PARTITION_ESP);
        sys.partition("vda", "vda3", PARTITION_STATE);
        assert_eq!(partitions_named(sys.0.path(), PARTITION_STATE), [Path::new("/dev/vda3")]);
        assert!(partitions_named(sys.0.path(), "other").is_empty());
        sys.disk("vdb", 2048, None);
        sys.partition("vdb", "vdb3", PARTITION_STATE);
        assert_eq!(partitions_named(sys.0.path(), PARTITION_STATE).len(), 2);
    }

    #[test]
    fn a_machine_without_sysfs_has_no_drives() {
        assert!(inspect_data_drives(Path::new("/nonexistent")).is_empty());
    }
}
