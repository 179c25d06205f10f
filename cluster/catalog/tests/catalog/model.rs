//! What the catalog should be, in plain maps: the oracle for random histories.
//!
//! Written from the rules, without looking at how the tables do it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_catalog::{
    BodyRef, BucketChange, BucketStateRule, CompleteUpload, CompletedUpload, DefaultRetention, DeleteItem,
    Deleted, DocumentKind, GarbageId, ListQuery, MoveShards, ObjectChange, ObjectExtras, Op, Orphan, Outcome,
    PartitionReader, PutObject, PutPart, Quota, ReadError, Refusal, ReplaceStripes, Response, Retention,
    RetentionMode, RetentionPeriod, SetObject, StripeRef, Usage, VersionMarker, VersionQuery, VersionRef,
    VersionSelector, Versioning,
};
use holdfast_model::{
    BucketId, DriveId, Generation, ShardIndex, StripeId, UnixMillis, UploadId, VersionId,
    limits::PART_SIZE_MIN, placement::Place,
};

#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    number: u32,
    size: u64,
    etag: String,
    wrapped_key: Bytes,
    body: BodyRef,
}

/// A version of a key. Without pieces and ETag: a delete marker.
#[derive(Debug, Clone)]
struct Object {
    version: VersionId,
    null: bool,
    marker: bool,
    extras: ObjectExtras,
    etag: String,
    modified: UnixMillis,
    attributes: Bytes,
    upload: Option<UploadId>,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone)]
struct Upload {
    attributes: Bytes,
    extras: ObjectExtras,
    parts: BTreeMap<u32, Piece>,
}

#[derive(Debug, Clone)]
struct BucketModel {
    id: BucketId,
    versioning: Versioning,
    lock: bool,
    retention: Option<DefaultRetention>,
    quota: Quota,
    documents: BTreeMap<(DocumentKind, String), Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Live,
    Dead,
    Removed,
}

type Shards = Vec<(ShardIndex, Place)>;

/// The oracle.
#[derive(Debug, Clone, Default)]
pub struct Model {
    buckets: BTreeMap<String, BucketModel>,
    /// All versions of each key, newest first. Never an empty list.
    objects: BTreeMap<(BucketId, String), Vec<Object>>,
    quota: Quota,
    now: UnixMillis,
    uploads: BTreeMap<(BucketId, String, UploadId), Upload>,
    /// Every stripe that ever entered the catalog.
    stripes: BTreeMap<StripeId, (StripeRef, Fate)>,
    stale: BTreeMap<u64, (StripeId, Shards)>,
    stale_count: u64,
    condemned: BTreeSet<StripeId>,
}

impl Object {
    fn size(&self) -> u64 {
        self.pieces.iter().map(|p| p.size).sum()
    }
}

impl Model {
    pub fn apply(&mut self, at: UnixMillis, op: &Op) -> Outcome {
        self.now = self.now.max(at);
        // A refusal for want of quota is found by doing the thing on a copy and counting afterwards.
        let before = self.clone();
        let outcome = self.apply_unlimited(op);
        if matches!(
            outcome,
            Ok(Response::ObjectPut { .. } | Response::PartPut | Response::UploadCompleted(_))
        ) && let Some(refusal) = self.over_quota(&before)
        {
            let now = self.now;
            *self = before;
            self.now = now;
            return Err(refusal);
        }
        outcome
    }

    fn create_bucket(
        &mut self,
        bucket: BucketId,
        name: &str,
        lock: bool,
        documents: &[(DocumentKind, Bytes)],
    ) -> Outcome {
        match self.buckets.get(name) {
            Some(existing) if existing.id == bucket => Ok(Response::BucketCreated),
            Some(existing) => Err(Refusal::BucketAlreadyExists { bucket: existing.id }),
            None => {
                let named = |(kind, body): &(DocumentKind, Bytes)| ((*kind, String::new()), body.clone());
                let new = BucketModel {
                    id: bucket,
                    versioning: if lock { Versioning::Enabled } else { Versioning::Off },
                    lock,
                    retention: None,
                    quota: Quota::default(),
                    documents: documents.iter().map(named).collect(),
                };
                self.buckets.insert(name.to_owned(), new);
                Ok(Response::BucketCreated)
            }
        }
    }

