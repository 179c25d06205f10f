//! Lifecycle: carries out what the rules of buckets ask for.
//!
//! The leader of a group looks after the buckets of its partitions. A bucket with rules is gone through once
//! after each midnight, because that is when things fall due, and whenever its rules are new; a pass that
//! removed something is followed by another, since a delete marker may be alone now. What a pass finds is
//! judged here and decided in the catalog, which takes a step only if the version still stands where it stood.
//! Locks hold: the catalog refuses, and the next midnight asks again.
//!
//! Paced: one page at a time, with a rest after each, so that clients come first.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use holdfast_catalog::{
    Bucket, Candidate, Deleted, DocumentKind, Lifecycle, LifecycleItem, LifecycleStep, ListedVersion, Op,
    ReadError, Refusal, Response, UploadQuery, VersionMarker, VersionQuery,
};
use holdfast_model::{BucketId, GroupId, NodeId, PartitionId, UnixMillis, limits::DELETE_KEYS_MAX};
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Attributes, ObjectError},
    host::{chance, now},
    service::{ObjectService, from_opaque, to_opaque},
    versioned::decode_tags,
};

/// Longest time between two looks at which buckets are due.
const INTERVAL_MAX: Duration = Duration::from_secs(300);

/// Shortest; what a test's day of some seconds comes to.
const INTERVAL_MIN: Duration = Duration::from_millis(500);

/// Looks in a day, as far as the two bounds allow.
const LOOKS_PER_DAY: u32 = 20;

/// Versions, or uploads, read at once.
const PAGE: usize = 1000;

/// Rest after a page.
const PAGE_PAUSE: Duration = Duration::from_millis(20);

const _: () = assert!(PAGE <= DELETE_KEYS_MAX);

type Route = (PartitionId, GroupId);

/// What has been gone through: the day, and when the rules were stored that held then.
type Done = HashMap<BucketId, (u64, UnixMillis)>;

/// Runs until cancelled.
pub(super) async fn run(service: Arc<ObjectService>, node: NodeId, stop: CancellationToken) {
    let interval = (service.day() / LOOKS_PER_DAY).clamp(INTERVAL_MIN, INTERVAL_MAX);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut done: HashMap<PartitionId, Done> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let snapshot = service.directory.snapshot();
        let mut led = HashSet::new();
        for route in snapshot.tenants.values().flat_map(|tenant| tenant.partitions.clone()) {
            let leads = service.consensus.leader(route.1) == Some(node);
            if !leads || !service.is_settled(route) {
                continue;
            }
            led.insert(route.0);
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = look_after(&service, route, done.entry(route.0).or_default()) => looked,
            };
            if let Err(error) = looked {
                tracing::warn!(partition = %route.0, %error, "lifecycle rules not carried out; will be tried again");
            }
        }
        done.retain(|partition, _| led.contains(partition));
    }
}

