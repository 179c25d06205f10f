//! The last resort of reclaiming on a full drive: what to do with damaged records that keep segments from becoming free.
//!
//! A record whose header is whole is moved with its damage. The checksums in the header are those of what was written once, so
//! the copy is read as damaged in the same blocks, and its other blocks are good as before. A record without a header that
//! can be read is of no use to anybody, however often it is read: it is given up with a tombstone, as if it had been
//! deleted, and its shard is missing from then on. Either way its owner has it repaired, as before, and the drive can take
//! the repair.
//!
//! Invariant: nothing is done to a record that was not read twice with the same bytes. A memory or a cable that turns bits now
//! and then does not turn the same ones.

use holdfast_model::limits::SECTOR_SIZE;
use holdfast_ring::{BlockDevice, Buffer};

use super::{Engine, read::Purpose, tombstones::Asker};
use crate::{
    handle::{verify_blocks, verify_header},
    index::Indexed,
    shared::add,
    types::DriveIdentity,
};

impl<D: BlockDevice> Engine<D> {
    /// A record to be moved was read and is damaged; `before` is the checksum of the reading before.
    pub(super) fn salvage(&mut self, entry: Indexed, before: Option<u32>, buffer: Buffer) {
        let identity = DriveIdentity::from(self.label);
        let payload = crc32c::crc32c(payload_of(&entry, &buffer));
        let all = crc32c::crc32c_append(payload, buffer.headroom());
        if before.is_none() {
            let length = SECTOR_SIZE + (entry.payload_len as usize).next_multiple_of(SECTOR_SIZE);
            let at = entry.location;
            let offset = self.layout.offset(at.segment, at.sector);
            let purpose = Purpose::MoveSource { entry, before: Some(all) };
            return self.read(purpose, at.segment, offset, buffer, 0, length);
        }
        if before != Some(all) {
            return self.not_moved(&entry, "it is read as something else each time");
        }
        match verify_header(&identity, &entry, buffer.headroom()) {
            Ok(header) => {
                let what = verify_blocks(&header, 0, &buffer).err().unwrap_or_default();
                tracing::warn!(drive = %self.drive, shard = %entry.shard, what, "the drive is full: a damaged record is moved as it is");
                self.reclaim.damaged.insert(entry.shard, payload);
                self.move_to_end(&entry, header, buffer);
            }
            Err(what) => {
                add(&self.shared.counters.checksum_errors, 1);
                tracing::warn!(drive = %self.drive, shard = %entry.shard, what, "the drive is full: a record that nobody can read is given up");
                let tombstone = self.tombstone_for(&entry);
                self.tombs.push(tombstone, Asker::Reclaim);
            }
        }
    }
}

/// Checks that a damaged record was moved as it was read.
pub(super) fn verify_as_read(
    identity: &DriveIdentity,
    entry: &Indexed,
    payload: u32,
    buffer: &Buffer,
) -> Result<(), String> {
    verify_header(identity, entry, buffer.headroom())?;
    if crc32c::crc32c(payload_of(entry, buffer)) == payload {
        return Ok(());
    }
    Err("the copy is not what was read".to_owned())
}

fn payload_of<'a>(entry: &Indexed, buffer: &'a Buffer) -> &'a [u8] {
    &buffer[..entry.payload_len as usize]
}