    fn apply_unlimited(&mut self, op: &Op) -> Outcome {
        match op {
            Op::CreatePartition { .. } => Ok(Response::PartitionCreated),
            Op::DropPartition { .. } => Ok(Response::PartitionDropped),
            Op::SetQuota { quota } => {
                self.quota = *quota;
                Ok(Response::QuotaSet)
            }
            Op::CreateBucket { bucket, name, object_lock } => {
                self.create_bucket(*bucket, name, *object_lock, &[])
            }
            Op::CreateBucketWith { bucket, name, object_lock, documents } => {
                self.create_bucket(*bucket, name, *object_lock, documents)
            }
            Op::SetBucket { bucket, change } => self.set_bucket(*bucket, change),
            Op::DeleteBucket { name } => self.delete_bucket(name),
            Op::PutObject(put) => self.put(put),
            Op::SetObject(set) => self.set_object(set),
            Op::DeleteObjects { bucket, items } => {
                self.bucket(*bucket)?;
                let mut answers = Vec::new();
                for item in items {
                    let before = self.clone();
                    let answer = self.delete(*bucket, item);
                    let marked = matches!(answer, Ok(Deleted::Marked { .. }));
                    answers.push(match self.over_quota(&before).filter(|_| marked) {
                        Some(refusal) => {
                            *self = before;
                            Err(refusal)
                        }
                        None => answer,
                    });
                }
                Ok(Response::ObjectsDeleted(answers))
            }
            Op::CreateUpload { bucket, key, upload, attributes, extras } => {
                let lock = self.bucket(*bucket)?.lock;
                check_extras(lock, extras)?;
                let new =
                    Upload { attributes: attributes.clone(), extras: extras.clone(), parts: BTreeMap::new() };
                self.uploads.entry((*bucket, key.clone(), *upload)).or_insert(new);
                Ok(Response::UploadCreated)
            }
            Op::PutPart(put) => self.put_part(put),
            Op::CompleteUpload(complete) => self.complete(complete),
            Op::AbortUpload { bucket, key, upload } => {
                self.bucket(*bucket)?;
                let upload =
                    self.uploads.remove(&(*bucket, key.clone(), *upload)).ok_or(Refusal::NoSuchUpload)?;
                upload.parts.values().for_each(|part| self.release(part));
                Ok(Response::UploadAborted)
            }
            Op::RemoveGarbage { ids } => {
                Ok(Response::GarbageRemoved(ids.iter().map(|id| self.remove_garbage(*id)).collect()))
            }
            Op::MoveShards(moves) => self.move_shards(moves),
            // Steps are about versions that a worker judged, which histories do not do: `lifecycle.rs` tries them.
            Op::Lifecycle { .. } => unreachable!("no history has lifecycle steps"),
            Op::Condemn { stripes } => {
                Ok(Response::Condemned(stripes.iter().map(|orphan| self.condemn(orphan)).collect()))
            }
            Op::ReplaceStripes(replace) => self.replace(replace),
            Op::SplitPartition { .. }
            | Op::ClearPartition
            | Op::CloseBucket { .. }
            | Op::ReopenBucket { .. }
            | Op::DeleteClosedBucket { .. }
            | Op::Bar { .. }
            | Op::ShareQuota { .. } => unreachable!("these histories are of one partition: `splitting.rs`"),
            Op::WithOrigin { .. } | Op::SettleEvents { .. } => {
                unreachable!("these histories are of buckets that ask for no events: `events.rs`")
            }
        }
    }

    fn replace(&mut self, replace: &ReplaceStripes) -> Outcome {
        let body = BodyRef::Stripes(replace.stripes.clone());
        let begins =
            |piece: &Piece, id: StripeId| piece.body.stripes().first().is_some_and(|stripe| stripe.id == id);
        let objects = self.objects.values_mut().flatten().flat_map(|object| &mut object.pieces);
        let pieces: Vec<&mut Piece> =
            objects.chain(self.uploads.values_mut().flat_map(|upload| upload.parts.values_mut())).collect();
        let new = replace.stripes[0].id;
        if pieces.iter().any(|piece| begins(piece, new)) {
            return Ok(Response::StripesReplaced);
        }
        let Some(at) = pieces.iter().position(|piece| begins(piece, replace.expected)) else {
            return Err(Refusal::ContentChanged);
        };
        let old = pieces[at].clone();
        self.admit(&body)?;
        self.keep(&body);
        self.release(&old);
        let objects = self.objects.values_mut().flatten().flat_map(|object| &mut object.pieces);
        let piece = objects
            .chain(self.uploads.values_mut().flat_map(|upload| upload.parts.values_mut()))
            .find(|piece| begins(piece, replace.expected))
            .unwrap();
        (piece.body, piece.wrapped_key) = (body, replace.wrapped_key.clone());
        Ok(Response::StripesReplaced)
    }

