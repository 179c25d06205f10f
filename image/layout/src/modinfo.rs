//! What a kernel module says about itself: the `.modinfo` section of its ELF file.
//!
//! Reading it here replaces `depmod`: the image holds no module tools and needs none to be built.

use crate::bytes::{u16_at, u32_at, u64_at};

/// The parts of `.modinfo` that decide when and after what a module is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModInfo {
    /// Name, with `_` where the file name may have `-`.
    pub name: String,
    /// Modules whose symbols it uses.
    pub depends: Vec<String>,
    /// Device patterns it drives, and other names it answers to.
    pub aliases: Vec<String>,
    /// Modules or aliases that should be there first, though the linker does not need them.
    pub soft_before: Vec<String>,
    /// Kernel it was built for.
    pub kernel: String,
}

/// Why a file is not a module we can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModInfoError {
    /// Not ELF, not 64 bits, or cut short.
    #[error("not a whole 64-bit little-endian ELF file")]
    NotElf,
    /// No `.modinfo`, or one without a name.
    #[error("no .modinfo section with a name: not a kernel module")]
    NotAModule,
}

/// Reads the section.
///
/// # Errors
/// `NotElf`, `NotAModule`.
pub fn parse(elf: &[u8]) -> Result<ModInfo, ModInfoError> {
    let section = find_section(elf, b".modinfo")?;
    let mut info = ModInfo::default();
    for entry in section.split(|&b| b == 0) {
        let Ok(entry) = std::str::from_utf8(entry) else { continue };
        let Some((key, value)) = entry.split_once('=') else { continue };
        match key {
            "name" => info.name = canonical(value),
            "depends" => info.depends.extend(value.split(',').filter(|s| !s.is_empty()).map(canonical)),
            "alias" => info.aliases.push(value.to_owned()),
            "softdep" => info.soft_before.extend(soft_before(value)),
            "vermagic" => info.kernel = value.split(' ').next().unwrap_or_default().to_owned(),
            _ => {}
        }
    }
    if info.name.is_empty() { Err(ModInfoError::NotAModule) } else { Ok(info) }
}

/// A module's name as the kernel writes it.
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The `pre:` part of `pre: a b post: c`.
fn soft_before(value: &str) -> Vec<String> {
    let mut before = false;
    let mut found = Vec::new();
    for word in value.split_whitespace() {
        match word {
            "pre:" => before = true,
            "post:" => before = false,
            name if before => found.push(name.to_owned()),
            _ => {}
        }
    }
    found
}

fn find_section<'a>(elf: &'a [u8], wanted: &[u8]) -> Result<&'a [u8], ModInfoError> {
    const CLASS_64_LITTLE_ENDIAN: &[u8] = b"\x7fELF\x02\x01";
    const SECTION_HEADER_SIZE: usize = 64;
    if !elf.starts_with(CLASS_64_LITTLE_ENDIAN) {
        return Err(ModInfoError::NotElf);
    }
    let section = |index: u16| -> Option<(u32, &'a [u8])> {
        let table = usize::try_from(u64_at(elf, 0x28)?).ok()?;
        let at = table.checked_add(usize::from(index) * SECTION_HEADER_SIZE)?;
        let header = elf.get(at..at.checked_add(SECTION_HEADER_SIZE)?)?;
        let offset = usize::try_from(u64_at(header, 0x18)?).ok()?;
        let size = usize::try_from(u64_at(header, 0x20)?).ok()?;
        const NO_BITS: u32 = 8;
        let content =
            if u32_at(header, 4)? == NO_BITS { &[][..] } else { elf.get(offset..offset.checked_add(size)?)? };
        Some((u32_at(header, 0)?, content))
    };
    let count = u16_at(elf, 0x3c).ok_or(ModInfoError::NotElf)?;
    let names = u16_at(elf, 0x3e).and_then(section).ok_or(ModInfoError::NotElf)?.1;
    for index in 0..count {
        let (name, content) = section(index).ok_or(ModInfoError::NotElf)?;
        let name = names.get(name as usize..).ok_or(ModInfoError::NotElf)?;
        if name.split(|&b| b == 0).next() == Some(wanted) {
            return Ok(content);
        }
    }
    Err(ModInfoError::NotAModule)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A minimal ELF file with the sections null, `.shstrtab` and `.modinfo`.
    pub(crate) fn module(modinfo: &[u8]) -> Vec<u8> {
        let names = b"\0.shstrtab\0.modinfo\0";
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let names_at = elf.len();
        elf.extend_from_slice(names);
        let modinfo_at = elf.len();
        elf.extend_from_slice(modinfo);
        let table = elf.len();
        elf[0x28..0x30].copy_from_slice(&(table as u64).to_le_bytes());
        elf[0x3c..0x3e].copy_from_slice(&3_u16.to_le_bytes());
        elf[0x3e..0x40].copy_from_slice(&1_u16.to_le_bytes());
        for (name, offset, size) in [(0, 0, 0), (1, names_at, names.len()), (11, modinfo_at, modinfo.len())] {
            let mut header = [0; 64];
            header[..4].copy_from_slice(&(name as u32).to_le_bytes());
            header[4..8].copy_from_slice(&1_u32.to_le_bytes());
            header[0x18..0x20].copy_from_slice(&(offset as u64).to_le_bytes());
            header[0x20..0x28].copy_from_slice(&(size as u64).to_le_bytes());
            elf.extend_from_slice(&header);
        }
        elf
    }

    #[test]
    fn a_module_tells_its_needs() {
        let elf = module(
            b"alias=fs-ext4\0softdep=pre: crc32c post: other\0depends=mbcache,jbd2,crc-16\0name=ext4\0vermagic=6.1.0-1-amd64 SMP\0",
        );
        let info = parse(&elf).unwrap();
        assert_eq!(info.name, "ext4");
        assert_eq!(info.depends, ["mbcache", "jbd2", "crc_16"]);
        assert_eq!(info.aliases, ["fs-ext4"]);
        assert_eq!(info.soft_before, ["crc32c"]);
        assert_eq!(info.kernel, "6.1.0-1-amd64");
    }

    #[test]
    fn other_files_are_refused_and_never_panic() {
        assert_eq!(parse(b"#!/bin/sh"), Err(ModInfoError::NotElf));
        let elf = module(b"license=GPL\0");
        assert_eq!(parse(&elf), Err(ModInfoError::NotAModule));
        let whole = module(b"name=x\0");
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }
}
