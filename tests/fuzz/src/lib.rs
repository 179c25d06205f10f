//! Fuzzing of the parsers of this project, on the stable toolchain.
//!
//! - [`targets`]: one function a parser, from bytes to what came of them. A panic is a finding.
//! - [`image`]: the largest target, a whole drive whose structures the input makes.
//! - [`mutate`]: how inputs are changed. Most changes mend the checksum afterwards: behind a CRC that
//!   refuses everything, no field would ever be looked at.
//! - [`run`]: the loop. Inputs that lead to something new (another error, another field, another size of
//!   what was parsed) are kept and changed further. That takes the place of coverage.
//! - [`corpus`]: small committed inputs in `corpus/TARGET/`; those that crashed once are among them.
//!
//! `cargo run -p holdfast-fuzz -- --seconds 60` fuzzes all targets; the unit tests replay the corpora and run
//! a few thousand inputs a target.

#![forbid(unsafe_code)]

pub mod corpus;
pub mod image;
pub mod mutate;
pub mod run;
pub mod targets;
