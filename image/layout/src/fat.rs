//! A FAT32 volume written in one go (Microsoft FAT specification 1.03; UEFI 2.10, section 13.3).
//!
//! Repeatable: the volume id is given, all times are the same constant, files lie contiguously in the
//! order given. Names must be 8.3 in upper case, which is all an ESP of ours needs; longer ones are refused
//! rather than encoded.
//!
//! | region       | place                                                              |
//! |--------------|--------------------------------------------------------------------|
//! | boot sector  | 0, copy at 6                                                       |
//! | FSInfo       | 1, copy at 7                                                       |
//! | FAT 1, FAT 2 | from sector 32                                                     |
//! | clusters     | behind the FATs; cluster 2 is the root directory                   |

use std::collections::BTreeMap;

use crate::Extent;
use crate::bytes::put;

const SECTOR: u64 = 512;
const SECTORS_PER_CLUSTER: u64 = 8;
/// Bytes of a cluster.
pub const CLUSTER: u64 = SECTOR * SECTORS_PER_CLUSTER;
const RESERVED_SECTORS: u64 = 32;
const FATS: u64 = 2;
/// Fewer clusters would make it FAT16 in the eyes of firmware.
const CLUSTERS_MIN: u64 = 65_525;
const CLUSTERS_MAX: u64 = 0x0fff_fff5;
const END_OF_CHAIN: u32 = 0x0fff_ffff;
const ENTRY_SIZE: usize = 32;
const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;
const ATTRIBUTE_ARCHIVE: u8 = 0x20;
/// 1980-01-01, the first date FAT can say.
const DATE: [u8; 2] = [0x21, 0x00];
const ROOT_CLUSTER: u32 = 2;

/// What to write.
#[derive(Debug)]
pub struct Volume<'a> {
    /// Label, at most 11 characters.
    pub label: &'a str,
    /// Serial number.
    pub id: u32,
    /// Size of the partition in bytes.
    pub size: u64,
    /// Sectors before the partition.
    pub hidden_sectors: u32,
    /// Path with `/`, content.
    pub files: &'a [(&'a str, &'a [u8])],
}

/// Why a volume cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FatError {
    /// Size.
    #[error(
        "{size} bytes make no FAT32 volume: it needs 65525 clusters of 4 KiB and has a 32-bit sector count"
    )]
    Size {
        /// Size asked for.
        size: u64,
    },
    /// Name.
    #[error("{0:?} is not an upper-case 8.3 name")]
    Name(String),
    /// Full.
    #[error("the files need {needed} clusters of 4 KiB, the volume has {available}")]
    Full {
        /// Clusters needed.
        needed: u64,
        /// Clusters there are.
        available: u64,
    },
    /// Two files of one name, or a file where another has a directory.
    #[error("{0:?} is named twice")]
    Twice(String),
}

