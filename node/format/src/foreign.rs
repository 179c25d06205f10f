//! Recognising what others keep on a device, so that nobody's data is formatted over by mistake.

/// Signatures as (offset, bytes, name), from the public descriptions of these formats.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (512, b"EFI PART", "a GUID partition table"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (512, b"LABELONE", "an LVM physical volume"),
    (0, b"LABELONE", "an LVM physical volume"),
    (0, b"XFSB", "an XFS file system"),
    (65536 + 64, b"_BHRfS_M", "a btrfs file system"),
    (1080, b"\x53\xef", "an ext2/3/4 file system"),
    (1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    (1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    (0, b"hsqs", "a squashfs image"),
    (4086, b"SWAPSPACE2", "a swap area"),
    (4086, b"SWAP-SPACE", "a swap area"),
    (4096, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID"),
    (0, b"\xfc\x4e\x2b\xa9", "a member of a Linux RAID"),
    (3, b"NTFS    ", "an NTFS file system"),
    (82, b"FAT32   ", "a FAT file system"),
    (54, b"FAT1", "a FAT file system"),
    (32769, b"CD001", "an ISO 9660 image"),
    (510, b"\x55\xaa", "a boot sector or partition table"),
];

/// Names what `start`, the first bytes of a device, belongs to. `None` when nothing is recognised.
#[must_use]
pub fn recognise(start: &[u8]) -> Option<&'static str> {
    SIGNATURES
        .iter()
        .find(|(offset, signature, _)| start.get(*offset..offset + signature.len()) == Some(signature))
        .map(|(_, _, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_tables_and_file_systems_are_named() {
        let mut disk = vec![0; 70_000];
        assert_eq!(recognise(&disk), None);
        assert_eq!(recognise(&[]), None);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(recognise(&disk), Some("a boot sector or partition table"));
        disk[512..520].copy_from_slice(b"EFI PART");
        assert_eq!(recognise(&disk), Some("a GUID partition table"));
    }
}
