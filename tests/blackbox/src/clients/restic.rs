//! `restic`, from Debian: a backup program whose repository is a bucket.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::tool::{Access, aws_environment, output, program};

const PROGRAM: &str = "/usr/bin/restic";

/// A repository in `bucket/prefix`.
#[derive(Debug)]
pub struct Restic {
    access: Access,
    repository: String,
}

impl Restic {
    /// Speaks to one node. The bucket is made by [`Restic::init`].
    #[must_use]
    pub fn new(access: Access, bucket: &str) -> Self {
        let repository = format!("s3:{}/{bucket}/repository", access.endpoint);
        Self { access, repository }
    }

    /// What it runs as; for a step that goes on while a test does something else.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(PROGRAM, &self.access);
        aws_environment(&mut command, &self.access);
        command
            .env("RESTIC_REPOSITORY", &self.repository)
            .env("RESTIC_PASSWORD", "correct horse battery staple")
            .args(["--no-cache", "--quiet", "--cacert"])
            .arg(&self.access.ca)
            .args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(arguments))
    }

    /// Makes bucket and repository.
    ///
    /// # Errors
    /// When the program fails; its output is quoted. The same holds for the other calls.
    pub fn init(&self) -> Result<()> {
        self.run(&["init"]).map(drop)
    }

    /// Takes a snapshot of a directory.
    ///
    /// # Errors
    /// See above.
    pub fn backup(&self, directory: &Path) -> Result<()> {
        self.run(&["backup", &directory.to_string_lossy()]).map(drop)
    }

    /// Reads everything back and compares it with what the repository says.
    ///
    /// # Errors
    /// See above.
    pub fn check_all_data(&self) -> Result<()> {
        self.run(&["check", "--read-data"]).map(drop)
    }

    /// Forgets all snapshots but the last and deletes what only they held.
    ///
    /// # Errors
    /// See above.
    pub fn keep_last(&self) -> Result<()> {
        self.run(&["forget", "--keep-last", "1", "--group-by", "", "--prune"]).map(drop)
    }

    /// Restores the last snapshot below `to`.
    ///
    /// # Errors
    /// See above.
    pub fn restore(&self, to: &Path) -> Result<()> {
        self.run(&["restore", "latest", "--target", &to.to_string_lossy()]).map(drop)
    }
}
