//! The bucket that keeps versions: what is done there, and what may be seen then. All of it is one history, so that what
//! clients are told at the same time must agree: an order of all operations explains every answer and every listing.

use holdfast_blackbox::linear::Deed;
use holdfast_model::VersionId;
use holdfast_object::{
    api::{ObjectError, RangeChoice},
    versioned::{
        BucketChange, DeleteRequest, Deleted, Extras, VersionListQuery, VersionRef, VersionSelector,
        VersionedObjects, Versioning, attributes_of,
    },
};

use crate::{
    clients::{Answer, Client, Deeds, Pending, number_of},
    plan::{VERSIONED_KEYS, Versioned},
};

/// The bucket.
pub const VERSIONED: &str = "v";

/// Versions listed at once.
const LISTED_MAX: usize = 1000;

/// What a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// The object of this write.
    Write(u64),
    /// A delete marker; with its id when somebody was told that.
    Marker(Option<VersionId>),
}

/// A version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What it is.
    pub what: What,
    /// It was written while versioning was suspended: the next one of those takes its place.
    pub null: bool,
}

impl Entry {
    /// Whether it can be what is shown.
    fn is(&self, shown: &Self) -> bool {
        let same = match (self.what, shown.what) {
            (What::Marker(Some(ours)), What::Marker(Some(theirs))) => ours == theirs || self.null,
            (What::Marker(_), What::Marker(_)) => true,
            (ours, theirs) => ours == theirs,
        };
        same && self.null == shown.null
    }

    fn matches(&self, which: Which) -> bool {
        match which {
            Which::Null => self.null,
            Which::Only(what) => !self.null && self.what == what,
        }
    }
}

/// Which version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Which {
    /// The null version.
    Null,
    /// This one, which is not the null version.
    Only(What),
}

/// What the bucket holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Held {
    suspended: bool,
    /// Versions of each key, the newest first.
    keys: [Vec<Entry>; VERSIONED_KEYS as usize],
}

/// What an operation did in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// Put a version in front.
    Put(u64, What),
    /// Removed a version for good; with whether it was there, when that was told.
    Removed(u64, Which, Option<bool>),
    /// Suspended versioning, or enabled it.
    Suspended(bool),
    /// Found as the current object the one of a write, or none.
    Current(u64, Option<u64>),
    /// Found this as a version, or nothing.
    Saw(u64, Which, Option<What>),
    /// Found just these versions of all keys.
    Listed(Vec<Vec<Entry>>),
}

impl Deed for Did {
    type State = Held;

    fn changes(&self) -> bool {
        matches!(self, Self::Put(..) | Self::Removed(..) | Self::Suspended(_))
    }

    fn after(&self, held: &Held) -> Option<Held> {
        let fits = match self {
            Self::Put(key, what) => {
                let (mut after, null) = (held.clone(), held.suspended);
                let versions = &mut after.keys[*key as usize];
                versions.retain(|entry| !(null && entry.null));
                versions.insert(0, Entry { what: *what, null });
                return Some(after);
            }
            Self::Removed(key, which, told) => {
                let mut after = held.clone();
                let versions = &mut after.keys[*key as usize];
                let before = versions.len();
                versions.retain(|entry| !entry.matches(*which));
                let removed = versions.len() < before;
                return told.is_none_or(|told| told == removed).then_some(after);
            }
            Self::Suspended(suspended) => {
                return Some(Held { suspended: *suspended, ..held.clone() });
            }
            Self::Current(key, found) => {
                let current = held.keys[*key as usize].first().and_then(|entry| match entry.what {
                    What::Write(number) => Some(number),
                    What::Marker(_) => None,
                });
                current == *found
            }
            Self::Saw(key, which, found) => {
                let there = held.keys[*key as usize].iter().find(|entry| entry.matches(*which));
                match (there.map(|entry| entry.what), *found) {
                    (Some(What::Marker(_)), Some(What::Marker(_))) => true,
                    (there, found) => there == found,
                }
            }
            Self::Listed(shown) => held.keys.iter().zip(shown).all(|(held, shown)| {
                held.len() == shown.len() && held.iter().zip(shown).all(|(held, shown)| held.is(shown))
            }),
        };
        fits.then(|| held.clone())
    }
}

/// A version whose id somebody was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownVersion {
    /// Its key.
    pub key: u64,
    /// Its id.
    pub id: VersionId,
    /// What it is.
    pub what: What,
}

/// The name of a key.
fn name(key: u64) -> String {
    format!("versions-{key}")
}

impl Client {
    fn learn(&self, key: u64, version: VersionRef, what: What) {
        let known = KnownVersion { key, id: version.id, what };
        let mut all = self.ledger.known.lock();
        if !version.null && !all.contains(&known) {
            all.push(known);
        }
    }

