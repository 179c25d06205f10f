//! A disk that misbehaves on purpose. One model, two front ends.
//!
//! ```text
//! unit tests, simulations ── FaultDevice (BlockDevice: completions late, short, out of order) ─┐
//!                                                                                             ├── FaultDisk
//! a guest of QEMU ── unix socket ── NbdServer (READ, WRITE, FLUSH, FUA) ───────────────────────┘
//! ```
//!
//! [`FaultDisk`] is the disk: a durable image and the ordered writes that are not flushed yet. It outlives
//! power cuts; connections of before a cut are dead. The model is as mean as a real device may be:
//! - a write counts as in the cache when it completes; one in flight when the power goes may be kept too;
//! - a flush makes durable only what had completed before the flush was submitted;
//! - a power cut keeps any subset of the rest: all, none, a prefix, a random one, sectors torn at 512 B;
//! - after a failed flush, the cache may have dropped what it was to write, and the next flush says nothing.
//!
//! Contents live in memory: sparse, and gone with the process. Everything follows from seeds.

#![forbid(unsafe_code)]

mod device;
mod disk;
pub mod nbd;
mod random;

pub use device::{FaultDevice, Manners};
pub use disk::{Cut, Fault, FaultDisk, Step, Unflushed};
pub use random::Random;
