//! One page of a listing from the pages of several partitions, each of which holds other keys.
//!
//! Each page has up to the limit of entries, so the first entries of all of them together, up to the limit, are what
//! one partition would show: none of them lies behind the end of a page that was cut off.

use holdfast_model::{UploadId, VersionId};

use super::{ListPage, UploadPage, VersionPage};
use crate::hash_range::HashRange;

/// An entry of a listing: something under a key, or a common prefix, which several partitions may have.
enum Entry<T> {
    One(T),
    Prefix(String),
}

impl<T> Entry<T> {
    /// Compares as bytes, as keys do.
    fn name(&self, key_of: impl Fn(&T) -> &str) -> &str {
        match self {
            Self::One(one) => key_of(one),
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// Entries of one page and whether there are more behind it.
struct Part<T> {
    entries: Vec<T>,
    prefixes: Vec<String>,
    more: bool,
}

/// What is shown, and whether there is more.
struct Whole<T> {
    entries: Vec<T>,
    prefixes: Vec<String>,
    /// The last entry shown, when there is more: its index in `entries`, or the prefix.
    last: Option<Entry<usize>>,
}

fn merge<T>(parts: Vec<Part<T>>, limit: usize, key_of: impl Fn(&T) -> &str) -> Whole<T> {
    let mut more = parts.iter().any(|part| part.more);
    let mut all: Vec<Entry<T>> = Vec::new();
    for part in parts {
        all.extend(part.entries.into_iter().map(Entry::One));
        all.extend(part.prefixes.into_iter().map(Entry::Prefix));
    }
    // Stable: what is under one key comes from one partition and stays in its order.
    all.sort_by(|a, b| a.name(&key_of).cmp(b.name(&key_of)));
    all.dedup_by(|b, a| matches!((a, b), (Entry::Prefix(a), Entry::Prefix(b)) if a == b));
    more |= all.len() > limit;
    all.truncate(limit);
    let mut whole = Whole { entries: Vec::new(), prefixes: Vec::new(), last: None };
    for entry in all {
        match entry {
            Entry::One(one) => {
                whole.last = Some(Entry::One(whole.entries.len()));
                whole.entries.push(one);
            }
            Entry::Prefix(prefix) => {
                whole.last = Some(Entry::Prefix(prefix.clone()));
                whole.prefixes.push(prefix);
            }
        }
    }
    whole.last = whole.last.filter(|_| more);
    whole
}

impl ListPage {
    /// The page of a tenant from those of its partitions, all made with this limit. `None` when they do not hold
    /// each key once: a partition was split between two of them.
    #[must_use]
    pub fn merged(pages: Vec<Self>, limit: usize) -> Option<Self> {
        if !HashRange::tile(pages.iter().map(|page| page.range)) {
            return None;
        }
        let part = |page: Self| Part {
            entries: page.objects,
            prefixes: page.common_prefixes,
            more: page.next.is_some(),
        };
        let whole = merge(pages.into_iter().map(part).collect(), limit, |object| object.key.as_str());
        let next = whole.last.map(|last| match last {
            Entry::One(at) => whole.entries[at].key.clone(),
            Entry::Prefix(prefix) => prefix,
        });
        Some(Self { objects: whole.entries, common_prefixes: whole.prefixes, next, range: HashRange::ALL })
    }
}

impl VersionPage {
    /// As [`ListPage::merged`].
    #[must_use]
    pub fn merged(pages: Vec<Self>, limit: usize) -> Option<Self> {
        if !HashRange::tile(pages.iter().map(|page| page.range)) {
            return None;
        }
        let part = |page: Self| Part {
            entries: page.versions,
            prefixes: page.common_prefixes,
            more: page.next.is_some(),
        };
        let whole = merge(pages.into_iter().map(part).collect(), limit, |version| version.key.as_str());
        let next = whole.last.map(|last| match last {
            Entry::One(at) => {
                let version = &whole.entries[at];
                (version.key.clone(), Some::<VersionId>(version.version.id))
            }
            Entry::Prefix(prefix) => (prefix, None),
        });
        Some(Self { versions: whole.entries, common_prefixes: whole.prefixes, next, range: HashRange::ALL })
    }
}

impl UploadPage {
    /// As [`ListPage::merged`].
    #[must_use]
    pub fn merged(pages: Vec<Self>, limit: usize) -> Option<Self> {
        if !HashRange::tile(pages.iter().map(|page| page.range)) {
            return None;
        }
        let part = |page: Self| Part {
            entries: page.uploads,
            prefixes: page.common_prefixes,
            more: page.next.is_some(),
        };
        let whole = merge(pages.into_iter().map(part).collect(), limit, |upload| upload.key.as_str());
        let next = whole.last.map(|last| match last {
            Entry::One(at) => {
                let upload = &whole.entries[at];
                (upload.key.clone(), Some::<UploadId>(upload.upload))
            }
            Entry::Prefix(prefix) => (prefix, None),
        });
        Some(Self { uploads: whole.entries, common_prefixes: whole.prefixes, next, range: HashRange::ALL })
    }
}
