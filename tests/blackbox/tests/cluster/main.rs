//! What a cluster of processes owes its clients: the protocol, durability, availability, secrecy.
//!
//! Each test has a cluster of its own in `target/blackbox/NAME`, kept when the test fails.

mod access_keys;
mod audit;
mod clocks;
mod commands;
mod conditions;
mod crash;
mod crowd;
mod divergence;
mod drives;
mod errors;
mod events;
mod external_keys;
mod full;
mod growth;
mod healing;
mod histories;
mod interrupted;
mod key_service;
mod keys;
mod large;
mod lifecycle;
mod limits;
mod listing;
mod load;
mod multipart;
mod names;
mod outage;
mod protection;
mod ranges;
mod rebuild;
mod recovery;
mod rot;
mod secrecy;
mod shred;
mod small_drives;
mod splitting;
mod strangers;
mod support;
mod system_disk;
mod tenancy;
mod timing;
