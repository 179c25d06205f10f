//! Where a bzImage keeps the compressed kernel (Linux x86 boot protocol,
//! Documentation/x86/boot.rst, protocol 2.08 and later).
//!
//! | offset | size | field          | meaning                                              |
//! |-------:|-----:|----------------|------------------------------------------------------|
//! |  0x1f1 |    1 | setup_sects    | size of the setup code in sectors, 0 means 4         |
//! |  0x202 |    4 | header         | `HdrS`                                               |
//! |  0x206 |    2 | version        | boot protocol                                        |
//! |  0x248 |    4 | payload_offset | of the payload, from the end of the setup code       |
//! |  0x24c |    4 | payload_length | its length; the last 4 bytes are the unpacked length |

use crate::bytes::{u16_at, u32_at};

/// Compression of a kernel payload, by its magic number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// XZ, Debian's choice for the generic kernel.
    Xz,
    /// Zstandard.
    Zstd,
    /// gzip.
    Gzip,
    /// LZ4, legacy frame.
    Lz4,
}

/// The compressed kernel in a bzImage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// How it is compressed.
    pub compression: Compression,
    /// The compressed stream alone.
    pub stream: &'a [u8],
    /// Length of the ELF file in it, in bytes.
    pub unpacked_length: u32,
}

/// Why a file is not a usable bzImage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BzImageError {
    /// No boot header.
    #[error("not a Linux bzImage (no HdrS header)")]
    NotABzImage,
    /// Too old to say where the payload is.
    #[error("boot protocol {0:#06x} does not name its payload; 2.08 or later is needed")]
    TooOld(u16),
    /// The header points outside the file.
    #[error("the payload lies outside the file")]
    Truncated,
    /// Compression we do not know.
    #[error("the payload has unknown compression (magic {0:02x?})")]
    UnknownCompression([u8; 4]),
}

const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;

/// Finds the payload.
///
/// # Errors
/// `NotABzImage` or `TooOld` for other files, `Truncated` for a cut one, `UnknownCompression`.
pub fn payload(image: &[u8]) -> Result<Payload<'_>, BzImageError> {
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(BzImageError::NotABzImage);
    }
    let version = u16_at(image, 0x206).ok_or(BzImageError::Truncated)?;
    if version < PROTOCOL_WITH_PAYLOAD {
        return Err(BzImageError::TooOld(version));
    }
    let setup_sectors = match image[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let offset = u32_at(image, 0x248).ok_or(BzImageError::Truncated)? as usize;
    let length = u32_at(image, 0x24c).ok_or(BzImageError::Truncated)? as usize;
    let start = (setup_sectors + 1) * 512 + offset;
    let payload = image.get(start..start + length).ok_or(BzImageError::Truncated)?;
    let (stream, unpacked) = payload.split_last_chunk::<4>().ok_or(BzImageError::Truncated)?;
    Ok(Payload { compression: compression(stream)?, stream, unpacked_length: u32::from_le_bytes(*unpacked) })
}

fn compression(stream: &[u8]) -> Result<Compression, BzImageError> {
    let magic = *stream.first_chunk::<4>().ok_or(BzImageError::Truncated)?;
    match magic {
        [0xfd, b'7', b'z', b'X'] => Ok(Compression::Xz),
        [0x28, 0xb5, 0x2f, 0xfd] => Ok(Compression::Zstd),
        [0x1f, 0x8b, ..] => Ok(Compression::Gzip),
        [0x02, 0x21, 0x4c, 0x18] => Ok(Compression::Lz4),
        other => Err(BzImageError::UnknownCompression(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024 + 16];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend_from_slice(payload);
        image
    }

    #[test]
    fn the_payload_is_found_without_its_length_suffix() {
        let image = image(b"\xfd7zXZ\0stream\x10\x00\x00\x00");
        let found = payload(&image).unwrap();
        assert_eq!(found.compression, Compression::Xz);
        assert_eq!(found.stream, b"\xfd7zXZ\0stream");
        assert_eq!(found.unpacked_length, 16);
    }

    #[test]
    fn other_files_and_cut_files_are_refused() {
        assert_eq!(payload(b"\x7fELF"), Err(BzImageError::NotABzImage));
        let mut cut = image(b"\xfd7zXZ\0stream\x10\x00\x00\x00");
        cut.pop();
        assert_eq!(payload(&cut), Err(BzImageError::Truncated));
        let mut old = image(b"\xfd7zXZ\0");
        old[0x206] = 0x07;
        assert_eq!(payload(&old), Err(BzImageError::TooOld(0x0207)));
    }
}