    /// Which quota is exceeded by more than it was before.
    fn over_quota(&self, before: &Self) -> Option<Refusal> {
        let over = |quota: Quota, was: Usage, is: Usage| {
            let versions = |u: Usage| u.objects + u.old_versions;
            let bytes = |u: Usage| u.bytes + u.old_bytes + u.upload_bytes;
            let exceeded = |limit: Option<u64>, was: u64, is: u64| is > was && limit.is_some_and(|l| is > l);
            exceeded(quota.objects, versions(was), versions(is))
                || exceeded(quota.bytes, bytes(was), bytes(is))
        };
        for bucket in self.buckets.values() {
            if over(bucket.quota, before.usage_of(bucket.id), self.usage_of(bucket.id)) {
                return Some(Refusal::QuotaExceeded { tenant: false });
            }
        }
        over(self.quota, before.usage(), self.usage()).then_some(Refusal::QuotaExceeded { tenant: true })
    }

    fn usage(&self) -> Usage {
        let mut total = Usage::default();
        for usage in self.buckets.values().map(|bucket| self.usage_of(bucket.id)) {
            total.objects += usage.objects;
            total.bytes += usage.bytes;
            total.old_versions += usage.old_versions;
            total.old_bytes += usage.old_bytes;
            total.uploads += usage.uploads;
            total.upload_bytes += usage.upload_bytes;
        }
        total
    }

    fn bucket(&self, bucket: BucketId) -> Result<&BucketModel, Refusal> {
        self.buckets.values().find(|b| b.id == bucket).ok_or(Refusal::NoSuchBucket)
    }

    fn set_bucket(&mut self, bucket: BucketId, change: &BucketChange) -> Outcome {
        let row = self.buckets.values_mut().find(|b| b.id == bucket).ok_or(Refusal::NoSuchBucket)?;
        let rule = |rule| Err(Refusal::BucketState(rule));
        match change {
            BucketChange::Versioning(Versioning::Off) if row.versioning != Versioning::Off => {
                return rule(BucketStateRule::VersioningStays);
            }
            BucketChange::Versioning(Versioning::Suspended) if row.lock => {
                return rule(BucketStateRule::LockNeedsVersioning);
            }
            BucketChange::Versioning(versioning) => row.versioning = *versioning,
            BucketChange::EnableObjectLock if row.versioning != Versioning::Enabled => {
                return rule(BucketStateRule::LockNeedsVersioning);
            }
            BucketChange::EnableObjectLock => row.lock = true,
            BucketChange::DefaultRetention(_) if !row.lock => return rule(BucketStateRule::NoObjectLock),
            BucketChange::DefaultRetention(retention) => row.retention = *retention,
            BucketChange::Quota(quota) => row.quota = *quota,
            BucketChange::Document { kind, id, body: Some(body) } => {
                row.documents.insert((*kind, id.clone()), body.clone());
            }
            BucketChange::Document { kind, id, body: None } => {
                row.documents.remove(&(*kind, id.clone()));
            }
        }
        Ok(Response::BucketSet)
    }

    fn delete_bucket(&mut self, name: &str) -> Outcome {
        let bucket = self.buckets.get(name).ok_or(Refusal::NoSuchBucket)?.id;
        let used = self.objects.keys().any(|(b, _)| *b == bucket)
            || self.uploads.keys().any(|(b, _, _)| *b == bucket);
        if used {
            return Err(Refusal::BucketNotEmpty);
        }
        self.buckets.remove(name);
        Ok(Response::BucketDeleted)
    }

    /// The current object of a key: its newest version, unless that is a delete marker.
    fn current(&self, bucket: BucketId, key: &str) -> Option<&Object> {
        self.objects.get(&(bucket, key.to_owned()))?.first().filter(|newest| !newest.marker)
    }

    /// Puts a version in front of the key's others, as the bucket's versioning says.
    fn push(&mut self, bucket: BucketId, key: &str, mut new: Object) -> VersionRef {
        let versioning = self.bucket(bucket).unwrap().versioning;
        new.null = versioning != Versioning::Enabled;
        let mut stack = self.objects.remove(&(bucket, key.to_owned())).unwrap_or_default();
        if let Some(newest) = stack.first().filter(|_| versioning != Versioning::Off)
            && newest.version >= new.version
        {
            let random = new.version.as_bytes()[6..].try_into().unwrap();
            new.version = VersionId::new(UnixMillis::new(newest.version.created().get() + 1), random);
        }
        if new.null {
            for old in stack.extract_if(.., |version| version.null).collect::<Vec<_>>() {
                old.pieces.iter().for_each(|piece| self.release(piece));
            }
        }
        let shown = VersionRef { id: new.version, null: new.null };
        stack.insert(0, new);
        self.objects.insert((bucket, key.to_owned()), stack);
        shown
    }

