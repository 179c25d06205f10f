//! Pages of a database file, sealed in place: what seals them goes into the bytes that the database reserves
//! at the end of each page.
//!
//! | from the end | size | field | meaning                                               |
//! |-------------:|-----:|-------|-------------------------------------------------------|
//! |           40 |   12 | prefix | random, drawn when the file is opened                |
//! |           28 |   12 | count  | of pages sealed since, big-endian                    |
//! |           16 |   16 | tag    | over the page and its address                        |
//!
//! Prefix and count are the nonce of XAES-256-GCM: whoever opens the file seals under a derived key of its own,
//! with a counter, so no crash and no restored copy makes a nonce repeat. Reading derives the keys of others
//! and keeps the latest few.

use std::sync::atomic::{AtomicU64, Ordering};

use aes_gcm::aes::{
    Aes256, Block,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use ring::aead::LessSafeKey;

use super::xaes::{self, NONCE_SIZE, PREFIX_SIZE, TAG_SIZE, Xaes};
use crate::{CryptError, secret::random_array};

/// Bytes at the end of each page that hold nonce and tag.
pub const PAGE_RESERVE: usize = NONCE_SIZE + TAG_SIZE;

/// Derived keys of other openings that are kept.
const KEYS_KEPT: usize = 8;

/// Where a page is; bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageAddress {
    /// In the database, at this offset in bytes.
    Database(u64),
    /// In its write-ahead file, at this offset in bytes.
    WriteAhead(u64),
}

/// Seals and opens the pages of one file, for one that has it open.
pub struct PageSealer {
    pages: Xaes,
    mask: Aes256,
    prefix: [u8; PREFIX_SIZE],
    own: LessSafeKey,
    sealed: AtomicU64,
    /// Latest used last.
    others: Vec<([u8; PREFIX_SIZE], LessSafeKey)>,
}

impl std::fmt::Debug for PageSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageSealer").field("sealed", &self.sealed).finish_non_exhaustive()
    }
}

impl PageSealer {
    pub(super) fn new(pages: Xaes, mask: &[u8; 32]) -> Self {
        let prefix = random_array();
        let own = pages.derived(&prefix);
        Self {
            pages,
            mask: Aes256::new(mask.into()),
            prefix,
            own,
            sealed: AtomicU64::new(0),
            others: Vec::new(),
        }
    }

    /// Seals a page in place. Its last [`PAGE_RESERVE`] bytes are overwritten.
    ///
    /// # Panics
    /// When the page is shorter than that: a bug of the caller's.
    pub fn seal(&self, at: PageAddress, page: &mut [u8]) {
        let (content, reserve) = split(page).expect("a page is longer than its reserve");
        let mut nonce = [0; NONCE_SIZE];
        nonce[..PREFIX_SIZE].copy_from_slice(&self.prefix);
        let count = self.sealed.fetch_add(1, Ordering::Relaxed);
        nonce[NONCE_SIZE - 8..].copy_from_slice(&count.to_be_bytes());
        let tag = xaes::seal(&self.own, xaes::halves(&nonce).1, &aad(at), content);
        reserve[..NONCE_SIZE].copy_from_slice(&nonce);
        reserve[NONCE_SIZE..].copy_from_slice(&tag);
    }

    /// Opens a page in place. Its last [`PAGE_RESERVE`] bytes are zero afterwards.
    ///
    /// # Errors
    /// `Refused`: the page is of another file or place, or damaged. Its bytes are unspecified then.
    pub fn open(&mut self, at: PageAddress, page: &mut [u8]) -> Result<(), CryptError> {
        const WHAT: &str = "database page";
        let (content, reserve) = split(page).ok_or(CryptError::Malformed(WHAT))?;
        let nonce: [u8; NONCE_SIZE] =
            reserve[..NONCE_SIZE].try_into().expect("the reserve is longer than a nonce");
        let (prefix, rest) = xaes::halves(&nonce);
        // The tag behind the content, where the cipher expects it.
        reserve.copy_within(NONCE_SIZE.., 0);
        let length = content.len() + TAG_SIZE;
        let opened = xaes::open(self.key(prefix), rest, &aad(at), &mut page[..length]);
        page[length - TAG_SIZE..].fill(0);
        if opened { Ok(()) } else { Err(CryptError::Refused(WHAT)) }
    }

