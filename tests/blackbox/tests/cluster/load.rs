//! Many at once: memory is bounded, and nobody waits for ever.

use anyhow::Result;
use futures::future::try_join_all;
use holdfast_blackbox::tree::noise;

use crate::support::{BUCKET, cluster};

const SIZE: usize = 24 << 20;
const READERS: usize = 36;

/// Together they want ten times the memory that the nodes have for reading, and every node reads from
/// the others.
#[tokio::test(flavor = "multi_thread")]
async fn more_large_reads_than_memory_holds_all_finish() -> Result<()> {
    let cluster = cluster("load", 3, 4).await?;
    let nodes = [cluster.s3(0)?, cluster.s3(1)?, cluster.s3(2)?];
    let body = noise(1, SIZE);
    nodes[0].put(BUCKET, "large", body.clone()).await?;
    let reads = (0..READERS).map(|reader| nodes[reader % nodes.len()].get(BUCKET, "large"));
    for found in try_join_all(reads).await? {
        assert!(found == body, "other bytes");
    }
    Ok(())
}
