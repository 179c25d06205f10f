//! An image of a replica's state: several SQLite files in one, checksummed.
//!
//! Version 1; integers are little-endian.
//!
//! | offset | size | field    | meaning                                                        |
//! |-------:|-----:|----------|----------------------------------------------------------------|
//! |      0 |    8 | magic    | `HFIMAGE` and a zero byte                                      |
//! |      8 |    2 | version  | 1                                                              |
//! |     10 |    2 | kind     | whose state it is: 1 catalog group, 2 control group            |
//! |     12 |    4 | files    | number of files that follow                                    |
//! |     16 |    4 | checksum | CRC-32C of bytes 0..16                                         |
//!
//! and for each file
//!
//! | offset | size | field    | meaning                                                        |
//! |-------:|-----:|----------|----------------------------------------------------------------|
//! |      0 |    8 | length   | bytes of content                                               |
//! |      8 |    2 | name     | length of the name in bytes                                    |
//! |     10 |    4 | checksum | CRC-32C of length, name length and name                        |
//! |     14 |    n | name     | UTF-8, no `/`                                                  |
//! |        |    l | content  |                                                                |
//! |        |    4 | checksum | CRC-32C of the content                                         |
//!
//! Nothing may follow the last file. Checksums find damage, not forgery: images travel over links that
//! authenticate both ends.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use rusqlite::{Connection, OpenFlags, backup::Backup};

use super::{Form, io_error, sync_dir};

const MAGIC: &[u8; 8] = b"HFIMAGE\0";
const VERSION: u16 = 1;
const NAME_SIZE_MAX: usize = 255;
const COPY_SIZE: usize = 256 * 1024;

/// Pages copied at a time out of a live database.
const BACKUP_PAGES: i32 = 1024;

/// Writes an image.
#[derive(Debug)]
pub struct ImageWriter {
    out: BufWriter<File>,
    files_left: u32,
}

impl ImageWriter {
    /// Starts the image of `files` files at `path`, which must not exist.
    ///
    /// # Errors
    /// I/O.
    pub fn create(path: &Path, kind: u16, files: u32) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(COPY_SIZE, File::create_new(path)?);
        let mut header = Vec::with_capacity(20);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&kind.to_le_bytes());
        header.extend_from_slice(&files.to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
        out.write_all(&header)?;
        Ok(Self { out, files_left: files })
    }

    /// Adds a consistent copy of an open database. The copy is first made in `scratch`, a file of this form
    /// that must not exist and is removed again.
    ///
    /// # Errors
    /// I/O, damage.
    pub fn add_database(
        &mut self,
        name: &str,
        database: &Connection,
        scratch: &Path,
        form: &Form,
    ) -> io::Result<()> {
        let copied = copy_database(database, scratch, form);
        let added = copied.and_then(|()| self.add_file(name, scratch));
        let removed = std::fs::remove_file(scratch);
        added.and(removed)
    }

    /// Adds a file that nobody writes to.
    ///
    /// # Errors
    /// I/O; `InvalidInput` when more files are added than were announced, or the name is too long.
    pub fn add_file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        self.files_left = self.files_left.checked_sub(1).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "more files than announced in the image")
        })?;
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let name_length = u16::try_from(name.len()).ok().filter(|l| usize::from(*l) <= NAME_SIZE_MAX);
        let name_length = name_length
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "file name too long for an image"))?;
        let mut header = Vec::with_capacity(14 + name.len());
        header.extend_from_slice(&length.to_le_bytes());
        header.extend_from_slice(&name_length.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header), name.as_bytes());
        header.extend_from_slice(&checksum.to_le_bytes());
        header.extend_from_slice(name.as_bytes());
        self.out.write_all(&header)?;
        let checksum = copy_exactly(&mut file.take(length), &mut self.out, length)?;
        self.out.write_all(&checksum.to_le_bytes())
    }

    /// Flushes the image.
    ///
    /// # Errors
    /// I/O; `InvalidInput` when files are missing.
    pub fn finish(self) -> io::Result<()> {
        if self.files_left > 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "fewer files than announced in the image",
            ));
        }
        self.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// Copies an open database to the file `to`, which must not exist and gets this form. Inside a read transaction the copy is of
/// that moment, whatever is written meanwhile.
///
/// # Errors
/// I/O, damage.
pub fn copy_database(database: &Connection, to: &Path, form: &Form) -> io::Result<()> {
    let wrap = |e: &rusqlite::Error| io_error("copying a database to", to, e);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = form.open(to, flags).map_err(|e| wrap(&e))?;
    // The copy is read once and thrown away: it needs neither a journal nor flushes.
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;").map_err(|e| wrap(&e))?;
    let backup = Backup::new(database, &mut copy).map_err(|e| wrap(&e))?;
    backup.run_to_completion(BACKUP_PAGES, std::time::Duration::ZERO, None).map_err(|e| wrap(&e))
}

/// Reads an image, file by file.
#[derive(Debug)]
pub struct ImageReader {
    input: BufReader<File>,
    files_left: u32,
}

