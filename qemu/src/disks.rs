//! The disks of a machine: sparse files that survive its deaths.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use holdfast_fault::FaultDisk;
use holdfast_image::sparse::{self, Part};
use holdfast_model::limits::SECTOR_SIZE;
use serde::{Deserialize, Serialize};

use crate::{
    error::{HarnessError, io_error},
    spec::{Boot, ClusterSpec, NodeSpec},
};

const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// Rot comes in pieces of this size.
const ROT_BLOCK: u64 = 4096;

/// Files of one machine.
#[derive(Debug, Clone)]
pub struct Disks {
    /// System disk.
    pub system: PathBuf,
    /// Data drives that are files, in order.
    pub data: Vec<PathBuf>,
    /// Firmware code and this machine's firmware variables.
    pub firmware: Option<(PathBuf, PathBuf)>,
}

impl Disks {
    /// Where the files of a machine are.
    pub fn of(spec: &ClusterSpec, node: &NodeSpec) -> Self {
        let dir = spec.dir.join(&node.name);
        let firmware = match spec.boot {
            Boot::Pvh => None,
            Boot::Ovmf => Some((PathBuf::from(OVMF_CODE), dir.join("firmware-variables.fd"))),
        };
        let names = node.drive_names();
        // Drives with a volatile cache are in memory.
        let files = names.iter().filter(|_| node.volatile.is_none());
        let data = files.map(|name| dir.join(format!("{name}.img"))).collect();
        Self { system: dir.join("system.img"), data, firmware }
    }

    /// Creates what is not there yet.
    ///
    /// # Errors
    /// `Io`, `NoFirmware`.
    pub fn prepare(&self, image: &Path, drive_size: u64) -> Result<(), HarnessError> {
        if !self.system.exists() {
            // The copy gets its name when it is whole: a half-copied disk must not be taken for one.
            let partial = self.system.with_extension("partial");
            sparse::copy_file(image, &partial).map_err(io_error("copy the disk image to", &partial))?;
            fs::rename(&partial, &self.system).map_err(io_error("rename to", &self.system))?;
        }
        for drive in &self.data {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(drive);
            let file = file.map_err(io_error("create", drive))?;
            let length = file.metadata().map_err(io_error("inspect", drive))?.len();
            if length < drive_size {
                file.set_len(drive_size).map_err(io_error("size", drive))?;
            }
        }
        if let Some((code, variables)) = &self.firmware {
            if !code.is_file() {
                return Err(HarnessError::NoFirmware(code.clone()));
            }
            if !variables.exists() {
                fs::copy(OVMF_VARIABLES, variables)
                    .map_err(io_error("copy the firmware variables to", variables))?;
            }
        }
        Ok(())
    }
}

/// What was done to a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorruptedDrive {
    /// Blocks of 4 KiB that held something.
    pub blocks_used: u64,
    /// Blocks in which one byte was changed.
    pub blocks_changed: u64,
}

/// Changes one byte in each of up to `blocks_max` blocks that hold something, spread evenly over them:
/// silent rot, as a drive does it.
///
/// # Errors
/// Those of reading and writing.
pub fn corrupt(path: &Path, blocks_max: u64) -> io::Result<CorruptedDrive> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut used = Vec::new();
    sparse::for_each_part(&file, |part| {
        if let Part::Data { offset, bytes } = part {
            for (index, block) in bytes.chunks(ROT_BLOCK as usize).enumerate() {
                if block.iter().any(|&byte| byte != 0) {
                    used.push(offset + index as u64 * ROT_BLOCK);
                }
            }
        }
        Ok(())
    })?;
    let blocks_used = used.len() as u64;
    let blocks_changed = blocks_used.min(blocks_max);
    for index in 0..blocks_changed {
        let block = usize::try_from(index * blocks_used / blocks_changed).expect("an index of `used`");
        flip(&file, used[block] + ROT_BLOCK / 2)?;
    }
    file.sync_data()?;
    Ok(CorruptedDrive { blocks_used, blocks_changed })
}

/// The same for a drive in memory.
pub fn corrupt_volatile(disk: &FaultDisk, blocks_max: u64) -> CorruptedDrive {
    let used = disk.used();
    let blocks_used = used.len() as u64;
    let blocks_changed = blocks_used.min(blocks_max);
    for index in 0..blocks_changed {
        let block = usize::try_from(index * blocks_used / blocks_changed).expect("an index of `used`");
        disk.rot(used[block] + ROT_BLOCK / 2, 0x55);
    }
    CorruptedDrive { blocks_used, blocks_changed }
}

/// Writes what a drive in memory holds to a new file.
///
/// # Errors
/// Those of writing.
pub fn dump(disk: &FaultDisk, path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.set_len(disk.capacity().get())?;
    for offset in disk.used() {
        file.write_all_at(&disk.peek(offset, SECTOR_SIZE), offset)?;
    }
    Ok(())
}

fn flip(file: &File, offset: u64) -> io::Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0x55], offset)
}

#[cfg(test)]
mod tests {
    use holdfast_model::ByteCount;

    use super::*;

    #[test]
    fn rot_hits_used_blocks_only_and_always_changes_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drive");
        let file = File::create(&path).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(&[1; 40 << 10], 8 << 20).unwrap();
        let before = fs::read(&path).unwrap();
        assert_eq!(corrupt(&path, 4).unwrap(), CorruptedDrive { blocks_used: 10, blocks_changed: 4 });
        let after = fs::read(&path).unwrap();
        let changed: Vec<usize> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
        assert_eq!(changed.len(), 4);
        assert!(changed.iter().all(|at| ((8 << 20)..(8 << 20) + (40 << 10)).contains(at)));
        assert_eq!(corrupt(&path, 1000).unwrap().blocks_changed, 10);
    }

    #[test]
    fn a_drive_in_memory_is_put_back_and_dumped() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), FaultDisk::new(ByteCount::mib(1)));
        disk.poke(8192, &[1; SECTOR_SIZE]);
        let copy = disk.copy();
        disk.poke(8192, &[2; SECTOR_SIZE]);
        disk.poke(65536, &[3; SECTOR_SIZE]);
        disk.put_back(&copy);
        let path = dir.path().join("drive");
        dump(&disk, &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 1 << 20);
        assert!(bytes[8192..8192 + SECTOR_SIZE].iter().all(|byte| *byte == 1));
        assert_eq!(bytes.iter().filter(|byte| **byte != 0).count(), SECTOR_SIZE);
        assert!(dump(&disk, &path).is_err(), "not over another file");
    }

    #[test]
    fn an_untouched_drive_has_nothing_to_rot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drive");
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        assert_eq!(corrupt(&path, 4).unwrap().blocks_changed, 0);
    }
}
