//! Amazon's SDK for JavaScript from npm, installed by `cargo xtask setup`; driven by `clients/js/tree.mjs`.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{
    TreeClient,
    tool::{Access, aws_environment, output, program},
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

    fn script(&self, arguments: &[&str]) -> Command {
        let mut command = program("node", &self.0);
        aws_environment(&mut command, &self.0);
        command.env("AWS_REGION", &self.0.region).env("NODE_EXTRA_CA_CERTS", &self.0.ca);
        command.arg(SCRIPT).args(arguments);
        command
    }
}

impl TreeClient for Js {
    fn name(&self) -> &'static str {
        "js"
    }

    fn make_bucket(&self, bucket: &str) -> Result<()> {
        output(&mut self.script(&["mb", bucket])).map(drop)
    }

    fn copy_in(&self, from: &Path, bucket: &str, prefix: &str) -> Result<()> {
        output(self.script(&["in", bucket, prefix]).arg(from)).map(drop)
    }

    fn list(&self, bucket: &str, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let text = output(&mut self.script(&["ls", bucket, prefix]))?;
        serde_json::from_str(&text).context("the script's listing")
    }

    fn copy_out(&self, bucket: &str, prefix: &str, to: &Path) -> Result<()> {
        output(self.script(&["out", bucket, prefix]).arg(to)).map(drop)
    }
}
