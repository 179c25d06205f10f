//! Amazon's SDK for Rust, in `holdfast-sdk-client` (`tests/sdk-rust`).

use std::process::Command;

use super::{
    script::Script,
    tool::{Access, aws_environment, program},
};
use crate::paths;

/// A Rust program with `aws-sdk-s3`.
#[derive(Debug)]
pub struct Rust(Access);

impl Rust {
    /// Speaks to one node.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(access)
    }
}

impl Script for Rust {
    const NAME: &'static str = "rust";

    fn program(&self) -> Command {
        let mut command = program(paths::binaries().join("holdfast-sdk-client"), &self.0);
        aws_environment(&mut command, &self.0);
        command
    }
}