async fn look_after(service: &ObjectService, route: Route, done: &mut Done) -> Result<(), ObjectError> {
    let with_rules = service
        .read(route, ("", ""), |catalog| {
            let mut found = Vec::new();
            for bucket in catalog.list_buckets()? {
                match catalog.document(&bucket.name, DocumentKind::Lifecycle, "") {
                    Ok(rules) => found.push((bucket, rules)),
                    Err(ReadError::NoSuchDocument | ReadError::NoSuchBucket) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        })
        .await?;
    done.retain(|id, _| with_rules.iter().any(|(bucket, _)| bucket.id == *id));
    for (bucket, document) in with_rules {
        let mark = (now().get() / service.day_millis(), document.changed);
        if done.get(&bucket.id) == Some(&mark) {
            continue;
        }
        let rules = Lifecycle::decode(&document.body)
            .map_err(|error| ObjectError::Damaged(format!("rules of bucket {}: {error}", bucket.name)))?;
        let mut pass = Pass::new(service, route, &bucket, &rules);
        match pass.run().await {
            // It may have been deleted meanwhile.
            Err(ObjectError::NoSuchBucket(_)) => continue,
            other => other?,
        }
        if pass.removed > 0 || pass.aborted > 0 || pass.changed > 0 {
            let (removed, aborted, changed) = (pass.removed, pass.aborted, pass.changed);
            tracing::info!(
                bucket = bucket.name,
                removed,
                aborted,
                changed,
                locked = pass.locked,
                "lifecycle carried out"
            );
        }
        if pass.removed == 0 {
            done.insert(bucket.id, mark);
        }
    }
    Ok(())
}

/// One pass over a bucket.
struct Pass<'a> {
    service: &'a ObjectService,
    route: Route,
    bucket: &'a Bucket,
    rules: &'a Lifecycle,
    judge: Judge,
    removed: u64,
    locked: u64,
    changed: u64,
    aborted: u64,
}

impl<'a> Pass<'a> {
    fn new(service: &'a ObjectService, route: Route, bucket: &'a Bucket, rules: &'a Lifecycle) -> Self {
        let judge = Judge::new(now(), service.day_millis());
        Self { service, route, bucket, rules, judge, removed: 0, locked: 0, changed: 0, aborted: 0 }
    }

    async fn run(&mut self) -> Result<(), ObjectError> {
        self.versions().await?;
        if self.rules.rules.iter().any(|rule| rule.enabled && rule.abort_uploads_days.is_some()) {
            self.uploads().await?;
        }
        Ok(())
    }

    async fn versions(&mut self) -> Result<(), ObjectError> {
        let mut after: Option<(String, Option<_>)> = None;
        loop {
            let (name, from) = (self.bucket.name.clone(), after.clone());
            let page = self
                .service
                .read(self.route, (&self.bucket.name, ""), move |catalog| {
                    let after = from.as_ref().map(|(key, version)| VersionMarker { key, version: *version });
                    let query = VersionQuery { prefix: "", delimiter: None, after, limit: PAGE };
                    catalog.list_versions(&name, &query)
                })
                .await?;
            let mut items = Vec::new();
            for version in &page.versions {
                items.extend(self.judge.next(self.rules, version)?);
            }
            after = page.next;
            if after.is_none() {
                items.extend(self.judge.end());
            }
            self.propose(items).await?;
            if after.is_none() {
                return Ok(());
            }
            tokio::time::sleep(PAGE_PAUSE).await;
        }
    }

    async fn propose(&mut self, items: Vec<LifecycleItem>) -> Result<(), ObjectError> {
        if items.is_empty() {
            return Ok(());
        }
        let attributes =
            items.iter().filter(|item| matches!(item.step, LifecycleStep::Attributes(_))).count();
        self.changed += attributes as u64;
        let op = Op::Lifecycle { bucket: self.bucket.id, items };
        match self.service.propose(self.route, op).await? {
            Ok(Response::ObjectsDeleted(answers)) => {
                for answer in answers {
                    match answer {
                        Ok(Deleted::Nothing) => {}
                        Ok(Deleted::Removed { .. } | Deleted::Marked { .. }) => self.removed += 1,
                        Err(Refusal::Locked) => self.locked += 1,
                        Err(refusal) => return Err(ObjectError::Internal(refusal.to_string())),
                    }
                }
                Ok(())
            }
            Err(Refusal::NoSuchBucket) => Err(ObjectError::NoSuchBucket(self.bucket.name.clone())),
            other => Err(ObjectError::Internal(format!("the catalog answered {other:?}"))),
        }
    }

    async fn uploads(&mut self) -> Result<(), ObjectError> {
        let mut after = None;
        loop {
            let (name, from): (_, Option<(String, Option<_>)>) = (self.bucket.name.clone(), after.clone());
            let page = self
                .service
                .read(self.route, (&self.bucket.name, ""), move |catalog| {
                    let after = from.as_ref().map(|(key, upload)| (key.as_str(), *upload));
                    let query = UploadQuery { prefix: "", delimiter: None, after, limit: PAGE };
                    catalog.list_uploads(&name, &query)
                })
                .await?;
            for row in page.uploads {
                if !self.rules.upload_due(&row.key, row.initiated, self.judge.now, self.judge.day_millis) {
                    continue;
                }
                let op = Op::AbortUpload { bucket: self.bucket.id, key: row.key, upload: row.upload };
                match self.service.propose(self.route, op).await? {
                    // Completed or aborted meanwhile.
                    Err(Refusal::NoSuchUpload) => {}
                    Ok(_) => self.aborted += 1,
                    Err(refusal) => return Err(ObjectError::Internal(refusal.to_string())),
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
            tokio::time::sleep(PAGE_PAUSE).await;
        }
    }
}

/// Judges versions in the order of a listing: keys in order, each key's versions newest first. Pure.
struct Judge {
    now: UnixMillis,
    day_millis: u64,
    key: String,
    /// Noncurrent versions of the key seen so far.
    noncurrent: u32,
    /// A delete marker that goes unless another version of its key follows.
    lone: Option<LifecycleItem>,
}

impl Judge {
    fn new(now: UnixMillis, day_millis: u64) -> Self {
        Self { now, day_millis, key: String::new(), noncurrent: 0, lone: None }
    }

    /// What is to be done now that `version` has come: about it, or about one before it.
    fn next(
        &mut self,
        rules: &Lifecycle,
        version: &ListedVersion,
    ) -> Result<Vec<LifecycleItem>, ObjectError> {
        let mut steps = Vec::new();
        if version.key != self.key {
            steps.extend(self.lone.take());
            self.key.clone_from(&version.key);
            self.noncurrent = 0;
        }
        self.lone = None;
        let tags: Vec<(String, String)> = decode_tags(&version.tags)?.into_iter().collect();
        let object = Candidate { key: &version.key, size: version.size, tags: &tags };
        let item = |step| LifecycleItem { key: version.key.clone(), version: version.version.id, step };
        let (now, day) = (self.now, self.day_millis);
        let class = match version.noncurrent_since {
            None if version.marker => {
                if rules.lone_marker_due(&version.key, version.modified, now, day) {
                    self.lone = Some(item(LifecycleStep::ExpireMarker));
                }
                None
            }
            None => {
                if rules.current_expires(&object, version.modified, day).is_some_and(|(due, _)| due <= now) {
                    steps.push(item(LifecycleStep::ExpireCurrent { marker: chance() }));
                    return Ok(steps);
                }
                rules.current_class(&object, version.modified, now, day)
            }
            Some(since) => {
                let newer = self.noncurrent;
                self.noncurrent += 1;
                if rules.noncurrent_due(&object, since, newer, now, day) {
                    steps.push(item(LifecycleStep::ExpireNoncurrent));
                    return Ok(steps);
                }
                rules.noncurrent_class(&object, since, newer, now, day)
            }
        };
        if let Some(class) = class.filter(|_| !version.marker) {
            let mut attributes: Attributes = from_opaque(&version.attributes)?;
            if attributes.storage_class() != class {
                attributes.set_storage_class(class);
                steps.push(item(LifecycleStep::Attributes(to_opaque(&attributes)?)));
            }
        }
        Ok(steps)
    }

    /// What is left to do after the last version.
    fn end(&mut self) -> Option<LifecycleItem> {
        self.lone.take()
    }
}

#[cfg(test)]
mod tests {
    use holdfast_catalog::{Expiration, LifecycleFilter, LifecycleRule, NoncurrentExpiration, VersionRef};
    use holdfast_model::VersionId;

    use super::*;

    const DAY: u64 = 1000;

    fn version(key: &str, number: u64, latest: bool, marker: bool) -> ListedVersion {
        let at = UnixMillis::new(number);
        ListedVersion {
            key: key.to_owned(),
            version: VersionRef { id: VersionId::new(at, [0; 10]), null: false },
            latest,
            marker,
            size: holdfast_catalog::TRANSITION_SIZE_MIN,
            etag: String::new(),
            modified: at,
            noncurrent_since: (!latest).then_some(at),
            tags: bytes::Bytes::new(),
            attributes: to_opaque(&Attributes::default()).unwrap(),
        }
    }

    fn judged(rule: LifecycleRule, versions: &[ListedVersion]) -> Vec<(String, u64, LifecycleStep)> {
        let rules = Lifecycle { rules: vec![rule], minimum_by_class: false };
        let mut judge = Judge::new(UnixMillis::new(10 * DAY), DAY);
        let mut items: Vec<LifecycleItem> =
            versions.iter().flat_map(|version| judge.next(&rules, version).unwrap()).collect();
        items.extend(judge.end());
        items.into_iter().map(|item| (item.key, item.version.created().get(), item.step)).collect()
    }

    fn rule() -> LifecycleRule {
        LifecycleRule {
            id: "r".into(),
            enabled: true,
            filter: LifecycleFilter::default(),
            expiration: None,
            noncurrent: None,
            abort_uploads_days: None,
            transitions: Vec::new(),
            noncurrent_transitions: Vec::new(),
        }
    }

    #[test]
    fn the_newest_noncurrent_versions_stay() {
        let rule =
            LifecycleRule { noncurrent: Some(NoncurrentExpiration { days: 1, keep_newest: 2 }), ..rule() };
        let versions = [
            version("a", 9, true, false),
            version("a", 8, false, false),
            version("a", 7, false, false),
            version("a", 6, false, false),
            version("b", 5, false, false),
        ];
        let steps = judged(rule, &versions);
        assert_eq!(steps, [("a".to_owned(), 6, LifecycleStep::ExpireNoncurrent)]);
    }

    #[test]
    fn a_delete_marker_goes_only_when_no_version_follows_it() {
        let rule = LifecycleRule { expiration: Some(Expiration::ExpiredMarkers(true)), ..rule() };
        let versions = [
            version("a", 9, true, true),
            version("a", 8, false, false),
            version("b", 9, true, true),
            version("c", 9, true, false),
            version("d", 9, true, true),
        ];
        let keys: Vec<String> = judged(rule, &versions).into_iter().map(|(key, ..)| key).collect();
        assert_eq!(keys, ["b", "d"]);
    }

    #[test]
    fn a_class_changes_once() {
        let to = |class: &str| {
            let mut attributes = Attributes::default();
            attributes.set_storage_class(class);
            to_opaque(&attributes).unwrap()
        };
        let rule = LifecycleRule {
            transitions: vec![holdfast_catalog::Transition {
                when: holdfast_catalog::TransitionTime::Days(1),
                class: "STANDARD_IA".into(),
            }],
            ..rule()
        };
        let already = ListedVersion { attributes: to("STANDARD_IA"), ..version("b", 1, true, false) };
        let steps = judged(rule, &[version("a", 1, true, false), already]);
        assert_eq!(steps, [("a".to_owned(), 1, LifecycleStep::Attributes(to("STANDARD_IA")))]);
    }
}
