//! Real clients copy a real tree in, list it, and copy it back, with certificates verified; then boto3 checks
//! the operations one by one on the same cluster.

use std::fs;

use anyhow::Result;
use holdfast_blackbox::{
    clients::{Access, Boto3, all, round_trip},
    dev::{DevCluster, DevSpec},
    tree,
};
use holdfast_model::ByteCount;

const FILES_MIN: usize = 3000;
/// Over 100 MB each, none a multiple of anything.
const LARGE: [u64; 3] = [100_000_001, 110_010_011, 130_000_003];

#[tokio::test(flavor = "multi_thread")]
async fn aws_rclone_s3cmd_and_boto3_copy_a_tree_and_every_operation_is_as_documented() -> Result<()> {
    let mut spec = DevSpec::for_test("clients", 3, 4)?;
    spec.drive_size = ByteCount::mib(1536);
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    let scratch = spec.dir.join("scratch");
    let source = scratch.join("source");
    fs::create_dir_all(&scratch)?;
    tree::make_real(&source, FILES_MIN, usize::MAX, &LARGE)?;
    for (number, client) in ["aws", "rclone", "s3cmd", "boto3"].into_iter().enumerate() {
        // Each client through another node.
        let node = cluster.file().node_at(number % 3)?;
        let access = Access::of(cluster.file(), node, &scratch)?;
        let client =
            all(&access, &scratch)?.into_iter().find(|found| found.name() == client).expect("a known client");
        round_trip(client.as_ref(), &source, &scratch)?;
    }
    let access = Access::of(cluster.file(), cluster.file().node_at(0)?, &scratch)?;
    print!("{}", Boto3::new(access).check_objects()?);
    fs::remove_dir_all(&scratch)?;
    Ok(())
}