    fn retained(&self, bucket: BucketId, extras: &ObjectExtras) -> ObjectExtras {
        let mut extras = extras.clone();
        let default = self.bucket(bucket).unwrap().retention;
        extras.retention = extras.retention.or(default.map(|default| {
            let RetentionPeriod::Days(days) = default.period else { unreachable!() };
            let until = UnixMillis::new(self.now.get() + u64::from(days) * 86_400_000);
            Retention { mode: default.mode, until }
        }));
        extras
    }

    fn find(&self, bucket: BucketId, key: &str, selector: VersionSelector) -> Option<usize> {
        self.objects.get(&(bucket, key.to_owned()))?.iter().position(|version| match selector {
            VersionSelector::Null => version.null,
            VersionSelector::Id(id) => version.version == id && !version.null,
        })
    }

    fn set_object(&mut self, set: &SetObject) -> Outcome {
        let lock = self.bucket(set.bucket)?.lock;
        let at = match set.version {
            None => self.current(set.bucket, &set.key).map(|_| 0).ok_or(Refusal::NoSuchKey)?,
            Some(selector) => self.find(set.bucket, &set.key, selector).ok_or(Refusal::NoSuchVersion)?,
        };
        let now = self.now;
        let object = &mut self.objects.get_mut(&(set.bucket, set.key.clone())).unwrap()[at];
        if object.marker {
            return Err(Refusal::DeleteMarker);
        }
        match &set.change {
            ObjectChange::Tags(tags) => object.extras.tags = tags.clone(),
            ObjectChange::Acl(acl) => object.extras.acl = acl.clone(),
            _ if !lock => return Err(Refusal::BucketState(BucketStateRule::NoObjectLock)),
            ObjectChange::LegalHold(on) => object.extras.legal_hold = *on,
            ObjectChange::Retention { retention, bypass_governance } => {
                let weaker = object.extras.retention.filter(|old| old.until > now).is_some_and(|old| {
                    retention.is_none_or(|new| new.mode != old.mode || new.until < old.until)
                        && !(old.mode == RetentionMode::Governance && *bypass_governance)
                });
                if weaker {
                    return Err(Refusal::Locked);
                }
                object.extras.retention = *retention;
            }
        }
        Ok(Response::ObjectSet { version: VersionRef { id: object.version, null: object.null } })
    }

    fn admit(&self, body: &BodyRef) -> Result<(), Refusal> {
        let barred = |id: &StripeId| {
            self.stripes.get(id).is_some_and(|(_, fate)| *fate != Fate::Removed)
                || self.condemned.contains(id)
                || self.stale.values().any(|(stripe, _)| stripe == id)
        };
        match body.stripes().iter().find(|stripe| barred(&stripe.id)) {
            Some(stripe) => Err(Refusal::StripeInUse(stripe.id)),
            None => Ok(()),
        }
    }

    fn keep(&mut self, body: &BodyRef) {
        for stripe in body.stripes() {
            self.stripes.insert(stripe.id, (stripe.clone(), Fate::Live));
        }
    }

    fn release(&mut self, piece: &Piece) {
        for stripe in piece.body.stripes() {
            self.stripes.get_mut(&stripe.id).unwrap().1 = Fate::Dead;
        }
    }

    fn check(&self, there: Option<&Object>, absent: bool, etag: Option<&str>) -> Result<(), Refusal> {
        match (there, etag) {
            (Some(_), _) if absent => Err(Refusal::PreconditionFailed),
            (None, Some(_)) => Err(Refusal::NoSuchKey),
            (Some(object), Some(etag)) if etag != "*" && object.etag != etag => {
                Err(Refusal::PreconditionFailed)
            }
            _ => Ok(()),
        }
    }

    fn put(&mut self, put: &PutObject) -> Outcome {
        check_extras(self.bucket(put.bucket)?.lock, &put.extras)?;
        let current = self.current(put.bucket, &put.key);
        if let Some(same) = current.filter(|o| o.version == put.version) {
            let version = VersionRef { id: same.version, null: same.null };
            return Ok(Response::ObjectPut { version, modified: same.modified });
        }
        self.check(current, put.condition.if_absent, put.condition.if_etag.as_deref())?;
        self.admit(&put.body)?;
        self.keep(&put.body);
        let piece = Piece {
            number: 0,
            size: put.size,
            etag: put.etag.clone(),
            wrapped_key: put.wrapped_key.clone(),
            body: put.body.clone(),
        };
        let object = Object {
            version: put.version,
            null: false,
            marker: false,
            extras: self.retained(put.bucket, &put.extras),
            etag: put.etag.clone(),
            modified: self.now,
            attributes: put.attributes.clone(),
            upload: None,
            pieces: vec![piece],
        };
        let version = self.push(put.bucket, &put.key, object);
        Ok(Response::ObjectPut { version, modified: self.now })
    }

