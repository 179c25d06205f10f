//! Programs that keep a bucket in step with a directory, mount it, or keep backups in it, each doing an ordinary
//! day's work on the same cluster.

use std::{
    fs::{self, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::{Result, ensure};
use holdfast_blackbox::{
    clients::{Access, Boto3, Duplicity, S3cmd, S3fs, TreeClient},
    dev::{DevCluster, DevSpec},
    tree,
};
use holdfast_model::ByteCount;

const FILES: usize = 120;
const FILE_SIZE_MAX: usize = 40_000;
/// Several parts, the last one short.
const LARGE: u64 = 23_456_789;

#[tokio::test(flavor = "multi_thread")]
async fn s3cmd_syncs_both_ways_duplicity_backs_up_and_s3fs_is_a_directory() -> Result<()> {
    let mut spec = DevSpec::for_test("programs", 3, 4)?;
    spec.drive_size = ByteCount::mib(512);
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    let scratch = spec.dir.join("scratch");
    fs::create_dir_all(&scratch)?;
    let access = |node| Access::of(cluster.file(), cluster.file().node_at(node)?, &scratch);
    syncs(&access(0)?, &scratch)?;
    backs_up(access(1)?, &scratch)?;
    if S3fs::is_possible() {
        mounts(&access(2)?, &scratch)?;
    } else {
        println!("s3fs: not run, this machine mounts nothing (no FUSE)");
    }
    fs::remove_dir_all(&scratch)?;
    Ok(())
}

/// Files in directories, with names that have to be escaped.
fn plant(root: &Path) -> Result<()> {
    for number in 0..FILES {
        let directory = root.join(format!("d {}", number % 7));
        fs::create_dir_all(&directory)?;
        let size = number * 7919 % FILE_SIZE_MAX;
        fs::write(directory.join(format!("f+{number} é.eml")), tree::noise(number as u64, size))?;
    }
    tree::write_noise(&root.join("large"), 1, LARGE)
}

/// Some files change, some go, some come.
fn change(root: &Path) -> Result<()> {
    for path in tree::list(root)?.into_iter().step_by(5) {
        fs::remove_file(root.join(path))?;
    }
    for (number, path) in tree::list(root)?.into_iter().step_by(4).enumerate() {
        fs::write(root.join(path), tree::noise(1000 + number as u64, 100 + number))?;
    }
    fs::write(root.join("new"), "new")?;
    Ok(())
}

fn syncs(access: &Access, scratch: &Path) -> Result<()> {
    let (here, back) = (scratch.join("sync"), scratch.join("sync-back"));
    plant(&here)?;
    fs::create_dir_all(&back)?;
    let s3cmd = S3cmd::new(access, scratch)?;
    s3cmd.make_bucket("synced")?;
    s3cmd.sync_in(&here, "synced", "tree")?;
    s3cmd.sync_out("synced", "tree", &back)?;
    tree::assert_same(&here, &back)?;
    change(&here)?;
    s3cmd.sync_in(&here, "synced", "tree")?;
    s3cmd.sync_out("synced", "tree", &back)?;
    let (files, bytes) = tree::assert_same(&here, &back)?;
    ensure!(s3cmd.list("synced", "tree")?.len() == files, "what was deleted is still listed");
    println!("s3cmd: {files} files, {bytes} bytes in step, both ways");
    Ok(())
}

fn backs_up(access: Access, scratch: &Path) -> Result<()> {
    let (source, back) = (scratch.join("backed-up"), scratch.join("restored"));
    plant(&source)?;
    Boto3::new(access.clone()).make_bucket("duplicity")?;
    let duplicity = Duplicity::new(access, "duplicity");
    duplicity.back_up_all(&source)?;
    duplicity.verify(&source)?;
    change(&source)?;
    ensure!(duplicity.verify(&source).is_err(), "a backup of before is as the files are now");
    duplicity.back_up_changes(&source)?;
    duplicity.verify(&source)?;
    duplicity.back_up_all(&source)?;
    duplicity.keep_last()?;
    duplicity.restore(&back)?;
    let (files, bytes) = tree::assert_same(&source, &back)?;
    println!("duplicity: {files} files, {bytes} bytes backed up twice, changed, verified and restored");
    Ok(())
}

fn mounts(access: &Access, scratch: &Path) -> Result<()> {
    let (source, at) = (scratch.join("mounted"), scratch.join("mount"));
    plant(&source)?;
    fs::create_dir_all(&at)?;
    Boto3::new(access.clone()).make_bucket("mounted")?;
    let mount = S3fs::mount(access, "mounted", &at)?;
    for path in tree::list(&source)? {
        let to = at.join(&path);
        fs::create_dir_all(to.parent().unwrap_or(&at))?;
        fs::copy(source.join(&path), to)?;
    }
    tree::assert_same(&source, &at)?;
    for root in [&source, &at] {
        work_in(root)?;
    }
    mount.unmount()?;
    // Nothing of before is in its memory.
    let mount = S3fs::mount(access, "mounted", &at)?;
    let (files, bytes) = tree::assert_same(&source, &at)?;
    mount.unmount()?;
    println!("s3fs: {files} files, {bytes} bytes written, changed in place, and read after mounting again");
    Ok(())
}

/// What programs do to files: write in the middle, append, shorten, rename, delete.
fn work_in(root: &Path) -> Result<()> {
    let large = root.join("large");
    let mut file = OpenOptions::new().read(true).write(true).open(&large)?;
    file.seek(SeekFrom::Start(LARGE / 2))?;
    file.write_all(&tree::noise(2, 70_000))?;
    file.sync_all()?;
    drop(file);
    let mut file = OpenOptions::new().append(true).open(&large)?;
    file.write_all(&tree::noise(3, 1_234_567))?;
    drop(file);
    fs::rename(&large, root.join("larger"))?;
    fs::rename(root.join("d 1"), root.join("renamed"))?;
    OpenOptions::new().write(true).open(root.join("d 2").join("f+2 é.eml"))?.set_len(1000)?;
    fs::remove_dir_all(root.join("d 3"))?;
    Ok(())
}
