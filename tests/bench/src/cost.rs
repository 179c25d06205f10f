//! What the servers spent, from their own metrics.

use anyhow::{Context, Result};
use holdfast_blackbox::{cluster_file::ClusterFile, http_client::Trust, metrics::Samples};

const CPU: &str = "holdfast_process_cpu_seconds_total";
const LOG_FLUSHES: &str = "holdfast_raft_log_flushes_total";
const DRIVE_FLUSHES: &str = "holdfast_drive_flushes_total";

/// Reads all nodes.
#[derive(Debug)]
pub struct Meter {
    urls: Vec<String>,
    trust: Trust,
}

/// Sums over all nodes.
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Cost {
    pub cpu_seconds: f64,
    pub log_flushes: f64,
    pub drive_flushes: f64,
}

impl Cost {
    /// What was spent after `earlier`.
    pub fn since(self, earlier: &Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds - earlier.cpu_seconds,
            log_flushes: self.log_flushes - earlier.log_flushes,
            drive_flushes: self.drive_flushes - earlier.drive_flushes,
        }
    }
}

impl Meter {
    /// For all nodes of a cluster.
    pub fn new(cluster: &ClusterFile) -> Result<Self> {
        Ok(Self {
            urls: cluster.nodes.iter().map(|node| node.metrics.clone()).collect(),
            trust: cluster.trust()?,
        })
    }

    /// Reads the counters.
    ///
    /// # Errors
    /// When a node does not answer or does not expose one of them.
    pub async fn read(&self) -> Result<Cost> {
        let mut cost = Cost::default();
        for url in &self.urls {
            let samples = Samples::fetch(url, self.trust.clone()).await?;
            let sum = |metric| samples.sum(metric).with_context(|| format!("{url} does not expose {metric}"));
            cost.cpu_seconds += sum(CPU)?;
            cost.log_flushes += sum(LOG_FLUSHES)?;
            cost.drive_flushes += sum(DRIVE_FLUSHES)?;
        }
        Ok(cost)
    }
}
