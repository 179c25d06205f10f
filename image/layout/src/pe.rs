//! Appends sections to an EFI stub: how a unified kernel image is made (UAPI group, "Unified Kernel
//! Image"; Microsoft PE format, sections 3 and 4).
//!
//! The new section headers go into the free room after the stub's own, the contents behind its last
//! section, in file and in memory. Nothing of the stub moves. The result has no gaps between
//! sections beyond alignment, so that it can be signed as it is.

use crate::bytes::{align_up, put, u16_at, u32_at};

/// One section to append.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// `.linux`; at most 8 bytes.
    pub name: &'a str,
    /// Content.
    pub content: &'a [u8],
}

/// Why sections could not be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// Not an EFI program for 64-bit machines, or cut short.
    #[error("not a whole PE32+ file")]
    NotPe,
    /// A signature covers the file and would break.
    #[error("the stub is signed; use an unsigned one")]
    Signed,
    /// No room for headers.
    #[error("the stub has room for {room} more section headers, {wanted} are needed")]
    NoRoom {
        /// Free headers.
        room: usize,
        /// Sections to append.
        wanted: usize,
    },
    /// A name longer than the format allows.
    #[error("section name {0:?} is longer than 8 bytes")]
    LongName(String),
    /// The result would pass 4 GiB.
    #[error("section {0} makes the image larger than 4 GiB")]
    TooLarge(String),
}

const SECTION_HEADER_SIZE: usize = 40;
/// Contents start on a page in memory, whatever smaller alignment the stub has.
const PAGE: u64 = 4096;
/// IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ
const READ_ONLY_DATA: u32 = 0x4000_0040;

struct Headers {
    coff: usize,
    optional: usize,
    table: usize,
    count: usize,
    file_alignment: u64,
    section_alignment: u64,
    headers_size: usize,
}

/// Returns `stub` with `sections` appended, in order.
///
/// # Errors
/// See `PeError`.
pub fn append_sections(stub: &[u8], sections: &[Section<'_>]) -> Result<Vec<u8>, PeError> {
    let headers = parse_headers(stub)?;
    let table_end = headers.table + headers.count * SECTION_HEADER_SIZE;
    let room = (headers.headers_size.saturating_sub(table_end)) / SECTION_HEADER_SIZE;
    if sections.len() > room {
        return Err(PeError::NoRoom { room, wanted: sections.len() });
    }

    // The memory image ends behind the last section; the file may hold symbols after it, which go.
    let (mut memory_end, mut file_end) = (0, headers.headers_size as u64);
    for index in 0..headers.count {
        let at = headers.table + index * SECTION_HEADER_SIZE;
        let field = |offset| u32_at(stub, at + offset).map(u64::from).ok_or(PeError::NotPe);
        memory_end = memory_end.max(field(12)? + field(8)?);
        if field(16)? > 0 {
            file_end = file_end.max(field(20)? + field(16)?);
        }
    }
    let file_end_index = usize::try_from(file_end).map_err(|_| PeError::NotPe)?;
    let mut image = stub.get(..file_end_index).ok_or(PeError::NotPe)?.to_vec();

    let alignment = headers.section_alignment.max(PAGE);
    for (index, section) in sections.iter().enumerate() {
        let too_large = || PeError::TooLarge(section.name.to_owned());
        let mut name = [0; 8];
        name.get_mut(..section.name.len())
            .ok_or_else(|| PeError::LongName(section.name.to_owned()))?
            .copy_from_slice(section.name.as_bytes());
        let address = align_up(memory_end, alignment);
        let file_offset = align_up(image.len() as u64, headers.file_alignment);
        let file_size = align_up(section.content.len() as u64, headers.file_alignment);
        memory_end = address + section.content.len() as u64;

        let narrow = |value: u64| u32::try_from(value).map_err(|_| too_large());
        let at = table_end + index * SECTION_HEADER_SIZE;
        let mut header = [0; SECTION_HEADER_SIZE];
        put(&mut header, 0, &name);
        put(&mut header, 8, &narrow(section.content.len() as u64)?.to_le_bytes());
        put(&mut header, 12, &narrow(address)?.to_le_bytes());
        put(&mut header, 16, &narrow(file_size)?.to_le_bytes());
        put(&mut header, 20, &narrow(file_offset)?.to_le_bytes());
        put(&mut header, 36, &READ_ONLY_DATA.to_le_bytes());
        put(&mut image, at, &header);

        image.resize(file_offset as usize, 0);
        image.extend_from_slice(section.content);
        image.resize((file_offset + file_size) as usize, 0);
    }

    let total = headers.count + sections.len();
    let total = u16::try_from(total).expect("the header room bounds the number of sections");
    let size = u32::try_from(align_up(memory_end, alignment)).map_err(|_| PeError::TooLarge("all".into()))?;
    put(&mut image, headers.coff + 2, &total.to_le_bytes());
    // The symbol table, if any, was behind the sections and is gone.
    put(&mut image, headers.coff + 8, &[0; 8]);
    put(&mut image, headers.optional + 56, &size.to_le_bytes());
    put(&mut image, headers.optional + 64, &[0; 4]); // checksum: optional for EFI programs
    Ok(image)
}

/// Content of a section, for tests and tools.
pub fn section<'a>(image: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let headers = parse_headers(image).ok()?;
    (0..headers.count).find_map(|index| {
        let at = headers.table + index * SECTION_HEADER_SIZE;
        let name = image.get(at..at + 8)?.split(|&b| b == 0).next()?;
        if name != wanted.as_bytes() {
            return None;
        }
        let (size, offset) = (u32_at(image, at + 8)? as usize, u32_at(image, at + 20)? as usize);
        image.get(offset..offset.checked_add(size)?)
    })
}

