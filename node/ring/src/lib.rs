//! The unsafe crate of the data path: I/O memory and io_uring, behind a safe, completion-based interface.
//!
//! - [`BufferPool`] and [`Buffer`]: bounded, huge-page-advised memory that a device may read and write.
//! - [`BlockDevice`]: submit operations, reap completions in whatever order they come. Whatever the kernel
//!   may still touch is owned by the device until its completion arrives.
//! - [`RingDevice`]: a `BlockDevice` over io_uring, with an allow-list of opcodes the kernel enforces.
//!
//! Invariants:
//! - a [`Buffer`] is in exactly one place: with its user, or inside the device that works on it;
//! - memory of an operation that never completes is never given out again;
//! - no linked submissions: a short write breaks a chain, so ordering is the caller's, by completion.

#![deny(unsafe_op_in_unsafe_fn)]

mod arena;
mod device;
mod pool;
mod room;
mod space;
mod uring;
mod wake;

pub use device::{BlockDevice, Completion, Kind, Operation, Outcome};
pub use pool::{Buffer, BufferPool, PoolError};
pub use uring::{DeviceError, RingDevice, RingOptions};
pub use wake::Waker;