enum Node<'a> {
    File(&'a [u8]),
    Directory(BTreeMap<[u8; 11], Node<'a>>),
}

impl Volume<'_> {
    /// The parts of the volume that are not zero; offsets count from the start of the partition.
    ///
    /// # Errors
    /// See `FatError`.
    pub fn encode(&self) -> Result<Vec<Extent>, FatError> {
        let geometry = Geometry::of(self.size)?;
        let label = pad_label(self.label)?;
        let root = self.tree()?;
        let mut writer =
            Writer { geometry, fat: vec![0x0fff_fff8, END_OF_CHAIN], extents: Vec::new(), used: 0 };
        let needed = clusters_of(&root, true);
        if needed > geometry.clusters {
            return Err(FatError::Full { needed, available: geometry.clusters });
        }
        let mut root_head = Vec::new();
        root_head.extend_from_slice(&entry(&label, ATTRIBUTE_VOLUME, 0, 0));
        let first = writer.directory(&root, None, root_head);
        assert_eq!(first, ROOT_CLUSTER, "the root directory is allocated first");

        let mut extents = vec![self.boot_region(geometry, &label, writer.used)];
        let mut fat: Vec<u8> = writer.fat.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        fat.resize(fat.len().next_multiple_of(SECTOR as usize), 0);
        for copy in 0..FATS {
            let offset = (RESERVED_SECTORS + copy * geometry.fat_sectors) * SECTOR;
            extents.push(Extent { offset, bytes: fat.clone() });
        }
        extents.append(&mut writer.extents);
        Ok(extents)
    }

    fn tree(&self) -> Result<BTreeMap<[u8; 11], Node<'_>>, FatError> {
        let mut root = BTreeMap::new();
        for (path, content) in self.files {
            let mut directory = &mut root;
            let mut parts = path.split('/').peekable();
            while let Some(part) = parts.next() {
                let name = short_name(part)?;
                if parts.peek().is_none() {
                    if directory.insert(name, Node::File(content)).is_some() {
                        return Err(FatError::Twice((*path).to_owned()));
                    }
                    break;
                }
                let node = directory.entry(name).or_insert_with(|| Node::Directory(BTreeMap::new()));
                let Node::Directory(next) = node else { return Err(FatError::Twice((*path).to_owned())) };
                directory = next;
            }
        }
        Ok(root)
    }

    fn boot_region(&self, geometry: Geometry, label: &[u8; 11], used: u64) -> Extent {
        let mut boot = [0; SECTOR as usize];
        put(&mut boot, 0, &[0xeb, 0x58, 0x90]);
        put(&mut boot, 3, b"HOLDFAST");
        put(&mut boot, 11, &(SECTOR as u16).to_le_bytes());
        boot[13] = SECTORS_PER_CLUSTER as u8;
        put(&mut boot, 14, &(RESERVED_SECTORS as u16).to_le_bytes());
        boot[16] = FATS as u8;
        boot[21] = 0xf8;
        put(&mut boot, 24, &63_u16.to_le_bytes());
        put(&mut boot, 26, &255_u16.to_le_bytes());
        put(&mut boot, 28, &self.hidden_sectors.to_le_bytes());
        put(&mut boot, 32, &geometry.sectors.to_le_bytes());
        let fat_sectors = u32::try_from(geometry.fat_sectors).expect("bounded by the sector count");
        put(&mut boot, 36, &fat_sectors.to_le_bytes());
        put(&mut boot, 44, &ROOT_CLUSTER.to_le_bytes());
        put(&mut boot, 48, &1_u16.to_le_bytes());
        put(&mut boot, 50, &6_u16.to_le_bytes());
        boot[64] = 0x80;
        boot[66] = 0x29;
        put(&mut boot, 67, &self.id.to_le_bytes());
        put(&mut boot, 71, label);
        put(&mut boot, 82, b"FAT32   ");
        put(&mut boot, 510, &[0x55, 0xaa]);

        let mut info = [0; SECTOR as usize];
        let free = u32::try_from(geometry.clusters - used).expect("bounded by CLUSTERS_MAX");
        let next_free = u32::try_from(used).expect("bounded by CLUSTERS_MAX") + ROOT_CLUSTER;
        put(&mut info, 0, b"RRaA");
        put(&mut info, 484, b"rrAa");
        put(&mut info, 488, &free.to_le_bytes());
        put(&mut info, 492, &next_free.to_le_bytes());
        put(&mut info, 510, &[0x55, 0xaa]);

        let mut bytes = vec![0; 8 * SECTOR as usize];
        for copy in [0, 6] {
            put(&mut bytes, copy * SECTOR as usize, &boot);
            put(&mut bytes, (copy + 1) * SECTOR as usize, &info);
        }
        Extent { offset: 0, bytes }
    }
}

#[derive(Clone, Copy)]
struct Geometry {
    sectors: u32,
    fat_sectors: u64,
    clusters: u64,
}

