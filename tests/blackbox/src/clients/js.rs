//! Amazon's SDK for JavaScript from npm, installed by `cargo xtask setup`; driven by `clients/js/tree.mjs`.

use std::process::Command;

use super::{
    script::Script,
    tool::{Access, aws_environment, program},
};

const SCRIPT: &str = "tests/blackbox/clients/js/tree.mjs";

/// A Node.js program with `@aws-sdk/client-s3`.
#[derive(Debug)]
pub struct Js(Access);

impl Js {
    /// Speaks to one node.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(access)
    }
}

impl Script for Js {
    const NAME: &'static str = "js";

    fn program(&self) -> Command {
        let mut command = program("node", &self.0);
        aws_environment(&mut command, &self.0);
        command.env("AWS_REGION", &self.0.region).env("NODE_EXTRA_CA_CERTS", &self.0.ca);
        command.arg(SCRIPT);
        command
    }
}
