//! Builds the bootable image: rootless, repeatable bit for bit.
//!
//! In: Debian's generic kernel package, the EFI stub of systemd-boot, the statically linked node
//! program. Out, in one directory: `vmlinux` and `initrd.zst` (direct boot), `holdfast.efi` (the
//! unified kernel image), `disk.img` (GPT: ESP with the UKI, META, STATE), `manifest.json`, `sha256sums`.
//!
//! Nothing is mounted, no loop device is used, no privilege is needed: every layout is computed by
//! `holdfast-image-layout` and written to plain files. The only programs run are `apt-get` and
//! `dpkg-deb` (fetch and unpack the kernel package), `xz` (unpack the kernel), `strip` and `mke2fs`.
//!
//! Invariants:
//! - the same inputs give the same bytes: no time, no path, no random number enters an output;
//! - the initramfs holds exactly one program, and it is statically linked.

#![forbid(unsafe_code)]

mod disk;
mod error;
mod initramfs;
mod kernel;
mod modules;
mod output;
mod program;
pub mod sparse;
mod uki;

use std::path::{Path, PathBuf};

pub use error::ImageError;
pub use kernel::{Kernel, KernelSource};
pub use output::{Artifact, Manifest};

/// Debian packages the builder needs on the machine that builds.
pub fn required_packages() -> &'static [&'static str] {
    &["binutils", "e2fsprogs", "mtools", "systemd-boot-efi", "xz-utils"]
}

/// Kernel parameters of every image; `console=` and others are added for a kind of boot.
///
/// Each is there to close something (see `docs/appliance.md`); together they cost no measurable boot time.
pub const KERNEL_PARAMETERS: &str = "lockdown=confidentiality module.sig_enforce=1 slab_nomerge \
     debugfs=off iommu.passthrough=0 iommu.strict=1 mitigations=auto oops=panic panic=10 \
     efi=disable_early_pci_dma lsm=landlock,lockdown,yama,integrity,bpf consoleblank=0 quiet";

/// Sizes of the partitions of `disk.img`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionSizes {
    /// EFI system partition: room for the images of two slots and their successors.
    pub esp: u64,
    /// State file system.
    pub state: u64,
}

impl Default for PartitionSizes {
    fn default() -> Self {
        Self { esp: 1 << 30, state: 4 << 30 }
    }
}

/// What to build.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// The node program: statically linked, becomes `/init`.
    pub node_binary: PathBuf,
    /// Where the artifacts go.
    pub output_dir: PathBuf,
    /// Where the kernel package and what is derived from it alone are kept between builds.
    pub cache_dir: PathBuf,
    /// Which kernel.
    pub kernel: KernelSource,
    /// Version of the image, for os-release.
    pub version: String,
    /// Kernel command line of the UKI.
    pub command_line: String,
    /// Sizes of the partitions.
    pub partitions: PartitionSizes,
}

impl ImageSpec {
    /// The usual image: newest packaged kernel, hardened command line, console on the first serial port
    /// and the screen.
    pub fn new(node_binary: impl Into<PathBuf>, output_dir: impl Into<PathBuf>) -> Self {
        let output_dir = output_dir.into();
        Self {
            node_binary: node_binary.into(),
            cache_dir: output_dir.join("cache"),
            output_dir,
            kernel: KernelSource::Debian,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command_line: format!("{KERNEL_PARAMETERS} console=tty0 console=ttyS0,115200"),
            partitions: PartitionSizes::default(),
        }
    }
}

/// Paths of what was built.
#[derive(Debug, Clone)]
pub struct ImageArtifacts {
    /// Kernel as ELF, for PVH boot.
    pub vmlinux: PathBuf,
    /// Initramfs, zstd.
    pub initrd: PathBuf,
    /// Unified kernel image.
    pub uki: PathBuf,
    /// Sparse disk image.
    pub disk: PathBuf,
    /// Sizes and hashes.
    pub manifest: Manifest,
}

/// Builds the image.
///
/// # Errors
/// `ImageError` says which input is missing or which step failed, and what to do.
pub fn build(spec: &ImageSpec) -> Result<ImageArtifacts, ImageError> {
    let output = output::Directory::create(&spec.output_dir)?;
    let kernel = kernel::obtain(&spec.kernel, &spec.cache_dir)?;
    let program = program::stripped(&spec.node_binary)?;
    let packed = modules::select(&kernel)?;
    let os_release = os_release(&spec.version);

    let initrd = initramfs::build(&program, &packed, &os_release, &spec.cache_dir)?;
    let command_line = spec.command_line.trim();
    let uki = uki::build(&uki::Parts {
        os_release: &os_release,
        command_line,
        kernel_release: &kernel.release,
        kernel: &kernel.bzimage,
        initrd: &initrd,
    })?;

    let vmlinux = output.write("vmlinux", &kernel::vmlinux(&kernel, &spec.cache_dir)?)?;
    let initrd = output.write("initrd.zst", &initrd)?;
    let efi = output.write("holdfast.efi", &uki)?;
    let disk = disk::build(&output, "disk.img", &uki, spec.partitions)?;
    let manifest = Manifest {
        version: spec.version.clone(),
        kernel_release: kernel.release.clone(),
        kernel_package: kernel.package.clone(),
        command_line: command_line.to_owned(),
        modules: packed.names(),
        artifacts: vec![vmlinux, initrd, efi, disk],
    };
    output.write_manifest(&manifest)?;
    let path = |name: &str| spec.output_dir.join(name);
    Ok(ImageArtifacts {
        vmlinux: path("vmlinux"),
        initrd: path("initrd.zst"),
        uki: path("holdfast.efi"),
        disk: path("disk.img"),
        manifest,
    })
}

/// Artifacts of an earlier build in `output_dir`, `None` when it is not complete.
pub fn existing(output_dir: &Path) -> Option<ImageArtifacts> {
    let manifest = output::read_manifest(output_dir)?;
    let path = |name: &str| Some(output_dir.join(name)).filter(|path| path.is_file());
    Some(ImageArtifacts {
        vmlinux: path("vmlinux")?,
        initrd: path("initrd.zst")?,
        uki: path("holdfast.efi")?,
        disk: path("disk.img")?,
        manifest,
    })
}

fn os_release(version: &str) -> String {
    format!(
        "ID=holdfast\nNAME=Holdfast\nPRETTY_NAME=\"Holdfast {version}\"\nVERSION_ID={version}\nIMAGE_ID=holdfast\nIMAGE_VERSION={version}\n"
    )
}
