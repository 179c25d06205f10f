//! What buckets do by themselves, as boto3 sets it up and sees it.

use std::fs;

use anyhow::Result;
use holdfast_blackbox::{
    clients::{Access, Boto3},
    dev::{DevCluster, DevSpec},
};
use holdfast_model::ByteCount;

/// Nobody wants to wait for five minutes.
const DAY_SECONDS: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn what_buckets_do_by_themselves_is_as_documented() -> Result<()> {
    let mut spec = DevSpec::for_test("buckets", 1, 4)?;
    spec.drive_size = ByteCount::mib(512);
    spec.s3.day_seconds = DAY_SECONDS;
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    let scratch = spec.dir.join("scratch");
    fs::create_dir_all(&scratch)?;
    let access = Access::of(cluster.file(), cluster.file().node_at(0)?, &scratch)?;
    print!("{}", Boto3::new(access).check_buckets()?);
    fs::remove_dir_all(&scratch)?;
    Ok(())
}
