//! Which bytes of a file are pages, and how they are read and written.
//!
//! A database is pages from its first byte. A write-ahead file is a header of 32 bytes and frames, each with
//! a header of 24 and a page (<https://www.sqlite.org/fileformat2.html#walformat>). The last 16 bytes of a
//! frame's header, salts and the running checksum over all pages so far, are masked: the checksum would let
//! a guess at a page be tested.

use std::ffi::c_int;

use holdfast_crypt::{PAGE_RESERVE, PageAddress, PageSealer};
use rusqlite::ffi::{SQLITE_IOERR_READ, SQLITE_IOERR_SHORT_READ, SQLITE_IOERR_WRITE, SQLITE_OK};

use crate::{DAMAGED_PAGE, PAGE_SIZE};

const WAL_HEADER: u64 = 32;
const FRAME_HEADER: usize = 24;
const FRAME: usize = FRAME_HEADER + PAGE_SIZE;
/// Where the masked block of a frame's header begins.
const MASKED: usize = 8;

/// The file below.
pub(crate) trait Below {
    /// Fills `out` from `offset`; zeroes what is beyond the end, and says `SQLITE_IOERR_SHORT_READ` then.
    fn read(&mut self, out: &mut [u8], offset: u64) -> c_int;
    fn write(&mut self, bytes: &[u8], offset: u64) -> c_int;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Database,
    WriteAhead,
}

/// One open file.
pub(crate) struct Sealed {
    kind: Kind,
    sealer: PageSealer,
    scratch: Box<[u8; PAGE_SIZE]>,
}

/// A part of a write-ahead file.
enum Part {
    Header,
    /// Of a frame's header, the bytes from here.
    FrameHeader(usize),
    Page,
    Frame,
}

impl Sealed {
    pub(crate) fn new(kind: Kind, sealer: PageSealer) -> Self {
        Self { kind, sealer, scratch: Box::new([0; PAGE_SIZE]) }
    }

    pub(crate) fn read(&mut self, below: &mut impl Below, out: &mut [u8], offset: u64) -> c_int {
        match self.kind {
            Kind::Database => self.read_database(below, out, offset),
            Kind::WriteAhead => self.read_write_ahead(below, out, offset),
        }
    }

    pub(crate) fn write(&mut self, below: &mut impl Below, bytes: &[u8], offset: u64) -> c_int {
        let page = match self.kind {
            Kind::Database if bytes.len() == PAGE_SIZE && offset.is_multiple_of(PAGE_SIZE as u64) => {
                PageAddress::Database(offset)
            }
            Kind::Database => return SQLITE_IOERR_WRITE,
            Kind::WriteAhead => match part(bytes.len(), offset) {
                Some(Part::Header) => return below.write(bytes, offset),
                Some(Part::FrameHeader(0)) if bytes.len() == FRAME_HEADER => {
                    let mut header = [0; FRAME_HEADER];
                    header.copy_from_slice(bytes);
                    self.sealer.mask(masked(&mut header));
                    return below.write(&header, offset);
                }
                Some(Part::Page) => PageAddress::WriteAhead(offset),
                _ => return SQLITE_IOERR_WRITE,
            },
        };
        self.scratch.copy_from_slice(bytes);
        self.sealer.seal(page, &mut self.scratch[..]);
        below.write(&self.scratch[..], offset)
    }

