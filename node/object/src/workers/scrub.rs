//! Scrub: reads every shard on this node's drives, and asks of every shard that the catalog places there
//! whether it is there. What is damaged or missing goes to the repair worker; a damaged record of the catalog's second
//! copy to who keeps that.
//!
//! The first half finds rot before a second failure does; the second finds what a drive lost without a
//! word, which no checksum can tell.
//!
//! The drives of a node take turns, as many of them at once as the impact allows. The rest after a stretch is measured
//! by how long the device worked for it: what was waited for, on a busy node many times as long, took nobody's time.

use std::{sync::Arc, time::Duration};

use holdfast_drive::{Drive, GetError};
use holdfast_model::{NodeId, ShardId, placement::Place};
use holdfast_store::{BadShard, Fault, Findings};
use tokio::time::{Instant, sleep_until};

use super::{abreast::Abreast, control::Impact, status::Kind, worker::Worker};
use crate::{api::ObjectError, journal::CATALOG_OWNER, service::ObjectService};

/// Between the starts of two scrubs.
const INTERVAL: Duration = Duration::from_secs(7 * 24 * 3600);

/// After the start of the node, before its first scrub.
const FIRST_AFTER: Duration = Duration::from_secs(3600);

/// Shards read, or rows compared, at once.
const BATCH: usize = 256;

pub(super) struct Scrub {
    service: Arc<ObjectService>,
    node: NodeId,
    due: Instant,
    /// An operator asked for the scrub that is to come.
    asked: bool,
}

impl Scrub {
    pub(super) fn new(service: Arc<ObjectService>, node: NodeId) -> Self {
        Self { service, node, due: Instant::now() + FIRST_AFTER, asked: false }
    }
}

#[async_trait::async_trait]
impl Worker for Scrub {
    fn kind(&self) -> Kind {
        Kind::Scrub
    }

    async fn wait(&mut self) {
        self.asked = tokio::select! {
            () = sleep_until(self.due) => false,
            () = self.service.scrub_asked.notified() => true,
        };
    }

    async fn work(&mut self) {
        self.due = Instant::now() + INTERVAL;
        Run { service: &self.service, node: self.node, asked: self.asked }.all().await;
    }
}

/// One scrub of all drives.
#[derive(Clone, Copy)]
struct Run<'a> {
    service: &'a ObjectService,
    node: NodeId,
    asked: bool,
}

impl Run<'_> {
    fn impact(self) -> Impact {
        self.service.workers.orders().of_scrub(self.asked)
    }

    async fn all(self) {
        let board = &self.service.workers;
        let drives = self.service.stripes.shards.local();
        let shards: u64 = drives.iter().map(|drive| drive.status().shards).sum();
        board.begin(Kind::Scrub, shards);
        let begun = Instant::now();
        let (mut found, mut worked) = (0, Duration::ZERO);
        let parallel = || self.impact().parallel();
        let mut scrubs = Abreast::new(drives, parallel, |drive| async move { self.drive(&drive).await });
        while let Some((bad, took)) = scrubs.next(true).await {
            found += bad;
            worked += took;
        }
        tracing::info!(shards, found, took = ?begun.elapsed(), ?worked, "scrubbed");
        board.end(Kind::Scrub);
    }

    /// How many shards of a drive are damaged or missing, and how long it worked to find out.
    async fn drive(self, drive: &Drive) -> (u64, Duration) {
        let (mut found, worked) = self.read_all(drive).await;
        match compare(self.service, self.node, drive).await {
            Ok(missing) => found += missing,
            Err(error) => {
                self.service.workers.trouble(Kind::Scrub, format!("drive {}: {error}", drive.id()));
                tracing::warn!(drive = %drive.id(), %error, "drive not compared with the catalog");
            }
        }
        (found, worked)
    }

    /// Reads what is there; how many shards are damaged, and how long the drive worked.
    async fn read_all(self, drive: &Drive) -> (u64, Duration) {
        let board = &self.service.workers;
        let (mut damaged, mut worked) = (0, Duration::ZERO);
        let mut after = None;
        loop {
            board.leave(Kind::Scrub).await;
            let scrubbed = drive.scrub(after, BATCH).await;
            for finding in &scrubbed.findings {
                tracing::warn!(drive = %drive.id(), shard = %finding.id, error = %finding.error, "scrub: shard damaged");
                if matches!(finding.error, GetError::Damaged { .. } | GetError::Device { .. })
                    && !holdfast_planted::is("ScrubDoesNotTell")
                {
                    damaged += 1;
                    match finding.error {
                        GetError::Damaged { .. } if finding.tenant == CATALOG_OWNER => {
                            self.service.stripes.shards.note_damaged_record(drive.id(), finding.id);
                        }
                        _ => tell(&self.service.stripes.findings, self.node, drive, finding.id),
                    }
                }
            }
            board.update(Kind::Scrub, |progress| {
                progress.done += scrubbed.records as u64;
                progress.left = progress.left.saturating_sub(scrubbed.records as u64);
                progress.failed += scrubbed.findings.len() as u64;
                progress.bytes += scrubbed.bytes;
            });
            worked += scrubbed.worked;
            self.impact().rested(scrubbed.worked).await;
            if scrubbed.finished || scrubbed.next == after {
                return (damaged, worked);
            }
            after = scrubbed.next;
        }
    }
}

/// Compares what the catalog places on the drive with what it holds; returns how many are missing.
async fn compare(service: &ObjectService, node: NodeId, drive: &Drive) -> Result<u64, ObjectError> {
    let (id, mut missing) = (drive.id(), 0);
    let snapshot = service.directory.snapshot();
    let routes = snapshot.tenants.values().flat_map(|tenant| tenant.partitions.clone());
    for route in routes.filter(|route| service.is_settled(*route)) {
        let mut after = None;
        loop {
            let page = service
                .read(route, ("", ""), move |catalog| catalog.stripes_on_drive(id, after, BATCH))
                .await?;
            let Some(end) = page.last() else { break };
            after = Some(end.known.stripe.id);
            for shard in page.iter().filter(|shard| shard.known.live) {
                let shard = ShardId { stripe: shard.known.stripe.id, index: shard.index };
                if !drive.holds(shard) && !holdfast_planted::is("ScrubDoesNotCompare") {
                    tracing::warn!(drive = %id, %shard, "scrub: the drive lost a shard");
                    service.workers.update(Kind::Scrub, |progress| progress.failed += 1);
                    missing += 1;
                    tell(&service.stripes.findings, node, drive, shard);
                }
            }
        }
    }
    Ok(missing)
}

fn tell(findings: &Findings, node: NodeId, drive: &Drive, shard: ShardId) {
    let place = Place { node, drive: drive.id() };
    findings.tell(BadShard { stripe: shard.stripe, index: shard.index, place, fault: Fault::Unreadable });
}
