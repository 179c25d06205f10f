//! Whether the catalog's second copy on the drives is whole, as the leaders of the groups find it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::{cluster_file::ClusterFile, metrics::Samples};

/// The control group and eight catalog groups.
pub const GROUPS: usize = 9;

/// How long counting copies and writing bases may take. Copies are counted every two minutes, twice when some are missing.
const WHOLE_LIMIT: Duration = Duration::from_secs(600);

/// Waits until the leaders have found the second copies of all groups whole, on drives that were searched after now.
/// How long that took.
///
/// # Errors
/// When it takes too long.
pub async fn is_whole(cluster: &ClusterFile, patience: u32) -> Result<Duration> {
    let (since, limit) = (Instant::now(), WHOLE_LIMIT * patience);
    loop {
        let mut whole: BTreeSet<String> = BTreeSet::new();
        for node in &cluster.nodes {
            // A node that just started may refuse for a moment.
            let Ok(samples) = Samples::fetch(&node.metrics, cluster.trust()?).await else { continue };
            let ages = samples.labelled("holdfast_catalog_copy_counted_age_seconds");
            let recent = ages.filter(|(_, age)| *age < since.elapsed().as_secs_f64());
            let recent: BTreeSet<&str> = recent.map(|(labels, _)| labels).collect();
            let found = samples.labelled("holdfast_catalog_copy_whole");
            let found = found.filter(|(labels, whole)| *whole == 1.0 && recent.contains(labels));
            whole.extend(found.map(|(labels, _)| labels.to_owned()));
        }
        if whole.len() >= GROUPS {
            return Ok(since.elapsed());
        }
        ensure!(
            since.elapsed() < limit,
            "after {limit:?} the second copies of {} of {GROUPS} groups are whole: {whole:?}",
            whole.len()
        );
        sleep(Duration::from_millis(500)).await;
    }
}