    fn delete(&mut self, bucket: BucketId, item: &DeleteItem) -> Result<Deleted, Refusal> {
        let versioning = self.bucket(bucket)?.versioning;
        let at = match item.version {
            Some(selector) => self.find(bucket, &item.key, selector),
            None => self.current(bucket, &item.key).map(|_| 0),
        };
        let place = (bucket, item.key.clone());
        let there = at.map(|at| &self.objects[&place][at]);
        self.check(there, false, item.if_etag.as_deref())?;
        if item.version.is_none() && versioning != Versioning::Off {
            let marker = Object {
                version: VersionId::new(self.now, item.marker),
                null: false,
                marker: true,
                extras: ObjectExtras::default(),
                etag: String::new(),
                modified: self.now,
                attributes: Bytes::new(),
                upload: None,
                pieces: Vec::new(),
            };
            return Ok(Deleted::Marked { marker: self.push(bucket, &item.key, marker) });
        }
        let Some(at) = at else { return Ok(Deleted::Nothing) };
        let extras = &self.objects[&place][at].extras;
        let retained = extras.retention.is_some_and(|retention| {
            let bypassed = item.bypass_governance && retention.mode == RetentionMode::Governance;
            retention.until > self.now && !bypassed
        });
        if extras.legal_hold || retained {
            return Err(Refusal::Locked);
        }
        let stack = self.objects.get_mut(&place).unwrap();
        let old = stack.remove(at);
        if stack.is_empty() {
            self.objects.remove(&place);
        }
        old.pieces.iter().for_each(|piece| self.release(piece));
        let version = VersionRef { id: old.version, null: old.null };
        Ok(Deleted::Removed { version, marker: old.marker })
    }

    fn put_part(&mut self, put: &PutPart) -> Outcome {
        self.bucket(put.bucket)?;
        let place = (put.bucket, put.key.clone(), put.upload);
        let there = self.uploads.get(&place).ok_or(Refusal::NoSuchUpload)?.parts.get(&put.number).cloned();
        let first = |body: &BodyRef| body.stripes().first().map(|s| s.id);
        if there.as_ref().is_some_and(|p| first(&p.body).is_some() && first(&p.body) == first(&put.body)) {
            return Ok(Response::PartPut);
        }
        self.admit(&put.body)?;
        self.keep(&put.body);
        let piece = Piece {
            number: put.number,
            size: put.size,
            etag: put.etag.clone(),
            wrapped_key: put.wrapped_key.clone(),
            body: put.body.clone(),
        };
        self.uploads.get_mut(&place).unwrap().parts.insert(put.number, piece);
        there.iter().for_each(|piece| self.release(piece));
        Ok(Response::PartPut)
    }

