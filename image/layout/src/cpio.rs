//! A cpio archive in the `newc` form, as the kernel unpacks an initramfs
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! Repeatable: owner 0, time 0, inode numbers count up in the order of insertion. Entries must be
//! inserted parents first; the kernel creates nothing by itself.

/// Archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const MODE_DIRECTORY: u32 = 0o040_000;
const MODE_FILE: u32 = 0o100_000;
const TRAILER: &str = "TRAILER!!!";

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory; `permissions` are the nine bits of chmod.
    pub fn directory(&mut self, path: &str, permissions: u32) {
        self.entry(path, MODE_DIRECTORY | permissions, &[]);
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, MODE_FILE | permissions, content);
    }

    /// Ends the archive and returns its bytes, a multiple of 512.
    pub fn finish(mut self) -> Vec<u8> {
        self.header(0, 0, 0, TRAILER);
        self.pad(512);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        assert!(!path.starts_with('/') && !path.is_empty(), "paths of an archive are relative: {path:?}");
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a file of an initramfs is below 4 GiB");
        self.header(self.entries, mode, size, path);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn header(&mut self, inode: u32, mode: u32, size: u32, name: &str) {
        let name_size = u32::try_from(name.len() + 1).expect("a path is short");
        let links = 1;
        // inode mode uid gid links mtime size devmajor devminor rdevmajor rdevminor namesize check
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
    }

    fn pad(&mut self, alignment: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new();
        archive.directory("etc", 0o755);
        archive.file("etc/name", 0o644, b"holdfast\n");
        archive.file("init", 0o755, b"x");
        archive.finish()
    }

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        assert_eq!(sample(), sample());
        assert_eq!(sample().len() % 512, 0);
    }

    #[test]
    fn headers_and_contents_are_where_the_kernel_looks() {
        let bytes = sample();
        assert_eq!(&bytes[..6], b"070701");
        assert_eq!(&bytes[14..22], b"000041ED", "mode of etc");
        assert_eq!(&bytes[110..114], b"etc\0");
        let second = 116; // 110 + 4 = 114, padded to 116
        assert_eq!(&bytes[second..second + 6], b"070701");
        assert_eq!(&bytes[second + 54..second + 62], b"00000009", "size of etc/name");
        let content = (second + 110 + "etc/name".len() + 1).next_multiple_of(4);
        assert_eq!(&bytes[content..content + 9], b"holdfast\n");
    }

    #[test]
    fn gnu_cpio_agrees_where_it_is_installed() {
        use std::io::Write as _;
        let Ok(mut child) = std::process::Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
        else {
            return;
        };
        child.stdin.take().expect("piped").write_all(&sample()).expect("cpio reads its input");
        let output = child.wait_with_output().expect("cpio ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "etc\netc/name\ninit\n");
    }
}
