//! What can go wrong in a build, and what to do about it.

use std::path::PathBuf;

use holdfast_image_layout::{
    bzimage::BzImageError, fat::FatError, gpt::GptError, modinfo::ModInfoError, module_index::IndexError,
    pe::PeError,
};

/// A failed build.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A program is not installed.
    #[error("the program {program} is missing; install the Debian package {package}")]
    MissingProgram {
        /// Its name.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
    /// A program ended badly.
    #[error("{program} failed: {output}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// The kernel package could not be had.
    #[error(
        "no kernel package: {problem}; run `apt-get update`, or put a linux-image-*-amd64 .deb into {cache}"
    )]
    NoKernel {
        /// What happened.
        problem: String,
        /// The directory that may hold one.
        cache: PathBuf,
    },
    /// The EFI stub is not installed.
    #[error("no EFI stub at {0}; install the Debian package systemd-boot-efi")]
    NoStub(PathBuf),
    /// The kernel lacks a module of our list.
    #[error("the kernel has no module {0}, neither as a file nor built in; adapt the module list")]
    NoModule(String),
    /// A module file is not what it should be.
    #[error("module {path}")]
    BadModule {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: ModInfoError,
    },
    /// The modules do not fit together.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The node program needs a loader.
    #[error("{0} is not a statically linked x86-64 program; build it for the workspace's target")]
    NotStatic(PathBuf),
    /// The kernel is not a bzImage we know.
    #[error("the kernel image")]
    Kernel(#[from] BzImageError),
    /// The kernel is compressed in a way the builder does not unpack.
    #[error("the kernel is compressed with {0}; the builder unpacks XZ only")]
    KernelCompression(String),
    /// The UKI could not be joined.
    #[error("joining the unified kernel image")]
    Uki(#[from] PeError),
    /// The UKI is over its budget.
    #[error(
        "the unified kernel image has {size} bytes, the budget is {budget}: remove modules or shrink the program"
    )]
    UkiTooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        budget: u64,
    },
    /// The ESP could not be laid out.
    #[error("the EFI system partition")]
    Esp(#[from] FatError),
    /// The partition table could not be laid out.
    #[error("the partition table")]
    Gpt(#[from] GptError),
}

/// Attaches action and path to an I/O error.
pub(crate) fn io(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = path.into();
    move |source| ImageError::Io { action, path, source }
}

/// Runs a program to its end and returns what it wrote, with `input` on its standard input.
pub(crate) fn run(
    command: &mut std::process::Command,
    program: &'static str,
    package: &'static str,
    input: Option<&[u8]>,
) -> Result<Vec<u8>, ImageError> {
    use std::io::Write as _;
    use std::process::Stdio;
    let failed = |output: String| ImageError::Program { program, output };
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ImageError::MissingProgram { program, package },
            _ => failed(source.to_string()),
        })?;
    // The input is written beside the wait: a program may answer before it has read everything.
    let output = std::thread::scope(|scope| {
        if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
            // A program that stops reading says why in its exit status.
            scope.spawn(move || pipe.write_all(input).ok());
        }
        child.wait_with_output()
    })
    .map_err(|source| failed(source.to_string()))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(failed(format!("{}, {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}
