//! Reclamation, as it is shown. Each drive reclaims for itself, behind everything else, because only its
//! engine knows which segments are mostly dead; this adds up what they did.

use std::{sync::Arc, time::Duration};

use super::{status::Kind, worker::Worker};
use crate::service::ObjectService;

/// How often drives are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Reclaim {
    service: Arc<ObjectService>,
    segments: u64,
    working: bool,
}

impl Reclaim {
    pub(super) fn new(service: Arc<ObjectService>) -> Self {
        Self { service, segments: 0, working: false }
    }
}

#[async_trait::async_trait]
impl Worker for Reclaim {
    fn kind(&self) -> Kind {
        Kind::Reclaim
    }

    async fn wait(&mut self) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }

    async fn work(&mut self) {
        let drives = self.service.stripes.shards.local();
        let segments: u64 = drives.iter().map(|drive| drive.status().counters.segments_reclaimed).sum();
        let fresh = segments.saturating_sub(self.segments);
        self.segments = segments;
        let board = &self.service.workers;
        match (fresh > 0, self.working) {
            (true, false) => board.begin(Kind::Reclaim, 0),
            (false, true) => board.end(Kind::Reclaim),
            _ => {}
        }
        self.working = fresh > 0;
        if fresh > 0 {
            board.update(Kind::Reclaim, |progress| progress.done += fresh);
        }
    }
}
