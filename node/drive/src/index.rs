//! Where every live shard of the drive lies. In memory, sorted, compact.
//!
//! A sorted list of pages of up to [`PAGE_ENTRIES`] entries of 40 bytes. Stripe ids begin with their time,
//! so most inserts are at the end: a full last page is left full and a new one begun, which keeps the
//! index near 40 bytes a record. A mount loads it sorted.
//!
//! Invariants: pages are never empty; entries are in ascending order of their shard id, across pages too.

use std::collections::HashMap;

use holdfast_model::{Generation, ShardId, ShardIndex, StripeId, TenantId, UnixMillis};

/// Entries of one page at most.
const PAGE_ENTRIES: usize = 128;

/// Unix seconds of 2020-01-01: times are kept as 32-bit seconds since then, to the year 2156.
const EPOCH_SECONDS: u64 = 1_577_836_800;

/// Where a record lies on the drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Location {
    pub(crate) segment: u32,
    pub(crate) sector: u32,
}

/// A live shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Indexed {
    pub(crate) shard: ShardId,
    pub(crate) generation: Generation,
    pub(crate) tenant: TenantId,
    pub(crate) payload_len: u32,
    pub(crate) written: UnixMillis,
    pub(crate) location: Location,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    stripe: StripeId,
    generation: u32,
    segment: u32,
    payload_len: u32,
    written_seconds: u32,
    tenant: u32,
    sector: u16,
    index: u8,
}

const _: () = assert!(size_of::<Entry>() == 40, "the budget is 48 bytes a record, pages included");

impl Entry {
    fn key(&self) -> ShardId {
        ShardId { stripe: self.stripe, index: ShardIndex::new(self.index) }
    }
}

/// The index of one drive.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pages: Vec<Vec<Entry>>,
    len: usize,
    tenants: Vec<TenantId>,
    tenant_numbers: HashMap<TenantId, u32>,
}

impl Index {
    /// Builds an index from entries in any order. Of entries with the same id the last one wins.
    pub(crate) fn load(mut entries: Vec<Indexed>) -> Self {
        entries.sort_by_key(|e| e.shard);
        let mut index = Self::default();
        for entry in &entries {
            index.insert(entry);
        }
        index
    }

    /// Live shards.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory held.
    pub(crate) fn memory(&self) -> usize {
        let pages: usize = self.pages.iter().map(|p| p.capacity() * size_of::<Entry>()).sum();
        pages
            + self.pages.capacity() * size_of::<Vec<Entry>>()
            + self.tenants.capacity() * size_of::<TenantId>()
            + self.tenant_numbers.capacity() * (size_of::<TenantId>() + size_of::<u32>() + 1)
    }

    pub(crate) fn get(&self, shard: ShardId) -> Option<Indexed> {
        let (page, at) = self.find(shard).ok()?;
        Some(self.expand(&self.pages[page][at]))
    }

    /// Adds or replaces; returns what was there.
    pub(crate) fn insert(&mut self, new: &Indexed) -> Option<Indexed> {
        let entry = Entry {
            stripe: new.shard.stripe,
            generation: new.generation.get(),
            segment: new.location.segment,
            payload_len: new.payload_len,
            written_seconds: u32::try_from((new.written.get() / 1000).saturating_sub(EPOCH_SECONDS))
                .unwrap_or(u32::MAX),
            tenant: self.tenant_number(new.tenant),
            sector: u16::try_from(new.location.sector).expect("a segment has at most 65536 sectors"),
            index: new.shard.index.get(),
        };
        match self.find(new.shard) {
            Ok((page, at)) => {
                let old = std::mem::replace(&mut self.pages[page][at], entry);
                Some(self.expand(&old))
            }
            Err((page, at)) => {
                self.insert_new(page, at, entry);
                self.len += 1;
                None
            }
        }
    }

    /// Removes; returns what was there.
    pub(crate) fn remove(&mut self, shard: ShardId) -> Option<Indexed> {
        let (page, at) = self.find(shard).ok()?;
        let old = self.pages[page].remove(at);
        if self.pages[page].is_empty() {
            self.pages.remove(page);
        }
        self.len -= 1;
        Some(self.expand(&old))
    }

    /// Up to `limit` shards in order, the first one after `after`.
    pub(crate) fn list(&self, after: Option<ShardId>, limit: usize) -> Vec<Indexed> {
        let (page, at) = match after.map(|shard| self.find(shard)) {
            None => (0, 0),
            Some(Ok((page, at))) => (page, at + 1),
            Some(Err(place)) => place,
        };
        let first = self.pages.get(page).map_or(&[][..], |p| &p[at..]);
        let rest = self.pages.get(page + 1..).unwrap_or_default().iter().flatten();
        first.iter().chain(rest).take(limit).map(|e| self.expand(e)).collect()
    }

