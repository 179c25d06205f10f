//! Pure stripes: how content is cut into cells and shards, sealed and encoded, and what to read to get
//! a range of it back. Performs no I/O; `store` carries the plans out.

#![forbid(unsafe_code)]

mod codec;
mod layout;

pub use codec::{StripeError, open_cells, rebuild_range, seal_and_encode};
pub use layout::{CellSpan, Layout, ShardSpan};
