//! `s3cmd`, from Debian.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    TreeClient,
    tool::{Access, output, program},
};

const PROGRAM: &str = "/usr/bin/s3cmd";

/// `s3cmd ... s3://bucket`
#[derive(Debug)]
pub struct S3cmd {
    access: Access,
    config: PathBuf,
}

impl S3cmd {
    /// Speaks to one node; its configuration file goes to `scratch`.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn new(access: &Access, scratch: &Path) -> Result<Self> {
        let config = scratch.join("s3cmd.conf");
        let host = access.authority();
        let text = format!(
            "[default]\naccess_key = {}\nsecret_key = {}\nbucket_location = {}\nhost_base = {host}\nhost_bucket = {host}\n\
             use_https = True\ncheck_ssl_certificate = True\ncheck_ssl_hostname = True\nca_certs_file = {}\n",
            access.access_key,
            access.secret_key,
            access.region,
            access.ca.display()
        );
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        Ok(Self { access: access.clone(), config })
    }

    fn s3cmd(&self, arguments: &[&str]) -> Command {
        let mut command = program(PROGRAM, &self.access);
        command.arg("--config").arg(&self.config).args(["--no-progress", "--no-preserve"]).args(arguments);
        command
    }
}

impl S3cmd {
    /// Makes `bucket/prefix/` what is below `from`: what is there in excess is deleted.
    ///
    /// # Errors
    /// When the program fails; its output is quoted. The same holds for the other calls.
    pub fn sync_in(&self, from: &Path, bucket: &str, prefix: &str) -> Result<()> {
        self.sync(&format!("{}/", from.display()), &format!("s3://{bucket}/{prefix}/"))
    }

    /// Makes the directory `to` what is below `bucket/prefix/`.
    ///
    /// # Errors
    /// See above.
    pub fn sync_out(&self, bucket: &str, prefix: &str, to: &Path) -> Result<()> {
        self.sync(&format!("s3://{bucket}/{prefix}/"), &format!("{}/", to.display()))
    }

    fn sync(&self, from: &str, to: &str) -> Result<()> {
        output(&mut self.s3cmd(&["--quiet", "sync", "--delete-removed", from, to])).map(drop)
    }
}

impl TreeClient for S3cmd {
    fn name(&self) -> &'static str {
        "s3cmd"
    }

    fn make_bucket(&self, bucket: &str) -> Result<()> {
        output(&mut self.s3cmd(&["mb", &format!("s3://{bucket}")])).map(drop)
    }

    fn copy_in(&self, from: &Path, bucket: &str, prefix: &str) -> Result<()> {
        let (from, to) = (format!("{}/", from.display()), format!("s3://{bucket}/{prefix}/"));
        output(&mut self.s3cmd(&["--quiet", "put", "--recursive", &from, &to])).map(drop)
    }

    fn list(&self, bucket: &str, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let below = format!("s3://{bucket}/{prefix}/");
        // 2026-01-02 03:04         1234  s3://bucket/tree/a name
        output(&mut self.s3cmd(&["ls", "--recursive", &below]))?
            .lines()
            .map(|line| {
                let bad = || format!("unexpected line {line:?}");
                let (left, path) = line.split_once(&below).with_context(bad)?;
                let size = left.split_whitespace().nth(2).with_context(bad)?;
                Ok((path.to_owned(), size.parse().with_context(bad)?))
            })
            .collect()
    }

    fn copy_out(&self, bucket: &str, prefix: &str, to: &Path) -> Result<()> {
        let (from, to) = (format!("s3://{bucket}/{prefix}/"), format!("{}/", to.display()));
        output(&mut self.s3cmd(&["--quiet", "get", "--recursive", &from, &to])).map(drop)
    }
}
