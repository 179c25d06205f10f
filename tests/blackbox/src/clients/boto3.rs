//! `boto3` from PyPI, in the virtual environment that `cargo xtask setup` makes; driven by `clients/tree.py`.

use std::{path::Path, process::Command};

use anyhow::Result;

use super::{
    script::Script,
    tool::{Access, aws_environment, output, program},
};
use crate::{cluster_file::CLUSTER_FILE, dev::S3_DOMAIN, paths};

const SCRIPT: &str = "tests/blackbox/clients/tree.py";

/// Checks of single operations against what Amazon documents.
const CHECKS: &str = "tests/blackbox/clients/objects.py";

/// The same of what buckets do by themselves.
const BUCKET_CHECKS: &str = "tests/blackbox/clients/buckets.py";

/// The same of identities and access control.
const IDENTITY_CHECKS: &str = "tests/blackbox/clients/identity.py";

/// A Python program with boto3.
#[derive(Debug)]
pub struct Boto3(Access);

impl Boto3 {
    /// Speaks to one node.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self(access)
    }

    /// Runs the checks of `clients/objects.py`, each in buckets of its own. Returns their names.
    ///
    /// # Errors
    /// The first thing that is not as Amazon documents it.
    pub fn check_objects(&self) -> Result<String> {
        let mut command = program(paths::python(), &self.0);
        aws_environment(&mut command, &self.0);
        output(command.arg(CHECKS))
    }

    /// Runs the checks of `clients/buckets.py`, with the domain below which this cluster's buckets have names, and the
    /// port of this machine to which the cluster sends events of the target `hook`. Returns their names.
    ///
    /// # Errors
    /// The first thing that is not as Amazon documents it.
    pub fn check_buckets(&self, hook: u16) -> Result<String> {
        let mut command = program(paths::python(), &self.0);
        aws_environment(&mut command, &self.0);
        command.env("HOLDFAST_S3_DOMAIN", S3_DOMAIN).env("HOLDFAST_HOOK_PORT", hook.to_string());
        output(command.arg(BUCKET_CHECKS))
    }

    /// Runs the checks of `clients/identity.py` with the accounts of the cluster in `dir`. Returns their names.
    ///
    /// # Errors
    /// The first thing that is not as Amazon documents it.
    pub fn check_identities(&self, dir: &Path) -> Result<String> {
        let mut command = program(paths::python(), &self.0);
        aws_environment(&mut command, &self.0);
        output(command.arg(IDENTITY_CHECKS).arg(dir.join(CLUSTER_FILE)))
    }
}

impl Script for Boto3 {
    const NAME: &'static str = "boto3";

    fn program(&self) -> Command {
        let mut command = program(paths::python(), &self.0);
        aws_environment(&mut command, &self.0);
        command.arg(SCRIPT);
        command
    }
}