    fn key(&mut self, prefix: [u8; PREFIX_SIZE]) -> &LessSafeKey {
        if prefix == self.prefix {
            return &self.own;
        }
        match self.others.iter().position(|(known, _)| *known == prefix) {
            Some(at) => {
                let last = self.others.len() - 1;
                self.others.swap(at, last);
            }
            None => {
                if self.others.len() == KEYS_KEPT {
                    self.others.remove(0);
                }
                self.others.push((prefix, self.pages.derived(&prefix)));
            }
        }
        &self.others.last().expect("one was just found or put there").1
    }

    /// Encrypts one block on its own (AES-256, a permutation): salts and running checksum of a frame of the
    /// write-ahead file, which never repeat and would tell something of the page.
    pub fn mask(&self, block: &mut [u8; 16]) {
        let mut bytes = Block::from(*block);
        self.mask.encrypt_block(&mut bytes);
        block.copy_from_slice(&bytes);
    }

    /// Takes back [`PageSealer::mask`].
    pub fn unmask(&self, block: &mut [u8; 16]) {
        let mut bytes = Block::from(*block);
        self.mask.decrypt_block(&mut bytes);
        block.copy_from_slice(&bytes);
    }
}

fn split(page: &mut [u8]) -> Option<(&mut [u8], &mut [u8])> {
    let content = page.len().checked_sub(PAGE_RESERVE)?;
    Some(page.split_at_mut(content))
}

fn aad(at: PageAddress) -> [u8; 9] {
    let (kind, offset) = match at {
        PageAddress::Database(offset) => (1, offset),
        PageAddress::WriteAhead(offset) => (2, offset),
    };
    let mut aad = [kind; 9];
    aad[1..].copy_from_slice(&offset.to_be_bytes());
    aad
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::FileKey;

    const AT: PageAddress = PageAddress::Database(8192);

    fn page() -> Vec<u8> {
        let mut page: Vec<u8> = (0..512).map(|n: u32| n.to_le_bytes()[0]).collect();
        page[512 - PAGE_RESERVE..].fill(0);
        page
    }

    #[test]
    fn a_page_opens_only_in_its_place_of_its_file_and_whole() {
        let key = FileKey::from_bytes([4; 32]);
        let mut sealed = page();
        key.sealer().seal(AT, &mut sealed);
        let mut reader = key.sealer();
        let mut opened = sealed.clone();
        reader.open(AT, &mut opened).unwrap();
        assert_eq!(opened, page());
        for other in [PageAddress::Database(0), PageAddress::WriteAhead(8192)] {
            assert!(reader.open(other, &mut sealed.clone()).is_err());
        }
        assert!(FileKey::from_bytes([5; 32]).sealer().open(AT, &mut sealed.clone()).is_err());
        for at in (0..sealed.len()).step_by(7).chain(sealed.len() - PAGE_RESERVE..sealed.len()) {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(reader.open(AT, &mut changed).is_err(), "byte {at}");
        }
        assert!(reader.open(AT, &mut [0; 8]).is_err());
    }

    #[test]
    fn no_nonce_repeats_over_openings_and_all_of_them_are_read() {
        let key = FileKey::from_bytes([4; 32]);
        let (mut nonces, mut pages) = (HashSet::new(), Vec::new());
        for _ in 0..KEYS_KEPT * 3 {
            let sealer = key.sealer();
            for _ in 0..3 {
                let mut sealed = page();
                sealer.seal(AT, &mut sealed);
                assert!(nonces.insert(sealed[512 - PAGE_RESERVE..512 - TAG_SIZE].to_vec()));
                pages.push(sealed);
            }
        }
        let mut reader = key.sealer();
        for sealed in pages.iter_mut().rev() {
            reader.open(AT, sealed).unwrap();
            assert_eq!(*sealed, page());
        }
        assert!(reader.others.len() <= KEYS_KEPT);
    }

    #[test]
    fn version_1_pages_stay_readable() {
        let mut reader = FileKey::from_bytes([4; 32]).sealer();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/page_v1.bin");
        if std::env::var_os("HOLDFAST_WRITE_GOLDEN").is_some() {
            let mut sealed = page();
            reader.seal(AT, &mut sealed);
            std::fs::write(path, sealed).unwrap();
        }
        let mut sealed = std::fs::read(path).unwrap();
        reader.open(AT, &mut sealed).unwrap();
        assert_eq!(sealed, page());
        let mut block = *b"salts, checksums";
        reader.mask(&mut block);
        assert_eq!(hex::encode(block), "c70f935c569baf31f903573c742658ed");
        reader.unmask(&mut block);
        assert_eq!(&block, b"salts, checksums");
    }
}
