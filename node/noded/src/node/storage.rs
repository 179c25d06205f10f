//! This node's drives, and everybody's shards.

use std::{sync::Arc, time::Instant};

use anyhow::Result;
use holdfast_drive::DriveOptions;
use holdfast_store::{ReadMemory, Shards, StripeRebuilder};

use super::{base::Base, links::Links, replicas::Replicas};
use crate::drives::{Keeper, KeeperParts};

/// See the module.
pub struct Storage {
    /// Shards, here and at peers.
    pub shards: Arc<Shards>,
    /// Opens drives, and watches bays.
    pub keeper: Arc<Keeper>,
    /// Memory to read with.
    pub read_memory: ReadMemory,
}

impl Storage {
    /// Opens drives; peers are served their shards from then on.
    ///
    /// # Errors
    /// When drives cannot be looked at. One that does not open is no error.
    pub async fn open(base: &Base, links: &Links, replicas: &Replicas) -> Result<Self> {
        let health = &replicas.health;
        let shards = Arc::new(Shards::new(base.own(), Vec::new(), links.peers.clone(), Arc::clone(health)));
        let parts = KeeperParts {
            selection: base.config.drives.clone(),
            cluster: base.cluster(),
            own: base.own(),
            options: DriveOptions::new(base.pools.drive.clone()),
            state_dir: base.config.state_dir.clone(),
            control: replicas.control.clone(),
            health: Arc::clone(health),
            shards: Arc::clone(&shards),
        };
        let keeper = Arc::new(Keeper::new(parts, base.stop.clone()));
        keeper.begin().await?;
        let read_memory = ReadMemory::new(base.pools.drive.clone());
        let rebuilder = StripeRebuilder {
            shards: Arc::clone(&shards),
            health: Arc::clone(health),
            memory: read_memory.clone(),
        };
        links.service.serve_shards(rebuilder, Arc::clone(&keeper));
        health.heard(links.service.report(), Instant::now());
        Ok(Self { shards, keeper, read_memory })
    }
}
