//! `duplicity`, from Debian: volumes of changes in a bucket, found again by their names.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::tool::{Access, aws_environment, output, program};

const PROGRAM: &str = "/usr/bin/duplicity";
/// Size of a volume in units of 10^6 bytes: small, so that a backup has several.
const VOLUME_MEGABYTES: &str = "5";

/// A backup in `bucket/prefix`; the bucket exists.
#[derive(Debug)]
pub struct Duplicity {
    access: Access,
    url: String,
}

impl Duplicity {
    /// Speaks to one node.
    #[must_use]
    pub fn new(access: Access, bucket: &str) -> Self {
        Self { access, url: format!("boto3+s3://{bucket}/backup") }
    }

    fn duplicity(&self, action: &str) -> Command {
        let mut command = program(PROGRAM, &self.access);
        aws_environment(&mut command, &self.access);
        command.arg(action).args(["--no-encryption", "--no-print-statistics", "--verbosity", "warning"]);
        command.args(["--s3-endpoint-url", &self.access.endpoint, "--s3-region-name", &self.access.region]);
        command
    }

    /// Everything below `directory`.
    ///
    /// # Errors
    /// When the program fails; its output is quoted. The same holds for the other calls.
    pub fn back_up_all(&self, directory: &Path) -> Result<()> {
        let mut command = self.duplicity("full");
        output(command.args(["--volsize", VOLUME_MEGABYTES]).arg(directory).arg(&self.url)).map(drop)
    }

    /// What changed since.
    ///
    /// # Errors
    /// See above.
    pub fn back_up_changes(&self, directory: &Path) -> Result<()> {
        let mut command = self.duplicity("incremental");
        output(command.args(["--volsize", VOLUME_MEGABYTES]).arg(directory).arg(&self.url)).map(drop)
    }

    /// Compares every byte of the backup with `directory`.
    ///
    /// # Errors
    /// See above.
    pub fn verify(&self, directory: &Path) -> Result<()> {
        output(self.duplicity("verify").args(["--compare-data", &self.url]).arg(directory)).map(drop)
    }

    /// Restores the latest state to a directory that does not exist.
    ///
    /// # Errors
    /// See above.
    pub fn restore(&self, to: &Path) -> Result<()> {
        output(self.duplicity("restore").arg(&self.url).arg(to)).map(drop)
    }

    /// Deletes all backups but the last.
    ///
    /// # Errors
    /// See above.
    pub fn keep_last(&self) -> Result<()> {
        output(self.duplicity("remove-all-but-n-full").args(["1", "--force", &self.url])).map(drop)
    }
}
