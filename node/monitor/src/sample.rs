//! One scrape: collects readings and turns them into metric families.

use std::{collections::BTreeMap, time::Duration};

use holdfast_model::{GroupId, NodeId, PartitionId, TenantId};
use prometheus::proto;

use crate::{
    BuildInfo,
    catalogue::{Kind, Metric},
    reading::{
        BufferReading, CatalogCopyGroupReading, CatalogCopyReading, ClockReading, DRIVE_STATE_AND_ERRORS,
        DebtReading, DeviceReading, DriveErrors, DriveLabels, DriveReading, DriveState, EventQueueReading,
        EventReading, ExternalKeyReading, Figure, KeyReading, KeyUseReading, PeerReading, RaftGroupReading,
        RaftLogReading, SpareReading, StripeReading,
    },
};

const BUILD: Metric = Metric {
    name: "holdfast_build_info",
    kind: Kind::Gauge,
    labels: &["version", "revision"],
    help: "Always 1; the labels say which program runs.",
};
const UPTIME: Metric = Metric {
    name: "holdfast_uptime_seconds",
    kind: Kind::Gauge,
    labels: &[],
    help: "Time since the node program started.",
};
pub(crate) const METRICS: &[Metric] = &[BUILD, UPTIME];

/// Collects the figures of one scrape. Handed to every registered source.
#[derive(Debug)]
pub struct Sample {
    families: BTreeMap<&'static str, proto::MetricFamily>,
}

impl Sample {
    pub(crate) fn new() -> Self {
        Self { families: BTreeMap::new() }
    }

    /// One drive of this node. Call once per drive.
    pub fn drive(
        &mut self,
        labels: &DriveLabels<'_>,
        state: DriveState,
        reading: &DriveReading,
        errors: &DriveErrors,
    ) {
        let drive = labels.drive.to_string();
        let base = [("drive", drive.as_str()), ("serial", labels.serial), ("path", labels.path)];
        self.add_all(DriveReading::METRICS, &base, &reading.figures());
        let [state_metric, errors_metric] = DRIVE_STATE_AND_ERRORS else {
            unreachable!("the list is a constant of two");
        };
        let with = |name, value| [base[0], base[1], base[2], (name, value)];
        for (candidate, name) in DriveState::ALL {
            self.add(state_metric, &with("state", name), (candidate == state).figure());
        }
        for (kind, count) in errors.by_kind() {
            self.add(errors_metric, &with("kind", kind), count.figure());
        }
    }

    /// Devices that are no drives of the cluster. Call once.
    pub fn devices(&mut self, reading: &DeviceReading) {
        self.add_all(DeviceReading::METRICS, &[], &reading.figures());
    }

    /// Space set aside for rebuilding. Call once.
    pub fn spare(&mut self, reading: &SpareReading) {
        self.add_all(SpareReading::METRICS, &[], &reading.figures());
    }

    /// Clocks. Call once.
    pub fn clock(&mut self, reading: &ClockReading) {
        self.add_all(ClockReading::METRICS, &[], &reading.figures());
    }

    /// The stripes this node coordinated. Call once.
    pub fn stripes(&mut self, reading: &StripeReading) {
        self.add_all(StripeReading::METRICS, &[], &reading.figures());
    }

    /// The catalog's second copy. Call once.
    pub fn catalog_copy(&mut self, reading: &CatalogCopyReading) {
        self.add_all(CatalogCopyReading::METRICS, &[], &reading.figures());
    }

    /// The catalog's second copy of one group. Call once per group this node leads.
    pub fn catalog_copy_group(&mut self, group: GroupId, reading: &CatalogCopyGroupReading) {
        self.add_all(CatalogCopyGroupReading::METRICS, &[("group", &group.to_string())], &reading.figures());
    }

    /// Redundancy owed in one partition. Call once per partition this node's groups lead.
    pub fn debt(&mut self, partition: PartitionId, reading: &DebtReading) {
        self.add_all(DebtReading::METRICS, &[("partition", &partition.to_string())], &reading.figures());
    }

    /// Events that wait in one partition. Call once per partition this node's groups lead.
    pub fn event_queue(&mut self, partition: PartitionId, reading: &EventQueueReading) {
        self.add_all(
            EventQueueReading::METRICS,
            &[("partition", &partition.to_string())],
            &reading.figures(),
        );
    }

    /// Events sent. Call once.
    pub fn events(&mut self, reading: &EventReading) {
        self.add_all(EventReading::METRICS, &[], &reading.figures());
    }

    /// One Raft group. Call once per group.
    pub fn raft_group(&mut self, group: GroupId, reading: &RaftGroupReading) {
        self.add_all(RaftGroupReading::METRICS, &[("group", &group.to_string())], &reading.figures());
    }

    /// The shared Raft log. Call once.
    pub fn raft_log(&mut self, reading: &RaftLogReading) {
        self.add_all(RaftLogReading::METRICS, &[], &reading.figures());
    }

    /// The link to one peer. Call once per peer.
    pub fn peer(&mut self, peer: NodeId, reading: &PeerReading) {
        self.add_all(PeerReading::METRICS, &[("peer", &peer.to_string())], &reading.figures());
    }

    /// The payload buffers. Call once.
    pub fn buffers(&mut self, reading: &BufferReading) {
        self.add_all(BufferReading::METRICS, &[], &reading.figures());
    }

    /// A tenant's external key. Call once per tenant that has one.
    pub fn external_key(&mut self, tenant: TenantId, reading: &ExternalKeyReading) {
        self.add_all(ExternalKeyReading::METRICS, &[("tenant", &tenant.to_string())], &reading.figures());
    }

    /// The keys of this node. Call once.
    pub fn keys(&mut self, reading: &KeyReading) {
        self.add_all(KeyReading::METRICS, &[], &reading.figures());
    }

    /// Uses of tenants' keys. Call once per purpose.
    pub fn key_uses(&mut self, purpose: &str, reading: &KeyUseReading) {
        self.add_all(KeyUseReading::METRICS, &[("purpose", purpose)], &reading.figures());
    }

    pub(crate) fn build(&mut self, build: &BuildInfo) {
        self.add(&BUILD, &[("version", build.version), ("revision", build.revision)], 1.0);
    }

    pub(crate) fn uptime(&mut self, uptime: Duration) {
        self.add(&UPTIME, &[], uptime.as_secs_f64());
    }

    pub(crate) fn add_all(&mut self, metrics: &[Metric], labels: &[(&str, &str)], figures: &[f64]) {
        assert_eq!(metrics.len(), figures.len(), "one figure per metric");
        for (metric, figure) in metrics.iter().zip(figures) {
            self.add(metric, labels, *figure);
        }
    }

    fn add(&mut self, metric: &Metric, labels: &[(&str, &str)], figure: f64) {
        let mut pairs: Vec<proto::LabelPair> = labels.iter().map(|(name, value)| pair(name, value)).collect();
        pairs.sort_by(|a, b| a.name().cmp(b.name()));
        let mut sample = proto::Metric::from_label(pairs);
        match metric.kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(figure);
                sample.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(figure);
                sample.set_gauge(gauge);
            }
        }
        self.families.entry(metric.name).or_insert_with(|| family(metric)).mut_metric().push(sample);
    }

    pub(crate) fn into_families(self) -> impl Iterator<Item = proto::MetricFamily> {
        self.families.into_values()
    }
}

fn family(metric: &Metric) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge | Kind::Histogram => proto::MetricType::GAUGE,
    });
    family
}

fn pair(name: &str, value: &str) -> proto::LabelPair {
    let mut pair = proto::LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
