//! The `aws` command line client, from Debian.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{
    TreeClient,
    tool::{Access, aws_environment, output, program},
};

const PROGRAM: &str = "/usr/bin/aws";

/// `aws s3 ...`
#[derive(Debug)]
pub struct Aws(Access);

impl Aws {
    /// Speaks to one node.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(access)
    }

    fn s3(&self, arguments: &[&str]) -> Command {
        let mut command = program(PROGRAM, &self.0);
        aws_environment(&mut command, &self.0);
        // The option, because this version is older than AWS_ENDPOINT_URL.
        command.args(["--endpoint-url", &self.0.endpoint, "s3"]).args(arguments);
        command
    }
}

impl TreeClient for Aws {
    fn name(&self) -> &'static str {
        "aws"
    }

    fn make_bucket(&self, bucket: &str) -> Result<()> {
        output(&mut self.s3(&["mb", &format!("s3://{bucket}")])).map(drop)
    }

    fn copy_in(&self, from: &Path, bucket: &str, prefix: &str) -> Result<()> {
        let to = format!("s3://{bucket}/{prefix}/");
        output(self.s3(&["cp", "--recursive", "--only-show-errors"]).arg(from).arg(to)).map(drop)
    }

    fn list(&self, bucket: &str, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let below = format!("{prefix}/");
        let text = output(&mut self.s3(&["ls", "--recursive", &format!("s3://{bucket}/{below}")]))?;
        // 2026-01-02 03:04:05       1234 tree/a name
        text.lines()
            .map(|line| {
                let bad = || format!("unexpected line {line:?}");
                let rest = line.get(19..).with_context(bad)?.trim_start();
                let (size, key) = rest.split_once(' ').with_context(bad)?;
                Ok((key.strip_prefix(&below).with_context(bad)?.to_owned(), size.parse().with_context(bad)?))
            })
            .collect()
    }

    fn copy_out(&self, bucket: &str, prefix: &str, to: &Path) -> Result<()> {
        let from = format!("s3://{bucket}/{prefix}/");
        output(self.s3(&["cp", "--recursive", "--only-show-errors", &from]).arg(to)).map(drop)
    }
}