impl Geometry {
    fn of(size: u64) -> Result<Self, FatError> {
        let sectors = u32::try_from(size / SECTOR).map_err(|_| FatError::Size { size })?;
        let after_reserved =
            u64::from(sectors).checked_sub(RESERVED_SECTORS).ok_or(FatError::Size { size })?;
        // A FAT that could map every remaining sector group is at most a few sectors too large.
        let entries_max = after_reserved / SECTORS_PER_CLUSTER + 2;
        let fat_sectors = (entries_max * 4).div_ceil(SECTOR);
        let clusters = after_reserved.saturating_sub(FATS * fat_sectors) / SECTORS_PER_CLUSTER;
        if !(CLUSTERS_MIN..=CLUSTERS_MAX).contains(&clusters) {
            return Err(FatError::Size { size });
        }
        Ok(Self { sectors, fat_sectors, clusters })
    }

    fn offset_of(self, cluster: u32) -> u64 {
        let data = RESERVED_SECTORS + FATS * self.fat_sectors;
        (data + u64::from(cluster - ROOT_CLUSTER) * SECTORS_PER_CLUSTER) * SECTOR
    }
}

struct Writer {
    geometry: Geometry,
    fat: Vec<u32>,
    extents: Vec<Extent>,
    used: u64,
}

impl Writer {
    /// Allocates a contiguous chain and returns its first cluster; 0 for an empty file.
    fn allocate(&mut self, clusters: u64) -> u32 {
        if clusters == 0 {
            return 0;
        }
        let first = u32::try_from(self.fat.len()).expect("the caller checked the number of clusters");
        for index in 1..clusters {
            self.fat.push(first + u32::try_from(index).expect("checked likewise"));
        }
        self.fat.push(END_OF_CHAIN);
        self.used += clusters;
        first
    }

    fn directory(&mut self, nodes: &BTreeMap<[u8; 11], Node<'_>>, parent: Option<u32>, head: Vec<u8>) -> u32 {
        let own = self.allocate(directory_clusters(nodes));
        let mut bytes = head;
        if let Some(parent) = parent {
            // A parent that is the root directory is written as cluster 0.
            let parent = if parent == ROOT_CLUSTER { 0 } else { parent };
            bytes.extend_from_slice(&entry(b".          ", ATTRIBUTE_DIRECTORY, own, 0));
            bytes.extend_from_slice(&entry(b"..         ", ATTRIBUTE_DIRECTORY, parent, 0));
        }
        for (name, node) in nodes {
            let line = match node {
                Node::File(content) => {
                    let first = self.allocate((content.len() as u64).div_ceil(CLUSTER));
                    if first != 0 {
                        let offset = self.geometry.offset_of(first);
                        self.extents.push(Extent { offset, bytes: content.to_vec() });
                    }
                    let size = u32::try_from(content.len()).expect("it fits a volume of 2^32 sectors' count");
                    entry(name, ATTRIBUTE_ARCHIVE, first, size)
                }
                Node::Directory(children) => {
                    let first = self.directory(children, Some(own), Vec::new());
                    entry(name, ATTRIBUTE_DIRECTORY, first, 0)
                }
            };
            bytes.extend_from_slice(&line);
        }
        self.extents.push(Extent { offset: self.geometry.offset_of(own), bytes });
        own
    }
}

/// Room for the entries, two of its own (or the label), and the zero entry that ends it.
fn directory_clusters(nodes: &BTreeMap<[u8; 11], Node<'_>>) -> u64 {
    (((nodes.len() + 3) * ENTRY_SIZE) as u64).div_ceil(CLUSTER)
}

fn clusters_of(nodes: &BTreeMap<[u8; 11], Node<'_>>, with_directory: bool) -> u64 {
    let own = if with_directory { directory_clusters(nodes) } else { 0 };
    let children = nodes.values().map(|node| match node {
        Node::File(content) => (content.len() as u64).div_ceil(CLUSTER),
        Node::Directory(children) => clusters_of(children, true),
    });
    own + children.sum::<u64>()
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u32, size: u32) -> [u8; ENTRY_SIZE] {
    let mut entry = [0; ENTRY_SIZE];
    put(&mut entry, 0, name);
    entry[11] = attributes;
    for date_at in [16, 18, 24] {
        put(&mut entry, date_at, &DATE);
    }
    put(&mut entry, 20, &((cluster >> 16) as u16).to_le_bytes());
    put(&mut entry, 26, &(cluster as u16).to_le_bytes());
    put(&mut entry, 28, &size.to_le_bytes());
    entry
}