    /// The `nth` newest of the versions of a key that are known; the null version when none is.
    fn choose(&self, key: u64, nth: usize) -> (Which, VersionSelector) {
        let known = self.ledger.known.lock();
        let of_key: Vec<_> = known.iter().rev().filter(|known| known.key == key).collect();
        match of_key.get(nth % of_key.len().max(1)) {
            Some(chosen) => (Which::Only(chosen.what), VersionSelector::Id(chosen.id)),
            None => (Which::Null, VersionSelector::Null),
        }
    }

    pub(crate) async fn versioned(
        &self,
        tenant: &dyn VersionedObjects,
        what: &Versioned,
        write: u64,
        pending: &Pending,
    ) -> Answer {
        let null = (Which::Null, VersionSelector::Null);
        match *what {
            Versioned::Put { key, size } => self.put_version(tenant, key, (size, write), pending).await,
            Versioned::Mark { key } => self.mark(tenant, key, pending).await,
            Versioned::Remove { key, nth } => self.remove(tenant, key, self.choose(key, nth), pending).await,
            Versioned::RemoveNull { key } => self.remove(tenant, key, null, pending).await,
            Versioned::Get { key, nth } => self.get_version(tenant, key, self.choose(key, nth)).await,
            Versioned::GetNull { key } => self.get_version(tenant, key, null).await,
            Versioned::Current { key } => self.get_current(tenant, key).await,
            Versioned::List => self.list_versions(tenant).await,
            Versioned::Suspend(suspended) => {
                let done = Deeds::Versions(Did::Suspended(suspended));
                *pending.lock() = Some(done.clone());
                let versioning = if suspended { Versioning::Suspended } else { Versioning::Enabled };
                match tenant.set_bucket(VERSIONED, BucketChange::Versioning(versioning)).await {
                    Ok(()) => Answer::Done(done),
                    Err(error) => self.refused("set versioning", &error),
                }
            }
        }
    }

    async fn put_version(
        &self,
        tenant: &dyn VersionedObjects,
        key: u64,
        (size, write): (usize, u64),
        pending: &Pending,
    ) -> Answer {
        let put = Deeds::Versions(Did::Put(key, What::Write(write)));
        *pending.lock() = Some(put.clone());
        let (body, options) = self.sends(write, size);
        match tenant.put(VERSIONED, &name(key), body, options, Extras::default(), None).await {
            Ok(written) => {
                self.learn(key, written.version, What::Write(write));
                Answer::Done(put)
            }
            Err(error) => self.refused("put version", &error),
        }
    }

    async fn mark(&self, tenant: &dyn VersionedObjects, key: u64, pending: &Pending) -> Answer {
        *pending.lock() = Some(Deeds::Versions(Did::Put(key, What::Marker(None))));
        let request = DeleteRequest { key: name(key), ..DeleteRequest::default() };
        match self.delete_one(tenant, request).await {
            Ok(Deleted::Marked { marker }) => {
                let what = What::Marker(Some(marker.id));
                self.learn(key, marker, what);
                Answer::Done(Deeds::Versions(Did::Put(key, what)))
            }
            Ok(other) => {
                let what = format_args!("a delete without a version gives {other:?}");
                self.world.trace.violation("versions", what);
                Answer::Refused
            }
            Err(error) => self.refused("delete", &error),
        }
    }

    async fn remove(
        &self,
        tenant: &dyn VersionedObjects,
        key: u64,
        (which, selector): (Which, VersionSelector),
        pending: &Pending,
    ) -> Answer {
        *pending.lock() = Some(Deeds::Versions(Did::Removed(key, which, None)));
        let request = DeleteRequest { key: name(key), version: Some(selector), ..DeleteRequest::default() };
        match self.delete_one(tenant, request).await {
            Ok(deleted) => {
                let was_there = matches!(deleted, Deleted::Removed { .. });
                Answer::Done(Deeds::Versions(Did::Removed(key, which, Some(was_there))))
            }
            Err(error) => self.refused("delete version", &error),
        }
    }

    async fn delete_one(
        &self,
        tenant: &dyn VersionedObjects,
        request: DeleteRequest,
    ) -> Result<Deleted, ObjectError> {
        let results = tenant.delete(VERSIONED, vec![request]).await?;
        let none = || ObjectError::Internal("a delete of one key without an answer".to_owned());
        results.into_iter().next().ok_or_else(none)?
    }