impl ImageReader {
    /// Opens the image at `path`.
    ///
    /// # Errors
    /// I/O; `InvalidData` when it is not an image of this kind and version, or its header is damaged.
    pub fn open(path: &Path, kind: u16) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(COPY_SIZE, File::open(path)?);
        let mut header = [0; 20];
        read_exactly(&mut input, &mut header)?;
        if &header[..8] != MAGIC {
            return Err(invalid("not an image of a replica's state"));
        }
        let version = u16::from_le_bytes([header[8], header[9]]);
        if version != VERSION {
            return Err(invalid(&format!(
                "image of version {version}, this release knows version {VERSION}"
            )));
        }
        if crc32c::crc32c(&header[..16]).to_le_bytes() != header[16..] {
            return Err(invalid("image header is damaged"));
        }
        if u16::from_le_bytes([header[10], header[11]]) != kind {
            return Err(invalid("image of another kind of group"));
        }
        let files_left = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
        Ok(Self { input, files_left })
    }

    /// Writes the next file into `dir`, flushed and verified, and returns its name; `None` at the end.
    ///
    /// # Errors
    /// I/O; `InvalidData` when the image is damaged.
    pub fn extract_next(&mut self, dir: &Path) -> io::Result<Option<String>> {
        if self.files_left == 0 {
            let mut more = [0];
            return match self.input.read(&mut more)? {
                0 => sync_dir(dir).map(|()| None),
                _ => Err(invalid("image goes on after its last file")),
            };
        }
        self.files_left -= 1;
        let mut header = [0; 14];
        read_exactly(&mut self.input, &mut header)?;
        let (fields, checksum) = header.split_at(10);
        let length = u64::from_le_bytes(fields[..8].try_into().expect("the slice is 8 bytes"));
        let name_length = usize::from(u16::from_le_bytes([fields[8], fields[9]]));
        if name_length > NAME_SIZE_MAX {
            return Err(invalid("image holds a file name that is too long"));
        }
        let mut name = vec![0; name_length];
        read_exactly(&mut self.input, &mut name)?;
        if crc32c::crc32c_append(crc32c::crc32c(fields), &name).to_le_bytes() != checksum {
            return Err(invalid("image is damaged in the header of a file"));
        }
        let name =
            String::from_utf8(name).map_err(|_| invalid("image holds a file name that is not UTF-8"))?;
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(invalid("image holds a file name that leaves its directory"));
        }
        let mut file = File::create_new(dir.join(&name))?;
        let checksum = copy_exactly(&mut self.input, &mut file, length)?;
        let mut stored = [0; 4];
        read_exactly(&mut self.input, &mut stored)?;
        if checksum.to_le_bytes() != stored {
            return Err(invalid(&format!("image is damaged in {name}")));
        }
        file.sync_all()?;
        Ok(Some(name))
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn read_exactly(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<()> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => invalid("image ends too early"),
        _ => error,
    })
}

/// Copies `length` bytes and returns their CRC-32C.
fn copy_exactly(input: &mut impl Read, output: &mut impl Write, length: u64) -> io::Result<u32> {
    let mut buffer = vec![0; COPY_SIZE];
    let (mut left, mut checksum) = (length, 0);
    while left > 0 {
        let piece = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        read_exactly(input, &mut buffer[..piece])?;
        output.write_all(&buffer[..piece])?;
        checksum = crc32c::crc32c_append(checksum, &buffer[..piece]);
        left -= piece as u64;
    }
    Ok(checksum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(dir: &Path) -> Vec<u8> {
        let database = Connection::open_in_memory().unwrap();
        database.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (42);").unwrap();
        let path = dir.join("image");
        let mut writer = ImageWriter::create(&path, 1, 2).unwrap();
        writer.add_database("a.sqlite", &database, &dir.join("scratch"), &Form::Plain).unwrap();
        writer.add_database("b.sqlite", &database, &dir.join("scratch"), &Form::Plain).unwrap();
        writer.finish().unwrap();
        assert!(!dir.join("scratch").exists());
        std::fs::read(path).unwrap()
    }

    fn extract(bytes: &[u8]) -> io::Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, bytes).unwrap();
        std::fs::create_dir(dir.path().join("out")).unwrap();
        let mut reader = ImageReader::open(&path, 1)?;
        let mut names = Vec::new();
        while let Some(name) = reader.extract_next(&dir.path().join("out"))? {
            let database = Connection::open(dir.path().join("out").join(&name)).unwrap();
            assert_eq!(database.query_row("SELECT x FROM t", [], |r| r.get::<_, i64>(0)).unwrap(), 42);
            names.push(name);
        }
        Ok(names)
    }

    #[test]
    fn databases_survive_an_image() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(extract(&image(dir.path())).unwrap(), ["a.sqlite", "b.sqlite"]);
    }

    #[test]
    fn any_damaged_or_missing_byte_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let good = image(dir.path());
        for at in (0..good.len()).filter(|at| *at < 64 || at % 97 == 0 || *at > good.len() - 8) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert_eq!(extract(&bad).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
            assert_eq!(extract(&good[..at]).unwrap_err().kind(), io::ErrorKind::InvalidData, "cut at {at}");
        }
        let longer = [good.as_slice(), b"x"].concat();
        assert_eq!(extract(&longer).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
