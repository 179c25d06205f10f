//! What levels promise, with the real placement, codec, drives and readers, on disks in memory.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the message")]

mod cluster;
mod flips;
mod moves;
mod patterns;
mod slow;
