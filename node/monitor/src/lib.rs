//! Metrics of one node: one registry, rendered as Prometheus text exposition 0.0.4.
//!
//! Two ways in, and no third:
//! - what must be timed where it happens is **pushed** through a handle: [`S3Metrics`];
//! - what another part already counts is **pulled** when a scrape arrives: a source registered with
//!   [`Monitor::register_source`] hands over [`reading`]s, plain structs with one field per metric, so that a
//!   forgotten figure is a compile error.
//!
//! Invariants:
//! - every metric is declared once, with its help text, and is listed in `docs/metrics.md` (a test compares);
//! - names start with `holdfast_` and carry their base unit; totals only grow while the process lives;
//! - labels come from closed sets or from the cluster's membership, never from request content: no bucket,
//!   key, tenant name or address of a client.

#![forbid(unsafe_code)]

mod catalogue;
mod process;
pub mod reading;
mod s3;
mod sample;

use std::{fmt, time::Instant};

use parking_lot::RwLock;
use prometheus::{Registry, TextEncoder, proto::MetricFamily};

pub use catalogue::{Kind, Metric, catalogue};
pub use reading::{
    BufferReading, CatalogCopyGroupReading, CatalogCopyReading, ClockReading, DebtReading, DeviceReading,
    DriveErrors, DriveLabels, DriveReading, DriveState, EventQueueReading, EventReading, ExternalKeyReading,
    KeyReading, KeyUseReading, PeerReading, RaftGroupReading, RaftLogReading, SpareReading, StripeReading,
};
pub use s3::{S3Metrics, S3Request};
pub use sample::Sample;

/// Content type of [`Monitor::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Source = Box<dyn Fn(&mut Sample) + Send + Sync>;

/// What was built: shown as labels of `holdfast_build_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildInfo {
    /// Release of this program: `0.1.0`.
    pub version: &'static str,
    /// Commit it was built from, or `unknown`.
    pub revision: &'static str,
}

/// The metrics of this node. One per process, shared by reference.
pub struct Monitor {
    registry: Registry,
    s3: S3Metrics,
    sources: RwLock<Vec<Source>>,
    build: BuildInfo,
    started: Instant,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("build", &self.build)
            .field("sources", &self.sources.read().len())
            .finish_non_exhaustive()
    }
}

impl Monitor {
    /// A monitor whose uptime starts now.
    #[must_use]
    pub fn new(build: BuildInfo) -> Self {
        let registry = Registry::new();
        let s3 = S3Metrics::register(&registry);
        Self { registry, s3, sources: RwLock::new(Vec::new()), build, started: Instant::now() }
    }

    /// The handle for the S3 gateway. Cheap to clone.
    #[must_use]
    pub fn s3(&self) -> &S3Metrics {
        &self.s3
    }

    /// Adds a source that is asked at every scrape. It runs on the thread that renders: it reads counters
    /// and does not block.
    pub fn register_source(&self, source: impl Fn(&mut Sample) + Send + Sync + 'static) {
        self.sources.write().push(Box::new(source));
    }

