//! `cargo xtask setup`: what the other commands need on this machine.
//!
//! As root it installs what is missing; otherwise it prints the one line that does. It is safe to run
//! again and does nothing then.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, bail};
use holdfast_blackbox::paths;

use crate::{
    run::{self, cargo, say, which},
    web,
};

/// Debian packages of the S3 clients and tools that tests use; the image builder and the harness name their own.
const CLIENT_PACKAGES: [&str; 10] = [
    "awscli",
    "duplicity",
    "fio",
    "python3-boto3",
    "python3-venv",
    "rclone",
    "restic",
    "s3cmd",
    "s3fs",
    "strace",
];
/// Programs that may come from elsewhere, and the package that brings them when they do not.
const PROGRAMS: [(&str, &str); 3] = [("node", "nodejs"), ("npm", "npm"), ("cc", "gcc")];
const PACKAGE_LISTS: &str = "/var/lib/apt/lists";
const JS_CLIENT: &str = "tests/blackbox/clients/js";
const REQUIREMENTS: &str = "tests/blackbox/clients/requirements.txt";

/// Installs or lists what is missing.
///
/// # Errors
/// When something is missing and cannot be installed.
pub fn run() -> Result<()> {
    debian_packages()?;
    rust_components()?;
    python_clients()?;
    web::install()?;
    web::install_in(Path::new(JS_CLIENT))?;
    say("everything is there");
    Ok(())
}

fn debian_packages() -> Result<()> {
    let is_root = nix::unistd::geteuid().is_root();
    // The image builder downloads the kernel package by name, so the lists must be there in any case.
    let has_lists = fs::read_dir(PACKAGE_LISTS).is_ok_and(|mut lists| {
        lists.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("_Packages")))
    });
    let missing = missing_packages()?;
    if missing.is_empty() && has_lists {
        return Ok(());
    }
    if !is_root {
        bail!(
            "run this first:\n  sudo apt-get update && sudo apt-get install --no-install-recommends {}",
            missing.join(" ")
        );
    }
    apt(&["update", "-qq"])?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing.iter().map(String::as_str));
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<()> {
    run::run(Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
}

fn missing_packages() -> Result<Vec<String>> {
    let mut wanted: Vec<&str> = CLIENT_PACKAGES.to_vec();
    wanted.extend(holdfast_image::required_packages());
    wanted.extend(holdfast_qemu::required_packages());
    wanted
        .extend(PROGRAMS.iter().filter(|(program, _)| which(program).is_none()).map(|(_, package)| package));
    wanted.sort_unstable();
    wanted.dedup();
    let output =
        Command::new("dpkg-query").args(["-W", "-f=${Package} ${db:Status-Status}\n"]).args(&wanted).output();
    let Ok(output) = output else {
        bail!(
            "this machine has no dpkg: install by hand what these Debian packages hold: {}",
            wanted.join(" ")
        );
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let installed: Vec<&str> = text.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    Ok(wanted.into_iter().filter(|package| !installed.contains(package)).map(str::to_owned).collect())
}

fn rust_components() -> Result<()> {
    for component in ["fmt", "clippy"] {
        let present =
            cargo().args([component, "--version"]).output().is_ok_and(|output| output.status.success());
        if !present {
            let name = if component == "fmt" { "rustfmt" } else { component };
            run::run(Command::new("rustup").args(["component", "add", name]))?;
        }
    }
    Ok(())
}

/// A virtual environment with the Python clients of the tests, made anew when their list changed.
fn python_clients() -> Result<()> {
    let venv = paths::target().join("venv");
    let list = paths::workspace().join(REQUIREMENTS);
    let done = venv.join("requirements.installed");
    let wanted = fs::read(&list)?;
    if paths::python().exists() && fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    // Debian's own interpreter: the package python3-venv belongs to it.
    let debian = Path::new("/usr/bin/python3");
    let python = if debian.exists() { debian } else { Path::new("python3") };
    run::run(Command::new(python).args(["-m", "venv", "--clear"]).arg(&venv))?;
    run::run(
        Command::new(paths::python())
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(&list),
    )?;
    fs::write(done, wanted)?;
    Ok(())
}
