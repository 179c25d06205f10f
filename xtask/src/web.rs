//! The web console: built with its own toolchain, then embedded by the node program's build.

use std::{env, fs, path::Path, process::Command, time::SystemTime};

use anyhow::{Context, Result};
use holdfast_blackbox::paths;

use crate::run::{run, say, which};

const CONSOLE: &str = "admin-web";
const SOURCES: [&str; 2] = ["src", "public"];

/// `npm ci` when the lock changed, then the build.
///
/// # Errors
/// When npm is missing or fails.
pub fn build() -> Result<()> {
    install()?;
    npm(&["run", "build"])
}

/// Builds when a source is newer than what was built.
///
/// # Errors
/// As [`build`].
pub fn refresh() -> Result<()> {
    let web = paths::workspace().join(CONSOLE);
    let built = modified(&web.join("dist/index.html"));
    let newest = newest(&web)?;
    if built.is_some_and(|built| newest.is_some_and(|newest| newest <= built)) {
        return Ok(());
    }
    say("the web console is older than its sources");
    build()
}

/// Installs the console's packages as its lock file says, unless they are.
///
/// # Errors
/// When npm is missing or fails.
pub fn install() -> Result<()> {
    install_in(Path::new(CONSOLE))
}

/// The same of any directory of the workspace that has a lock file.
///
/// # Errors
/// When npm is missing or fails.
pub fn install_in(directory: &Path) -> Result<()> {
    let directory = paths::workspace().join(directory);
    // npm writes this file at the end of an installation.
    let installed = modified(&directory.join("node_modules/.package-lock.json"));
    let locked = modified(&directory.join("package-lock.json"));
    if installed.is_some() && installed >= locked {
        return Ok(());
    }
    run(npm_command(&["ci", "--no-audit", "--no-fund"])?.current_dir(directory))
}

/// Runs npm in the console's directory.
///
/// # Errors
/// When npm is missing or fails.
pub fn npm(arguments: &[&str]) -> Result<()> {
    run(&mut npm_command(arguments)?)
}

/// npm in the console's directory, not yet started.
///
/// # Errors
/// When npm is missing.
pub fn npm_command(arguments: &[&str]) -> Result<Command> {
    let npm = which("npm").context("npm is not installed: cargo xtask setup")?;
    let mut command = Command::new(npm);
    command.args(arguments).current_dir(paths::workspace().join(CONSOLE));
    // Read by people in a log, and counted.
    command.env("NO_COLOR", "1").env_remove("FORCE_COLOR");
    if env::var_os("CI").is_none() {
        command.arg("--loglevel=error");
    }
    Ok(command)
}

/// Time of the newest file that the build reads.
fn newest(web: &Path) -> Result<Option<SystemTime>> {
    let mut newest = None;
    let mut note = |time: Option<SystemTime>| newest = newest.max(time);
    for entry in fs::read_dir(web).with_context(|| format!("{} is missing", web.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_file() {
            note(modified(&path));
        } else if SOURCES.contains(&name.as_ref()) {
            for file in holdfast_blackbox::tree::list(&path)? {
                note(modified(&path.join(file)));
            }
        }
    }
    Ok(newest)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|meta| meta.modified()).ok()
}
