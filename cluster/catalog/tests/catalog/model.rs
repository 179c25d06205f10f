//! What the catalog should be, in plain maps: the oracle for random histories.
//!
//! Written from the rules, without looking at how the tables do it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_catalog::{
    BodyRef, CompleteUpload, CompletedUpload, DeleteItem, GarbageId, MoveShards, Op, Orphan, Outcome,
    PartitionReader, PutObject, PutPart, Refusal, Response, StripeRef, Usage,
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

#[derive(Debug, Clone)]
struct Object {
    version: VersionId,
    etag: String,
    modified: UnixMillis,
    attributes: Bytes,
    upload: Option<UploadId>,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone)]
struct Upload {
    attributes: Bytes,
    parts: BTreeMap<u32, Piece>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Live,
    Dead,
    Removed,
}

type Shards = Vec<(ShardIndex, Place)>;

/// The oracle.
#[derive(Debug, Default)]
pub struct Model {
    buckets: BTreeMap<String, BucketId>,
    objects: BTreeMap<(BucketId, String), Object>,
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
        match op {
            Op::CreatePartition { .. } => Ok(Response::PartitionCreated),
            Op::CreateBucket { bucket, name } => match self.buckets.get(name) {
                Some(existing) if existing == bucket => Ok(Response::BucketCreated),
                Some(existing) => Err(Refusal::BucketAlreadyExists { bucket: *existing }),
                None => {
                    self.buckets.insert(name.clone(), *bucket);
                    Ok(Response::BucketCreated)
                }
            },
            Op::DeleteBucket { name } => self.delete_bucket(name),
            Op::PutObject(put) => self.put(at, put),
            Op::DeleteObjects { bucket, items } => {
                self.bucket(*bucket)?;
                Ok(Response::ObjectsDeleted(items.iter().map(|item| self.delete(*bucket, item)).collect()))
            }
            Op::CreateUpload { bucket, key, upload, attributes } => {
                self.bucket(*bucket)?;
                let new = Upload { attributes: attributes.clone(), parts: BTreeMap::new() };
                self.uploads.entry((*bucket, key.clone(), *upload)).or_insert(new);
                Ok(Response::UploadCreated)
            }
            Op::PutPart(put) => self.put_part(put),
            Op::CompleteUpload(complete) => self.complete(at, complete),
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
            Op::Condemn { stripes } => {
                Ok(Response::Condemned(stripes.iter().map(|orphan| self.condemn(orphan)).collect()))
            }
        }
    }

    fn bucket(&self, bucket: BucketId) -> Result<(), Refusal> {
        self.buckets.values().any(|b| *b == bucket).then_some(()).ok_or(Refusal::NoSuchBucket)
    }

    fn delete_bucket(&mut self, name: &str) -> Outcome {
        let bucket = *self.buckets.get(name).ok_or(Refusal::NoSuchBucket)?;
        let used = self.objects.keys().any(|(b, _)| *b == bucket)
            || self.uploads.keys().any(|(b, _, _)| *b == bucket);
        if used {
            return Err(Refusal::BucketNotEmpty);
        }
        self.buckets.remove(name);
        Ok(Response::BucketDeleted)
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

    fn check(&self, bucket: BucketId, key: &str, absent: bool, etag: Option<&str>) -> Result<(), Refusal> {
        match (self.objects.get(&(bucket, key.to_owned())), etag) {
            (Some(_), _) if absent => Err(Refusal::PreconditionFailed),
            (None, Some(_)) => Err(Refusal::NoSuchKey),
            (Some(object), Some(etag)) if object.etag != etag => Err(Refusal::PreconditionFailed),
            _ => Ok(()),
        }
    }

    fn put(&mut self, at: UnixMillis, put: &PutObject) -> Outcome {
        self.bucket(put.bucket)?;
        let place = (put.bucket, put.key.clone());
        if let Some(same) = self.objects.get(&place).filter(|o| o.version == put.version) {
            return Ok(Response::ObjectPut { modified: same.modified });
        }
        self.check(put.bucket, &put.key, put.condition.if_absent, put.condition.if_etag.as_deref())?;
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
            etag: put.etag.clone(),
            modified: at,
            attributes: put.attributes.clone(),
            upload: None,
            pieces: vec![piece],
        };
        self.replace(place, object);
        Ok(Response::ObjectPut { modified: at })
    }

    fn replace(&mut self, place: (BucketId, String), object: Object) {
        if let Some(old) = self.objects.insert(place, object) {
            old.pieces.iter().for_each(|piece| self.release(piece));
        }
    }

    fn delete(&mut self, bucket: BucketId, item: &DeleteItem) -> Result<Option<VersionId>, Refusal> {
        self.check(bucket, &item.key, false, item.if_etag.as_deref())?;
        let Some(old) = self.objects.remove(&(bucket, item.key.clone())) else { return Ok(None) };
        old.pieces.iter().for_each(|piece| self.release(piece));
        Ok(Some(old.version))
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

    fn complete(&mut self, at: UnixMillis, complete: &CompleteUpload) -> Outcome {
        self.bucket(complete.bucket)?;
        let place = (complete.bucket, complete.key.clone());
        let of_upload = (complete.bucket, complete.key.clone(), complete.upload);
        let Some(upload) = self.uploads.get(&of_upload).cloned() else {
            let done = self.objects.get(&place);
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
        self.check(complete.bucket, &complete.key, condition.if_absent, condition.if_etag.as_deref())?;
        self.uploads.remove(&of_upload);
        for (number, part) in &upload.parts {
            if !complete.parts.iter().any(|(n, _)| n == number) {
                self.release(part);
            }
        }
        let object = Object {
            version: complete.version,
            etag: complete.etag.clone(),
            modified: at,
            attributes: complete.attributes.clone().unwrap_or(upload.attributes),
            upload: Some(complete.upload),
            pieces,
        };
        let answer = completed(&object);
        self.replace(place, object);
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
        let of_objects = self.objects.values_mut().flat_map(|o| &mut o.pieces);
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

    /// Compares everything a reader can see with what should be there.
    pub fn check_against(&self, reader: &PartitionReader, drives: impl Iterator<Item = DriveId>) {
        let names: Vec<_> = reader.list_buckets().unwrap().into_iter().map(|b| (b.name, b.id)).collect();
        assert!(names.iter().map(|(name, id)| (name, id)).eq(self.buckets.iter()));
        let mut total = Usage::default();
        for (name, bucket) in &self.buckets {
            let usage = self.usage_of(*bucket);
            assert_eq!(reader.get_bucket(name).unwrap().usage, usage);
            total.objects += usage.objects;
            total.bytes += usage.bytes;
            total.uploads += usage.uploads;
            total.upload_bytes += usage.upload_bytes;
        }
        assert_eq!(reader.usage().unwrap(), total);
        let name_of = |bucket: &BucketId| self.buckets.iter().find(|(_, b)| *b == bucket).unwrap().0;

        for ((bucket, key), object) in &self.objects {
            let row = reader.get_object(name_of(bucket), key).unwrap();
            assert_eq!((row.head.version, &row.head.etag), (object.version, &object.etag));
            assert_eq!((row.head.modified, &row.head.attributes), (object.modified, &object.attributes));
            assert_eq!(row.head.size, object.size());
            assert_eq!(row.content.len(), object.pieces.len());
            let mut offset = 0;
            for (part, piece) in row.content.iter().zip(&object.pieces) {
                assert_eq!((part.number, part.size, part.offset), (piece.number, piece.size, offset));
                assert_eq!((&part.wrapped_key, &part.body), (&piece.wrapped_key, &piece.body));
                offset += piece.size;
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

    fn usage_of(&self, bucket: BucketId) -> Usage {
        let mut usage = Usage::default();
        for (_, object) in self.objects.iter().filter(|((b, _), _)| *b == bucket) {
            usage.objects += 1;
            usage.bytes += object.size();
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

fn completed(object: &Object) -> CompletedUpload {
    CompletedUpload {
        version: object.version,
        size: object.size(),
        etag: object.etag.clone(),
        modified: object.modified,
    }
}
