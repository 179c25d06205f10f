//! The whole cluster in one thread, under one seed.
//!
//! ```text
//! Plan (from a seed, or a file) ──> run ──┬─ nodes: ObjectService, workers, Shards, drives' engines: as they ship
//!                                         ├─ World: disks, links, the log that decides, clock, chance
//!                                         ├─ clients, faults
//!                                         └─ oracles ──> Outcome (trace hash, figures, the first violation)
//! ```
//!
//! Why it is built this way, and what it does not cover: docs/decisions/0032-cluster-simulated.md.

#![forbid(unsafe_code)]

pub mod audit;
pub mod bodies;
pub mod bugs;
pub mod clients;
pub mod drive;
pub mod faults;
pub mod hunt;
pub mod keys;
pub mod ledger;
pub mod log;
pub mod net;
pub mod node;
pub mod panics;
pub mod plan;
pub mod plans;
pub mod rig;
pub mod run;
pub mod settle;
pub mod shrink;
pub mod trace;
pub mod uploads;
pub mod versions;
pub mod watch;
pub mod world;
