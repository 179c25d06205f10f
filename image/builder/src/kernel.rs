//! Debian's generic kernel, unmodified: its modules carry signatures that this kernel, and no other,
//! trusts.
//!
//! The package comes from the machine's own apt sources, whose signatures apt verifies, and is kept in
//! the cache: a cache that holds a kernel is used as it is, so builds repeat and need no network.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use holdfast_image_layout::bzimage::{self, Compression};
use sha2::{Digest, Sha256};

use crate::error::{ImageError, io, run};

/// Where the kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelSource {
    /// The newest `linux-image-*-amd64` package in the cache; when there is none, the one that
    /// `linux-image-amd64` depends on, fetched by `apt-get download`.
    Debian,
    /// A given package file.
    Package(PathBuf),
}

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `6.1.0-56-amd64`
    pub release: String,
    /// File name of the package, which carries its version.
    pub package: String,
    /// The kernel image.
    pub bzimage: Vec<u8>,
    /// Directory with the modules, below which `kernel/` starts.
    pub modules: PathBuf,
}

/// Provides the kernel.
pub fn obtain(source: &KernelSource, cache: &Path) -> Result<Kernel, ImageError> {
    fs::create_dir_all(cache).map_err(io("create", cache))?;
    let package = match source {
        KernelSource::Package(path) => path.clone(),
        KernelSource::Debian => match newest_package(cache)? {
            Some(path) => path,
            None => download(cache)?,
        },
    };
    let name = file_name(&package);
    let unpacked = unpack(&package, cache)?;
    let release = release(&unpacked).ok_or_else(|| ImageError::NoKernel {
        problem: format!("{name} holds no boot/vmlinuz-*"),
        cache: cache.to_owned(),
    })?;
    let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    let bzimage = fs::read(&image).map_err(io("read", image))?;
    let modules = unpacked.join("lib/modules").join(&release);
    Ok(Kernel { release, package: name, bzimage, modules })
}

/// The kernel as ELF, for direct boot: the same code without the time its own decompressor takes
/// under emulation.
pub fn vmlinux(kernel: &Kernel, cache: &Path) -> Result<Vec<u8>, ImageError> {
    let digest = hex::encode(Sha256::digest(&kernel.bzimage));
    let kept = cache.join(format!("vmlinux-{}", &digest[..16]));
    let payload = bzimage::payload(&kernel.bzimage)?;
    let length = u64::from(payload.unpacked_length);
    if fs::metadata(&kept).is_ok_and(|metadata| metadata.len() == length) {
        return fs::read(&kept).map_err(io("read", kept));
    }
    if payload.compression != Compression::Xz {
        return Err(ImageError::KernelCompression(format!("{:?}", payload.compression)));
    }
    let mut xz = Command::new("xz");
    let elf =
        run(xz.args(["--decompress", "--stdout", "--format=xz"]), "xz", "xz-utils", Some(payload.stream))?;
    if elf.len() as u64 != length || !elf.starts_with(b"\x7fELF") {
        return Err(ImageError::Program { program: "xz", output: "the result is not the kernel".to_owned() });
    }
    replace(&kept, &elf)?;
    Ok(elf)
}

/// Writes a cache entry so that it is there whole or not at all.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), ImageError> {
    let directory = path.parent().expect("a cache entry lies in the cache");
    let file = tempfile::NamedTempFile::new_in(directory).map_err(io("create a file in", directory))?;
    fs::write(file.path(), content).map_err(io("write", path))?;
    file.persist(path).map_err(|error| io("rename to", path)(error.error))?;
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn is_kernel_package(name: &str) -> bool {
    name.strip_prefix("linux-image-")
        .and_then(|rest| rest.strip_suffix("_amd64.deb"))
        .and_then(|rest| rest.split('_').next())
        .is_some_and(|package| {
            package.ends_with("-amd64")
                && !package.contains("-cloud-")
                && !package.contains("-rt-")
                && package.starts_with(|c: char| c.is_ascii_digit())
        })
}

/// The package of the highest version in the cache.
fn newest_package(cache: &Path) -> Result<Option<PathBuf>, ImageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(cache).map_err(io("list", cache))? {
        let path = entry.map_err(io("list", cache))?.path();
        if is_kernel_package(&file_name(&path)) {
            found.push(path);
        }
    }
    found.sort_by_key(|path| version_key(&file_name(path)));
    Ok(found.pop())
}

/// Numbers compare as numbers, so that `-10` comes after `-9`.
fn version_key(name: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text: String = rest.chars().take_while(|c| !c.is_ascii_digit()).collect();
        rest = &rest[text.len()..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        key.push((rest[..digits].parse().unwrap_or(0), text));
        rest = &rest[digits..];
    }
    key
}

fn download(cache: &Path) -> Result<PathBuf, ImageError> {
    let no_kernel = |problem: String| ImageError::NoKernel { problem, cache: cache.to_owned() };
    let depends =
        run(Command::new("apt-cache").args(["depends", "linux-image-amd64"]), "apt-cache", "apt", None)?;
    let depends = String::from_utf8_lossy(&depends);
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| no_kernel("apt knows no package linux-image-amd64".to_owned()))?;
    run(Command::new("apt-get").args(["download", package]).current_dir(cache), "apt-get", "apt", None)
        .map_err(|error| no_kernel(error.to_string()))?;
    newest_package(cache)?.ok_or_else(|| no_kernel(format!("apt-get download {package} left no file")))
}

/// Unpacks a package once; the directory is named after the package and is complete when it exists.
fn unpack(package: &Path, cache: &Path) -> Result<PathBuf, ImageError> {
    let target = cache.join(file_name(package).trim_end_matches(".deb"));
    if target.is_dir() {
        return Ok(target);
    }
    let partial = tempfile::tempdir_in(cache).map_err(io("create a directory in", cache))?;
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(partial.path()), "dpkg-deb", "dpkg", None)?;
    match fs::rename(partial.path(), &target) {
        Ok(()) => drop(partial.keep()),
        // Another build was first; its result is the same.
        Err(_) if target.is_dir() => {}
        Err(error) => return Err(io("rename to", &target)(error)),
    }
    Ok(target)
}

fn release(unpacked: &Path) -> Option<String> {
    let entries = fs::read_dir(unpacked.join("boot")).ok()?;
    entries
        .filter_map(|entry| Some(file_name(&entry.ok()?.path())))
        .find_map(|name| name.strip_prefix("vmlinuz-").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_generic_kernels_are_taken_and_the_newest_of_them() {
        assert!(is_kernel_package("linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb"));
        assert!(!is_kernel_package("linux-image-6.1.0-56-cloud-amd64_6.1.192-2_amd64.deb"));
        assert!(!is_kernel_package("linux-image-6.1.0-56-rt-amd64_6.1.192-2_amd64.deb"));
        assert!(!is_kernel_package("linux-image-amd64_6.1.192-2_amd64.deb"));
        assert!(!is_kernel_package("linux-headers-6.1.0-56-amd64_6.1.192-2_amd64.deb"));
        let cache = tempfile::tempdir().unwrap();
        let names = [
            "linux-image-6.1.0-9-amd64_6.1.27-1_amd64.deb",
            "linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb",
        ];
        for name in names {
            fs::write(cache.path().join(name), b"").unwrap();
        }
        assert_eq!(newest_package(cache.path()).unwrap(), Some(cache.path().join(names[1])));
    }
}
