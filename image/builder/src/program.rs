//! The one program of the image.

use std::{fs, path::Path, process::Command};

use crate::error::{ImageError, io, run};

/// Reads the node program, without symbols and debug information.
///
/// # Errors
/// `NotStatic` when it would need a loader, which the image does not have.
pub fn stripped(path: &Path) -> Result<Vec<u8>, ImageError> {
    let original = fs::read(path).map_err(io("read", path))?;
    if !is_static(&original) {
        return Err(ImageError::NotStatic(path.to_owned()));
    }
    let scratch = tempfile::tempdir().map_err(io("create a directory for", path))?;
    let target = scratch.path().join("node");
    let mut strip = Command::new("strip");
    strip.arg("--strip-all").arg("--enable-deterministic-archives").arg("-o").arg(&target).arg(path);
    run(&mut strip, "strip", "binutils", None)?;
    fs::read(&target).map_err(io("read", target))
}

/// An x86-64 ELF executable without a PT_INTERP program header.
fn is_static(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    const MACHINE_X86_64: [u8; 2] = [62, 0];
    let half = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let inspect = || -> Option<bool> {
        if !elf.starts_with(b"\x7fELF\x02\x01") || elf.get(18..20)? != MACHINE_X86_64 {
            return Some(false);
        }
        let table = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
        let (size, count) = (usize::from(half(54)?), usize::from(half(56)?));
        for index in 0..count {
            if word(table.checked_add(index * size)?)? == PT_INTERP {
                return Some(false);
            }
        }
        Some(count > 0)
    };
    inspect().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_a_loader_is_refused() {
        let shell = fs::read("/bin/sh").unwrap();
        assert!(!is_static(&shell), "Debian's sh is dynamically linked");
        assert!(matches!(stripped(Path::new("/bin/sh")), Err(ImageError::NotStatic(_))));
        assert!(!is_static(b"#!/bin/sh"));
    }

    #[test]
    fn a_program_of_this_workspace_is_static_and_gets_smaller() {
        let own = std::env::current_exe().unwrap();
        let size = fs::metadata(&own).unwrap().len();
        let small = stripped(&own).unwrap();
        assert!(is_static(&small) && (small.len() as u64) < size);
    }
}
