//! Where things are: everything that a command or a test writes lies under the workspace's `target/`.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Workspace root, found from where this crate was compiled.
#[must_use]
pub fn workspace() -> PathBuf {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.ancestors().nth(2).map_or_else(|| crate_dir.to_path_buf(), Path::to_path_buf)
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, or `target` in the workspace.
#[must_use]
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// What `up` and `dev` start lives here.
#[must_use]
pub fn cluster_dir() -> PathBuf {
    target().join("cluster")
}

/// Clusters that tests start for themselves live below here, one directory each: `HOLDFAST_SCRATCH`, or
/// `blackbox` in the target directory.
#[must_use]
pub fn scratch_dir() -> PathBuf {
    env::var_os("HOLDFAST_SCRATCH").map_or_else(|| target().join("blackbox"), PathBuf::from)
}

/// Directory of the binaries that `cargo build` leaves.
#[must_use]
pub fn binaries() -> PathBuf {
    target().join("x86_64-unknown-linux-gnu").join("debug")
}

/// The node program: `HOLDFAST_NODED`, or the one that `cargo build -p holdfast-noded` leaves.
#[must_use]
pub fn noded() -> PathBuf {
    env::var_os("HOLDFAST_NODED").map_or_else(|| binaries().join("noded"), PathBuf::from)
}

/// The `holdfast` command: `HOLDFAST_COMMAND`, or the one that `cargo build -p holdfast-cli` leaves.
#[must_use]
pub fn command() -> PathBuf {
    env::var_os("HOLDFAST_COMMAND").map_or_else(|| binaries().join("holdfast"), PathBuf::from)
}

/// Interpreter of the virtual environment that `cargo xtask setup` makes for Python clients.
#[must_use]
pub fn python() -> PathBuf {
    target().join("venv").join("bin").join("python")
}
