//! What buckets do by themselves, as boto3 sets it up and sees it.

use std::{fs, net::TcpListener};

use anyhow::Result;
use holdfast_blackbox::{
    clients::{Access, Boto3},
    dev::{DevCluster, DevSpec},
};
use holdfast_model::ByteCount;
use serde_json::json;

/// Nobody wants to wait for five minutes.
const DAY_SECONDS: u64 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn what_buckets_do_by_themselves_is_as_documented() -> Result<()> {
    let mut spec = DevSpec::for_test("buckets", 1, 4)?;
    spec.drive_size = ByteCount::mib(512);
    spec.s3.day_seconds = DAY_SECONDS;
    let cluster = DevCluster::create(&spec, &|_| {}).await?;
    // Where the checks of events listen: told to the cluster here, because S3 has no call for it.
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let admin = cluster.file().admin(0).await?;
    admin.define_hook(&format!("http://127.0.0.1:{port}/hook")).await?;
    admin.post("/api/v1/cluster/events", &json!({ "networks": ["127.0.0.0/8"] })).await?;
    let scratch = spec.dir.join("scratch");
    fs::create_dir_all(&scratch)?;
    let access = Access::of(cluster.file(), cluster.file().node_at(0)?, &scratch)?;
    print!("{}", Boto3::new(access).check_buckets(port)?);
    fs::remove_dir_all(&scratch)?;
    Ok(())
}
