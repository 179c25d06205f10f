//! `disk.img`: a sparse file with a GUID partition table, ESP, META and STATE.
//!
//! STATE is an ext4 file system made by `mke2fs` on a plain file, with everything that it would draw at
//! random or read from the clock given to it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
};

use holdfast_image_layout::{
    Extent,
    fat::Volume,
    gpt::{Disk, Request},
    names,
};

use crate::{
    PartitionSizes,
    error::{ImageError, io, run},
    output::{Artifact, Directory},
    sparse,
};

/// Two records of 1 MiB: the boot slots, written alternately.
const META_SIZE: u64 = 2 << 20;
const ESP_VOLUME_ID: u32 = 0x484f_4c44;
/// Seed of ext4's directory hashes. It need not be secret: only the node itself names files there.
const HASH_SEED: &str = "4c9be2a1-77d3-4f0e-9a35-0d8e5b1f7aff";
/// 2020-01-01 00:00:00 UTC: the time mke2fs is told. Any constant serves.
const FIXED_TIME: &str = "1577836800";

/// Writes the disk image.
pub fn build(
    output: &Directory,
    name: &'static str,
    uki: &[u8],
    sizes: PartitionSizes,
) -> Result<Artifact, ImageError> {
    let request = |name, kind, id, size| Request { name, kind, id, size };
    let disk = Disk::plan(
        names::DISK_ID,
        &[
            request(names::PARTITION_ESP, names::TYPE_ESP, names::ESP_ID, sizes.esp),
            request(names::PARTITION_META, names::TYPE_META, names::META_ID, META_SIZE),
            request(names::PARTITION_STATE, names::TYPE_STATE, names::STATE_ID, sizes.state),
        ],
    )?;
    let [esp, _, state] = &disk.partitions[..] else { unreachable!("three partitions were requested") };
    let volume = Volume {
        label: "HOLDFAST",
        id: ESP_VOLUME_ID,
        size: esp.size(),
        hidden_sectors: u32::try_from(esp.first_lba).expect("the ESP is the first partition"),
        files: &[(names::UKI_PATH_ON_ESP, uki)],
    };

    output.write_with(name, |path| {
        let file = File::create(path).map_err(io("create", path))?;
        file.set_len(disk.sectors * holdfast_image_layout::gpt::SECTOR_SIZE).map_err(io("size", path))?;
        write_extents(&file, 0, &disk.encode()).map_err(io("write", path))?;
        write_extents(&file, esp.offset(), &volume.encode()?).map_err(io("write", path))?;
        let scratch =
            tempfile::NamedTempFile::new_in(output.path()).map_err(io("create a file in", output.path()))?;
        make_state(scratch.path(), state.size())?;
        sparse::copy_into(scratch.as_file(), &file, state.offset())
            .map_err(io("copy the state file system to", path))
    })
}

fn write_extents(file: &File, base: u64, extents: &[Extent]) -> std::io::Result<()> {
    extents.iter().try_for_each(|extent| file.write_all_at(&extent.bytes, base + extent.offset))
}

/// An empty ext4 file system of `size` bytes.
fn make_state(path: &Path, size: u64) -> Result<(), ImageError> {
    fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_len(size))
        .map_err(io("size", path))?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs
        .env("E2FSPROGS_FAKE_TIME", FIXED_TIME)
        .env("MKE2FS_CONFIG", "/dev/null")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "65536", "-m", "1", "-L", "holdfast-state"])
        .args(["-O", "has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize,ext_attr,dir_index,filetype,sparse_super,large_file"])
        .args(["-J", "size=64"])
        .args(["-U", &names::STATE_ID.to_string()])
        // A file starts out as zeros: nothing of the inode tables or the journal needs writing.
        .args(["-E", &format!("hash_seed={HASH_SEED},lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1,nodiscard,root_owner=0:0")])
        .arg(path);
    run(&mut mke2fs, "mke2fs", "e2fsprogs", None)?;
    Ok(())
}
