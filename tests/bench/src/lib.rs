//! Benchmarks against a running cluster.
