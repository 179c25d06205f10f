//! The catalog as the log and the object layer see it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod common;
mod digests;
mod dropping;
mod events;
mod golden;
mod history;
mod lifecycle;
mod listing;
mod measure;
mod model;
mod multipart;
mod objects;
mod recovery;
mod replace;
mod sealing;
mod splitting;
mod stripes;
mod versions;
