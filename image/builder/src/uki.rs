//! The unified kernel image: systemd's EFI stub with kernel, initramfs and command line as sections.

use std::{fs, path::Path};

use holdfast_image_layout::pe::{self, Section};

use crate::error::{ImageError, io};

const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Firmware reads, hashes and copies every byte of it; see `docs/decisions/0004-image-and-boot.md`.
const UKI_SIZE_MAX: u64 = 64 << 20;

/// What goes in.
pub struct Parts<'a> {
    pub os_release: &'a str,
    pub command_line: &'a str,
    pub kernel_release: &'a str,
    pub kernel: &'a [u8],
    pub initrd: &'a [u8],
}

/// Joins the parts.
pub fn build(parts: &Parts<'_>) -> Result<Vec<u8>, ImageError> {
    let path = Path::new(STUB);
    if !path.is_file() {
        return Err(ImageError::NoStub(path.to_owned()));
    }
    let stub = fs::read(path).map_err(io("read", path))?;
    let image = pe::append_sections(
        &stub,
        &[
            Section { name: ".osrel", content: parts.os_release.as_bytes() },
            Section { name: ".cmdline", content: parts.command_line.as_bytes() },
            Section { name: ".uname", content: parts.kernel_release.as_bytes() },
            Section { name: ".linux", content: parts.kernel },
            Section { name: ".initrd", content: parts.initrd },
        ],
    )?;
    let size = image.len() as u64;
    if size > UKI_SIZE_MAX {
        return Err(ImageError::UkiTooLarge { size, budget: UKI_SIZE_MAX });
    }
    Ok(image)
}
