//! The layouts of the bootable image: bytes in, bytes out.
//!
//! `holdfast-image` carries these out on files; `holdfast-appliance` reads the names and the module
//! index on the node. Nothing here opens a file, reads a clock or draws a random number, so the same
//! inputs always give the same image.
//!
//! Numbers are little-endian in all formats here except cpio, which is text.

#![forbid(unsafe_code)]

mod bytes;
pub mod bzimage;
pub mod cpio;
pub mod fat;
pub mod glob;
pub mod gpt;
pub mod modinfo;
pub mod module_index;
pub mod names;
pub mod pe;

/// A run of bytes at an offset of an image. What no extent covers is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Bytes from the start of the image.
    pub offset: u64,
    /// Content.
    pub bytes: Vec<u8>,
}
