//! Reaching a cluster through its contract file, whatever its nodes run on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::time::sleep;

use crate::{
    admin::{self, Admin},
    cluster_file::{ClusterFile, NodeEntry},
    http_client::Trust,
    s3::Client,
};

const POLL: Duration = Duration::from_millis(50);

impl ClusterFile {
    /// Whom its servers are checked against.
    ///
    /// # Errors
    /// When the CA file cannot be read.
    pub fn trust(&self) -> Result<Trust> {
        Trust::ca_file(&self.ca_path())
    }

    /// The node at `index` (from 0).
    ///
    /// # Errors
    /// When there is none.
    pub fn node_at(&self, index: usize) -> Result<&NodeEntry> {
        self.nodes
            .get(index)
            .with_context(|| format!("there are {} nodes, none at {index}", self.nodes.len()))
    }

    /// S3 as the first tenant through the node at `index` (from 0).
    ///
    /// # Errors
    /// When there is no such node.
    pub fn s3(&self, index: usize) -> Result<Client> {
        Client::of(self, self.node_at(index)?)
    }

    /// A session as the operator on the node at `index` (from 0).
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn admin(&self, index: usize) -> Result<Admin> {
        Admin::resume(&self.node_at(index)?.admin, self.trust()?, &self.operator).await
    }

    /// Waits until a node says that it serves. `alive` is asked between tries and ends the wait with its error.
    ///
    /// # Errors
    /// That error, or that `limit` has passed.
    pub async fn wait_ready(
        &self,
        node: &NodeEntry,
        limit: Duration,
        alive: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let trust = self.trust()?;
        let deadline = Instant::now() + limit;
        while !admin::is_ready(&node.admin, trust.clone()).await {
            alive()?;
            if Instant::now() >= deadline {
                bail!("{} is not ready after {} s; see {}", node.name, limit.as_secs(), node.log.display());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until every node is up, and as many vote in the control group as should, as the node at `index` sees it.
    ///
    /// # Errors
    /// When that takes longer than `limit`; says what was still missing.
    pub async fn wait_whole(&self, index: usize, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut session = None;
        loop {
            // A node that has just started, on a busy machine, may be late with a session too.
            let asked = async {
                let admin = match session.take() {
                    Some(admin) => admin,
                    None => self.admin(index).await?,
                };
                let members = admin.members().await;
                session = Some(admin);
                members
            };
            let state = match asked.await {
                Ok(members) => {
                    let up = members.iter().filter(|member| member.up).count();
                    let voters = members.iter().filter(|member| member.up && member.voter).count();
                    if up == self.nodes.len() && members.len() == up && voters == voters_of(up) {
                        return Ok(());
                    }
                    format!("{members:?}")
                }
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() >= deadline {
                bail!("the cluster is not whole after {} s: {state}", limit.as_secs());
            }
            sleep(POLL).await;
        }
    }
}

/// How many nodes vote in a group of a cluster of so many.
fn voters_of(nodes: usize) -> usize {
    match nodes {
        0..=3 => nodes,
        4 => 3,
        _ => 5,
    }
}