fn parse_headers(file: &[u8]) -> Result<Headers, PeError> {
    const PE32_PLUS: u16 = 0x20b;
    const MACHINE_X86_64: u16 = 0x8664;
    let parse = || -> Option<Headers> {
        if !file.starts_with(b"MZ") {
            return None;
        }
        let pe = u32_at(file, 0x3c)? as usize;
        if file.get(pe..pe.checked_add(4)?)? != b"PE\0\0" {
            return None;
        }
        let coff = pe + 4;
        let optional = coff + 20;
        if u16_at(file, coff)? != MACHINE_X86_64 || u16_at(file, optional)? != PE32_PLUS {
            return None;
        }
        let headers = Headers {
            coff,
            optional,
            table: optional + usize::from(u16_at(file, coff + 16)?),
            count: usize::from(u16_at(file, coff + 2)?),
            section_alignment: u64::from(u32_at(file, optional + 32)?),
            file_alignment: u64::from(u32_at(file, optional + 36)?),
            headers_size: u32_at(file, optional + 60)? as usize,
        };
        let sane = headers.file_alignment.is_power_of_two()
            && headers.section_alignment.is_power_of_two()
            && headers.headers_size <= file.len()
            && headers.table + headers.count * SECTION_HEADER_SIZE <= headers.headers_size;
        sane.then_some(headers)
    };
    let headers = parse().ok_or(PeError::NotPe)?;
    // Data directory 4 is the certificate table.
    let certificate_size = u32_at(file, headers.optional + 112 + 4 * 8 + 4).ok_or(PeError::NotPe)?;
    if certificate_size != 0 {
        return Err(PeError::Signed);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stub with one 16-byte `.text` section and room for `room` more headers.
    fn stub(room: usize) -> Vec<u8> {
        let optional_size = 112 + 16 * 8;
        let coff = 0x44;
        let optional = coff + 20;
        let table = optional + optional_size;
        let headers_size = table + (1 + room) * SECTION_HEADER_SIZE;
        let text_at = headers_size.next_multiple_of(512);
        let mut file = vec![0; text_at + 512 + 100];
        put(&mut file, 0, b"MZ");
        put(&mut file, 0x3c, &0x40_u32.to_le_bytes());
        put(&mut file, 0x40, b"PE\0\0");
        put(&mut file, coff, &0x8664_u16.to_le_bytes());
        put(&mut file, coff + 2, &1_u16.to_le_bytes());
        put(&mut file, coff + 16, &(optional_size as u16).to_le_bytes());
        put(&mut file, optional, &0x20b_u16.to_le_bytes());
        put(&mut file, optional + 32, &512_u32.to_le_bytes());
        put(&mut file, optional + 36, &512_u32.to_le_bytes());
        put(&mut file, optional + 60, &(headers_size as u32).to_le_bytes());
        put(&mut file, table, b".text");
        put(&mut file, table + 8, &16_u32.to_le_bytes());
        put(&mut file, table + 12, &0x1000_u32.to_le_bytes());
        put(&mut file, table + 16, &512_u32.to_le_bytes());
        put(&mut file, table + 20, &(text_at as u32).to_le_bytes());
        put(&mut file, text_at, b"the code");
        file
    }

    #[test]
    fn appended_sections_read_back_and_the_stub_keeps_its_own() {
        let big = vec![7; 5000];
        let sections =
            [Section { name: ".cmdline", content: b"quiet" }, Section { name: ".linux", content: &big }];
        let image = append_sections(&stub(2), &sections).unwrap();
        assert_eq!(section(&image, ".cmdline"), Some(&b"quiet"[..]));
        assert_eq!(section(&image, ".linux"), Some(&big[..]));
        assert!(section(&image, ".text").unwrap().starts_with(b"the code"));
        assert_eq!(image.len() % 512, 0);
    }

    #[test]
    fn memory_addresses_do_not_overlap_and_the_image_size_covers_them() {
        let big = vec![7; 5000];
        let sections = [Section { name: ".a", content: &big }, Section { name: ".b", content: b"x" }];
        let image = append_sections(&stub(2), &sections).unwrap();
        let headers = parse_headers(&image).unwrap();
        let mut end = 0;
        for index in 0..headers.count {
            let at = headers.table + index * SECTION_HEADER_SIZE;
            let (size, address) = (u32_at(&image, at + 8).unwrap(), u32_at(&image, at + 12).unwrap());
            assert!(address >= end && address % 512 == 0, "section {index} at {address:#x}");
            end = address + size;
        }
        assert!(u32_at(&image, headers.optional + 56).unwrap() >= end);
    }

    #[test]
    fn too_many_sections_and_other_files_are_refused() {
        let section = Section { name: ".a", content: b"" };
        assert_eq!(
            append_sections(&stub(1), &[section, section]),
            Err(PeError::NoRoom { room: 1, wanted: 2 })
        );
        assert_eq!(append_sections(b"\x7fELF", &[section]), Err(PeError::NotPe));
        let long = Section { name: ".too-long", content: b"" };
        assert_eq!(append_sections(&stub(1), &[long]), Err(PeError::LongName(".too-long".into())));
        let whole = stub(1);
        for cut in 0..whole.len() - 100 {
            assert!(append_sections(&whole[..cut], &[section]).is_err(), "cut at {cut}");
        }
    }
}