fn short_name(name: &str) -> Result<[u8; 11], FatError> {
    let refused = || FatError::Name(name.to_owned());
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let legal = |part: &str| part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    if base.is_empty() || base.len() > 8 || extension.len() > 3 || !legal(base) || !legal(extension) {
        return Err(refused());
    }
    let mut padded = [b' '; 11];
    padded[..base.len()].copy_from_slice(base.as_bytes());
    padded[8..8 + extension.len()].copy_from_slice(extension.as_bytes());
    Ok(padded)
}

fn pad_label(label: &str) -> Result<[u8; 11], FatError> {
    let mut padded = [b' '; 11];
    let bytes = label.as_bytes();
    if bytes.len() > padded.len() || !bytes.iter().all(|b| b.is_ascii_uppercase() || *b == b' ') {
        return Err(FatError::Name(label.to_owned()));
    }
    padded[..bytes.len()].copy_from_slice(bytes);
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 300 << 20;

    fn image(extents: &[Extent]) -> Vec<u8> {
        let mut image = vec![0; SIZE as usize];
        for extent in extents {
            put(&mut image, extent.offset as usize, &extent.bytes);
        }
        image
    }

    #[test]
    fn no_two_extents_overlap() {
        let files: &[(&str, &[u8])] = &[("EFI/BOOT/BOOTX64.EFI", &[7; 10_000]), ("EMPTY", b"")];
        let volume = Volume { label: "HOLDFAST", id: 1, size: SIZE, hidden_sectors: 2048, files };
        let mut extents = volume.encode().unwrap();
        extents.sort_by_key(|extent| extent.offset);
        for pair in extents.windows(2) {
            assert!(pair[0].offset + pair[0].bytes.len() as u64 <= pair[1].offset);
        }
    }

    #[test]
    fn mtools_reads_the_files_back() {
        let content: Vec<u8> = (0..100_000_u32).flat_map(|i| i.to_le_bytes()).collect();
        let files: &[(&str, &[u8])] = &[
            ("EFI/BOOT/BOOTX64.EFI", &content),
            ("EFI/SYSTEMD/A.TXT", b"small"),
            ("ROOT.TXT", b"at the root"),
        ];
        let volume = Volume { label: "HOLDFAST", id: 0x1234_abcd, size: SIZE, hidden_sectors: 2048, files };
        let path = std::env::temp_dir().join(format!("holdfast-fat-{}.img", std::process::id()));
        std::fs::write(&path, image(&volume.encode().unwrap())).unwrap();
        for (name, expected) in files {
            let output = std::process::Command::new("mtype")
                .arg("-i")
                .arg(&path)
                .arg(format!("::/{name}"))
                .output()
                .expect("mtype of the package mtools runs");
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.stdout, *expected, "{name}");
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let volume = |size, files| Volume { label: "X", id: 0, size, hidden_sectors: 0, files };
        assert!(matches!(volume(100 << 20, &[]).encode(), Err(FatError::Size { .. })));
        assert!(matches!(volume(SIZE, &[("lower", b"")]).encode(), Err(FatError::Name(_))));
        assert!(matches!(volume(SIZE, &[("A", b""), ("A", b"")]).encode(), Err(FatError::Twice(_))));
        assert!(matches!(volume(SIZE, &[("A", b""), ("A/B", b"")]).encode(), Err(FatError::Twice(_))));
        let big = vec![0; SIZE as usize];
        assert!(matches!(volume(SIZE, &[("A", &big)]).encode(), Err(FatError::Full { .. })));
    }
}