    async fn get_version(
        &self,
        tenant: &dyn VersionedObjects,
        key: u64,
        (which, selector): (Which, VersionSelector),
    ) -> Answer {
        let saw = |found| Answer::Done(Deeds::Versions(Did::Saw(key, which, found)));
        match tenant.get(VERSIONED, &name(key), Some(selector), RangeChoice::All).await {
            Ok((found, range, body)) => {
                let range = (range.start as usize, range.end as usize);
                match self.read(&found.info, range, body).await {
                    Some(number) => saw(Some(What::Write(number))),
                    None => Answer::Refused,
                }
            }
            Err(ObjectError::NoSuchVersion(_)) => saw(None),
            Err(ObjectError::DeleteMarker { version, named: true, .. }) => {
                saw(Some(What::Marker(Some(version.id))))
            }
            Err(error) => self.refused("get version", &error),
        }
    }

    async fn get_current(&self, tenant: &dyn VersionedObjects, key: u64) -> Answer {
        let current = |found| Answer::Done(Deeds::Versions(Did::Current(key, found)));
        match tenant.get(VERSIONED, &name(key), None, RangeChoice::All).await {
            Ok((found, range, body)) => {
                let range = (range.start as usize, range.end as usize);
                match self.read(&found.info, range, body).await {
                    Some(number) => current(Some(number)),
                    None => Answer::Refused,
                }
            }
            Err(ObjectError::NoSuchKey(_) | ObjectError::DeleteMarker { named: false, .. }) => current(None),
            Err(error) => self.refused("get current version", &error),
        }
    }

    async fn list_versions(&self, tenant: &dyn VersionedObjects) -> Answer {
        let query = VersionListQuery { limit: LISTED_MAX, ..VersionListQuery::default() };
        let page = match tenant.list_versions(VERSIONED, query).await {
            Ok(page) => page,
            Err(error) => return self.refused("list versions", &error),
        };
        let mut shown = vec![Vec::new(); VERSIONED_KEYS as usize];
        for listed in page.versions {
            let Some(key) = (0..VERSIONED_KEYS).find(|key| name(*key) == listed.key) else {
                self.world.trace.violation("versions", format_args!("{} is listed", listed.key));
                return Answer::Refused;
            };
            let number = attributes_of(&listed).ok().and_then(|attributes| number_of(&attributes));
            let what = match number {
                _ if listed.marker => What::Marker(Some(listed.version.id)),
                Some(number) => What::Write(number),
                None => {
                    let what = format_args!("{} has a version of a write that nobody made", listed.key);
                    self.world.trace.violation("ledger", what);
                    return Answer::Refused;
                }
            };
            let of_key: &mut Vec<Entry> = &mut shown[key as usize];
            if listed.latest != of_key.is_empty() {
                let what = format_args!(
                    "version {} of {} is told latest: {}",
                    of_key.len(),
                    listed.key,
                    listed.latest
                );
                self.world.trace.violation("versions", what);
            }
            // A marker that a delete without an answer has put there is not to be removed by its id: which one it is in the
            // history cannot be said.
            if matches!(what, What::Write(_)) {
                self.learn(key, listed.version, what);
            }
            of_key.push(Entry { what, null: listed.version.null });
        }
        Answer::Done(Deeds::Versions(Did::Listed(shown)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_blackbox::linear::{Operation, check};

    use super::*;

    fn in_turn(dids: Vec<Did>) -> Vec<Operation<Did>> {
        let at = |second: usize| Duration::from_secs(second as u64);
        dids.into_iter()
            .enumerate()
            .map(|(turn, did)| Operation { start: at(2 * turn), end: Some(at(2 * turn + 1)), did })
            .collect()
    }

    fn listed(of_first: &[(u64, bool)]) -> Did {
        let entry = |(number, null): &(u64, bool)| Entry { what: What::Write(*number), null: *null };
        Did::Listed(vec![of_first.iter().map(entry).collect(), Vec::new()])
    }

    #[test]
    fn what_is_removed_shows_what_was_before() {
        let put = |number| Did::Put(0, What::Write(number));
        let removed = Did::Removed(0, Which::Only(What::Write(2)), Some(true));
        let history = in_turn(vec![put(1), put(2), removed, Did::Current(0, Some(1)), listed(&[(1, false)])]);
        assert_eq!(check(&history), Ok(()));
        let mut wrong = history;
        wrong[3].did = Did::Current(0, None);
        assert!(check(&wrong).is_err());
    }

    #[test]
    fn there_is_one_null_version_at_most() {
        let put = |number| Did::Put(0, What::Write(number));
        let begun = [put(1), Did::Suspended(true), put(2), put(3)];
        let with = |last| in_turn(begun.iter().cloned().chain([last]).collect());
        assert_eq!(check(&with(listed(&[(3, true), (1, false)]))), Ok(()));
        assert!(check(&with(listed(&[(3, true), (2, true), (1, false)]))).is_err());
    }
}
