//! A cluster seen from outside: start one, find it, speak to it, hurt it, look at what it left on disk.
//!
//! `cargo xtask`, the black-box tests and the benchmarks share this crate. It knows the node program
//! only by its configuration document, its command line and its sockets; it links none of its code
//! beyond the shared words of `holdfast-model`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod clients;
pub mod clocks;
pub mod cluster_file;
pub mod dev;
pub mod http_client;
pub mod ledger;
pub mod linear;
pub mod metrics;
pub mod paths;
pub mod process;
pub mod raft_log;
mod reach;
pub mod s3;
pub mod scan;
pub mod second_copy;
pub mod transit;
pub mod tree;
