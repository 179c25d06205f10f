//! The list of all metrics: name, kind, labels and help, and its rendering as `docs/metrics.md`.
//!
//! The list is put together from the declarations that also produce the samples, so it cannot name a metric
//! that does not exist; a test in `lib.rs` proves the other direction.

use crate::{process, reading, s3, sample};

/// What a value means to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives; starts at zero with it.
    Counter,
    /// May go up and down.
    Gauge,
    /// Observations counted in buckets.
    Histogram,
}

/// One metric, as declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Full name with its base unit: `holdfast_drive_capacity_bytes`.
    pub name: &'static str,
    /// What the value means.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// For operators: what it counts and when it matters.
    pub help: &'static str,
}

/// Every metric a node exposes, sorted by name.
#[must_use]
pub fn catalogue() -> Vec<Metric> {
    let mut all: Vec<Metric> = [
        s3::METRICS,
        sample::METRICS,
        process::METRICS,
        reading::DRIVE_STATE_AND_ERRORS,
        reading::DriveReading::METRICS,
        reading::StripeReading::METRICS,
        reading::CatalogCopyReading::METRICS,
        reading::CatalogCopyGroupReading::METRICS,
        reading::DebtReading::METRICS,
        reading::EventQueueReading::METRICS,
        reading::EventReading::METRICS,
        reading::DeviceReading::METRICS,
        reading::SpareReading::METRICS,
        reading::ClockReading::METRICS,
        reading::RaftGroupReading::METRICS,
        reading::RaftLogReading::METRICS,
        reading::PeerReading::METRICS,
        reading::BufferReading::METRICS,
        reading::KeyReading::METRICS,
        reading::KeyUseReading::METRICS,
        reading::ExternalKeyReading::METRICS,
    ]
    .concat();
    all.sort_by_key(|metric| metric.name);
    all
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fmt::Write as _};

    use super::*;

    const INTRODUCTION: &str = "\
# Metrics

Every node answers `GET /metrics` on its metrics address over TLS with Prometheus text exposition 0.0.4.
Each node reports itself only; a cluster is the sum over its nodes. Labels never carry a bucket, an object
key, a tenant's name or a client's address. Counters start at zero when the process starts.

This list is generated from the declarations in `node/monitor`:
`HOLDFAST_BLESS=1 cargo test -p holdfast-monitor` writes it anew, and the same test fails when it is stale.

| metric | kind | labels | meaning |
|---|---|---|---|
";

    fn document() -> String {
        let mut text = INTRODUCTION.to_owned();
        for Metric { name, kind, labels, help } in catalogue() {
            let kind = format!("{kind:?}").to_lowercase();
            let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
            writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
        }
        text
    }

    #[test]
    fn the_documented_list_is_the_declared_list() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        if std::env::var_os("HOLDFAST_BLESS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap();
        assert!(
            written == document(),
            "docs/metrics.md is stale: run `HOLDFAST_BLESS=1 cargo test -p holdfast-monitor`"
        );
    }

    #[test]
    fn names_are_unique_prefixed_and_carry_their_unit() {
        let mut names = BTreeSet::new();
        for metric in catalogue() {
            let name = metric.name;
            assert!(names.insert(name), "{name} is declared twice");
            assert!(name.starts_with("holdfast_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains('|'), "{name}: {}", metric.help);
            let bare = name.trim_end_matches("_total");
            for unit in ["_ms", "_kib", "_mb", "_percent", "_kb", "_us"] {
                assert!(!bare.ends_with(unit), "{name} is not in a base unit");
            }
        }
    }
}