    fn read_database(&mut self, below: &mut impl Below, out: &mut [u8], offset: u64) -> c_int {
        let within = usize::try_from(offset % PAGE_SIZE as u64).expect("a remainder of a page's size");
        if within + out.len() > PAGE_SIZE {
            return SQLITE_IOERR_READ;
        }
        let start = offset - within as u64;
        let address = PageAddress::Database(start);
        if out.len() == PAGE_SIZE {
            return match below.read(out, start) {
                SQLITE_OK => open(&mut self.sealer, address, out),
                other => failed(other, out),
            };
        }
        match below.read(&mut self.scratch[..], start) {
            SQLITE_OK => {}
            other => return failed(other, out),
        }
        if open(&mut self.sealer, address, &mut self.scratch[..]) != SQLITE_OK {
            if start > 0 {
                return DAMAGED_PAGE;
            }
            // A power loss may have torn the first page while the write-ahead file still has it whole. SQLite
            // looks up here, before it reads that file, how large pages are; the page itself it reads later.
            self.scratch.copy_from_slice(&first_page_in_outline());
        }
        out.copy_from_slice(&self.scratch[within..within + out.len()]);
        SQLITE_OK
    }

    fn read_write_ahead(&mut self, below: &mut impl Below, out: &mut [u8], offset: u64) -> c_int {
        match part(out.len(), offset) {
            None => SQLITE_IOERR_READ,
            Some(Part::Header) => below.read(out, offset),
            Some(Part::FrameHeader(from)) => {
                let mut header = [0; FRAME_HEADER];
                match below.read(&mut header, offset - from as u64) {
                    SQLITE_OK => {}
                    other => return failed(other, out),
                }
                self.sealer.unmask(masked(&mut header));
                out.copy_from_slice(&header[from..from + out.len()]);
                SQLITE_OK
            }
            Some(Part::Page) => match below.read(out, offset) {
                SQLITE_OK => open(&mut self.sealer, PageAddress::WriteAhead(offset), out),
                other => failed(other, out),
            },
            Some(Part::Frame) => {
                match below.read(out, offset) {
                    SQLITE_OK => {}
                    other => return failed(other, out),
                }
                let (header, page) = out.split_at_mut(FRAME_HEADER);
                self.sealer.unmask(masked(header));
                let address = PageAddress::WriteAhead(offset + FRAME_HEADER as u64);
                if open(&mut self.sealer, address, page) != SQLITE_OK {
                    // SQLite is looking for the end of what was written: this is where it is.
                    page.fill(0);
                }
                SQLITE_OK
            }
        }
    }
}

/// A read that did not bring a whole page brings none.
fn failed(code: c_int, out: &mut [u8]) -> c_int {
    if code == SQLITE_IOERR_SHORT_READ {
        out.fill(0);
    }
    code
}

/// Opens a page in place. One of zeroes was never written: a hole.
fn open(sealer: &mut PageSealer, address: PageAddress, page: &mut [u8]) -> c_int {
    if page.iter().all(|byte| *byte == 0) {
        return SQLITE_OK;
    }
    match sealer.open(address, page) {
        Ok(()) => SQLITE_OK,
        Err(_) => DAMAGED_PAGE,
    }
}

fn part(length: usize, offset: u64) -> Option<Part> {
    let Some(in_frames) = offset.checked_sub(WAL_HEADER) else {
        return (offset + length as u64 <= WAL_HEADER).then_some(Part::Header);
    };
    let within = usize::try_from(in_frames % FRAME as u64).expect("a remainder of a frame's size");
    match (within, length) {
        (0, FRAME) => Some(Part::Frame),
        (FRAME_HEADER, PAGE_SIZE) => Some(Part::Page),
        _ => (within + length <= FRAME_HEADER).then_some(Part::FrameHeader(within)),
    }
}

/// The block of a frame's header that is masked.
fn masked(header: &mut [u8]) -> &mut [u8; FRAME_HEADER - MASKED] {
    header.last_chunk_mut().expect("a frame's header is longer")
}

/// The first page of a database with our page size, reserve and write-ahead mode
/// (<https://www.sqlite.org/fileformat2.html#the_database_header>).
fn first_page_in_outline() -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&u16::try_from(PAGE_SIZE).expect("8192").to_be_bytes());
    page[18..20].fill(2);
    page[20] = u8::try_from(PAGE_RESERVE).expect("40");
    page[21..24].copy_from_slice(&[64, 32, 32]);
    page
}
