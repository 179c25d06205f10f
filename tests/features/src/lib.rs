//! No code: a list of features.
//!
//! Cargo builds a dependency once per set of features. Development dependencies count only when tests are built, so
//! a feature that a test alone asks for would make the programs and the tests build that dependency, and whatever
//! depends on it, twice: tokio and the 54 crates above it. A feature that a test needs of a crate that programs use
//! as well therefore stands here too, among ordinary dependencies.
