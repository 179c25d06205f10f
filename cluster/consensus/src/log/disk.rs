//! The files below the log: a directory of numbered segments. A test puts a lying disk in its place.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

/// A directory of segments.
pub(crate) trait Disk: Send + Sync + 'static {
    /// Numbers of all segments, ascending.
    fn segments(&self) -> io::Result<Vec<u64>>;

    /// Opens an existing segment.
    fn open(&self, number: u64) -> io::Result<Arc<dyn Segment>>;

    /// Creates a segment of `size` bytes: `header`, then zeros. Name, size and content are durable on
    /// return; after a crash the segment is there whole or not at all.
    fn create(&self, number: u64, size: u64, header: &[u8]) -> io::Result<Arc<dyn Segment>>;

    /// Cuts a segment to `length` bytes, durably.
    fn cut(&self, number: u64, length: u64) -> io::Result<()>;

    /// Removes a segment, durably.
    fn remove(&self, number: u64) -> io::Result<()>;
}

/// One segment.
pub(crate) trait Segment: Send + Sync {
    /// The whole content.
    fn read_all(&self) -> io::Result<Vec<u8>>;
    /// Fills `buffer` from `offset` on.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`, inside the size the segment was created with.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Returns when everything written is on stable storage.
    fn flush(&self) -> io::Result<()>;
}

/// Segments as files of one directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

const SUFFIX: &str = ".log";
const SUFFIX_NEW: &str = ".new";

/// Segments are filled with zeros in pieces of this many bytes.
const FILL_BYTES: usize = 1024 * 1024;

impl Directory {
    /// Opens `path`, creating it when missing. Segments whose creation was cut short are removed.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&path)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(SUFFIX_NEW) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { path })
    }

    fn name(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016x}{SUFFIX}"))
    }
}

impl Disk for Directory {
    fn segments(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            numbers.extend(number.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn open(&self, number: u64) -> io::Result<Arc<dyn Segment>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.name(number))?))
    }

    fn create(&self, number: u64, size: u64, header: &[u8]) -> io::Result<Arc<dyn Segment>> {
        let unfinished = self.path.join(format!("{number:016x}{SUFFIX_NEW}"));
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&unfinished)?;
        // Written zeros, not a hole: a flush inside them has no block to allocate and no size to
        // record, so it is one device write and no file system transaction.
        let zeros = vec![0; FILL_BYTES];
        let mut left = usize::try_from(size).map_err(io::Error::other)?;
        while left > 0 {
            let piece = left.min(FILL_BYTES);
            file.write_all(&zeros[..piece])?;
            left -= piece;
        }
        file.write_all_at(header, 0)?;
        file.sync_all()?;
        fs::rename(&unfinished, self.name(number))?;
        File::open(&self.path)?.sync_all()?;
        Ok(Arc::new(file))
    }

    fn cut(&self, number: u64, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.name(number))?;
        file.set_len(length)?;
        file.sync_all()
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.name(number))?;
        File::open(&self.path)?.sync_all()
    }
}

impl Segment for File {
    fn read_all(&self) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.metadata()?.len()).map_err(io::Error::other)?;
        let mut content = vec![0; size];
        self.read_exact_at(&mut content, 0)?;
        Ok(content)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn flush(&self) -> io::Result<()> {
        self.sync_data()
    }
}
