//! Building the programs that other commands start.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Result, ensure};
use holdfast_blackbox::paths;

use crate::{
    run::{cargo, run},
    web,
};

/// Builds the node program with an up-to-date web console in it; takes `HOLDFAST_NODED` as it is instead.
///
/// # Errors
/// When a build fails.
pub fn noded() -> Result<PathBuf> {
    if env::var_os("HOLDFAST_NODED").is_none() {
        web::refresh()?;
        build("noded")?;
    }
    let program = paths::noded();
    ensure!(program.exists(), "{} is not there", program.display());
    Ok(program)
}

/// Builds the `holdfast` command.
///
/// # Errors
/// When the build fails.
pub fn command() -> Result<()> {
    build("holdfast")
}

/// Builds the client that uses Amazon's SDK for Rust.
///
/// # Errors
/// When the build fails.
pub fn sdk_client() -> Result<()> {
    build("holdfast-sdk-client")
}

/// Builds the benchmark client.
///
/// # Errors
/// When the build fails.
pub fn bench() -> Result<Command> {
    build("holdfast-bench")?;
    Ok(Command::new(paths::binaries().join("holdfast-bench")))
}

/// Builds the benchmark of one drive against fio.
///
/// # Errors
/// When the build fails.
pub fn bench_drive() -> Result<Command> {
    build("holdfast-bench-drive")?;
    Ok(Command::new(paths::binaries().join("holdfast-bench-drive")))
}

/// Builds the nemesis.
///
/// # Errors
/// When the build fails.
pub fn nemesis() -> Result<Command> {
    build("holdfast-nemesis")?;
    Ok(Command::new(paths::binaries().join("holdfast-nemesis")))
}

/// The benchmark of the catalog.
///
/// # Errors
/// When it does not build.
pub fn bench_catalog() -> Result<Command> {
    build("holdfast-bench-catalog")?;
    Ok(Command::new(paths::binaries().join("holdfast-bench-catalog")))
}

/// The benchmark of protection.
///
/// # Errors
/// When the build fails.
pub fn bench_protection() -> Result<Command> {
    build("holdfast-bench-protection")?;
    Ok(Command::new(paths::binaries().join("holdfast-bench-protection")))
}

/// Builds the benchmark of a drive's loss.
///
/// # Errors
/// When the build fails.
pub fn bench_rebuild() -> Result<Command> {
    build("holdfast-bench-rebuild")?;
    Ok(Command::new(paths::binaries().join("holdfast-bench-rebuild")))
}

/// Builds the simulation of the whole cluster, with the bugs that can be planted in it. They are a feature that no other
/// program is built with: the crates that have them are built a second time, what is below them is not.
///
/// # Errors
/// When the build fails.
pub fn sim() -> Result<Command> {
    let mut build = cargo();
    build.args([
        "build",
        "--quiet",
        "--workspace",
        "--bin",
        "holdfast-sim",
        "--features",
        "holdfast-sim/planted",
    ]);
    run(build.current_dir(paths::workspace()))?;
    Ok(Command::new(paths::binaries().join("holdfast-sim")))
}

/// Builds one program. All packages are selected, so that dependencies have the same features whatever is built:
/// with `--package` each selection would build most of them again.
fn build(program: &str) -> Result<()> {
    run(cargo().args(["build", "--quiet", "--workspace", "--bin", program]).current_dir(paths::workspace()))
}
