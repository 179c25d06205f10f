//! Clients that are libraries: a program of ours in the library's language drives each, with the same four commands.
//!
//! `mb BUCKET`, `in BUCKET PREFIX DIR`, `ls BUCKET PREFIX` (prints {path below the prefix: size} as JSON) and
//! `out BUCKET PREFIX DIR`.

use std::{collections::BTreeMap, fmt::Debug, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{TreeClient, tool::output};

/// A program that knows the four commands.
pub(super) trait Script: Debug {
    /// Name of the client.
    const NAME: &'static str;

    /// The program, with everything but its arguments.
    fn program(&self) -> Command;
}

impl<S: Script> TreeClient for S {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn make_bucket(&self, bucket: &str) -> Result<()> {
        output(self.program().args(["mb", bucket])).map(drop)
    }

    fn copy_in(&self, from: &Path, bucket: &str, prefix: &str) -> Result<()> {
        output(self.program().args(["in", bucket, prefix]).arg(from)).map(drop)
    }

    fn list(&self, bucket: &str, prefix: &str) -> Result<BTreeMap<String, u64>> {
        let text = output(self.program().args(["ls", bucket, prefix]))?;
        serde_json::from_str(&text).context("the program's listing")
    }

    fn copy_out(&self, bucket: &str, prefix: &str, to: &Path) -> Result<()> {
        output(self.program().args(["out", bucket, prefix]).arg(to)).map(drop)
    }
}