    fn complete(&mut self, complete: &CompleteUpload) -> Outcome {
        self.bucket(complete.bucket)?;
        let of_upload = (complete.bucket, complete.key.clone(), complete.upload);
        let Some(upload) = self.uploads.get(&of_upload).cloned() else {
            let done = self.current(complete.bucket, &complete.key);
            let done = done.filter(|o| o.upload == Some(complete.upload) && o.etag == complete.etag);
            return done.map(|o| Response::UploadCompleted(completed(o))).ok_or(Refusal::NoSuchUpload);
        };
        if complete.parts.is_empty() || !complete.parts.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Refusal::InvalidPartOrder);
        }
        let mut pieces = Vec::new();
        for (number, etag) in &complete.parts {
            let part = upload.parts.get(number).filter(|p| p.etag == *etag);
            pieces.push(part.cloned().ok_or(Refusal::InvalidPart(*number))?);
        }
        for part in &pieces[..pieces.len() - 1] {
            if part.size < PART_SIZE_MIN {
                return Err(Refusal::PartTooSmall {
                    number: part.number,
                    size: part.size,
                    min: PART_SIZE_MIN,
                });
            }
        }
        let condition = &complete.condition;
        let current = self.current(complete.bucket, &complete.key);
        self.check(current, condition.if_absent, condition.if_etag.as_deref())?;
        self.uploads.remove(&of_upload);
        for (number, part) in &upload.parts {
            if !complete.parts.iter().any(|(n, _)| n == number) {
                self.release(part);
            }
        }
        let object = Object {
            version: complete.version,
            null: false,
            marker: false,
            extras: self.retained(complete.bucket, &upload.extras),
            etag: complete.etag.clone(),
            modified: self.now,
            attributes: complete.attributes.clone().unwrap_or(upload.attributes),
            upload: Some(complete.upload),
            pieces,
        };
        let mut answer = completed(&object);
        answer.version = self.push(complete.bucket, &complete.key, object);
        Ok(Response::UploadCompleted(answer))
    }

    fn remove_garbage(&mut self, id: GarbageId) -> bool {
        match id {
            GarbageId::Shards(no) => self.stale.remove(&no).is_some(),
            GarbageId::Stripe(id) => match self.stripes.get_mut(&id) {
                Some((_, fate)) if *fate == Fate::Dead => {
                    *fate = Fate::Removed;
                    true
                }
                _ => false,
            },
        }
    }

    fn move_shards(&mut self, moves: &MoveShards) -> Outcome {
        let live = self.stripes.get(&moves.stripe).filter(|(_, fate)| *fate == Fate::Live);
        let mut stripe = live.ok_or(Refusal::NoSuchStripe)?.0.clone();
        let next = Generation::new(moves.expected.get() + 1);
        let at = |m: &holdfast_catalog::ShardMove| usize::from(m.index.get());
        if stripe.generation == next && moves.moves.iter().all(|m| stripe.places[at(m)] == m.to) {
            return Ok(Response::ShardsMoved { generation: next });
        }
        if stripe.generation != moves.expected || moves.moves.iter().any(|m| stripe.places[at(m)] != m.from) {
            return Err(Refusal::StripeChanged(stripe.generation));
        }
        // Drives that must not get a shard: those that hold one, leave one, or have one unswept.
        let mut used: BTreeSet<DriveId> = stripe.places.iter().map(|p| p.drive).collect();
        let of_stripe = self.stale.values().filter(|(id, _)| *id == moves.stripe);
        used.extend(of_stripe.flat_map(|(_, shards)| shards.iter().map(|(_, place)| place.drive)));
        for m in moves.moves.iter().filter(|m| m.from.drive != m.to.drive) {
            if !used.insert(m.to.drive) {
                return Err(Refusal::PlaceOccupied);
            }
        }
        let left: Shards =
            moves.moves.iter().filter(|m| m.from.drive != m.to.drive).map(|m| (m.index, m.from)).collect();
        for m in &moves.moves {
            stripe.places[at(m)] = m.to;
        }
        stripe.generation = next;
        self.rewrite(&stripe);
        self.stripes.insert(stripe.id, (stripe, Fate::Live));
        if !left.is_empty() {
            self.stale_count += 1;
            self.stale.insert(self.stale_count, (moves.stripe, left));
        }
        Ok(Response::ShardsMoved { generation: next })
    }

    /// Puts the stripe in its new state wherever a body names it.
    fn rewrite(&mut self, stripe: &StripeRef) {
        let of_objects = self.objects.values_mut().flatten().flat_map(|o| &mut o.pieces);
        let of_uploads = self.uploads.values_mut().flat_map(|u| u.parts.values_mut());
        for piece in of_objects.chain(of_uploads) {
            if let BodyRef::Stripes(stripes) = &mut piece.body {
                stripes.iter_mut().filter(|s| s.id == stripe.id).for_each(|s| *s = stripe.clone());
            }
        }
    }

    fn condemn(&mut self, orphan: &Orphan) -> bool {
        if self.stripes.get(&orphan.stripe).is_some_and(|(_, fate)| *fate != Fate::Removed) {
            return false;
        }
        self.condemned.insert(orphan.stripe);
        let of_stripe = self.stale.values().filter(|(id, _)| *id == orphan.stripe);
        let waiting: BTreeSet<DriveId> =
            of_stripe.flat_map(|(_, s)| s.iter().map(|(_, place)| place.drive)).collect();
        let fresh: Shards =
            orphan.shards.iter().copied().filter(|(_, p)| !waiting.contains(&p.drive)).collect();
        if !fresh.is_empty() {
            self.stale_count += 1;
            self.stale.insert(self.stale_count, (orphan.stripe, fresh));
        }
        true
    }

    /// Ids of stripes that an object or part needs.
    pub fn live_stripes(&self) -> Vec<&StripeRef> {
        self.stripes.values().filter(|(_, fate)| *fate == Fate::Live).map(|(stripe, _)| stripe).collect()
    }

    /// A version of a key, or one that is not there when it has fewer.
    pub fn selector(&self, bucket: BucketId, key: &str, which: usize) -> VersionSelector {
        let stack = self.objects.get(&(bucket, key.to_owned()));
        match stack.and_then(|stack| stack.get(which)) {
            Some(version) if !version.null => VersionSelector::Id(version.version),
            Some(_) => VersionSelector::Null,
            None if which.is_multiple_of(2) => VersionSelector::Null,
            None => VersionSelector::Id(crate::common::version(1)),
        }
    }

    /// Compares everything a reader can see with what should be there.
    pub fn check_against(&self, reader: &PartitionReader, drives: impl Iterator<Item = DriveId>) {
        let names: Vec<_> = reader.list_buckets().unwrap().into_iter().map(|b| (b.name, b.id)).collect();
        assert!(names.iter().map(|(name, id)| (name, id)).eq(self.buckets.iter().map(|(n, b)| (n, &b.id))));
        for (name, bucket) in &self.buckets {
            let row = reader.get_bucket(name).unwrap();
            assert_eq!(row.usage, self.usage_of(bucket.id));
            let settings = (row.versioning, row.object_lock, row.retention, row.quota);
            assert_eq!(settings, (bucket.versioning, bucket.lock, bucket.retention, bucket.quota));
            for kind in DocumentKind::ALL {
                let there = reader.documents(name, kind).unwrap().into_iter().map(|d| (d.id, d.body));
                let expected = bucket.documents.iter().filter(|((k, _), _)| *k == kind);
                assert!(there.eq(expected.map(|((_, id), body)| (id.clone(), body.clone()))));
            }
            self.check_listings(reader, name, bucket.id);
        }
        assert_eq!((reader.usage().unwrap(), reader.quota().unwrap()), (self.usage(), self.quota));
        assert_eq!(reader.clock().unwrap(), self.now);
        let name_of = |bucket: &BucketId| self.buckets.iter().find(|(_, b)| b.id == *bucket).unwrap().0;

        for ((bucket, key), stack) in &self.objects {
            for (at, object) in stack.iter().enumerate() {
                let shown = VersionRef { id: object.version, null: object.null };
                let selector =
                    if object.null { VersionSelector::Null } else { VersionSelector::Id(object.version) };
                if object.marker {
                    for (version, named) in [(Some(selector), true), (None, false)] {
                        if named || at == 0 {
                            let error = reader.head_object(name_of(bucket), key, version).unwrap_err();
                            assert!(
                                matches!(error, ReadError::DeleteMarker { version, named: n, .. } if version == shown && n == named)
                            );
                        }
                    }
                    continue;
                }
                let whole = |head: &holdfast_catalog::ObjectHead| 0..head.size;
                let row = reader.get_object_range(name_of(bucket), key, Some(selector), whole).unwrap();
                if at == 0 {
                    assert_eq!(reader.get_object(name_of(bucket), key).unwrap(), row);
                }
                assert_eq!((row.head.version, &row.head.etag), (shown, &object.etag));
                assert_eq!((row.head.modified, &row.head.attributes), (object.modified, &object.attributes));
                let extras = ObjectExtras {
                    tags: row.head.tags.clone(),
                    acl: row.head.acl.clone(),
                    retention: row.head.retention,
                    legal_hold: row.head.legal_hold,
                };
                assert_eq!((row.head.size, &extras), (object.size(), &object.extras));
                assert_eq!(row.content.len(), object.pieces.len());
                let mut offset = 0;
                for (part, piece) in row.content.iter().zip(&object.pieces) {
                    assert_eq!((part.number, part.size, part.offset), (piece.number, piece.size, offset));
                    assert_eq!((&part.wrapped_key, &part.body), (&piece.wrapped_key, &piece.body));
                    offset += piece.size;
                }
            }
        }
        for ((bucket, key, id), upload) in &self.uploads {
            let (row, parts) = reader.list_parts(name_of(bucket), key, *id, 0, 10_000).unwrap();
            assert_eq!(row.attributes, upload.attributes);
            let seen: Vec<_> = parts.iter().map(|p| (p.number, p.size, &p.etag)).collect();
            assert_eq!(seen, upload.parts.values().map(|p| (p.number, p.size, &p.etag)).collect::<Vec<_>>());
        }
        self.check_stripes(reader, drives);
    }

    /// Pages of two, put together, against what there is.
    fn check_listings(&self, reader: &PartitionReader, name: &str, bucket: BucketId) {
        let of_bucket = self.objects.iter().filter(|((b, _), _)| *b == bucket);
        let mut expected = Vec::new();
        for ((_, key), stack) in of_bucket {
            for (at, v) in stack.iter().enumerate() {
                expected.push((key.clone(), v.version, v.null, v.marker, at == 0, v.size(), v.etag.clone()));
            }
        }
        let mut seen = Vec::new();
        let mut next: Option<(String, Option<VersionId>)> = None;
        loop {
            let after = next.as_ref().map(|(key, version)| VersionMarker { key, version: *version });
            let query = VersionQuery { after, limit: 2, ..VersionQuery::default() };
            let page = reader.list_versions(name, &query).unwrap();
            seen.extend(page.versions.into_iter().map(|v| {
                assert_eq!(v.noncurrent_since.is_none(), v.latest);
                (v.key, v.version.id, v.version.null, v.marker, v.latest, v.size, v.etag)
            }));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(seen, expected);
        let page = reader.list(name, &ListQuery { limit: 1000, ..ListQuery::default() }).unwrap();
        let current = expected.iter().filter(|v| v.4 && !v.3).map(|v| (&v.0, &v.1));
        assert!(page.objects.iter().map(|o| (&o.key, &o.version)).eq(current));
    }

    fn usage_of(&self, bucket: BucketId) -> Usage {
        let mut usage = Usage::default();
        for (_, stack) in self.objects.iter().filter(|((b, _), _)| *b == bucket) {
            for (at, object) in stack.iter().enumerate() {
                if at == 0 && !object.marker {
                    usage.objects += 1;
                    usage.bytes += object.size();
                } else {
                    usage.old_versions += 1;
                    usage.old_bytes += object.size();
                }
            }
        }
        for (_, upload) in self.uploads.iter().filter(|((b, _, _), _)| *b == bucket) {
            usage.uploads += 1;
            usage.upload_bytes += upload.parts.values().map(|p| p.size).sum::<u64>();
        }
        usage
    }

    /// Every stripe that was ever referenced is live, garbage or removed: never lost.
    fn check_stripes(&self, reader: &PartitionReader, drives: impl Iterator<Item = DriveId>) {
        let mut on_drives: BTreeMap<DriveId, Vec<StripeId>> = BTreeMap::new();
        for (id, (stripe, fate)) in &self.stripes {
            match reader.stripe(*id).unwrap() {
                None => assert_eq!(*fate, Fate::Removed, "{id}"),
                Some(known) => {
                    assert_eq!((&known.stripe, known.live), (stripe, *fate == Fate::Live), "{id}");
                    assert!(*fate != Fate::Removed && reader.stripe_known(*id).unwrap(), "{id}");
                    stripe
                        .places
                        .iter()
                        .for_each(|place| on_drives.entry(place.drive).or_default().push(*id));
                }
            }
        }
        for drive in drives {
            let held = reader.stripes_on_drive(drive, None, 10_000).unwrap();
            let held: Vec<StripeId> = held.iter().map(|s| s.known.stripe.id).collect();
            assert_eq!(held, on_drives.remove(&drive).unwrap_or_default(), "{drive:?}");
        }
        assert!(on_drives.is_empty(), "shards on drives that were not asked about");
        let garbage = crate::common::all_garbage(reader);
        let mut seen: BTreeMap<GarbageId, Shards> =
            garbage.iter().map(|g| (g.id, g.shards.clone())).collect();
        assert_eq!(seen.len(), garbage.len());
        for (id, (stripe, _)) in self.stripes.iter().filter(|(_, (_, fate))| *fate == Fate::Dead) {
            assert_eq!(seen.remove(&GarbageId::Stripe(*id)).unwrap(), stripe.shards().collect::<Shards>());
        }
        for (no, (_, shards)) in &self.stale {
            assert_eq!(&seen.remove(&GarbageId::Shards(*no)).unwrap(), shards);
        }
        assert!(seen.is_empty(), "garbage that is none: {seen:?}");
    }
}

fn check_extras(lock: bool, extras: &ObjectExtras) -> Result<(), Refusal> {
    let locks = extras.legal_hold || extras.retention.is_some();
    if locks && !lock { Err(Refusal::BucketState(BucketStateRule::NoObjectLock)) } else { Ok(()) }
}

fn completed(object: &Object) -> CompletedUpload {
    CompletedUpload {
        version: VersionRef { id: object.version, null: object.null },
        size: object.size(),
        etag: object.etag.clone(),
        modified: object.modified,
    }
}
