//! Real S3 clients, as people run them: with certificate verification on and nothing of this machine's
//! configuration in their environment.
//!
//! Each copies a tree in, lists it and copies it back; [`round_trip`] compares every byte.

mod aws;
mod boto3;
mod duplicity;
mod js;
mod rclone;
mod restic;
mod rust;
mod s3cmd;
mod s3fs;
mod script;
mod tool;

use std::{collections::BTreeMap, fmt::Debug, fs, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};

pub use aws::Aws;
pub use boto3::Boto3;
pub use duplicity::Duplicity;
pub use js::Js;
pub use rclone::Rclone;
pub use restic::Restic;
pub use rust::Rust;
pub use s3cmd::S3cmd;
pub use s3fs::S3fs;
pub use tool::Access;

use crate::tree;

/// What a tree is stored under.
const PREFIX: &str = "tree";

/// A client program.
pub trait TreeClient: Debug {
    /// Its name, which is also its bucket's.
    fn name(&self) -> &'static str;
    /// Makes a bucket.
    ///
    /// # Errors
    /// When the program fails; its output is quoted. The same holds for the other calls.
    fn make_bucket(&self, bucket: &str) -> Result<()>;
    /// Copies the files below `from` to `bucket/prefix/`.
    ///
    /// # Errors
    /// See above.
    fn copy_in(&self, from: &Path, bucket: &str, prefix: &str) -> Result<()>;
    /// Size of every object below `bucket/prefix/`, by its path below the prefix.
    ///
    /// # Errors
    /// See above.
    fn list(&self, bucket: &str, prefix: &str) -> Result<BTreeMap<String, u64>>;
    /// Copies `bucket/prefix/` into the directory `to`.
    ///
    /// # Errors
    /// See above.
    fn copy_out(&self, bucket: &str, prefix: &str, to: &Path) -> Result<()>;
}

/// Every client, speaking to the same node; `scratch` takes their configuration files.
///
/// # Errors
/// When a configuration file cannot be written.
pub fn all(access: &Access, scratch: &Path) -> Result<Vec<Box<dyn TreeClient>>> {
    Ok(vec![
        Box::new(Aws::new(access.clone())),
        Box::new(Rclone::new(access.clone())),
        Box::new(S3cmd::new(access, scratch)?),
        Box::new(Boto3::new(access.clone())),
        Box::new(Js::new(access.clone())),
        Box::new(Rust::new(access.clone())),
    ])
}

/// Copies `tree` in through a client, lists it, copies it back and compares; says how long each took.
///
/// # Errors
/// When the client fails or a listing or a byte differs.
pub fn round_trip(client: &dyn TreeClient, source: &Path, scratch: &Path) -> Result<()> {
    let bucket = format!("{}-tree", client.name());
    let wanted = tree::sizes(source)?;
    let bytes: u64 = wanted.values().sum();
    let back = scratch.join(&bucket);
    if back.exists() {
        fs::remove_dir_all(&back)?;
    }
    fs::create_dir_all(&back)?;

    let step = |what: &str, work: &dyn Fn() -> Result<()>| {
        let begun = Instant::now();
        work().with_context(|| format!("{}: {what}", client.name()))?;
        println!("{:>8} {what:<9} {:>7.1} s", client.name(), begun.elapsed().as_secs_f64());
        anyhow::Ok(())
    };
    println!("{:>8} {} files, {:.0} MB", client.name(), wanted.len(), bytes as f64 / 1e6);
    step("mb", &|| client.make_bucket(&bucket))?;
    step("copy in", &|| client.copy_in(source, &bucket, PREFIX))?;
    step("list", &|| {
        let listed = client.list(&bucket, PREFIX)?;
        let missing = wanted.iter().find(|(key, size)| listed.get(*key) != Some(size));
        ensure!(
            missing.is_none(),
            "{missing:?} is not listed so; {} of {} are listed",
            listed.len(),
            wanted.len()
        );
        ensure!(listed.len() == wanted.len(), "{} listed, {} copied", listed.len(), wanted.len());
        Ok(())
    })?;
    step("copy back", &|| client.copy_out(&bucket, PREFIX, &back))?;
    step("compare", &|| tree::assert_same(source, &back).map(drop))?;
    fs::remove_dir_all(&back)?;
    Ok(())
}