    /// Where a shard is, or where it would be inserted.
    fn find(&self, shard: ShardId) -> Result<(usize, usize), (usize, usize)> {
        let page = self.pages.partition_point(|p| p[0].key() <= shard).saturating_sub(1);
        let Some(entries) = self.pages.get(page) else { return Err((0, 0)) };
        match entries.binary_search_by_key(&shard, Entry::key) {
            Ok(at) => Ok((page, at)),
            Err(at) => Err((page, at)),
        }
    }

    fn insert_new(&mut self, page: usize, at: usize, entry: Entry) {
        let begin = |entries: &[Entry]| {
            let mut page = Vec::with_capacity(PAGE_ENTRIES);
            page.extend_from_slice(entries);
            page
        };
        if self.pages.is_empty() {
            self.pages.push(begin(&[entry]));
            return;
        }
        if self.pages[page].len() < PAGE_ENTRIES {
            self.pages[page].insert(at, entry);
            return;
        }
        // A full page hands its last entry on when the next one has room: pages stay full that way.
        if let Some(next) = self.pages.get_mut(page + 1).filter(|next| next.len() < PAGE_ENTRIES) {
            if at == PAGE_ENTRIES {
                next.insert(0, entry);
            } else if let Some(last) = self.pages[page].pop() {
                self.pages[page + 1].insert(0, last);
                self.pages[page].insert(at, entry);
            }
            return;
        }
        // At the end of the last page: the next ids will come after, so leave this page full.
        if page + 1 == self.pages.len() && at == PAGE_ENTRIES {
            self.pages.push(begin(&[entry]));
            return;
        }
        let last_page = page + 1 == self.pages.len();
        let cut = if last_page { PAGE_ENTRIES - PAGE_ENTRIES / 16 } else { PAGE_ENTRIES / 2 };
        let upper = begin(&self.pages[page][cut..]);
        self.pages[page].truncate(cut);
        self.pages.insert(page + 1, upper);
        if at <= cut {
            self.pages[page].insert(at, entry);
        } else {
            self.pages[page + 1].insert(at - cut, entry);
        }
    }

    fn expand(&self, entry: &Entry) -> Indexed {
        Indexed {
            shard: entry.key(),
            generation: Generation::new(entry.generation),
            tenant: self.tenants[entry.tenant as usize],
            payload_len: entry.payload_len,
            written: UnixMillis::new((u64::from(entry.written_seconds) + EPOCH_SECONDS) * 1000),
            location: Location { segment: entry.segment, sector: u32::from(entry.sector) },
        }
    }

    fn tenant_number(&mut self, tenant: TenantId) -> u32 {
        *self.tenant_numbers.entry(tenant).or_insert_with(|| {
            self.tenants.push(tenant);
            u32::try_from(self.tenants.len() - 1).expect("fewer than 2^32 tenants")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn indexed(id: u32, version: u32) -> Indexed {
        let mut stripe = [0; 16];
        stripe[4..8].copy_from_slice(&id.to_be_bytes());
        Indexed {
            shard: ShardId { stripe: StripeId::from_bytes(stripe), index: ShardIndex::new((id % 7) as u8) },
            generation: Generation::new(version),
            tenant: TenantId::from_bytes([(id % 5) as u8; 16]),
            payload_len: id + 1,
            written: UnixMillis::new((EPOCH_SECONDS + u64::from(id)) * 1000),
            location: Location { segment: version, sector: id % 65536 },
        }
    }

    #[test]
    fn a_million_time_ordered_records_take_at_most_48_bytes_each() {
        let mut index = Index::default();
        for id in 0..1_000_000 {
            // Neighbours in time arrive a little out of order.
            index.insert(&indexed(id ^ 127, 1));
        }
        assert_eq!(index.len(), 1_000_000);
        let each = index.memory() as f64 / 1e6;
        println!("index memory: {each:.1} bytes a record");
        assert!(each <= 48.0, "{each} bytes a record");
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_sorted_map(ops in prop::collection::vec((0u32..600, 0u32..4), 1..2000), dense: bool) {
            let mut index = Index::default();
            let mut model: BTreeMap<ShardId, Indexed> = BTreeMap::new();
            for (i, (id, op)) in ops.into_iter().enumerate() {
                let entry = indexed(if dense { i as u32 } else { id }, op);
                if op == 0 {
                    prop_assert_eq!(index.remove(entry.shard), model.remove(&entry.shard));
                } else {
                    prop_assert_eq!(index.insert(&entry), model.insert(entry.shard, entry));
                }
                prop_assert_eq!(index.get(entry.shard), model.get(&entry.shard).copied());
            }
            prop_assert_eq!(index.len(), model.len());
            prop_assert_eq!(index.list(None, usize::MAX), model.values().copied().collect::<Vec<_>>());
            let after = indexed(300, 0).shard;
            let expected: Vec<_> = model.range(after..).filter(|(k, _)| **k > after).map(|(_, v)| *v).take(10).collect();
            prop_assert_eq!(index.list(Some(after), 10), expected);
            prop_assert_eq!(Index::load(model.values().rev().copied().collect()).list(None, usize::MAX), model.values().copied().collect::<Vec<_>>());
        }
    }
}
