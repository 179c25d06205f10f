//! This node's drives: found, judged, opened, adopted, let go, located.
//!
//! ```text
//! source   which devices are there now
//! judge    what one of them is, and whether it may be opened        (pure)
//! open     opening, formatting, erasing
//! keeper   looks every two seconds, and carries out what was decided
//! calls    what is told of devices, and what operators ask of them
//! locate   makes a drive's light blink
//! ```
//!
//! Invariants:
//! - nothing is formatted that is not blank, unless an operator named what is to be erased;
//! - a device is opened only as what the cluster knows it to be: no copy of a drive that is open, no old image,
//!   none that has left;
//! - what a drive says about itself is evidence. What is placed on it is the catalog's word.

mod calls;
mod judge;
mod keeper;
mod locate;
mod open;
mod source;

pub use keeper::{Keeper, KeeperParts};
pub use open::open_existing;
pub use source::devices;
