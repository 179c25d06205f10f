//! Metrics: one registry, Prometheus exposition.
