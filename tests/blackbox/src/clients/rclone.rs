//! `rclone`, from Debian.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{
    TreeClient,
    tool::{Access, output, program},
};

const PROGRAM: &str = "/usr/bin/rclone";

/// `rclone ... node:bucket`
#[derive(Debug)]
pub struct Rclone(Access);

impl Rclone {
    /// Speaks to one node.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(access)
    }

    fn rclone(&self, arguments: &[&str]) -> Command {
        let mut command = program(PROGRAM, &self.0);
        // A remote named `node`, made of environment variables alone.
        let settings = [
            ("TYPE", "s3"),
            ("PROVIDER", "Other"),
            ("ACCESS_KEY_ID", &self.0.access_key),
            ("SECRET_ACCESS_KEY", &self.0.secret_key),
            ("REGION", &self.0.region),
            ("ENDPOINT", &self.0.endpoint),
        ];
        for (name, value) in settings {
            command.env(format!("RCLONE_CONFIG_NODE_{name}"), value);
        }
        command.args(arguments).arg("--ca-cert").arg(&self.0.ca).args(["--config", "", "--retries", "1"]);
        command
    }
}

impl Rclone {
    /// Reads every object of `bucket/prefix` and compares it with the file below `with`.
    ///
    /// # Errors
    /// When the program fails or finds a difference.
    pub fn check_all_data(&self, with: &Path, bucket: &str, prefix: &str) -> Result<()> {
        output(self.rclone(&["check", "--download"]).arg(with).arg(format!("node:{bucket}/{prefix}")))
            .map(drop)
    }
}

impl TreeClient for Rclone {
    fn name(&self) -> &'static str {
        "rclone"
    }

    fn make_bucket(&self, bucket: &str) -> Result<()> {
        output(&mut self.rclone(&["mkdir", &format!("node:{bucket}")])).map(drop)
    }

    fn copy_in(&self, from: &Path, bucket: &str, prefix: &str) -> Result<()> {
        output(self.rclone(&["copy"]).arg(from).arg(format!("node:{bucket}/{prefix}"))).map(drop)
    }

    fn list(&self, bucket: &str, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let from = format!("node:{bucket}/{prefix}");
        let listing = output(&mut self.rclone(&[
            "lsf",
            "--recursive",
            "--files-only",
            "--format",
            "sp",
            "--separator",
            "|",
            &from,
        ]))?;
        listing
            .lines()
            .map(|line| {
                let (size, path) =
                    line.split_once('|').with_context(|| format!("unexpected line {line:?}"))?;
                Ok((path.to_owned(), size.parse()?))
            })
            .collect()
    }

    fn copy_out(&self, bucket: &str, prefix: &str, to: &Path) -> Result<()> {
        output(self.rclone(&["copy", &format!("node:{bucket}/{prefix}")]).arg(to)).map(drop)
    }
}