    /// All metrics as text exposition 0.0.4.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        if let Err(error) = TextEncoder::new().encode_utf8(&self.families(), &mut text) {
            // The encoder refuses only families without a name or without samples; `Sample` makes neither.
            tracing::error!(%error, "metrics could not be encoded; the scrape is cut short");
        }
        text
    }

    fn families(&self) -> Vec<MetricFamily> {
        let mut sample = Sample::new();
        sample.build(&self.build);
        sample.uptime(self.started.elapsed());
        process::collect(&mut sample);
        for source in self.sources.read().iter() {
            source(&mut sample);
        }
        let mut families = self.registry.gather();
        families.extend(sample.into_families());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        families
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_model::{DriveId, GroupId, NodeId};

    use super::*;

    /// A monitor in which every metric has at least one sample.
    fn full() -> Monitor {
        let monitor = Monitor::new(BuildInfo { version: "1.2.3", revision: "abc" });
        let mut request = monitor.s3().start("GetObject");
        request.add_bytes_in(5);
        request.add_bytes_out(7);
        request.finish(206);
        monitor.s3().limited("t1", "in_bytes_per_second", std::time::Duration::from_millis(5));
        monitor.s3().log_lines("delivered", 2);
        monitor.s3().inventory("made");
        monitor.register_source(|sample| {
            let labels =
                DriveLabels { drive: DriveId::from_bytes([0xab; 16]), serial: "QM\"00\\1", path: "/dev/vdb" };
            let errors = DriveErrors { checksum: 3, ..DriveErrors::default() };
            let reading = DriveReading { capacity_bytes: 1 << 40, ..DriveReading::default() };
            sample.drive(&labels, DriveState::Fenced, &reading, &errors);
            sample.stripes(&StripeReading { written: 9, ..StripeReading::default() });
            sample.devices(&DeviceReading::default());
            sample.spare(&SpareReading::default());
            sample.clock(&ClockReading { agreed: true, ..ClockReading::default() });
            sample.debt(holdfast_model::PartitionId::new(1), &DebtReading::default());
            sample.event_queue(holdfast_model::PartitionId::new(1), &EventQueueReading::default());
            sample.events(&EventReading::default());
            sample.catalog_copy(&CatalogCopyReading { bases: 2, ..CatalogCopyReading::default() });
            sample.catalog_copy_group(
                GroupId::new(1),
                &CatalogCopyGroupReading { whole: true, counted_age: 7.5 },
            );
            sample.raft_group(
                GroupId::CONTROL,
                &RaftGroupReading { term: 4, is_leader: true, ..RaftGroupReading::default() },
            );
            sample.raft_log(&RaftLogReading { flushes: 11, ..RaftLogReading::default() });
            sample.peer(NodeId::new(2), &PeerReading { connected: true, ..PeerReading::default() });
            sample.buffers(&BufferReading { budget_bytes: 256, available_bytes: 128 });
            sample
                .external_key(holdfast_model::TenantId::from_bytes([7; 16]), &ExternalKeyReading::default());
            sample.keys(&KeyReading { root_epoch: 1, roots: 1, ..KeyReading::default() });
            sample.key_uses("object_read", &KeyUseReading { uses: 3, refused: 1 });
        });
        monitor
    }

    #[test]
    fn every_declared_metric_is_rendered_and_every_rendered_metric_is_declared() {
        let rendered: BTreeSet<String> =
            full().families().iter().map(|family| family.name().to_owned()).collect();
        let declared: BTreeSet<String> = catalogue().iter().map(|metric| metric.name.to_owned()).collect();
        assert_eq!(rendered, declared);
    }

    #[test]
    fn readings_appear_with_their_labels_escaped() {
        let text = full().render();
        let drive = format!("drive=\"{}\"", "ab".repeat(16));
        for line in [
            format!(
                r#"holdfast_drive_capacity_bytes{{{drive},path="/dev/vdb",serial="QM\"00\\1"}} 1099511627776"#
            ),
            format!(
                r#"holdfast_drive_errors_total{{{drive},kind="checksum",path="/dev/vdb",serial="QM\"00\\1"}} 3"#
            ),
            format!(r#"holdfast_drive_state{{{drive},path="/dev/vdb",serial="QM\"00\\1",state="fenced"}} 1"#),
            format!(
                r#"holdfast_drive_state{{{drive},path="/dev/vdb",serial="QM\"00\\1",state="healthy"}} 0"#
            ),
            r#"holdfast_raft_term{group="g0"} 4"#.into(),
            r#"holdfast_raft_is_leader{group="g0"} 1"#.into(),
            r#"holdfast_peer_connected{peer="n2"} 1"#.into(),
            r#"holdfast_s3_requests_total{operation="GetObject",status="2xx"} 1"#.into(),
            r#"holdfast_s3_received_bytes_total{operation="GetObject"} 5"#.into(),
            r#"holdfast_s3_sent_bytes_total{operation="GetObject"} 7"#.into(),
            r#"holdfast_s3_requests_in_flight{operation="GetObject"} 0"#.into(),
            r#"holdfast_build_info{revision="abc",version="1.2.3"} 1"#.into(),
        ] {
            assert!(text.lines().any(|l| l == line), "missing {line}\n{text}");
        }
    }

    #[test]
    fn a_source_is_asked_at_every_scrape() {
        let monitor = Monitor::new(BuildInfo { version: "0", revision: "0" });
        let count = std::sync::atomic::AtomicU64::new(0);
        monitor.register_source(move |sample| {
            let written = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            sample.stripes(&StripeReading { written, ..StripeReading::default() });
        });
        assert!(monitor.render().contains("holdfast_stripes_written_total 0\n"));
        assert!(monitor.render().contains("holdfast_stripes_written_total 1\n"));
    }

    #[test]
    fn exposition_has_help_and_type_for_each_family_and_no_family_twice() {
        let text = full().render();
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            assert!(seen.insert(line.to_owned()), "twice: {line}");
            let name = line.split(' ').nth(2).unwrap();
            assert!(text.contains(&format!("# HELP {name} ")), "no help for {name}");
        }
        assert_eq!(seen.len(), catalogue().len());
    }
}
