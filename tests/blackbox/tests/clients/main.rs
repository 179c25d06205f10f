//! Real clients copy a real tree in, list it, and copy it back, with certificates verified; then boto3 checks
//! the operations one by one on the same cluster.

mod buckets;
mod programs;

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use holdfast_blackbox::{
    clients::{Access, Boto3, Rclone, Restic, TreeClient, all, round_trip},
    dev::{DevCluster, DevSpec},
    tree,
};
use holdfast_model::ByteCount;
use tokio::time::sleep;

const FILES_MIN: usize = 3000;
/// Over 100 MB each, none a multiple of anything.
const LARGE: [u64; 3] = [100_000_001, 110_010_011, 130_000_003];

#[tokio::test(flavor = "multi_thread")]
async fn aws_rclone_s3cmd_boto3_js_and_rust_copy_a_tree_and_every_operation_is_as_documented() -> Result<()> {
    let mut spec = DevSpec::for_test("clients", 3, 4)?;
    spec.drive_size = ByteCount::mib(1536);
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    let scratch = spec.dir.join("scratch");
    let source = scratch.join("source");
    fs::create_dir_all(&scratch)?;
    tree::make_real(&source, FILES_MIN, usize::MAX, &LARGE)?;
    for (number, client) in ["aws", "rclone", "s3cmd", "boto3", "js", "rust"].into_iter().enumerate() {
        // Each client through another node.
        let node = cluster.file().node_at(number % 3)?;
        let access = Access::of(cluster.file(), node, &scratch)?;
        let client =
            all(&access, &scratch)?.into_iter().find(|found| found.name() == client).expect("a known client");
        round_trip(client.as_ref(), &source, &scratch)?;
    }
    let access = Access::of(cluster.file(), cluster.file().node_at(0)?, &scratch)?;
    let boto3 = Boto3::new(access);
    print!("{}", boto3.check_objects()?);
    print!("{}", boto3.check_identities(cluster.dir())?);
    fs::remove_dir_all(&scratch)?;
    Ok(())
}

/// Small files, and how large each may be in bytes.
const SMALL_FILES: usize = 2000;
/// Another count of them: 50,000 for acceptance.
const SMALL_FILES_WANTED: &str = "HOLDFAST_SMALL_FILES";
const SMALL_SIZE_MAX: usize = 8 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn restic_and_rclone_lose_nothing_while_nodes_are_killed_and_come_back() -> Result<()> {
    let mut spec = DevSpec::for_test("restic", 3, 4)?;
    spec.drive_size = ByteCount::mib(512);
    let mut cluster = DevCluster::create(&spec, &|_| {}).await?;
    let scratch = spec.dir.join("scratch");
    let source = scratch.join("source");
    fs::create_dir_all(&source)?;
    let files = std::env::var(SMALL_FILES_WANTED).map_or(Ok(SMALL_FILES), |count| count.parse())?;
    for number in 0..files {
        let directory = source.join(format!("{:02}", number % 50));
        fs::create_dir_all(&directory)?;
        let size = number * 7919 % SMALL_SIZE_MAX;
        fs::write(directory.join(number.to_string()), tree::noise(number as u64, size))?;
    }
    let access = Access::of(cluster.file(), cluster.file().node_at(0)?, &scratch)?;
    let restic = Restic::new(access.clone(), "backups");
    restic.init()?;
    restic.backup(&source)?;
    tree::write_noise(&source.join("large"), 1, 60_000_001)?;

    // A node goes in the middle of a backup, and another of a copy; each comes back before the next goes.
    let mut backup = restic.command(&["backup", &source.to_string_lossy()]).stdin(Stdio::null()).spawn()?;
    sleep(Duration::from_secs(1)).await;
    cluster.kill("n2")?;
    ensure!(backup.wait()?.success(), "the backup failed when a node was killed");
    restic.check_all_data()?;
    let back = scratch.join("back");
    restic.restore(&back)?;
    tree::assert_same(&source, &back.join(source.strip_prefix("/")?))?;
    cluster.start("n2").await?;
    cluster.wait_whole(1).await?;

    let rclone = Rclone::new(access);
    rclone.make_bucket("copies")?;
    let begun = Instant::now();
    rclone.copy_in(&source, "copies", "tree")?;
    println!("rclone: {files} files copied in {:.1} s", begun.elapsed().as_secs_f64());
    cluster.kill("n3")?;
    let begun = Instant::now();
    rclone.check_all_data(&source, "copies", "tree")?;
    println!("rclone: all of them checked in {:.1} s, a node killed", begun.elapsed().as_secs_f64());
    restic.keep_last()?;
    cluster.start("n3").await?;
    restic.check_all_data()?;
    fs::remove_dir_all(&scratch)?;
    Ok(())
}
