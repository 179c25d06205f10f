//! What this node learns of the catalog's second copy on its drives beside what their indexes say: which entries the
//! records hold that are written there, and which records do not read back.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_drive::ShardWrite;
use holdfast_format::{CATALOG_OWNER, CatalogRecordHeader, CatalogRecordKind};
use holdfast_model::{DriveId, ShardId, StripeId};
use parking_lot::Mutex;

/// Records noted between two collections at most, some 48 bytes each. Others are read from the drive when they are wanted.
const NOTED_MAX: usize = 1 << 18;

/// Notes until somebody takes them.
#[derive(Debug, Default)]
pub(crate) struct RecordNotes {
    written: Mutex<BTreeMap<StripeId, JournalSpan>>,
    damaged: Mutex<BTreeSet<(DriveId, ShardId)>>,
}

/// What a part of a journal record says of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalSpan {
    /// Log index of the record's first entry.
    pub first: u64,
    /// Of how many parts it is one.
    pub parts: u32,
}

impl JournalSpan {
    /// Of the record that `payload` begins; `None` when it is no part of a journal.
    #[must_use]
    pub fn of(payload: &[u8]) -> Option<Self> {
        let header = CatalogRecordHeader::of(payload).ok()?;
        let span = Self { first: header.first, parts: header.parts };
        (header.kind == CatalogRecordKind::Journal).then_some(span)
    }
}

impl RecordNotes {
    /// Notes what is about to be written, if it is a part of a journal.
    pub(crate) fn writing(&self, write: &ShardWrite) {
        if write.tenant != CATALOG_OWNER {
            return;
        }
        if let Some(span) = JournalSpan::of(&write.payload) {
            let mut written = self.written.lock();
            if written.len() < NOTED_MAX {
                written.insert(write.id.stripe, span);
            }
        }
    }

    pub(crate) fn take_written(&self) -> BTreeMap<StripeId, JournalSpan> {
        std::mem::take(&mut *self.written.lock())
    }

    pub(crate) fn damaged(&self, drive: DriveId, id: ShardId) {
        self.damaged.lock().insert((drive, id));
    }

    pub(crate) fn take_damaged(&self) -> BTreeSet<(DriveId, ShardId)> {
        std::mem::take(&mut *self.damaged.lock())
    }
}
