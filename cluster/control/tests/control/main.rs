//! The control group's machine as the log and the nodes see it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod access_keys;
mod common;
mod features;
mod golden;
mod history;
mod identities;
mod keys;
mod recovery;
mod rules;
mod shred;
